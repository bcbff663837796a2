"""Score matching for coefficients and for pixels, and why they differ.  Book: The sphere.

With r = s(c_t) + Sigma^{-1} eps / sigma, the error of a spectral score on the noise that was drawn, a loss is
E[r^T M r].  Plain spectral score matching has M = 1, pixel score matching M = Sigma, noise prediction M = Sigma^2.
All have the same minimiser among all functions, and in general different ones in a restricted class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

from kodm_lite.euclidean import EuclideanDiffusion, NoisePredictor
from kodm_lite.randomness import Generators
from kodm_lite.schedules import per_image
from kodm_lite.sphere.inputs import check_fields
from kodm_lite.sphere.noise import PixelNoise
from kodm_lite.sphere.random_fields import harmonic_noise
from kodm_lite.validation import check_choice, told

__all__ = ["Weight", "pixel_score_matching", "spectral_score_matching"]

Weight = Literal["identity", "covariance", "noise"]


def spectral_score_matching(
    network: NoisePredictor,
    diffusion: EuclideanDiffusion,
    c0: Tensor,
    t: Tensor,
    weight: Weight,
    generator: Generators = None,
) -> Tensor:
    """r^T M r of every field (B,), for the score that belongs to a prediction of the noise.

    Args:
        network: predicts the noise.
        diffusion: the forward diffusion.
        c0: coefficients (B, L^2).
        t: times (B,) in (0, 1].
        weight: M: "identity": 1; "covariance": Sigma, what pixel score matching amounts to, and the likelihood;
            "noise": Sigma^2, the squared error of the predicted noise over sigma^2.
        generator: None, one, or one per field.

    Raises:
        ValueError: an unknown weight, times outside (0, 1] or not one per field, predictions of another shape.
    """
    check_choice("weight", weight, Weight)
    check_fields(c0, t, harmonic_noise(diffusion).L, "c0")
    c, eps = diffusion.perturb(c0, t, generator)
    error = (_predicted(network, "network", c, t) - eps) / per_image(diffusion.sigma(t), c)
    if weight == "noise":
        return error.square().sum(-1)
    residual = diffusion.noise.solve(error)
    return (residual * (error if weight == "covariance" else residual)).sum(-1)


def pixel_score_matching(
    score: Callable[[Tensor, Tensor], Tensor],
    diffusion: EuclideanDiffusion,
    c0: Tensor,
    t: Tensor,
    generator: Generators = None,
) -> Tensor:
    """Score matching in the space of pixels (B,), for the lift x -> A^T s(A x) of a spectral score s.

    With N pixels of noise of standard deviation p sigma it is, field by field, r^T Sigma r / p^2 and what no function
    of the coefficients can predict, on average (N - L^2) / (p sigma)^2.

    Args:
        score: called with c_t (B, L^2) and t (B,).
        diffusion: one with :class:`PixelNoise`, whose transform has the dtype of c0.
        c0, t, generator: as of :func:`spectral_score_matching`.

    Raises:
        ValueError: other noise, times outside (0, 1] or not one per field, a score of another shape.
    """
    if not isinstance(noise := harmonic_noise(diffusion), PixelNoise):
        hint = "VariancePreserving(PixelNoise(transform))"
        raise ValueError(f"noise: got {type(noise).__name__}, expected PixelNoise; try {hint}")
    check_fields(c0, t, noise.L, "c0")
    pixels, transform = noise.pixels(c0, generator), noise.on(c0.device).transform
    alpha, sigma = (per_image(x(t), c0)[..., None] for x in (diffusion.alpha, diffusion.sigma))
    x = alpha * transform.synthesis(c0) + sigma * pixels
    lifted = transform.adjoint_analysis(_predicted(score, "score", transform.analysis(x), t))
    return (lifted + pixels / (sigma * noise.pixel_std**2)).square().sum((-2, -1))


def _predicted(network: Callable[[Tensor, Tensor], Any], name: str, c: Tensor, t: Tensor) -> Tensor:
    """What a network makes of c and t, which must have the shape of c: another one could spread over the batch."""
    x = network(c, t)
    if not isinstance(x, Tensor) or x.shape != c.shape:
        hint = "one number per coefficient of each field"
        raise ValueError(f"{name}: got a prediction {told(x)}, expected {tuple(c.shape)}, as c; try {hint}")
    return x
