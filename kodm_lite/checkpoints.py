"""A trained network in one file: weights, and in the header everything that is needed to use them.

The file is in the safetensors format: the length of a header, a JSON header with the name, shape and place of every
tensor, and raw float32 numbers.  Nothing in it can run.  Its metadata hold one more JSON text, under ``kodm_lite``::

    format          2
    network         kind and options, see kodm_lite.model.describe
    process         its to_dict(), with its kind
    shape           of one image, [C, H, W], or [N] oscillators
    encoding        what phases stand for, see kodm_lite.encoding
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
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from numbers import Integral
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from kodm_lite import checkpoint_header
from kodm_lite.calibration import Calibration
from kodm_lite.checkpoint_header import FORMAT, check_options, check_same, json_text, parse_json, seal, shorten, shown
from kodm_lite.encoding import Encoding
from kodm_lite.files import open_regular, place, write_atomically
from kodm_lite.kinds import process_from_dict
from kodm_lite.model import Model, describe, network_from_dict, unwrapped
from kodm_lite.registry import encodings
from kodm_lite.validation import check_device, check_methods, told

__all__ = [
    "FORMAT",
    "MODEL_FILE",
    "CheckpointError",
    "find",
    "load",
    "load_pretrained",
    "pretrained_names",
    "read_header",
    "save",
]

#: Name of the model in the folder of its training.
MODEL_FILE = "model.safetensors"

StrPath: TypeAlias = str | os.PathLike[str]

_PRETRAINED = Path(__file__).with_name("pretrained")
_MAX_PHASES = 2**22  # of one image
_MAX_MESSAGE = 200  # characters; a hostile header must not flood the terminal


class CheckpointError(ValueError):
    """A file that is no checkpoint, or a damaged one: which file, what was got, what was expected."""


def save(path: StrPath, model: Model) -> None:
    """Write a model to a file, whole or not at all: an interrupted or failed save leaves an older file as it was.

    Args:
        path: where to; ``.safetensors`` is the usual ending.
        model: its network on any device, also compiled; the exponential moving average if there is one.  A network of
            your own is described by its module, its name and its attribute ``config``, see
            :func:`kodm_lite.model.describe`.

    Raises:
        ValueError: weights that are not finite float32, a process other than the network's, a shape that the network
            does not take, a card that JSON would change, a process or network that cannot be described, anything else
            that :func:`load` would refuse.
        OSError: the file cannot be written; names it.
    """
    content = _serialise(model)
    _read_model(io.BytesIO(content), _class_of(model.network))
    write_atomically(place(path), content)


def load(
    name_or_path: StrPath,
    device: torch.device | str | None = None,
    *,
    network: Callable[..., nn.Module] | None = None,
) -> Model:
    """Read a model, its network in evaluation mode and without gradients.

    Args:
        name_or_path: the name of a model that comes with the package, a file of :func:`save`, or the folder of a
            training; "./name" is always a path.
        device: where to put the network, by default the CPU.
        network: the class of a network that is none of the package.

    Raises:
        CheckpointError: another format (pickles are never loaded), a damaged file, a header with values that make no
            model.
        ValueError: neither a name nor a path, a device that this machine does not have.
    """
    if network is not None and not (isinstance(network, type) and issubclass(network, nn.Module)):
        raise ValueError(f"network: got {told(network)}, expected the class of a torch.nn.Module; try type(network)")
    device = check_device(device)
    with _opened(find(name_or_path)) as file:
        model = _read_model(file, network)
    return model if device is None else model.to(device)


def read_header(path: StrPath) -> dict[str, Any]:
    """The header of a file of :func:`save`, its fields as listed at the top of this module; no weight is read.

    Raises:
        CheckpointError: as :func:`load`, as far as the header and the length of the file tell.
    """
    with _opened(path) as file:
        return checkpoint_header.read_header(file)[0]


def pretrained_names() -> list[str]:
    """Names of the models that come with the package, for :func:`load`."""
    return sorted(path.stem for path in _PRETRAINED.glob("*.safetensors"))


def load_pretrained(name: str, device: torch.device | str | None = None) -> Model:
    """A model that comes with the package, and no file of this name.

    Raises:
        ValueError: an unknown name; lists those there are.
    """
    if not isinstance(name, str) or name not in pretrained_names():
        raise ValueError(f"name: got {name!r}, expected one of {pretrained_names()}; try load(path) for a file")
    return load(_PRETRAINED / f"{name}.safetensors", device)


def find(name_or_path: StrPath) -> Path:
    """The file of a model, given by the name of a pretrained one, by that file, or by the folder of its training.

    "./name" is always a path.

    Raises:
        ValueError: neither a name nor a path.
    """
    if isinstance(name_or_path, str) and name_or_path in pretrained_names():
        return _PRETRAINED / f"{name_or_path}.safetensors"
    path = place(name_or_path)
    if len(path.parts) == 1 and not path.suffix and not os.path.lexists(path):  # it looks like a name
        raise ValueError(f"model: got {str(name_or_path)!r}, expected a file, a folder or one of {pretrained_names()}")
    return path / MODEL_FILE if os.path.isdir(path) else path


def _class_of(network: Any) -> Callable[..., nn.Module] | None:
    """The class of a network that is none of the package, which a file alone may not name."""
    network = unwrapped(network)
    return type(network) if ":" in str(describe(network)["kind"]) else None


def _check_parts(model: Model) -> None:
    """Refuse what cannot be described."""
    if not isinstance(model, Model):
        raise ValueError(f"model: got {told(model)}, expected a kodm_lite.Model; try Model(network, process, ...)")
    check_methods("process", model.process, "to_dict")
    check_methods("encoding", model.encoding, "to_dict")
    if not isinstance(model.calibration, Calibration | None):
        raise ValueError(f"calibration: got {told(model.calibration)}, expected a Calibration or None; try None")
    if not isinstance(model.shape, tuple | list) or not all(isinstance(n, Integral) for n in model.shape):
        raise ValueError(f"shape: got {told(model.shape)}, expected that of one sample; try (1, 32, 32)")
    if not isinstance(model.card, dict):
        raise ValueError(f"card: got {told(model.card)}, expected a dictionary; try {{}}")


def _serialise(model: Model) -> bytes:
    _check_parts(model)
    network = unwrapped(model.network)
    if not isinstance(network, nn.Module) or isinstance(network, nn.DataParallel):
        got = type(network).__name__
        raise ValueError(
            f"network: got {got}, expected a torch.nn.Module; try network.module if it is wrapped for training"
        )
    if any(getattr(part, "process", model.process) != model.process for part in network.modules()):
        raise ValueError("process: got another process than the network's, expected the one it was trained for")
    weights = {name.replace("_orig_mod.", ""): _plain(name, x) for name, x in network.state_dict().items()}
    header = {
        "format": FORMAT,
        "network": describe(network),
        "process": model.process.to_dict(),
        "shape": [int(n) for n in model.shape],
        "encoding": model.encoding.to_dict(),
        "calibration": model.calibration and asdict(model.calibration),
        "card": _unchanged_by_json(model.card),
        "parameters": sum(x.numel() for x in weights.values()),
        "weights_sha256": _weights_digest(weights),
    }
    return safetensors.torch.save(weights, {checkpoint_header.KEY: json_text(seal(header))})


def _plain(name: str, weight: Tensor) -> Tensor:
    if weight.dtype != torch.float32 or weight.is_meta:
        got = f"{weight.dtype} on {weight.device}"
        raise ValueError(f"tensor {name!r}: got {got}, expected float32 numbers; try network.float()")
    return weight.detach().cpu().contiguous()


def _unchanged_by_json(card: dict[str, Any]) -> dict[str, Any]:
    try:
        unchanged = parse_json(json_text(card).encode()) == card
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"card: got what is no JSON ({error}), expected a JSON object; try float(x) or str(x)"
        ) from error
    if not unchanged:
        raise ValueError(f"card: got {shown(card)}, expected a JSON object; try lists for tuples, strings as keys")
    return card


@contextlib.contextmanager
def _opened(path: StrPath) -> Iterator[BinaryIO]:
    """The file for reading; whatever its content sets off comes out as a CheckpointError."""
    path = place(path)
    try:
        with open_regular(path, "a checkpoint") as file:
            yield file
    except ValueError as error:
        raise CheckpointError(f"{path}: {shorten(str(error), _MAX_MESSAGE)}") from error
    except (AttributeError, ImportError, NameError):  # a fault of the program, of which no file is guilty
        raise
    except Exception as error:  # any class: torch, safetensors, memory and the disk have their own
        reason = shorten(f"{type(error).__name__}: {error}", _MAX_MESSAGE)
        raise CheckpointError(f"{path}: cannot be read ({reason})") from error


def _read_model(file: BinaryIO, build: Callable[..., nn.Module] | None = None) -> Model:
    header, table = checkpoint_header.read_header(file)
    # Whatever the caller's default device and dtype; and drawing no random numbers of the caller.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        process, shape = _process(header["process"]), tuple(header["shape"])
        network = _network(header["network"], process, "meta", build)  # names and shapes without memory
        _check_table(table, network)
        _check_shape(shape, network, process)
        calibration, encoding = _calibration(header["calibration"]), _encoding(header["encoding"])
        weights = _read_weights(file, header["weights_sha256"])
        network = _network(header["network"], process, "cpu", build).float()
        network.load_state_dict(weights)
    network.eval().requires_grad_(False)
    return Model(network, process, shape, encoding, calibration, header["card"])


def _process(data: dict[str, Any]) -> Any:
    try:
        process = process_from_dict(data)
    except (ValueError, RuntimeError) as error:  # of Python and torch too, for a reference phase of strings
        reason = str(error)[:110]
        raise ValueError(f"process: got none ({reason}), expected what to_dict of a process returns") from error
    check_same("process", data, process.to_dict())
    return process


def _encoding(data: dict[str, Any]) -> Encoding:
    encoding: Encoding = encodings.of(data)(data)
    check_same("encoding", data, encoding.to_dict())
    return encoding


def _network(
    description: dict[str, Any], process: Any, device: str, build: Callable[..., nn.Module] | None
) -> nn.Module:
    if build is None:
        check_options(description)
    with torch.device(device):
        network: nn.Module = network_from_dict(description, process, build)
    check_same("network", description, describe(network))
    return network


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
            raise ValueError(f"tensor {shown(name)}: got {shown(got)}, expected {shown(expected.get(name))}")


def _check_shape(shape: tuple[int, ...], network: nn.Module, process: Any) -> None:
    if math.prod(shape) > _MAX_PHASES:
        raise ValueError(f"shape: got {shape}, expected at most {_MAX_PHASES} phases")
    for part in (network, process):  # either may have nothing to say
        check = getattr(part, "check_shape", None)
        if check is not None:
            check(shape)


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
