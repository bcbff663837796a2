"""Real photographs of brick, grass and gravel, which come with scikit-image: no download."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from kodm_lite.data.crops import random_corners
from kodm_lite.data.options import check_choice, check_whole
from kodm_lite.data.phase_data import PhaseData
from kodm_lite.encoding import HALF_CIRCLE, GreyLevels

__all__ = ["TEXTURES", "textures"]

TEXTURES = ("brick", "grass", "gravel")
_TEST_WIDTH = 64  # columns at the right edge of each 256 x 256 photograph that only the test split sees


def textures(
    size: int = 32,
    split: Literal["train", "test"] = "train",
    n: int = 768,
    seed: int = 0,
    names: Sequence[str] = TEXTURES,
    scale: float = HALF_CIRCLE.scale,
    without: tuple[int, int] | None = None,
) -> PhaseData:
    """Square crops of real textures, as phases in [-``scale`` pi, ``scale`` pi].

    The photographs (512 x 512 bytes) are averaged to 256 x 256 and stretched so that 1 % of the training region's
    pixels are black and 1 % white.  Training crops come from the left 192 columns, test crops from the right 64: no
    pixel is in both.  Classes take turns, positions are drawn from ``seed``.

    Args:
        size: side of a crop in pixels, 4 to 192 (test: 64).
        split: "train" or "test".
        n: number of crops.
        seed: integer; the same seed gives the same crops.
        names: which photographs, of "brick", "grass", "gravel".
        scale: of :class:`kodm_lite.GreyLevels`; the published 0.9 makes black and white neighbours.
        without: number and seed of other crops of the same size and split; none of these is to be at one of their
            places, in whatever photograph.

    Returns:
        :class:`PhaseData` with theta (n, 1, size, size).

    Raises:
        ValueError: a size that does not fit, an unknown split or name, a scale that is not between 0 and 1.

    >>> data = textures(size=16, n=6)
    >>> data.theta.shape, data.labels.tolist()
    (torch.Size([6, 1, 16, 16]), [0, 1, 2, 0, 1, 2])
    """
    check_choice("split", split, ("train", "test"))
    if not isinstance(names, list | tuple) or not names or any(name not in TEXTURES for name in names):
        raise ValueError(f"names: got {names!r}, expected a list of some of {TEXTURES}; try names=['brick']")
    n = check_whole("n", n, 1, hint=768)
    encoding = GreyLevels(scale)
    photographs = [_region(name, split) for name in names]
    region = photographs[0].shape
    others = [] if without is None else random_corners(region, size, *without, split)
    corners = random_corners(region, size, n, seed, split, without=others)
    labels = torch.arange(n) % len(names)
    crops = [photographs[k][i : i + size, j : j + size] for k, (i, j) in zip(labels.tolist(), corners, strict=True)]
    return PhaseData(
        theta=encoding.encode(torch.stack(crops)[:, None]),
        labels=labels,
        names=tuple(names),
        encoding=encoding,
        source="photographs brick, grass, gravel of scikit-image (originally CC0Textures)",
        licence="CC0",
    )


@cache
def _photograph(name: str) -> Tensor:
    """256 x 256 grey values in [-1, 1]."""
    import skimage.data  # here, because no module does work at import

    pixels = torch.as_tensor(getattr(skimage.data, name)(), dtype=torch.float32)
    small = torch.nn.functional.avg_pool2d(pixels[None], 2)[0]
    black, white = torch.quantile(small[:, :-_TEST_WIDTH].flatten(), torch.tensor([0.01, 0.99]))
    return ((small - black) / (white - black) * 2 - 1).clamp(-1, 1)


def _region(name: str, split: str) -> Tensor:
    photograph = _photograph(name)
    return photograph[:, :-_TEST_WIDTH] if split == "train" else photograph[:, -_TEST_WIDTH:]
