"""Squares at random places of a picture."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from kodm_lite.data.options import check_whole

__all__ = ["random_corners"]


def random_corners(
    region: Sequence[int],
    size: int,
    n: int,
    seed: int,
    split: str,
    unit: str = "pixels",
    without: Collection[tuple[int, int]] = (),
) -> list[tuple[int, int]]:
    """Upper left corners of ``n`` squares that lie in a region.

    Args:
        region: its height and width.
        size: side of the squares.
        n: how many.
        seed: integer; the same seed gives the same places.
        split: whose region it is, for the message.
        unit: what sizes are counted in, for the message.
        without: corners that must not be among them.

    Raises:
        ValueError: a size that does not fit, no squares, or no corner that is left.
    """
    height, width = region
    size = check_whole("size", size, 4, min(height, width), 32, f" {unit} for the {split} split")
    n, seed = check_whole("n", n, 1, hint=768, unit=" crops"), check_whole("seed", seed, 0)
    rows, columns = height - size + 1, width - size + 1
    taken = set(without)
    if len(taken) >= rows * columns:
        raise ValueError(f"without: got {len(taken)} corners, expected fewer than all {rows * columns}; try fewer")
    generator = torch.Generator().manual_seed(seed)
    corners: list[tuple[int, int]] = []
    while len(corners) < n:
        drawn = (torch.randint(k, (n,), generator=generator).tolist() for k in (rows, columns))
        corners += [corner for corner in zip(*drawn, strict=True) if corner not in taken]
    return corners[:n]
