r"""The law of every phase given the data, by propagation of chaos: a conditional score without simulating its target.

Given the image at time 0, its pixels are almost independent at time t, each driven by the deterministic field that the
*expected* phases of its neighbours make.  The density of pixel i is followed in two closures,

.. math:: V < V_s: \quad WN(m_i, V_i), \qquad
          \dot m = e^{-V/2}\operatorname{Im}(H e^{-im}), \quad \dot V = 2D - 2 e^{-V/2} \operatorname{Re}(H e^{-im})\,V

.. math:: V > V_s: \quad \dot c_n = \tfrac n2 (H c_{n-1} - \bar H c_{n+1}) - n^2 D c_n, \qquad
          p = \tfrac1{2\pi} \bigl(1 + 2 \operatorname{Re} \textstyle\sum_n c_n e^{-in\theta}\bigr)

with V = int 2D, the clock of the process.  One integration serves all the times of a batch, in about 20 stages however
many steps a sampler takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kodm_lite.circular import wrap
from kodm_lite.kernels import WrappedNormal
from kodm_lite.kuramoto import GlobalCoupling
from kodm_lite.process import KuramotoProcess
from kodm_lite.randomness import Generators, uniform

__all__ = ["MeanFieldLaw", "mean_field_law", "mean_field_sample"]

_SWITCH = 0.2  # clock at which wrapped normals hand over to Fourier modes
_TAIL = 1e-6  # size of the first Fourier mode that is left out
_SHARPEST = 20.0  # concentration up to which the series is meant to be used: sharper laws take hundreds of stages
_FLOOR = 1e-5  # densities below (relative to uniform) are rounding errors of the series
_TABLE = 128  # points of a distribution function from which its inverse is refined


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

    @property
    def first_moment(self) -> Tensor:
        """E exp(i theta) of every phase, complex (B, ...)."""
        normal = torch.polar(torch.exp(-0.5 * self.variance), self.mean)
        return torch.where(self.narrow, normal, self.modes[0])

    def score(self, theta: Tensor) -> Tensor:
        """Derivative of every phase's log-density at the phases ``theta`` (B, ...)."""
        normal = WrappedNormal(self.mean, self.variance.sqrt(), validate_args=False).score(theta)
        turn = torch.polar(torch.ones_like(theta), -theta)
        series = slope = torch.zeros_like(turn)
        for n in range(len(self.modes), 0, -1):  # Horner
            series, slope = (series + self.modes[n - 1]) * turn, (slope + n * self.modes[n - 1]) * turn
        density = (1 + 2 * series.real).clamp(min=_FLOOR)
        return torch.where(self.narrow, normal, 2 * slope.imag / density)

    def sample(self, generator: Generators = None) -> Tensor:
        """Independent draws of all phases (B, ...) in [-pi, pi), by their inverse distribution functions.

        The law of each phase is right; that phases fluctuate together is left out.
        """
        u = uniform(self.mean, generator).clamp(1e-7, 1 - 1e-7)
        normal = self.mean + self.variance.sqrt() * torch.special.ndtri(u)
        return wrap(torch.where(self.narrow, normal, self._quantile(u)))

    def _quantile(self, u: Tensor) -> Tensor:
        """Where the distribution function of the series is u: from a table, refined by Newton's method."""
        n = torch.arange(1, len(self.modes) + 1, device=u.device).reshape(-1, *[1] * u.ndim)
        sign = 1 - 2 * (n % 2)  # the table begins at -pi
        waves = (sign * self.modes.conj() / (1j * n)).movedim(0, -1)
        spectrum = torch.cat([torch.zeros_like(waves[..., :1]), waves], -1)
        table = torch.fft.irfft(spectrum, n=_TABLE, norm="forward")
        table = torch.arange(_TABLE, device=u.device, dtype=u.dtype) / _TABLE + (table - table[..., :1]) / (2 * math.pi)
        cell = torch.searchsorted(table.contiguous(), u[..., None]).clamp(1, _TABLE) - 1
        below = table.gather(-1, cell)[..., 0]
        above = torch.cat([table, torch.ones_like(table[..., :1])], -1).gather(-1, cell + 1)[..., 0]
        left, width = cell[..., 0] * (2 * math.pi / _TABLE) - math.pi, 2 * math.pi / _TABLE
        theta = left + width * ((u - below) / (above - below).clamp(min=1e-12)).clamp(0, 1)
        start = 2 * (sign * self.modes / (-1j * n)).real.sum(0)  # of the integrated waves, at -pi
        for _ in range(2):
            turn = torch.polar(torch.ones_like(theta), -theta)
            density = integral = torch.zeros_like(turn)
            for k in range(len(self.modes), 0, -1):  # Horner
                mode = self.modes[k - 1]
                density, integral = (density + mode) * turn, (integral + mode / (-1j * k)) * turn
            reached = (theta + math.pi + 2 * integral.real - start) / (2 * math.pi)
            slope = (1 + 2 * density.real).clamp(min=_FLOOR) / (2 * math.pi)
            theta = torch.minimum(torch.maximum(theta - (reached - u) / slope, left), left + width)
        return theta


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
    shared = isinstance(process.coupling, GlobalCoupling) and not isinstance(process.reference_phase, Tensor)
    columns = _propagator_columns(start) if shared else _pixel_columns(process, start)
    modes, clock, arrived = columns.start, _SWITCH, []
    t0 = switch
    while len(modes[0]):
        modes = modes[: _needed_modes(clock, kappa)]
        clock += min(0.25 * clock, 0.4, 4 / max(kappa, 1.0) ** 2)
        t1 = _time_of(process, clock)
        modes = _stage(process, columns, modes, t0, times[: len(modes[0])].clamp(max=t1))
        left = sum(end > t1 for end in ends[: len(modes[0])])
        arrived.append(modes[:, left:])
        modes, t0 = modes[:, :left], t1
    full = torch.zeros(most, *theta0.shape, dtype=start.dtype, device=theta0.device)
    done = late
    for part in arrived:
        done -= part.shape[1]
        images = slice(done, done + part.shape[1])
        full[: len(part), images] = _propagate(part, start[:, images]) if shared else part
    narrow = (times <= switch).reshape(-1, *[1] * (theta0.ndim - 1))
    first = torch.where(narrow, torch.polar(torch.exp(-0.5 * variance), mean), full[0])
    average = process.coupling.average(first)
    field = _field(process, average, process.coupling_strength.at(times), process.reference_strength.at(times))
    field = field.expand_as(first)
    return MeanFieldLaw(mean[back], variance[back], full[:, back], narrow[back], field[back])


