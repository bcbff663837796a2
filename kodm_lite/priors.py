r"""Where sampling starts: draws of the terminal state, with its correlations.

Von Mises draws have the right law pixel by pixel but not together: phases that pull on each other fluctuate together.
At frozen coefficients the drift is a gradient, so the stationary law is exactly the Gibbs law exp(-U/D) of an XY model
in a field,

.. math:: U = -\tfrac K2 \sum_{ij} w_{ij} \cos(\theta_i - \theta_j) - K_{ref} \sum_i \cos(\theta_i - \psi_{ref}) .

Chapter 3 of the book derives it, and measures what the terminal state remembers of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from kodm_lite.circular import order_parameter, wrap
from kodm_lite.kernels import VonMises
from kodm_lite.kuramoto import drift_in_field
from kodm_lite.process import KuramotoProcess
from kodm_lite.randomness import Generators, normal

__all__ = ["GibbsPrior", "OrderParameterPrior", "Prior", "TerminalMemory", "terminal_memory"]


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
        if not (self.relaxation >= 0 and 0 < self.variance < float("inf")):
            raise ValueError(
                f"relaxation, variance: got {self.relaxation} and {self.variance}, expected steps >= 0 and a positive "
                "number; try the defaults"
            )

    def sample(self, shape: tuple[int, ...], generator: Generators = None) -> Tensor:
        """Phases of the given shape (B, C, H, W) or (B, N), in [-pi, pi), on the generator's device."""
        check_shape(shape)
        device = _device_of(generator)
        law = self.process.prior(shape[1:])
        law = VonMises(law.loc.to(device), law.concentration.to(device), validate_args=False)
        theta = law.sample(shape[: len(shape) - law.loc.ndim], generator).to(torch.get_default_dtype())
        variance = min(self.variance, 0.5 / max(1.0, float(law.concentration.max())))
        duration = variance / (2 * self.process.diffusion.at(1.0))  # of one step, at the rates of t = 1
        noise = 3**0.5 * normal(theta, generator)  # so that the first mean of two has the variance of a whole kick
        for _ in range(self.relaxation):
            previous, noise = noise, normal(theta, generator)
            theta = theta + duration * self.process.drift(theta, 1.0) + variance**0.5 * (previous + noise) / 2
        return wrap(theta)


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

    def sample(self, shape: tuple[int, ...], generator: Generators = None) -> Tensor:
        """Phases (B, ...) in [-pi, pi)."""
        check_shape(shape)
        if isinstance(generator, Sequence):
            return torch.cat([self.sample((1, *shape[1:]), g) for g in generator])
        device = _device_of(generator)
        pool = self.order_parameters.to(device)
        z = pool[torch.randint(len(pool), (shape[0],), generator=generator, device=device)]
        z = z.reshape(-1, *[1] * (len(shape) - 1))
        law = VonMises.from_order_parameter(z)
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


class TerminalMemory(NamedTuple):
    """Signal-to-noise ratio left in each spatial Fourier mode, with its standard error (jackknife over images).

    All tensors have the shape of one image; index (0, ..., 0) is the order parameter.
    """

    ratio: Tensor
    standard_error: Tensor
    signal: Tensor
    noise: Tensor


def terminal_memory(
    process: KuramotoProcess, theta0: Tensor, replicas: int = 8, t: float = 1.0, generator: Generators = None
) -> TerminalMemory:
    r"""How much of the data is left in the state at time t, per spatial Fourier mode of :math:`e^{i\theta}`.

    Every image is simulated ``replicas`` times.  The spread of a mode over replicas is noise; the spread of its mean
    over images, less what the noise adds to it, is signal.  A ratio far below 1 means that a sampler may start from a
    prior that knows nothing of the data.

    Args:
        process: the forward process.
        theta0: images (B, C, H, W) or (B, N), at least 3, radians.
        replicas: simulations per image, at least 2.
        t: the time to look at.
        generator: None or one generator.

    Returns:
        :class:`TerminalMemory`.  A ratio may come out slightly negative where nothing is left.

    Raises:
        ValueError: fewer than 3 images or 2 replicas, and whatever ``process.simulate`` refuses.  Book: chapter 3.
    """
    if len(theta0) < 3 or replicas < 2:
        raise ValueError(
            f"theta0, replicas: got {len(theta0)} images and {replicas} replicas, expected at least 3 and 2"
        )
    dims = tuple(range(1, theta0.ndim))
    modes = []
    for _ in range(replicas):
        theta = process.simulate(theta0, t, generator=generator)
        modes.append(torch.fft.fftn(torch.polar(torch.ones_like(theta), theta), dim=dims, norm="forward"))
    z = torch.stack(modes, 1)  # (B, replicas, *shape)
    mean = z.mean(1)
    noise = (z - mean[:, None]).abs().square().sum(1) / (replicas - 1)  # per image

    def estimate(keep: Tensor) -> tuple[Tensor, Tensor]:
        m, n = mean[keep], noise[keep].mean(0)
        between = (m - m.mean(0)).abs().square().sum(0) / (len(m) - 1)
        return between - n / replicas, n

    everything = torch.arange(len(theta0))
    signal, spread = estimate(everything)
    left_out = [estimate(everything[everything != b]) for b in range(len(theta0))]
    ratios = torch.stack([s / n for s, n in left_out])
    error = ((len(theta0) - 1) * (ratios - ratios.mean(0)).square().mean(0)).sqrt()
    return TerminalMemory(signal / spread, error, signal, spread)


def check_shape(shape: tuple[int, ...]) -> None:
    if not isinstance(shape, Sequence) or len(shape) not in (2, 4) or min(shape) < 1:
        raise ValueError(f"shape: got {shape!r}, expected images (B, C, H, W) or oscillators (B, N), nothing empty")


def _device_of(generator: Generators) -> torch.device:
    if generator is None:
        return torch.device("cpu")
    return (generator if isinstance(generator, Generator) else generator[0]).device
