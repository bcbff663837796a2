"""Training: every step by hand, going on bit for bit after any end, several processes, and what is refused."""

import copy
import errno
import json
import math
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import HELPFUL, PATIENCE, seeded
from PIL import Image
from safetensors.torch import load_file, save_file

from kodm_lite import (
    KuramotoProcess,
    LinearSchedule,
    LocalCoupling,
    checkpoints,
)
from kodm_lite.data import PhaseData
from kodm_lite.encoding import Angles, GreyLevels
from kodm_lite.networks import PeriodicMLP, PeriodicUNet
from kodm_lite.objectives import MeanField, Transition
from kodm_lite.training import TrainingInterrupted, TrainingOptions, fit, read_log
from kodm_lite.training import run as training
from kodm_lite.training import state as training_state
from kodm_lite.training.batches import Batches
from kodm_lite.training.learner import Learner
from kodm_lite.training.state import ERRORS, Log, Statistics, plain, refuse_non_finite

PROCESS = KuramotoProcess()
CPU = torch.device("cpu")
OPTIONS = TrainingOptions(steps=30, batch_size=8, warmup=4, ema=0.9, save_every=10, log_every=7, validate_every=10)
MEAN_FIELD, TRANSITION = MeanField(steps=8), Transition(steps=10)
LABELLED = {"brick": 0, "grass": 1, "gravel": 2}


def mlp(zero=False, **options):
    """A small network; its last layer, which starts at zero and keeps the others from learning, is random too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PeriodicMLP(2, PROCESS, **{"width": 8, "depth": 1, **options})
        if not zero:
            torch.nn.init.normal_(network.last.weight, std=0.3)
    return network


def oscillators(n=20, seed=1):
    return (torch.rand(n, 2, generator=seeded(seed)) * 2 - 1) * 3


def unet(channels=1, **options):
    """Its weights are in the channels_last layout."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PeriodicUNet(
            channels, PROCESS, **{"width": 8, "multipliers": (1,), "attention": (), "patch": 1, **options}
        )


def images(n=12):
    theta = (torch.rand(n, 1, 4, 4, generator=seeded(2)) * 2 - 1) * 2
    return PhaseData(theta, torch.arange(n) % 3, tuple(LABELLED), 0.9, "noise")


def image_run(out, **changes):
    """The run that is killed, stopped and shared below: a U-Net with labels, validation and a cosine."""
    callback = changes.pop("callback", None)
    options = replace(OPTIONS, shards=2, **changes)
    others = {"objective": MEAN_FIELD, "validation": images(5), "out": out, "progress": False, "callback": callback}
    return fit(unet(classes=3), PROCESS, images(), options, **others)


def quiet(network, data, options=OPTIONS, objective=MEAN_FIELD, **others):
    return fit(network, PROCESS, data, options, objective=objective, progress=False, **others)


def phases(theta, labels=None):
    return PhaseData(theta, labels, (), Angles(), "")


def state(folder):
    return load_file(folder / "state.safetensors")


def header(folder):
    with training_state.safetensors.safe_open(folder / "state.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["training"])


def without_format(folder):
    return {name: value for name, value in header(folder).items() if name != "format"}


def log_without_speed(folder):
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in read_log(folder)]


def numbers(line):
    """All numbers of a line of the log, with -1 for those that it does not have."""
    values = [*line.values(), *line.get("validation", {}).values()]
    flat = [x for v in values if not isinstance(v, dict) for x in (v if isinstance(v, list) else [v])]
    return [-1 if x is None else x for x in flat]


