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
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from kodm_lite.data.cache import map_cache, write_cache
from kodm_lite.data.phase_data import PhaseData
from kodm_lite.encoding import HALF_CIRCLE, GreyLevels

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SUFFIXES", "image_folder"]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
_MOST_PIXELS = 100_000_000  # a photograph has fewer; a small file that claims more is there to fill the memory
_LUMA = (0.299, 0.587, 0.114)  # shares of red, green and blue in grey, ITU-R 601


def image_folder(
    path: str | os.PathLike[str],
    size: int = 32,
    split: Literal["train", "test", "all"] = "train",
    channels: Literal[1, 3] = 1,
    crops: int | None = None,
    scale: float = HALF_CIRCLE.scale,
    seed: int = 0,
    test_share: float = 0.1,
    skip_broken: bool = False,
    group: Callable[[str], str] | None = None,
    label: Callable[[str], str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    workers: int = 0,
) -> PhaseData:
    """Square images from the files of a folder and of its sub-folders, as phases in [-scale pi, scale pi].

    Files are those whose names end in one of ``SUFFIXES``, in the order of their names; hidden ones are left out.  The
    sub-folders of ``path`` are the classes; without sub-folders there are no labels.  Photographs are turned upright,
    transparent images laid on white; of an animation the first frame is taken; white is 255 in images of 8 bits, 65535
    in those of 16 bits, 1 in those of floating point numbers.

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

    Returns:
        :class:`PhaseData` with theta (n, channels, size, size); crops of one image follow each other.

    Raises:
        ValueError: no such folder, no images in it, images both beside and inside of sub-folders, an empty split,
            files that cannot be read or that claim more than 100 million pixels, options out of range.

    >>> from tempfile import TemporaryDirectory
    >>> import skimage
    >>> with TemporaryDirectory() as folder:
    ...     skimage.io.imsave(f"{folder}/coins.png", skimage.data.coins())
    ...     skimage.io.imsave(f"{folder}/page.jpg", skimage.data.page())
    ...     image_folder(folder, size=64, split="all", crops=5).theta.shape
    torch.Size([10, 1, 64, 64])
    """
    _check_options(size, split, channels, crops, test_share)
    encoding = GreyLevels(scale)
    folder = Path(path).expanduser()
    files = _image_files(folder)
    classes = sorted({label(name) for name in files}) if label else _classes(folder, files)
    chosen = _split({name: group(name) if group else name for name in files}, split, test_share)
    wanted = _Files(folder, chosen, size, channels, crops, encoding, seed)
    file = None if cache is None else Path(cache).expanduser()
    theta, broken = _in_memory(wanted, workers) if file is None else _on_disk(wanted, workers, file)
    _report(list(broken.values()), len(chosen), skip_broken)
    read = [name for name in chosen if name not in broken]
    labels = [classes.index(label(name) if label else name.split("/")[0]) for name in read] if classes else []
    return PhaseData(
        theta=theta,
        labels=torch.tensor(labels).repeat_interleave(crops or 1) if classes else None,
        names=tuple(classes),
        encoding=encoding,
        source=f"images of the folder {folder}",
        licence="that of the images",
    )


class _Files(Dataset[tuple[str, np.ndarray | None, str]]):
    """Files, each as its name, its squares as phases (k, C, size, size) or None, and what is wrong with it.

    The squares are arrays: tensors would go from process to process through files, whose server complains at Ctrl-C.
    """

    def __init__(
        self,
        folder: Path,
        names: list[str],
        size: int,
        channels: int,
        crops: int | None,
        encoding: GreyLevels,
        seed: int,
    ):
        self.folder, self.names, self.encoding = folder, names, encoding
        self.size, self.channels, self.crops, self.seed = size, channels, crops, seed

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[str, np.ndarray | None, str]:
        name = self.names[index]
        try:
            image = _read(self.folder / name, self.channels)
            if self.crops is None:
                squares = [_resized(image, self.size)]
            else:
                squares = _random_crops(image, self.size, self.crops, name, self.seed)
        except Exception as error:  # damaged files make decoders raise nearly everything
            return name, None, f"{name} ({type(error).__name__}: {error})"
        return name, self.encoding.encode(torch.stack(squares) * 2 - 1).numpy(), ""

    def key(self) -> str:
        """The same for the same files, unchanged, and the same options only."""
        stats = [(self.folder / name).stat() for name in self.names]
        files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in zip(self.names, stats, strict=True)]
        what = (files, self.size, self.channels, self.crops, self.seed if self.crops else None, self.encoding)
        return hashlib.sha256(repr(what).encode()).hexdigest()


