"""From the prior back to data: reverse-time samplers on any score, exact or learned.

A sampler is a function ``step(run, x, t1, t0, memory)`` that goes from time t1 down to t0; it returns the new state,
and what it leaves for its next call.  Chapters 5 and 9 of the book derive those of a Kuramoto process.  With the drift
and the noise variance v of a step,

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
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from kodm_lite.kinds import Process, check_grid, time_grid
from kodm_lite.randomness import Generators, normal, one_generator_per_seed
from kodm_lite.registry import processes
from kodm_lite.validation import check_count, check_device, check_methods, told

if TYPE_CHECKING:
    from kodm_lite.calibration import Calibration
    from kodm_lite.priors import Prior

__all__ = [
    "Memory",
    "Run",
    "Score",
    "Step",
    "check_grid",
    "evaluate",
    "needs_calibration",
    "sample",
    "step_of",
    "take_steps",
    "time_grid",
]

Score = Callable[[Tensor, Tensor], Tensor]

#: What a step leaves for the next one, if that extrapolates: for instance its velocity, and how long it was.
Memory = tuple[Tensor, Tensor | float] | None

_DECIDED = 1.0  # clock V = int 2D below which a state has all but decided which image it becomes


@dataclass(frozen=True)
class Run:
    """What all steps of one call of :func:`sample` share.

    Args:
        network: the score, or whatever the samplers of the process expect of a network.
        process: the forward process.
        calibration: of the network, or None.
        generator: None, one, or one per image.
    """

    network: Score
    process: Any
    calibration: Calibration | None
    generator: Generators

    def predict(self, x: Tensor, t: float) -> Tensor:
        """What the network says of states (B, ...) at time t."""
        return evaluate(self.network, x, t)

    def noise(self, like: Tensor) -> Tensor:
        """Standard normal numbers with the shape of ``like``."""
        return normal(like, self.generator)


Step = Callable[[Run, Tensor, float, float, Memory], tuple[Tensor, Memory]]


@torch.no_grad()
def sample(  # two thirds are the description of its arguments, all but three of which have a default
    network: Score,
    process: Process,
    shape: tuple[int, ...],
    *,
    steps: int = 100,
    method: str | Step | None = None,
    calibration: Calibration | None = None,
    prior: Prior | None = None,
    start: Tensor | None = None,
    times: Sequence[float] | None = None,
    generator: Generators = None,
    seeds: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    callback: Callable[[float, Tensor], None] | None = None,
    progress: bool = False,
    chunk: int | None = None,
) -> Tensor:
    """Draw samples by running a process backwards from its prior.

    Args:
        network: called as ``network(x, t)`` with x (B, ...) and t (B,): the score of a Kuramoto process, exact or
            learned, or the predicted noise of a Euclidean diffusion.
        process: the forward process.
        shape: (B, C, H, W), (B, N), or whatever the process has for states.
        steps: number of steps.
        method: a function as at the top of :mod:`kodm_lite.samplers`, or the name of one of the process.  Of a Kuramoto
            process, "ode", the default: probability flow, deterministic after the start, by the two-step
            Adams-Bashforth rule in the angle in which its velocity is of order one; "ancestral": Bayes' rule for one
            step, with the best scalar variance; "hybrid": the flow while the clock V = int 2D is above 1 and it is open
            which image will appear, ancestral steps from there on; "euler": reverse SDE with the forward noise
            variance, as published; "adams": the two-step rule for the same equation; "pc": euler, then one Langevin
            step with the same score a step later.  Of a Euclidean diffusion: see :mod:`kodm_lite.euclidean`.
        calibration: from :func:`kodm_lite.calibrate`, for "ancestral" and "hybrid"; its damping, if it has one, for
            the flow.
        prior: where to start; by default what the process draws.
        start: a state to start from, instead of a prior.
        times: decreasing times to use instead of ``steps``, for instance 1, 0.5, 0.
        generator: None, one torch.Generator, or one per image.
        seeds: one integer per image instead of generators: image k depends on seeds[k] only, not on the batch.
        device: where to sample; the generator's or start's device by default.
        dtype: precision of the states; by default that of the start or prior.
        callback: called with (t, x) at the start and after every step.
        progress: show a progress bar.
        chunk: work on so many images at a time, one chunk after another, so that any number fits the memory; with
            ``seeds`` the result does not depend on it.  The callback then sees the chunks in turn.

    Returns:
        States of the given shape; phases in [-pi, pi).

    Raises:
        ValueError: an unknown method, times that do not decrease, shapes that do not match, a network whose output has
            another shape than its input, a device that is not there.
        FloatingPointError: the state became NaN or infinite; names the step.

    Source: Anderson 1982; Song et al. 2021; arXiv 2509.15328, sampling; Bao et al. 2022.  Book: chapters 5 and 9.
    """
    check_methods("network", network, "__call__")
    check_methods("process", process, "validate", "project", "draw_prior")
    for name, given, needed in (("prior", prior, "sample"), ("calibration", calibration, "at")):
        if given is not None:
            check_methods(name, given, needed)
    if callback is not None:
        check_methods("callback", callback, "__call__")
    if not isinstance(dtype, torch.dtype | None) or (dtype is not None and not dtype.is_floating_point):
        raise ValueError(f"dtype: got {dtype!r}, expected a floating one; try torch.float64")
    step, grid = step_of(process, method), _grid(process, steps, times, prior is None and start is None)
    if calibration is None and getattr(step, "needs_calibration", False):
        raise ValueError(
            f"calibration: got None, expected calibrate(network, process, data) for the sampler {method!r}; "
            "or try method='ode'"
        )
    shape = _checked_shape(shape, start)
    device = check_device(device)
    generator = one_generator_per_seed(seeds, shape[0], generator, device or ("cpu" if start is None else start.device))
    if isinstance(generator, Sequence) and len(generator) != shape[0]:
        raise ValueError(f"generator: got {len(generator)} generators, expected one for each of {shape[0]} images")
    chunk = shape[0] if chunk is None else check_count("chunk", chunk)
    parts = []
    for first in range(0, shape[0], chunk):
        own = slice(first, min(first + chunk, shape[0]))
        run = Run(network, process, calibration, generator[own] if isinstance(generator, Sequence) else generator)
        x = start[own] if start is not None else _draw(run, prior, (own.stop - own.start, *shape[1:]), device)
        process.validate(x, "prior" if start is None else "start")
        parts.append(_back(step, run, x.to(device=device, dtype=dtype), grid, callback, progress))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _back(
    step: Step,
    run: Run,
    x: Tensor,
    grid: Sequence[float],
    callback: Callable[[float, Tensor], None] | None,
    progress: bool,
) -> Tensor:
    memory: Memory = None

    def back(x: Tensor, t1: float, t0: float) -> Tensor:
        nonlocal memory
        x, memory = step(run, x, t1, t0, memory)
        return run.process.project(x)

    return take_steps(back, x, grid, callback, progress)


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
    if state.is_meta or int(first_bad_step) == len(grid):
        return state
    k = int(first_bad_step)
    raise FloatingPointError(
        f"the state became NaN or infinite in step {k + 1}, from t = {grid[k]:.4g} to {grid[k + 1]:.4g}"
    )


def step_of(process: Process, method: str | Step | None) -> Step:
    """The step of a method: the function itself, or the sampler of that name.

    Raises:
        ValueError: an unknown name; lists those of the process.
    """
    if callable(method):
        return method
    samplers = processes[process.kind].samplers
    if method is None and samplers:
        return next(iter(samplers.values()))
    if not isinstance(method, str) or method not in samplers:
        raise ValueError(
            f"method: got {method!r}, expected one of {', '.join(samplers) or 'no name'} for {type(process).__name__}, "
            "or a function step(run, x, t1, t0, memory)"
        )
    return samplers[method]


def needs_calibration(step: Step) -> Step:
    """Mark a step that cannot do without a calibration, so that it is missed before any work."""
    step.needs_calibration = True  # type: ignore[attr-defined]
    return step


def evaluate(network: Score, x: Tensor, t: float) -> Tensor:
    """What a network says of states at time t, in their precision.

    Raises:
        ValueError: it has another shape, which broadcasting would hide.
    """
    answer = network(x, torch.full((len(x),), t, dtype=x.dtype, device=x.device))
    if not isinstance(answer, Tensor) or answer.shape != x.shape:
        got = f"shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else told(answer)
        raise ValueError(f"network: got {got} for states of shape {tuple(x.shape)}, expected the same shape")
    return answer.to(x.dtype)  # mixed precision must not change the precision of the state


def _grid(process: Process, steps: int, times: Sequence[float] | None, from_prior: bool) -> list[float]:
    if times is None:
        kind = processes[process.kind] if process.kind in processes else None
        return (kind.grid if kind else time_grid)(check_count("steps", steps))
    grid = check_grid(times)
    if from_prior and grid[0] != 1:
        raise ValueError(
            f"start: got None and times from {grid[0]:g}, expected a state at that time; the prior is at 1"
        )
    return grid


def _checked_shape(shape: tuple[int, ...], start: Tensor | None) -> tuple[int, ...]:
    if not isinstance(shape, Sequence) or not shape:
        raise ValueError(f"shape: got {shape!r}, expected (B, ...), such as images (B, C, H, W); try (16, 1, 32, 32)")
    shape = tuple(check_count("shape", n) for n in shape)
    if start is not None and (not isinstance(start, Tensor) or tuple(start.shape) != shape):
        got = f"shape {tuple(start.shape)}" if isinstance(start, Tensor) else told(start)
        raise ValueError(f"start: got {got}, expected {shape}")
    return shape


def _draw(run: Run, prior: Prior | None, shape: tuple[int, ...], device: torch.device | None) -> Tensor:
    x = run.process.draw_prior(shape, run.generator, device) if prior is None else prior.sample(shape, run.generator)
    if tuple(x.shape) != shape:
        raise ValueError(f"prior: got shape {tuple(x.shape)}, expected {shape}")
    return x


# The samplers of a Kuramoto process.


def _distance(run: Run, theta: Tensor, t: float) -> Tensor:
    """From the score of equilibrium, damped: the velocity of the flow but for a factor."""
    damping = 0.0 if run.calibration is None else run.calibration.damping
    return (1 - damping) * (run.predict(theta, t) - run.process.equilibrium_score(theta, t))


def ode(run: Run, theta: Tensor, t1: float, t0: float, memory: Memory) -> tuple[Tensor, Memory]:
    """Probability flow, by the two-step Adams-Bashforth rule."""
    if run.process.diffusion.at(t1) == 0:
        raise ValueError(
            f"diffusion: got 0 at t = {t1:g}, expected noise there, as the flow divides by it; "
            "try times that begin earlier, or method='euler'"
        )
    # Reversed, the flow moves by D (score - drift / D) dt: in equilibrium not at all.  That distance shrinks towards
    # the prior like 1 / tan u, and D dt = tan u du: in the angle u the velocity is of order one at all times.
    angle1, angle0 = (math.acos(math.exp(-0.5 * run.process.clock(t))) for t in (t1, t0))
    velocity = ahead = math.tan(angle1) * _distance(run, theta, t1)
    step = angle1 - angle0
    if memory is not None:
        last_velocity, last_step = memory
        if last_step > 0:  # zero where V is so large that both angles round to pi / 2
            ahead = velocity + step / (2 * last_step) * (velocity - last_velocity)
    return theta + step * ahead, (velocity, step)


@needs_calibration
def ancestral(run: Run, theta: Tensor, t1: float, t0: float, memory: Memory) -> tuple[Tensor, Memory]:
    """Bayes' rule for one step, with the best scalar variance."""
    assert run.calibration is not None, "sample() refuses ancestral steps without"
    variance = run.process.coefficients(t0, t1).variance
    theta = theta + variance * run.predict(theta, t1)
    if t0 > 0:  # the noise of the forward step, less what the score already knows of it
        best = variance * max(0.0, 1 - float(variance) * run.calibration.at(t1))
        theta = theta + best**0.5 * run.noise(theta)
    # The forward step drifts first and kicks after; so the kick is undone first, and the drift where it happened.
    return theta - run.process.step_drift(theta, t0, t1), None


