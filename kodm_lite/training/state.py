"""What a training run keeps in its folder, and what it counts on the way there.

    state.safetensors   weights, their average, the optimiser's moments and, as JSON, all else that a run goes on from
    model.safetensors   the averaged network alone, see kodm_lite.checkpoints
    log.jsonl           one JSON object per line: training statistics, and the results of validations
    models/             the models of all saves, if they are kept
    samples/            pictures drawn during the training

Files are replaced as a whole or not at all, and nothing in them can run.  Chapter 8 of the book trains with this.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from kodm_lite.checkpoint_header import parse_json, shown
from kodm_lite.data.arrays import PhaseSource
from kodm_lite.files import open_regular, place, storing, write_atomically, written_atomically
from kodm_lite.losses import Loss

__all__ = ["Log", "Statistics", "read_log", "read_state", "write_state"]

FORMAT = 2
_MARK, _UNSEALED = b'"sha256":"', "0" * 64  # before the digest of a file, and in its place until it is known
BINS = 10  # of time, in the log
ERRORS = ("error", "baseline", "collective", "collective_baseline", "order", "order_baseline")
COLUMNS = ("t", "loss", *ERRORS)  # of a table, one row per image

#: Options that do not change what is learnt.
FREE_OPTIONS = frozenset({"save_every", "keep_models", "validate_every", "sample_every", "log_every", "compile"})


def write_state(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Replace the state on disk.

    Args:
        path: of the file.
        tensors: by name; on any device, in any layout.
        header: JSON: "step", "minutes", "validations", and under "run" what must stay the same to go on.

    Raises:
        OSError: the file cannot be written; the one before is still there.
    """
    plain_tensors = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
    text = json.dumps({"format": FORMAT, **header}, allow_nan=False)
    content = safetensors.torch.save(plain_tensors, {"training": text, "sha256": _UNSEALED})
    start = content.index(_MARK) + len(_MARK)
    digest = _digest(content, start).encode()
    with written_atomically(path) as file:
        for part in (content[:start], digest, memoryview(content)[start + len(digest) :]):
            file.write(part)


