"""A trained network in one file: weights, and in the header everything that is needed to use them.

The file is in the safetensors format: the length of a header, a JSON header with the name, shape and place of every
tensor, and raw float32 numbers.  Nothing in it can run.  Its metadata hold one more JSON text, under ``kodm_lite``::

    format          1
    network         kind and options, see kodm_lite.networks.describe
    process         see KuramotoProcess.to_dict
    shape           of one image, [C, H, W], or [N] oscillators
    scale           of image_to_phase
    calibration     what samplers know of the score: times, second moments, damping (0 if left out); or null
    card            who made this of what, and how good it is: free JSON
    parameters      number of weights
    weights_sha256  of the names and numbers of all tensors
    header_sha256   of all fields above

A file may come from anywhere, so everything is checked before it is believed: sizes before memory is allocated, the
table of tensors against the network that the header describes, every weight before the network is returned.
:func:`save` reads what it is about to write with the same code, so that what it refuses never reaches the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from kodm_lite.files import write_atomically
from kodm_lite.models import Network, Process, network_from_dict, process_from_dict
from kodm_lite.networks import PeriodicMLP, describe
from kodm_lite.process import KuramotoProcess
from kodm_lite.samplers import Calibration
from kodm_lite.sphere.network import SphericalNet

__all__ = [
    "FORMAT",
    "MODEL_FILE",
    "CheckpointError",
    "Model",
    "find",
    "load",
    "load_pretrained",
    "pretrained_names",
    "read_header",
    "save",
]

#: Version of the file format that is written, and the only one that is read.
FORMAT = 1

#: Name of the model in the folder of its training.
MODEL_FILE = "model.safetensors"

StrPath: TypeAlias = str | os.PathLike[str]

_KEY = "kodm_lite"
_PRETRAINED = Path(__file__).with_name("pretrained")
_MAX_HEADER = 4 * 2**20  # bytes; a reference phase for each of 3 x 128 x 128 pixels takes one million
_MAX_CARD = 2**20  # characters
_MAX_PARAMETERS = 2**27  # four times the largest named size
_MAX_PHASES = 2**22  # of one image
_MAX_NESTING = 16
_MAX_MESSAGE = 200  # characters; a hostile header must not flood the terminal


class CheckpointError(ValueError):
    """A file that is no checkpoint, or a damaged one: which file, what was got, what was expected."""


class Model(NamedTuple):
    """A trained network and what it takes to use it; ``network, process, *_ = load(path)``.

    Args:
        network: the score, called as ``network(theta, t)``, or for a diffusion on the sphere the predicted noise.
        process: the forward process that it was trained for.
        shape: of one image (C, H, W), or (N,), or (L^2,) for coefficients on the sphere.
        scale: of :func:`kodm_lite.circular.image_to_phase`; 0.5 for the shipped models of images.
        calibration: for the samplers, or None.
        card: JSON-able facts: name, data, licence, classes, metrics, seed, versions.
    """

    network: Any  # one of Network
    process: Any  # one of Process
    shape: tuple[int, ...]
    scale: float
    calibration: Calibration | None
    card: dict[str, Any]


def save(path: StrPath, model: Model) -> None:
    """Write a model to a file, whole or not at all: an interrupted or failed save leaves an older file as it was.

    Args:
        path: where to; ``.safetensors`` is the usual ending.
        model: its network on any device, also compiled; the exponential moving average if there is one.

    Raises:
        ValueError: weights that are not finite float32, a process other than the network's, a shape that the network
            does not take, a card that JSON would change, anything else that :func:`load` would refuse.
        OSError: the file cannot be written; names it.
    """
    content = _serialise(model)
    _read_model(io.BytesIO(content))
    write_atomically(Path(path), content)


def load(path: StrPath, device: torch.device | str | None = None) -> Model:
    """Read a model, its network in evaluation mode and without gradients.

    Args:
        path: a file of :func:`save`.
        device: where to put the network, by default the CPU.

    Raises:
        CheckpointError: no such file, another format (pickles are never loaded), a damaged file, a header with values
            that make no model.
        ValueError: a device that this machine does not have.
    """
    with _opened(path) as file:
        model = _read_model(file)
    try:
        return model if device is None else model._replace(network=model.network.to(device))
    except (RuntimeError, AssertionError) as error:  # torch raises both, depending on how it was built
        raise ValueError(f"device: got {device!r}, expected one of this machine ({error}); try 'cpu'") from error


def read_header(path: StrPath) -> dict[str, Any]:
    """The header of a file of :func:`save`, its fields as listed at the top of this module; no weight is read.

    Raises:
        CheckpointError: as :func:`load`, as far as the header and the length of the file tell.
    """
    with _opened(path) as file:
        return _read_header(file)[0]


def pretrained_names() -> list[str]:
    """Names of the models that come with the package, for :func:`load_pretrained`."""
    return sorted(path.stem for path in _PRETRAINED.glob("*.safetensors"))


def load_pretrained(name: str, device: torch.device | str | None = None) -> Model:
    """Load a model that comes with the package.

    Raises:
        ValueError: an unknown name; lists those there are.
    """
    if name not in pretrained_names():
        raise ValueError(f"name: got {name!r}, expected one of {pretrained_names()}; try load(path) for a file")
    return load(_PRETRAINED / f"{name}.safetensors", device)


def find(name_or_path: StrPath) -> Path:
    """The file of a model, given by the name of a pretrained one, by that file, or by the folder of its training.

    "./name" is always a path.

    Raises:
        ValueError: neither a name nor a path.
    """
    if name_or_path in pretrained_names():
        return _PRETRAINED / f"{name_or_path}.safetensors"
    if not os.path.exists(name_or_path):
        raise ValueError(f"model: got {str(name_or_path)!r}, expected a file, a folder or one of {pretrained_names()}")
    path = Path(name_or_path)
    return path / MODEL_FILE if path.is_dir() else path


def _serialise(model: Model) -> bytes:
    network = getattr(model.network, "_orig_mod", model.network)  # what torch.compile wraps
    if not isinstance(network, Network):
        raise ValueError(
            f"network: got {type(network).__name__}, expected a network of kodm_lite; "
            "try network.module if it is wrapped for training"
        )
    if any(getattr(part, "process", model.process) != model.process for part in network.modules()):
        raise ValueError("process: got another process than the network's, expected the one it was trained for")
    weights = {name.replace("_orig_mod.", ""): _plain(name, x) for name, x in network.state_dict().items()}
    header = {
        "format": FORMAT,
        "network": describe(network),
        "process": model.process.to_dict(),
        "shape": [int(n) for n in model.shape],
        "scale": model.scale,
        "calibration": model.calibration and asdict(model.calibration),
        "card": _unchanged_by_json(model.card),
        "parameters": sum(x.numel() for x in weights.values()),
        "weights_sha256": _weights_digest(weights),
    }
    header["header_sha256"] = _header_digest(header)
    return safetensors.torch.save(weights, {_KEY: _json_text(header)})


def _plain(name: str, weight: Tensor) -> Tensor:
    if weight.dtype != torch.float32 or weight.is_meta:
        got = f"{weight.dtype} on {weight.device}"
        raise ValueError(f"tensor {name!r}: got {got}, expected float32 numbers; try network.float()")
    return weight.detach().cpu().contiguous()


def _unchanged_by_json(card: dict[str, Any]) -> dict[str, Any]:
    try:
        unchanged = _parse_json(_json_text(card).encode()) == card
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"card: got what is no JSON ({error}), expected a JSON object; try float(x) or str(x)"
        ) from error
    if not unchanged:
        raise ValueError(f"card: got {_shown(card)}, expected a JSON object; try lists for tuples, strings as keys")
    return card


@contextlib.contextmanager
def _opened(path: StrPath) -> Iterator[BinaryIO]:
    """The file for reading; whatever its content sets off comes out as a CheckpointError."""
    path = Path(path)
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            got = "a folder" if path.is_dir() else "a pipe or device" if path.exists() else "no such file"
            raise ValueError(f"got {got}, expected a checkpoint; try another path")
        with path.open("rb") as file:
            yield file
    except ValueError as error:
        raise CheckpointError(f"{path}: {_shorten(str(error), _MAX_MESSAGE)}") from error
    except Exception as error:  # any class: torch, safetensors, memory and the disk have their own
        reason = _shorten(f"{type(error).__name__}: {error}", _MAX_MESSAGE)
        raise CheckpointError(f"{path}: cannot be read ({reason})") from error


def _read_model(file: BinaryIO) -> Model:
    header, table = _read_header(file)
    # Whatever the caller's default device and dtype; and drawing no random numbers of the caller.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        process, shape = _process(header["process"]), tuple(header["shape"])
        network = _network(header["network"], process, "meta")  # names and shapes without memory
        _check_table(table, network)
        _check_shape(shape, network, process)
        calibration = _calibration(header["calibration"])
        weights = _read_weights(file, header["weights_sha256"])
        network = _network(header["network"], process, "cpu").float()
        network.load_state_dict(weights)
    network.eval().requires_grad_(False)
    return Model(network, process, shape, float(header["scale"]), calibration, header["card"])


def _read_header(file: BinaryIO) -> tuple[dict[str, Any], dict[str, Any]]:
    """Our header with all fields checked on their own, and the table of tensors as it is."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    if start[8:] != b"{" or length > size - 8:
        raise ValueError(
            f"got {_guess(start, size)}, expected a whole safetensors file; kodm_lite never loads pickles, because "
            "they can run code; try re-saving with kodm_lite.checkpoints.save"
        )
    if length > _MAX_HEADER:
        raise ValueError(f"header: got {length} bytes, expected at most {_MAX_HEADER}; no model needs more")
    table = _parse_json(start[8:] + file.read(length - 1))
    metadata = table.pop("__metadata__", None)
    if not isinstance(metadata, dict) or set(metadata) != {_KEY} or not isinstance(metadata[_KEY], str):
        raise ValueError(
            f"metadata: got {_shown(metadata)}, expected one text under {_KEY!r}: the file is of another program; "
            "try re-saving with kodm_lite.checkpoints.save"
        )
    header = _parse_json(metadata[_KEY].encode())
    _check_header(header)
    expected = 8 + length + 4 * header["parameters"]
    if size != expected:
        raise ValueError(f"file: got {size} bytes, expected {expected}; try to copy or download it again")
    return header, table


def _guess(start: bytes, size: int) -> str:
    if size < 10:
        return f"a file of {size} bytes"
    if start.startswith(b"PK"):
        return "a zip archive, which is how torch.save writes pickles"
    return "a pickle" if start.startswith(b"\x80") else "a truncated or unknown file"


def _parse_json(text: bytes) -> dict[str, Any]:
    """A JSON object without what Python's parser forgives: NaN, huge numbers, duplicate keys, deep nesting."""
    try:
        value = json.loads(
            text.decode(),
            object_pairs_hook=_without_duplicates,
            parse_constant=_finite,
            parse_float=_finite,
            parse_int=_short_integer,
        )
        _json_text(value).encode()  # half a surrogate pair can be escaped in JSON, and never be printed
    except (UnicodeError, json.JSONDecodeError) as error:
        raise ValueError(f"header: got damaged JSON, expected valid JSON ({error})") from error
    except RecursionError:
        value = None
    if not (isinstance(value, dict) and _nested_at_most(_MAX_NESTING, value)):
        raise ValueError(f"header: got no JSON object, or a deep one, expected {_MAX_NESTING} levels at most")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError(f"header: got duplicate keys, {_shown([key for key, _ in pairs])}, expected each one once")
    return result


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"header: got the number {_shown(text)}, expected a finite one")
    return value