@needs_calibration
def hybrid(run: Run, theta: Tensor, t1: float, t0: float, memory: Memory) -> tuple[Tensor, Memory]:
    """The flow until it is decided which image appears, then ancestral steps."""
    # An error that all pixels share decides which image appears, and steps of the flow make the smallest.  Later, noise
    # corrects what a learned score gets wrong in the details.
    step = ode if run.process.clock(t1) > _DECIDED else ancestral
    return step(run, theta, t1, t0, memory)


def euler(run: Run, theta: Tensor, t1: float, t0: float, memory: Memory) -> tuple[Tensor, Memory]:
    """Euler-Maruyama on the reverse SDE, as published."""
    return _kick(run, theta + _reverse_displacement(run, theta, t1, t0), t1, t0), None


def adams(run: Run, theta: Tensor, t1: float, t0: float, memory: Memory) -> tuple[Tensor, Memory]:
    """The two-step rule for the reverse SDE."""
    variance = run.process.coefficients(t0, t1).variance
    displacement = _reverse_displacement(run, theta, t1, t0)
    velocity = displacement / variance  # per unit of noise variance, the clock in which the process ages evenly
    # Extrapolate only where the velocity changes slowly over a step; it does not near the data, where it is singular.
    if memory is not None and variance < run.process.clock(t1) / 4:
        last_velocity, last_variance = memory
        displacement = displacement + variance**2 / (2 * last_variance) * (velocity - last_velocity)
    return _kick(run, theta + displacement, t1, t0), (velocity, variance)


