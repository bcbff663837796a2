"""How far apart two sets of images are in the directions of their lines."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from kodm_lite.metrics.distributions import circular_wasserstein, kuiper_distance, wasserstein_distance
from kodm_lite.orientation import orientation_field

__all__ = ["OrientationDistance", "orientation_distance"]


class OrientationDistance(NamedTuple):
    """Distances of two sets of local orientations; 0 is best for all.

    Args:
        circular_wasserstein: of the doubled angles, weighted by coherence: how far orientations must be turned on
            average, times two; radians, from 0 to pi.
        kuiper: of the same, from 0 to 1.
        coherence: Wasserstein distance of the coherences, from 0 to 1.
    """

    circular_wasserstein: float
    kuiper: float
    coherence: float


def orientation_distance(generated: Tensor, real: Tensor) -> OrientationDistance:
    """Distances of the distributions of local orientation and of coherence.

    Angles are weighted by coherence because a pixel without lines has some orientation, but none that means anything.
    The pixels of all images are taken together: where in the image an orientation is found does not matter.

    Args:
        generated: images (..., H, W) with floating values that have an order, such as phases that stand for grey
            values.
        real: images (..., H, W).

    Raises:
        ValueError: what :func:`kodm_lite.orientation.orientation_field` refuses, or a set of images without lines.

    >>> import torch
    >>> rows = torch.sin(torch.arange(32.0))[:, None].expand(32, 32)
    >>> found = orientation_distance(rows.T, rows)  # all lines turned by a right angle, doubled: pi
    >>> round(found.circular_wasserstein, 2), found.kuiper, round(found.coherence, 2)
    (3.14, 1.0, 0.0)
    """
    (a, a_weights), (b, b_weights) = orientation_field(generated), orientation_field(real)
    return OrientationDistance(
        circular_wasserstein=circular_wasserstein(a, b, a_weights=a_weights, b_weights=b_weights),
        kuiper=kuiper_distance(a, b, a_weights, b_weights),
        coherence=wasserstein_distance(a_weights, b_weights),
    )
