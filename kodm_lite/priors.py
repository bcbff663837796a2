r"""Where sampling starts: draws of the terminal state, with its correlations.

Von Mises draws have the right law pixel by pixel but not together: phases that pull on each other fluctuate together.
At frozen coefficients the drift is a gradient, so the stationary law is exactly the Gibbs law exp(-U/D) of an XY model
in a field,

.. math:: U = -\tfrac K2 \sum_{ij} w_{ij} \cos(\theta_i - \theta_j) - K_{ref} \sum_i \cos(\theta_i - \psi_{ref}) .

Chapter 3 of the book derives it, and measures what the terminal state remembers of the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Generator, Tensor

from kodm_lite.circular import is_integer, order_parameter, wrap
from kodm_lite.gibbs import FieldInReferences, SharedField
from kodm_lite.kernels import VonMises
from kodm_lite.kuramoto import GlobalCoupling, drift_in_field
from kodm_lite.randomness import Generators, check_kind, check_one_per_image, known_device, normal

if TYPE_CHECKING:
    from kodm_lite.process import KuramotoProcess

__all__ = ["GibbsPrior", "OrderParameterPrior", "Prior", "stationary_law"]


class Prior(Protocol):
    """Anything that draws terminal states."""

    def sample(self, shape: tuple[int, ...], generator: Generators = None) -> Tensor: ...


@dataclass(frozen=True)
class GibbsPrior:
    """The stationary law at the final coefficients: von Mises draws, then a few steps with frozen coefficients.

    The steps are those of Leimkuhler and Matthews: Euler's, with the mean of two successive noises in place of one,
    which makes the stationary law second-order accurate, so that few and large steps do.

    Args:
        process: the forward process.
        relaxation: number of frozen steps; 0 gives independent von Mises draws.
        variance: noise variance of one frozen step; a sharply peaked law takes smaller ones, so as not to overshoot.

    Raises:
        ValueError: a negative number of steps, or a variance that is not positive.

    Source: Leimkuhler and Matthews 2013.  Book: chapter 3.
    """

    process: KuramotoProcess
    relaxation: int = 20
    variance: float = 0.2

    def __post_init__(self) -> None:
        steps, variance = self.relaxation, self.variance
        if not is_integer(steps, 0) or not (isinstance(variance, Real) and 0 < variance < float("inf")):
            raise ValueError(
                f"relaxation, variance: got {steps!r} and {variance!r}, expected steps >= 0 and a positive "
                "number; try the defaults"
            )

    def sample(
        self, shape: tuple[int, ...], generator: Generators = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Phases of the given shape (B, C, H, W) or (B, N), in [-pi, pi), float32.

        They are on ``device``, by default the generator's.
        """
        check_shape(shape)
        device = device_of(generator, device)
        law = self.process.prior(shape[1:])  # on the CPU, where its values may be looked at
        variance = min(self.variance, 0.5 / max(1.0, float(law.concentration.max())))
        law = VonMises(law.loc.float().to(device), law.concentration.float().to(device), validate_args=False)
        theta = law.sample(shape[: len(shape) - law.loc.ndim], generator)
        duration = variance / (2 * self.process.diffusion.at(1.0))  # of one step, at the rates of t = 1
        noise = 3**0.5 * normal(theta, generator)  # so that the first mean of two has the variance of a whole kick
        for _ in range(self.relaxation):
            previous, noise = noise, normal(theta, generator)
            theta = theta + duration * self.process.drift(theta, 1.0) + variance**0.5 * (previous + noise) / 2
        return wrap(theta)

    def sample_exact(
        self, shape: tuple[int, ...], generator: Generators = None, device: torch.device | str | None = None
    ) -> Tensor:
        """The same by the Gaussian-field decomposition: no steps and no error, for global coupling.

        Raises:
            ValueError: local coupling, no noise at t = 1, or a shape that is none.
        """
        check_shape(shape)
        image = torch.empty(
            (shape[0], *[1] * (len(shape) - 1)), dtype=torch.float64, device=device_of(generator, device)
        )
        field = self._field(shape[1:])[2]
        h = field.draw(image, generator)
        if isinstance(field, SharedField):
            direction = VonMises(torch.full_like(h, field.phase), field.pull * h, validate_args=False)
            h = torch.polar(h, direction.sample((), generator))
        h = h.expand(shape)
        return VonMises(h.angle(), h.abs(), validate_args=False).sample((), generator).float()

    def log_prob(self, theta: Tensor) -> Tensor:
        """Log-density of phases (B, ...) in the stationary law, float64 (B,), for global coupling.

        In nats and with respect to radians, exact to about 1e-8 relative to the largest of its terms.

        Raises:
            ValueError: local coupling, whose normaliser has no such formula, no noise at t = 1, or no phases.

        Source: Hubbard 1959; see :mod:`kodm_lite.gibbs`.
        """
        self.process.validate(theta)
        kappa, rho, field = self._field(theta.shape[1:])
        theta = theta.double()
        cos, sin = self.process.reference_cos_sin(theta)
        pull = rho * (theta.cos() * cos + theta.sin() * sin).flatten(1).sum(1)
        together = 0.5 * kappa * field.count * order_parameter(theta.flatten(1), dim=1).abs().square()
        return together + pull - field.log_normaliser

    def _field(self, shape: tuple[int, ...]) -> tuple[float, float, SharedField | FieldInReferences]:
        """K/D and K_ref/D at t = 1, and the law of the field in which phases of this shape are independent."""
        process = self.process
        if not isinstance(process.coupling, GlobalCoupling):
            raise ValueError(
                f"coupling: got {process.coupling!r}, whose stationary law has no density here yet, expected "
                "GlobalCoupling(); try another prior"
            )
        rates = process.coupling_strength, process.reference_strength, process.diffusion
        k, k_ref, d = (rate.at(1.0) for rate in rates)
        check_noise(d)
        phase = process.reference_phase
        if isinstance(phase, Tensor):
            check_fits(phase, shape)
            return k / d, k_ref / d, FieldInReferences(k / d, k_ref / d, phase.expand(shape))
        return k / d, k_ref / d, SharedField(k / d, k_ref / d, phase, math.prod(shape))


