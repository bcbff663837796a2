r"""The law of every phase given the data, by propagation of chaos: a conditional score without simulating its target.

Given the image at time 0, its pixels are almost independent at time t, each driven by the deterministic field that the
*expected* phases of its neighbours make.  The density of pixel i is followed in two closures,

.. math:: V < V_s: \quad WN(m_i, V_i), \qquad
          \dot m = e^{-V/2}\operatorname{Im}(H e^{-im}), \quad \dot V = 2D - 2 e^{-V/2} \operatorname{Re}(H e^{-im})\,V

.. math:: V > V_s: \quad \dot c_n = \tfrac n2 (H c_{n-1} - \bar H c_{n+1}) - n^2 D c_n, \qquad
          p = \tfrac1{2\pi} \bigl(1 + 2 \operatorname{Re} \textstyle\sum_n c_n e^{-in\theta}\bigr)

with V = int 2D, the clock of the process.  One integration serves all the times of a batch, in about 25 stages however
many steps a sampler takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kodm_lite.kernels import WrappedNormal
from kodm_lite.process import KuramotoProcess

__all__ = ["MeanFieldLaw", "mean_field_law"]

_SWITCH = 0.2  # clock at which wrapped normals hand over to Fourier modes
_TAIL = 1e-6  # size of the first Fourier mode that is left out
_SHARPEST = 20.0  # concentration up to which the series is meant to be used: sharper laws take hundreds of stages
_FLOOR = 1e-5  # densities below (relative to uniform) are rounding errors of the series


@dataclass(frozen=True)
class MeanFieldLaw:
    """Independent laws of the phases of a batch at its times, and the field that drives each of them then.

    Args:
        mean, variance: of the wrapped normal laws (B, ...), for images before the switch.
        modes: Fourier modes E exp(i n theta), n = 1, 2, ..., complex ``(n, B, ...)``; zero for images before the
            switch.
        narrow: which images (B, 1, ...) are before the switch.
        field: H, the field of the expected phases of the neighbours, complex (B, ...).
    """

    mean: Tensor
    variance: Tensor
    modes: Tensor
    narrow: Tensor
    field: Tensor

    def score(self, theta: Tensor) -> Tensor:
        """Derivative of every phase's log-density at the phases ``theta`` (B, ...)."""
        normal = WrappedNormal(self.mean, self.variance.sqrt(), validate_args=False).score(theta)
        turn = torch.polar(torch.ones_like(theta), -theta)
        series = slope = torch.zeros_like(turn)
        for n in range(len(self.modes), 0, -1):  # Horner
            series, slope = (series + self.modes[n - 1]) * turn, (slope + n * self.modes[n - 1]) * turn
        density = (1 + 2 * series.real).clamp(min=_FLOOR)
        return torch.where(self.narrow, normal, 2 * slope.imag / density)


def mean_field_law(process: KuramotoProcess, theta0: Tensor, t: Tensor) -> MeanFieldLaw:
    """The law of theta(t) given theta0, image by image.

    Args:
        process: the forward process.
        theta0: phases (B, C, H, W) or (B, N), radians.
        t: one time per image (B,), on the CPU, where the integration is planned.

    Raises:
        ValueError: times outside [0, 1], or not one per image.
    """
    if t.shape != theta0.shape[:1] or not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(f"t: got {t.flatten()[:3].tolist()}..., expected one time in [0, 1] for each of {len(theta0)}")
    order = torch.argsort(t, descending=True, stable=True)
    ends = t[order].tolist()
    back = torch.argsort(order).to(theta0.device)
    times = t[order].to(theta0)
    switch = _time_of(process, _SWITCH)
    mean, variance = _wrapped_normals(process, theta0[order.to(theta0.device)], times.clamp(max=switch))
    late = sum(end > switch for end in ends)
    kappa = _largest_concentration(process)
    most = _needed_modes(_SWITCH, kappa)
    orders = torch.arange(1, most + 1, device=theta0.device).reshape(-1, *[1] * theta0.ndim)
    start = torch.polar(torch.exp(-0.5 * orders**2 * variance[:late]), orders * mean[:late])
    modes, clock, arrived = start, _SWITCH, []
    t0 = switch
    while len(modes[0]):
        modes = modes[: _needed_modes(clock, kappa)]
        clock += min(0.25 * clock, 0.4, 4 / max(kappa, 1.0) ** 2)
        t1 = _time_of(process, clock)
        modes = _stage(process, modes, t0, times[: len(modes[0])].clamp(max=t1))
        left = sum(end > t1 for end in ends[: len(modes[0])])
        arrived.append(modes[:, left:])
        modes, t0 = modes[:, :left], t1
    full = torch.zeros(most, *theta0.shape, dtype=start.dtype, device=theta0.device)
    done = late
    for part in arrived:
        done -= part.shape[1]
        full[: len(part), done : done + part.shape[1]] = part
    narrow = (times <= switch).reshape(-1, *[1] * (theta0.ndim - 1))
    first = torch.where(narrow, torch.polar(torch.exp(-0.5 * variance), mean), full[0])
    field = _field(process, first, process.coupling_strength.at(times), process.reference_strength.at(times))
    return MeanFieldLaw(mean[back], variance[back], full[:, back], narrow[back], field[back])


