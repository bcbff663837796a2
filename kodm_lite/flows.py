"""The flow that takes states from the data to the prior without noise, and how much it spreads them.

A flow has the angle u of a time, the velocity dx/du of a state, and the log-density of states at its end.  In u the
velocity is of order one at all times.  :mod:`kodm_lite.likelihood` goes along it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from kodm_lite.priors import GibbsPrior
from kodm_lite.randomness import Generators, uniform
from kodm_lite.samplers import Score, evaluate

__all__ = [
    "EuclideanFlow",
    "Flow",
    "KuramotoFlow",
    "Measure",
    "Velocity",
    "exact_divergence",
    "flow_of",
    "hutchinson",
    "plan_of",
]

_LAST_CLOCK = 50.0  # V after which nothing moves that double precision could see

_SHARP = 0.05  # angle above which steps are alike

Velocity = Callable[[Tensor], Tensor]

#: From a velocity and states to the velocity there, its divergence (B,), and the variance of that.
Measure = Callable[[Velocity, Tensor], tuple[Tensor, Tensor, Tensor]]


class Flow(Protocol):
    """From the data at time 0 to ``end``."""

    end: float

    def angle(self, t: float) -> float:
        """u at time t, increasing."""

    def velocity(self, network: Score, x: Tensor, t: float) -> Tensor:
        """dx/du at states (B, ...) and time t."""

    def log_prior(self, x: Tensor) -> Tensor:
        """Log-density (B,) of states at the end."""


class KuramotoFlow:
    """The flow of a Kuramoto process in the angle of its clock."""

    def __init__(self, process: Any, prior: Any):
        self.process, self.prior = process, GibbsPrior(process) if prior is None else prior
        self.end = process.time_of(_LAST_CLOCK)
        self.log_prior = self.prior.log_prob

    def angle(self, t: float) -> float:
        return math.acos(math.exp(-0.5 * self.process.clock(t)))

    def velocity(self, network: Score, theta: Tensor, t: float) -> Tensor:
        apart = self.process.equilibrium_score(theta, t) - _differentiable(network, theta, t)
        return math.sqrt(math.expm1(self.process.clock(t))) * apart


class EuclideanFlow:
    """The flow of a diffusion in the angle atan(sigma / alpha), of states over hypot(alpha, sigma)."""

    def __init__(self, process: Any, prior: Any):
        self.process, self.prior, self.end = process, prior, 1.0

    def _at(self, t: float) -> tuple[float, float, float]:
        (alpha,), (sigma,) = self.process.at(t)
        return alpha, sigma, math.hypot(alpha, sigma)

    def angle(self, t: float) -> float:
        alpha, sigma, _ = self._at(t)
        return math.atan2(sigma, alpha)

    def velocity(self, network: Score, y: Tensor, t: float) -> Tensor:
        alpha, sigma, scale = self._at(t)
        return (scale * _differentiable(network, scale * y, t) - sigma * y) / alpha

    def log_prior(self, y: Tensor) -> Tensor:
        _, sigma, scale = self._at(1.0)
        d = y[0].numel()
        if self.prior is not None:
            return self.prior.log_prob(scale * y) + d * math.log(scale)
        return self.process.noise.log_prob(scale / sigma * y) + d * math.log(scale / sigma)


def flow_of(process: Any, prior: Any = None) -> Flow:
    """The flow of a process.

    Args:
        process: a KuramotoProcess or a Euclidean diffusion.
        prior: has ``log_prob``; by default the stationary law, or the noise.

    Raises:
        ValueError: another process, or a prior without density.
    """
    if prior is not None and not hasattr(prior, "log_prob"):
        raise ValueError(f"prior: got {type(prior).__name__}, which has no log_prob, expected one with; try None")
    if hasattr(process, "equilibrium_score"):
        return KuramotoFlow(process, prior)
    if not hasattr(process, "alpha"):
        raise ValueError(
            f"process: got {type(process).__name__}, expected a KuramotoProcess or a Euclidean diffusion; "
            "try one of them"
        )
    if prior is None and not hasattr(process.noise, "log_prob"):
        raise ValueError(
            f"process: got noise {type(process.noise).__name__}, which has no log_prob, expected one with; "
            "try prior=, an object with log_prob"
        )
    return EuclideanFlow(process, prior)


def plan_of(flow: Flow, steps: int, early: float) -> tuple[list[float], dict[float, tuple[float, float]]]:
    """Times from 0 to the end, ``early`` the first of them, and for each the step in angle and the time of its middle.

    Towards the prior the velocity goes like a broken power of what is left of the angle, and near sharp data it spreads
    states like 1 / u: steps get shorter to both sides.
    """
    begin, end = flow.angle(early), flow.angle(flow.end)
    graded = (1.5 * s - 0.5 * s**3 for s in (k / steps for k in range(steps + 1)))
    angles = [0.0, *((begin + _SHARP) * ((end + _SHARP) / (begin + _SHARP)) ** g - _SHARP for g in graded)]
    times = [0.0, early, *(_time_of(flow, u) for u in angles[2:-1]), flow.end]
    middles = (_time_of(flow, 0.5 * (u + v)) for u, v in pairwise(angles))
    return times, {t: (v - u, m) for t, (u, v), m in zip(times[:-1], pairwise(angles), middles, strict=True)}


def _time_of(flow: Flow, angle: float) -> float:
    """The time of an angle, by bisection."""
    low, high = 0.0, flow.end
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if flow.angle(middle) < angle else (low, middle)
    return high


def exact_divergence(velocity: Velocity, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Velocity at x, its divergence (B,), and the variance of that, which is none."""
    x, v = _with_graph(velocity, x)
    flat = v.flatten(1)
    trace = torch.zeros_like(flat[:, 0])
    for k in range(flat.shape[1]):
        trace = trace + torch.autograd.grad(flat[:, k].sum(), x, retain_graph=True)[0].flatten(1)[:, k]
    return v.detach(), trace.detach(), torch.zeros_like(trace)


def hutchinson(velocity: Velocity, x: Tensor, probes: int, generator: Generators) -> tuple[Tensor, Tensor, Tensor]:
    """The same with an estimate of the divergence, and the variance of its mean over the probes."""
    x, v = _with_graph(velocity, x)
    found = []
    for _ in range(probes):
        signs = torch.where(uniform(x.detach(), generator) < 0.5, -1.0, 1.0).to(v)
        (product,) = torch.autograd.grad(v, x, signs, retain_graph=True)
        found.append((signs * product).flatten(1).sum(1))
    traces = torch.stack(found)
    return v.detach(), traces.mean(0), traces.var(0) / probes


def _with_graph(velocity: Velocity, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return x, velocity(x)


def _differentiable(network: Score, x: Tensor, t: float) -> Tensor:
    answer = evaluate(network, x, t)
    if x.requires_grad and not answer.requires_grad:
        raise ValueError(
            "network: got an answer without gradient, expected one that can be differentiated by the state; "
            "try without torch.no_grad and detach"
        )
    return answer
