r"""The law of every phase given the data, by propagation of chaos: a conditional score without simulating its target.

Given the image at time 0, its pixels are almost independent at time t, each driven by the deterministic field H that
the *expected* phases of its neighbours make.  The law of a pixel is followed in two ways.  While it is narrow, by its
mean m, variance V and third and fourth cumulants, whose equations are those of the moments of x = theta - m,

.. math:: \frac{d}{dt} \mathbb E\,x^k = k\,\mathbb E\bigl[x^{k-1} (\operatorname{Im}(H e^{-i\theta}) - \dot m)\bigr]
          + k (k-1) D\,\mathbb E\,x^{k-2} ,

and later by its Fourier modes,

.. math:: \dot c_n = \tfrac n2 (H c_{n-1} - \bar H c_{n+1}) - n^2 D c_n, \qquad
          p = \tfrac1{2\pi} \bigl(1 + 2 \operatorname{Re} \textstyle\sum_n c_n e^{-in\theta}\bigr) .

The switch is at a value of the clock int 2D.  One integration serves all the times of a batch, in 10 to 60
stages however many steps a sampler takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kodm_lite.circular import angle_difference, wrap
from kodm_lite.kuramoto import GlobalCoupling
from kodm_lite.process import Coefficients, KuramotoProcess, per_image
from kodm_lite.randomness import Generators, uniform

__all__ = ["MeanFieldLaw", "mean_field_law", "mean_field_sample"]

_SWITCH = 0.15  # clock at which cumulants hand over to Fourier modes; earlier in strong fields, 0.3 / concentration
_TAIL = 3e-6  # size of the first Fourier mode that is left out, at the finest tolerance
FINEST, COARSEST = 1e-3, 1e-2  # tolerances
_SHARPEST = 20.0  # concentration up to which the series is meant to be used: sharper laws take hundreds of stages
# Densities below (relative to uniform) are errors of the series: of rounding, and in strong fields of truncation.
_FLOOR, _STRONG, _STRONG_FLOOR = 1e-6, 2.0, 3e-5
_HALVINGS = 25  # of the circle, to the precision of a float32 angle


class Cumulants(NamedTuple):
    """A narrow law on the circle by its first four cumulants, all of the shape of the phases.

    Args:
        mean: radians.
        variance: of the angle on the line around the mean.
        third, fourth: further cumulants; both zero for a wrapped normal law.
    """

    mean: Tensor
    variance: Tensor
    third: Tensor
    fourth: Tensor

    def mode(self, n: Tensor | int) -> Tensor:
        """E exp(i n theta), for orders n that broadcast."""
        decay = -0.5 * n**2 * self.variance + n**4 * self.fourth / 24
        size, angle = decay.exp(), n * self.mean - n**3 * self.third / 6
        return torch.complex(size * angle.cos(), size * angle.sin())  # a third of the time of torch.polar

    def score(self, theta: Tensor) -> Tensor:
        """Derivative of the log-density, by the Edgeworth series of its logarithm."""
        scale, skewness, excess = self._standardised()
        y = angle_difference(theta, self.mean) / scale
        bend = 0.5 * skewness * (y.square() - 1) + (excess / 6 - 0.5 * skewness.square()) * (y**3 - 3 * y)
        return (bend - (1 + 0.5 * skewness.square()) * y) / scale

    def quantile(self, u: Tensor) -> Tensor:
        """Where the distribution function is u, by the expansion of Cornish and Fisher."""
        scale, skewness, excess = self._standardised()
        w = torch.special.ndtri(u)
        bend = skewness / 6 * (w.square() - 1) + excess / 24 * (w**3 - 3 * w)
        return self.mean + scale * (w + bend - skewness.square() / 36 * (2 * w**3 - 5 * w))

    def _standardised(self) -> tuple[Tensor, Tensor, Tensor]:
        variance = self.variance.clamp(min=1e-12)
        return variance.sqrt(), self.third / variance**1.5, self.fourth / variance.square()


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
        n = torch.arange(1, len(self.modes) + 1, device=self.modes.device)
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
    if not FINEST <= tolerance <= COARSEST:
        raise ValueError(f"tolerance: got {tolerance}, expected {FINEST} to {COARSEST}; try the default")
    if t.shape != theta0.shape[:1] or not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(f"t: got {t.flatten()[:3].tolist()}..., expected one time in [0, 1] for each of {len(theta0)}")
    order = torch.argsort(t, descending=True, stable=True)
    ends = t[order].tolist()
    back = torch.argsort(order).to(theta0.device)
    times = t[order].to(theta0)
    kappa = _largest_concentration(process)
    stretch = (tolerance / FINEST) ** 0.3 if kappa <= _STRONG else 1.0  # measured: errors grow like stages^3.3
    clock = min(stretch * _SWITCH, 0.3 / max(kappa, 1.0))
    switch = process.time_of(clock)
    cumulants = _narrow_laws(process, theta0[order.to(theta0.device)], times.clamp(max=switch))
    late = sum(end > switch for end in ends)
    tail = _TAIL * tolerance / FINEST
    most = _needed_modes(clock, kappa, tail)
    orders = torch.arange(1, most + 1, device=theta0.device).reshape(-1, *[1] * theta0.ndim)
    start = Cumulants(*(x[:late] for x in cumulants)).mode(orders)
    shared = isinstance(process.coupling, GlobalCoupling) and not isinstance(process.reference_phase, Tensor)
    columns = _propagator_columns(start) if shared else _pixel_columns(process, start)
    modes, arrived = columns.start, []
    t0 = switch
    while len(modes[0]):
        modes = modes[: _needed_modes(clock, kappa, tail)]
        clock += stretch * min(0.4 * clock, 0.6, 4 / max(kappa, 1.0) ** 2)
        t1 = process.time_of(clock)
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
    first = torch.where(narrow, cumulants.mode(1), full[0])
    average = process.coupling.average(first)
    field = _field(process, average, process.coupling_strength.at(times), process.reference_strength.at(times))
    field = field.expand_as(first)
    floor = _FLOOR if kappa <= _STRONG else _STRONG_FLOOR
    return MeanFieldLaw(Cumulants(*(x[back] for x in cumulants)), full[:, back], narrow[back], field[back], floor)


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


def _narrow_laws(process: KuramotoProcess, theta0: Tensor, t: Tensor) -> Cumulants:
    """Cumulants at times t (B,), from points at time 0, by a Runge-Kutta method.

    It is of order 4 where K/D and K_ref/D are constant, and of order 2, with more steps, where they are not: K, K_ref
    and D are their means over a step.
    """
    steps = 1 if _has_constant_ratios(process) else 8
    zero = torch.zeros_like(theta0)
    law = Cumulants(theta0, zero, zero, zero)

    def ahead(law: Cumulants, *rates: tuple[float, Cumulants]) -> Cumulants:
        return Cumulants(*(x + sum(w * r[k] for w, r in rates) for k, x in enumerate(law)))

    for k in range(steps):
        step = process.coefficients(t * k / steps, t * (k + 1) / steps)
        first = _cumulant_rates(process, law, step)
        second = _cumulant_rates(process, ahead(law, (0.5, first)), step)
        third = _cumulant_rates(process, ahead(law, (0.5, second)), step)
        fourth = _cumulant_rates(process, ahead(law, (1.0, third)), step)
        law = ahead(law, (1 / 6, first), (1 / 3, second), (1 / 3, third), (1 / 6, fourth))
    return law


def _cumulant_rates(process: KuramotoProcess, law: Cumulants, step: Coefficients) -> Cumulants:
    """Rates of change of the cumulants times the length of the step, with the means of K, K_ref and D over it.

    The moments of x with the drift are derivatives of the characteristic function exp(g(w)) = E exp(-iwx) at w = 1:
    E[x exp(-ix)] = i g' exp(g), E[x^2 exp(-ix)] = -(g'' + g'^2) exp(g) and so on.
    """
    _, v, k3, k4 = law
    growth = per_image(step.variance, v)
    average = process.coupling.average(law.mode(1))
    pull = _field(process, average, step.coupling, step.reference) * law.mode(1).conj()  # H E exp(-i theta)
    g1, g2, g3 = torch.complex(k4 / 6 - v, k3 / 2), torch.complex(k4 / 2 - v, k3), torch.complex(k4, k3)
    dm = pull.imag
    dv = growth + 2 * (pull * g1).real
    dk3 = -3 * (pull * (g2 + g1 * g1)).imag - 3 * v * dm
    dk4 = -4 * (pull * (g3 + 3 * g1 * g2 + g1 * g1 * g1)).real - 4 * k3 * dm + 6 * v * (growth - dv)
    return Cumulants(dm, dv, dk3, dk4)


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
        pull = 0.5 * _field(process, columns.average(c[0]), step.coupling, step.reference)
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


def _field(process: KuramotoProcess, average: Tensor, coupling: Tensor | float, reference: Tensor | float) -> Tensor:
    """H from the neighbours' expected exp(i theta), with strengths per image (rates, or integrals over a step)."""
    phase = torch.as_tensor(process.reference_phase, dtype=average.real.dtype, device=average.device)
    pull = torch.polar(torch.ones_like(phase), phase)
    return per_image(coupling, average) * average + per_image(reference, average) * pull


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


def _has_constant_ratios(process: KuramotoProcess) -> bool:
    noise = process.diffusion
    strengths = (process.coupling_strength, process.reference_strength)
    return all(math.isclose(s.start * noise.end, s.end * noise.start, rel_tol=1e-9) for s in strengths)