def _wrapped_normals(process: KuramotoProcess, theta0: Tensor, t: Tensor, steps: int = 3) -> tuple[Tensor, Tensor]:
    """Means and variances of the first closure at times t (B,), by Heun's method."""
    mean, variance = theta0, torch.zeros_like(theta0)
    for k in range(steps):
        step = process.coefficients(t * k / steps, t * (k + 1) / steps)
        growth = _broadcast(step.variance, theta0)

        def rates(m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            shrink = torch.exp(-0.5 * v)
            pull = _field(process, torch.polar(shrink, m), step.coupling, step.reference)  # noqa: B023
            along = pull * torch.polar(shrink, -m)
            return along.imag, growth - 2 * along.real * v  # noqa: B023

        dm, dv = rates(mean, variance)
        dm2, dv2 = rates(mean + dm, variance + dv)
        mean, variance = mean + 0.5 * (dm + dm2), variance + 0.5 * (dv + dv2)
    return mean, variance


def _stage(process: KuramotoProcess, modes: Tensor, t0: float, t1: Tensor) -> Tensor:
    """Modes from time t0 to times t1 (B,), by the exponential Runge-Kutta method of order 2 (Cox and Matthews).

    Decay by diffusion is exact; so are stationary states, whatever the length of the stage.
    """
    step = process.coefficients(torch.full_like(t1, t0), t1)
    n = torch.arange(1, len(modes) + 1, device=modes.device, dtype=t1.dtype).reshape(-1, *[1] * (modes.ndim - 1))
    decay = 0.5 * n**2 * _broadcast(step.variance, modes[0]) + 1e-12
    kept, weight = torch.exp(-decay), -torch.expm1(-decay) / decay
    weight2 = (1 - weight) / decay

    def torque(c: Tensor) -> Tensor:
        pull = _field(process, c[0], step.coupling, step.reference)
        below = torch.cat([torch.ones_like(c[:1]), c[:-1]])
        above = torch.cat([c[1:], torch.zeros_like(c[:1])])
        return 0.5 * n * (pull * below - pull.conj() * above)

    first = torque(modes)
    guess = kept * modes + weight * first
    return guess + weight2 * (torque(guess) - first)


def _field(process: KuramotoProcess, expected: Tensor, coupling: Tensor | float, reference: Tensor | float) -> Tensor:
    """H from the expected exp(i theta) of all phases, with strengths per image (rates, or integrals over a step)."""
    phase = torch.as_tensor(process.reference_phase, dtype=expected.real.dtype, device=expected.device)
    pull = torch.polar(torch.ones_like(phase), phase)
    average = process.coupling.average(expected)
    return (_broadcast(coupling, expected) * average + _broadcast(reference, expected) * pull).expand_as(expected)


def _broadcast(value: Tensor | float, like: Tensor) -> Tensor:
    return torch.as_tensor(value).reshape(-1, *[1] * (like.ndim - 1))


def _needed_modes(clock: float, kappa: float) -> int:
    """Modes of a wrapped normal of this variance or of a von Mises law of this concentration, whichever is sharper."""
    return math.ceil(math.sqrt(-2 * math.log(_TAIL) * max(1 / clock, kappa))) + 1


def _largest_concentration(process: KuramotoProcess) -> float:
    """The largest (K + K_ref) / D, which no frozen law is sharper than; the ratio is monotonic, hence at an end."""
    ends = []
    for t in (0.0, 1.0):
        strength = process.coupling_strength.at(t) + process.reference_strength.at(t)
        diffusion = process.diffusion.at(t)
        if diffusion > 0:
            ends.append(strength / diffusion)
    if max(ends) > _SHARPEST:
        raise ValueError(
            f"process: got (K + K_ref)/D = {max(ends):.3g}, expected at most {_SHARPEST:g} for mean-field laws; "
            "try transition score matching"
        )
    return max(ends)


def _time_of(process: KuramotoProcess, clock: float) -> float:
    """The time at which the clock V shows this much; 1 if it never does.  D is linear, so V is quadratic."""
    start, slope = process.diffusion.start, process.diffusion.end - process.diffusion.start
    if 2 * start + slope <= clock:
        return 1.0
    return clock / (start + math.sqrt(start**2 + slope * clock))
