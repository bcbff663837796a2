"""What all pictures of phases share: their cyclic colours, and many images as one.

It needs no matplotlib, which takes a second to import.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["CYCLIC", "image_grid"]

#: The name of matplotlib's cyclic and perceptually uniform map: -pi and pi have the same colour.
CYCLIC = "twilight"


def image_grid(theta: Tensor, columns: int = 8, gap: int = 1) -> Tensor:
    """A batch of single-channel images (B, 1, H, W) as one big image (rows, columns), black between them."""
    batch, _, height, width = theta.shape
    rows = math.ceil(batch / columns)
    grid = torch.full((rows * (height + gap) - gap, columns * (width + gap) - gap), -0.9 * math.pi, dtype=theta.dtype)
    for k in range(batch):
        i, j = (k // columns) * (height + gap), (k % columns) * (width + gap)
        grid[i : i + height, j : j + width] = theta[k, 0]
    return grid
