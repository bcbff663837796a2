"""Squares at random places of a picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["random_corners"]


def random_corners(
    region: Sequence[int], size: int, n: int, seed: int, split: str, unit: str = "pixels"
) -> list[tuple[int, int]]:
    """Upper left corners of ``n`` squares that lie in a region.

    Args:
        region: its height and width.
        size: side of the squares.
        n: how many.
        seed: integer; the same seed gives the same places.
        split: whose region it is, for the message.
        unit: what sizes are counted in, for the message.

    Raises:
        ValueError: a size that does not fit, no squares.
    """
    height, width = region
    if not isinstance(size, int) or not 4 <= size <= min(height, width):
        raise ValueError(
            f"size: got {size!r}, expected 4 to {min(height, width)} {unit} for the {split} split; try size=32"
        )
    if n < 1:
        raise ValueError(f"n: got {n}, expected at least 1 crop; try n=768")
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(height - size + 1, (n,), generator=generator).tolist()
    columns = torch.randint(width - size + 1, (n,), generator=generator).tolist()
    return list(zip(rows, columns, strict=True))