def assert_same_run(one, other):
    """Weights, averages, moments and statistics bit for bit, the same log, the same model."""
    a, b = state(one), state(other)
    assert a.keys() == b.keys() and len(a) > 10
    for name in a:
        assert torch.equal(a[name], b[name]), name
    assert log_without_speed(one) == log_without_speed(other)
    assert header(one)["step"] == header(other)["step"]
    models = [checkpoints.load(folder / "model.safetensors").network.state_dict() for folder in (one, other)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The image run without interruption."""
    folder = tmp_path_factory.mktemp("straight")
    image_run(folder)
    return folder


IMPORT = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import test_training as tests\n"


def start_python(*arguments):
    """Another Python with as many threads as this one: sums over threads are rounded in another order."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "ACCELERATE_USE_CPU": "1"}
    command = [sys.executable, *map(str, arguments)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, env=environment, text=True, **pipes)


# One step


def by_hand(network, data, objective, options):
    """The same training in plain torch: gradients of all shards averaged, clipped, AdamW, running average."""
    model, average = copy.deepcopy(network), copy.deepcopy(network)
    weights, averages = list(model.parameters()), list(average.parameters())
    optimizer = torch.optim.AdamW(weights, weight_decay=options.weight_decay)
    batches = Batches(phases(data), options, CPU)
    for step in range(options.steps):
        gradients = [torch.zeros_like(w) for w in weights]
        for shard in range(options.shards):
            batch = batches.shard(step, shard)
            t = batch.u.square().clamp(min=1e-3) if isinstance(objective, MeanField) else batch.u
            loss = objective(model, PROCESS, batch.theta0, None, t, batch.generator).loss
            for total, gradient in zip(gradients, torch.autograd.grad(loss, weights), strict=True):
                total += gradient / options.shards
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        warm = min(1, (step + 1) / options.warmup)
        cosine = 0.5 + 0.5 * math.cos(math.pi * (step - options.warmup) / (options.steps - options.warmup))
        optimizer.param_groups[0]["lr"] = options.learning_rate * (warm if step < options.warmup else cosine)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient * min(1, options.clip / float(norm))
        optimizer.step()
        keep = min(options.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for a, w in zip(averages, weights, strict=True):
                a.copy_(keep * a + (1 - keep) * w)
    return model, average


@pytest.mark.parametrize(
    ("objective", "shards"),
    [(Transition(steps=10), 1), (Transition(2, 10), 4), (MeanField(steps=8), 2), (MeanField("target", 8), 1)],
)
def test_training_is_what_one_would_write_by_hand(tmp_path, objective, shards):
    options = replace(OPTIONS, shards=shards, steps=12, learning_rate=0.01, ema=0.3, clip=0.2, weight_decay=0.1)
    network, data = mlp(), oscillators()
    model, average = by_hand(network, data, objective, options)
    result = quiet(network, data, options, objective, out=tmp_path)
    stored = state(tmp_path)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(stored[f"weights.{name}"], weight, atol=1e-6, rtol=1e-5)
        assert not torch.allclose(stored[f"weights.{name}"], network.get_parameter(name), atol=1e-3), name
    for name, weight in average.named_parameters():
        torch.testing.assert_close(result.get_parameter(name), weight, atol=1e-6, rtol=1e-5)
        assert torch.equal(stored[f"ema.{name}"], result.get_parameter(name))


def test_the_learning_rate_warms_up_and_follows_a_cosine():
    options = TrainingOptions(steps=110, warmup=10, learning_rate=0.4)
    rates = [options.learning_rate_at(step) for step in range(110)]
    assert rates[:10] == pytest.approx([0.04 * k for k in range(1, 11)])
    assert rates[10] == pytest.approx(0.4) and rates[60] == pytest.approx(0.2)
    assert rates[10:] == sorted(rates[10:], reverse=True) and 0 < rates[-1] < 1e-3
    assert {replace(options, decay="constant").learning_rate_at(step) for step in range(10, 200)} == {0.4}
    assert TrainingOptions(steps=5, warmup=10, learning_rate=1).learning_rate_at(4) == 0.5


def test_the_average_forgets_the_start_fast():
    assert [TrainingOptions(ema=0.5).ema_at(step) for step in (0, 1, 8, 100)] == [0.1, 2 / 11, 0.5, 0.5]


def test_each_epoch_has_every_image_once_and_in_another_order():
    data = phases(torch.arange(10.0)[:, None])
    batches = Batches(data, replace(OPTIONS, batch_size=4, shards=2), CPU)

    def batch(step):
        return torch.stack([batches.shard(step, shard).theta0 for shard in (0, 1)], 1).flatten().tolist()

    order = [image for step in range(5) for image in batch(step)]
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert order[:10] != order[10:] and order[:10] != sorted(order[:10])
    assert Batches(data, replace(OPTIONS, seed=5), CPU).shard(0, 0).theta0.flatten().tolist() != order[:8]


def test_a_batch_may_be_larger_than_the_data():
    batches = Batches(phases(torch.arange(3.0)[:, None]), OPTIONS, CPU)
    assert torch.bincount(batches.shard(0, 0).theta0.long().flatten()).tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


def test_times_are_one_in_each_interval_and_every_shard_has_all_of_them():
    options = replace(OPTIONS, batch_size=20, shards=4)
    batches = Batches(phases(oscillators()), options, CPU)
    seen = []
    for step in range(200):
        shards = [batches.shard(step, shard).u for shard in range(4)]
        t = torch.stack(shards, 1).flatten()
        assert torch.equal((t * 20).ceil(), torch.arange(1.0, 21))
        assert all(((own * 5).ceil() == torch.arange(1, 6)).all() for own in shards)
        seen.append(t * 20 - torch.arange(20))
    assert abs(float(torch.stack(seen).mean()) - 0.5) < 4 * 12**-0.5 / 4000**0.5


def test_a_shard_is_the_same_whatever_was_computed_before():
    batches, fresh = (Batches(phases(oscillators()), replace(OPTIONS, shards=2), CPU) for _ in "ab")
    for step, shard in [(7, 1), (3, 0), (9, 1)]:
        batches.shard(step, shard)
    first, again = batches.shard(3, 1), fresh.shard(3, 1)
    noise = torch.rand(4, generator=first.generator)
    assert torch.equal(first.theta0, again.theta0) and torch.equal(first.u, again.u)
    assert torch.equal(noise, torch.rand(4, generator=again.generator))
    others = [fresh.shard(*key).generator.initial_seed() for key in [(3, 0), (4, 1), (1, 3), (3, 1)]]
    assert len(set(others)) == 4


def test_one_label_in_ten_is_left_out_in_training_and_none_in_validation():
    theta, labels = torch.arange(100.0)[:, None], torch.arange(100) % 3
    batches = Batches(phases(theta, labels), replace(OPTIONS, batch_size=100, shards=2), CPU)
    left_out = 0
    for step in range(100):
        for batch in (batches.shard(step, 0), batches.shard(step, 1)):
            without = batch.label == -1
            assert torch.equal(batch.label[~without], (batch.theta0.flatten().long() % 3)[~without])
            left_out += int(without.sum())
    assert abs(left_out - 1000) < 4 * 30
    assert torch.equal(torch.cat([batch.label for batch in batches.whole()]), labels)


def test_validation_data_are_used_whole_with_all_times_and_always_the_same_noise():
    batches = Batches(phases(oscillators(19)), OPTIONS, CPU)
    first = [(b.theta0, b.u, torch.rand(3, generator=b.generator)) for b in batches.whole()]
    batches.shard(5, 0)
    again = [(b.theta0, b.u, torch.rand(3, generator=b.generator)) for b in batches.whole()]
    assert all(
        torch.equal(x, y) for one, other in zip(first, again, strict=True) for x, y in zip(one, other, strict=True)
    )
    assert torch.equal(torch.cat([theta for theta, _, _ in first]), oscillators(19))
    t = torch.cat([t for _, t, _ in first])
    assert torch.equal((t.sort().values * 19).ceil(), torch.arange(1.0, 20)) and not torch.equal(t, t.sort().values)
    assert len({float(noise[0]) for _, _, noise in first}) == 3


# What it is for


def test_the_loss_goes_down_on_two_oscillators_that_data_lock():
    data = torch.tensor([2.0, -1.0]) + 0.1 * torch.randn(500, 2, generator=seeded(0))
    gains = []
    for steps in (1, 200):
        options = TrainingOptions(steps=steps, batch_size=32, learning_rate=5e-3, warmup=10, validate_every=200)
        network = quiet(
            mlp(zero=True, width=32),
            data,
            options,
            validation=data[:200],
            callback=lambda line, _: gains.append(line.get("validation", {}).get("gain")),
        )
    assert gains[1] < 0.05 and gains[-1] > 0.2
    assert not network.training and type(network) is PeriodicMLP


def test_fit_changes_neither_the_network_nor_torch_nor_signals():
    network, torch_state = mlp(), torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    before = copy.deepcopy(network.state_dict())
    result = quiet(network, oscillators(), validation=oscillators(5))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert all(torch.equal(before[name], x) for name, x in network.state_dict().items())
    assert not any(torch.equal(before[name], x) for name, x in result.state_dict().items())
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_network_from_a_file_is_trained_further(tmp_path):
    quiet(mlp(), oscillators(), replace(OPTIONS, steps=2), out=tmp_path)
    loaded = checkpoints.load(tmp_path / "model.safetensors").network
    further = quiet(loaded, oscillators(), replace(OPTIONS, steps=2))
    assert not torch.equal(further.last.weight, loaded.last.weight)


def test_a_second_training_may_have_another_precision():
    exact, rounded, again = (
        quiet(unet(), images(), replace(OPTIONS, steps=3, precision=p)) for p in ("float32", "bf16", "float32")
    )
    assert torch.equal(exact.first.weight, again.first.weight) and rounded.first.weight.dtype == torch.float32
    assert not torch.equal(exact.first.weight, rounded.first.weight)
    torch.testing.assert_close(exact.first.weight, rounded.first.weight, atol=0.01, rtol=0)


class Spy:
    """What an objective is called with, and what becomes of its loss."""

    def __init__(self, real, change=lambda network, loss: loss):
        self.real, self.change, self.seen = real, change, []
        self.times, self.check = real.times, real.check

    def __call__(self, network, process, x0, label, t, generator):
        self.seen.append(label)
        return self.change(network, self.real(network, process, x0, label, t, generator))


@pytest.mark.parametrize("objective", [MEAN_FIELD, TRANSITION])
def test_labels_go_to_a_network_with_classes_only(objective):
    spy = Spy(objective)
    data, options = images(60), replace(OPTIONS, steps=20, batch_size=20)
    trained = quiet(unet(classes=3), data, options, spy).embedding.label.weight
    labels = torch.cat(spy.seen)
    assert set(labels.tolist()) == {-1, 0, 1, 2} and 10 < int((labels == -1).sum()) < 80
    assert bool((trained != unet(classes=3).embedding.label.weight).any(1).all())
    spy.seen.clear()
    quiet(unet(), data, replace(options, steps=2), spy)
    assert spy.seen == [None, None]


# Going on


@pytest.mark.parametrize("moment", ["after the save of step 10", "half way into the save of step 20"])
def test_a_killed_training_goes_on_bit_for_bit(tmp_path, straight, moment):
    code = """
import os, signal
from pathlib import Path
step, real_write, real_replace = 0, tests.training.write_state, os.replace

def write(path, tensors, header):
    global step
    step = header["step"]
    real_write(path, tensors, header)
    if "after" in sys.argv[2] and step == 10:
        os.kill(os.getpid(), signal.SIGKILL)

def replace(part, path):
    if "half way" in sys.argv[2] and step == 20 and path.name == "state.safetensors":
        os.truncate(part, os.path.getsize(part) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    real_replace(part, path)

tests.training.write_state, os.replace = write, replace
tests.image_run(Path(sys.argv[1]))
"""
    process = start_python("-c", IMPORT + code, tmp_path, moment)
    assert process.wait(timeout=PATIENCE) == -signal.SIGKILL, process.stderr.read()
    assert header(tmp_path)["step"] == 10
    if "half way" in moment:
        assert [line["step"] for line in read_log(tmp_path)][-1] == 20  # which will come again
        assert len(list(tmp_path.glob(".state-*.part"))) == 1
    image_run(tmp_path)
    assert_same_run(tmp_path, straight)
    assert not list(tmp_path.glob("*.part"))


def test_sigterm_from_outside_stops_after_a_step_with_the_state_saved(tmp_path, straight):
    code = """
def wait_for_the_signal(line, network):
    print("logged", flush=True)
    sys.stdin.read()

tests.image_run(sys.argv[1], callback=wait_for_the_signal)
"""
    process = start_python("-c", IMPORT + code, tmp_path)
    assert process.stdout.readline() == "logged\n", process.stderr.read()
    process.terminate()
    _, errors = process.communicate(timeout=PATIENCE)
    step = header(tmp_path)["step"]
    assert step == 8 and process.returncode not in (0, -signal.SIGTERM)
    assert f"TrainingInterrupted: stopped after step {step}, state saved in {tmp_path}; the same command" in errors
    image_run(tmp_path)
    assert_same_run(tmp_path, straight)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_finish(tmp_path, straight, number):
    before = signal.getsignal(number)

    def interrupt(line, network):
        if line["step"] == 14:
            signal.raise_signal(number)

    with pytest.raises(TrainingInterrupted, match="stopped after step 15, state saved"):
        image_run(tmp_path, callback=interrupt)
    assert signal.getsignal(number) == before
    assert header(tmp_path)["step"] == 15
    image_run(tmp_path)
    assert_same_run(tmp_path, straight)


def test_a_signal_after_the_last_step_is_not_lost(tmp_path):
    def interrupt(line, network):
        if "validation" in line and line["step"] == 30:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(TrainingInterrupted, match="stopped after step 30"):
        image_run(tmp_path, callback=interrupt)
    assert header(tmp_path)["step"] == 30


def test_a_second_interrupt_stops_at_once(tmp_path):
    def twice(line, network):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as caught:
        image_run(tmp_path, callback=twice)
    assert type(caught.value) is KeyboardInterrupt and signal.getsignal(signal.SIGINT) == before
    assert header(tmp_path)["step"] == 0


def test_another_thread_than_the_main_one_trains_too(tmp_path, straight):
    thread = threading.Thread(target=image_run, args=(tmp_path,))
    thread.start()
    thread.join()
    assert_same_run(tmp_path, straight)


def test_a_finished_training_gives_its_network_again(tmp_path):
    network, data = mlp(), oscillators()
    first = quiet(network, data, out=tmp_path)
    content = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = quiet(network, data, out=tmp_path, callback=lambda line, network: pytest.fail("nothing is left to do"))
    assert all(torch.equal(x, again.state_dict()[name]) for name, x in first.state_dict().items())
    assert content == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_constant_learning_rates_allow_more_steps_later(tmp_path):
    network, data, options = mlp(), oscillators(), replace(OPTIONS, decay="constant", log_every=5)
    quiet(network, data, options, out=tmp_path / "at once")
    quiet(network, data, replace(options, steps=20), out=tmp_path / "later")
    quiet(network, data, options, out=tmp_path / "later")
    assert_same_run(tmp_path / "at once", tmp_path / "later")
    with pytest.raises(ValueError, match=r"steps: got 20, expected at least the 30 of .*try"):
        quiet(network, data, replace(options, steps=20), out=tmp_path / "later")


def test_what_does_not_matter_may_change_when_a_run_goes_on(tmp_path):
    stop = {"callback": lambda line, network: signal.raise_signal(signal.SIGTERM)}
    with pytest.raises(TrainingInterrupted):
        quiet(mlp(), oscillators(), out=tmp_path / "changed", **stop)
    quiet(mlp(), oscillators(), replace(OPTIONS, save_every=3, validate_every=0, log_every=4), out=tmp_path / "changed")
    quiet(mlp(), oscillators(), out=tmp_path / "straight")
    one, other = state(tmp_path / "changed"), state(tmp_path / "straight")
    assert all(torch.equal(one[name], other[name]) for name in one if name != "statistics")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.5}, "a finished training .* options learning_rate 0.5 in place of 0.001; .* more steps"),
        ({"precision": "bf16"}, "a finished training .* options precision bf16 in place of float32"),
        ({"seed": 3, "batch_size": 4}, "the state of another run .* options seed 0, not 3; .* may start from"),
    ],
)
def test_what_a_finished_training_or_another_one_cannot_have_is_refused(finished, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        quiet(mlp(), oscillators(), replace(OPTIONS, **change), out=finished)
    assert caught.match(HELPFUL) and "data" not in str(caught.value).split("with", 1)[1].split("expected")[0]
    assert header(finished)["step"] == 30


def test_a_finished_training_is_as_finished_for_another_number_of_processes(finished):
    quiet(mlp(), oscillators(), replace(OPTIONS, shards=2), out=finished)


@pytest.mark.parametrize(
    "change", [{"learning_rate": 0.002}, {"batch_size": 4}, {"shards": 2}, {"ema": 0.5}, {"decay": "constant"}, {}]
)
def test_a_training_goes_on_with_other_means_and_says_so(tmp_path, change):
    """More steps of a cosine among them, whose past would have been another."""
    network, data = mlp(), oscillators()
    quiet(network, data, replace(OPTIONS, steps=10), out=tmp_path)
    before = state(tmp_path)
    expected = "; ".join(f"options {name} {value}" for name, value in change.items()) or "options steps 20 in place"
    with pytest.warns(UserWarning, match=f"goes on with .*{expected}"):
        quiet(network, data, replace(OPTIONS, steps=20, **change), out=tmp_path)
    after = state(tmp_path)
    assert header(tmp_path)["step"] == 20 and header(tmp_path)["run"]["options"]["steps"] == 20
    assert [line["step"] for line in read_log(tmp_path) if "loss" in line] == [7, 10, 14, 20]
    for name in before:
        if name.startswith("weights"):
            moved = (after[name] - before[name]).abs().max()
            assert 0 < float(moved) < 0.1, f"{name} went on from where it was"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    quiet(mlp(), oscillators(), out=folder)
    return folder


def test_another_network_process_or_data_set_is_refused(finished):
    with pytest.raises(ValueError, match=r"network depth 1, not 2; expected"):
        quiet(mlp(depth=2), oscillators(), out=finished)
    with pytest.raises(ValueError, match=r"with data sha256 .*, not .*; expected"):
        quiet(mlp(), oscillators(seed=5), out=finished)
    with pytest.raises(ValueError, match=r"with data sha256 .*; data shape \[20, 2\], not \[21, 2\]; expected"):
        quiet(mlp(), oscillators(21), out=finished)
    other = KuramotoProcess(reference_strength=LinearSchedule(0.1, 1.0))
    with pytest.raises(ValueError, match=r"process reference_strength \[0.0045, 4.5\], not \[0.1, 1.0\]"):
        fit(PeriodicMLP(2, other, width=8, depth=1), other, oscillators(), OPTIONS, out=finished, progress=False)


def test_a_state_with_other_weights_is_refused(tmp_path):
    quiet(mlp(), oscillators(), out=tmp_path)
    path, content = tmp_path / "state.safetensors", state(tmp_path)
    training_state.write_state(path, {f"{name}.old": x for name, x in content.items()}, without_format(tmp_path))
    with pytest.raises(ValueError, match=r"with weights of another version of kodm_lite; expected .*try"):
        quiet(mlp(), oscillators(), out=tmp_path)


def test_without_resume_it_starts_anew_and_replaces_everything(tmp_path):
    quiet(mlp(), oscillators(), replace(OPTIONS, steps=40), out=tmp_path / "used")
    quiet(mlp(), oscillators(), out=tmp_path / "used", resume=False)
    quiet(mlp(), oscillators(), out=tmp_path / "new")
    assert_same_run(tmp_path / "used", tmp_path / "new")


def test_weights_from_elsewhere_are_another_run_but_other_facts_are_not(tmp_path):
    quiet(mlp(), oscillators(), out=tmp_path, facts={"start": "a", "licence": "mine"})
    assert checkpoints.load(tmp_path / "model.safetensors").card["licence"] == "mine"
    quiet(mlp(), oscillators(), out=tmp_path, facts={"start": "a", "licence": "yours"})
    with pytest.raises(ValueError, match="resume: got the state of another run .* with start weights a, not b"):
        quiet(mlp(), oscillators(), out=tmp_path, facts={"start": "b"})


@pytest.mark.parametrize("damage", ["lost", "damaged"])
def test_the_state_gives_back_a_model_that_was(tmp_path, damage):
    quiet(mlp(), oscillators(), out=tmp_path, facts={"licence": "mine"})
    path = tmp_path / "model.safetensors"
    before = checkpoints.load(path)
    if damage == "lost":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-5])
    quiet(mlp(), oscillators(), out=tmp_path, facts={"licence": "mine"})
    after = checkpoints.load(path)
    assert after.card["step"] == OPTIONS.steps and after.card["licence"] == "mine"
    assert all(map(torch.equal, before.network.state_dict().values(), after.network.state_dict().values()))


