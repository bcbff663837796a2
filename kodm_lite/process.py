r"""The forward process: a stochastic Kuramoto model that synchronises data into (almost) a von Mises law.

.. math:: d\theta_i = \operatorname{Im}\bigl(H_i e^{-i\theta_i}\bigr)\,dt + \sqrt{2D}\,dW_i,
          \qquad H_i = K z_i + K_{ref}\,e^{i\psi_{ref}}

A step goes from a time t0 to a time t1 and uses the integrals of K, K_ref and 2D between them: there is no step index
that training and sampling could read differently.  Chapter 3 of the book derives everything here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from numbers import Real
from typing import Any, ClassVar, Literal, NamedTuple, overload

import torch
from scipy.special import i0e, i1e
from torch import Tensor

from kodm_lite.circular import order_parameter, validate_phases, wrap
from kodm_lite.fokker_planck import evolve_modes
from kodm_lite.kernels import VonMises
from kodm_lite.kuramoto import Coupling, GlobalCoupling, drift_in_field
from kodm_lite.randomness import Generators, normal
from kodm_lite.registry import couplings
from kodm_lite.schedules import LinearSchedule

__all__ = ["Coefficients", "KuramotoProcess", "flat_image_memory"]

Advance = Callable[[Tensor, Tensor, Tensor | float, Tensor | float], Tensor]

STEPS = 100  # the published number of steps over the unit of time


class Coefficients(NamedTuple):
    """Integrals over one step: of the coupling K, of the reference coupling K_ref, and of the noise variance 2D."""

    coupling: Tensor | float
    reference: Tensor | float
    variance: Tensor | float


@dataclass(frozen=True, eq=False)
class KuramotoProcess:
    """The stochastic Kuramoto process on images (B, C, H, W) or plain oscillators (B, N), time from 0 (data) to 1.

    Without arguments: global coupling and the published schedule (100 steps with coupling 3e-5 to 0.03 and noise
    variance 1e-4 to 0.1 a step).  For training take :meth:`for_shape`, which is strong enough to forget.

    Args:
        coupling: :class:`GlobalCoupling` or :class:`LocalCoupling`.
        coupling_strength: K(t).
        reference_strength: K_ref(t).
        diffusion: D(t), radians^2 per unit time; the noise variance of a step is the integral of 2 D.
        reference_phase: psi_ref in radians; a number, or a tensor that broadcasts to one image (C, H, W) or (N,).

    Raises:
        ValueError: a coupling or schedule of another type, a reference phase that is not finite, no diffusion at all.

    Source: arXiv 2509.15328.  Book: chapter 3.
    """

    coupling: Coupling = field(default_factory=GlobalCoupling)
    coupling_strength: LinearSchedule = field(default=LinearSchedule(0.003, 3.0))
    reference_strength: LinearSchedule = field(default=LinearSchedule(0.0045, 4.5))
    diffusion: LinearSchedule = field(default=LinearSchedule(0.005, 5.0))
    reference_phase: float | Tensor = 0.0
    kind: ClassVar[str] = "kuramoto"

    def __post_init__(self) -> None:
        if not isinstance(self.coupling, Coupling):
            raise ValueError(f"coupling: got {self.coupling!r}, expected GlobalCoupling() or LocalCoupling(radius)")
        for name in ("coupling_strength", "reference_strength", "diffusion"):
            if not isinstance(getattr(self, name), LinearSchedule):
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected LinearSchedule(start, end)")
        if self.diffusion.start + self.diffusion.end <= 0:
            raise ValueError(
                "diffusion: got no noise at all, expected a positive rate; a diffusion model needs diffusion"
            )
        phase = self.reference_phase
        if not isinstance(phase, (Tensor, Real)):
            raise ValueError(f"reference_phase: got {phase!r}, expected a number or a tensor of radians; 0.0 is usual")
        validate_phases(phase if isinstance(phase, Tensor) else torch.tensor(float(phase)), "reference_phase")
        if not isinstance(phase, Tensor) or phase.ndim == 0:
            object.__setattr__(self, "reference_phase", float(phase))

    def coefficients(self, t0: Tensor | float, t1: Tensor | float) -> Coefficients:
        """Integrated coefficients of the step from t0 to t1, numbers or one per image (B,)."""
        return Coefficients(
            self.coupling_strength.integral(t0, t1),
            self.reference_strength.integral(t0, t1),
            2 * self.diffusion.integral(t0, t1),
        )

    @overload
    def clock(self, t: float) -> float: ...
    @overload
    def clock(self, t: Tensor) -> Tensor: ...
    def clock(self, t: Tensor | float) -> Tensor | float:
        """V(t) = int 2D from 0 to t: the variance that noise alone has made, a number or one per image (B,)."""
        return 2 * self.diffusion.integral(0.0, t)

    def time_of(self, clock: float) -> float:
        """The time at which V(t) = ``clock``; 1, where the process ends, if it does not get so far.

        Raises:
            ValueError: a clock that is not positive.
        """
        if not clock > 0:
            raise ValueError(f"clock: got {clock}, expected a positive number; try 3")
        start, slope = self.diffusion.start, self.diffusion.end - self.diffusion.start
        if self.clock(1.0) <= clock:
            return 1.0
        return clock / (start + math.sqrt(start**2 + slope * clock))  # V = 2 start t + slope t^2

    def equilibrium_score(self, theta: Tensor, t: Tensor | float) -> Tensor:
        """Drift over diffusion at time t: the score of the Gibbs law that frozen rates lead to; needs D(t) > 0."""
        return self.drift(theta, t) / per_image(self.diffusion.at(t), theta)

    def drift(self, theta: Tensor, t: Tensor | float) -> Tensor:
        """Angular velocity at time t (a number, or one per image), radians per unit time, same shape as theta."""
        return self._displacement(theta, self.coupling_strength.at(t), self.reference_strength.at(t))

    def step_drift(self, theta: Tensor, t0: Tensor | float, t1: Tensor | float) -> Tensor:
        """Displacement by the drift over the step from t0 to t1, the field frozen at ``theta``: radians."""
        step = self.coefficients(t0, t1)
        return self._displacement(theta, step.coupling, step.reference)

    def _displacement(self, theta: Tensor, coupling: Tensor | float, reference: Tensor | float) -> Tensor:
        coupling, reference = per_image(coupling, theta), per_image(reference, theta)
        sin, cos = theta.sin(), theta.cos()
        pull_real: Tensor | float
        pull_imag: Tensor | float
        if isinstance(self.reference_phase, Tensor):
            phase = self.reference_phase.to(theta)
            pull_real, pull_imag = reference * phase.cos(), reference * phase.sin()
        else:
            pull_real = reference * math.cos(self.reference_phase)
            pull_imag = reference * math.sin(self.reference_phase)
        field_real = coupling * self.coupling.average(cos) + pull_real
        field_imag = coupling * self.coupling.average(sin) + pull_imag
        return drift_in_field(sin, cos, field_real, field_imag)

    def advance(self, theta: Tensor, noise: Tensor, t0: Tensor | float, t1: Tensor | float) -> Tensor:
        """One Euler-Maruyama step with given standard normal ``noise``, not wrapped: the hot path, nothing checked."""
        coupling, reference, variance = self.coefficients(t0, t1)
        return theta + self._displacement(theta, coupling, reference) + per_image(variance**0.5, theta) * noise

    def advance_heun(self, theta: Tensor, noise: Tensor, t0: Tensor | float, t1: Tensor | float) -> Tensor:
        """One step of Heun's method: the drift is averaged over both ends, which is of second order in law."""
        coupling, reference, variance = self.coefficients(t0, t1)
        drift = self._displacement(theta, coupling, reference)
        end = theta + drift + per_image(variance**0.5, theta) * noise
        return end + 0.5 * (self._displacement(end, coupling, reference) - drift)

    def forward_step(self, theta: Tensor, t0: float, t1: float, generator: Generators = None) -> Tensor:
        """A draw of theta(t1) given theta(t0): wrapped normal around theta + drift.  Phases in [-pi, pi).

        Raises:
            ValueError: phases that are none, times outside [0, 1] or decreasing.
        """
        self.validate(theta)
        _check_times(t0, t1)
        return wrap(self.advance(theta, normal(theta, generator), t0, t1))

    def simulate(
        self,
        theta0: Tensor,
        t: Tensor | float,
        steps: int = STEPS,
        generator: Generators = None,
        method: Literal["euler", "heun"] = "euler",
    ) -> Tensor:
        """theta(t) from data theta0 at time 0, by steps of 1/steps.

        Args:
            theta0: phases (B, C, H, W) or (B, N), radians; not changed.
            t: time in [0, 1], or one per image (B,).
            steps: steps per unit of time; an image at t takes ceil(t steps), the last one shorter.
            generator: None, one generator, or one per image, with which image k does not depend on the batch.
            method: "euler" (Euler-Maruyama): the published chain, each step a wrapped normal; "heun": two drifts a
                step, for the continuous process, whose order parameter 100 steps of Euler miss by .03 at the end.

        Returns:
            Phases in [-pi, pi), same shape.

        Raises:
            ValueError: phases that are none (NaN, degrees, integers), times outside [0, 1], steps < 1.
        """
        self._check_simulation(theta0, steps)
        if method not in ("euler", "heun"):
            raise ValueError(f"method: got {method!r}, expected 'euler' or 'heun'")
        advance = self.advance if method == "euler" else self.advance_heun
        last = _largest_time(t, theta0.shape[0])
        count = math.ceil((last - 1e-7) * steps)  # a rounding error of a float32 time is not worth a step
        if not isinstance(t, Tensor):
            return wrap(self._run(theta0, [min(k / steps, last) for k in range(count + 1)], generator, advance))
        return wrap(self._run_each(theta0, t, count, steps, generator, advance))

    def trajectory(
        self, theta0: Tensor, times: Sequence[float], steps: int = STEPS, generator: Generators = None
    ) -> Tensor:
        """theta at each of the increasing ``times`` along one realisation: ``(T, *theta0.shape)``.

        Between two times it takes steps no longer than 1/steps.  Arguments and errors as :meth:`simulate`.
        """
        self._check_simulation(theta0, steps)
        times = [float(t) for t in times]
        if any(not 0 <= t <= 1 for t in times) or any(a > b for a, b in pairwise(times)):
            raise ValueError(f"times: got {times[:5]}..., expected increasing times in [0, 1]")
        theta, now, frames = theta0, 0.0, []
        for t in times:
            count = math.ceil((t - now) * steps - 1e-9)
            theta = self._run(
                theta, [now + (t - now) * k / count for k in range(count + 1)] if count else [], generator, self.advance
            )
            frames.append(wrap(theta))
            now = t
        return torch.stack(frames)

    def _run(self, theta: Tensor, times: Sequence[float], generator: Generators, advance: Advance) -> Tensor:
        for t0, t1 in pairwise(times):
            theta = advance(theta, normal(theta, generator), t0, t1)
        return theta

    def _run_each(
        self, theta: Tensor, t: Tensor, count: int, steps: int, generator: Generators, advance: Advance
    ) -> Tensor:
        """Every image to its own time: those that have arrived leave the batch, the latest first in line."""
        order = torch.argsort(t, descending=True, stable=True)
        ends = t[order].tolist()  # the only place where the host looks at the device, and not if t is on the CPU
        order, t = order.to(theta.device), t.to(theta)[order.to(theta.device)]
        theta, arrived = theta[order], []
        if isinstance(generator, Sequence):
            generator = [generator[i] for i in order.tolist()]
        for k in range(count + 1):
            left = sum((end - 1e-7) * steps > k for end in ends[: len(theta)])
            arrived.append(theta[left:])
            theta, t = theta[:left], t[:left]
            if isinstance(generator, Sequence):
                generator = generator[:left]
            if left:
                theta = advance(theta, normal(theta, generator), k / steps, t.clamp(max=(k + 1) / steps))
        return torch.cat(arrived[::-1])[torch.argsort(order)]

    def validate(self, theta: Tensor, name: str = "theta") -> None:
        """Refuse what cannot be a state of this process.

        Raises:
            ValueError: no phases (NaN, degrees, integers), another shape than (B, C, H, W) or (B, N), or one that the
                reference field does not fit.
        """
        validate_phases(theta, name)
        if theta.ndim not in (2, 4):
            raise ValueError(
                f"{name}: got shape {tuple(theta.shape)}, expected images (B, C, H, W) or oscillators (B, N); "
                f"try {name}[None] for a single one"
            )
        if isinstance(self.reference_phase, Tensor):
            _check_broadcast(self.reference_phase, tuple(theta.shape[1:]))

    def _check_simulation(self, theta0: Tensor, steps: int) -> None:
        self.validate(theta0, "theta0")
        if not steps >= 1:
            raise ValueError(f"steps: got {steps}, expected at least 1 per unit of time; the paper takes {STEPS}")

    def project(self, theta: Tensor) -> Tensor:
        """Phases in [-pi, pi)."""
        return wrap(theta)

    def draw_prior(
        self, shape: tuple[int, ...], generator: Generators = None, device: torch.device | None = None
    ) -> Tensor:
        """A draw of the stationary law at the final coefficients, :class:`kodm_lite.priors.GibbsPrior`."""
        from kodm_lite.priors import GibbsPrior

        theta = GibbsPrior(self).sample(shape, generator)
        return theta if device is None else theta.to(device)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse a shape of one image that this process does not take, such as one smaller than the coupling's reach.

        Raises:
            ValueError: says why.
        """
        image = torch.zeros(1, *shape, dtype=torch.float32, device="cpu")
        self.validate(image, "shape")
        self.drift(image, 1.0)

    def prior(self, shape: tuple[int, ...] | None = None) -> VonMises:
        """The marginal law of one phase in the stationary state of the coefficients at t = 1, self-consistently.

        A phase sees the field H = K z + K_ref exp(i psi_ref) and settles in the von Mises law around arg H with
        concentration abs(H) / D; its neighbours do the same, which gives z back.  Iterated from full synchrony this
        converges to the most synchronised solution.  Phases are not independent: :class:`kodm_lite.priors.GibbsPrior`
        adds their correlations.

        Args:
            shape: shape of one image, needed only if the reference phase is a field.

        Returns:
            VonMises with scalar parameters, or with one per pixel for a reference field.  Book: chapter 3.
        """
        k, k_ref, d = (s.at(1.0) for s in (self.coupling_strength, self.reference_strength, self.diffusion))
        if d == 0:
            raise ValueError("diffusion: got 0 at t = 1, expected noise there; without it there is no stationary law")
        if isinstance(self.reference_phase, Tensor):
            return self._prior_of_field(k, k_ref, d, shape)
        r = 1.0
        for _ in range(10_000):
            kappa = (k * r + k_ref) / d
            r, previous = float(i1e(kappa) / i0e(kappa)), r
            if abs(r - previous) < 1e-15:
                break
        return VonMises(float(self.reference_phase), (k * r + k_ref) / d)

    def _prior_of_field(self, k: float, k_ref: float, d: float, shape: tuple[int, ...] | None) -> VonMises:
        assert isinstance(self.reference_phase, Tensor)
        shape = tuple(shape or self.reference_phase.shape)
        _check_broadcast(self.reference_phase, shape)
        phase = self.reference_phase.to(torch.float64).expand(shape)[None]
        mu, kappa = phase, torch.full_like(phase, (k + k_ref) / d)
        for _ in range(500):
            r = VonMises(mu, kappa, validate_args=False).mean_resultant_length()
            real = k * self.coupling.average(r * mu.cos()) + k_ref * phase.cos()
            imag = k * self.coupling.average(r * mu.sin()) + k_ref * phase.sin()
            mu, previous, kappa = torch.atan2(imag, real), kappa, torch.hypot(imag, real) / d
            if float((kappa - previous).abs().max()) < 1e-12:
                break
        return VonMises(mu[0].float(), kappa[0].float())

    def scaled(self, strength: float) -> KuramotoProcess:
        """The same process with coupling, reference coupling and noise all multiplied by ``strength``.

        The stationary law stays the same; the process comes closer to it.
        """
        return replace(
            self,
            coupling_strength=self.coupling_strength.scaled(strength),
            reference_strength=self.reference_strength.scaled(strength),
            diffusion=self.diffusion.scaled(strength),
        )

    @classmethod
    def for_shape(
        cls, shape: tuple[int, ...], memory: float = 0.01, theta0: Tensor | None = None, **options: Any
    ) -> KuramotoProcess:
        """The process of the smallest strength that forgets images of this shape.

        The mean of N phases has noise of only 1/sqrt(N), so that large images remember their mean long after every
        pixel has forgotten itself.  The strength, a common factor of noise and couplings, is raised until the
        signal-to-noise ratio of the order parameter at t = 1 is at most ``memory``; all other spatial modes start with
        less contrast and relax faster.

        Args:
            shape: shape of one image (C, H, W), or (N,).
            memory: the largest acceptable ratio of signal to noise variance at t = 1.
            theta0: images ``(B, *shape)`` whose contrast counts; by default the worst case, flat images of every grey.
            options: arguments of the process, for instance ``coupling=LocalCoupling(2)``.

        Raises:
            ValueError: memory not positive, or no strength up to 64 that forgets.

        Book: chapter 3.

        >>> process = KuramotoProcess.for_shape((1, 32, 32))
        >>> 2.0 < process.diffusion.end / 5.0 < 3.0
        True
        """
        if not memory > 0:
            raise ValueError(f"memory: got {memory}, expected a positive signal-to-noise ratio; the default is 0.01")
        published = cls(**options)
        if flat_image_memory(published, shape, theta0) <= memory:
            return published
        weak, strong = 1.0, 2.0
        while flat_image_memory(published.scaled(strong), shape, theta0) > memory:
            weak, strong = strong, 2 * strong
            if strong > 64:
                raise ValueError(f"memory: no strength up to 64 brings it to {memory}; try a weaker coupling")
        while strong - weak > 0.005:
            middle = 0.5 * (weak + strong)
            if flat_image_memory(published.scaled(middle), shape, theta0) > memory:
                weak = middle
            else:
                strong = middle
        return published.scaled(math.ceil(strong * 100) / 100)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists that :meth:`from_dict` turns back into an equal process."""
        describe = getattr(self.coupling, "to_dict", None)
        if describe is None:
            raise ValueError(
                f"coupling: got {type(self.coupling).__name__}, which has no description to store, expected a method "
                'to_dict that returns {"kind": ..., ...}; see kodm_lite.registry'
            )
        phase = self.reference_phase
        return {
            "kind": self.kind,
            "coupling": describe(),
            **{name: [float(getattr(self, name).start), float(getattr(self, name).end)] for name in _SCHEDULES},
            "reference_phase": phase.tolist() if isinstance(phase, Tensor) else phase,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> KuramotoProcess:
        """Inverse of :meth:`to_dict`.

        Raises:
            ValueError: missing or unknown entries, or values that make no process.
        """
        expected = {"kind", "coupling", "reference_phase", *_SCHEDULES}
        if not isinstance(data, dict) or set(data) != expected:
            raise ValueError(f"process: got {data!r}, expected a dictionary with {sorted(expected)}")
        try:
            phase = data["reference_phase"]
            return cls(
                coupling=couplings.of(data["coupling"])(data["coupling"]),
                **{name: LinearSchedule(*data[name]) for name in _SCHEDULES},
                reference_phase=torch.tensor(phase, dtype=torch.float64) if isinstance(phase, list) else phase,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"process: got {data!r}, expected what KuramotoProcess.to_dict() returns") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KuramotoProcess) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[Any, ...]:
        """What makes a process this one; a coupling without a description is equal to itself only."""
        coupling = self.coupling.to_dict() if hasattr(self.coupling, "to_dict") else id(self.coupling)
        phase = self.reference_phase
        rates = tuple(getattr(self, name) for name in _SCHEDULES)
        return str(coupling), rates, tuple(phase.flatten().tolist()) if isinstance(phase, Tensor) else phase


