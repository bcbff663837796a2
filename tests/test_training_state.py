"""What a training reads back: every flipped bit is found, every wrong type refused, the log never blocks."""

import copy
import hashlib
import json
import signal

import pytest
import torch
from safetensors.torch import save

from kodm_lite import KuramotoProcess
from kodm_lite.encoding import Angles
from kodm_lite.networks import PeriodicMLP
from kodm_lite.training import TrainingInterrupted, TrainingOptions, fit, read_log
from kodm_lite.training.state import read_state, write_state

RUN = {"network": {"kind": "small"}, "data": {"sha256": "12"}, "options": {"steps": 20, "decay": "cosine"}}
HEADER = {"step": 10, "minutes": 0.5, "validations": [{"step": 10, "loss": 0.25, "gain": None}], "run": RUN}


def tensors():
    return {"a": torch.arange(3.0), "statistics": torch.ones(2, 2, dtype=torch.float64)}


@pytest.fixture
def path(tmp_path):
    write_state(tmp_path / "state.safetensors", tensors(), HEADER)
    return tmp_path / "state.safetensors"


def test_a_state_comes_back(path):
    into = {name: torch.zeros_like(x) for name, x in tensors().items()}
    assert read_state(path, into, RUN) == {"format": 2, **HEADER}
    assert all(torch.equal(into[name], x) for name, x in tensors().items())


def test_every_flipped_bit_of_a_state_is_found(path):
    content = path.read_bytes()
    into = {name: torch.zeros_like(x) for name, x in tensors().items()}
    for k in range(8 * len(content)):
        changed = bytearray(content)
        changed[k // 8] ^= 1 << k % 8
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="resume: got .*state.safetensors, which cannot be read.*try resume=False"):
            read_state(path, into, RUN)
    assert not any(x.any() for x in into.values()), "nothing was taken over"


def sealed(content):
    """With the right digest, so that what is in it is looked at."""
    start = content.index(b'"sha256":"') + 10
    digest = hashlib.sha256(content[:start] + content[start + 64 :]).hexdigest()
    return content[:start] + digest.encode() + content[start + 64 :]


@pytest.mark.parametrize("value", [None, True, -1, 1.5, "10", [], [1], {}, {"step": "a"}, [{"step": "a"}], [[]]])
@pytest.mark.parametrize("name", ["format", "step", "minutes", "validations", "run"])
def test_fields_of_wrong_types_are_refused(path, name, value):
    if (name, value) in [("minutes", 1.5), ("validations", [])]:
        return
    header = {"format": 2, **copy.deepcopy(HEADER), name: value}
    if name == "run" and value == {}:
        expected = "network kind None, not small"
    else:
        expected = "cannot be read"
    text = json.dumps(header)
    path.write_bytes(sealed(save(tensors(), {"training": text, "sha256": "0" * 64})))
    with pytest.raises(ValueError, match=f"resume: .*state.safetensors.*{expected}"):
        read_state(path, tensors(), RUN)


def test_integers_are_not_rounded_in(path):
    write_state(path, {**tensors(), "a": torch.arange(3)}, HEADER)
    with pytest.raises(ValueError, match="weights of another version"):
        read_state(path, tensors(), RUN)


def training(folder, steps=10, **others):
    process = KuramotoProcess()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PeriodicMLP(2, process, width=4, depth=1)
    options = TrainingOptions(steps=steps, batch_size=4, warmup=2, log_every=5, save_every=5, validate_every=0)
    theta = torch.linspace(-3, 3, 16).reshape(8, 2)
    return fit(network, process, theta, options, encoding=Angles(), out=folder, progress=False, **others)


def test_no_flipped_bit_of_the_log_blocks_or_changes_another_line(tmp_path):
    training(tmp_path)
    log, lines = tmp_path / "log.jsonl", read_log(tmp_path)
    content, start = log.read_bytes(), len(log.read_bytes().split(b"\n")[0]) + 1
    assert len(lines) == 2
    for k in range(8 * (start - 1)):
        changed = bytearray(content)
        changed[k // 8] ^= 1 << k % 8
        log.write_bytes(changed)
        found = read_log(tmp_path)
        assert found[-1] == lines[1] and len(found) <= 3
        assert all(type(line["step"]) is int for line in found)


DAMAGED = (b"\xff", b'{"step":"a"}', b'{"step": true}', b'{"step": NaN}', b'{"step": 1, "loss": "x"}')


@pytest.mark.parametrize("line", DAMAGED)
def test_a_damaged_log_does_not_block_a_training(tmp_path, line):
    training(tmp_path / "straight")

    def stop(entry, network):
        if entry["step"] == 5:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(TrainingInterrupted):
        training(tmp_path / "run", callback=stop)
    with (tmp_path / "run" / "log.jsonl").open("ab") as file:
        file.write(line + b"\n")
    training(tmp_path / "run")
    logs = [[entry["loss"] for entry in read_log(tmp_path / name)] for name in ("run", "straight")]
    assert len(logs[0]) >= 2 and logs[0][-1] == logs[1][-1]


def test_two_trainings_do_not_share_a_folder(tmp_path):
    def second(entry, network):
        with pytest.raises(ValueError, match="out: got .* in which process .* trains"):
            training(tmp_path)

    training(tmp_path, callback=second)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "model.safetensors", "state.safetensors"]


def test_the_terminal_that_closes_stops_it_with_the_state_saved(tmp_path):
    if not hasattr(signal, "SIGHUP"):
        pytest.skip("Windows has no such signal")
    at_first = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests that nohup started would ignore it
    try:
        with pytest.raises(TrainingInterrupted, match="state saved"):
            training(tmp_path, callback=lambda *both: signal.raise_signal(signal.SIGHUP))
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, at_first)
