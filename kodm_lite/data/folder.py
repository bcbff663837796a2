"""A folder of one's own images, as phases."""

from __future__ import annotations

import hashlib
import math
import os
import signal
import threading
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from kodm_lite.data.cache import map_cache, write_cache
from kodm_lite.data.images import MOST_PIXELS, read_image, upright
from kodm_lite.data.listing import classes_of, list_images, own_split
from kodm_lite.data.options import check_choice, check_whole, given_path, listed
from kodm_lite.data.phase_data import PhaseData
from kodm_lite.encoding import HALF_CIRCLE, GreyLevels

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Squares", "image_folder", "interpolated", "load_folder"]

Split = Literal["train", "test", "all"]
Namer = Callable[[str], str]


@dataclass(frozen=True)
class Squares:
    """How squares are made of the files of images; see :func:`image_folder`."""

    size: int = 32
    channels: int = 1
    crops: int | None = None
    flips: bool = False
    encoding: GreyLevels = HALF_CIRCLE
    seed: int = 0
    prepare: Callable[[Image], Image] = upright

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", check_whole("size", self.size, 4, hint=32, unit=" pixels"))
        check_choice("channels", self.channels, (1, 3))
        if self.crops is not None:
            object.__setattr__(self, "crops", check_whole("crops", self.crops, 1, hint=20, unit=", or None"))
        check_choice("flips", self.flips, (False, True))
        object.__setattr__(self, "seed", check_whole("seed", self.seed, 0))

    @property
    def number(self) -> int:
        """How many squares an image gives."""
        return (self.crops or 1) * (1 + self.flips)


# Many options: each is one decision about the images, and all but the path have a default.
def image_folder(
    path: str | os.PathLike[str],
    size: int = 32,
    split: Split = "train",
    channels: Literal[1, 3] = 1,
    crops: int | None = None,
    scale: float = HALF_CIRCLE.scale,
    seed: int = 0,
    test_share: float = 0.1,
    skip_broken: bool = False,
    group: Namer | None = None,
    label: Namer | None = None,
    cache: str | os.PathLike[str] | None = None,
    workers: int = 0,
    flips: bool = False,
) -> PhaseData:
    """Square images from the files of a folder and of its sub-folders, as phases in [-scale pi, scale pi].

    Files are those that Pillow opens, in the order of their names; one warning says what is left out and why.  The
    sub-folders of ``path`` are the classes; without sub-folders there are no labels.  If they are train and
    test, they are the splits, with a warning, and the classes lie in them.  Photographs are turned upright, transparent
    images laid on white; of several pages or moments the first is taken; white is 255 in images of 8 bits, 65535 in
    those of 16 bits, 1 in those of floating point numbers.

    By default the centred square of each image is resized, with antialiasing, to ``size``.  With ``crops``, squares of
    ``size`` pixels are cut at random places of the image in its own resolution, for textures in large photographs; an
    image that is smaller is enlarged first.

    An image is in the test split if a hash of its name within the folder says so: neither ``seed`` nor other files
    matter, so that added files move no image from one split to the other.  The exception are folders so small that one
    of the splits would be empty: there it gets the image whose hash comes nearest.  A copy under another name can land
    in the other split.  With ``group``, images of one group, such as all prints of one person, stay together: it is the
    group's name that is hashed.

    Args:
        path: the folder.
        size: side of the images in pixels, at least 4.
        split: "train", "test" or "all".
        channels: 1 (grey) or 3 (red, green, blue).
        crops: number of random crops of each image; None resizes the images instead.
        scale: of :class:`kodm_lite.GreyLevels`; 0.5 makes black and white opposite angles, 0.9 neighbours.
        seed: integer that decides where crops are cut.
        test_share: expected share of the images in the test split, between 0 and 1.
        skip_broken: leave out files that cannot be read, with a warning, where they otherwise are an error.
        group: function from the name of a file within the folder, with slashes, to that of its group; None makes each
            image its own group.
        label: function from the name of a file within the folder to that of its class; None takes the sub-folder.
        cache: file to keep the images in, 4 bytes a pixel and channel, for more images than fit into memory.  The next
            call with the same files and options finds them there; one with others is an error.
        workers: processes that read files at the same time; 0 reads them in this one.
        flips: let the mirror image follow each square: twice as many.

    Returns:
        :class:`PhaseData` with theta (n, channels, size, size); crops of one image follow each other.

    Raises:
        ValueError: no such folder, no images in it, images both beside and inside of sub-folders, sub-folders that are
            splits, an empty split, files that cannot be read or that claim more than 100 million pixels, options out
            of range.

    >>> from tempfile import TemporaryDirectory
    >>> import skimage
    >>> with TemporaryDirectory() as folder:
    ...     skimage.io.imsave(f"{folder}/coins.png", skimage.data.coins())
    ...     skimage.io.imsave(f"{folder}/page.jpg", skimage.data.page())
    ...     image_folder(folder, size=64, split="all", crops=5).theta.shape
    torch.Size([10, 1, 64, 64])
    """
    squares = Squares(size, channels, crops, flips, GreyLevels(scale), seed)
    return load_folder(path, squares, split, test_share, skip_broken, group, label, cache, workers)