@pytest.mark.parametrize("damage", ["truncated", "one bit", "of another program", "of another format"])
def test_a_damaged_state_is_refused_and_kept(tmp_path, damage):
    quiet(mlp(), oscillators(), replace(OPTIONS, steps=2), out=tmp_path)
    path = tmp_path / "state.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-5])
    elif damage == "one bit":
        content = bytearray(path.read_bytes())
        content[-5] ^= 0x40
        path.write_bytes(content)
    elif damage == "of another program":
        save_file(load_file(path), path)
    else:
        training_state.write_state(path, load_file(path), {**header(tmp_path), "format": 99})
    content = path.read_bytes()
    with pytest.raises(ValueError, match=HELPFUL) as caught:
        quiet(mlp(), oscillators(), replace(OPTIONS, steps=2), out=tmp_path)
    assert str(path) in str(caught.value) and path.read_bytes() == content


def shared_run(out, shards):
    """Without weights whose gradient is zero but for rounding, which Adam would make large."""
    options = replace(OPTIONS, steps=20, shards=shards, learning_rate=0.01, log_every=5)
    quiet(mlp(classes=3), classed(), options, Transition(draws=2, steps=10), validation=classed(), out=out)


def classed():
    return PhaseData(oscillators(), torch.arange(20) % 3, tuple(LABELLED), 0.9, "")


