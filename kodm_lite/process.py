r"""The forward process: a stochastic Kuramoto model that synchronises data into (almost) a von Mises law.

.. math:: d\theta_i = \operatorname{Im}\bigl(H_i e^{-i\theta_i}\bigr)\,dt + \sqrt{2D}\,dW_i,
          \qquad H_i = K z_i + K_{ref}\,e^{i\psi_{ref}}

A step goes from a time t0 to a time t1 and uses the integrals of K, K_ref and 2D between them: there is no step index
that training and sampling could read differently.  Chapter 3 of the book derives everything here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, ClassVar, Literal, NamedTuple, overload

import torch
from torch import Tensor

from kodm_lite.circular import check_precision, validate_phases, wrap
from kodm_lite.kernels import VonMises
from kodm_lite.kuramoto import Coupling, GlobalCoupling, drift_in_field
from kodm_lite.memory import forgetting_strength
from kodm_lite.modes import cos_sin_of_field
from kodm_lite.priors import GibbsPrior, check_fits, stationary_law
from kodm_lite.randomness import Generators, normal
from kodm_lite.registry import couplings
from kodm_lite.schedules import LinearSchedule, per_image
from kodm_lite.simulation import (
    STEPS,
    check_count,
    check_step,
    check_steps,
    increasing_times,
    largest_time,
    run_along,
    run_to,
)

__all__ = ["STEPS", "Coefficients", "KuramotoProcess"]


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
        if isinstance(phase, bool) or not isinstance(phase, (Tensor, Real)):
            raise ValueError(f"reference_phase: got {phase!r}, expected a number or a tensor of radians; 0.0 is usual")
        as_tensor = phase if isinstance(phase, Tensor) else torch.tensor(float(phase), dtype=torch.float64)
        validate_phases(as_tensor, "reference_phase")
        if not isinstance(phase, Tensor) or phase.ndim == 0:
            object.__setattr__(self, "reference_phase", float(phase))
        elif not phase.requires_grad:  # what is frozen does not change with the caller's tensor
            object.__setattr__(self, "reference_phase", phase.clone())

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
        if isinstance(clock, bool) or not isinstance(clock, Real) or not clock > 0:
            raise ValueError(f"clock: got {clock}, expected a positive number; try 3")
        start, slope = self.diffusion.start, self.diffusion.end - self.diffusion.start
        if self.clock(1.0) <= clock:
            return 1.0
        return clock / (start + math.sqrt(start**2 + slope * clock))  # V = 2 start t + slope t^2

    def equilibrium_score(self, theta: Tensor, t: Tensor | float) -> Tensor:
        """Drift over diffusion at time t: the score of the Gibbs law that frozen rates lead to; needs D(t) > 0."""
        diffusion = per_image(self.diffusion.at(t), theta)
        if not isinstance(diffusion, Tensor) and diffusion <= 0:
            raise ValueError(f"t: got {t}, a time without noise, expected D(t) > 0; try a later one")
        return self.drift(theta, t) / diffusion

    def drift(self, theta: Tensor, t: Tensor | float) -> Tensor:
        """Angular velocity at time t (a number, or one per image), radians per unit time, same shape as theta.

        Raises:
            ValueError: no floating tensor, one that the reference field does not fit, not one time per image; values
                are not looked at.
        """
        self._check_arguments(theta, t)
        return self._displacement(theta, self.coupling_strength.at(t), self.reference_strength.at(t))

    def step_drift(self, theta: Tensor, t0: Tensor | float, t1: Tensor | float) -> Tensor:
        """Displacement by the drift over the step from t0 to t1, the field frozen at ``theta``: radians."""
        self._check_arguments(theta, t0, t1)
        step = self.coefficients(t0, t1)
        return self._displacement(theta, step.coupling, step.reference)

    def _displacement(self, theta: Tensor, coupling: Tensor | float, reference: Tensor | float) -> Tensor:
        coupling, reference = per_image(coupling, theta), per_image(reference, theta)
        sin, cos = theta.sin(), theta.cos()
        reference_cos, reference_sin = self.reference_cos_sin(theta)
        field_real = coupling * self.coupling.average(cos) + reference * reference_cos
        field_imag = coupling * self.coupling.average(sin) + reference * reference_sin
        return drift_in_field(sin, cos, field_real, field_imag)

    def reference_cos_sin(self, like: Tensor) -> tuple[Tensor, Tensor] | tuple[float, float]:
        """Cosine and sine of psi_ref: numbers, or fields on the device of ``like`` and with its precision."""
        phase = self.reference_phase
        if not isinstance(phase, Tensor):
            return math.cos(phase), math.sin(phase)
        return cos_sin_of_field(phase, like)

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
        check_step(t0, t1)
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
            ValueError: phases that are none (NaN, degrees, integers), times outside [0, 1], and what
                :meth:`check_steps` refuses.
        """
        self.validate(theta0, "theta0")
        if not isinstance(method, str) or method not in ("euler", "heun"):
            raise ValueError(f"method: got {method!r}, expected 'euler' or 'heun'; try 'euler'")
        last = largest_time(t, len(theta0))
        self.check_steps(steps, last)
        return self.run(theta0, t if isinstance(t, Tensor) and t.ndim else last, steps, generator, method)

    def run(
        self,
        theta0: Tensor,
        t: Tensor | float,
        steps: int = STEPS,
        generator: Generators = None,
        method: Literal["euler", "heun"] = "euler",
    ) -> Tensor:
        """:meth:`simulate` with nothing checked, for those who have checked already: no device waits.

        Times of one per image are on the CPU, where the steps are planned.
        """
        advance = self.advance if method == "euler" else self.advance_heun
        return wrap(run_to(advance, theta0, t, steps, generator))

    def check_steps(self, steps: int, last: float = 1.0) -> None:
        """Refuse what is no number of steps, and steps that overshoot: :func:`kodm_lite.simulation.check_steps`."""
        check_steps(steps, last, self.coupling_strength, self.reference_strength)

    def trajectory(
        self, theta0: Tensor, times: Sequence[float], steps: int = STEPS, generator: Generators = None
    ) -> Tensor:
        """theta at each of the increasing ``times`` along one realisation: ``(T, *theta0.shape)``.

        Between two times it takes steps no longer than 1/steps.  Arguments and errors as :meth:`simulate`.
        """
        self.validate(theta0, "theta0")
        times = increasing_times(times)
        self.check_steps(steps, times[-1])
        return torch.stack([wrap(theta) for theta in run_along(self.advance, theta0, times, steps, generator)])

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
            check_fits(self.reference_phase, tuple(theta.shape[1:]))

    def _check_arguments(self, theta: Tensor, *times: Tensor | float) -> None:
        """What can be seen without looking at values."""
        check_precision(theta, "theta")
        if isinstance(self.reference_phase, Tensor):
            check_fits(self.reference_phase, tuple(theta.shape[1:]))
        for t in times:
            check_count(t, theta)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse a shape of one image that this process does not take, such as one smaller than the coupling's reach.

        Raises:
            ValueError: says why.
        """
        image = torch.zeros(1, *shape, dtype=torch.float32, device="cpu")
        self.validate(image, "shape")
        self.drift(image, 1.0)

    def prior(self, shape: tuple[int, ...] | None = None) -> VonMises:
        """The law of one phase in the stationary state, :func:`kodm_lite.priors.stationary_law`."""
        return stationary_law(self, shape)

    def draw_prior(
        self, shape: tuple[int, ...], generator: Generators = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Terminal states of the shape (B, C, H, W) or (B, N), with their correlations: :class:`GibbsPrior`."""
        return GibbsPrior(self).sample(shape, generator, device)

    def project(self, theta: Tensor) -> Tensor:
        """A state as a sampler returns it: phases in [-pi, pi)."""
        return wrap(theta)

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

        The strength, a common factor of noise and couplings, is raised until the signal-to-noise ratio of the order
        parameter at t = 1 is at most ``memory``; all other spatial modes start with less contrast and relax faster.

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
        published = cls(**options)
        return published.scaled(forgetting_strength(published, shape, memory, theta0))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists that :meth:`from_dict` turns back into an equal process.

        Raises:
            ValueError: a coupling that has no ``to_dict()``.
        """
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
            **{name: [getattr(self, name).start, getattr(self, name).end] for name in _SCHEDULES},
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
        except (KeyError, TypeError, ValueError) as error:
            got = f"values that make none ({error})"
            raise ValueError(
                f"process: got {got}, expected what KuramotoProcess.to_dict() returns; try that"
            ) from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KuramotoProcess) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[Any, ...]:
        """What makes a process this one; a coupling without a description is equal to itself only."""
        coupling = self.coupling.to_dict() if hasattr(self.coupling, "to_dict") else id(self.coupling)
        phase = self.reference_phase
        phases = str(phase.tolist()) if isinstance(phase, Tensor) else phase
        return (str(coupling), phases, *(getattr(self, name) for name in _SCHEDULES))


_SCHEDULES = ("coupling_strength", "reference_strength", "diffusion")