def mean_field_sample(process: KuramotoProcess, theta0: Tensor, t: Tensor, generator: Generators = None) -> Tensor:
    """theta(t) given theta0 without a simulated chain: independent draws from the law of every phase.

    Each phase has the right law.  Their common fluctuations are missing, a quarter of the variance of the order
    parameter where the process ends; training therefore simulates the chain.

    Args:
        process: the forward process.
        theta0: phases (B, C, H, W) or (B, N), radians.
        t: one time per image (B,), on the CPU.
        generator: None, one, or one per image.

    Returns:
        Phases in [-pi, pi), same shape.  Raises as :func:`mean_field_law`.
    """
    return mean_field_law(process, theta0, t).sample(generator)


def _wrapped_normals(process: KuramotoProcess, theta0: Tensor, t: Tensor, steps: int = 3) -> tuple[Tensor, Tensor]:
    """Means and variances of the first closure at times t (B,), by Heun's method."""
    mean, variance = theta0, torch.zeros_like(theta0)
    for k in range(steps):
        step = process.coefficients(t * k / steps, t * (k + 1) / steps)
        growth = _broadcast(step.variance, theta0)

        def rates(m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            shrink = torch.exp(-0.5 * v)
            average = process.coupling.average(torch.polar(shrink, m))
            pull = _field(process, average, step.coupling, step.reference)  # noqa: B023
            along = pull * torch.polar(shrink, -m)
            return along.imag, growth - 2 * along.real * v  # noqa: B023

        dm, dv = rates(mean, variance)
        dm2, dv2 = rates(mean + dm, variance + dv)
        mean, variance = mean + 0.5 * (dm + dm2), variance + 0.5 * (dv + dv2)
    return mean, variance


class _Columns(NamedTuple):
    """Columns of Fourier modes that obey the mode equation, each in the field of the phases that drive it.

    Args:
        start: modes (n, B, ...) at the switch.
        average: from the first modes (B, ...) of the columns to the expected exp(i theta) of the neighbours.
        zeroth: c_0 of each column: 1 for a density, 0 for a difference of densities.
    """

    start: Tensor
    average: Callable[[Tensor], Tensor]
    zeroth: Tensor


def _pixel_columns(process: KuramotoProcess, start: Tensor) -> _Columns:
    """Every pixel for itself."""
    return _Columns(start, process.coupling.average, torch.ones((), dtype=start.dtype, device=start.device))


def _propagator_columns(start: Tensor) -> _Columns:
    """One field for all pixels, in which the equation is linear: the average density, and one column per mode.

    The average of all pixels makes the field, and obeys the equation too; what becomes of any pixel's distance from the
    average is known from what becomes of each single mode.
    """
    n, batch = start.shape[:2]
    single = torch.eye(n, dtype=start.dtype, device=start.device)[:, None].expand(n, batch, n)
    average = start.flatten(2).mean(2, keepdim=True)
    zeroth = torch.zeros(n + 1, dtype=start.dtype, device=start.device)
    zeroth[0] = 1
    return _Columns(torch.cat([average, single], 2), lambda first: first[:, :1], zeroth)


def _propagate(columns: Tensor, start: Tensor) -> Tensor:
    """The modes of all pixels (n, B, ...) from their start and the columns (m, B, 1 + n) at the same time."""
    pixels = start.flatten(2).transpose(0, 1)
    distance = pixels - pixels.mean(2, keepdim=True)
    average, single = columns.transpose(0, 1).split([1, columns.shape[2] - 1], 2)
    return (average + single @ distance).transpose(0, 1).reshape(len(columns), *start.shape[1:])


def _stage(process: KuramotoProcess, columns: _Columns, modes: Tensor, t0: float, t1: Tensor) -> Tensor:
    """Modes from time t0 to times t1 (B,), by the exponential Runge-Kutta method of order 2 (Cox and Matthews).

    Decay by diffusion is exact; so are stationary states, whatever the length of the stage.
    """
    step = process.coefficients(torch.full_like(t1, t0), t1)
    n = torch.arange(1, len(modes) + 1, device=modes.device, dtype=t1.dtype).reshape(-1, *[1] * (modes.ndim - 1))
    decay = 0.5 * n**2 * _broadcast(step.variance, modes[0]) + 1e-12
    kept, weight = torch.exp(-decay), -torch.expm1(-decay) / decay
    weight2 = (1 - weight) / decay

    def torque(c: Tensor) -> Tensor:
        pull = _field(process, columns.average(c[0]), step.coupling, step.reference)
        below = torch.cat([columns.zeroth.expand_as(c[0])[None], c[:-1]])
        above = torch.cat([c[1:], torch.zeros_like(c[:1])])
        return 0.5 * n * (pull * below - pull.conj() * above)

    first = torque(modes)
    guess = kept * modes + weight * first
    return guess + weight2 * (torque(guess) - first)


def _field(process: KuramotoProcess, average: Tensor, coupling: Tensor | float, reference: Tensor | float) -> Tensor:
    """H from the neighbours' expected exp(i theta), with strengths per image (rates, or integrals over a step)."""
    phase = torch.as_tensor(process.reference_phase, dtype=average.real.dtype, device=average.device)
    pull = torch.polar(torch.ones_like(phase), phase)
    return _broadcast(coupling, average) * average + _broadcast(reference, average) * pull


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
