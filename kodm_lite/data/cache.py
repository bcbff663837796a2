"""Images in one file on disk, for more of them than fit into memory.

The file holds float32 numbers and nothing else; beside it NAME.json says what they are.  It is mapped, not read: a
training asks for the images of one batch, the system fetches those, and forgets them when it needs the room.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kodm_lite.checkpoint_header import parse_json, seal, shown
from kodm_lite.files import open_regular, write_atomically, written_atomically

__all__ = ["map_cache", "write_cache"]


def map_cache(path: Path, key: str) -> tuple[Tensor, dict[str, Any]] | None:
    """Images of a cache and the notes on them, or None if there is no cache.

    Args:
        path: the file.
        key: what the images must be made of, as it was given to :func:`write_cache`.

    Raises:
        ValueError: a file of other images, or one that is not as it was written.
    """
    if not path.exists() or not _notes(path).exists():
        return None
    try:
        notes = _read_notes(path)
        with open_regular(path, "images") as file:
            fits = notes["sha256"] == hashlib.file_digest(file, "sha256").hexdigest()
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"cache: got a damaged file in {path} or beside it ({error}), expected what was written; "
            "try another name, or delete it"
        ) from error
    if not fits or notes["key"] != key:
        what = "images of other files or options" if fits else "a damaged file"
        raise ValueError(f"cache: got {what} in {path}, expected those asked for; try another name, or delete it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it cannot be written to, which is meant
        images = torch.from_numpy(np.memmap(path, np.float32, "r", shape=tuple(notes["shape"])))
    return images, json.loads(notes["notes"])


def _read_notes(path: Path) -> dict[str, Any]:
    """The notes as they were written, of a file of the length that they say."""
    with open_regular(_notes(path), "notes on images") as file:
        notes = parse_json(file.read())
    types = {"key": str, "shape": list, "notes": str, "sha256": str, "header_sha256": str}
    if {name: type(value) for name, value in notes.items()} != types or seal(notes) != notes:
        raise ValueError("got a damaged file of notes, expected the one written with the images")
    shape = notes["shape"]
    if len(shape) < 2 or any(type(n) is not int or n < 1 for n in shape):
        raise ValueError(f"got shape {shown(shape)}, expected that of images")
    if path.stat().st_size != 4 * math.prod(shape):
        raise ValueError(f"got a damaged file of {path.stat().st_size} bytes, expected {4 * math.prod(shape)}")
    return notes


def write_cache(path: Path, key: str, parts: Iterable[Tensor], notes: dict[str, Any]) -> None:
    """Write images to a cache; a crash leaves nothing that :func:`map_cache` finds.

    Args:
        path: the file; one that exists is replaced.
        key: any text that is the same for the same images only.
        parts: images (n, ...), at least one of them in all; each part is forgotten once it is written.
        notes: anything JSON-able; read when all parts have been written.

    Raises:
        OSError: names the file.
    """
    shape: tuple[int, ...] = ()
    rows, digest = 0, hashlib.sha256()
    with written_atomically(path) as file:
        for part in parts:
            content = part.contiguous().numpy().astype("<f4", copy=False).data
            file.write(content)
            digest.update(content)
            rows, shape = rows + len(part), tuple(part.shape[1:])
    text = json.dumps(notes)  # in ASCII: names of files need not be text
    written = seal({"key": key, "shape": [rows, *shape], "notes": text, "sha256": digest.hexdigest()})
    write_atomically(_notes(path), json.dumps(written).encode())


def _notes(path: Path) -> Path:
    return path.with_name(path.name + ".json")