TORCHRUN = "-m torch.distributed.run --standalone --nproc-per-node=2"
ACCELERATE = "-m accelerate.commands.launch --multi_gpu --num_processes=2 --num_machines=1 --mixed_precision=no"


@pytest.mark.parametrize(("launcher", "shards"), [(TORCHRUN, 2), (ACCELERATE, 4)], ids=["torchrun", "accelerate"])
def test_two_processes_train_the_same_network_as_one(tmp_path, launcher, shards):
    """Of four shards each process takes two, one after another, and adds their gradients up."""
    script = tmp_path / "script.py"
    spy = """
real, taken, shards = tests.Batches.shard, [], int(sys.argv[2])
tests.Batches.shard = lambda self, step, shard: taken.append(shard) or real(self, step, shard)
tests.shared_run(sys.argv[1], shards)
own = set(range(int(tests.os.environ["RANK"]), shards, 2))
assert set(taken) == own, f"{own} for this process, not {taken}"
"""
    script.write_text(IMPORT + spy)
    process = start_python(*launcher.split(), script, tmp_path / "two", shards)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    shared_run(tmp_path / "one", shards)
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=1e-5, rtol=1e-5)
    assert checkpoints.load(tmp_path / "two" / "model.safetensors").card["processes"] == 2
    lines = zip(log_without_speed(tmp_path / "one"), log_without_speed(tmp_path / "two"), strict=True)
    for a, b in lines:
        assert numbers(a) == pytest.approx(numbers(b), rel=1e-3)