def read_state(path: Path, tensors: dict[str, Tensor], run: dict[str, Any]) -> dict[str, Any]:
    """Read the state of a run, if it is this run.

    Args:
        path: a file of :func:`write_state`.
        tensors: by name; get the numbers of the file, and keep their device and their layout in memory, with which
            rounding changes.
        run: "network", "process", "data", "options" and what else must be the same of the run that wants to go on.

    Returns:
        The header.

    Raises:
        ValueError: the file is damaged, of another format, or of another run; says what differs.
    """
    try:
        header, stored = _read(path)
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"resume: got {path}, which cannot be read ({error}), expected a state of kodm_lite.training; "
            "try resume=False to start anew"
        ) from error
    different, changed = differences(header["run"], run)
    found, expected = ({name: (x.dtype, x.shape) for name, x in group.items()} for group in (stored, tensors))
    if not different and found != expected:
        different.append("weights of another version of kodm_lite")
    if different:
        raise ValueError(
            f"resume: got the state of another run in {path}, with {'; '.join(different)}; expected no difference; "
            "try another folder, where the training may start from the weights of this one (kodm_lite.load(folder)"
            ".network, or --start FOLDER), or resume=False to start anew"
        )
    finished = header["step"] == run["options"]["steps"]
    if finished and any("shards" not in text for text in changed):  # with other shards it would be as finished
        raise ValueError(
            f"resume: got a finished training in {path}, with {'; '.join(changed)}; expected no difference; try more "
            "steps to go on with what is new, another folder that starts from these weights, or resume=False"
        )
    if header["step"] > run["options"]["steps"]:
        raise ValueError(
            f"steps: got {run['options']['steps']}, expected at least the {header['step']} of {path}; "
            "try more steps, or resume=False to start anew"
        )
    for name, tensor in tensors.items():
        tensor.copy_(stored[name])
    if changed and not finished:
        warnings.warn(f"the training in {path.parent} goes on with {'; '.join(changed)}", stacklevel=2)
    return header


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors; no byte is believed before the digest of all of them is right."""
    with open_regular(path, "a state") as file:
        content = file.read()
    start = content.find(_MARK) + len(_MARK)
    if start < len(_MARK) or content[start : start + len(_UNSEALED)] != _digest(content, start).encode():
        raise ValueError("its content is not what was written, or is of another format")
    length = int.from_bytes(content[:8], "little")
    header = parse_json(json.loads(content[8 : 8 + length])["__metadata__"]["training"].encode())
    rules = {
        "format": lambda x: type(x) is int and x == FORMAT,
        "step": lambda x: type(x) is int and x >= 0,
        "minutes": lambda x: _is_number(x) and x >= 0,
        "validations": lambda x: isinstance(x, list) and all(map(_is_line, x)),
        "run": lambda x: isinstance(x, dict) and all(isinstance(part, dict) for part in x.values()),
    }
    if header.keys() != rules.keys():
        raise ValueError(f"got fields {shown(list(header))}, expected {', '.join(rules)}")
    for name, right in rules.items():
        if not right(header[name]):
            raise ValueError(f"{name}: got {shown(header[name])}, which is none of format {FORMAT}")
    return header, safetensors.torch.load(content)


def _digest(content: bytes, start: int) -> str:
    """Of all bytes but those of the digest itself; not against malice, but against disks."""
    digest = hashlib.sha256(content[:start])
    digest.update(memoryview(content)[start + len(_UNSEALED) :])
    return digest.hexdigest()


def _is_number(x: Any) -> bool:
    return type(x) in (int, float) and math.isfinite(x)


def _is_line(line: Any) -> bool:
    """Whether this is an object with a step and numbers as in the log."""

    def is_value(x: Any) -> bool:
        return x is None or _is_number(x) or (isinstance(x, list) and all(e is None or _is_number(e) for e in x))

    if not isinstance(line, dict) or type(line.get("step")) is not int or line["step"] < 0:
        return False
    validation = line.get("validation", {})
    return isinstance(validation, dict) and all(
        is_value(x) for group in (line, validation) for name, x in group.items() if name != "validation"
    )


def differences(stored: dict[str, Any], wanted: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What makes two runs different ones, and with which other means the same one goes on.

    One text each: "data shape [20, 2], not [19, 2]", and "options learning_rate 0.01 in place of 0.001".  Other options
    are other means to the same end; more steps are what one goes on for, and only change the past of a cosine.
    """
    wanted = json.loads(json.dumps(wanted))  # what a file makes of tuples
    different, changed = [], []
    free = FREE_OPTIONS | ({"steps"} if wanted["options"]["decay"] == "constant" else set())
    for part in wanted | stored:
        before, after = stored.get(part, {}), wanted.get(part, {})
        for name in sorted(after.keys() | before.keys()):
            old, new = (str(entries.get(name))[:40] for entries in (before, after))
            if before.get(name) == after.get(name) or (part == "options" and name in free):
                continue
            if part == "options" and name not in ("seed", "objective"):
                changed.append(f"options {name} {new} in place of {old}")
            else:
                different.append(f"{part} {name} {old}, not {new}")
    return different, changed


_PART = 32  # images


def fingerprint(data: PhaseSource) -> dict[str, Any]:
    """Shape and checksum of a data set."""
    digest = hashlib.sha256()
    for index in torch.arange(data.shape[0]).split(_PART):  # no copy of all data, which may not fit into memory
        digest.update(data.take(index).cpu().contiguous().numpy().data)
    if data.labels is not None:
        digest.update(data.labels.cpu().contiguous().numpy().data)
    return {"shape": list(data.shape), "sha256": digest.hexdigest()}