# As many options as image_folder has beyond the squares.
def load_folder(
    path: str | os.PathLike[str],
    squares: Squares,
    split: Split,
    test_share: float,
    skip_broken: bool = False,
    group: Namer | None = None,
    label: Namer | None = None,
    cache: str | os.PathLike[str] | None = None,
    workers: int = 0,
) -> PhaseData:
    """What :func:`image_folder` does, for squares that are made in any way."""
    check_choice("split", split, ("train", "test", "all"))
    check_whole("workers", workers, 0)
    if isinstance(test_share, bool) or not isinstance(test_share, int | float) or not 0 < test_share < 1:
        raise ValueError(
            f"test_share: got {test_share!r}, expected a number between 0 and 1; try 0.1, or split='all' for no split"
        )
    folder = given_path("path", path)
    names, left = list_images(folder)
    if not label and (own := own_split(names, split)):
        warnings.warn(f"image_folder: sub-folders look like splits; of {folder} only {own} is read", stacklevel=3)
        return load_folder(folder / own, squares, "all", test_share, skip_broken, group, None, cache, workers)
    classes = sorted({label(name) for name in names}) if label else classes_of(folder, names)
    chosen = _split({name: group(name) if group else name for name in names}, split, test_share)
    files = _Files(folder, chosen, squares)
    theta, notes = _in_memory(files, workers) if cache is None else _on_disk(files, workers, given_path("cache", cache))
    _report(left, notes, len(chosen), skip_broken)
    read = [name for name in chosen if name not in notes.broken]
    labels = [classes.index(label(name) if label else name.split("/")[0]) for name in read] if classes else []
    return PhaseData(
        theta=theta,
        labels=torch.tensor(labels).repeat_interleave(squares.number) if classes else None,
        names=tuple(classes),
        encoding=squares.encoding,
        source=f"images of the folder {listed([str(folder)])}",
        licence="that of the images",
    )


@dataclass
class _Notes:
    """What is to be said about the files; kept in a cache with their images."""

    broken: dict[str, str] = field(default_factory=dict)  # what is wrong with a file
    pages: dict[str, int] = field(default_factory=dict)  # of files that have several
    brightest: float = 0.0  # value of all, of 1


class _Files(Dataset[tuple[str, np.ndarray | None, str, int, float]]):
    """Files: name, squares in [0, 1] (k, C, size, size) or None, what is wrong, number of pages, brightest value.

    The squares are arrays: tensors would go from process to process through files, whose server complains at Ctrl-C.
    """

    def __init__(self, folder: Path, names: list[str], squares: Squares):
        self.folder, self.names, self.squares = folder, names, squares

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[str, np.ndarray | None, str, int, float]:
        name, wanted = self.names[index], self.squares
        try:
            image, pages = read_image(self.folder / name, wanted.channels, wanted.prepare)
            if wanted.crops is None:
                made = [_resized(image, wanted.size)]
            else:
                made = _random_crops(image, wanted.size, wanted.crops, name, wanted.seed)
        except Exception as error:  # damaged files make decoders raise nearly everything
            return name, None, f"{name} ({type(error).__name__}: {error})", 1, 0.0
        if wanted.flips:
            made = [square for one in made for square in (one, one.flip(-1))]
        return name, torch.stack(made).numpy(), "", pages, float(image.max())

    def key(self) -> str:
        """The same for the same files, unchanged, and the same options only."""
        stats = [(self.folder / name).stat() for name in self.names]
        files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in zip(self.names, stats, strict=True)]
        wanted = self.squares
        seed = wanted.seed if wanted.crops else None
        what = (files, wanted.size, wanted.channels, wanted.crops, wanted.flips, seed, wanted.encoding)
        return hashlib.sha256(repr(what).encode()).hexdigest()


def _phases(files: _Files, workers: int, notes: _Notes) -> Iterator[Tensor]:
    """The squares of each file that can be read, in order, as phases; what is to be said goes into the notes."""
    own = torch.Generator()  # or it would use the global one, to give workers seeds that nobody needs
    loader = DataLoader(files, batch_size=None, num_workers=workers, generator=own, collate_fn=tuple)
    with _dead_workers_named(workers):
        with _deaf_to_interrupts():
            read = iter(loader)  # starts the workers
        for name, squares, error, pages, brightest in tqdm(read, desc="images", unit="file", delay=2, total=len(files)):
            if squares is None:
                notes.broken[name] = error
                continue
            if pages > 1:
                notes.pages[name] = pages
            notes.brightest = max(notes.brightest, brightest)
            yield files.squares.encoding.encode(torch.from_numpy(squares) * 2 - 1)


