r"""The law of every phase given the data, by propagation of chaos: a conditional score without simulating its target.

Given the image at time 0, its pixels are almost independent at time t, each driven by the deterministic field H that
the *expected* phases of its neighbours make.  The law of a pixel is followed in two ways: while it is narrow, by
its first four cumulants (:mod:`kodm_lite.cumulants`), and later by its Fourier modes,

.. math:: \dot c_n = \tfrac n2 (H c_{n-1} - \bar H c_{n+1}) - n^2 D c_n, \qquad
          p = \tfrac1{2\pi} \bigl(1 + 2 \operatorname{Re} \textstyle\sum_n c_n e^{-in\theta}\bigr) .

The switch is at a value of the clock int 2D.  One integration serves all the times of a batch, in 10 to 60
stages however many steps a sampler takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor

from kodm_lite.circular import check_precision, wrap
from kodm_lite.cumulants import Cumulants, field_of, narrow_laws
from kodm_lite.kuramoto import GlobalCoupling
from kodm_lite.process import KuramotoProcess
from kodm_lite.randomness import Generators, uniform
from kodm_lite.schedules import per_image

__all__ = ["MeanFieldLaw", "mean_field_law", "mean_field_sample"]

_SWITCH = 0.15  # clock at which cumulants hand over to Fourier modes; earlier in strong fields, 0.3 / concentration
_TAIL = 3e-6  # size of the first Fourier mode that is left out, at the finest tolerance
FINEST, COARSEST = 1e-3, 1e-2  # tolerances
_SHARPEST = 20.0  # concentration up to which the series is meant to be used: sharper laws take hundreds of stages
# Densities below (relative to uniform) are errors of the series: of rounding, and in strong fields of truncation.
_FLOOR, _STRONG, _STRONG_FLOOR = 1e-6, 2.0, 3e-5
_HALVINGS = 25  # of the circle, to the precision of a float32 angle


@dataclass(frozen=True)
class MeanFieldLaw:
    """Independent laws of the phases of a batch at its times, and the field that drives each of them then.

    Args:
        cumulants: of the laws of all phases (B, ...), for images before the switch.
        modes: Fourier modes E exp(i n theta), n = 1, 2, ..., complex ``(n, B, ...)``; zero for images before the
            switch.
        narrow: which images (B, 1, ...) are before the switch.
        field: H, the field of the expected phases of the neighbours, complex (B, ...).
        floor: densities of the series below this (relative to uniform) are taken to be this.
    """

    cumulants: Cumulants
    modes: Tensor
    narrow: Tensor
    field: Tensor
    floor: float = _FLOOR

    @property
    def first_moment(self) -> Tensor:
        """E exp(i theta) of every phase, complex (B, ...)."""
        return torch.where(self.narrow, self.cumulants.mode(1), self.modes[0])

    def score(self, theta: Tensor) -> Tensor:
        """Derivative of every phase's log-density at the phases ``theta`` (B, ...)."""
        density = (1 + 2 * _series(self.modes, theta).real).clamp(min=self.floor)
        slope = 2 * _series(self.modes * self._orders, theta).imag
        return torch.where(self.narrow, self.cumulants.score(theta), slope / density)

    def sample(self, generator: Generators = None) -> Tensor:
        """Independent draws of all phases (B, ...) in [-pi, pi), by their inverse distribution functions.

        The law of each phase is right; that phases fluctuate together is left out.
        """
        u = uniform(self.cumulants.mean, generator).clamp(1e-7, 1 - 1e-7)
        return wrap(torch.where(self.narrow, self.cumulants.quantile(u), self._quantile(u)))

    def _quantile(self, u: Tensor) -> Tensor:
        """Where the distribution function of the series is u, by bisection."""
        integrals = self.modes / (-1j * self._orders)
        low, high = torch.full_like(u, -math.pi), torch.full_like(u, math.pi)
        start = _series(integrals, low).real
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            reached = (middle + math.pi + 2 * (_series(integrals, middle).real - start)) / (2 * math.pi)
            low, high = torch.where(reached < u, middle, low), torch.where(reached < u, high, middle)
        return 0.5 * (low + high)

    @property
    def _orders(self) -> Tensor:
        n = torch.arange(1, len(self.modes) + 1, dtype=self.field.real.dtype, device=self.modes.device)
        return n.reshape(-1, *[1] * (self.modes.ndim - 1))


