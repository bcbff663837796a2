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
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from kodm_lite.files import storing, write_atomically
from kodm_lite.objectives import Loss

__all__ = ["Log", "Statistics", "read_log", "read_state", "write_state"]

FORMAT = 1
BINS = 10  # of time, in the log
ERRORS = ("error", "baseline", "collective", "collective_baseline", "order", "order_baseline")
COLUMNS = ("t", "loss", *ERRORS)  # of a table, one row per image

#: Options that may change when a run goes on; ``steps`` too, if the learning rate does not depend on it.
FREE_OPTIONS = frozenset(
    {"save_every", "keep_models", "validate_every", "sample_every", "log_every", "compile"},
)


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
    text = json.dumps({"format": FORMAT, "checksum": _checksum(plain_tensors), **header}, allow_nan=False)
    write_atomically(path, safetensors.torch.save(plain_tensors, {"training": text}))


def read_state(path: Path, tensors: dict[str, Tensor], run: dict[str, Any]) -> dict[str, Any]:
    """Read the state of a run, if it is this run.

    Args:
        path: a file of :func:`write_state`.
        tensors: by name; get the numbers of the file, and keep their device and their layout in memory, with which
            rounding changes.
        run: "network", "process", "data" and "options" of the run that wants to go on.

    Returns:
        The header.

    Raises:
        ValueError: the file is damaged, of another format, or of another run; says what differs.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["training"])
            stored = {name: file.get_tensor(name) for name in file.keys()}
        if header.get("checksum") not in (None, _checksum(stored)):  # None: of an earlier version
            raise SafetensorError("another checksum than it was written with")
    except (SafetensorError, TypeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"resume: got {path}, which cannot be read ({error}), expected a state of kodm_lite.training; "
            "try resume=False to start anew"
        ) from error
    if header["format"] != FORMAT:
        raise ValueError(f"resume: got format {header['format']} in {path}, expected {FORMAT}; try resume=False")
    different = differences(header["run"], run)
    shapes, expected = ({name: x.shape for name, x in group.items()} for group in (stored, tensors))
    if not different and shapes != expected:
        different.append("weights of another version of kodm_lite")
    if different:
        raise ValueError(
            f"resume: got the state of another run in {path}, with {'; '.join(different)}; expected no difference; "
            "try another folder, or resume=False to start anew"
        )
    if header["step"] > run["options"]["steps"]:
        raise ValueError(
            f"steps: got {run['options']['steps']}, expected at least the {header['step']} of {path}; "
            "try more steps, or resume=False to start anew"
        )
    for name, tensor in tensors.items():
        tensor.copy_(stored[name])
    return header


def _checksum(tensors: dict[str, Tensor]) -> int:
    """Of names and bits; not against malice, but against disks."""
    found = 0
    for name in sorted(tensors):
        bits = tensors[name].reshape(-1).view(torch.uint8).numpy().data
        found = zlib.crc32(bits, zlib.crc32(name.encode(), found))
    return found


def differences(stored: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What makes two runs different ones, one text each: "options learning_rate 0.001, not 0.01"."""
    wanted = json.loads(json.dumps(wanted))  # what a file makes of tuples
    free = FREE_OPTIONS | ({"steps"} if wanted["options"]["decay"] == "constant" else set())
    found = []
    for part in [part for part in wanted if part in stored]:  # a state of an earlier version has fewer
        ignored = free if part == "options" else frozenset()
        before = stored[part]
        for name in sorted((wanted[part].keys() | before.keys()) - ignored):
            old, new = before.get(name), wanted[part].get(name)
            if old != new:
                found.append(f"{part} {name} {str(old)[:40]}, not {str(new)[:40]}")
    return found


_PART = 256  # images


def fingerprint(theta: Tensor, labels: Tensor | None) -> dict[str, Any]:
    """Shape and checksum of a data set."""
    digest = hashlib.sha256()
    for x in (theta, labels):
        for part in () if x is None else x.split(_PART):  # no copy of all data, which may not fit into memory
            digest.update(part.cpu().contiguous().numpy().data)
    return {"shape": list(theta.shape), "sha256": digest.hexdigest()}


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
    """The lines of a run's log; none if there is no log.  A line cut short by a crash is left out.

    Lines with "loss" tell about the images since the line before, in lists over ten bins of time (None: no image);
    lines with "validation" about held-out images.  Every line has a "step".
    """
    path, lines = Path(folder) / "log.jsonl", []
    for text in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            line = json.loads(text)
            if isinstance(line, dict) and "step" in line:
                lines.append(line)
    return lines
