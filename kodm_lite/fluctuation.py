r"""What phases that share a field fluctuate together: the conditional score beyond independent phases.

Given theta0, the phases of a neighbourhood share the fluctuation of their field, so that along collective directions
the score of independent phases (:mod:`kodm_lite.mean_field`) is too strong.  The cure is the fluctuating field,

.. math:: s_i = s_{mf,i} + \gamma(t)\, q_i, \qquad q_i = \operatorname{Im}(\delta z_i\, e^{-i\theta_i}),
          \qquad \delta z_i = \langle e^{i\theta_j} - \mathbb E\,e^{i\theta_j} \rangle_{j \sim i},

exact in equilibrium with gamma = K/D.  Before, gamma is smaller.  Phases that stay near the reference have

.. math:: \gamma = \frac KD\,\frac{h(x + y) - h(y)}{x}, \qquad h(x) = \frac x{1 - e^{-x}}, \qquad
          x = 2 \int_0^t K, \quad y = 2 \int_0^t K_{ref},

which rises from half of K/D to all of it.  For any others one number gamma(t) is a fit, which can be found without a
network: for the true score E[s q] = - E[div q], so that regression of s - s_mf on q needs simulated states only.
Chapter 7 of the book.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kodm_lite.mean_field import FINEST, MeanFieldLaw, mean_field_law
from kodm_lite.process import STEPS, KuramotoProcess
from kodm_lite.randomness import Generators
from kodm_lite.schedules import per_image

__all__ = [
    "Fluctuation",
    "calibrate_fluctuation",
    "conditional_score",
    "linear_fluctuation",
    "mean_field_score",
    "shared_fluctuation",
]


@dataclass(frozen=True)
class Fluctuation:
    """gamma(t) of a process, in units of its value in equilibrium, K(t)/D(t).

    Args:
        times: increasing times in (0, 1].
        ratios: gamma D/K at those times; linear in between and constant outside.
        errors: their standard errors.

    Raises:
        ValueError: times that do not increase in (0, 1], or not one finite ratio and error for each.
    """

    times: tuple[float, ...]
    ratios: tuple[float, ...]
    errors: tuple[float, ...]

    def __post_init__(self) -> None:
        numbers = torch.tensor([*self.times, *self.ratios, *self.errors], dtype=torch.float64)
        steps = torch.tensor((0.0, *self.times, 1.0), dtype=torch.float64).diff()
        rows = {len(self.times), len(self.ratios), len(self.errors)}
        if len(rows) > 1 or not self.times or not numbers.isfinite().all() or steps[:-1].min() <= 0 or steps[-1] < 0:
            raise ValueError(
                f"fluctuation: got times {self.times[:5]} and ratios {self.ratios[:5]}, expected increasing times in "
                "(0, 1] with one finite ratio and error each; try calibrate_fluctuation(process, theta0)"
            )

    def at(self, t: Tensor) -> Tensor:
        """The ratio at times t, of any shape."""
        times, ratios = (torch.tensor(x, dtype=t.dtype, device=t.device) for x in (self.times, self.ratios))
        if len(times) == 1:
            return ratios[0].expand_as(t)
        right = torch.searchsorted(times, t.contiguous()).clamp(1, len(times) - 1)
        share = ((t - times[right - 1]) / (times[right] - times[right - 1])).clamp(0, 1)
        return torch.lerp(ratios[right - 1], ratios[right], share)


def linear_fluctuation(process: KuramotoProcess, t: Tensor) -> Tensor:
    """gamma D/K of phases near the reference, from 1/2 at first to 1 at last: no measurement is needed.

    Args:
        process: the forward process.
        t: times in [0, 1], of any shape.

    Source: this project.  Book: chapter 7.

    >>> linear_fluctuation(KuramotoProcess(), torch.tensor([0.0, 1.0]))
    tensor([0.5000, 0.9846])
    """
    now = t.double()  # small differences of numbers
    x, y = (2 * rate.integral(0.0, now) for rate in (process.coupling_strength, process.reference_strength))
    x = x.clamp(min=1e-4)  # below, the quotient is the derivative

    def h(x: Tensor) -> Tensor:
        return torch.where(x < 1e-6, 1 + x / 2, -x / torch.expm1(-x.clamp(min=1e-6)))

    return ((h(x + y) - h(y)) / x).to(t.dtype)


def shared_fluctuation(process: KuramotoProcess, law: MeanFieldLaw, theta: Tensor) -> Tensor:
    """q = Im(dz exp(-i theta)): the pull of what the neighbours of a phase do beyond what is expected of them."""
    return _fluctuating_pull(process, law, theta).imag


def _fluctuating_pull(process: KuramotoProcess, law: MeanFieldLaw, theta: Tensor) -> Tensor:
    turn = torch.complex(theta.cos(), theta.sin())
    return process.coupling.average(turn - law.first_moment) * turn.conj()


def mean_field_score(
    process: KuramotoProcess,
    theta0: Tensor,
    theta: Tensor,
    t: Tensor,
    fluctuation: Fluctuation | None = None,
    tolerance: float = FINEST,
) -> Tensor:
    """The score of theta(t) given theta0, at a cost that does not depend on any number of steps.

    Args:
        process: the forward process, of any coupling and schedules.
        theta0: data (B, C, H, W) or (B, N), radians.
        theta: phases at time t, same shape.
        t: one time per image (B,), on the CPU.
        fluctuation: from :func:`calibrate_fluctuation`; by default :func:`linear_fluctuation`.
        tolerance: of :func:`kodm_lite.mean_field.mean_field_law`.

    Returns:
        The conditional score, same shape: in equilibrium exact up to the closures of :mod:`kodm_lite.mean_field` and
        terms of order 1/n for n neighbours; before, right to a few percent along collective directions.

    Raises:
        ValueError: shapes that differ, phases that are none, times without noise or outside [0, 1], or not one per
            image.
    """
    process.validate(theta0, "theta0")
    process.validate(theta, "theta")
    if theta.shape != theta0.shape:
        raise ValueError(
            f"theta: got shape {tuple(theta.shape)}, expected that of theta0, {tuple(theta0.shape)}; "
            "try one state for each of the data"
        )
    score = conditional_score(process, theta0, theta, t, fluctuation, tolerance)
    if not bool((process.diffusion.at(t) > 0).all() and (process.clock(t) > 0).all()):
        raise ValueError("t: got a time without noise, expected t > 0 and D(t) > 0; there is no score there")
    return score


def conditional_score(
    process: KuramotoProcess,
    theta0: Tensor,
    theta: Tensor,
    t: Tensor,
    fluctuation: Fluctuation | None = None,
    tolerance: float = FINEST,
) -> Tensor:
    """:func:`mean_field_score` without a look at any value but the times: no device waits.

    Less the equilibrium score it is what a network's distance from equilibrium has to be.
    """
    law, now = mean_field_law(process, theta0, t, tolerance), t.to(theta)
    ratio = linear_fluctuation(process, now) if fluctuation is None else fluctuation.at(now)
    gamma = ratio * process.coupling_strength.at(now) / process.diffusion.at(now)
    return law.score(theta) + per_image(gamma, theta) * shared_fluctuation(process, law, theta)


def calibrate_fluctuation(
    process: KuramotoProcess,
    theta0: Tensor,
    times: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    steps: int = STEPS,
    generator: Generators = None,
) -> Fluctuation:
    """Measure gamma(t) on simulated states; no network and no transitions are needed.

    Args:
        process: the forward process.
        theta0: data (B, ...), radians; the standard errors fall like 1/sqrt(B).
        times: where to measure.
        steps: Heun steps per unit of time of the simulation.
        generator: None, one, or one per image.

    Raises:
        ValueError: phases that are none, times that do not increase in (0, 1], no coupling or no noise at one of them.

    Source: this project.  Book: chapter 7.
    """
    times = tuple(float(t) for t in times)
    Fluctuation(times, (1.0,) * len(times), (0.0,) * len(times))  # refuses times that are none, before any work
    if len(theta0) < 2:
        raise ValueError(f"theta0: got {len(theta0)} image, expected at least 2 for a standard error")
    own = float(process.coupling.transfer(tuple(theta0.shape[1:])).double().sum())  # of all phases on themselves
    found = []
    for time in times:
        coupling, diffusion = process.coupling_strength.at(time), process.diffusion.at(time)
        equilibrium = coupling / diffusion if diffusion > 0 else math.inf
        if not 0 < equilibrium < math.inf:
            raise ValueError(f"process: got K/D = {equilibrium:g} at t = {time:g}, expected a coupling and noise there")
        theta = process.simulate(theta0, time, steps, generator, method="heun")
        law = mean_field_law(process, theta0, torch.full((len(theta0),), time))
        pull = _fluctuating_pull(process, law, theta)
        q = pull.imag
        # - div q - s_mf q, whose mean over the true law is that of gamma q^2.
        left = (pull.real - law.score(theta) * q).flatten(1).sum(1).double() - own
        size = q.square().flatten(1).sum(1).double()
        gamma = left.mean() / size.mean()
        error = (left - gamma * size).std() / (len(theta0) ** 0.5 * size.mean())
        found.append((float(gamma) / equilibrium, float(error) / equilibrium))
    ratios, errors = zip(*found, strict=True)
    return Fluctuation(times, ratios, errors)