def _series(coefficients: Tensor, theta: Tensor) -> Tensor:
    """The sum of coefficients[n - 1] exp(-i n theta), n = 1, 2, ..., by Horner's rule."""
    turn = torch.complex(theta.cos(), -theta.sin())
    series = torch.zeros_like(turn)
    for coefficient in coefficients.flip(0):
        series = (series + coefficient) * turn
    return series


def mean_field_law(process: KuramotoProcess, theta0: Tensor, t: Tensor, tolerance: float = FINEST) -> MeanFieldLaw:
    """The law of theta(t) given theta0, image by image.

    Args:
        process: the forward process.
        theta0: phases (B, C, H, W) or (B, N), radians; not checked, as training comes by here in every step.
        t: one time per image (B,), on the CPU, where the integration is planned.
        tolerance: relative error of the score, root mean square over an image, 0.001 to 0.01, which takes half the
            time.  It is measured for the published (K + K_ref)/D = 1.5; in stronger fields the finest leaves 0.004.

    Raises:
        ValueError: times outside [0, 1], or not one per image, fields of a concentration (K + K_ref)/D above 20, a
            tolerance outside its range.
    """
    _check_arguments(theta0, t, tolerance)
    kappa = _largest_concentration(process)
    stretch = (tolerance / FINEST) ** 0.3 if kappa <= _STRONG else 1.0  # measured: errors grow like stages^3.3
    clock = min(stretch * _SWITCH, 0.3 / max(kappa, 1.0))
    switch = process.time_of(clock)
    stages = _stages(process, clock, kappa, stretch, _TAIL * tolerance / FINEST)

    order = torch.argsort(t, descending=True, stable=True)  # the latest first: who arrives is at the end, and leaves
    ends, times = t[order].tolist(), t[order].to(theta0)
    order = order.to(theta0.device)
    cumulants = narrow_laws(process, theta0[order], times.clamp(max=switch))
    modes = _wide_laws(process, cumulants, stages, times, ends)

    narrow = (times <= switch).reshape(-1, *[1] * (theta0.ndim - 1))
    first = torch.where(narrow, cumulants.mode(1), modes[0])
    strengths = process.coupling_strength.at(times), process.reference_strength.at(times)
    field = field_of(process, process.coupling.average(first), *strengths).expand_as(first)
    back = torch.argsort(order)
    floor = _FLOOR if kappa <= _STRONG else _STRONG_FLOOR
    return MeanFieldLaw(Cumulants(*(x[back] for x in cumulants)), modes[:, back], narrow[back], field[back], floor)


def mean_field_sample(process: KuramotoProcess, theta0: Tensor, t: Tensor, generator: Generators = None) -> Tensor:
    """theta(t) given theta0 without a simulated chain: independent draws from the law of every phase.

    Each phase has the right law.  Their common fluctuations are missing, a quarter of the variance of the order
    parameter across its mean direction where the process ends; training therefore simulates the chain.

    Args:
        process: the forward process.
        theta0: phases (B, C, H, W) or (B, N), radians.
        t: one time per image (B,), on the CPU.
        generator: None, one, or one per image.

    Returns:
        Phases in [-pi, pi), same shape.

    Raises:
        ValueError: phases that are none, and what :func:`mean_field_law` refuses.
    """
    process.validate(theta0, "theta0")
    return mean_field_law(process, theta0, t).sample(generator)


def _check_arguments(theta0: Tensor, t: Tensor, tolerance: float) -> None:
    if not (isinstance(tolerance, Real) and FINEST <= tolerance <= COARSEST):
        raise ValueError(f"tolerance: got {tolerance!r}, expected {FINEST} to {COARSEST}; try the default")
    check_precision(theta0, "theta0")
    if not isinstance(t, Tensor) or t.shape != theta0.shape[:1] or not bool(((t >= 0) & (t <= 1)).all()):
        got = f"{t.flatten()[:3].tolist()}..." if isinstance(t, Tensor) else type(t).__name__
        count = len(theta0) if theta0.ndim else 0
        raise ValueError(
            f"t: got {got}, expected one time in [0, 1] for each of {count} images; try torch.full(({count},), 0.5)"
        )


