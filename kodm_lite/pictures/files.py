"""Images as files: one PNG, a grid of many, a film of how they came about.

Whatever is written replaces an older file as a whole or not at all.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from kodm_lite.circular import validate_phases, wrap
from kodm_lite.encoding import Encoding
from kodm_lite.files import write_atomically
from kodm_lite.pictures.mosaic import CYCLIC, image_grid

__all__ = ["FILM_BYTES", "check_drawable", "grid", "write_film", "write_grid", "write_image"]

#: A film is at most this large, so that it can be sent and shown on a page.
FILM_BYTES = 2_000_000

_SIDE = 512  # pixels; smaller pictures of several images are magnified to about that
_FRAME_TIME, _LAST_FRAME_TIME = 80, 2000  # milliseconds


def check_drawable(shape: Sequence[int]) -> None:
    """Refuse a sample of another shape than (1, H, W), which is grey, or (3, H, W), which is red, green and blue."""
    if len(shape) != 3 or shape[0] not in (1, 3):
        expected = "(1, H, W) for grey or (3, H, W) for colours"
        raise ValueError(f"out: got samples of shape {tuple(shape)}, expected {expected}; try one that ends in .npz")


def grid(theta: Tensor, encoding: Encoding, columns: int | None = None) -> Image.Image:
    """Images (B, C, H, W), radians, of 1 or 3 channels, side by side, as near to a square as they go, on black.

    Args:
        theta: phases; angles of one channel are drawn in cyclic colours.
        encoding: what the phases stand for.
        columns: images in a row, if it should be no square.
    """
    check_drawable(theta.shape[1:])
    columns = columns or math.ceil(math.sqrt(len(theta)))
    if encoding.cyclic and theta.shape[1] == 1:
        from matplotlib import colormaps  # here, because it takes a moment

        turns = image_grid(wrap(theta).cpu(), columns) / (2 * math.pi) + 0.5
        return Image.fromarray(colormaps[CYCLIC](turns.numpy(), bytes=True)[..., :3])
    channels = [image_grid(channel, columns) for channel in theta.cpu().split(1, dim=1)]
    return Image.fromarray(_bytes(torch.stack(channels, -1), encoding).squeeze(-1).numpy())


def _bytes(theta: Tensor, encoding: Encoding) -> Tensor:
    validate_phases(theta)  # NaN, infinity, degrees: what no byte should hide
    values = encoding.decode(theta)
    grey = values / math.pi if encoding.cyclic else values
    return ((grey + 1) * 127.5).round().to(torch.uint8)


def write_grid(path: Path, theta: Tensor, encoding: Encoding, columns: int | None = None) -> None:
    """Images (B, C, H, W), radians, as one PNG, magnified if it is small, see :func:`grid`.

    OSError leaves an older file as it was.
    """
    _write_png(path, _magnified(grid(theta, encoding, columns)))


def write_image(path: Path, theta: Tensor, encoding: Encoding) -> None:
    """One image (C, H, W), radians, as a PNG of its own, pixel for pixel."""
    _write_png(path, grid(theta[None], encoding))


def write_film(path: Path, frames: Sequence[Tensor], encoding: Encoding) -> None:
    """The same images at one time after the other, as a GIF that starts again after a pause.

    Args:
        path, encoding: where to, and what the phases stand for; OSError leaves an older file as it was.
        frames: at least one (B, C, H, W), radians; too many for ``FILM_BYTES`` are thinned out, never the last.
    """
    pictures = [_magnified(grid(theta, encoding, columns=len(theta))) for theta in frames]
    while len(content := _gif(pictures)) > FILM_BYTES and len(pictures) > 1:
        pictures = pictures[::-2][::-1]  # every second one, counted from the end
    write_atomically(path, content)


def _magnified(picture: Image.Image) -> Image.Image:
    """Every pixel of a small picture as a square of them, so that a screen shows more than a stamp."""
    return picture.resize([x * math.ceil(_SIDE / max(picture.size)) for x in picture.size], Image.Resampling.NEAREST)


def _gif(pictures: Sequence[Image.Image]) -> bytes:
    buffer = io.BytesIO()
    durations = [_FRAME_TIME] * (len(pictures) - 1) + [_LAST_FRAME_TIME]
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    return buffer.getvalue()


def _write_png(path: Path, picture: Image.Image) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
