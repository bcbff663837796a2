"""CIFAR-10 in its binary version: small colour photographs of ten kinds of things, downloaded by hand."""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from kodm_lite.data.options import check_choice, given_path
from kodm_lite.data.phase_data import PhaseData
from kodm_lite.data.published import SOURCES, instructions
from kodm_lite.encoding import PUBLISHED

__all__ = ["cifar10"]

_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FILES = {"train": tuple(f"data_batch_{k}.bin" for k in range(1, 6)), "test": ("test_batch.bin",)}
_META = "batches.meta.txt"
_PYTHON = "data_batch_1"  # a file of the version for Python, which is pickled
_RECORDS = 10_000  # images in one file
_BYTES = 1 + 3 * 32 * 32  # of one image: its class, then all red, all green and all blue values, row by row


def cifar10(path: str | os.PathLike[str], split: Literal["train", "test"] = "train") -> PhaseData:
    """The colour photographs of CIFAR-10, as phases, encoded as published.

    They are read from the binary version, either the archive ``cifar-10-binary.tar.gz`` itself, which is not unpacked,
    or a folder with its files.  Every file must have its exact size; of an archive also its checksum must be right.
    ``instructions("cifar10")`` says where to get it; the version for Python is not read, because to open a pickle is to
    run it.

    Args:
        path: the archive, the folder ``cifar-10-batches-bin``, or the one that it lies in.
        split: "train" (five files) or "test" (one file), as published.

    Returns:
        :class:`PhaseData` with theta (n, 3, 32, 32), n = 50000 (test: 10000).

    Raises:
        ValueError: an unknown split; no such archive or folder, one without the files, or with the version for Python;
            files that are too short, too long or damaged, which are named.

    Source: Krizhevsky 2009, Learning multiple layers of features from tiny images.
    """
    check_choice("split", split, tuple(_FILES))
    place = given_path("path", path)
    wanted = _FILES[split]
    found = _from_archive(place, wanted) if place.is_file() else _from_folder(place, wanted)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(
            f"path: got {place} without {', '.join(missing)}, expected the binary version of CIFAR-10; "
            f"try the following.\n{instructions('cifar10')}"
        )
    theta = torch.empty(len(wanted) * _RECORDS, 3, 32, 32)  # filled file by file: 50000 images are 600 MB
    labels = torch.empty(len(theta), dtype=torch.int64)
    for k, name in enumerate(wanted):
        here = slice(k * _RECORDS, (k + 1) * _RECORDS)
        records = _records(found[name], name, place)
        labels[here] = torch.from_numpy(records[:, 0].astype(np.int64))
        images = torch.from_numpy(records[:, 1:].astype(np.float32)).reshape(-1, 3, 32, 32)
        theta[here] = PUBLISHED.encode(images / 127.5 - 1)
    return PhaseData(
        theta=theta,
        labels=labels,
        names=_class_names(found[_META], place) if _META in found else _NAMES,
        encoding=PUBLISHED,
        source=f"CIFAR-10 (Krizhevsky 2009), {place}",
        licence=SOURCES["cifar10"].licence,
    )


def _from_folder(folder: Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """Contents of the wanted files and of the one with the classes' names, as far as they are there."""
    if not folder.is_dir():
        raise ValueError(
            f"path: got {folder}, which does not exist, expected the archive or folder of CIFAR-10; "
            f"try the following.\n{instructions('cifar10')}"
        )
    for_python = any((place / _PYTHON).is_file() for place in (folder, folder / "cifar-10-batches-py"))
    if (folder / "cifar-10-batches-bin").is_dir():
        folder = folder / "cifar-10-batches-bin"
    there = [name for name in (*wanted, _META) if (folder / name).is_file()]
    if for_python and not there:
        raise _python_version(folder)
    for name in there:
        _check_size((folder / name).stat().st_size, name, folder)
    return {name: (folder / name).read_bytes() for name in there}


def _from_archive(archive: Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """The same from the archive, which is read from its beginning to its end and never written to a disk."""
    found: dict[str, bytes] = {}
    for_python = False
    try:
        with gzip.open(archive) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as members:
                for member in members:
                    name = member.name.split("/")[-1]
                    for_python |= name == _PYTHON
                    if name in (*wanted, _META) and (content := members.extractfile(member)):
                        _check_size(member.size, name, archive)
                        found[name] = content.read()
            while stream.read(2**20):  # the checksum stands at the end
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"path: got {archive}, which is cut short, damaged or no .tar.gz ({type(error).__name__}: {error}), "
            f"expected the archive of CIFAR-10; try to download it again.\n{instructions('cifar10')}"
        ) from error
    if for_python and not found:
        raise _python_version(archive)
    return found


def _python_version(place: Path) -> ValueError:
    return ValueError(
        f"path: got {place} with the version of CIFAR-10 for Python, expected the binary version, since a pickle could "
        f"run any program; try the following.\n{instructions('cifar10')}"
    )


def _check_size(size: int, name: str, place: Path) -> None:
    """Before it is read: a damaged archive can claim any size."""
    if name == _META:
        right, expected = size < 10_000, "less than 10,000"
    else:
        right, expected = size == _RECORDS * _BYTES, f"{_RECORDS} x {_BYTES} = {_RECORDS * _BYTES:,}"
    if not right:
        raise ValueError(
            f"path: got {name} of {size:,} bytes in {place}, expected {expected} bytes; try to download it again"
        )


def _records(content: bytes, name: str, place: Path) -> np.ndarray:
    """Bytes (images, 1 + 3072)."""
    records = np.frombuffer(content, np.uint8).reshape(_RECORDS, _BYTES)
    wrong = np.flatnonzero(records[:, 0] > 9)
    if len(wrong):
        raise ValueError(
            f"path: got {name} in {place} with class {records[wrong[0], 0]} for image {wrong[0]}, expected classes "
            "0 to 9; the file is damaged or another data set: try to download it again"
        )
    return records


def _class_names(content: bytes, place: Path) -> tuple[str, ...]:
    names = tuple(content.decode("utf8", errors="replace").split())
    if len(names) != 10 or len(set(names)) != 10:
        raise ValueError(
            f"path: got {_META} in {place} with {len(names)} names, expected 10 different ones; "
            "try to download it again, or remove the file"
        )
    return names
