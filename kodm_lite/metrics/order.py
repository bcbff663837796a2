"""One number per image: its mean phase and its order parameter, and how far apart two sets are in the latter."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from kodm_lite.circular import order_parameter, wrap
from kodm_lite.metrics.distributions import circular_wasserstein, wasserstein_distance
from kodm_lite.metrics.validation import check_images

__all__ = ["OrderDistance", "OrderStatistics", "image_means", "order_distance", "order_statistics"]


class OrderStatistics(NamedTuple):
    """Order parameter of each image.

    Args:
        modulus: 0 for phases spread evenly, 1 for equal phases (B,), float64.
        direction: mean direction of the phases (B,), float64, radians in [-pi, pi); of no meaning where the modulus
            vanishes.
    """

    modulus: Tensor
    direction: Tensor


class OrderDistance(NamedTuple):
    """Distances of two sets of order parameters.

    Args:
        modulus: Wasserstein distance of the moduli, from 0 to 1.
        direction: circular Wasserstein distance of the directions, weighted by the moduli, in radians, from 0 to pi.
    """

    modulus: float
    direction: float


def order_statistics(theta: Tensor) -> OrderStatistics:
    """Modulus and direction of the order parameter of each image, over its pixels and channels.

    Args:
        theta: phases (B, C, H, W), radians.

    Source: Kuramoto 1975; Mardia and Jupp 2000, section 2.2.

    >>> import torch
    >>> order_statistics(torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)).direction
    tensor([0.5000], dtype=torch.float64)
    """
    check_images(theta, "theta")
    z = order_parameter(theta.detach().double(), dim=(1, 2, 3))
    return OrderStatistics(z.abs(), wrap(z.angle()))


def order_distance(generated: Tensor, real: Tensor) -> OrderDistance:
    """How far apart the order parameters of two sets of images are: 0 is best.

    Args:
        generated: phases (n, C, H, W), radians.
        real: phases (m, C, H, W), radians.

    Raises:
        ValueError: no such phases, or a set of images that are all without order.

    >>> import torch
    >>> theta = torch.tensor([0.0, 0.2, 0.4]).reshape(3, 1, 1, 1).expand(3, 1, 8, 8)
    >>> modulus, direction = order_distance(theta + 0.5, theta)
    >>> round(modulus, 6), round(direction, 6)
    (0.0, 0.5)
    """
    a, b = order_statistics(generated), order_statistics(real)
    return OrderDistance(
        modulus=wasserstein_distance(a.modulus, b.modulus),
        direction=circular_wasserstein(a.direction, b.direction, a_weights=a.modulus, b_weights=b.modulus),
    )


def image_means(theta: Tensor) -> Tensor:
    """Mean phase of each image, in radians: its mean brightness times ``scale`` pi.

    It is the arithmetic mean, not the mean direction, because brightness has an order and ends.

    Args:
        theta: phases (B, C, H, W), radians.

    Returns:
        Means (B,), float64.
    """
    check_images(theta, "theta")
    return theta.detach().double().mean((1, 2, 3))
