"""From the prior back to data: reverse-time samplers on any score, exact or learned.

Chapters 5 and 9 of the book derive every step.  With the drift and the noise variance v of a step from t1 down to t0,

    ode         theta0 = theta1 + (u1 - u0) velocity, extrapolated     probability flow, cos u = exp(-V/2), V = int 2D
    ancestral   theta0 = x - drift(x),  x = theta1 + v score + sqrt(v') noise       v' = v (1 - v m), m = E[score^2]
    hybrid      ode until it is decided which image appears, then ancestral
    euler       theta0 = theta1 - drift(theta1) + v score + sqrt(v) noise           reverse SDE, as published
    adams       the same, displacement extrapolated from this step and the last one
    pc          euler, then a Langevin step
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from tqdm.auto import tqdm

from kodm_lite.circular import wrap
from kodm_lite.priors import GibbsPrior, Prior, check_shape
from kodm_lite.process import KuramotoProcess
from kodm_lite.randomness import Generators, normal, one_generator_per_seed

__all__ = ["Calibration", "calibrate", "check_grid", "sample", "take_steps", "time_grid"]

Score = Callable[[Tensor, Tensor], Tensor]
Method = Literal["ode", "ancestral", "hybrid", "euler", "adams", "pc"]

_DECIDED = 1.0  # clock V = int 2D below which a state has all but decided which image it becomes


@dataclass(frozen=True)
class Calibration:
    """What samplers need to know of a score: E[score^2] per phase, and how far to trust it.

    Args:
        times: increasing times in [0, 1].
        second_moments: E[score^2] at those times, >= 0: for the best reverse variance of ancestral steps.
        damping: share by which the flow, also that of "hybrid", shortens the distance of the score from equilibrium;
            0 for an exact score, see :mod:`kodm_lite.calibration`.

    Raises:
        ValueError: not increasing times in [0, 1], each with a finite number >= 0; a damping that is no share.
    """

    times: tuple[float, ...]
    second_moments: tuple[float, ...]
    damping: float = 0.0

    def __post_init__(self) -> None:
        increasing = all(a < b for a, b in pairwise((0.0 - 1e-9, *self.times, 1.0 + 1e-9)))
        if not (self.times and increasing and len(self.times) == len(self.second_moments)):
            raise ValueError(
                f"calibration: got times {self.times[:5]} and {len(self.second_moments)} moments, expected increasing "
                "times in [0, 1] and one moment each; try calibrate(network, process, data)"
            )
        if not all(0 <= m < math.inf for m in self.second_moments):
            raise ValueError(f"calibration: got E[score^2] = {self.second_moments[:5]}, expected finite numbers >= 0")
        if not 0 <= self.damping < 1:
            raise ValueError(f"damping: got {self.damping}, expected a share from 0 to 1; 0 for none")

    def damped(self, damping: float) -> Calibration:
        """The same with another damping."""
        return replace(self, damping=damping)

    def at(self, t: float) -> float:
        """E[score^2] at time t, log-linear between the calibrated times and constant outside."""
        if t <= self.times[0]:
            return self.second_moments[0]
        for (t0, m0), (t1, m1) in pairwise(self._points):
            if t <= t1:
                u = (t - t0) / (t1 - t0)
                return m0 ** (1 - u) * m1**u
        return self.second_moments[-1]

    @property
    def _points(self) -> list[tuple[float, float]]:
        return list(zip(self.times, self.second_moments, strict=True))


@torch.no_grad()
def calibrate(
    network: Score, process: KuramotoProcess, theta0: Tensor, points: int = 50, generator: Generators = None
) -> Calibration:
    """Measure E[score^2] along the forward process, once per network.

    Args:
        network: score, called as ``network(theta, t)`` with t of shape (B,).
        process: the forward process.
        theta0: data (B, ...), radians; the mean runs over all images and phases.
        points: number of times, evenly spaced in (0, 1].
        generator: None, one, or one per image.

    Source: Bao et al. 2022 (Analytic-DPM), on the circle.  Book: chapter 5.
    """
    if points < 1:
        raise ValueError(f"points: got {points}, expected at least 1; 50 is the default")
    times = [k / points for k in range(1, points + 1)]
    states = process.trajectory(theta0, times, generator=generator)
    moments = [_evaluate(network, theta, t).double().square().mean() for t, theta in zip(times, states, strict=True)]
    return Calibration(tuple(times), tuple(torch.stack(moments).tolist()))


def time_grid(steps: int) -> list[float]:
    """Times from 1 down to 0 in equal steps.

    >>> time_grid(4)
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps: got {steps}, expected at least 1; 100 is the paper's number")
    return [1 - k / steps for k in range(steps + 1)]


