r"""Ridges that grow along a given field of orientations.

White noise is filtered again and again by a wave packet that lies, at every pixel, along the orientation there.  Waves
of that direction and length grow, all others die, and where they do not meet in step they leave the forks and ends
that fingerprints have: minutiae.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["grow_ridges", "oriented_filter"]

_RADIAL_WIDTH = 0.4  # of the band, in units of its frequency
_CONCENTRATION = 6.0  # of the band's directions; a width of 12 degrees
_SMALLEST_HARMONIC = 1e-3  # relative to the mean
_STEEPNESS = 2.0  # of the walls of ridges
_ROUNDS = 8  # more leave fewer minutiae, and straighter ridges than those that were asked for


def oriented_filter(x: Tensor, doubled: Tensor, period: float) -> Tensor:
    r"""Every image convolved, at each pixel, with a wave packet along that pixel's orientation.

    The packet has frequencies near 1 / ``period``, in directions :math:`\alpha` weighted by :math:`e^{\kappa (\cos 2
    (\alpha - \beta) - 1)}` about the normal :math:`\beta` of the ridges.  By the Jacobi-Anger expansion this is
    :math:`\sum_m e^{-\kappa} I_m(\kappa)\, e^{2 i m \alpha} e^{-2 i m \beta}`: each term is a convolution that is the
    same everywhere, times a factor that depends on the pixel.

    Args:
        x: numbers (n, H, W), continued periodically.
        doubled: twice the angle of the ridges (n, H, W), radians.
        period: length of the waves in pixels.

    Returns:
        Numbers (n, H, W).

    Raises:
        ValueError: shapes that differ, a period below 2 pixels.

    Source: Freeman and Adelson 1991 (steerable filters).  Book: fingerprints.
    """
    if x.ndim != 3 or x.shape != doubled.shape:
        raise ValueError(
            f"x, doubled: got shapes {tuple(x.shape)} and {tuple(doubled.shape)}, expected the same (n, H, W); "
            "try doubled.expand_as(x)"
        )
    if not 2 < period < math.inf:
        raise ValueError(f"period: got {period}, expected a number of pixels above 2; try 9")
    down, right = (torch.fft.fftfreq(side, dtype=x.dtype, device=x.device) for side in x.shape[1:])
    frequency = torch.hypot(down[:, None], right)
    band = torch.exp(-0.5 * ((frequency * period - 1) / _RADIAL_WIDTH).square()) * (frequency > 0)
    direction = 2 * torch.atan2(down[:, None].expand_as(frequency), right.expand_as(frequency))
    spectrum, normal = torch.fft.fft2(x) * band, doubled + math.pi
    response = _weight(0) * torch.fft.ifft2(spectrum).real
    m = 1
    while _weight(m) > _SMALLEST_HARMONIC * _weight(0):
        steered = torch.fft.ifft2(spectrum * torch.polar(torch.ones_like(direction), m * direction))
        response += 2 * _weight(m) * (steered * torch.polar(torch.ones_like(normal), -m * normal)).real
        m += 1
    return response


def grow_ridges(noise: Tensor, doubled: Tensor, period: float) -> Tensor:
    """Ridges (near 1) and valleys (near -1).

    Args:
        noise: what they grow from (n, H, W), continued periodically: ridges near an edge feel those at the other.
        doubled: twice the angle of the ridges (n, H, W), radians.
        period: from ridge to ridge in pixels.

    Returns:
        Numbers (n, H, W) in (-1, 1).
    """
    x = noise
    for _ in range(_ROUNDS):
        x = oriented_filter(x, doubled, period)
        x = torch.tanh(_STEEPNESS * x / x.square().mean((1, 2), keepdim=True).sqrt())
    return x


def _weight(m: int) -> float:
    from scipy.special import ive  # here, because loading it takes a third of a second

    return float(ive(m, _CONCENTRATION))
