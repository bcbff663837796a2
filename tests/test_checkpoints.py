import copy
import errno
import hashlib
import itertools
import json
import math
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from helpers import PATIENCE, seeded
from torch import nn

from kodm_lite import KuramotoProcess, LocalCoupling, checkpoint_header, checkpoints
from kodm_lite.calibration import Calibration
from kodm_lite.checkpoints import (
    CheckpointError,
    Model,
    find,
    load,
    load_pretrained,
    pretrained_names,
    read_header,
    save,
)
from kodm_lite.encoding import GreyLevels
from kodm_lite.euclidean import VariancePreserving
from kodm_lite.model import describe
from kodm_lite.networks import PeriodicMLP, PeriodicUNet
from kodm_lite.sphere import IsotropicNoise, SphericalNet

CARD = {"name": "küçük", "data": "textures", "metrics": {"fid": [1.5, 2]}, "seed": 0, "licence": None}
CALIBRATION = Calibration((0.25, 1.0), (2.5, 0.125), 0.0625)


def trained(network):
    """Every weight away from its start, so that no two tensors are equal and no output is trivial."""
    generator = seeded(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return network


def oscillators(**options):
    process = KuramotoProcess(LocalCoupling(1, "reflect"), reference_phase=0.25)
    network = trained(PeriodicMLP(4, process, width=16, depth=2, **options))
    return Model(network, process, (4,), GreyLevels(0.9), CALIBRATION, CARD)


def images():
    field = torch.linspace(-3, 3, 64).reshape(1, 8, 8)
    process = KuramotoProcess(LocalCoupling(2), reference_phase=field).scaled(1.7)
    network = PeriodicUNet(1, process, width=8, multipliers=(1, 2), attention=(1,), periodic_boundary=True, classes=3)
    return Model(trained(network), process, (1, 8, 8), GreyLevels(0.8), None, CARD)


MODELS = {"oscillators": oscillators, "images": images}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def scores(network, shape):
    theta = 6 * torch.rand(3, *shape, generator=seeded(1)) - 3
    with torch.no_grad():
        return network(theta.float(), torch.tensor([0.1, 0.5, 1.0], dtype=torch.float32))


def content_of(model, path):
    save(path, model)
    return path.read_bytes()


def taken_apart(content):
    """Table of tensors, our header, raw numbers."""
    start = 8 + int.from_bytes(content[:8], "little")
    table = json.loads(content[8:start])
    return table, json.loads(table.pop("__metadata__")["kodm_lite"]), content[start:]


def sealed(header):
    """With the checksum that an attacker can compute as well."""
    if isinstance(header, dict) and "header_sha256" in header:
        fields = {k: v for k, v in header.items() if k != "header_sha256"}
        header = {
            **fields,
            "header_sha256": hashlib.sha256(json.dumps(fields, ensure_ascii=False).encode()).hexdigest(),
        }
    return header


def put_together(table, header, numbers, metadata="kodm_lite"):
    text = header if isinstance(header, str) else json.dumps(header, ensure_ascii=False)
    start = json.dumps({"__metadata__": {metadata: text}, **table}).encode()
    return len(start).to_bytes(8, "little") + start + numbers


def refusal(path, content):
    """The message with which a content is refused: short, about this file, and thought of by us."""
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and len(message) <= 300, message
    assert "got" in message and "expected" in message and "cannot be read" not in message, message
    return message


def places(value, place=()):
    """Where something can be changed in nested dictionaries and lists."""
    if place:
        yield place
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*place, key))


def at(value, place):
    for key in place:
        value = value[key]
    return value


def changed(value, place, new):
    value = copy.deepcopy(value)
    at(value, place[:-1])[place[-1]] = new
    return value


def without(value, place):
    value = copy.deepcopy(value)
    del at(value, place[:-1])[place[-1]]
    return value


