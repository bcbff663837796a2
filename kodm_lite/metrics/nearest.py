"""Is a generated image a copy?  Distances to the nearest training image, and what they are for held-out images."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from kodm_lite.circular import wrap
from kodm_lite.metrics.validation import check_images, check_one_shape

__all__ = ["Memorisation", "memorisation", "nearest_distances"]

_PAIRS = 2**19  # differences of phases in memory at a time


class Memorisation(NamedTuple):
    """Share of samples nearer to training images than held-out ones are, and median distances of both, radians."""

    share: float
    samples_median: float
    held_out_median: float


@torch.no_grad()
def nearest_distances(theta: Tensor, reference: Tensor) -> Tensor:
    """Distance (B,) of each image to the nearest of the reference images: 0 for a copy, float64, radians, at most pi.

    The distance of two images is the root mean square of the wrapped differences of their phases.  All reference images
    are looked at, a few at a time: they may be larger than the memory, as of a file that is mapped into it.

    Args:
        theta: phases (B, C, H, W), radians.
        reference: phases (n, C, H, W), radians, such as all training images.

    Raises:
        ValueError: images of two shapes.

    >>> nearest_distances(torch.full((1, 1, 8, 8), 3.0), torch.full((1, 1, 8, 8), -3.0))
    tensor([0.2832], dtype=torch.float64)
    """
    check_images(theta, "theta")
    check_images(reference, "reference")
    check_one_shape(theta, reference, "theta, reference")
    images = wrap(theta).flatten(1)
    nearest = images.new_full((len(images),), math.inf)
    for chunk in reference.split(max(1, _PAIRS // images.shape[1])):
        others = wrap(chunk.to(theta)).flatten(1)
        nearest = nearest.minimum(torch.stack([_rms_difference(others, image).min() for image in images]))
    return nearest.double()


def memorisation(theta: Tensor, train: Tensor, held_out: Tensor, quantile: float = 0.05) -> Memorisation:
    """Share of samples that are nearer to a training image than new real images are.

    A sample counts if its distance to the nearest training image is less than the ``quantile`` of the distances of
    held-out images.  Of samples of the true law a share of ``quantile`` counts, of copies all.  Images with little
    contrast are near to everything: blurred samples lower the median and can raise the share, so read this beside a
    metric that sees blur; and of several classes it is the one with the least contrast that makes the quantile.

    Args:
        theta, train, held_out: phases (B, C, H, W), radians: samples, all images that the model has seen, and others.
        quantile: between 0 and 1.

    Raises:
        ValueError: images of two shapes, a quantile out of range, held-out images that are training images.

    >>> from kodm_lite.data import textures
    >>> train, held_out = textures(n=200).theta, textures(n=50, split="test").theta
    >>> memorisation(train[:10] + 0.01, train, held_out).share
    1.0
    """
    if not isinstance(quantile, float) or not 0 < quantile < 1:
        raise ValueError(f"quantile: got {quantile!r}, expected a number between 0 and 1; try 0.05")
    return compare_nearest(nearest_distances(theta, train), nearest_distances(held_out, train), quantile)


def compare_nearest(samples: Tensor, held_out: Tensor, quantile: float) -> Memorisation:
    """As :func:`memorisation`, of distances (B,) and (m,) that are already known."""
    threshold = torch.quantile(held_out, quantile)
    if threshold <= 1e-6:
        known = f"{float((held_out <= 1e-6).double().mean()):.0%} training images"
        raise ValueError(f"held_out: got {known}, expected images that the model has not seen; try the test split")
    share = (samples < threshold).double().mean()
    return Memorisation(float(share), float(samples.median()), float(held_out.median()))


def _rms_difference(angles: Tensor, angle: Tensor) -> Tensor:
    """Root mean square over the last dimension of wrapped differences of angles that lie in [-pi, pi)."""
    difference = (angles - angle).abs_()
    shorter_way = difference.sub_(math.pi).abs_().neg_().add_(math.pi)  # pi - | |a - b| - pi |
    return torch.linalg.vector_norm(shorter_way, dim=-1) / shorter_way.shape[-1] ** 0.5