@contextmanager
def _dead_workers_named(workers: int) -> Iterator[None]:
    """Say what makes workers die: a script that each of them runs again, as on macOS and Windows, or too little memory.

    Raises:
        ValueError: they died, or could not start.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error) and "bootstrapping" not in str(error):
            raise
        raise ValueError(
            f"workers: got {workers} processes that ended early, expected some that have the memory, and a script "
            'whose own lines are under if __name__ == "__main__", since each of them reads it; try workers=0'
        ) from error


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes that start here never hear Ctrl-C, which reaches them all: the main one ends them, without noise."""
    if threading.current_thread() is not threading.main_thread():  # others may not say who hears what
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _in_memory(files: _Files, workers: int) -> tuple[Tensor, _Notes]:
    notes = _Notes()
    parts = list(_phases(files, workers, notes))
    return torch.cat(parts) if parts else torch.empty(0), notes


def _on_disk(files: _Files, workers: int, cache: Path) -> tuple[Tensor, _Notes]:
    key, notes = files.key(), _Notes()
    found = map_cache(cache, key)
    if found is None:
        parts = _phases(files, workers, notes)
        first = next(parts, None)
        if first is None:
            return torch.empty(0), notes
        write_cache(cache, key, chain([first], parts), vars(notes))
        found = map_cache(cache, key)
    assert found is not None, "just written"
    return found[0], _Notes(**found[1])


def _split(groups: dict[str, str], split: str, test_share: float) -> list[str]:
    """Names of the images of a split; ``groups`` holds the group of each image."""
    if split == "all":
        return list(groups)
    position = {group: _hash(group) / 2**64 for group in groups.values()}
    if len(position) == 1 and split == "test":
        raise ValueError(
            f"split: got 'test' for one image or group, {next(iter(position))}, expected at least 2; try split='all'"
        )
    ordered = sorted(position, key=position.__getitem__)
    in_test = sum(place < test_share for place in position.values())
    in_test = min(max(in_test, 1), len(position) - 1)
    test = set(ordered[:in_test])
    return [name for name, group in groups.items() if (group in test) == (split == "test")]


def _hash(text: str) -> int:
    """64 bits that are the same on every machine, also on one that writes accents in another way, or not in UTF-8."""
    name = unicodedata.normalize("NFC", text).encode("utf8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big")


def _resized(image: Tensor, size: int) -> Tensor:
    """The centred square of an image (C, H, W), as (C, size, size)."""
    side = min(image.shape[1:])
    top, left = ((length - side) // 2 for length in image.shape[1:])
    return interpolated(image[:, top : top + side, left : left + side], (size, size))


def _random_crops(image: Tensor, size: int, crops: int, name: str, seed: int) -> list[Tensor]:
    """Squares of an image (C, H, W), whose places depend on nothing but its name and the seed."""
    if min(image.shape[1:]) < size:
        factor = size / min(image.shape[1:])
        shape = tuple(max(size, round(length * factor)) for length in image.shape[1:])
        if math.prod(shape) > MOST_PIXELS:
            raise ValueError(f"{shape[1]} x {shape[0]} pixels when enlarged, expected at most {MOST_PIXELS:,}")
        image = interpolated(image, shape)
    generator = torch.Generator().manual_seed(_hash(f"{seed}/{name}") >> 1)
    rows, columns = (
        torch.randint(length - size + 1, (crops,), generator=generator).tolist() for length in image.shape[1:]
    )
    # Copies, since a part would keep its whole photograph in memory.
    return [image[:, i : i + size, j : j + size].clone() for i, j in zip(rows, columns, strict=True)]


def interpolated(image: Tensor, shape: tuple[int, ...]) -> Tensor:
    """An image (C, H, W) resized with a triangular kernel as wide as the coarser grid's pixels: no aliases."""
    resized = torch.nn.functional.interpolate(image[None], shape, mode="bilinear", align_corners=False, antialias=True)
    return resized[0].clamp(0, 1)  # against rounding


def _report(left: list[str], notes: _Notes, files: int, skip_broken: bool) -> None:
    """Refuse files that cannot be read, if they are not to be skipped; say in one warning what may not be known."""
    broken, said = list(notes.broken.values()), []
    if broken and not (skip_broken and len(broken) < files):
        raise ValueError(
            f"path: got {len(broken)} of {files} files that cannot be read: {listed(broken)}; expected images; "
            "try to open them in another program, or skip_broken=True if others are left"
        )
    if broken:
        left = [f"{len(broken)} of {files} files that cannot be read: {listed(broken)}", *left]
    if left:
        said.append("left out " + "; ".join(left))
    if notes.pages:
        name, pages = next(iter(notes.pages.items()))
        others = f" (and of {len(notes.pages) - 1} more files)" if len(notes.pages) > 1 else ""
        said.append(f"only the first of {pages} pages of {listed([name])}{others} is read")
    if 0 < notes.brightest < 1 / 4:
        said.append(
            f"no value is above {notes.brightest:.2g} of white, {notes.brightest * 65535:.0f} of 65535 in images of 16 "
            "bits, so that all are dark: rescale the images"
        )
    if said:
        warnings.warn("image_folder: " + ". ".join(said), stacklevel=4)
