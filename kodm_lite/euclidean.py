"""Diffusion in a vector space, of images or of coefficients, with Gaussian noise of any covariance Sigma.

    dx = f(t) x dt + g(t) Sigma^{1/2} dB,    x_t = alpha x_0 + sigma eps,    eps ~ N(0, Sigma)

A network predicts the noise; as Sigma grad log p = -E[eps | x_t] / sigma, no step ever needs Sigma but to draw noise.
It is the baseline for angles, which are no vectors, and the whole story on the sphere.  Book: The sphere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from kodm_lite.objectives import Loss
from kodm_lite.process import per_image
from kodm_lite.randomness import Generators, normal, one_generator_per_seed
from kodm_lite.samplers import check_grid, take_steps, time_grid
from kodm_lite.schedules import LinearSchedule

__all__ = [
    "EuclideanDiffusion",
    "Noise",
    "VarianceExploding",
    "VariancePreserving",
    "WhiteNoise",
    "noise_prediction",
    "sample_euclidean",
]

NoisePredictor = Callable[[Tensor, Tensor], Tensor]  # (x_t (B, ...), t (B,)) to E[eps | x_t]
Method = Literal["ode", "sde", "ancestral"]


class Noise(Protocol):
    """What a diffusion needs of its noise: a centred Gaussian law of samples of one shape, with any batch before it.

    Its numbers have variance ``unit`` ** 2 on average.
    """

    shape: tuple[int, ...]
    unit: float

    def draw(self, like: Tensor, generator: Generators = None) -> Tensor: ...

    def solve(self, x: Tensor) -> Tensor: ...

    def mean_mode(self, x: Tensor) -> Tensor:
        """The part of x that is the same everywhere, as one number of variance ``unit`` ** 2 for each sample."""

    def to_dict(self) -> dict[str, Any]: ...


class WhiteNoise:
    """Independent numbers, N(0, unit^2).

    Args:
        shape: of one sample, such as (C, H, W).
        unit: standard deviation; 0.9 pi for phases whose grey values, in [-1, 1], get noise of deviation 1.
    """

    def __init__(self, shape: Sequence[int], unit: float = 1.0):
        self.shape, self.unit = tuple(shape), float(unit)
        if not self.shape or not all(type(n) is int and n >= 1 for n in self.shape) or not 0 < self.unit < math.inf:
            raise ValueError(f"shape, unit: got {shape} and {unit}, expected positive numbers; try (1, 32, 32) and 1.0")

    def draw(self, like: Tensor, generator: Generators = None) -> Tensor:
        """Noise with the shape, dtype and device of ``like``."""
        return self.unit * normal(like, generator)

    def solve(self, x: Tensor) -> Tensor:
        """Sigma^{-1} x."""
        return x / self.unit**2

    def mean_mode(self, x: Tensor) -> Tensor:
        """Mean of the numbers of each sample times the root of how many they are."""
        return x.flatten(1).sum(1) / math.sqrt(math.prod(self.shape))

    def to_dict(self) -> dict[str, Any]:
        """Plain values: kind, shape, unit."""
        return {"kind": "white", "shape": list(self.shape), "unit": self.unit}


class EuclideanDiffusion(ABC):
    """What all diffusions share: the law of x_t given x_0, the score, the prior."""

    noise: Any  # a Noise; typed where it is built
    rate: LinearSchedule

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """What is left of the data at times t."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise at times t, in units of Sigma^{1/2}."""

    def perturb(self, x0: Tensor, t: Tensor, generator: Generators = None) -> tuple[Tensor, Tensor]:
        """A draw of x_t given x_0, and its noise.

        Args:
            x0: data (B, ...).
            t: one time per sample (B,).
            generator: None, one, or one per sample.

        Raises:
            ValueError: data of another shape than the noise, times outside [0, 1].
        """
        self._check_shape(x0, "x0")
        _check_times(t, x0)
        eps = self.noise.draw(x0, generator)
        return per_image(self.alpha(t), x0) * x0 + per_image(self.sigma(t), x0) * eps, eps

    def advance(self, x: Tensor, t0: float, t1: float, generator: Generators = None) -> Tensor:
        """A draw of x(t1) given x(t0), exactly.

        Raises:
            ValueError: times that decrease.
        """
        if not 0 <= t0 <= t1 <= 1:
            raise ValueError(f"t0, t1: got {t0} and {t1}, expected 0 <= t0 <= t1 <= 1")
        (alpha0, alpha1), (sigma0, sigma1) = self._at(t0, t1)
        kept = alpha1 / alpha0
        return kept * x + (sigma1**2 - (kept * sigma0) ** 2) ** 0.5 * self.noise.draw(x, generator)

    def score(self, eps: Tensor, t: Tensor) -> Tensor:
        """grad log p_t of a prediction of the noise: -Sigma^{-1} eps / sigma."""
        return -self.noise.solve(eps) / per_image(self.sigma(t), eps)

    def validate(self, x: Tensor, name: str = "x") -> None:
        """Refuse what cannot be a batch of states of this diffusion.

        Raises:
            ValueError: no numbers (B, ...) of the noise's shape, NaN.
        """
        self._check_shape(x, name)
        if not x.is_floating_point() or x.ndim != 1 + len(self.noise.shape):
            raise ValueError(
                f"{name}: got {x.dtype} of shape {tuple(x.shape)}, expected floating numbers with one batch dimension"
            )
        if len(x) == 0 or not bool(torch.isfinite(x).all()):
            raise ValueError(f"{name}: got no samples, or NaN or infinite numbers, expected finite ones")

    def check_forgotten(self, x0: Tensor, name: str = "x0") -> None:
        """Refuse data of which so much is left at t = 1 that the prior cannot stand for them.

        Args:
            x0: data (B, ...).

        Raises:
            ValueError: what is left has over a tenth of the noise's standard deviation.
        """
        (alpha,), (sigma,) = self._at(1.0)
        left = alpha * float(x0.double().square().mean(0).max().sqrt()) / (sigma * self.noise.unit)
        if left > 0.1:
            raise ValueError(
                f"{name}: got numbers so large that {left:.2g} of the noise's standard deviation is left of them at "
                "t = 1, expected at most 0.1; try to subtract their mean and to divide by their standard deviation"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values from which :mod:`kodm_lite.checkpoints` makes an equal diffusion."""
        rate = [float(self.rate.start), float(self.rate.end)]
        return {"kind": type(self).__name__, "rate": rate, "noise": self.noise.to_dict()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EuclideanDiffusion) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(repr(self.to_dict()))

    def prior(self, like: Tensor, generator: Generators = None) -> Tensor:
        """A draw of N(0, sigma(1)^2 Sigma) with the shape of ``like`` (B, ...)."""
        return per_image(self.sigma(torch.ones(len(like)).to(like)), like) * self.noise.draw(like, generator)

    def _at(self, *times: float) -> tuple[list[float], list[float]]:
        """alpha and sigma as numbers."""
        t = torch.tensor(times, dtype=torch.float64)
        return self.alpha(t).tolist(), self.sigma(t).tolist()

    def _check_shape(self, x: Tensor, name: str) -> None:
        shape = self.noise.shape
        if not isinstance(x, Tensor) or x.ndim <= len(shape) or tuple(x.shape[-len(shape) :]) != shape:
            got = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"{name}: got {got}, expected (B, {', '.join(map(str, shape))}), as the noise")


@dataclass(frozen=True, eq=False)
class VariancePreserving(EuclideanDiffusion):
    """dx = -beta/2 x dt + sqrt(beta) Sigma^{1/2} dB: ends in N(0, Sigma).

    Args:
        noise: the noise.
        rate: beta(t).
    """

    noise: Any
    rate: LinearSchedule = field(default=LinearSchedule(0.1, 20.0))

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self.rate.integral(0.0, t))

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(-self.rate.integral(0.0, t))).sqrt()


@dataclass(frozen=True, eq=False)
class VarianceExploding(EuclideanDiffusion):
    """dx = g Sigma^{1/2} dB: data are kept, under more and more noise.

    Args:
        noise: the noise.
        rate: g^2(t); its integral must exceed the variance of the data by far.
    """

    noise: Any
    rate: LinearSchedule = field(default=LinearSchedule(0.01, 2000.0))

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.rate.integral(0.0, t).sqrt()


def noise_prediction(
    network: Callable[..., Tensor],
    diffusion: EuclideanDiffusion,
    x0: Tensor,
    t: Tensor,
    generator: Generators = None,
    label: Tensor | None = None,
) -> Loss:
    """Mean squared error of the predicted noise, which is of order one at every time: what training minimises.

    Args:
        network: predicts the noise.
        diffusion: the forward diffusion.
        x0: data (B, ...).
        t: times (B,) in (0, 1].
        generator: None, one, or one per sample.
        label: class of each sample (B,), handed to the network.

    Returns:
        :class:`kodm_lite.objectives.Loss`.  The baseline is to predict no noise; the collective part is the error of
        what is the same everywhere, such as the mean of an image.
    """
    now, noise = t.to(x0), diffusion.noise
    x, eps = diffusion.perturb(x0, now, generator)
    predicted = network(x, now) if label is None else network(x, now, label)
    if predicted.shape != eps.shape:
        raise ValueError(f"network: got noise of shape {tuple(predicted.shape)}, expected {tuple(eps.shape)}")
    parts = []
    for wrong in (predicted.to(eps) - eps, eps):
        parts += [wrong.flatten(1).square().mean(1), noise.mean_mode(wrong).square()]
    error, collective, baseline, collective_baseline = (part / noise.unit**2 for part in parts)
    entries = (error, baseline, collective, collective_baseline, collective, collective_baseline)
    return Loss(error.mean(), t, *(x.detach() for x in entries))


@torch.no_grad()
def sample_euclidean(
    network: NoisePredictor,
    diffusion: EuclideanDiffusion,
    shape: tuple[int, ...],
    *,
    steps: int = 100,
    method: Method = "ode",
    times: Sequence[float] | None = None,
    start: Tensor | None = None,
    generator: Generators = None,
    seeds: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    callback: Callable[[float, Tensor], None] | None = None,
    progress: bool = False,
) -> Tensor:
    """Draw samples by running the diffusion backwards from its prior.

    Args:
        network: predicts the noise: called with x_t (B, ...) and t (B,), returns E[eps | x_t].
        diffusion: the forward diffusion.
        shape: (B, ...).
        steps: number of steps, by default from t = 1 to 0 in squares of equal steps, as most happens at
            small times.
        method: "ode": probability flow, by Heun's method in the angle atan(sigma / alpha); "sde": the reverse SDE.  Its
            generator is twice that of the flow plus that of the diffusion: in every step the flow goes back twice as
            far, or to t = 0, and the diffusion forward again, exactly.  Both have two evaluations in a step, and one
            where it reaches t = 0.  "ancestral": the law of the step back given the data, with the predicted data in
            their place, as published; one evaluation.
        times: decreasing times to use instead of ``steps``.
        start: a terminal state to start from, instead of the prior.
        generator: None, one, or one per sample.
        seeds: one integer per sample instead: sample k then depends on seeds[k] only.
        dtype, device: of the samples, without ``start``.
        callback: called with (t, x) at the start and after every step.
        progress: show a progress bar.

    Returns:
        Samples of the given shape.

    Raises:
        ValueError: an unknown method, times that do not decrease in [0, 1], shapes that do not fit.
        FloatingPointError: the state became NaN or infinite; names the step.

    Source: Anderson 1982; Song et al. 2021; Ho et al. 2020 (ancestral); for matrix-valued noise, book: The sphere.
    """
    if method not in get_args(Method):
        raise ValueError(f"method: got {method!r}, expected one of {get_args(Method)}")
    grid = [t**2 for t in time_grid(steps)] if times is None else check_grid(times)
    own = diffusion.noise.shape
    if len(shape) <= len(own) or tuple(shape[-len(own) :]) != own:
        raise ValueError(f"shape: got {tuple(shape)}, expected (B, ..., {', '.join(map(str, own))})")
    if start is not None and tuple(start.shape) != tuple(shape):
        raise ValueError(f"start: got shape {tuple(start.shape)}, expected {tuple(shape)}")
    if start is None and grid[0] != 1:
        raise ValueError(
            f"start: got None and times from {grid[0]:g}, expected a state at that time; the prior is at 1"
        )
    generator = one_generator_per_seed(seeds, shape[0], generator, device or ("cpu" if start is None else start.device))
    x = diffusion.prior(torch.empty(shape, dtype=dtype, device=device), generator) if start is None else start

    def back(x: Tensor, t1: float, t0: float) -> Tensor:
        if method == "ancestral":
            return _ancestral(network, diffusion, x, t1, t0, generator)
        if method == "ode" or t0 == 0:
            return _flow(network, diffusion, x, t1, t0)
        below = max(2 * t0 - t1, 0.0)
        return diffusion.advance(_flow(network, diffusion, x, t1, below), below, t0, generator)

    return take_steps(back, x, grid, callback, progress)


def _flow(network: NoisePredictor, diffusion: EuclideanDiffusion, x: Tensor, t1: float, t0: float) -> Tensor:
    """Heun's step of the probability flow, from t1 down to t0."""

    # With tan u = sigma / alpha and x of unit scale, x = cos u x_0 + sin u eps: a turn from noise to data.
    def velocity(x: Tensor, t: Tensor, u: Tensor) -> Tensor:
        return (_predict(network, scale(t) * x, t) - u.sin() * x) / u.cos()

    def scale(t: Tensor) -> Tensor:
        return per_image(torch.hypot(diffusion.alpha(t), diffusion.sigma(t)), x)

    now, then = (torch.full((len(x),), t, dtype=x.dtype, device=x.device) for t in (t1, t0))
    u1, u0 = (per_image(torch.atan2(diffusion.sigma(t), diffusion.alpha(t)), x) for t in (now, then))
    first = velocity(x / scale(now), now, u1)
    end = x / scale(now) + (u0 - u1) * first
    if t0 > 0:  # at t = 0 there is no noise to predict
        end = end + 0.5 * (u0 - u1) * (velocity(end, then, u0) - first)
    return scale(then) * end


def _ancestral(
    network: NoisePredictor, diffusion: EuclideanDiffusion, x: Tensor, t1: float, t0: float, generator: Generators
) -> Tensor:
    """A draw of x(t0) given x(t1) and the predicted data: Bayes' rule for two Gaussians."""
    (alpha0, alpha1), (sigma0, sigma1) = diffusion._at(t0, t1)
    eps = _predict(network, x, torch.full((len(x),), t1, dtype=x.dtype, device=x.device))
    data = (x - sigma1 * eps) / alpha1
    if t0 == 0:
        return data
    kept = alpha1 / alpha0
    added = sigma1**2 - (kept * sigma0) ** 2  # variance of the step forward
    mean = alpha0 * data * added / sigma1**2 + x * kept * sigma0**2 / sigma1**2
    return mean + (added / sigma1**2) ** 0.5 * sigma0 * diffusion.noise.draw(x, generator)


def _predict(network: NoisePredictor, x: Tensor, t: Tensor) -> Tensor:
    eps = network(x, t)
    if eps.shape != x.shape:  # which broadcasting would hide
        raise ValueError(f"network: got noise of shape {tuple(eps.shape)}, expected {tuple(x.shape)}, as its input")
    return eps


def _check_times(t: Tensor, x: Tensor) -> None:
    if t.shape != x.shape[:1] or not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(
            f"t: got {t.flatten()[:3].tolist()}..., expected one time in [0, 1] for each of {len(x)} samples"
        )
