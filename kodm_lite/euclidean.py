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
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from kodm_lite.encoding import Encoding
from kodm_lite.kinds import time_grid
from kodm_lite.losses import Loss, early_times
from kodm_lite.noise import GaussianNoise, WhiteNoise
from kodm_lite.randomness import Generators, device_of
from kodm_lite.registry import noises
from kodm_lite.samplers import Memory, Run
from kodm_lite.schedules import LinearSchedule, per_image
from kodm_lite.validation import check_device, told

__all__ = [
    "EUCLIDEAN_SAMPLERS",
    "EuclideanDiffusion",
    "GaussianNoise",
    "Noise",
    "VariancePreserving",
    "WhiteNoise",
    "noise_prediction",
    "square_grid",
]

NoisePredictor = Callable[[Tensor, Tensor], Tensor]  # (x_t (B, ...), t (B,)) to E[eps | x_t]


class EuclideanDiffusion(ABC):
    """What all diffusions share: the law of x_t given x_0, the score, the prior."""

    noise: Any  # a GaussianNoise; typed where it is built
    rate: LinearSchedule
    kind: ClassVar[str]

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
        self.check(x0, t)
        eps = self.noise.draw(x0, generator)
        return per_image(self.alpha(t), x0) * x0 + per_image(self.sigma(t), x0) * eps, eps

    def check(self, x0: Tensor, t: Tensor) -> None:
        """Refuse data of another shape than the noise's, and what is not one time for each sample; no device waits."""
        self._check_shape(x0, "x0")
        _check_times(t, x0)

    def advance(self, x: Tensor, t0: float, t1: float, generator: Generators = None) -> Tensor:
        """A draw of x(t1) given x(t0), exactly.

        Raises:
            ValueError: times that decrease.
        """
        self._check_shape(x, "x")
        if not (isinstance(t0, Real) and isinstance(t1, Real) and 0 <= t0 <= t1 <= 1):
            raise ValueError(f"t0, t1: got {t0} and {t1}, expected 0 <= t0 <= t1 <= 1")
        (alpha0, alpha1), (sigma0, sigma1) = self.at(t0, t1)
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
        if not x.is_floating_point():
            raise ValueError(f"{name}: got {x.dtype}, expected floating numbers; try {name}.float()")
        if len(x) == 0 or not (x.is_meta or bool(torch.isfinite(x).all())):
            raise ValueError(f"{name}: got no samples, or NaN or infinite numbers, expected finite ones")

    def check_forgotten(self, x0: Tensor, name: str = "x0") -> None:
        """Refuse data of which so much is left at t = 1 that the prior cannot stand for them.

        Args:
            x0: data (B, ...).

        Raises:
            ValueError: what is left has over a tenth of the noise's standard deviation.
        """
        self._check_shape(x0, name)
        (alpha,), (sigma,) = self.at(1.0)
        left = alpha * float(x0.double().square().mean(0).max().sqrt()) / (sigma * self.noise.unit)
        if left > 0.1:
            raise ValueError(
                f"{name}: got numbers so large that {left:.2g} of the noise's standard deviation is left of them at "
                "t = 1, expected at most 0.1; try to subtract their mean and to divide by their standard deviation"
            )

    def project(self, x: Tensor) -> Tensor:
        """Numbers as they are: a vector space has no wrong ones."""
        return x

    def as_phases(self, x: Tensor, encoding: Encoding) -> Tensor:
        """Samples as what they stand for: beyond black is black."""
        return encoding.project(x)

    def to_dict(self) -> dict[str, Any]:
        """Plain values from which :meth:`from_dict` makes an equal diffusion."""
        rate = [float(self.rate.start), float(self.rate.end)]
        return {"kind": self.kind, "rate": rate, "noise": self.noise.to_dict()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EuclideanDiffusion:
        """Inverse of :meth:`to_dict`.

        Raises:
            ValueError: missing or unknown entries, or values that make no diffusion.
        """
        if not isinstance(data, dict) or set(data) != {"kind", "rate", "noise"} or data["kind"] != cls.kind:
            raise ValueError(f"process: got {told(data)}, expected kind {cls.kind!r}, rate and noise")
        noise = noises.of(data["noise"])(data["noise"])
        try:
            return cls(noise, LinearSchedule(*data["rate"]))  # type: ignore[call-arg]
        except TypeError as error:
            raise ValueError(f"process: got rate {data['rate']!r}, expected two numbers") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EuclideanDiffusion) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(repr(self.to_dict()))

    def simulate(self, x0: Tensor, t: Tensor, *, generator: Generators = None) -> Tensor:
        """A draw of x_t given x_0, as :meth:`perturb`."""
        return self.perturb(x0, t, generator)[0]

    def draw_prior(
        self, shape: tuple[int, ...], generator: Generators = None, device: torch.device | None = None
    ) -> Tensor:
        """A draw of N(0, sigma(1)^2 Sigma), float32.

        Raises:
            ValueError: a shape that does not end with the noise's.
        """
        if not isinstance(shape, Sequence) or not all(type(n) is int and n >= 1 for n in shape):
            raise ValueError(f"shape: got {told(shape)}, expected sizes (B, ...); try (16, *process.noise.shape)")
        like = torch.empty(shape, dtype=torch.float32, device=check_device(device) or device_of(generator))
        self._check_shape(like, "shape")
        return self.at(1.0)[1][0] * self.noise.draw(like, generator)

    def at(self, *times: float) -> tuple[list[float], list[float]]:
        """alpha and sigma at some times, as numbers."""
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
    kind: ClassVar[str] = "variance_preserving"

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self.rate.integral(0.0, t))

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(-self.rate.integral(0.0, t))).sqrt()


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
        :class:`kodm_lite.losses.Loss`.  The baseline is to predict no noise; the collective part is the error of
        what is the same everywhere, such as the mean of an image.
    """
    diffusion.check(x0, t)
    now, noise = t.to(x0), diffusion.noise
    x, eps = diffusion.perturb(x0, now, generator)
    predicted = network(x, now) if label is None else network(x, now, label)
    if not isinstance(predicted, Tensor) or predicted.shape != eps.shape:
        raise ValueError(
            f"network: got noise of shape {getattr(predicted, 'shape', predicted)}, expected {tuple(eps.shape)}"
        )

    def parts(wrong: Tensor) -> Tensor:
        mean = noise.mean_mode(wrong).square()
        return torch.stack([wrong.flatten(1).square().mean(1), mean, mean], 1) / noise.unit**2

    error = parts(predicted.to(eps) - eps)
    return Loss(error[:, 0].mean(), t, error.detach(), parts(eps))


@dataclass(frozen=True)
class Noise:
    """Noise prediction, by :func:`noise_prediction`: the objective of a Euclidean diffusion."""

    def times(self, u: Tensor) -> Tensor:
        """More of the early ones, see :func:`kodm_lite.losses.early_times`."""
        return early_times(u)

    def check(self, process: Any, x0: Tensor) -> None:
        """Refuse another process than a Euclidean diffusion, and data that its prior cannot stand for."""
        if not hasattr(process, "perturb"):
            raise ValueError(
                f"objective: got Noise() for {type(process).__name__}, expected a Euclidean diffusion; try leaving the "
                "objective out"
            )
        process.check_forgotten(x0, "data")

    def __call__(
        self,
        network: Callable[..., Tensor],
        process: EuclideanDiffusion,
        x0: Tensor,
        label: Tensor | None,
        t: Tensor,
        generator: Generators,
    ) -> Loss:
        """The loss of data x0."""
        return noise_prediction(network, process, x0, t, generator, label)


# The samplers.  With tan u = sigma / alpha and x of unit scale, x = cos u x_0 + sin u eps: a turn from noise to data.


def ode(run: Run, x: Tensor, t1: float, t0: float, memory: Memory) -> tuple[Tensor, Memory]:
    """Probability flow, by Heun's method in the angle atan(sigma / alpha): two evaluations, one if it ends at t = 0."""
    (alpha1, alpha0), (sigma1, sigma0) = run.process.at(t1, t0)
    u1, u0 = math.atan2(sigma1, alpha1), math.atan2(sigma0, alpha0)
    scale1, scale0 = math.hypot(alpha1, sigma1), math.hypot(alpha0, sigma0)

    def velocity(x: Tensor, scale: float, t: float, u: float) -> Tensor:
        return (run.predict(scale * x, t) - math.sin(u) * x) / math.cos(u)

    first = velocity(x / scale1, scale1, t1, u1)
    end = x / scale1 + (u0 - u1) * first
    if t0 > 0:  # at t = 0 there is no noise to predict
        end = end + 0.5 * (u0 - u1) * (velocity(end, scale0, t0, u0) - first)
    return scale0 * end, None