def pc(run: Run, theta: Tensor, t1: float, t0: float, memory: Memory) -> tuple[Tensor, Memory]:
    """Predictor and corrector: Euler's step, then one of Langevin."""
    theta, _ = euler(run, theta, t1, t0, None)
    if t0 == 0:
        return theta, None
    # Langevin at t0 leaves p_t0 invariant; half the variance of the step keeps it stable wherever the step itself is.
    tau = 0.5 * run.process.coefficients(t0, t1).variance
    return theta + 0.5 * tau * run.predict(theta, t0) + tau**0.5 * run.noise(theta), None


def _reverse_displacement(run: Run, theta: Tensor, t1: float, t0: float) -> Tensor:
    variance = run.process.coefficients(t0, t1).variance
    return variance * run.predict(theta, t1) - run.process.step_drift(theta, t0, t1)


def _kick(run: Run, mean: Tensor, t1: float, t0: float) -> Tensor:
    if t0 == 0:
        return mean  # the last step returns its mean: noise would only blur the data
    return mean + run.process.coefficients(t0, t1).variance ** 0.5 * run.noise(mean)


KURAMOTO_SAMPLERS: dict[str, Step] = {
    "ode": ode,
    "ancestral": ancestral,
    "hybrid": hybrid,
    "euler": euler,
    "adams": adams,
    "pc": pc,
}