@torch.no_grad()
def sample(
    network: Score,
    process: KuramotoProcess,
    shape: tuple[int, ...],
    *,
    steps: int = 100,
    method: Method = "ode",
    calibration: Calibration | None = None,
    prior: Prior | None = None,
    start: Tensor | None = None,
    times: Sequence[float] | None = None,
    generator: Generators = None,
    seeds: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    callback: Callable[[float, Tensor], None] | None = None,
    progress: bool = False,
    chunk: int | None = None,
) -> Tensor:
    """Draw samples by running the process backwards from the prior.

    Args:
        network: the score, called as ``network(theta, t)`` with theta (B, ...) and t (B,); exact or learned.
        process: the forward process; its step coefficients are used, on any time grid.
        shape: (B, C, H, W) or (B, N).
        steps: number of steps, by default evenly spaced from t = 1 to 0.
        method: "ode": probability flow, deterministic after the start, by the two-step Adams-Bashforth rule in the
            angle in which its velocity is of order one; "ancestral": Bayes' rule for one step, with the best scalar
            variance; "hybrid": the flow while the clock V = int 2D is above 1 and it is open which image will appear,
            ancestral steps from there on; "euler": reverse SDE with the forward noise variance, as published;
            "adams": the two-step rule for the same equation; "pc": euler, then one Langevin step with the same score
            a step later.
        calibration: from :func:`calibrate`, for "ancestral" and "hybrid"; its damping, if it has one, for the flow.
        prior: where to start; the correlated stationary law :class:`GibbsPrior` by default.
        start: a terminal state to start from, instead of a prior.
        times: decreasing times to use instead of ``steps``, for instance 1, 0.5, 0.
        generator: None, one torch.Generator, or one per image.
        seeds: one integer per image instead of generators: image k depends on seeds[k] only, not on the batch.
        device: where to sample; the generator's or start's device by default.
        callback: called with (t, theta) at the start and after every step.
        progress: show a progress bar.
        chunk: work on so many images at a time, one chunk after another, so that any number fits the memory; with
            ``seeds`` the result does not depend on it.  The callback then sees the chunks in turn.

    Returns:
        Phases of the given shape in [-pi, pi).

    Raises:
        ValueError: an unknown method, times that do not decrease, shapes that do not match, a network whose output has
            another shape than its input.
        FloatingPointError: the state became NaN or infinite; names the step.

    Source: Anderson 1982; Song et al. 2021; arXiv 2509.15328, sampling; Bao et al. 2022.  Book: chapters 5 and 9.
    """
    if method not in _STEPPERS:
        raise ValueError(f"method: got {method!r}, expected one of {sorted(_STEPPERS)}")
    if method in ("ancestral", "hybrid") and calibration is None:
        raise ValueError(
            f"calibration: got None, expected calibrate(network, process, data) for the {method} sampler; "
            "or try method='ode'"
        )
    check_shape(shape)
    generator = one_generator_per_seed(seeds, shape[0], generator, device or ("cpu" if start is None else start.device))
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk: got {chunk}, expected at least 1 image at a time; try 256")
    grid = time_grid(steps) if times is None else check_grid(times)
    if method in ("ode", "hybrid") and process.diffusion.at(grid[0]) == 0:
        raise ValueError(
            f"diffusion: got 0 at t = {grid[0]:g}, expected noise there, as the flow divides by it; "
            "try times that begin earlier, or method='euler'"
        )
    if start is not None and tuple(start.shape) != tuple(shape):
        raise ValueError(f"start: got shape {tuple(start.shape)}, expected {tuple(shape)}")
    if chunk is not None and shape[0] > chunk:
        parts = []
        for first in range(0, shape[0], chunk):
            own = slice(first, min(first + chunk, shape[0]))
            parts.append(
                sample(
                    network,
                    process,
                    (own.stop - own.start, *shape[1:]),
                    method=method,
                    calibration=calibration,
                    prior=prior,
                    start=None if start is None else start[own],
                    times=grid,
                    generator=generator[own] if isinstance(generator, Sequence) else generator,
                    device=device,
                    callback=callback,
                    progress=progress,
                )
            )
        return torch.cat(parts)
    theta = _start(process, shape, prior, start, generator, device)
    step, run = _STEPPERS[method], _Run(network, process, calibration, generator)
    memory: _Memory = None

    def back(theta: Tensor, t1: float, t0: float) -> Tensor:
        nonlocal memory
        theta, memory = step(run, theta, t1, t0, memory)
        return wrap(theta)

    return take_steps(back, theta, grid, callback, progress)