def _short_integer(text: str) -> int:
    if len(text) > 18:  # more are no 64-bit number
        raise ValueError(f"header: got an integer of {len(text)} digits, expected at most 18")
    return int(text)


def _nested_at_most(levels: int, value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels >= 0 and all(_nested_at_most(levels - 1, x) for x in inner)


class _Rule(NamedTuple):
    """What a value of the header has to be, for the machine and for the reader of its complaint."""

    accepts: Callable[[Any], bool]
    text: str

    def check(self, name: str, value: Any) -> None:
        if not self.accepts(value):
            raise ValueError(f"{name}: got {_shown(value)}, expected {self.text}")


def _integer(low: int, high: int) -> _Rule:
    return _Rule(lambda x: type(x) is int and low <= x <= high, f"an integer from {low} to {high}")  # True is none


def _number(low: float, high: float) -> _Rule:
    return _Rule(lambda x: type(x) in (int, float) and low <= x <= high, f"a number from {low} to {high}")


def _list(item: _Rule, shortest: int, longest: int) -> _Rule:
    return _Rule(
        lambda x: isinstance(x, list) and shortest <= len(x) <= longest and all(map(item.accepts, x)),
        f"a list, {shortest} to {longest} times {item.text}",
    )


def _optional(rule: _Rule) -> _Rule:
    return _Rule(lambda x: x is None or rule.accepts(x), f"null or {rule.text}")


_ANY_OBJECT = _Rule(lambda x: isinstance(x, dict), "an object")
_DIGEST = _Rule(lambda x: isinstance(x, str) and len(x) == 64, "64 hexadecimal digits")
_CARD = _Rule(lambda x: isinstance(x, dict) and len(_json_text(x)) <= _MAX_CARD, f"an object, {_MAX_CARD} characters")
_FORMAT = _Rule(lambda x: type(x) is int and x == FORMAT, f"format {FORMAT}; try a newer kodm_lite")
_NUMBERS = _list(_number(0, 1e12), 1, 10_000)
_SHARE = _number(0, 1)
_CALIBRATION = _Rule(
    lambda x: (
        isinstance(x, dict)
        and set(x) - {"damping"} == {"times", "second_moments"}
        and _NUMBERS.accepts(x["times"])
        and _NUMBERS.accepts(x["second_moments"])
        and _SHARE.accepts(x.get("damping", 0))
    ),
    "times and second_moments, lists of up to 10000 numbers from 0 to 1e12, and damping, a number from 0 to 1",
)

_FIELDS = {
    "format": _FORMAT,
    "network": _ANY_OBJECT,
    "process": _ANY_OBJECT,
    "shape": _list(_integer(1, 2**20), 1, 3),
    "scale": _number(1e-6, 1),
    "calibration": _optional(_CALIBRATION),
    "card": _CARD,
    "parameters": _integer(1, _MAX_PARAMETERS),
    "weights_sha256": _DIGEST,
    "header_sha256": _DIGEST,
}

# Bounds on what a description may ask for: at most a second of work before its tensors are compared with the file's.
_OPTIONS = {
    "kind": _Rule(lambda x: isinstance(x, str), "a name"),
    "dim": _integer(1, 2**20),
    "channels": _integer(1, 2**10),
    "width": _integer(1, 2**13),
    "depth": _integer(1, 2**8),
    "multipliers": _list(_integer(1, 32), 1, 8),
    "blocks": _integer(1, 32),
    "patch": _integer(1, 64),
    "attention": _list(_integer(0, 7), 0, 8),
    "periodic_boundary": _Rule(lambda x: isinstance(x, bool), "true or false"),
    "classes": _optional(_integer(0, 2**16)),
    "spectrum": _list(_number(1e-12, 1e12), 1, 512),
    "oversampling": _number(1, 4),
}


def _check_header(header: dict[str, Any]) -> None:
    _FORMAT.check("format", header.get("format"))  # first: another version may have other fields
    if header.keys() != _FIELDS.keys():
        raise ValueError(f"header: got fields {_shown(list(header))}, expected {', '.join(_FIELDS)}")
    for name, rule in _FIELDS.items():
        rule.check(name, header[name])
    if header["header_sha256"] != _header_digest(header):
        raise ValueError("header: got another checksum, expected that of its content; it was damaged or edited")


def _process(data: dict[str, Any]) -> Process:
    try:
        process = process_from_dict(data)
    except (ValueError, RuntimeError) as error:  # of Python and torch too, for a reference phase of strings
        reason = str(error)[:110]
        raise ValueError(f"process: got none ({reason}), expected what to_dict of a process returns") from error
    _check_same("process", data, process.to_dict())
    return process


def _network(description: dict[str, Any], process: Process, device: str) -> Network:
    for name, value in description.items():
        if name in _OPTIONS:  # others are none of the network's
            _OPTIONS[name].check(f"network, {name}", value)
    with torch.device(device):
        network = network_from_dict(description, process)
    _check_same("network", description, describe(network))
    return network


def _check_same(name: str, got: dict[str, Any], expected: dict[str, Any]) -> None:
    """As JSON, where 1 and true differ: Python forgives a flag for a number, and fills in a missing option."""
    if json.dumps(got, sort_keys=True) != json.dumps(expected, sort_keys=True):
        raise ValueError(f"{name}: got {_shown(got)}, expected {_shown(expected)}")


def _calibration(data: dict[str, Any] | None) -> Calibration | None:
    if data is None:
        return None
    times, moments = (tuple(map(float, data[name])) for name in ("times", "second_moments"))
    return Calibration(times, moments, float(data.get("damping", 0)))


def _check_table(table: dict[str, Any], network: torch.nn.Module) -> None:
    expected = {name: ("F32", list(x.shape)) for name, x in network.state_dict().items()}
    for name in sorted(expected.keys() | table.keys()):
        entry = table.get(name)
        got = (entry.get("dtype"), entry.get("shape")) if isinstance(entry, dict) else entry
        if got != expected.get(name):
            raise ValueError(f"tensor {_shown(name)}: got {_shown(got)}, expected {_shown(expected.get(name))}")


def _check_shape(shape: tuple[int, ...], network: Network, process: Process) -> None:
    if isinstance(network, SphericalNet):
        if shape != (network.L**2,):
            raise ValueError(f"shape: got {shape}, expected {(network.L**2,)}, coefficients of L = {network.L}")
        return
    if isinstance(network, PeriodicMLP):
        fits, expected = shape == network.shape, f"{network.shape}"
    else:
        fits = len(shape) == 3 and shape[0] == network.channels and not any(n % network.stride for n in shape[1:])
        expected = f"({network.channels}, H, W) with H and W multiples of {network.stride}"
    if not fits or math.prod(shape) > _MAX_PHASES:
        raise ValueError(f"shape: got {shape}, expected {expected} and at most {_MAX_PHASES} phases")
    image = torch.zeros(1, *shape, dtype=torch.float32, device="cpu")
    process.validate(image, "shape")
    if isinstance(process, KuramotoProcess):
        process.drift(image, 1.0)  # refuses an image smaller than the reach of its coupling


def _read_weights(file: BinaryIO, digest: str) -> dict[str, Tensor]:
    file.seek(0)
    try:
        weights = safetensors.torch.load(file.read())
    except SafetensorError as error:
        raise ValueError(f"tensors: got {error}, expected tensors that fill the file; try to copy it again") from error
    if digest != _weights_digest(weights):
        raise ValueError("weights: got another checksum than the header's, expected the same; try to copy it again")
    for name, weight in weights.items():
        if not bool(torch.isfinite(weight).all()):
            raise ValueError(f"tensor {name!r}: got NaN or infinity, expected finite numbers; try earlier weights")
    return weights


def _weights_digest(weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].numpy().data)
    return digest.hexdigest()


def _header_digest(header: dict[str, Any]) -> str:
    fields = {name: value for name, value in header.items() if name != "header_sha256"}
    return hashlib.sha256(_json_text(fields).encode()).hexdigest()


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _shown(value: Any) -> str:
    return _shorten(repr(value), 60)


def _shorten(text: str, length: int) -> str:
    """The start of a text, where a message says what was got, and more of its end, where it says what was expected."""
    start = length // 3
    return text if len(text) <= length else f"{text[:start]} ... {text[start + 5 - length :]}"