def test_shards_are_made_for_the_processes_or_refused():
    assert TrainingOptions().for_processes(4).shards == 4
    assert TrainingOptions(shards=8).for_processes(4).shards == 8
    with pytest.raises(ValueError, match="shards: got 6, expected a multiple of the 4 processes; try"):
        TrainingOptions(shards=6, batch_size=60).for_processes(4)
    with pytest.raises(ValueError, match="batch_size: got 64, expected a multiple of the 3 shards; try 66"):
        TrainingOptions().for_processes(3)


# Numbers that are none


def broken_at(step, change):
    """The objective of transitions, with ``change(network, loss)`` for the loss of a step (from 1)."""
    calls = []

    def of(network, loss):
        calls.append(0)
        return change(network, loss) if len(calls) == step else loss

    return Spy(TRANSITION, of)


def infinite_image(network, loss):
    """The third image of eight, with t in (0.25, 0.375], has an error beyond all numbers."""
    error = loss.error.clone()
    error[2, 0] = math.inf
    return loss._replace(loss=loss.loss * math.inf, error=error)


def infinite_gradient(network, loss):
    network.first.bias.register_hook(lambda gradient: gradient * math.inf)
    return loss


@pytest.mark.parametrize("every_step", [True, False], ids=["looking every step", "looking later"])
@pytest.mark.parametrize("change", [infinite_image, infinite_gradient])
def test_nan_stops_the_training_and_names_step_time_and_tensor(tmp_path, monkeypatch, change, every_step):
    monkeypatch.setattr(training.Training, "looks_every_step", property(lambda self: every_step))
    monkeypatch.setattr(training, "description", lambda objective: {"kind": "Transition", **asdict(TRANSITION)})
    network, data, options = mlp(), oscillators(), OPTIONS
    what = "the loss" if change is infinite_image else r"the gradient of first\.bias"
    bin_ = r"\[0\.[23], 0\.[34]\)" if change is infinite_image else r"\[0\.\d, [01]\.\d\)"
    with pytest.raises(FloatingPointError, match=rf"{what} became NaN or infinite in step 16; .* t in {bin_}; .*try"):
        quiet(network, data, options, broken_at(16, change), out=tmp_path)
    assert header(tmp_path)["step"] == 10
    assert all(bool(x.isfinite().all()) for x in state(tmp_path).values())
    assert [line["step"] for line in read_log(tmp_path) if "loss" in line] == [7, 14]
    monkeypatch.undo()
    quiet(network, data, options, TRANSITION, out=tmp_path)  # goes on from the last good state
    quiet(network, data, options, TRANSITION, out=tmp_path / "straight")
    assert_same_run(tmp_path, tmp_path / "straight")