def take_steps(
    step: Callable[[Tensor, float, float], Tensor],
    state: Tensor,
    grid: Sequence[float],
    callback: Callable[[float, Tensor], None] | None = None,
    progress: bool = False,
) -> Tensor:
    """Go from each time of the grid to the next one.

    Args:
        step: called as ``step(state, t1, t0)``, returns the state at t0.
        state: where to start.
        grid: the times.
        callback: called with (t, state) at the start and after every step.
        progress: show a progress bar.

    Raises:
        FloatingPointError: the state became NaN or infinite; names the step.
    """
    first_bad_step = torch.full((), len(grid), device=state.device)
    if callback is not None:
        callback(grid[0], state)
    for k, (t1, t0) in enumerate(tqdm(list(pairwise(grid)), disable=not progress, unit="step")):
        state = step(state, t1, t0)
        # Noted on the device and read once at the end: no synchronisation inside the loop.
        first_bad_step = torch.where(torch.isfinite(state).all(), first_bad_step, first_bad_step.clamp(max=k))
        if callback is not None:
            callback(t0, state)
    if int(first_bad_step) < len(grid):
        k = int(first_bad_step)
        raise FloatingPointError(
            f"the state became NaN or infinite in step {k + 1}, from t = {grid[k]:.4g} to {grid[k + 1]:.4g}"
        )
    return state


# What a step leaves for the next one, if that extrapolates (its velocity, and where or how long it was), and what it
# returns.
_Memory = tuple[Tensor, Tensor | float] | None
_Stepped = tuple[Tensor, _Memory]


@dataclass(frozen=True)
class _Run:
    """What all steps of one call of :func:`sample` share."""

    network: Score
    process: KuramotoProcess
    calibration: Calibration | None
    generator: Generators

    def score(self, theta: Tensor, t: float) -> Tensor:
        return _evaluate(self.network, theta, t)

    def distance(self, theta: Tensor, t: float) -> Tensor:
        """From the score of equilibrium, damped: the velocity of the flow but for a factor."""
        damping = 0.0 if self.calibration is None else self.calibration.damping
        return (1 - damping) * (self.score(theta, t) - self.process.equilibrium_score(theta, t))

    def best_variance(self, variance: Tensor | float, t: float) -> Tensor | float:
        """Of the noise of a reverse step from t: the forward step's, less what the score already knows of it."""
        assert self.calibration is not None, "sample() refuses ancestral steps without"
        return variance * max(0.0, 1 - float(variance) * self.calibration.at(t))

    def noise(self, theta: Tensor) -> Tensor:
        return normal(theta, self.generator)


def _ode(run: _Run, theta: Tensor, t1: float, t0: float, memory: _Memory) -> _Stepped:
    # Reversed, the flow moves by D (score - drift / D) dt: in equilibrium not at all.  That distance shrinks towards
    # the prior like 1 / tan u, and D dt = tan u du: in the angle u the velocity is of order one at all times.
    angle1, angle0 = (math.acos(math.exp(-0.5 * run.process.clock(t))) for t in (t1, t0))
    velocity = ahead = math.tan(angle1) * run.distance(theta, t1)
    step = angle1 - angle0
    if memory is not None:
        last_velocity, last_step = memory
        if last_step > 0:  # zero where V is so large that both angles round to pi / 2
            ahead = velocity + step / (2 * last_step) * (velocity - last_velocity)
    return theta + step * ahead, (velocity, step)


def _ancestral(run: _Run, theta: Tensor, t1: float, t0: float, memory: _Memory) -> _Stepped:
    variance = run.process.coefficients(t0, t1).variance
    theta = theta + variance * run.score(theta, t1)
    if t0 > 0:
        theta = theta + run.best_variance(variance, t1) ** 0.5 * run.noise(theta)
    # The forward step drifts first and kicks after; so the kick is undone first, and the drift where it happened.
    return theta - run.process.step_drift(theta, t0, t1), None


