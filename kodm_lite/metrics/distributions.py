r"""Distances of two sets of numbers, or of angles: Wasserstein on the line and on the circle, Kuiper.

All are read off the difference :math:`D = F_a - F_b` of the two distribution functions.  On the line the Wasserstein
distance of order 1 is :math:`\int |D|`, the least mean distance over which one set must be moved to become the other.
On the circle each unit can go round either way; a constant flow around the circle may be added to D, and the best
one is its median.  Kuiper's distance is the largest D minus the least.

Wasserstein distances come in the units of the numbers and grow with the shift; Kuiper's is a share of the sample and is
1 at once if the sets do not overlap.

Sources: Vallender 1974; Delon, Salomon and Sobolevski 2010; Rabin, Delon and Gousseau 2011; Kuiper 1960.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kodm_lite.circular import TWO_PI

__all__ = ["circular_wasserstein", "kuiper_distance", "wasserstein_distance"]


def wasserstein_distance(
    a: Tensor, b: Tensor, a_weights: Tensor | None = None, b_weights: Tensor | None = None
) -> float:
    """Wasserstein distance of order 1 of two sets of numbers, in their units.

    Args:
        a: numbers of any shape.
        b: numbers of any shape.
        a_weights: weight of each number of ``a``, not negative; by default all are equal.
        b_weights: likewise for ``b``.

    Raises:
        ValueError: an empty set, NaN or infinity, weights of another shape, negative ones, or only zeros.

    Source: Vallender 1974.

    >>> wasserstein_distance(torch.tensor([0.0, 1.0]), torch.tensor([3.0, 0.0]))
    1.0
    """
    values, excess = _excess(a, b, a_weights, b_weights)
    return float((excess[:-1].abs() * values.diff()).sum())


def circular_wasserstein(
    a: Tensor,
    b: Tensor,
    period: float = TWO_PI,
    a_weights: Tensor | None = None,
    b_weights: Tensor | None = None,
) -> float:
    """Wasserstein distance of order 1 of two sets of angles, along the shorter way round, in their units.

    It is exact, and at most half a period.

    Args:
        a: angles of any shape, on any turn.
        b: angles of any shape, on any turn.
        period: length of a turn; pi for orientations, which have no arrow.
        a_weights: weight of each angle of ``a``, not negative; by default all are equal.
        b_weights: likewise for ``b``.

    Raises:
        ValueError: as in :func:`wasserstein_distance`, or a period that is not positive.

    Source: Delon, Salomon and Sobolevski 2010; Rabin, Delon and Gousseau 2011.

    >>> round(circular_wasserstein(torch.tensor([3.0, 0.0]), torch.tensor([-3.0, 0.0])), 4)  # pi - 3, of one in two
    0.1416
    """
    if not 0 < period < math.inf:
        raise ValueError(f"period: got {period}, expected a positive number; try 2 * math.pi")
    _check_numbers(a, "a")
    _check_numbers(b, "b")
    a, b = (torch.remainder(angles.detach().double(), period) for angles in (a, b))
    values, excess = _excess(a, b, a_weights, b_weights)
    # The last arc leads over the end of the turn to the first angle; there both distribution functions are 1.
    lengths = torch.cat([values.diff(), (period - values[-1] + values[0])[None]])
    return float(((excess - _weighted_median(excess, lengths)).abs() * lengths).sum())


def kuiper_distance(a: Tensor, b: Tensor, a_weights: Tensor | None = None, b_weights: Tensor | None = None) -> float:
    r"""Kuiper's distance of two sets of numbers or angles, :math:`V = \max(F_a - F_b) + \max(F_b - F_a)`.

    F are the empirical distribution functions.  V lies between 0 and 1 (the sets lie on separate arcs).  On the circle
    it does not depend on where the angles start, unlike the distance of Kolmogorov and Smirnov; all angles must lie on
    the same turn, such as [-pi, pi).

    Args:
        a: numbers, or angles in radians, of any shape.
        b: numbers, or angles in radians, of any shape.
        a_weights: weight of each number of ``a``, not negative; by default all are equal.
        b_weights: likewise for ``b``.

    Raises:
        ValueError: as in :func:`wasserstein_distance`.

    Source: Kuiper 1960; Mardia and Jupp 2000, section 8.3.

    >>> kuiper_distance(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 2.0]))
    0.5
    """
    _, excess = _excess(a, b, a_weights, b_weights)
    return float(excess.max() - excess.min())  # both distribution functions are 1 at the end: max >= 0 >= min


def _excess(a: Tensor, b: Tensor, a_weights: Tensor | None, b_weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """All numbers in order, and by how much the share of ``a`` up to each of them exceeds that of ``b``."""
    _check_numbers(a, "a")
    _check_numbers(b, "b")
    values = torch.cat([x.detach().to(a.device).double().flatten() for x in (a, b)]).sort().values
    shares = [_share_up_to(values, x, w, name) for x, w, name in ((a, a_weights, "a"), (b, b_weights, "b"))]
    return values, shares[0] - shares[1]


def _share_up_to(values: Tensor, numbers: Tensor, weights: Tensor | None, name: str) -> Tensor:
    """Distribution function of the weighted numbers at ``values``."""
    ordered, order = numbers.detach().to(values).flatten().sort()
    if weights is None:
        return torch.searchsorted(ordered, values, right=True).double() / len(ordered)
    _check_weights(weights, numbers, f"{name}_weights")
    cumulative = weights.detach().to(values).flatten()[order].cumsum(0)
    cumulative = torch.cat([cumulative.new_zeros(1), cumulative]) / cumulative[-1]
    return cumulative[torch.searchsorted(ordered, values, right=True)]


def _weighted_median(numbers: Tensor, weights: Tensor) -> Tensor:
    """A number with at most half of the weight on either side of it."""
    ordered, order = numbers.sort()
    cumulative = weights[order].cumsum(0)
    middle = int(torch.searchsorted(cumulative, cumulative[-1] / 2))
    return ordered[middle]


def _check_numbers(numbers: Tensor, name: str) -> None:
    if numbers.numel() == 0 or not bool(torch.isfinite(numbers).all()):
        raise ValueError(
            f"{name}: got no numbers, NaN or infinity, expected one number at least; "
            f"try torch.isfinite({name}) to find them"
        )


def _check_weights(weights: Tensor, numbers: Tensor, name: str) -> None:
    if weights.shape != numbers.shape:
        raise ValueError(
            f"{name}: got shape {tuple(weights.shape)}, expected {tuple(numbers.shape)}, a weight for each number; "
            f"try {name}.expand{tuple(numbers.shape)}"
        )
    total = float(weights.sum())
    if not (bool((weights >= 0).all()) and 0 < total < math.inf):  # written so that NaN fails too
        raise ValueError(
            f"{name}: got weights from {float(weights.min()):.4g} that add up to {total:.4g}, expected none below 0 "
            "and a positive sum; try images that are not flat"
        )