def _phases(files: _Files, workers: int, broken: dict[str, str]) -> Iterator[Tensor]:
    """The squares of each file that can be read, in order; what is wrong with the others goes into ``broken``."""
    own = torch.Generator()  # or it would use the global one, to give workers seeds that nobody needs
    loader = DataLoader(files, batch_size=None, num_workers=workers, generator=own, collate_fn=tuple)
    with _deaf_to_interrupts():
        read = iter(loader)  # starts the workers
    for name, squares, error in tqdm(read, desc="images", unit="file", delay=2, total=len(files)):
        if squares is None:
            broken[name] = error
        else:
            yield torch.from_numpy(squares)


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


def _in_memory(files: _Files, workers: int) -> tuple[Tensor, dict[str, str]]:
    broken: dict[str, str] = {}
    parts = list(_phases(files, workers, broken))
    return torch.cat(parts) if parts else torch.empty(0), broken


def _on_disk(files: _Files, workers: int, cache: Path) -> tuple[Tensor, dict[str, str]]:
    key = files.key()
    found = map_cache(cache, key)
    if found is None:
        broken: dict[str, str] = {}
        parts = _phases(files, workers, broken)
        first = next(parts, None)
        if first is None:
            return torch.empty(0), broken
        write_cache(cache, key, chain([first], parts), {"broken": broken})
        found = map_cache(cache, key)
    assert found is not None, "just written"
    return found[0], found[1].get("broken", {})


def _check_options(size: object, split: object, channels: object, crops: object, test_share: float) -> None:
    if not isinstance(size, int) or size < 4:
        raise ValueError(f"size: got {size!r}, expected a whole number of pixels from 4; try size=32")
    if split not in ("train", "test", "all"):
        raise ValueError(f"split: got {split!r}, expected 'train', 'test' or 'all'; try split='train'")
    if channels not in (1, 3):
        raise ValueError(f"channels: got {channels!r}, expected 1 or 3; try channels=1 for grey images")
    if crops is not None and (not isinstance(crops, int) or crops < 1):
        raise ValueError(f"crops: got {crops!r}, expected None or a number from 1; try crops=20")
    if not 0 < test_share < 1:
        raise ValueError(
            f"test_share: got {test_share}, expected a number between 0 and 1; try 0.1, or split='all' for no split"
        )


def _image_files(folder: Path) -> list[str]:
    """Names of all images relative to the folder, sorted, with slashes."""
    if folder.is_file():
        raise ValueError(f"path: got the file {folder}, expected a folder; try {folder.parent}")
    if not folder.is_dir():
        raise ValueError(f"path: got {folder}, which does not exist, expected a folder; try {folder.absolute().parent}")
    found = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    visible = [file for file in found if not any(part.startswith((".", "__MACOSX")) for part in file.parts)]
    files = sorted(file.as_posix() for file in visible if file.suffix.lower() in SUFFIXES)
    if not files:
        others = sorted({file.suffix or file.name for file in visible})
        raise ValueError(
            f"path: got {folder} with {f'files {_listed(others)}' if others else 'no files'}, expected images "
            f"{', '.join(SUFFIXES)}; try another folder, or convert the images to PNG"
        )
    return files


def _classes(folder: Path, files: list[str]) -> list[str]:
    """Names of the sub-folders that hold images, sorted."""
    beside = [name for name in files if "/" not in name]
    if beside and len(beside) < len(files):
        raise ValueError(
            f"path: got {folder} with images beside sub-folders ({_listed(beside)}), expected all images in "
            "sub-folders (classes) or none; try a sub-folder for these too, or the path of one sub-folder"
        )
    return [] if beside else sorted({name.split("/")[0] for name in files})


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
    """64 bits that are the same on every machine, also on one that writes accents in another way."""
    return int.from_bytes(hashlib.sha256(unicodedata.normalize("NFC", text).encode()).digest()[:8], "big")