def test_infinite_weights_are_not_written(tmp_path, monkeypatch):
    real = Learner.update

    def update(self, step, batches):
        result = real(self, step, batches)
        if step == 9:
            self.weights[3].data[0] = math.nan
        return result

    monkeypatch.setattr(Learner, "update", update)
    with pytest.raises(FloatingPointError, match=r"weights\.\S+ became NaN or infinite by step 10"):
        quiet(mlp(), oscillators(), out=tmp_path)
    assert header(tmp_path)["step"] == 0


def test_the_first_bad_step_and_its_worst_image_are_named():
    images, norms = np.full((4, 3, 6), 0.5), np.ones((3, 2))
    images[:, :, 0] = np.array([0.05, 0.35, 0.65, 1.0])[:, None]
    refuse_non_finite(5, images, norms, ["a", "b"])
    norms[1:, 1] = np.nan
    images[3, 1, 2] = 7
    with pytest.raises(FloatingPointError, match=r"the gradient of b .* step 6; .* t in \[0.9, 1.0\)"):
        refuse_non_finite(5, images, norms, ["a", "b"])
    images[2, 1, 4] = np.nan
    with pytest.raises(FloatingPointError, match=r"the loss .* step 6; .* t in \[0.6, 0.7\)"):
        refuse_non_finite(5, images, norms, ["a", "b"])


# What is written


def test_the_log_has_means_over_bins_of_time():
    statistics = Statistics()
    rows = [
        [0.05, 2, 1, 3, 10, 20, 5, 15],
        [0.1, 4, 5, 6, 30, 40, 25, 35],
        [1.0, 6, 7, 8, 50, 60, 45, 55],
        [0.95, 8, 9, 10, 70, 80, 65, 75],
    ]
    statistics.add(np.array(rows[:1], np.float32))
    statistics.add(np.array(rows[1:], np.float32))
    assert statistics.loss == 5
    line = statistics.take()
    none = [None] * 7
    assert line["loss"] == 5 and line["error"] == [1, 5, *none, 8]
    assert line["collective_baseline"][-1] == 70 and line["order"] == [5, 25, *none, 55]
    assert math.isnan(statistics.loss)
    assert plain(1.23456789) == 1.2346 and plain(math.inf) is None


def test_a_log_goes_on_without_later_or_broken_lines(tmp_path):
    text = '{"step": 5, "loss": 1.0}\n{"step": 10, "validation": {}}\n{"step": 15, "loss": 0.5}\n{"step": 20, "lo'
    (tmp_path / "log.jsonl").write_text(text)
    assert [line["step"] for line in read_log(tmp_path)] == [5, 10, 15]
    log = Log(tmp_path, 10)
    log.write({"step": 15, "loss": 0.4})
    assert [line["step"] for line in read_log(tmp_path)] == [5, 10, 15] and read_log(tmp_path)[-1]["loss"] == 0.4
    assert read_log(tmp_path / "nowhere") == []


def test_log_lines_say_what_happened_in_their_steps(tmp_path):
    seen = []
    quiet(mlp(), oscillators(), validation=oscillators(4), out=tmp_path, callback=lambda *both: seen.append(both))
    lines = read_log(tmp_path)
    assert lines == [line for line, _ in seen]
    assert [line["step"] for line in lines if "loss" in line] == [7, 14, 21, 28, 30]
    assert [line["step"] for line in lines if "validation" in line] == [10, 20, 30]
    first = lines[0]
    assert first["learning_rate"] == pytest.approx(OPTIONS.learning_rate_at(6), rel=1e-4)
    assert first["images_per_second"] > 0
    for name in ERRORS:
        assert len(first[name]) == 10 and all(value > 0 for value in first[name])
    assert isinstance(seen[0][1], PeriodicMLP)


def test_the_model_file_is_the_network_with_its_card(tmp_path):
    result = image_run(tmp_path)
    model = checkpoints.load(tmp_path / "model.safetensors")
    assert all(torch.equal(x, model.network.state_dict()[name]) for name, x in result.state_dict().items())
    assert model.process == PROCESS and model.shape == (1, 4, 4) and model.encoding.scale == 0.9
    card = model.card
    assert card["data"] == "noise" and card["images"] == 12 and card["step"] == 30 and card["device"] == "cpu"
    assert card["options"] == json.loads(json.dumps(asdict(replace(OPTIONS, shards=2))))
    assert card["objective"] == {"kind": "MeanField", "weighting": "early", "steps": 8}
    assert card["classes"] == list(LABELLED) and model.calibration is not None
    assert card["minutes"] > 0 and card["versions"]["torch"] == torch.__version__
    assert [entry["step"] for entry in card["validations"]] == [10, 20, 30]
    assert card["validations"][2].keys() == {"step", "loss", "gain", "collective_gain", "order_gain"}


