"""The Fréchet distance of two sets of feature vectors, and of two sets of images by their texture."""

from __future__ import annotations

import torch
from torch import Tensor

from kodm_lite.metrics.texture import TextureFeatures
from kodm_lite.metrics.validation import check_features

__all__ = ["frechet_distance", "frechet_texture_distance"]


def frechet_distance(a: Tensor, b: Tensor) -> float:
    r"""Squared Fréchet distance of the Gaussians fitted to two sets of feature vectors.

    :math:`|\mu_a - \mu_b|^2 + \operatorname{tr}(\Sigma_a + \Sigma_b - 2 (\Sigma_a \Sigma_b)^{1/2})`, computed in
    float64.  Like every Fréchet distance of finite samples it is not 0 for two samples of one law:
    compare samples of equal size, and report this floor beside it.

    Args:
        a, b: features (n, F) and (m, F); n and m at least 2.

    Raises:
        ValueError: sets that are no such matrices, or hold NaN or infinity.

    Source: Dowson and Landau 1982; Heusel et al. 2017.

    >>> a = torch.tensor([[-1.0], [0.0], [1.0]])
    >>> round(frechet_distance(a, 2 * a + 3), 9)  # means 3 apart, deviations 1 and 2
    10.0
    """
    check_features(a, b)
    a, b = a.detach().double(), b.detach().double().to(a.device)
    of_a, of_b = (torch.cov(x.T).reshape(x.shape[1], -1) for x in (a, b))
    # The trace of the root is the sum of the singular values of the product of roots, and safe for any rank.
    trace_of_root = torch.linalg.svdvals(_root(of_a) @ _root(of_b)).sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + of_a.trace() + of_b.trace() - 2 * trace_of_root
    return max(float(distance), 0.0)  # rounding can make the distance of a set to itself negative


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def frechet_texture_distance(generated: Tensor, real: Tensor, features: TextureFeatures) -> float:
    """Fréchet texture distance (FTD) between two sets of images: smaller is better.

    Args:
        generated, real: phases (n, C, H, W) in radians, as many of each, a thousand or more to be comparable.
        features: made from real training images; phases that do not fit them are refused by ValueError.

    >>> from kodm_lite.data import textures
    >>> real, other = textures(n=90), textures(n=90, seed=1)
    >>> features = TextureFeatures(real.theta, real.encoding)
    >>> near = frechet_texture_distance(other.theta, real.theta, features)
    >>> near < frechet_texture_distance(other.of_class("brick"), real.theta, features)
    True
    """
    return frechet_distance(features(generated), features(real))