def test_a_loaded_model_is_the_saved_one(model, path):
    save(path, model)
    again = load(path)
    assert torch.equal(scores(again.network, again.shape), scores(model.network, model.shape))
    assert describe(again.network) == describe(model.network)
    assert again.process == model.process and again[2:] == model[2:]
    assert not again.network.training and not any(x.requires_grad for x in again.network.parameters())
    assert all(torch.equal(x, model.network.state_dict()[name]) for name, x in again.network.state_dict().items())
    network, process = load(path)[:2]
    assert network.head.process is process


def test_loaded_weights_keep_the_memory_format(path):
    model = images()
    save(path, model)
    ours, theirs = ({name: x.stride() for name, x in m.network.state_dict().items()} for m in (load(path), model))
    assert ours == theirs


def test_the_header_is_read_without_the_weights(model, path):
    content = bytearray(content_of(model, path))
    content[-4:] = bytes(4)
    path.write_bytes(content)
    header = read_header(path)
    assert header["network"] == describe(model.network) and header["process"] == model.process.to_dict()
    assert (header["shape"], header["encoding"], header["card"]) == (list(model.shape), model.encoding.to_dict(), CARD)
    assert header["parameters"] == sum(x.numel() for x in model.network.parameters())
    with pytest.raises(CheckpointError, match="checksum"):
        load(path)
    path.write_bytes(content[:-4])
    with pytest.raises(CheckpointError, match="file: got .* bytes"):
        read_header(path)


def test_a_model_has_one_file_and_any_safetensors_reader_reads_it(model, path):
    content = content_of(model, path)
    assert content_of(model, path) == content
    weights = safetensors.torch.load_file(path)
    assert all(torch.equal(x, weights.pop(name)) for name, x in model.network.state_dict().items()) and not weights


def test_loading_leaves_the_random_numbers_of_the_caller_alone(model, path):
    save(path, model)
    state = torch.get_rng_state()
    load(path)
    save(path, model)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_default_dtype_and_device_of_the_caller_do_not_matter(model, path):
    expected = scores(model.network, model.shape)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            save(path, model)
            network = load(path).network
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(scores(network, model.shape), expected)
    assert {x.dtype for x in [*network.parameters(), *network.buffers()]} == {torch.float32}


def test_a_device_is_where_the_network_goes(path):
    save(path, oscillators())
    assert {x.device.type for x in load(path, "meta").network.parameters()} == {"meta"}
    for device in ("cuda:77", "blackboard"):
        with pytest.raises(ValueError, match=f"device: got '{device}', expected one of this machine"):
            load(path, device)


def test_a_compiled_network_is_saved_like_any_other(path):
    model = oscillators()
    plain = content_of(model, path)
    assert content_of(model._replace(network=torch.compile(model.network)), path) == plain
    model.network.hidden[1] = torch.compile(model.network.hidden[1])
    assert content_of(model, path) == plain


def deep_object(levels):
    value = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def with_nan(model):
    with torch.no_grad():
        model.network.last.weight[0, 0] = math.nan
    return model


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (with_nan, "tensor 'last.weight': got NaN or infinity, expected finite"),
        (lambda m: m._replace(network=m.network.double()), "got torch.float64 on cpu, expected float32"),
        (lambda m: m._replace(network=m.network.to("meta")), "got torch.float32 on meta, expected float32 numbers"),
        (lambda m: m._replace(network=nn.DataParallel(m.network)), "got DataParallel, .* try network.module"),
        (lambda m: m._replace(process=KuramotoProcess()), "got another process than the network's"),
        (lambda m: m._replace(shape=(5,)), r"shape: got \(5,\), expected \(4,\)"),
        (lambda m: m._replace(card=["name"]), "card: got"),
        (lambda m: m._replace(card={"loss": math.nan}), "card: got what is no JSON"),
        (lambda m: m._replace(card={"loss": torch.zeros(1)}), r"card: got what is no JSON .* try float\(x\)"),
        (lambda m: m._replace(card={"file": Path("x")}), "card: got what is no JSON"),
        (lambda m: m._replace(card={1: "one"}), "card: got .* strings as keys"),
        (lambda m: m._replace(card={"shape": (1, 2)}), "card: got .* lists for tuples"),
        (lambda m: m._replace(card={"half": "\ud800"}), "card: got what is no JSON"),
        (lambda m: m._replace(card={"log": "x" * 2**20}), "card: got .* expected an object"),
        (lambda m: m._replace(card=deep_object(100_000)), "card: got what is no JSON"),
        (lambda m: m._replace(card={"deep": json.loads("[" * 20 + "]" * 20)}), "card: got .* levels at most"),
    ],
)
def test_save_refuses_what_load_would_refuse(path, edit, message):
    with pytest.raises(ValueError, match=message):
        save(path, edit(oscillators()))
    assert not path.exists()