def test_minutes_add_up_over_runs(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(training.time, "monotonic", lambda: clock.now)

    def pass_an_hour(line, network):
        clock.now += 3600
        if line["step"] == 14:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(TrainingInterrupted):
        quiet(mlp(), oscillators(), out=tmp_path, callback=pass_an_hour)
    clock.now += 5000
    quiet(mlp(), oscillators(), out=tmp_path, callback=pass_an_hour)
    assert header(tmp_path)["minutes"] == pytest.approx(60 * 5)
    assert read_log(tmp_path)[1]["images_per_second"] == pytest.approx(7 * 8 / 3600, rel=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_samples_are_drawn_from_the_same_seeds(tmp_path, channels, monkeypatch):
    monkeypatch.setattr(training, "PICTURE_STEPS", 3)
    with torch.random.fork_rng():
        network = PeriodicUNet(channels, PROCESS, width=8, multipliers=(1,), attention=(), patch=1)
    theta = images().theta.expand(-1, channels, -1, -1)
    options = replace(OPTIONS, steps=4, sample_every=3, learning_rate=1e-12)
    quiet(network, PhaseData(theta, None, (), 0.9, ""), options, out=tmp_path)
    first, last = (Image.open(tmp_path / "samples" / f"step_00000{k}.png") for k in (3, 4))
    assert first.size == (27 * 19, 27 * 19) and first.mode == {1: "L", 3: "RGB"}[channels]
    assert np.abs(np.asarray(first, int) - np.asarray(last, int)).max() <= 1
    assert np.asarray(first).std() > 10


def test_pictures_need_images_and_a_folder(tmp_path):
    for arguments in (
        {"data": oscillators(), "network": mlp(), "out": tmp_path},
        {"data": images(), "network": unet()},
    ):
        with pytest.raises(ValueError, match=HELPFUL):
            quiet(options=replace(OPTIONS, sample_every=5), **arguments)


def test_a_full_disk_keeps_the_last_state_and_names_the_file(tmp_path, monkeypatch):
    real, saves = os.fsync, []

    def full(descriptor):
        saves.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        if len([path for path in saves if "state" in path]) == 3:  # steps 0 and 10 had room
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device.*saved before is kept.*run the same command") as caught:
        quiet(mlp(), oscillators(), out=tmp_path)
    assert str(tmp_path / "state.safetensors") in str(caught.value) and caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert header(tmp_path)["step"] == 10 and not list(tmp_path.glob("*.part"))
    quiet(mlp(), oscillators(), out=tmp_path)
    quiet(mlp(), oscillators(), out=tmp_path / "straight")
    assert_same_run(tmp_path, tmp_path / "straight")


def test_the_models_of_all_saves_can_be_kept(tmp_path):
    quiet(mlp(), oscillators(), replace(OPTIONS, keep_models=True), out=tmp_path)
    kept = sorted((tmp_path / "models").iterdir())
    assert [path.name for path in kept] == [f"step_{step:06d}.safetensors" for step in (0, 10, 20, 30)]
    assert [checkpoints.load(path).card["step"] for path in kept] == [0, 10, 20, 30]
    weights = [load_file(path) for path in (*kept, tmp_path / "model.safetensors")]
    assert all(torch.equal(weights[-1][name], weights[-2][name]) for name in weights[-1])
    assert any(not torch.equal(weights[-2][name], weights[-3][name]) for name in weights[-1])


def test_a_folder_that_cannot_be_written_fails_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(Learner, "update", lambda *arguments: pytest.fail("this is work"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot be written.*file where a folder is expected") as caught:
        quiet(mlp(), oscillators(), out=tmp_path / "file")
    assert isinstance(caught.value, (NotADirectoryError, FileExistsError))
    with pytest.raises(OSError, match="cannot be written"):
        quiet(mlp(), oscillators(), out=tmp_path / "file" / "below")

    def read_only(*arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(PermissionError, match="cannot be written .Permission denied"):
        quiet(mlp(), oscillators(), out=tmp_path / "read only")


class Own(torch.nn.Module):
    """A network of a reader, with what its constructor takes in ``config``."""

    def __init__(self, process, width=8):
        super().__init__()
        self.config, self.process = {"width": width}, process
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.SiLU(), torch.nn.Linear(width, 2))

    def forward(self, theta, t):
        return self.process.equilibrium_score(theta, t) + self.layers(torch.cat([theta.cos(), theta.sin()], 1))


def test_a_network_of_ones_own_trains_goes_on_and_is_loaded_where_its_class_is_given(tmp_path):
    torch.manual_seed(0)
    network = Own(PROCESS, width=6)
    quiet(network, oscillators(), replace(OPTIONS, steps=10, decay="constant"), out=tmp_path / "two")
    trained = quiet(network, oscillators(), replace(OPTIONS, steps=20, decay="constant"), out=tmp_path / "two")
    quiet(network, oscillators(), replace(OPTIONS, steps=20, decay="constant"), out=tmp_path / "one")
    assert all(map(torch.equal, state(tmp_path / "one").values(), state(tmp_path / "two").values()))
    with pytest.raises(ValueError, match=r"one of the class .*:Own, which is none of kodm_lite.* network=Own"):
        checkpoints.load(tmp_path / "two")
    model = checkpoints.load(tmp_path / "two", network=Own)
    assert model.network.config == {"width": 6} and model.encoding == Angles() and model.calibration is not None
    assert all(map(torch.equal, trained.state_dict().values(), model.network.state_dict().values()))
    assert model.sample(3, steps=2, method="hybrid").shape == (3, 2)
    with pytest.raises(ValueError, match="network: got the class .*Silent, expected .*Own"):
        checkpoints.load(tmp_path / "two", network=Silent)


def test_samples_have_the_contrast_of_the_data(tmp_path):
    """A bare tensor of images has to say what it stands for, and then the model knows it."""
    theta = GreyLevels(0.5).encode(torch.linspace(-1, 1, 64).reshape(4, 1, 4, 4))
    with pytest.raises(ValueError, match=r"encoding: got none with data .* encoding=kodm_lite.GreyLevels\(0.5\)"):
        quiet(unet(), theta, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    quiet(unet(), theta, replace(OPTIONS, steps=1), encoding=GreyLevels(0.5), out=tmp_path / "run")
    model = checkpoints.load(tmp_path / "run")
    assert model.encoding == GreyLevels(0.5) and float(model.decode(theta).max()) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="encoding: got GreyLevels"):
        quiet(unet(), images(), encoding=GreyLevels(0.5))


def test_an_unknown_objective_is_refused():
    with pytest.raises(ValueError, match="objective: got 'mean' for KuramotoProcess, expected one of mean_field"):
        quiet(mlp(), oscillators(), replace(OPTIONS, objective="mean"), None)


def test_where_there_is_no_terminal_lines_tell_the_progress(capsys):
    fit(mlp(), PROCESS, oscillators(), OPTIONS, objective=MEAN_FIELD)
    shown = capsys.readouterr().err
    assert "minutes for all" in shown and [f"step {k} of 30, loss" in shown for k in (7, 14, 8)] == [True, True, False]


def test_the_progress_bar_shows_images_and_loss(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fit(mlp(), PROCESS, oscillators(), OPTIONS, objective=MEAN_FIELD)
    shown = capsys.readouterr().err
    assert "240/240" in shown and "img/s" in shown and "step=30, loss=" in shown
    quiet(mlp(), oscillators())
    assert capsys.readouterr().err == ""


# What is refused


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.full((4, 2), math.nan), "data: got NaN"),
        (torch.full((4, 2), 180.0), "data: got angles up to 180"),
        (torch.zeros(4, 2, dtype=torch.int64), "data: got dtype"),
        (torch.zeros(2), "data: got shape"),
        (torch.zeros(4, 3), r"theta: got shape \(1, 3\), expected \(B, 2\)"),
        (np.zeros((4, 2)), "data: got ndarray"),
    ],
)
def test_data_that_are_no_phases_are_refused(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        quiet(mlp(), data, out=tmp_path / "out")
    with pytest.raises(ValueError, match=message.replace("data:", "validation:")):
        quiet(mlp(), oscillators(), validation=data, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_must_be_the_classes_of_the_network():
    data = images()
    with pytest.raises(
        ValueError, match=r"data, labels: got none, expected one integer from 0 to 2 for each of 12.*try"
    ):
        quiet(unet(classes=3), data.theta)
    for labels, message in (
        (data.labels + 1, r"got numbers from 1 to 3, expected .* try labels - 1"),
        (data.labels + 2, r"got numbers from 2 to 4, .* try a network with more classes"),
        (data.labels[:5], r"got int64 of shape \(5,\)"),
        (torch.nn.functional.one_hot(data.labels), r"got int64 of shape \(12, 3\).*try labels.argmax\(1\)"),
        (data.labels.float(), r"got float32 of shape \(12,\).*try labels.long\(\)"),
        (data.labels.numpy(), r"got ndarray, .*try torch.as_tensor"),
    ):
        with pytest.raises(ValueError, match=f"data, labels: {message}"):
            quiet(unet(classes=3), replace(data, labels=labels))


def test_another_process_than_the_networks_is_refused():
    other = KuramotoProcess(coupling=LocalCoupling(1))
    with pytest.raises(ValueError, match=r"process: got another one .*expected .*try"):
        fit(unet(), other, images(), OPTIONS)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": -1},
        {"steps": 1.5},
        {"batch_size": 10, "shards": 4},
        {"learning_rate": 0.0},
        {"learning_rate": "0.1"},
        {"clip": math.nan},
        {"ema": 1.0},
        {"warmup": -1},
        {"seed": -1},
        {"seed": 10**15},
        {"save_every": None},
        {"decay": "linear"},
        {"objective": MEAN_FIELD},
        {"precision": "fp16"},
        {"compile": "yes"},
        {"keep_models": 3},
    ],
)
def test_options_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match=HELPFUL) as caught:
        TrainingOptions(**change)
    assert next(iter(change)) in str(caught.value)


class Normalised(torch.nn.Module):
    """With running statistics, which the processes of a training would have to share."""

    def __init__(self):
        super().__init__()
        self.norm, self.last = torch.nn.BatchNorm2d(1), torch.nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, theta, t):
        return self.last(self.norm(theta))