@dataclass(frozen=True)
class OrderParameterPrior:
    """A prior for a process that has not forgotten: order parameters from the data's terminal states, phases after.

    Draws one of the given terminal order parameters for every image, then independent von Mises phases with just this
    mean, so that what the order parameter remembers is kept, and everything else is independent.

    Args:
        order_parameters: complex (n,): those of forward-simulated data, see :meth:`from_data`.

    Raises:
        ValueError: order parameters that are none: not complex (n,), NaN, or of modulus 1 and more.
    """

    order_parameters: Tensor

    def __post_init__(self) -> None:
        z = self.order_parameters
        if not (isinstance(z, Tensor) and z.is_complex() and z.ndim == 1 and len(z) and bool((z.abs() < 1).all())):
            got = f"{z.dtype} of shape {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
            raise ValueError(
                f"order_parameters: got {got}, expected complex (n,) of modulus below 1; "
                "try OrderParameterPrior.from_data(process, theta0)"
            )

    @classmethod
    def from_data(cls, process: KuramotoProcess, theta0: Tensor, generator: Generators = None) -> OrderParameterPrior:
        """Simulate images theta0 (B, ...) to t = 1 and keep their order parameters."""
        final = process.simulate(theta0, 1.0, generator=generator)
        return cls(order_parameter(final.flatten(1), dim=1))

    def sample(
        self, shape: tuple[int, ...], generator: Generators = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Phases (B, ...) in [-pi, pi), on ``device``, by default the generator's."""
        check_shape(shape)
        device = device_of(generator, device)
        if isinstance(generator, Sequence):
            check_one_per_image(generator, torch.empty(shape, device="meta"))
            return torch.cat([self.sample((1, *shape[1:]), g, device) for g in generator])
        pool = self.order_parameters.to(device)
        z = pool[torch.randint(len(pool), (shape[0],), generator=generator, device=device)]
        z = z.reshape(-1, *[1] * (len(shape) - 1))
        law = VonMises.from_order_parameter(z, validate_args=False)
        law = VonMises(law.loc.expand(shape), law.concentration.expand(shape), validate_args=False)
        return _pull_to(law.sample((), generator), z)


def _pull_to(theta: Tensor, z: Tensor, iterations: int = 4) -> Tensor:
    """Give every image exactly the order parameter z, by the uniform field h that moves the phases least.

    A small field moves z by (h - conj(h) z_2) / 2 with z_2 = mean exp(2 i theta); Newton's method solves that for h.
    """
    dims = tuple(range(1, theta.ndim))
    for _ in range(iterations):
        missing = z - order_parameter(theta, dims, keepdim=True)
        second = order_parameter(2 * theta, dims, keepdim=True)
        h = 2 * (missing + second * missing.conj()) / (1 - second.abs() ** 2)
        theta = theta + drift_in_field(theta.sin(), theta.cos(), h.real, h.imag)
    return wrap(theta)


def stationary_law(process: KuramotoProcess, shape: tuple[int, ...] | None = None) -> VonMises:
    """The marginal law of one phase in the stationary state of the coefficients at t = 1, self-consistently.

    A phase sees the field H = K z + K_ref exp(i psi_ref) and settles in the von Mises law around arg H with
    concentration abs(H) / D; its neighbours do the same, which gives z back.  Iterated from full synchrony this
    converges to the most synchronised solution.

    Args:
        process: the forward process.
        shape: shape of one image, needed only if the reference phase is a field.

    Returns:
        VonMises with scalar parameters, or with one per pixel for a reference field, on the CPU.  Book: chapter 3.

    Raises:
        ValueError: no noise at t = 1, or a shape that the reference field does not fit.
    """
    k, k_ref, d = (s.at(1.0) for s in (process.coupling_strength, process.reference_strength, process.diffusion))
    check_noise(d)
    if isinstance(process.reference_phase, Tensor):
        return _law_in_field(process, process.reference_phase, (k, k_ref, d), shape)
    from scipy.special import i0e, i1e  # here, because loading it takes a third of a second

    r = 1.0
    for _ in range(10_000):
        kappa = (k * r + k_ref) / d
        r, previous = float(i1e(kappa) / i0e(kappa)), r
        if abs(r - previous) < 1e-15:
            break
    return VonMises(process.reference_phase, (k * r + k_ref) / d)


def _law_in_field(
    process: KuramotoProcess, field: Tensor, rates: tuple[float, float, float], shape: tuple[int, ...] | None
) -> VonMises:
    k, k_ref, d = rates
    shape = tuple(field.shape if shape is None else shape)
    check_fits(field, shape)
    phase = field.detach().to("cpu", torch.float64).expand(shape)[None]
    mu, kappa = phase, torch.full_like(phase, (k + k_ref) / d)
    for _ in range(500):
        r = VonMises(mu, kappa, validate_args=False).mean_resultant_length()
        real = k * process.coupling.average(r * mu.cos()) + k_ref * phase.cos()
        imag = k * process.coupling.average(r * mu.sin()) + k_ref * phase.sin()
        mu, previous, kappa = torch.atan2(imag, real), kappa, torch.hypot(imag, real) / d
        if float((kappa - previous).abs().max()) < 1e-12:
            break
    return VonMises(mu[0].float(), kappa[0].float())


def check_noise(diffusion: float) -> None:
    """Refuse a process without noise at t = 1."""
    if diffusion == 0:
        raise ValueError(
            "diffusion: got 0 at t = 1, expected noise there; without it there is no stationary law; "
            "try LinearSchedule(0.005, 5.0)"
        )


def check_fits(field: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a reference field that does not broadcast to one image of that shape."""
    ahead = len(shape) - field.ndim
    if ahead < 0 or any(a not in (1, b) for a, b in zip(field.shape, shape[ahead:], strict=True)):
        raise ValueError(
            f"reference_phase: got shape {tuple(field.shape)}, expected one that broadcasts to {shape}; "
            "try one phase per pixel"
        )


def check_shape(shape: Any) -> None:
    """Refuse what is no shape of images (B, C, H, W) or oscillators (B, N)."""
    if not isinstance(shape, Sequence) or len(shape) not in (2, 4) or not all(is_integer(n, 1) for n in shape):
        raise ValueError(
            f"shape: got {shape!r}, expected images (B, C, H, W) or oscillators (B, N), nothing empty; try (4, 1, 8, 8)"
        )


def device_of(generator: Generators, device: torch.device | str | None = None) -> torch.device:
    """Where numbers are drawn: on the device asked for, by default on that of the generator, or else on the CPU."""
    check_kind(generator)
    first = generator[0] if isinstance(generator, Sequence) and generator else generator
    if isinstance(first, Generator):
        return first.device if device is None else known_device(device)
    return known_device(device)