class Wider(PeriodicMLP):
    pass


def test_save_refuses_networks_that_cannot_be_built_again(path):
    model = oscillators()
    save(path, model._replace(network=Wider(4, model.process)))  # of a class that is none of the package
    with pytest.raises(CheckpointError, match="network: got one of the class .*Wider"):
        load(path)
    assert type(load(path, network=Wider).network) is Wider
    with pytest.raises(ValueError, match="network, depth: got 257, expected an integer from 1 to 256"):
        save(path, model._replace(network=PeriodicMLP(4, model.process, width=1, depth=257)))


@pytest.mark.parametrize("shape", [(1, 8), (2, 8, 8), (1, 8, 10), (1, 12, 8), (1, 4, 4), (8, 8), (1, 2**12, 2**12)])
def test_a_shape_has_to_fit_network_and_process(path, shape):
    with pytest.raises(ValueError, match="(shape|reference_phase): got .*, expected"):
        save(path, images()._replace(shape=shape))


def test_a_coupling_must_not_reach_beyond_the_image(path):
    process = KuramotoProcess(LocalCoupling(4))
    with pytest.raises(ValueError, match="radius: got 4 for an image of shape"):
        save(path, Model(PeriodicMLP(4, process, width=8), process, (4,), GreyLevels(0.9), None, {}))


def test_a_truncated_file_is_refused(path):
    content = content_of(oscillators(), path)
    lengths = [*range(0, 12), *range(12, len(content), 41), len(content) - 1]
    for length in lengths:
        refusal(path, content[:length])
    assert len(lengths) > 100
    assert "expected" in refusal(path, content + b"\0")