def sde(run: Run, x: Tensor, t1: float, t0: float, memory: Memory) -> tuple[Tensor, Memory]:
    """The reverse SDE, whose generator is twice that of the flow plus that of the diffusion.

    In every step the flow goes back twice as far, or to t = 0, and the diffusion forward again, exactly.
    """
    if t0 == 0:
        return ode(run, x, t1, t0, None)
    below = max(2 * t0 - t1, 0.0)
    x, _ = ode(run, x, t1, below, None)
    return run.process.advance(x, below, t0, run.generator), None


def ancestral(run: Run, x: Tensor, t1: float, t0: float, memory: Memory) -> tuple[Tensor, Memory]:
    """A draw of x(t0) given x(t1) and the predicted data, as published: Bayes' rule for two Gaussians."""
    (alpha1, alpha0), (sigma1, sigma0) = run.process.at(t1, t0)
    data = (x - sigma1 * run.predict(x, t1)) / alpha1
    if t0 == 0:
        return data, None
    kept = alpha1 / alpha0
    added = sigma1**2 - (kept * sigma0) ** 2  # variance of the step forward
    mean = alpha0 * data * added / sigma1**2 + x * kept * sigma0**2 / sigma1**2
    return mean + (added / sigma1**2) ** 0.5 * sigma0 * run.process.noise.draw(x, run.generator), None


EUCLIDEAN_SAMPLERS = {"ode": ode, "sde": sde, "ancestral": ancestral}


def square_grid(steps: int) -> list[float]:
    """Times from 1 down to 0 in squares of equal steps, as most happens at small times."""
    return [t**2 for t in time_grid(steps)]


def _check_times(t: Tensor, x: Tensor) -> None:
    """Their values only on the CPU, where no device waits."""
    if not isinstance(t, Tensor) or t.shape != x.shape[:1] or not t.is_floating_point():
        got = f"{t.dtype} of shape {tuple(t.shape)}" if isinstance(t, Tensor) else repr(t)
        raise ValueError(f"t: got {got}, expected one time in [0, 1] for each of {len(x)} samples; try torch.rand(n)")
    if t.device.type == "cpu" and not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(
            f"t: got {t.flatten()[:3].tolist()}..., expected one time in [0, 1] for each of {len(x)} samples; "
            "try t.clamp(0, 1)"
        )