class Statistics:
    """Sums over the images since the last line of the log, one column per bin of time.

    Args:
        sums: float64 (8, bins), rows as ``COLUMNS``, the first being the number of images.
    """

    def __init__(self) -> None:
        self.sums = np.zeros((len(COLUMNS), BINS))

    def add(self, images: np.ndarray) -> None:
        """Count images (n, 8), columns as ``COLUMNS``."""
        rows = images.astype(np.float64)
        bins = time_bin(rows[:, 0])
        rows[:, 0] = 1
        np.add.at(self.sums.T, bins, rows)

    @property
    def loss(self) -> float:
        """The mean over all images; NaN if there are none."""
        count, loss = self.sums[:2].sum(1)
        return float(loss / count) if count else math.nan

    def take(self) -> dict[str, Any]:
        """The means for the log, the errors as lists over bins of time; starts anew."""
        with np.errstate(invalid="ignore"):
            means = self.sums / self.sums[0]
        line = {"loss": plain(self.loss)}
        line |= {name: plain(row) for name, row in zip(ERRORS, means[2:], strict=True)}
        self.sums = np.zeros_like(self.sums)
        return line


def table(loss: Loss) -> Tensor:
    """What a loss says of its images: (B, 8), columns as ``COLUMNS``, on their device."""
    errors = torch.stack([loss.error, loss.baseline], -1).flatten(1)  # each beside its baseline
    t = loss.t.to(errors, non_blocking=True)
    return torch.cat([torch.stack([t, loss.loss.detach().expand_as(t)], 1), errors], 1)


def time_bin(t: Any) -> Any:
    """Index of the bin of a time in (0, 1], or of several."""
    return np.minimum((np.asarray(t) * BINS).astype(int), BINS - 1)


def plain(x: Any) -> Any:
    """Numbers for JSON: five digits, None for NaN."""
    if np.ndim(x):
        return [plain(entry) for entry in x]
    return float(f"{float(x):.5g}") if math.isfinite(x) else None


def refuse_non_finite(first: int, images: np.ndarray, norms: np.ndarray, names: Sequence[str]) -> None:
    """Stop at a step with a loss or a gradient that is NaN or infinite.

    Args:
        first: number of the first step.
        images: (images, steps, 8), columns as ``COLUMNS``.
        norms: of the gradients (steps, weights).
        names: of the weights.

    Raises:
        FloatingPointError: names the first such step, the tensor, and the time of the image with the largest error.
    """
    bad_loss, bad_gradient = ~np.isfinite(images).all((0, 2)), ~np.isfinite(norms)
    bad = bad_loss | bad_gradient.any(1)
    if not bad.any():
        return
    k = int(bad.argmax())
    what = "the loss" if bad_loss[k] else f"the gradient of {names[bad_gradient[k].argmax()]}"
    errors = np.nan_to_num(images[:, k, 2:].max(1), nan=np.inf)  # of several NaN the first; max keeps NaN
    low = time_bin(images[errors.argmax(), k, 0])
    raise FloatingPointError(
        f"{what} became NaN or infinite in step {first + k}; the image with the largest error has "
        f"t in [{low / BINS}, {(low + 1) / BINS}); what was saved before is kept; try a smaller learning_rate or clip"
    )


class Log:
    """The file log.jsonl of a run.

    Args:
        folder: of the run.
        step: where the run goes on; lines of later steps, which will come again, are removed.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, step: int):
        self.path = folder / "log.jsonl"
        lines = [line for line in read_log(folder) if line["step"] <= step]
        write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def write(self, line: dict[str, Any]) -> None:
        """Add one line."""
        with storing(self.path), self.path.open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")


def read_log(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a run's log; none if there is no log.  A line cut short by a crash, or damaged, is left out.

    Lines with "loss" tell about the images since the line before, in lists over ten bins of time (None: no image);
    lines with "validation" about held-out images.  Every line has a "step".

    Raises:
        ValueError: the log is no file.
    """
    path, lines = place(folder) / "log.jsonl", []
    if not path.exists():
        return []
    try:
        with open_regular(path, "a log") as file:
            texts = file.read().split(b"\n")
    except ValueError as error:
        raise ValueError(f"log: {path}: {error}") from error
    for text in texts:
        with contextlib.suppress(ValueError):
            line = parse_json(text)
            if _is_line(line):
                lines.append(line)
    return lines