@pytest.mark.parametrize("name", MODELS)
def test_a_flipped_bit_is_found_wherever_it_is(path, name):
    content = content_of(MODELS[name](), path)
    start = 8 + int.from_bytes(content[:8], "little")
    few = (len(content) - start) // 40
    for position in [*range(16), *range(16, start, start // 200), *range(start, len(content), few)]:
        flipped = bytearray(content)
        flipped[position] ^= 1 << position * 5 % 8
        refusal(path, bytes(flipped))


@pytest.mark.parametrize("length", [0, 1, 100, 2**15, 4 * 2**20 + 1, 2**31, 2**62, 2**63, 2**64 - 1])
def test_a_wrong_length_of_the_header_is_refused(path, length):
    content = content_of(oscillators(), path)
    refusal(path, length.to_bytes(8, "little") + content[8:])


def test_a_giant_header_is_refused_before_it_is_read(path, little_memory):
    with path.open("wb") as file:
        file.write((2**33).to_bytes(8, "little") + b"{")
        file.truncate(2**34)  # sparse: takes no room
    with pytest.raises(CheckpointError, match=f"header: got {2**33} bytes, expected at most"):
        load(path)


WRONG = (None, True, "x", [], {}, [[0]], -1, 10**17)
RIGHT_AFTER_ALL = [(("calibration",), None), (("card",), {})]


@pytest.mark.parametrize("name", MODELS)
def test_every_field_is_checked_for_type_and_value(path, name):
    table, header, numbers = taken_apart(content_of(MODELS[name](), path))
    edits = []
    for place in places(header):
        if place == ("header_sha256",) or (place[0] == "card" and len(place) > 1):
            continue
        if "reference_phase" in place and any(place[2:]):
            continue  # one pixel stands for all
        old = at(header, place)
        edits += [changed(header, place, x) for x in WRONG if x is not old and (place, x) not in RIGHT_AFTER_ALL]
        if place != ("calibration", "damping"):  # the only field that may be missing
            edits.append(without(header, place))
    for edit in edits:
        refusal(path, put_together(table, sealed(edit), numbers))
    assert len(edits) > 200


@pytest.mark.parametrize(
    ("place", "new", "message"),
    [
        (("format",), 3, "format: got 3, expected format 2; try a newer kodm_lite"),
        (("format",), 1.0, "format: got 1.0"),
        (("network", "kind"), "Transformer", "network: got kind 'Transformer', expected one of"),
        (("network", "kind"), ["PeriodicMLP"], "network"),
        (("network", "kind"), "PeriodicUNet", "network: got options"),
        (("network", "heads"), 2, "network: got options"),
        (("network", "width"), 17, "tensor '.*': got .*, expected"),
        (("network", "width"), 16.0, "width: got 16.0, expected an integer"),
        (("network", "depth"), 3, "tensor '.*': got None, expected"),
        (("network", "depth"), 1, "tensor '.*': got .*, expected None"),
        (("network", "dim"), 5, "tensor '.*': got"),
        (("network", "classes"), 2, "tensor '.*': got None"),
        (("process", "diffusion"), [0.0, 0.0], "no noise at all"),
        (("process", "diffusion", 1), 5, "process: got"),
        (("process", "coupling"), {"kind": "local", "radius": 4, "boundary": "periodic"}, "radius: got 4"),
        (("process", "coupling"), {"kind": "local", "radius": 1}, "process: got"),
        (("process", "coupling", "kind"), "telepathic", "process: got"),
        (("process", "reference_phase"), [0.0, 1.0, 2.0], "reference_phase: got shape"),
        (("process", "reference_phase"), [[0.0], [0.0, 1.0]], "expected"),
        (("process", "reference_phase"), 90.0, "radians"),
        (("process", "reference_phase"), "1.0", "reference_phase: got '1.0'"),
        (("shape",), [5], r"shape: got \(5,\)"),
        (("shape",), [1, 2, 2], "shape: got"),
        (("shape",), [4.0], "shape: got"),
        (("shape",), [4, 4, 4, 4], "shape: got"),
        (("encoding", "scale"), 0, "scale: got 0"),
        (("encoding", "kind"), "colours", "encoding: got kind 'colours', expected one of"),
        (("calibration", "times"), [1.0, 0.25], "calibration: got times"),
        (("calibration", "times"), [0.25], "calibration: got times"),
        (("calibration", "times"), [0.25, 1.5], "calibration: got"),
        (("calibration", "second_moments"), [1.0], "calibration: got times"),
        (("calibration", "second_moments", 0), -0.5, "calibration: got"),
        (("calibration", "variance"), [1.0], "calibration: got"),
        (("calibration", "damping"), -0.1, "calibration: got .* and damping"),
        (("calibration", "damping"), 1.5, "calibration: got .* and damping"),
        (("calibration", "damping"), 1.0, "damping: got 1"),
        (("calibration", "damping"), "0.1", "calibration: got"),
        (("calibration", "damping"), True, "calibration: got"),
        (("calibration", "times"), [k / 20_000 for k in range(20_000)], "calibration: got"),
        (("card",), {"log": "x" * 2**20}, "card: got"),
        (("card",), {"a": json.loads("[" * 20 + "]" * 20)}, "levels"),
        (("parameters",), 1, "file: got .* bytes, expected"),
        (("parameters",), 2**40, "parameters: got"),
        (("weights_sha256",), "0" * 64, "weights: got another checksum"),
        (("weights_sha256",), "0" * 63, "weights_sha256: got"),
        (("extra",), 0, "header: got fields .*, expected format"),
    ],
)
def test_a_wrong_field_is_named(path, place, new, message):
    table, header, numbers = taken_apart(content_of(oscillators(), path))
    found = refusal(path, put_together(table, sealed(changed(header, place, new)), numbers))
    assert re.search(message, found), found


def test_a_header_that_was_edited_by_hand_is_refused(path):
    table, header, numbers = taken_apart(content_of(oscillators(), path))
    header["card"]["seed"] = 1
    assert "header: got another checksum" in refusal(path, put_together(table, header, numbers))
    with pytest.raises(CheckpointError, match="header: got another checksum"):
        read_header(path)
    path.write_bytes(put_together(table, sealed(header), numbers))
    assert load(path).card["seed"] == 1


def test_a_calibration_without_damping_has_none(path):
    table, header, numbers = taken_apart(content_of(oscillators(), path))
    del header["calibration"]["damping"]
    path.write_bytes(put_together(table, sealed(header), numbers))
    assert load(path).calibration == CALIBRATION.damped(0.0)


def test_the_table_of_tensors_has_to_be_that_of_the_network(path):
    table, header, numbers = taken_apart(content_of(oscillators(), path))
    header = sealed(header)
    for place in places(table):
        for wrong in WRONG:
            if at(table, place) != wrong:
                refusal(path, put_together(changed(table, place, wrong), header, numbers))
        refusal(path, put_together(without(table, place), header, numbers))
    refusal(path, put_together({**table, "extra": table["last.bias"]}, header, numbers))
    assert "last.bias" in refusal(path, put_together({**without(table, ("last.bias",)), "x": {}}, header, numbers))


def test_swapped_overlapping_and_shifted_tensors_are_refused(path):
    table, header, numbers = taken_apart(content_of(oscillators(), path))
    names = ["hidden.0.weight", "hidden.1.weight"]
    first, second = (table[name]["data_offsets"] for name in names)
    swapped = {**table, names[0]: table[names[1]], names[1]: table[names[0]]}
    assert "another checksum" in refusal(path, put_together(swapped, header, numbers))
    for offsets in (second, [x + 4 for x in first], [x - 4 for x in first], first[::-1], [2**63, 2**63 + 1024]):
        refusal(path, put_together(changed(table, (names[0], "data_offsets"), offsets), header, numbers))


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F64", "I32", "U8", "BOOL", "f32", "F128"])
def test_other_numbers_than_float32_are_refused(path, dtype):
    table, header, numbers = taken_apart(content_of(oscillators(), path))
    message = refusal(path, put_together(changed(table, ("last.bias", "dtype"), dtype), header, numbers))
    assert f"tensor 'last.bias': got ('{dtype}', [8]), expected ('F32', [8])" in message


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(path, bad):
    """With the right checksums: a network that diverged, not a file that was damaged."""
    _, header, _ = taken_apart(content_of(oscillators(), path))
    weights = {name: x.clone() for name, x in safetensors.torch.load_file(path).items()}
    weights["last.bias"][3] = bad
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].numpy().tobytes())
    header = sealed({**header, "weights_sha256": digest.hexdigest()})
    content = safetensors.torch.save(weights, {"kodm_lite": json.dumps(header)})
    assert "tensor 'last.bias': got NaN or infinity" in refusal(path, content)


