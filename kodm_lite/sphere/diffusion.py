"""Diffusion of harmonic coefficients with any noise: forward law, score, reverse steps.  Book: The sphere.

    dc = f(t) c dt + g(t) Sigma^{1/2} dB,    c_t = alpha c_0 + sigma eps,    eps ~ N(0, Sigma)

A network predicts the noise; as Sigma grad log p = -E[eps | c_t] / sigma, no step ever needs Sigma but to draw noise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from kodm_lite.process import per_image
from kodm_lite.randomness import Generators, one_generator_per_seed
from kodm_lite.samplers import check_grid, take_steps, time_grid
from kodm_lite.schedules import LinearSchedule
from kodm_lite.sphere.harmonics import band_limit
from kodm_lite.sphere.noise import Noise, noise_from_dict

__all__ = ["SpectralDiffusion", "VarianceExploding", "VariancePreserving", "diffusion_from_dict", "sample_coefficients"]

NoisePredictor = Callable[[Tensor, Tensor], Tensor]  # (c_t (B, ..., L^2), t (B,)) to E[eps | c_t]
Method = Literal["ode", "sde"]


class SpectralDiffusion(ABC):
    """What both diffusions share: the law of c_t given c_0, the score, the prior."""

    noise: Noise
    rate: LinearSchedule

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """What is left of the data at times t."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise at times t, in units of Sigma^{1/2}."""

    def perturb(self, c0: Tensor, t: Tensor, generator: Generators = None) -> tuple[Tensor, Tensor]:
        """A draw of c_t given c_0, and its noise.

        Args:
            c0: coefficients (B, ..., L^2).
            t: one time per field (B,).
            generator: None, one, or one per field.

        Raises:
            ValueError: coefficients of another band limit than that of the noise, times outside [0, 1].
        """
        _check_times(t, c0)
        eps = self.noise.draw(c0, generator)
        return per_image(self.alpha(t), c0) * c0 + per_image(self.sigma(t), c0) * eps, eps

    def advance(self, c: Tensor, t0: float, t1: float, generator: Generators = None) -> Tensor:
        """A draw of c(t1) given c(t0), exactly.

        Raises:
            ValueError: times that decrease.
        """
        if not 0 <= t0 <= t1 <= 1:
            raise ValueError(f"t0, t1: got {t0} and {t1}, expected 0 <= t0 <= t1 <= 1")
        times = torch.tensor([t0, t1], dtype=torch.float64)
        (alpha0, alpha1), (sigma0, sigma1) = self.alpha(times).tolist(), self.sigma(times).tolist()
        kept = alpha1 / alpha0
        return kept * c + (sigma1**2 - (kept * sigma0) ** 2) ** 0.5 * self.noise.draw(c, generator)

    def score(self, eps: Tensor, t: Tensor) -> Tensor:
        """grad log p_t of a prediction of the noise: -Sigma^{-1} eps / sigma."""
        return -self.noise.solve(eps) / per_image(self.sigma(t), eps)

    def validate(self, c: Tensor, name: str = "c") -> None:
        """Refuse what cannot be a state of this diffusion.

        Raises:
            ValueError: no coefficients (B, L^2) of its band limit, NaN.
        """
        if band_limit(c, name) != self.noise.L or c.ndim != 2:
            raise ValueError(f"{name}: got shape {tuple(c.shape)}, expected (B, {self.noise.L**2}), that of the noise")
        if not bool(torch.isfinite(c).all()):
            raise ValueError(f"{name}: got NaN or infinite coefficients, expected finite ones")

    def to_dict(self) -> dict[str, Any]:
        """Plain values that :func:`diffusion_from_dict` turns back into an equal diffusion."""
        rate = [float(self.rate.start), float(self.rate.end)]
        return {"kind": type(self).__name__, "rate": rate, "noise": self.noise.to_dict()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SpectralDiffusion) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(repr(self.to_dict()))

    def prior(self, like: Tensor, generator: Generators = None) -> Tensor:
        """A draw of N(0, sigma(1)^2 Sigma) with the shape of ``like`` (B, ..., L^2)."""
        return per_image(self.sigma(torch.ones(len(like)).to(like)), like) * self.noise.draw(like, generator)


@dataclass(frozen=True, eq=False)
class VariancePreserving(SpectralDiffusion):
    """dc = -beta/2 c dt + sqrt(beta) Sigma^{1/2} dB: ends in N(0, Sigma).

    Args:
        noise: the noise.
        rate: beta(t).
    """

    noise: Noise
    rate: LinearSchedule = field(default=LinearSchedule(0.1, 20.0))

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self.rate.integral(0.0, t))

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(-self.rate.integral(0.0, t))).sqrt()


@dataclass(frozen=True, eq=False)
class VarianceExploding(SpectralDiffusion):
    """dc = g Sigma^{1/2} dB: data are kept, under more and more noise.

    Args:
        noise: the noise.
        rate: g^2(t); its integral must exceed the variance of the data by far.
    """

    noise: Noise
    rate: LinearSchedule = field(default=LinearSchedule(0.01, 2000.0))

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.rate.integral(0.0, t).sqrt()


