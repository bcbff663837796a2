r"""Angles of images: the mean direction of phases, the orientations of lines, and what to do where there are none.

An angle that is undefined is NaN, and is never compared.  Where the order parameter z of an image is zero within its
error, its direction means nothing.  The error is that of the mean of the K = 16 blocks of the image, whose pixels may
depend on each other.  Without order, :math:`x = |z|^2 / \mathrm{error}^2` has an F distribution with 2 and 2 (K - 1)
degrees of freedom, and exceeds :math:`(K - 1)(p^{-1 / (K - 1)} - 1)` with probability p.  Of K independent phases this
is Rayleigh's test.

Noise has an orientation at every pixel, of a few neighbours that happen to agree.  A set of images whose mean coherence
is no larger than that of white noise is therefore one without lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from kodm_lite.circular import order_parameter, wrap
from kodm_lite.metrics.validation import check_images
from kodm_lite.orientation import orientation_field

__all__ = ["OrderStatistics", "image_means", "order_statistics"]

_BLOCKS = 4  # along each side
_CHANCE = 1e-3  # that an image without order has a direction
_ERRORS = 3.0  # standard errors by which lines are more coherent than noise
_FEWEST = 0.1  # share of the images of a set that must have an angle if it is to be compared
_CHUNK = 256  # images at a time


class OrderStatistics(NamedTuple):
    """Order parameter of each image: its modulus and its direction (B,), float64.

    The modulus is 0 for phases spread evenly, 1 for equal phases; the direction, in radians in [-pi, pi), is NaN, that
    is undefined, where the order parameter is zero within its error.
    """

    modulus: Tensor
    direction: Tensor


def order_statistics(theta: Tensor) -> OrderStatistics:
    """Modulus and direction of the order parameter of each image, over its pixels and channels.

    Args:
        theta: phases (B, C, H, W), radians.

    Source: Kuramoto 1975; Mardia and Jupp 2000, sections 2.2 and 6.3.

    >>> theta = torch.linspace(-1, 2, 64).reshape(1, 1, 8, 8)
    >>> order_statistics(torch.cat([theta, 6 * theta])).direction  # the second turns nearly three times
    tensor([0.5000,    nan], dtype=torch.float64)
    """
    check_images(theta, "theta")
    theta = theta.detach().double()
    z = order_parameter(theta, dim=(1, 2, 3))
    arrows = torch.stack([theta.cos().mean(1), theta.sin().mean(1)], 1)
    rows, columns = (min(_BLOCKS, side) for side in theta.shape[2:])
    blocks = functional.adaptive_avg_pool2d(arrows, (rows, columns)).flatten(2)
    others = max(blocks.shape[2] - 1, 1)
    error_squared = (blocks - blocks.mean(2, keepdim=True)).square().sum((1, 2)) / (others * (others + 1))
    limit = others * (_CHANCE ** (-1 / others) - 1)
    ordered = (z.abs().square() > limit * error_squared) & (z.abs() > 1e-6)  # less is rounding
    return OrderStatistics(z.abs(), torch.where(ordered, wrap(z.angle()), math.nan))


def image_means(theta: Tensor) -> Tensor:
    """Mean phase (B,) of each image (B, C, H, W) that shows grey values, in radians, float64: its mean brightness.

    It is the arithmetic mean, as brightness has an order and ends.  Angles have neither; see :func:`order_statistics`.
    """
    check_images(theta, "theta")
    return theta.detach().double().mean((1, 2, 3))


def directions(theta: Tensor) -> Tensor:
    """Directions and moduli (n, 2) of the order parameters."""
    modulus, direction = order_statistics(theta)
    return torch.stack([direction, modulus], 1)


def orientations(images: Tensor) -> Tensor:
    """Doubled angles and coherences (n, 2, C, H', W') of the images of one set, at every second row and column.

    Each is a mean over a neighbourhood of several pixels: those between say nothing new, and sorting them takes time.
    """
    parts = (torch.stack(orientation_field(part), 1) for part in images.detach().split(_CHUNK))
    found = torch.cat([part[..., ::2, ::2].clone() for part in parts])
    coherence = found[:, 1].flatten(1).double().mean(1)
    noise, error_of_noise = _coherence_of_noise(*images.shape[-2:])
    error = math.hypot(error_of_noise, float(coherence.std(correction=0)) / len(coherence) ** 0.5)
    lines = (coherence > 0) & bool(coherence.mean() > noise + _ERRORS * error)
    found[:, 0].masked_fill_(~lines[:, None, None, None], math.nan)
    return found


@cache
def _coherence_of_noise(height: int, width: int) -> tuple[float, float]:
    """Mean coherence of images of white noise, and its error."""
    noise = torch.randn(64, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    coherence = orientation_field(noise).coherence.mean((1, 2))
    return float(coherence.mean()), float(coherence.std()) / len(noise) ** 0.5


def has_angle(entries: Tensor) -> Tensor:
    """Which of the images with angles and weights (n, 2, ...) have an angle at all."""
    return entries[:, 0].reshape(len(entries), -1).isfinite().any(1)


def of_angles(distance: Callable[..., float], a: Tensor, b: Tensor) -> float:
    """A distance of angles and weights (n, 2, ...) of the images that have an angle; NaN where too few of a set do."""
    have = [has_angle(x) for x in (a, b)]
    if any(float(x.double().mean()) < _FEWEST for x in have):
        return math.nan
    a, b = a[have[0]], b[have[1]]
    return distance(a[:, 0], b[:, 0], a_weights=a[:, 1], b_weights=b[:, 1])


def of_weights(distance: Callable[..., float], a: Tensor, b: Tensor) -> float:
    """The distance of their weights alone: moduli or coherences."""
    return distance(a[:, 1], b[:, 1])