class _Stage(NamedTuple):
    """A stretch of time, and how many Fourier modes it takes."""

    start: float
    end: float
    modes: int


def _stages(process: KuramotoProcess, clock: float, kappa: float, stretch: float, tail: float) -> list[_Stage]:
    """From the switch, when the clock shows ``clock``, to the end: longer and longer, with fewer and fewer modes."""
    stages = [_Stage(process.time_of(clock), process.time_of(clock), _needed_modes(clock, kappa, tail))]
    while stages[-1].end < 1:
        modes = _needed_modes(clock, kappa, tail)
        clock += stretch * min(0.4 * clock, max(0.6, clock / 30), 4 / max(kappa, 1.0) ** 2)
        stages.append(_Stage(stages[-1].end, process.time_of(clock), modes))
    return stages


def _wide_laws(
    process: KuramotoProcess, narrow: Cumulants, stages: list[_Stage], times: Tensor, ends: list[float]
) -> Tensor:
    """Fourier modes (n, B, ...) at the times (B,), the latest first; zero for images that end before the switch.

    Args:
        narrow: laws of all phases at the switch, or before it where an image ends before.
        stages: the first one, of no length, is the switch.
        times, ends: when images end, where they are computed and as numbers.
    """
    (_, switch, most), *stages = stages
    laws = torch.zeros(most, *narrow.mean.shape, dtype=narrow.mean.dtype.to_complex(), device=narrow.mean.device)
    orders = torch.arange(1, most + 1, dtype=times.dtype, device=times.device).reshape(-1, *[1] * narrow.mean.ndim)
    running = _later(ends, switch)
    start = Cumulants(*(x[:running] for x in narrow)).mode(orders)
    shared = isinstance(process.coupling, GlobalCoupling) and not isinstance(process.reference_phase, Tensor)
    columns = _propagator_columns(start) if shared else _pixel_columns(process, start)
    modes = columns.start
    for stage in stages:
        if not running:
            break
        going = _later(ends[:running], stage.end)
        modes = _advance(process, columns, modes[: stage.modes], stage.start, times[:running].clamp(max=stage.end))
        laws[: len(modes), going:running] = columns.pixels(modes[:, going:], start[:, going:running])
        modes, running = modes[:, :going], going
    return laws


def _later(ends: list[float], t: float) -> int:
    """How many of the images, the latest first, end later."""
    return sum(end > t for end in ends)


class _Columns(NamedTuple):
    """Columns of Fourier modes that obey the mode equation, each in the field of the phases that drive it.

    Args:
        start: modes (n, B, ...) at the switch.
        average: from the first modes (B, ...) of the columns to the expected exp(i theta) of the neighbours.
        zeroth: c_0 of each column: 1 for a density, 0 for a difference of densities.
        pixels: from columns at any time, and the modes of the pixels at the switch, to the modes of the pixels then.
    """

    start: Tensor
    average: Callable[[Tensor], Tensor]
    zeroth: Tensor
    pixels: Callable[[Tensor, Tensor], Tensor]


def _pixel_columns(process: KuramotoProcess, start: Tensor) -> _Columns:
    """Every pixel for itself."""
    one = torch.ones((), dtype=start.dtype, device=start.device)
    return _Columns(start, process.coupling.average, one, lambda columns, _: columns)


def _propagator_columns(start: Tensor) -> _Columns:
    """One field for all pixels, in which the equation is linear: the average density, and one column per mode.

    The average of all pixels makes the field, and obeys the equation too; what becomes of any pixel's distance from the
    average is known from what becomes of each single mode.
    """
    n, batch = start.shape[:2]
    single = torch.eye(n, dtype=start.dtype, device=start.device)[:, None].expand(n, batch, n)
    average = start.flatten(2).mean(2, keepdim=True)
    zeroth = torch.zeros(n + 1, dtype=start.dtype, device=start.device)
    zeroth[:1] = 1
    return _Columns(torch.cat([average, single], 2), lambda first: first[:, :1], zeroth, _propagate)


def _propagate(columns: Tensor, start: Tensor) -> Tensor:
    """The modes of all pixels (n, B, ...) from their start and the columns (m, B, 1 + n) at the same time."""
    pixels = start.flatten(2).transpose(0, 1)
    distance = pixels - pixels.mean(2, keepdim=True)
    average, single = columns.transpose(0, 1).split([1, columns.shape[2] - 1], 2)
    return (average + single @ distance).transpose(0, 1).reshape(len(columns), *start.shape[1:])


