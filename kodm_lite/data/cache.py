"""Images in one file on disk, for more of them than fit into memory.

The file holds float32 numbers and nothing else; beside it NAME.json says what they are.  It is mapped, not read: a
training asks for the images of one batch, the system fetches those, and forgets them when it needs the room.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kodm_lite.files import storing, write_atomically

__all__ = ["map_cache", "write_cache"]


def map_cache(path: Path, key: str) -> tuple[Tensor, dict[str, Any]] | None:
    """Images of a cache and the notes on them, or None if there is no cache.

    Args:
        path: the file.
        key: what the images must be made of, as it was given to :func:`write_cache`.

    Raises:
        ValueError: a file of other images, or of another length than its notes say.
    """
    if not path.is_file() or not _notes(path).is_file():
        return None
    try:
        notes = json.loads(_notes(path).read_text(encoding="utf8"))
        shape, found, rest = tuple(notes["shape"]), notes["key"], notes["notes"]
        fits = len(shape) > 1 and path.stat().st_size == 4 * math.prod(shape)
    except (ValueError, KeyError, TypeError):
        fits, found = False, None
    if not fits or found != key:
        what = "images of other files or options" if fits else "a damaged file"
        raise ValueError(f"cache: got {what} in {path}, expected those asked for; try another name, or delete it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it cannot be written to, which is meant
        return torch.from_numpy(np.memmap(path, np.float32, "r", shape=shape)), rest


def write_cache(path: Path, key: str, parts: Iterable[Tensor], notes: dict[str, Any]) -> None:
    """Write images to a cache; a crash leaves at most files that :func:`map_cache` does not find.

    Args:
        path: the file; one that exists is replaced.
        key: any text that is the same for the same images only.
        parts: images (n, ...), at least one of them in all; each part is forgotten once it is written.
        notes: anything JSON-able; read when all parts have been written.

    Raises:
        OSError: names the file.
    """
    shape: tuple[int, ...] = ()
    rows, temporary = 0, path.with_name(f"{path.name}.{os.getpid()}.part")  # processes may do it at the same time
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                for part in parts:
                    file.write(part.contiguous().numpy().astype("<f4", copy=False).tobytes())
                    rows, shape = rows + len(part), tuple(part.shape[1:])
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:  # Ctrl-C too
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    content = {"key": key, "shape": [rows, *shape], "notes": notes}
    write_atomically(_notes(path), json.dumps(content).encode())


def _notes(path: Path) -> Path:
    return path.with_name(path.name + ".json")
