"""The data sets of the published experiments, which everyone downloads by hand: where they are, and how to read them.

Nothing here is downloaded, since each has terms of its own: ``instructions(name)`` says what to fetch from where,
``check(name, path)`` whether it arrived whole, and a function for each data set reads it.

Source of the choices: arXiv 2509.15328, experiments, and the code published with it, "the published code" below.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kodm_lite.data.folder import Squares, load_folder
from kodm_lite.data.images import readable_suffixes
from kodm_lite.data.options import check_choice, given_path, listed
from kodm_lite.data.phase_data import PhaseData
from kodm_lite.encoding import PUBLISHED

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SOURCES", "Source", "brodatz", "check", "ground_terrain", "instructions", "socofing"]

_TEST_SHARE = 0.2  # as in the published code
_PRINT = re.compile(r"(\d+)__[MF]_(left|right)_(thumb|index|middle|ring|little)_finger\.bmp", re.IGNORECASE)
_PLATE = re.compile(r"D0*([1-9]\d?|10\d|11[0-2])\.\w+", re.IGNORECASE)
_NAMES = {"brodatz": _PLATE, "socofing": _PRINT}  # of files, where these have names of their own


@dataclass(frozen=True)
class Source:
    """Where a published data set comes from.

    Args:
        name: key in ``SOURCES``, and name of the function that reads it.
        title: its full name.
        url: page to download it from.
        licence: on what terms it can be used.
        expects: what the folder holds once it is unpacked.
        bytes: size of the archive, None if it is not known.
        md5: its MD5 sum, None if it is not known.
        note: what else is to be known about its files.
    """

    name: str
    title: str
    url: str
    licence: str
    expects: str
    bytes: int | None = None
    md5: str | None = None
    note: str = ""


_ALL = (
    Source(
        name="brodatz",
        title="Brodatz textures, photographs D1 to D112 (Brodatz 1966)",
        url="https://multibandtexture.recherche.usherbrooke.ca/original_brodatz.html",
        licence="not stated; the photographs are those of a book under copyright (Dover 1966)",
        expects="112 images with names like D1.gif",
    ),
    Source(
        name="cifar10",
        title="CIFAR-10, binary version cifar-10-binary.tar.gz (Krizhevsky 2009)",
        url="https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="not stated; the authors ask to cite Krizhevsky 2009",
        expects="data_batch_1.bin to data_batch_5.bin and test_batch.bin, each of 30,730,000 bytes",
        bytes=170_052_171,
        md5="c32a1d4ab5d03f1284b67883e8d87530",
    ),
    Source(
        name="ground_terrain",
        title="Ground Terrain in Outdoor Scenes, GTOS (Xue et al. 2017)",
        url="https://github.com/jiaxue-ai/pytorch-material-classification",
        licence="not stated",
        expects="one sub-folder of images for each material",
    ),
    Source(
        name="socofing",
        title="Sokoto Coventry Fingerprint Dataset, SOCOFing (Shehu et al. 2018)",
        url="https://www.kaggle.com/datasets/ruizgara/socofing",
        licence="non-commercial research",
        expects="the folder Real with 6000 files like 100__M_Left_index_finger.BMP",
        note=" Its prints lie in a window frame, which is cut off here.",
    ),
)

SOURCES = {source.name: source for source in _ALL}

# What a data set is recognised by: patterns of names within the folder, the number of files, the bytes of each.
_FILES: dict[str, tuple[tuple[str, int | None, int | None], ...]] = {
    "brodatz": (("[Dd][0-9]*.*", 112, None),),
    "cifar10": (("data_batch_[1-5].bin", 5, 30_730_000), ("test_batch.bin", 1, 30_730_000)),
    "ground_terrain": (("*/*.*", None, None),),
    "socofing": (("Real/*.[Bb][Mm][Pp]", 6000, None),),
}
# Names of materials in GTOS that a folder of somebody's own photographs would hardly have; three of them are enough.
_MATERIALS = frozenset(
    "dry_leaf large_limestone metal_cover paint_cover painting_turf plastic_cover rust_cover sandpaper small_limestone "
    "stone_asphalt stone_brick stone_cement wood_chips".split()
)


def instructions(name: str) -> str:
    """What to download, from where, where to put it, and how it is checked.

    Args:
        name: a key of ``SOURCES``.

    Raises:
        ValueError: an unknown name.

    >>> print(instructions("socofing"))
    Sokoto Coventry Fingerprint Dataset, SOCOFing (Shehu et al. 2018)
    1. Download it from https://www.kaggle.com/datasets/ruizgara/socofing (licence: non-commercial research).
    2. Unpack it anywhere. Its path is that of the folder that holds the folder Real with 6000 files like ...
    3. kodm_lite.data.check("socofing", path) counts the files; no checksum is known.
    4. kodm_lite.data.socofing(path) reads it. Its prints lie in a window frame, which is cut off here.
    """
    source = _source(name)
    packed = " or leave it packed. Its path is that of the archive, or" if source.md5 else ". Its path is that"
    checked = f"compares {source.bytes:,} bytes and MD5 {source.md5}" if source.md5 else "counts the files; no checksum"
    return "\n".join(
        [
            source.title,
            f"1. Download it from {source.url} (licence: {source.licence}).",
            f"2. Unpack it anywhere{packed} of the folder that holds {source.expects}.",
            f'3. kodm_lite.data.check("{name}", path) {checked}{"" if source.md5 else " is known"}.',
            f"4. kodm_lite.data.{name}(path) reads it.{source.note}",
        ]
    )


def check(name: str, path: str | os.PathLike[str]) -> str:
    """What of a downloaded data set is there, as far as that is known: number and size of files, size and MD5 sum.

    Args:
        name: a key of ``SOURCES``.
        path: its archive or its folder.

    Returns:
        What was found, in a sentence: the whole data set, a part of it, which can be used, or images that were not
        recognised.

    Raises:
        ValueError: an unknown name, no such path, nothing of the data set, files of another size, more files.
    """
    source, place = _source(name), given_path("path", path)
    if place.is_file():
        return _check_archive(source, place)
    folder = _folder(source, place)
    counts, wrong = [], []
    for pattern, number, size in _FILES[name]:
        files = _matching(source, folder, pattern)
        counts.append((len(files), number, pattern))
        if number is not None and (len(files) > number or (len(files) < number and name == "cifar10")):
            wrong.append(f"{len(files)} files {pattern}, expected {number}")
        odd = [file.name for file in files if size is not None and file.stat().st_size != size]
        if odd:
            wrong.append(f"another size of {listed(odd)}, expected {size:,} bytes")
    if wrong:
        raise ValueError(f"path: got {folder} with {'; '.join(wrong)}; try to download it again.\n{instructions(name)}")
    if not _recognised(name, folder):
        return f"not recognised as {source.title}: {counts[0][0]} images in {folder}, to be read as any image folder"
    partial = any(number is not None and found < number for found, number, _ in counts)
    found = ", ".join(f"{n}{f' of {number}' if partial else ''} files {pattern}" for n, number, pattern in counts)
    return f"{name}: {'partial, ' if partial else ''}{found} in {folder}"


def socofing(
    path: str | os.PathLike[str],
    size: Literal[64, 96] = 64,
    split: Literal["train", "test", "all"] = "train",
    skip_broken: bool = False,
) -> PhaseData:
    """The real (unaltered) fingerprints of SOCOFing, as phases in [-0.9 pi, 0.9 pi].

    A file is a picture of 96 x 103 pixels (width x height) of a scanner's window.  Its frame, two rows and columns at
    the top and left and four at the bottom and right, is the same in all and is cut off, where a file has it; of the
    print, 90 x 97 pixels, the centred square is resized with antialiasing.  The published code keeps the frame, so that
    the published numbers include it, and squeezes the whole into 96 x 96 pixels, which makes ridges 7 % denser in one
    direction; it divides files at random, which shows other fingers of the test's persons in training.  Here all prints
    of a person are in the same split, by a hash of the person's number; the test split gets a fifth of the persons.

    Args:
        path: the folder that holds ``Real``, or the one that it lies in.
        size: 64 or 96 pixels.
        split: "train", "test" or "all".
        skip_broken: leave out files that cannot be read, with a warning, where they otherwise are an error.

    Returns:
        :class:`PhaseData` with theta (n, 1, size, size); labels are the fingers, "left index" to "right thumb".

    Raises:
        ValueError: no such folder, with the instructions; files with another kind of name; files that cannot be read;
            an unknown size or split.

    Source: Shehu et al. 2018, arXiv 1807.10609.
    """
    check_choice("size", size, (64, 96), " pixels")
    squares = Squares(size, encoding=PUBLISHED, prepare=_without_frame)
    names: dict[str, Any] = {"group": lambda name: _finger(name)[0], "label": lambda name: _finger(name)[1]}
    return _read("socofing", path, squares, split, skip_broken, **names)


def brodatz(
    path: str | os.PathLike[str],
    size: int = 32,
    split: Literal["train", "test", "all"] = "train",
    crops: int | None = 20,
    seed: int = 0,
    skip_broken: bool = False,
) -> PhaseData:
    """Crops of the 112 photographs of Brodatz, as phases in [-0.9 pi, 0.9 pi].

    The test split gets a fifth of the photographs, which are other textures than those of the training split.  The
    published code divides textures by files too, and resizes each to 32 x 32 pixels, as ``crops=None`` does.

    Args:
        path: the folder with the images D1 to D112.
        size, split, seed, skip_broken: see :func:`image_folder`.
        crops: number of random crops of each photograph, in its own resolution; None resizes the photographs instead.

    Returns:
        :class:`PhaseData` with theta (n, 1, size, size); labels are the photographs, "D1" to "D112".

    Raises:
        ValueError: no such folder, with the instructions; images with other names; files that cannot be read; options
            out of range.

    Source: Brodatz 1966, Textures: a photographic album for artists and designers.
    """
    squares = Squares(size, crops=crops, seed=seed, encoding=PUBLISHED)
    return _read("brodatz", path, squares, split, skip_broken, group=_plate, label=_plate)


def ground_terrain(
    path: str | os.PathLike[str],
    size: int = 32,
    split: Literal["train", "test", "all"] = "train",
    crops: int | None = None,
    seed: int = 0,
    skip_broken: bool = False,
) -> PhaseData:
    """Photographs of the ground, such as asphalt, grass or sand, as phases in [-0.9 pi, 0.9 pi].

    The sub-folders of ``path`` are the classes.  GTOS is the likeliest source of the published ground terrain, but the
    published code names none; this reads any folder of that kind, and cites GTOS only where it knows its materials.  A
    fifth of the photographs, by a hash of their names, are the test split: two photographs of the same place can be in
    different ones.  Where the authors' own split is wanted, read its folders with ``split="all"``.

    Args:
        path: the folder with one sub-folder for each material.
        size, split, seed, skip_broken: see :func:`image_folder`.
        crops: number of random crops of each photograph, in its own resolution; None resizes the photographs instead.

    Returns:
        :class:`PhaseData` with theta (n, 1, size, size); labels are the sub-folders.

    Raises:
        ValueError: no such folder or no sub-folders, with the instructions; files that cannot be read; options out of
            range.

    Source: Xue, Zhang, Dana and Nishino 2017, Differential angular imaging for material recognition.
    """
    squares = Squares(size, crops=crops, seed=seed, encoding=PUBLISHED)
    return _read("ground_terrain", path, squares, split, skip_broken)


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise ValueError(f"name: got {name!r}, expected one of {', '.join(SOURCES)}; try name='socofing'")
    return SOURCES[name]


def _folder(source: Source, place: Path) -> Path:
    """The folder that holds the expected files: the given one, or one in it, as archives are often packed."""
    inner = sorted(inner for inner in place.iterdir() if inner.is_dir()) if place.is_dir() else []
    for folders in ([place], inner):
        fitting = [f for f in folders if any(_matching(source, f, pattern) for pattern, _, _ in _FILES[source.name])]
        if len(fitting) > 1:
            several = listed([folder.name for folder in fitting])
            raise ValueError(f"path: got {place} with several such folders, {several}, expected one; try {fitting[0]}")
        if fitting:
            return fitting[0]
    problem = f"{place} without these files" if place.is_dir() else f"{place}, which is no folder"
    raise ValueError(
        f"path: got {problem}, expected {source.expects}; try image_folder for other images, or the following.\n"
        f"{instructions(source.name)}"
    )


def _matching(source: Source, folder: Path, pattern: str) -> list[Path]:
    endings = (".bin",) if source.name == "cifar10" else readable_suffixes()
    files = (file for file in folder.glob(pattern) if file.is_file() and not file.name.startswith("."))
    known = _NAMES.get(source.name, re.compile(".*"))
    return sorted(file for file in files if file.suffix.lower() in endings and known.fullmatch(file.name))


def _recognised(name: str, folder: Path) -> bool:
    """Whether names say that it is the data set and no other folder of images."""
    if name != "ground_terrain":
        return True  # their files have names of their own
    return sum(inner.name.lower() in _MATERIALS for inner in folder.iterdir() if inner.is_dir()) >= 3


def _check_archive(source: Source, archive: Path) -> str:
    if source.md5 is None:
        raise ValueError(
            f"path: got the file {archive}, expected a folder, since no checksum of the archive is known; "
            f"try to unpack it.\n{instructions(source.name)}"
        )
    size = archive.stat().st_size
    with archive.open("rb") as opened:
        md5 = hashlib.file_digest(opened, "md5").hexdigest()
    if (size, md5) != (source.bytes, source.md5):
        raise ValueError(
            f"path: got {archive} with {size:,} bytes and MD5 {md5}, expected {source.bytes:,} bytes and MD5 "
            f"{source.md5}; try to download it again.\n{instructions(source.name)}"
        )
    return f"{source.name}: {size:,} bytes with MD5 {md5} in {archive}"


def _finger(name: str) -> tuple[str, str]:
    """Number of the person and name of the finger, from the name of a file."""
    found = _PRINT.fullmatch(name)
    if not found:
        raise ValueError(
            f"path: got the file {name} in Real, expected names like 100__M_Left_index_finger.BMP; "
            "try to move it elsewhere: altered prints, for instance, are no real ones"
        )
    return str(int(found[1])), f"{found[2]} {found[3]}".lower()


def _plate(name: str) -> str:
    """The photograph, from the name of a file."""
    found = _PLATE.fullmatch(name)
    if not found:
        raise ValueError(f"path: got the image {name}, expected D1 to D112, such as D1.gif; try to move it elsewhere")
    return f"D{int(found[1])}"


def _without_frame(image: Image) -> Image:
    """A print as grey values without its window, which a scan that was enlarged shows enlarged and smeared."""
    grey = image.convert("L")  # whatever is said to be transparent: it is the window's last four rows and columns
    width, height = grey.size
    small = np.asarray(grey.resize((96, 103)) if grey.size != (96, 103) else grey, np.int64)
    exact = grey.size == (96, 103)
    edges = [(160, small[0, 4:-6]), (160, small[4:-6, 0]), (0, small[-3:, 4:-6]), (0, small[4:-6, -3:])]
    if exact:
        edges += [(105, small[1, 4:-6]), (105, small[4:-6, 1]), (0, small[-4, 4:-6]), (0, small[4:-6, -4])]
    if any(np.abs(pixels - value).max() > (2 if exact else 40) for value, pixels in edges):
        return grey
    right, down = width / 96, height / 103
    smear = 0 if exact else 1
    left, top = math.ceil(2 * right) + smear, math.ceil(2 * down) + smear
    return grey.crop((left, top, width - math.ceil(4 * right) - smear, height - math.ceil(4 * down) - smear))


def _read(
    name: str, path: str | os.PathLike[str], squares: Squares, split: Any, skip_broken: bool, **names: Any
) -> PhaseData:
    """The images of a source, divided as the published code does; cited if they are recognised."""
    source, ((pattern, number, _),) = SOURCES[name], _FILES[name]
    folder = _folder(source, given_path("path", path))
    there = len(_matching(source, folder, pattern))
    inner = folder / "Real" if name == "socofing" else folder
    data = load_folder(inner, squares, split, _TEST_SHARE, skip_broken, **names)
    if not _recognised(name, folder):
        return data
    part = f", partial: {there} of {number} files" if number is not None and there < number else ""
    return replace(data, source=f"{source.title}{part}, {data.source}", licence=source.licence)