def diffusion_from_dict(data: Any) -> SpectralDiffusion:
    """Inverse of :meth:`SpectralDiffusion.to_dict`.

    Raises:
        ValueError: missing or unknown entries, or values that make no diffusion.
    """
    kinds = {"VariancePreserving": VariancePreserving, "VarianceExploding": VarianceExploding}
    if not isinstance(data, dict) or set(data) != {"kind", "rate", "noise"} or data["kind"] not in list(kinds):
        raise ValueError(f"process: got {data!r}, expected kind ({' or '.join(kinds)}), rate and noise")
    try:
        rate = LinearSchedule(*data["rate"])
    except TypeError as error:
        raise ValueError(f"process: got rate {data['rate']!r}, expected two numbers") from error
    return kinds[data["kind"]](noise_from_dict(data["noise"]), rate)


@torch.no_grad()
def sample_coefficients(
    network: NoisePredictor,
    diffusion: SpectralDiffusion,
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
    """Draw coefficients by running the diffusion backwards from its prior.

    Args:
        network: predicts the noise: called with c_t (B, ..., L^2) and t (B,), returns E[eps | c_t].
        diffusion: the forward diffusion.
        shape: (B, ..., L^2).
        steps: number of steps, by default from t = 1 to 0 in squares of equal steps, as most happens at
            small times.
        method: "ode": probability flow, by Heun's method in the angle atan(sigma / alpha); "sde": the reverse SDE.  Its
            generator is twice that of the flow plus that of the diffusion: in every step the flow goes back twice as
            far, or to t = 0, and the diffusion forward again, exactly.  A step has two evaluations, and one where it
            reaches t = 0.
        times: decreasing times to use instead of ``steps``.
        start: a terminal state to start from, instead of the prior.
        generator: None, one, or one per field.
        seeds: one integer per field instead: field k then depends on seeds[k] only.
        dtype, device: of the coefficients, without ``start``.
        callback: called with (t, c) at the start and after every step.
        progress: show a progress bar.

    Returns:
        Coefficients of the given shape.

    Raises:
        ValueError: an unknown method, times that do not decrease in [0, 1], shapes that do not fit.
        FloatingPointError: the state became NaN or infinite; names the step.

    Source: Anderson 1982; Song et al. 2021; for matrix-valued noise, book: The sphere.
    """
    if method not in get_args(Method):
        raise ValueError(f"method: got {method!r}, expected one of {get_args(Method)}")
    grid = [t**2 for t in time_grid(steps)] if times is None else check_grid(times)
    if shape[-1:] != (diffusion.noise.L**2,) or len(shape) < 2:
        raise ValueError(f"shape: got {tuple(shape)}, expected (B, ..., {diffusion.noise.L**2})")
    if start is not None and tuple(start.shape) != tuple(shape):
        raise ValueError(f"start: got shape {tuple(start.shape)}, expected {tuple(shape)}")
    if start is None and grid[0] != 1:
        raise ValueError(
            f"start: got None and times from {grid[0]:g}, expected a state at that time; the prior is at 1"
        )
    generator = one_generator_per_seed(seeds, shape[0], generator, device or ("cpu" if start is None else start.device))
    c = diffusion.prior(torch.empty(shape, dtype=dtype, device=device), generator) if start is None else start

    def back(c: Tensor, t1: float, t0: float) -> Tensor:
        if method == "ode" or t0 == 0:
            return _flow(network, diffusion, c, t1, t0)
        below = max(2 * t0 - t1, 0.0)
        return diffusion.advance(_flow(network, diffusion, c, t1, below), below, t0, generator)

    return take_steps(back, c, grid, callback, progress)


def _flow(network: NoisePredictor, diffusion: SpectralDiffusion, c: Tensor, t1: float, t0: float) -> Tensor:
    """Heun's step of the probability flow, from t1 down to t0."""

    # With tan u = sigma / alpha and c of unit scale, c = cos u c_0 + sin u eps: a turn from noise to data.
    def velocity(c: Tensor, t: Tensor, u: Tensor) -> Tensor:
        return (network(scale(t) * c, t) - u.sin() * c) / u.cos()

    def scale(t: Tensor) -> Tensor:
        return per_image(torch.hypot(diffusion.alpha(t), diffusion.sigma(t)), c)

    now, then = (torch.full((len(c),), t, dtype=c.dtype, device=c.device) for t in (t1, t0))
    u1, u0 = (per_image(torch.atan2(diffusion.sigma(t), diffusion.alpha(t)), c) for t in (now, then))
    first = velocity(c / scale(now), now, u1)
    end = c / scale(now) + (u0 - u1) * first
    if t0 > 0:  # at t = 0 there is no noise to predict
        end = end + 0.5 * (u0 - u1) * (velocity(end, then, u0) - first)
    return scale(then) * end


def _check_times(t: Tensor, c: Tensor) -> None:
    if t.shape != c.shape[:1] or not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(
            f"t: got {t.flatten()[:3].tolist()}..., expected one time in [0, 1] for each of {len(c)} fields"
        )
