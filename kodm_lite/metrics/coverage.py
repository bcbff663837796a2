"""Precision and recall of generated images: are they realistic, and do they cover what is real?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from kodm_lite.metrics.validation import check_features, check_range

__all__ = ["PrecisionRecall", "precision_recall"]

_PAIRS = 2**22  # distances in memory at a time


class PrecisionRecall(NamedTuple):
    """Shares of one set within the other: of generated images that look real, of real ones that could be generated."""

    precision: float
    recall: float


@torch.no_grad()
def precision_recall(generated: Tensor, real: Tensor, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall of two sets of feature vectors: larger is better.

    Around each vector of a set lies a ball that reaches to its ``k``-th nearest neighbour in the same set.  Precision
    is the share of generated vectors within a ball of the real set, recall that of real vectors within a ball of the
    generated set.  Two samples of one law do not reach 1: compare with what two real sets of the same sizes have.
    An outlier has a large ball, so that few images far from the others raise either value.

    Args:
        generated, real: features (n, F) and (m, F), as many of each.
        k: which neighbour, at least 1, less than n and m.

    Raises:
        ValueError: sets that are no such matrices, or hold NaN or infinity, or k out of range.

    Source: Kynkäänniemi et al. 2019, equations 1 and 2.

    >>> real = torch.arange(10.0)[:, None]
    >>> precision_recall(real[:5] + 0.5, real, k=1)  # reaches from 0.5 to 4.5, with balls of radius 1
    PrecisionRecall(precision=1.0, recall=0.6)
    """
    check_features(generated, real)
    check_range("k", k, 1, min(len(generated), len(real)) - 1)
    generated, real = generated.detach().double(), real.detach().double().to(generated.device)
    return PrecisionRecall(precision=_share_within(generated, real, k), recall=_share_within(real, generated, k))


def _share_within(points: Tensor, centres: Tensor, k: int) -> float:
    """Share of the points that lie in the ball of at least one centre."""
    radii = torch.cat([distances.kthvalue(k + 1).values for distances in _distances(centres, centres)])  # 0 to itself
    within = torch.cat([(distances <= radii).any(1) for distances in _distances(points, centres)])
    return float(within.double().mean())


def _distances(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """Distances of some of ``a`` to all of ``b``, by differences: products would not find a copy at distance 0."""
    for rows in a.split(max(1, _PAIRS // len(b))):
        yield torch.cdist(rows, b, compute_mode="donot_use_mm_for_euclid_dist")