@pytest.fixture
def little_memory():
    """At most 2 GiB more than now: a failing test must not take the machine with it."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**31, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize(
    "options",
    [
        {"width": 10**6},
        {"width": 2**13, "depth": 2**8},
        {"dim": 2**20, "width": 2**13},
        {"depth": 10**9},
        {"classes": 2**16, "width": 2**13},
        {"kind": "PeriodicUNet", "width": 2**13, "multipliers": [32] * 8, "blocks": 32, "attention": [*range(8)]},
        {"kind": "PeriodicUNet", "multipliers": [1] * 1000},
        {"kind": "PeriodicUNet", "patch": 10**5},
    ],
)
def test_a_header_that_asks_for_a_giant_network_is_refused_at_once(path, options, little_memory, monkeypatch):
    table, header, numbers = taken_apart(content_of(oscillators(), path))
    network = {**header["network"], **options}
    if network["kind"] == "PeriodicUNet":
        network = {"channels": 1, **{k: v for k, v in images_description().items() if k not in options}, **options}
    content = put_together(table, sealed({**header, "network": network}), numbers)
    memory, modules, real = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, [], nn.Module.__init__
    monkeypatch.setattr(nn.Module, "__init__", lambda self, *args: modules.append(type(self)) or real(self, *args))
    refusal(path, content)
    assert len(modules) < 10_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100_000  # kB


def images_description():
    return describe(PeriodicUNet(1, width=8))


def test_the_options_that_are_checked_are_those_of_the_networks():
    sphere = SphericalNet(VariancePreserving(IsotropicNoise(2)), [1.0, 1.0])
    assert set(checkpoint_header._OPTIONS) == {*describe(PeriodicMLP(4)), *images_description(), *describe(sphere)}


HOSTILE_JSON = {
    "no object": "[1, 2]",
    "nothing": "",
    "a number": "1",
    "null": "null",
    "deep lists": "[" * 100_000,
    "deep objects": '{"a":' * 100_000,
    "deep and complete": '{"a":' + "[" * 900 + "]" * 900 + "}",
    "deeper than the limit": '{"a":' + "[" * 17 + "]" * 17 + "}",
    "duplicate": '{"format": 1, "format": 1}',
    "duplicate inside": '{"format": 1, "card": {"a": 1, "a": 2}}',
    "NaN": '{"format": 1, "scale": NaN}',
    "Infinity": '{"format": 1, "scale": Infinity}',
    "minus Infinity": '{"format": 1, "scale": -Infinity}',
    "a float that overflows": '{"format": 1, "scale": 1e999}',
    "an integer of many digits": '{"format": 1' + "0" * 5000 + "}",
    "half a surrogate pair": '{"format": 1, "card": {"a": "\\ud800"}}',
    "a half object": '{"format": 1',
    "two objects": "{}{}",
    "a comment": '{"format": 1} // one',
    "single quotes": "{'format': 1}",
    "a version as text": '{"format": "1"}',
    "the next version": '{"format": 3, "weights": []}',
    "a control character": '{"format": 1, "a": "\x01"}',
    "many lists": '{"format": 1, "card": [' + "[]," * 10_000 + "[]]}",
}


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_hostile_json_is_refused_in_our_header_and_around_it(path, name):
    text = HOSTILE_JSON[name]
    refusal(path, put_together({}, text, b""))
    if text.startswith("{"):
        refusal(path, len(text).to_bytes(8, "little") + text.encode())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"seed": 0', '"seed": 5, "seed": 0', "duplicate keys"),
        ('"format": 2', '"format": 3, "format": 2', "duplicate keys"),
        ('"textures"', '"\\ud800"', "damaged JSON"),
    ],
)
def test_hostile_json_is_refused_in_a_file_that_is_fine_otherwise(path, old, new, message):
    table, header, numbers = taken_apart(content_of(oscillators(), path))
    text = json.dumps(header, ensure_ascii=False)
    assert text.count(old) == 1
    assert message in refusal(path, put_together(table, text.replace(old, new), numbers))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1", "utf-8-sig"])
def test_a_header_in_another_encoding_is_refused(path, encoding):
    content = content_of(oscillators(), path)
    start = 8 + int.from_bytes(content[:8], "little")
    text = content[8:start].decode().encode(encoding)
    refusal(path, len(text).to_bytes(8, "little") + text + content[start:])


def test_a_safetensors_file_of_another_program_is_refused(path):
    weights = {"x": torch.zeros(3)}
    for metadata in (None, {"format": "pt"}, {"kodm_lite": "{}", "format": "pt"}):
        message = refusal(path, safetensors.torch.save(weights, metadata))
        assert "of another program; try re-saving with kodm_lite.checkpoints.save" in message


class Evil:
    """Unpickling this creates a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_pickles_are_named_and_never_loaded(path, tmp_path):
    target = tmp_path / "pwned"
    contents = [pickle.dumps(Evil(target), protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for zipped in (True, False):
        torch.save(Evil(target), path, _use_new_zipfile_serialization=zipped)
        contents.append(path.read_bytes())
    messages = [refusal(path, content) for content in contents]
    assert not target.exists()
    assert all("never loads pickles, because they can run code; try re-saving" in m for m in messages)
    assert all("got a pickle" in m for m in [*messages[2:6], messages[7]]) and "got a zip archive" in messages[6]
    pickle.loads(contents[0])
    assert target.exists(), "the test would not have seen it"


def test_a_pickle_behind_a_valid_start_is_data_only(path, tmp_path):
    content = content_of(oscillators(), path)
    refusal(path, content + pickle.dumps(Evil(tmp_path / "pwned")))
    assert not (tmp_path / "pwned").exists()


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "empty").touch()
    for name, got in {
        "missing": "no such file",
        "missing/file": "no such file",
        "empty/file": "no such file",
        "": "a folder",
        "pipe": "a pipe or device",
        "/dev/zero": "a pipe or device",
        "nul\0": "no such file",
        "loop": "no such file",
        "empty": "a file of 0 bytes",
    }.items():
        for read in (load, read_header):
            got_here = got if name or read is read_header else "no such file"  # load looks for a model in a folder
            with pytest.raises(CheckpointError, match=f"got {got_here}, expected a"):
                read(tmp_path / name)
    with pytest.raises(CheckpointError, match="File name too long"):
        load(tmp_path / ("x" * 1000))


def test_failures_of_the_disk_and_of_memory_are_checkpoint_errors_too(path, monkeypatch):
    save(path, oscillators())
    for error in (PermissionError(errno.EACCES, "Permission denied"), MemoryError("no room"), KeyError("x")):
        monkeypatch.setattr(checkpoints, "open_regular", raising(error))
        with pytest.raises(CheckpointError, match=f"cannot be read \\({type(error).__name__}"):
            load(path)


def raising(error):
    def function(*args, **options):
        raise error

    return function


def full_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", raising(OSError(errno.ENOSPC, "No space left on device")))


def read_only_folder(monkeypatch):
    monkeypatch.setattr(os, "open", raising(PermissionError(errno.EACCES, "Permission denied", "hidden.tmp")))


def failing_rename(monkeypatch):
    monkeypatch.setattr(os, "replace", raising(OSError(errno.EIO, "Input/output error")))


@pytest.mark.parametrize("failure", [full_disk, read_only_folder, failing_rename])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(path, monkeypatch, failure):
    old = content_of(oscillators(), path)
    with monkeypatch.context() as patch:
        failure(patch)
        with pytest.raises(OSError, match="what was saved before is kept") as caught:
            save(path, images())
    assert caught.value.filename == str(path) and caught.value.errno
    assert path.read_bytes() == old and [*path.parent.iterdir()] == [path]


def test_a_disk_that_fills_up_in_the_middle_leaves_the_old_file(path):
    old = content_of(oscillators(), path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(old), limits[1]))
    try:
        with pytest.raises(OSError, match="what was saved before is kept"):
            save(path, images())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == old and [*path.parent.iterdir()] == [path]


