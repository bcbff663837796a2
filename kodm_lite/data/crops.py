"""Squares at random places of a picture."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

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
    if not isinstance(size, int) or not 4 <= size <= min(height, width):
        raise ValueError(
            f"size: got {size!r}, expected 4 to {min(height, width)} {unit} for the {split} split; try size=32"
        )
    if n < 1:
        raise ValueError(f"n: got {n}, expected at least 1 crop; try n=768")
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