def _read(file: Path, channels: int) -> Tensor:
    """One image (channels, height, width) with values in [0, 1]."""
    from PIL import Image, ImageOps  # here, because nobody else needs it

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is the one that counts
        with Image.open(file) as opened:  # reads the header, no pixels
            if opened.width * opened.height > _MOST_PIXELS:
                raise ValueError(
                    f"{opened.width} x {opened.height} pixels, expected at most {_MOST_PIXELS:,}: cut it into pieces"
                )
            values = torch.from_numpy(_values(ImageOps.exif_transpose(opened))).movedim(2, 0)
    if channels == 3:
        return values.expand(3, -1, -1)
    return torch.einsum("chw,c->hw", values, torch.tensor(_LUMA))[None] if len(values) == 3 else values


def _values(image: Image) -> np.ndarray:
    """Pixels (height, width, 1 or 3) in [0, 1], float32."""
    if image.mode == "F" or image.mode.startswith("I"):  # more than 8 bits, which Pillow cannot convert
        white = 1 if image.mode == "F" else 2**16 - 1
        pixels = np.asarray(image, np.float32)[:, :, None]
        if not (pixels.min() >= 0 and pixels.max() <= white):  # written so that NaN fails too
            raise ValueError(f"values from {pixels.min():g} to {pixels.max():g}, expected 0 to {white}: rescale them")
        return pixels / white
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        background = layer.copy()
        background.paste((255, 255, 255, 255), (0, 0, *layer.size))
        background.alpha_composite(layer)
        image = background.convert("RGB")
    image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    pixels = np.array(image, np.float32).reshape(image.height, image.width, -1)
    pixels /= 255  # in place: photographs are large
    return pixels


def _resized(image: Tensor, size: int) -> Tensor:
    """The centred square of an image (C, H, W), as (C, size, size)."""
    side = min(image.shape[1:])
    top, left = ((length - side) // 2 for length in image.shape[1:])
    return _interpolated(image[:, top : top + side, left : left + side], (size, size))


def _random_crops(image: Tensor, size: int, crops: int, name: str, seed: int) -> list[Tensor]:
    """Squares of an image (C, H, W), whose places depend on nothing but its name and the seed."""
    if min(image.shape[1:]) < size:
        factor = size / min(image.shape[1:])
        shape = tuple(max(size, round(length * factor)) for length in image.shape[1:])
        if math.prod(shape) > _MOST_PIXELS:
            raise ValueError(f"{shape[1]} x {shape[0]} pixels when enlarged, expected at most {_MOST_PIXELS:,}")
        image = _interpolated(image, shape)
    generator = torch.Generator().manual_seed(_hash(f"{seed}/{name}") >> 1)
    rows, columns = (
        torch.randint(length - size + 1, (crops,), generator=generator).tolist() for length in image.shape[1:]
    )
    # Copies, since a part would keep its whole photograph in memory.
    return [image[:, i : i + size, j : j + size].clone() for i, j in zip(rows, columns, strict=True)]


def _interpolated(image: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Resized with a triangular kernel as wide as the pixels of the coarser grid: no aliases, no overshoot."""
    resized = torch.nn.functional.interpolate(image[None], shape, mode="bilinear", align_corners=False, antialias=True)
    return resized[0].clamp(0, 1)  # against rounding


def _report(broken: list[str], files: int, skip_broken: bool) -> None:
    """Say which files could not be read: as a warning if some are left and the user wants to go on."""
    if broken and skip_broken and len(broken) < files:
        warnings.warn(f"left out {len(broken)} of {files} files that cannot be read: {_listed(broken)}", stacklevel=3)
    elif broken:
        raise ValueError(
            f"path: got {len(broken)} of {files} files that cannot be read: {_listed(broken)}; expected images; "
            "try to open them in another program, or skip_broken=True if others are left"
        )


def _listed(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
