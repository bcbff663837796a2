"""One file of an image: which files are images, and what their pixels are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MOST_PIXELS", "SUFFIXES", "read_image", "readable_suffixes", "upright"]

#: Endings of image files.  Not among them: documents that Pillow would hand to other programs, and scientific formats.
SUFFIXES = (
    *(".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".mpo", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp"),
)
MOST_PIXELS = 100_000_000  # a photograph has fewer; a small file that claims more is there to fill the memory
_MOST_TEXT = 2**26  # bytes of one text in a PNG, unpacked: the workflow of a drawing program can take a megabyte
_LUMA = (0.299, 0.587, 0.114)  # shares of red, green and blue in grey, ITU-R 601


@cache
def _pillow() -> ModuleType:
    """Pillow with the plug-in for photographs of telephones, if that is installed."""
    from PIL import Image  # here, because nobody else needs it

    with suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()
    return Image


@cache
def readable_suffixes() -> tuple[str, ...]:
    """Those of ``SUFFIXES`` that the installed Pillow can open."""
    known = _pillow().registered_extensions()
    return tuple(suffix for suffix in SUFFIXES if suffix in known)


def upright(image: Image) -> Image:
    """A photograph as it is to be seen, however the camera was held; what is transparent is laid on white."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")) or not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    background = layer.copy()
    background.paste((255, 255, 255, 255), (0, 0, *layer.size))
    background.alpha_composite(layer)
    return background.convert("RGB")


def read_image(file: Path, channels: int, prepare: Callable[[Image], Image] = upright) -> tuple[Tensor, int]:
    """One image (channels, height, width) with values in [0, 1], and how many pages the file has.

    Args:
        file: the file; of several pages or moments the first is taken.
        channels: 1 (grey) or 3 (red, green, blue).
        prepare: what is done to the image before its values are taken.

    Raises:
        Exception: of nearly every kind, as damaged files make decoders raise it.
    """
    with _texts_of_any_use(), warnings.catch_warnings():
        warnings.simplefilter("ignore", _pillow().DecompressionBombWarning)  # the limit below is the one that counts
        with _pillow().open(file) as opened:  # reads the header, no pixels
            if opened.width * opened.height > MOST_PIXELS:
                raise ValueError(
                    f"{opened.width} x {opened.height} pixels, expected at most {MOST_PIXELS:,}: cut it into pieces"
                )
            # The second picture of a telephone's photograph is the first one once more, small or for the other eye.
            pages = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
            values = torch.from_numpy(_values(prepare(opened))).movedim(2, 0)
    if channels == 3:
        return values.expand(3, -1, -1), pages
    return (torch.einsum("chw,c->hw", values, torch.tensor(_LUMA))[None] if len(values) == 3 else values), pages


@contextmanager
def _texts_of_any_use() -> Iterator[None]:
    """Pillow refuses a PNG for a text of more than a megabyte, which has nothing to do with its pixels."""
    from PIL import PngImagePlugin

    before, PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_CHUNK, _MOST_TEXT
    try:
        yield
    except ValueError as error:
        if "text" in str(error).lower():
            raise ValueError(f"{error}; strip the metadata of the file, which are over {_MOST_TEXT:,} bytes") from error
        raise
    finally:
        PngImagePlugin.MAX_TEXT_CHUNK = before


def _values(image: Image) -> np.ndarray:
    """Pixels (height, width, 1 or 3) in [0, 1], float32."""
    if image.mode.startswith(("I", "F")):  # more than 8 bits, which Pillow cannot convert
        white = 1 if image.mode == "F" else 2**16 - 1
        pixels = np.asarray(image, np.float32)[:, :, None]
        if not (pixels.min() >= 0 and pixels.max() <= white):  # written so that NaN fails too
            raise ValueError(f"values from {pixels.min():g} to {pixels.max():g}, expected 0 to {white}: rescale them")
        return pixels / white
    image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    pixels = np.array(image, np.float32).reshape(image.height, image.width, -1)
    pixels /= 255  # in place: photographs are large
    return pixels