def test_an_interrupted_save_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    old = content_of(oscillators(), path)
    monkeypatch.setattr(os, "fsync", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        save(path, images())
    assert path.read_bytes() == old and [*path.parent.iterdir()] == [path]


KILLED = """
import os, signal, sys
from kodm_lite.checkpoints import load, save
from kodm_lite.encoding import GreyLevels
model = load(sys.argv[1])
os.replace = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
save(sys.argv[1], model._replace(encoding=GreyLevels(0.5)))
"""


def test_a_killed_save_leaves_the_old_file(path):
    old = content_of(oscillators(), path)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True, timeout=PATIENCE)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len([*path.parent.iterdir()]) == 2, "it was killed with the new file written"
    assert path.read_bytes() == old and load(path).encoding == GreyLevels(0.9)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(path):
    path.parent.chmod(0o500)
    with pytest.raises(PermissionError, match="what was saved before is kept"):
        save(path, oscillators())


def test_saving_to_a_folder_or_below_a_file_fails_with_its_name(path):
    path.mkdir()
    with pytest.raises(OSError, match="model.safetensors"):
        save(path, oscillators())
    path.rmdir()
    path.touch()
    with pytest.raises(OSError, match="model.safetensors"):
        save(path / "below", oscillators())
    assert [*path.parent.iterdir()] == [path]


