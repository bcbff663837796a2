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
from kodm_lite.metrics.validation import LARGEST, require_finite
from kodm_lite.validation import check_number

__all__ = ["circular_wasserstein", "kuiper_distance", "wasserstein_distance"]


def wasserstein_distance(
    a: Tensor, b: Tensor, a_weights: Tensor | None = None, b_weights: Tensor | None = None
) -> float:
    """Wasserstein distance of order 1 of two sets of numbers of any shape, in their units; that of scipy.

    Weights are not negative and of the shape of their numbers; by default all are equal.

    Raises:
        ValueError: an empty set, NaN or infinity, weights of another shape, negative ones, or only zeros.

    >>> wasserstein_distance(torch.tensor([0.0, 1.0]), torch.tensor([3.0, 0.0]))
    1.0
    """
    from scipy import stats  # here, because loading it takes a second

    (a, a_weights), (b, b_weights) = _checked(a, a_weights, "a"), _checked(b, b_weights, "b")
    arrays = (None if x is None else x.cpu().numpy() for x in (a, b, a_weights, b_weights))
    return float(stats.wasserstein_distance(*arrays))


def circular_wasserstein(
    a: Tensor, b: Tensor, period: float = TWO_PI, a_weights: Tensor | None = None, b_weights: Tensor | None = None
) -> float:
    """Wasserstein distance of order 1 of two sets of angles, along the shorter way round: exact, at most half a period.

    Args:
        a, b, a_weights, b_weights: see :func:`wasserstein_distance`; angles on any turn.
        period: length of a turn; pi for orientations, which have no arrow.

    Raises:
        ValueError: as in :func:`wasserstein_distance`, or a period that is not positive.

    >>> round(circular_wasserstein(torch.tensor([3.0, 0.0]), torch.tensor([-3.0, 0.0])), 4)  # pi - 3, of one in two
    0.1416
    """
    check_number("period", period, 0, math.inf, "2 * math.pi", open_low=True)
    (a, a_weights), (b, b_weights) = _checked(a, a_weights, "a"), _checked(b, b_weights, "b")
    a, b = torch.remainder(a, period), torch.remainder(b, period)
    values, excess = _excess(a, b, a_weights, b_weights)
    # The last arc leads over the end of the turn to the first angle; there both distribution functions are 1.
    lengths = torch.cat([values.diff(), (period - values[-1] + values[0])[None]])
    return float(((excess - _weighted_median(excess, lengths)).abs() * lengths).sum())


def kuiper_distance(a: Tensor, b: Tensor, a_weights: Tensor | None = None, b_weights: Tensor | None = None) -> float:
    r"""Kuiper's distance of two sets of numbers or angles, :math:`V = \max(F_a - F_b) + \max(F_b - F_a)`.

    F are the empirical distribution functions.  V lies between 0 and 1 (the sets lie on separate arcs).  On the circle
    it does not depend on where the angles start; all must lie on the same turn, such as [-pi, pi).

    Arguments and errors are those of :func:`wasserstein_distance`.  Source: Mardia and Jupp 2000, section 8.3.

    >>> kuiper_distance(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 2.0]))
    0.5
    """
    (a, a_weights), (b, b_weights) = _checked(a, a_weights, "a"), _checked(b, b_weights, "b")
    _, excess = _excess(a, b, a_weights, b_weights)
    return float(excess.max() - excess.min())  # both distribution functions are 1 at the end: max >= 0 >= min


def _excess(a: Tensor, b: Tensor, a_weights: Tensor | None, b_weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """All numbers in order, and by how much the share of ``a`` up to each of them exceeds that of ``b``."""
    values = torch.cat([a, b.to(a.device)]).sort().values
    return values, _share_up_to(values, a, a_weights) - _share_up_to(values, b, b_weights)


def _share_up_to(values: Tensor, numbers: Tensor, weights: Tensor | None) -> Tensor:
    """Distribution function of the weighted numbers at ``values``."""
    ordered, order = numbers.to(values).sort()
    index = torch.searchsorted(ordered, values, right=True)
    if weights is None:
        return index.double() / len(ordered)
    cumulative = weights.to(values)[order].cumsum(0)
    return (torch.cat([cumulative.new_zeros(1), cumulative]) / cumulative[-1])[index]


def _weighted_median(numbers: Tensor, weights: Tensor) -> Tensor:
    """A number with at most half of the weight on either side of it."""
    ordered, order = numbers.sort()
    cumulative = weights[order].cumsum(0)
    return ordered[int(torch.searchsorted(cumulative, cumulative[-1] / 2))]


def _checked(numbers: Tensor, weights: Tensor | None, name: str) -> tuple[Tensor, Tensor | None]:
    """Numbers and weights in a row, in double precision."""
    require_finite(numbers, name)
    if weights is None:
        return numbers.detach().double().flatten(), None
    name = f"{name}_weights"
    require_finite(weights, name)
    if weights.shape != numbers.shape:
        shape = tuple(numbers.shape)
        raise ValueError(f"{name}: got shape {tuple(weights.shape)}, expected {shape}; try {name}.expand{shape}")
    weights = weights.detach().double().flatten()
    if float(weights.min()) < 0 or float(weights.sum()) < 1 / LARGEST:
        got = f"weights from {float(weights.min()):.4g} that add up to {float(weights.sum()):.4g}"
        raise ValueError(f"{name}: got {got}, expected none below 0 and a positive sum; try images that are not flat")
    return numbers.detach().double().flatten(), weights