_SCHEDULES = ("coupling_strength", "reference_strength", "diffusion")


def flat_image_memory(process: KuramotoProcess, shape: tuple[int, ...], theta0: Tensor | None = None) -> float:
    r"""Predicted signal-to-noise ratio of the order parameter at t = 1, in the mean-field limit.

    Signal: the variance over images of the order parameter z(1) that the mean-field equation makes of each image.
    Noise: the variance of the mean of N phases in the Gibbs law at the final coefficients,
    :math:`\frac1N \sum_{a \in \{\cos, \sin\}} v_a / (1 - K v_a / D)`.

    Args:
        process: its reference phase is taken as a number; a field is replaced by phase 0.
        shape: shape of one image.
        theta0: images (B, ...) that make the signal; by default flat images of 32 greys in [-0.9 pi, 0.9 pi].

    Raises:
        ValueError: fewer than two images, or a reference too weak to hold phases that synchronise by themselves.
    """
    if isinstance(process.reference_phase, Tensor):
        process = replace(process, reference_phase=0.0)
    law, ratio = process.prior(), process.coupling_strength.end / process.diffusion.end
    r, kappa = float(law.mean_resultant_length()), float(law.concentration)
    variance_sin = r / kappa if kappa > 0 else 0.5
    if ratio * variance_sin > 1 - 1e-6:
        raise ValueError(
            f"reference_strength: got {process.reference_strength.end} at t = 1, expected enough to hold the common "
            "direction of phases that synchronise by themselves; try more of it, or coupling below 2 diffusion"
        )
    orders = torch.arange(33)
    if theta0 is None:
        start = torch.exp(1j * orders * torch.linspace(-0.9 * math.pi, 0.9 * math.pi, 32, dtype=torch.float64)[:, None])
    else:
        validate_phases(theta0, "theta0")
        if len(theta0) < 2:
            raise ValueError(
                f"theta0: got {len(theta0)} image, expected at least 2 images: memory is a spread between images"
            )
        start = torch.stack([order_parameter(n * theta0.double().flatten(1), dim=1) for n in orders.tolist()], -1)
    final = evolve_modes(process, start)[:, 1]
    signal = float((final - final.mean()).abs().square().sum() / (len(final) - 1))
    noise = sum(v / (1 - ratio * v) for v in (variance_sin, 1 - r**2 - variance_sin)) / math.prod(shape)
    return signal / noise