def test_others_may_read_what_the_umask_lets_them(path):
    old = os.umask(0o022)
    try:
        save(path, oscillators())
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o644


def test_pretrained_models_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_PRETRAINED", tmp_path / "pretrained")
    assert pretrained_names() == []
    with pytest.raises(ValueError, match=r"name: got 'bricks', expected one of \[\]"):
        load_pretrained("bricks")
    (tmp_path / "pretrained").mkdir()
    for name in ("grass", "bricks"):
        save(tmp_path / "pretrained" / f"{name}.safetensors", oscillators())
    assert pretrained_names() == ["bricks", "grass"]
    assert load_pretrained("bricks").card == CARD
    for name in ("stones", "../pretrained/bricks", "bricks.safetensors", ""):
        with pytest.raises(ValueError, match=r"expected one of \['bricks', 'grass'\]"):
            load_pretrained(name)


def test_a_name_or_a_path_finds_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_PRETRAINED", tmp_path)
    monkeypatch.chdir(tmp_path)
    save("bricks.safetensors", oscillators())
    Path("bricks").touch()
    assert find("bricks") == tmp_path / "bricks.safetensors"
    assert find("./bricks") == find(Path("bricks")) == Path("bricks")
    Path("training").mkdir()
    assert find("training") == Path("training/model.safetensors")
    with pytest.raises(ValueError, match=r"model: got 'stones', expected a file, a folder or one of \['bricks'\]"):
        find("stones")


