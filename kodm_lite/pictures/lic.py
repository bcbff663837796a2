"""Line-integral convolution: a picture of which way orientations run, as of iron filings."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kodm_lite.circular import validate_phases
from kodm_lite.randomness import Generators, uniform

__all__ = ["line_integral_convolution"]


def line_integral_convolution(
    doubled: Tensor, magnify: int = 6, length: float = 3.0, generator: Generators = None
) -> Tensor:
    """White noise, averaged along the lines of a field of orientations: smooth along them, rough across.

    Args:
        doubled: twice the angle of the lines (H, W), radians.
        magnify: pixels of the picture for each of the field.
        length: how far the average reaches to either side, in pixels of the field.
        generator: of the noise; the same one for the frames of a film.

    Returns:
        Grey values (H * magnify, W * magnify) in [0, 1], with equal shares of all.

    Raises:
        ValueError: no field (H, W), numbers that are not positive.

    Source: Cabral and Leedom 1993.
    """
    validate_phases(doubled, "doubled")
    if doubled.ndim != 2 or magnify < 1 or not length > 0:
        got, expected = f"shape {tuple(doubled.shape)}, {magnify} and {length}", "one (H, W) and positive numbers"
        raise ValueError(f"doubled, magnify, length: got {got}, expected {expected}; try doubled[0]")
    rows, columns = (magnify * side for side in doubled.shape)
    noise = uniform(torch.empty(1, 1, rows, columns, dtype=doubled.dtype, device=doubled.device), generator)
    arrows = torch.stack([doubled.cos(), doubled.sin()])[None]  # these can be interpolated, angles cannot
    grid = torch.stack(torch.meshgrid(_centres(columns, noise), _centres(rows, noise), indexing="xy"), -1)[None]
    total = _at(noise, grid)
    count = max(1, round(2 * length * magnify))  # half a pixel of the picture at a time
    step = torch.tensor([1 / columns, 1 / rows], dtype=noise.dtype, device=noise.device)
    for sign in (1.0, -1.0):
        place, heading = grid, sign * _direction(arrows, grid)
        for _ in range(count):
            place = place + heading * step
            along = _direction(arrows, place)
            heading = torch.where((along * heading).sum(-1, keepdim=True) < 0, -along, along)  # no arrow: go on
            total = total + _at(noise, place)
    ranks = total.flatten().argsort().argsort()
    return (ranks.to(noise) / max(1, ranks.numel() - 1)).reshape(rows, columns)


def _centres(count: int, like: Tensor) -> Tensor:
    """Middles of pixels, in the units of grid_sample: from -1 to 1 between the outer edges."""
    return (2 * torch.arange(count, dtype=like.dtype, device=like.device) + 1) / count - 1


def _direction(arrows: Tensor, place: Tensor) -> Tensor:
    """Unit vectors (1, rows, columns, 2) along the lines: to the right, and down."""
    cosine, sine = _at(arrows, place).unbind(1)
    angle = 0.5 * torch.atan2(sine, cosine)
    return torch.stack([angle.cos(), angle.sin()], -1)


def _at(image: Tensor, place: Tensor) -> Tensor:
    return functional.grid_sample(image, place, mode="bilinear", padding_mode="reflection", align_corners=False)
