"""From time 0 to given times by steps of equal length: all images to one time, or every image to its own.

What a step does is given by a function ``advance(theta, noise, t0, t1)``; nothing here knows a process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any, TypeAlias

import torch
from torch import Tensor

from kodm_lite.circular import is_integer
from kodm_lite.randomness import Generators, normal
from kodm_lite.schedules import LinearSchedule, Time, check_time

__all__ = [
    "STEPS",
    "Advance",
    "check_count",
    "check_step",
    "check_steps",
    "increasing_times",
    "largest_time",
    "run_along",
    "run_to",
]

STEPS = 100  # the published number of steps over the unit of time

Advance: TypeAlias = Callable[[Tensor, Tensor, Time, Time], Tensor]


def run_to(advance: Advance, theta0: Tensor, t: Time, steps: int, generator: Generators) -> Tensor:
    """The state at time t, a number or one per image (B,), by steps of 1/steps, the last one shorter."""
    if isinstance(t, Tensor):
        return _run_each(advance, theta0, t, steps, generator)
    return _run(advance, theta0, [min(k / steps, t) for k in range(_count(t, steps) + 1)], generator)


def run_along(
    advance: Advance, theta: Tensor, times: Sequence[float], steps: int, generator: Generators
) -> Iterator[Tensor]:
    """The state at each of the increasing times of one realisation; no step is longer than 1/steps."""
    now = 0.0
    for t in times:
        count = math.ceil((t - now) * steps - 1e-9)
        grid = [now + (t - now) * k / count for k in range(count + 1)] if count else []
        theta, now = _run(advance, theta, grid, generator), t
        yield theta


def _run(advance: Advance, theta: Tensor, times: Sequence[float], generator: Generators) -> Tensor:
    for t0, t1 in pairwise(times):
        theta = advance(theta, normal(theta, generator), t0, t1)
    return theta


def _run_each(advance: Advance, theta: Tensor, t: Tensor, steps: int, generator: Generators) -> Tensor:
    """Every image to its own time: those that have arrived leave the batch, the latest first in line."""
    order = torch.argsort(t, descending=True, stable=True)
    counts = [_count(end, steps) for end in t[order].tolist()]
    order, t = order.to(theta.device), t.to(theta)[order.to(theta.device)]
    theta, arrived = theta[order], []
    if isinstance(generator, Sequence):
        generator = [generator[i] for i in order.tolist()]
    for k in range(counts[0] + 1):
        left = sum(count > k for count in counts[: len(theta)])
        arrived.append(theta[left:])
        theta, t = theta[:left], t[:left]
        if isinstance(generator, Sequence):
            generator = generator[:left]
        if left:
            theta = advance(theta, normal(theta, generator), k / steps, t.clamp(max=(k + 1) / steps))
    return torch.cat(arrived[::-1])[torch.argsort(order)]


def _count(t: float, steps: int) -> int:
    """Steps of 1/steps up to the time t; a rounding error of a float32 time is not worth one."""
    return math.ceil((t - 1e-7) * steps)


def check_steps(steps: Any, last: float, *strengths: LinearSchedule) -> None:
    """Refuse steps of 1/steps up to the time ``last`` that would overshoot what they head for.

    Raises:
        ValueError: no integer >= 1, or couplings that integrate to more than 1 over the largest step.
    """
    if not is_integer(steps, 1):
        raise ValueError(
            f"steps: got {steps!r}, expected an integer, at least 1 per unit of time; try {STEPS}, as in the paper"
        )
    ends = ((0.0, min(1 / steps, last)), (max(last - 1 / steps, 0.0), last))  # rates are linear
    if max(sum(strength.integral(*step) for strength in strengths) for step in ends) > 1 + 1e-9:
        strongest = max(sum(strength.at(t) for strength in strengths) for t in (0.0, last))
        raise ValueError(
            f"steps: got {steps} for K + K_ref up to {strongest:.4g}, expected steps in which they integrate to at "
            f"most 1; try steps={math.ceil(strongest)}"
        )


def check_step(t0: float, t1: float) -> None:
    """Refuse what is no step forwards within [0, 1]."""
    if not (isinstance(t0, Real) and isinstance(t1, Real) and 0 <= t0 <= t1 <= 1):
        raise ValueError(
            f"t0, t1: got {t0!r} and {t1!r}, expected 0 <= t0 <= t1 <= 1; data is at time 0, the prior at 1; "
            "try 0.0 and 0.01"
        )


def check_count(t: Time, theta: Tensor) -> None:
    """Refuse times that are not one per image."""
    if not isinstance(t, Tensor) or t.ndim == 0 or t.shape == theta.shape[:1]:
        return
    if t.ndim != theta.ndim or any(a not in (1, b) for a, b in zip(t.shape, theta.shape, strict=True)):
        raise ValueError(
            f"t: got shape {tuple(t.shape)} for the phases {tuple(theta.shape)}, expected a number or one time per "
            f"image, ({len(theta)},); try t.expand({len(theta)})"
        )


def increasing_times(times: Any) -> list[float]:
    """The times as numbers, which increase within [0, 1]."""
    hint = "expected increasing times in [0, 1]; try [0.0, 0.5, 1.0]"
    try:
        times = [float(t) for t in times]
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"times: got {times!r}, {hint}") from None
    if not times or any(not 0 <= t <= 1 for t in times) or any(a > b for a, b in pairwise(times)):
        raise ValueError(f"times: got {times[:5]}..., {hint}")
    return times


def largest_time(t: Any, batch: int) -> float:
    """The latest of the times, a number or one per image, all of which are in [0, 1]."""
    hint = f"expected a number or a tensor of one time per image, ({batch},); try 1.0"
    if isinstance(t, Tensor):
        check_time(t, "t")
        if t.shape not in ((), (batch,)):
            raise ValueError(f"t: got shape {tuple(t.shape)}, {hint}")
        low, high = float(t.min()), float(t.max())
    elif isinstance(t, bool) or not isinstance(t, (float, int, Real)):
        raise ValueError(f"t: got {type(t).__name__}, {hint}")
    else:
        low = high = float(t)
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"t: got times from {low} to {high}, expected [0, 1]; data is at time 0, the prior at 1; try 1.0"
        )
    return high