@overload
def per_image(value: Tensor, theta: Tensor) -> Tensor: ...
@overload
def per_image(value: Tensor | float, theta: Tensor) -> Tensor | float: ...
def per_image(value: Tensor | float, theta: Tensor) -> Tensor | float:
    """A number as it is; one number per image with the dimensions it needs to multiply ``theta``."""
    if isinstance(value, Tensor) and value.ndim == 1:
        return value.reshape(-1, *[1] * (theta.ndim - 1))
    return value


def _check_times(t0: float, t1: float) -> None:
    if not 0 <= t0 <= t1 <= 1:
        raise ValueError(f"t0, t1: got {t0} and {t1}, expected 0 <= t0 <= t1 <= 1; data is at time 0, the prior at 1")


def _largest_time(t: Tensor | float, batch: int) -> float:
    if not isinstance(t, Real) and (not isinstance(t, Tensor) or t.shape not in ((), (batch,))):
        got = f"shape {tuple(t.shape)}" if isinstance(t, Tensor) else type(t).__name__
        raise ValueError(f"t: got {got}, expected a number or a tensor of one time per image, ({batch},)")
    low, high = (float(t.min()), float(t.max())) if isinstance(t, Tensor) else (float(t), float(t))
    if not (low >= 0 and high <= 1):
        raise ValueError(f"t: got times from {low} to {high}, expected [0, 1]; data is at time 0, the prior at 1")
    return high


def _check_broadcast(phase: Tensor, shape: tuple[int, ...]) -> None:
    try:
        fits = torch.broadcast_shapes(phase.shape, shape) == torch.Size(shape)
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"reference_phase: got shape {tuple(phase.shape)}, expected one that broadcasts to {shape}")