class Silent(torch.nn.Module):
    def forward(self, theta, t):
        return torch.zeros_like(theta)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Normalised(), "network: got buffers that change in training"),
        (lambda: Silent(), "network: got parameters of type none"),
        (lambda: unet().double(), "network: got parameters of type torch.float64"),
    ],
)
def test_networks_that_cannot_be_trained_are_refused_and_not_changed(tmp_path, make, message):
    network = make()
    before = [x.clone() for x in network.state_dict().values()]
    with pytest.raises(ValueError, match=message):
        quiet(network, images(), out=tmp_path / "run")
    assert all(map(torch.equal, before, network.state_dict().values()))
    assert not (tmp_path / "run").exists()


def test_labels_of_few_bits_are_labels(tmp_path):
    data = PhaseData(images().theta, torch.zeros(12, dtype=torch.uint8), ("a", "b"), 0.9, "a test", "none")
    quiet(unet(classes=2), data, replace(OPTIONS, steps=1))


def test_what_the_objective_refuses_is_refused_before_anything_is_written(tmp_path):
    strong = KuramotoProcess(reference_strength=LinearSchedule(0.1, 200.0))
    network = PeriodicMLP(2, strong, width=8, depth=1)
    with pytest.raises(ValueError, match="try transition score matching"):
        fit(network, strong, oscillators(), OPTIONS, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_log_with_lines_of_something_else_is_read(tmp_path):
    (tmp_path / "log.jsonl").write_text('5\n{"step": 3}\n["step"]\n{"other": 1}\n{"ste')
    assert read_log(tmp_path) == [{"step": 3}]


def test_every_option_is_explained_on_the_command_line(capsys):
    tyro = pytest.importorskip("tyro")
    options = tyro.cli(TrainingOptions, args=["--steps", "7", "--decay", "constant", "--compile"])
    assert options == TrainingOptions(steps=7, decay="constant", compile=True)
    for name in asdict(options):
        assert f"\n        {name}: " in TrainingOptions.__doc__