def _advance(process: KuramotoProcess, columns: _Columns, modes: Tensor, t0: float, t1: Tensor) -> Tensor:
    """Modes from time t0 to times t1 (B,), by the exponential Runge-Kutta method of order 4 (Cox and Matthews).

    (Of order 2 where K/D or K_ref/D change, as they are frozen at their means over the stage.)  Decay by diffusion is
    exact; so are stationary states, whatever the length of the stage.
    """
    step = process.coefficients(torch.full_like(t1, t0), t1)
    n = torch.arange(1, len(modes) + 1, device=modes.device, dtype=t1.dtype).reshape(-1, *[1] * modes.ndim)
    decay = 0.5 * n**2 * per_image(torch.as_tensor(step.variance), modes[0])[..., None]
    half, (phi1, phi2, phi3) = torch.exp(-0.5 * decay), _phi(decay)
    weight_half, first_weight, middle_weight, last_weight = (
        n * w for w in (0.5 * _phi(0.5 * decay)[0], phi1 - 3 * phi2 + 4 * phi3, 2 * (phi2 - 2 * phi3), 4 * phi3 - phi2)
    )

    # Real factors multiply pairs of real numbers, which takes half the time; the factor n of a rate is in the weights.
    def torque(pairs: Tensor) -> Tensor:
        c = torch.view_as_complex(pairs)
        pull = 0.5 * field_of(process, columns.average(c[0]), step.coupling, step.reference)
        rate = torch.empty_like(c)  # written in place: fresh memory costs more than arithmetic
        rate[0] = pull * columns.zeroth
        torch.mul(pull, c[:-1], out=rate[1:])
        rate[:-1].addcmul_(pull.conj().resolve_conj(), c[1:], value=-1)
        return torch.view_as_real(rate)

    pairs = torch.view_as_real(modes)
    first = torque(pairs)
    start = half * pairs
    guess = torch.addcmul(start, weight_half, first)
    second = torque(guess)
    third = torque(torch.addcmul(start, weight_half, second))
    last = torque(guess.mul_(half).addcmul_(weight_half, third, value=2).addcmul_(weight_half, first, value=-1))
    result = start.mul_(half).addcmul_(first_weight, first).addcmul_(last_weight, last)
    return torch.view_as_complex(result.addcmul_(middle_weight, second.add_(third)))


def _phi(decay: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """phi_k = (phi_{k-1} - 1/(k-1)!) / z at z = -decay, phi_0 = e^z: by this rule, or by a series where it cancels."""
    z, series = -decay, torch.zeros_like(decay)
    for k in range(18, 2, -1):
        series = (series * z) + 1 / math.factorial(k)
    safe = torch.where(decay < 1, torch.ones_like(z), z)
    phi1 = torch.expm1(safe) / safe
    phi2 = (phi1 - 1) / safe
    near = decay < 1
    phi3 = torch.where(near, series, (phi2 - 0.5) / safe)
    phi2 = torch.where(near, 0.5 + z * phi3, phi2)
    return torch.where(near, 1 + z * phi2, phi1), phi2, phi3


def _needed_modes(clock: float, kappa: float, tail: float) -> int:
    """Modes of a law that narrowed by noise and field: 1/variance is at most 1/clock plus the concentration kappa."""
    return math.ceil(math.sqrt(-2 * math.log(tail) * (1 / clock + kappa))) + 1


def _largest_concentration(process: KuramotoProcess) -> float:
    """The largest (K + K_ref)/D, which no frozen law is sharper than, from where noise is felt (clock 0.05) to t = 1.

    The ratio of two linear functions is monotonic, hence largest at an end.
    """
    ends = []
    for t in (process.time_of(0.05), 1.0):
        strength = process.coupling_strength.at(t) + process.reference_strength.at(t)
        diffusion = process.diffusion.at(t)
        if strength > 0:
            ends.append(strength / diffusion if diffusion > 0 else math.inf)
    largest = max(ends, default=0.0)
    if largest > _SHARPEST:
        raise ValueError(
            f"process: got (K + K_ref)/D = {largest:.3g}, expected at most {_SHARPEST:g} for mean-field laws; "
            "try transition score matching"
        )
    return largest