def _hybrid(run: _Run, theta: Tensor, t1: float, t0: float, memory: _Memory) -> _Stepped:
    # An error that all pixels share decides which image appears, and steps of the flow make the smallest.  Later, noise
    # corrects what a learned score gets wrong in the details.
    step = _ode if run.process.clock(t1) > _DECIDED else _ancestral
    return step(run, theta, t1, t0, memory)


def _euler(run: _Run, theta: Tensor, t1: float, t0: float, memory: _Memory) -> _Stepped:
    return _kick(run, theta + _reverse_displacement(run, theta, t1, t0), t1, t0), None


def _adams(run: _Run, theta: Tensor, t1: float, t0: float, memory: _Memory) -> _Stepped:
    variance = run.process.coefficients(t0, t1).variance
    displacement = _reverse_displacement(run, theta, t1, t0)
    velocity = displacement / variance  # per unit of noise variance, the clock in which the process ages evenly
    # Extrapolate only where the velocity changes slowly over a step; it does not near the data, where it is singular.
    if memory is not None and variance < run.process.clock(t1) / 4:
        last_velocity, last_variance = memory
        displacement = displacement + variance**2 / (2 * last_variance) * (velocity - last_velocity)
    return _kick(run, theta + displacement, t1, t0), (velocity, variance)


def _reverse_displacement(run: _Run, theta: Tensor, t1: float, t0: float) -> Tensor:
    variance = run.process.coefficients(t0, t1).variance
    return variance * run.score(theta, t1) - run.process.step_drift(theta, t0, t1)


def _kick(run: _Run, mean: Tensor, t1: float, t0: float) -> Tensor:
    if t0 == 0:
        return mean  # the last step returns its mean: noise would only blur the data
    return mean + run.process.coefficients(t0, t1).variance ** 0.5 * run.noise(mean)


def _pc(run: _Run, theta: Tensor, t1: float, t0: float, memory: _Memory) -> _Stepped:
    theta, _ = _euler(run, theta, t1, t0, None)
    if t0 == 0:
        return theta, None
    # Langevin at t0 leaves p_t0 invariant; half the variance of the step keeps it stable wherever the step itself is.
    tau = 0.5 * run.process.coefficients(t0, t1).variance
    return theta + 0.5 * tau * run.score(theta, t0) + tau**0.5 * run.noise(theta), None


_STEPPERS: dict[str, Callable[[_Run, Tensor, float, float, _Memory], _Stepped]] = {
    "ode": _ode,
    "ancestral": _ancestral,
    "hybrid": _hybrid,
    "euler": _euler,
    "adams": _adams,
    "pc": _pc,
}


def _evaluate(network: Score, theta: Tensor, t: float) -> Tensor:
    score = network(theta, _times(t, theta))
    if score.shape != theta.shape:
        raise ValueError(f"network: got a score of shape {tuple(score.shape)} for phases of shape {tuple(theta.shape)}")
    return score.to(theta.dtype)  # mixed precision must not change the precision of the state


def _times(t: float, theta: Tensor) -> Tensor:
    return torch.full((len(theta),), t, dtype=theta.dtype, device=theta.device)


def check_grid(times: Sequence[float]) -> list[float]:
    """The times as numbers.

    Raises:
        ValueError: fewer than two, times that do not decrease or lie outside [0, 1].
    """
    grid = [float(t) for t in times]
    if len(grid) < 2 or not all(1 >= a > b >= 0 for a, b in pairwise(grid)):
        raise ValueError(
            f"times: got {grid[:5]}, expected at least two decreasing times in [0, 1], from 1 (prior) to 0 (data)"
        )
    return grid


def _start(
    process: KuramotoProcess,
    shape: tuple[int, ...],
    prior: Prior | None,
    start: Tensor | None,
    generator: Generators,
    device: torch.device | str | None,
) -> Tensor:
    name = "start" if start is not None else "prior"
    theta = start if start is not None else (prior or GibbsPrior(process)).sample(tuple(shape), generator)
    process.validate(theta, name)
    if tuple(theta.shape) != tuple(shape):
        raise ValueError(f"{name}: got shape {tuple(theta.shape)}, expected {tuple(shape)}")
    return theta if device is None else theta.to(device)