def test_the_pretrained_models_that_are_shipped_load():
    for name in pretrained_names():
        assert load_pretrained(name).card


@pytest.mark.parametrize("name", ["textures-32", "textures-32-local"])
def test_the_shipped_models_of_textures_are_what_book_and_cards_say(name):
    model, other = load_pretrained(name), load_pretrained("textures-32")
    card, metrics = model.card, model.card["metrics"]
    assert card["name"] == name and model.encoding.scale == 0.5
    assert card["options"]["weighting"] == "early"
    assert metrics["damping"] == pytest.approx(model.calibration.damping, abs=1e-4)
    assert 0 < model.calibration.damping < 0.1
    assert (model.process == other.process) == (name == "textures-32")
    row = metrics["samplers"]["ode"]["100"]
    assert metrics["images"] == 2048 and max(row["ftd"]) <= 1.0
    assert all(abs(share - 1 / 3) <= 0.08 for shares in row["shares"] for share in shares)
    assert max(metrics["samplers"]["ode"]["25"]["ftd"]) <= 2 * min(row["ftd"])
    assert card["licence"] and card["limits"]


def test_three_trainings_of_textures_pass_the_bar_and_the_prior_is_no_bottleneck():
    metrics = load_pretrained("textures-32").card["metrics"]
    rows = metrics["trainings"]
    found = [(row["run"], row["seed"], row["step"]) for row in rows]
    assert found == list(itertools.product(("ode:25", "ode:100"), range(3), (5000, 5500, 6000)))
    for row in rows:
        assert row["images"] == 2048 and row["ftd"] <= 1.0
        assert all(abs(share - 1 / 3) <= 0.08 for share in row["shares"])
    (true_start,), (prior,) = metrics["true_start"]["ftd"], metrics["samplers"]["ode"]["25"]["ftd"]
    assert metrics["true_start_steps"] == 25 and abs(true_start / prior - 1) < 0.2
    comparison = metrics["comparison"]
    assert {"ode", "hybrid", "ancestral", "adams", "euler", "pc"} <= comparison["samplers"].keys()
    assert all(len(run["ftd"]) == 3 for runs in comparison["samplers"].values() for run in runs.values())


def test_models_that_ship_are_small():
    files = list(Path(checkpoints.__file__).with_name("pretrained").glob("*.safetensors"))
    assert files and max(file.stat().st_size for file in files) < 8e6
