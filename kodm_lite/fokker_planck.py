r"""Exact densities and scores: the oracle against which everything learned or sampled is compared.

With infinitely many oscillators each one sees a deterministic field H(t) = K c_1 + K_ref exp(i psi_ref), so that its
density obeys a Fokker-Planck equation on the circle.  In the Fourier modes c_n = E exp(i n theta) it reads

.. math:: \dot c_n = \tfrac n2 \bigl(H c_{n-1} - \bar H c_{n+1}\bigr) - n^2 D c_n .

Two coupled oscillators have a density on the torus that obeys the same kind of equation exactly, without any limit.
Chapter 3 of the book derives both.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kodm_lite.circular import validate_phases
from kodm_lite.kuramoto import GlobalCoupling
from kodm_lite.modes import Torque, lawson_step, mean_field_torque, reference_direction, stable_steps, torque_of_field
from kodm_lite.validation import told

if TYPE_CHECKING:
    from kodm_lite.process import KuramotoProcess

__all__ = ["ExactScore", "FokkerPlanck1D", "FokkerPlanck2D", "ImageSetScore"]

_DENSITY_FLOOR = 1e-12  # below this a double-precision Fourier sum holds no digits of the density


class _ModeSolution:
    """Fourier modes of a density at all times: solved once on a fine grid, interpolated in between."""

    def __init__(self, process: KuramotoProcess, modes: Tensor, decay: Tensor, torque: Torque, steps: int):
        self.process = process
        self._times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        history, slopes = [modes], []
        grid = self._times.tolist()
        for a, b in pairwise(grid):
            history.append(lawson_step(process, torque, history[-1], decay, a, b))
        for t, c in zip(grid, history, strict=True):
            slopes.append(torque(process, c, t) - decay * process.diffusion.at(t) * c)
        self._history, self._slopes = torch.stack(history), torch.stack(slopes)

    def modes(self, t: Tensor | float) -> Tensor:
        """The modes at time(s) t in [0, 1], complex, shape of t followed by the shape of the modes.

        Cubic Hermite interpolation between the stored times: fourth order, like the solver.
        """
        t = torch.as_tensor(t, dtype=torch.float64)
        if not bool(((t >= 0) & (t <= 1)).all()):
            raise ValueError(f"t: got {t.flatten()[:3].tolist()}, expected times in [0, 1]")
        steps = len(self._times) - 1
        k = (t * steps).long().clamp(max=steps - 1)
        u = (t * steps - k).reshape(*t.shape, *[1] * (self._history.ndim - 1))
        rise = self._history[k + 1] - self._history[k]
        slope0, slope1 = self._slopes[k] / steps, self._slopes[k + 1] / steps
        return self._history[k] + u * (rise + (1 - u) * ((1 - u) * (slope0 - rise) - u * (slope1 - rise)))


class FokkerPlanck1D(_ModeSolution):
    """Exact marginal density and score of one oscillator among infinitely many (or of one alone, if K = 0).

    Args:
        process: schedules and numerical reference phase, no field; global coupling is understood.
        density: of theta at t = 0: a function of angles (radians), or its values on a uniform grid over [-pi, pi).  It
            must be >= 0 and integrate to 1, else ValueError.
        modes: number M of Fourier modes; a start narrower than about 6 / M radians needs more.
    """

    def __init__(self, process: KuramotoProcess, density: Callable[[Tensor], Tensor] | Tensor, modes: int = 64):
        initial = torch.fft.fft(_on_grid(density, 1, 8 * modes))
        # fft sums over grid points -pi + 2 pi j / G with exp(-i n j ...): conjugate, shift the origin, keep n = 0..M
        initial = (initial[: modes + 1] * (-1.0) ** torch.arange(modes + 1)).conj()
        _warn_if_unresolved(initial[-1], modes)
        decay = torch.arange(modes + 1, dtype=torch.float64) ** 2
        super().__init__(process, initial, decay, mean_field_torque, stable_steps(process, modes))

    def order_parameter(self, t: Tensor | float) -> Tensor:
        """z(t) = E exp(i theta), complex."""
        return self.modes(t)[..., 1]

    def density(self, theta: Tensor, t: Tensor | float) -> Tensor:
        """Density at angles theta (any shape, radians) and time t (a number, or one per row)."""
        return self._density_and_derivative(theta, t)[0]

    def score(self, theta: Tensor, t: Tensor | float) -> Tensor:
        """Derivative of the log-density; where the density is below 1e-12 it is taken as 1e-12."""
        density, derivative = self._density_and_derivative(theta, t)
        return derivative / density.clamp(min=_DENSITY_FLOOR)

    def _density_and_derivative(self, theta: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        modes = self.modes(t)
        if modes.ndim == 2:  # one time per image
            modes = modes.reshape(len(modes), *[1] * (theta.ndim - 1), -1)
        return _fourier_density(modes, theta)


class FokkerPlanck2D(_ModeSolution):
    """Exact joint density and score of two globally coupled oscillators, on the torus.

    Arguments and errors are those of :class:`FokkerPlanck1D`, for a density of (theta_1, theta_2), or its values on a
    uniform grid over [-pi, pi)^2, first index theta_1, and M modes in each direction.
    """

    def __init__(self, process: KuramotoProcess, density: Callable[[Tensor, Tensor], Tensor] | Tensor, modes: int = 24):
        self._n = torch.arange(-modes, modes + 1)
        initial = torch.fft.fft2(_on_grid(density, 2, 4 * modes))
        sign = (-1.0) ** (self._n[:, None] + self._n[None, :])
        initial = (initial[self._n][:, self._n] * sign).conj()
        _warn_if_unresolved(torch.cat((initial[-1, :], initial[:, -1])), modes)
        decay = (self._n[:, None] ** 2 + self._n[None, :] ** 2).to(torch.float64)
        super().__init__(process, initial, decay, _pair_torque, stable_steps(process, 2 * modes))

    def density(self, theta: Tensor, t: Tensor | float) -> Tensor:
        """Joint density at pairs of angles theta (B, 2), radians, at time t (a number or (B,)); shape (B,)."""
        return self._density_and_gradient(theta, t)[0]

    def score(self, theta: Tensor, t: Tensor | float) -> Tensor:
        """Gradient of the log-density, (B, 2); where the density is below 1e-12 it is taken as 1e-12."""
        density, gradient = self._density_and_gradient(theta, t)
        return gradient / density.clamp(min=_DENSITY_FLOOR)[:, None]

    def _density_and_gradient(self, theta: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        if theta.ndim != 2 or theta.shape[1] != 2:
            raise ValueError(f"theta: got shape {tuple(theta.shape)}, expected pairs of angles (B, 2)")
        modes = self.modes(t)
        angles = -theta.to(torch.float64)[:, :, None] * self._n
        first, second = torch.polar(torch.ones_like(angles), angles).unbind(1)
        sums = "...mn,bn->bm" if modes.ndim == 2 else "bmn,bn->bm"
        right, right_derivative = (torch.einsum(sums, modes, x) for x in (second, -1j * self._n * second))
        density = (first * right).sum(1)
        gradient = torch.stack(((-1j * self._n * first * right).sum(1), (first * right_derivative).sum(1)), 1)
        return density.real / (4 * math.pi**2), gradient.real / (4 * math.pi**2)


class ExactScore(torch.nn.Module):
    """The exact score as a network: of a :class:`FokkerPlanck1D` for theta (B, ...), of a 2D one for (B, 2)."""

    def __init__(self, solution: FokkerPlanck1D | FokkerPlanck2D):
        super().__init__()
        self.solution = solution

    def forward(self, theta: Tensor, t: Tensor | float) -> Tensor:
        """Score of theta (B, ...) at times t (a number, or (B,)), with the dtype of theta."""
        if isinstance(t, Tensor) and t.ndim == 1 and bool((t == t[0]).all()):
            t = t[0]
        return self.solution.score(theta, t).to(theta.dtype)


class ImageSetScore(_ModeSolution, torch.nn.Module):
    r"""The exact score of a data set of a few images, in the mean-field limit: global coupling, many pixels.

    Given its start, an image drives its pixels by a deterministic field, in which they are independent.  The modes of
    a pixel are linear in those of its start, so one propagator matrix per image serves all its pixels.  The law at time
    t is a mixture over images a, and its score the mean of their scores,

    .. math:: s(\theta) = \sum_a w_a s_a(\theta), \qquad w_a \propto \prod_i p_a(\theta_i, t) .

    Sampling with it gives back the images of the set: an exact score memorises.  Book: chapter 5.

    Args:
        process: the forward process, with global coupling and a numerical reference phase.
        images: phases (A, C, H, W), radians; each is one component of the mixture.
        blur: deviation of the wrapped normal law of every pixel around its image at t = 0, radians.
        modes: number of Fourier modes; 6 / blur of them resolve the start.

    Raises:
        ValueError: local coupling, a reference field, no phases, too few modes; states of another shape, several times.
    """

    def __init__(self, process: KuramotoProcess, images: Tensor, blur: float = 0.15, modes: int = 40):
        torch.nn.Module.__init__(self)
        if not isinstance(process.coupling, GlobalCoupling):
            raise ValueError(f"process: got {process.coupling!r}, expected GlobalCoupling(): one field for every image")
        validate_phases(images, "images")
        if modes * blur < 6:
            raise ValueError(f"modes, blur: got {modes} and {blur}, expected a product of at least 6; try more modes")
        orders = torch.arange(modes + 1)
        phases = orders * images.flatten(1).to(torch.float64)[..., None]
        self._shape = images.shape[1:]
        self._start = torch.exp(1j * phases - 0.5 * (orders * blur) ** 2)  # (A, pixels, modes + 1)
        # Row 0 of the state is the population of pixels, which makes the field; the others are the propagator's rows.
        identity = torch.eye(modes + 1, dtype=torch.complex128).expand(len(images), -1, -1)
        state = torch.cat((self._start.mean(1, keepdim=True), identity), 1)
        steps = stable_steps(process, modes)
        _ModeSolution.__init__(self, process, state, orders.to(torch.float64) ** 2, _shared_field_torque, steps)

    def log_weights(self, theta: Tensor, t: Tensor | float) -> Tensor:
        """ln w_a: which image of the set a state theta (B, C, H, W) at time t comes from; shape (B, A)."""
        density, _ = self._density_and_derivative(theta, t)
        return density.log().sum(-1).log_softmax(1)

    def forward(self, theta: Tensor, t: Tensor | float) -> Tensor:
        """Score of theta (B, C, H, W); t is a number, or (B,) with equal entries."""
        density, derivative = self._density_and_derivative(theta, t)
        weights = density.log().sum(-1, keepdim=True).softmax(1)
        return (weights * derivative / density).sum(1).reshape(theta.shape).to(theta.dtype)

    def _density_and_derivative(self, theta: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        if theta.shape[1:] != self._shape:
            expected = f"(B, *{tuple(self._shape)}) like the images"
            raise ValueError(f"theta: got shape {tuple(theta.shape)}, expected {expected}; try states of that shape")
        if isinstance(t, Tensor):
            if bool((t != t.flatten()[0]).any()):
                raise ValueError(f"t: got {t[:3].tolist()}..., expected one time for the batch; try one call per time")
            t = t.flatten()[0]
        modes = self._start @ self.modes(t)[:, 1:]  # (A, pixels, modes + 1)
        density, derivative = _fourier_density(modes, theta.flatten(1)[:, None])  # (B, A, pixels)
        return density.clamp(min=_DENSITY_FLOOR), derivative


def _fourier_density(modes: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Density (1 + 2 Re sum_n c_n exp(-i n theta)) / 2 pi and its derivative; modes (..., M + 1), theta (...)."""
    sizes = modes.abs().reshape(-1, modes.shape[-1]).amax(0)
    needed = int((sizes > 1e-16).nonzero().max())
    w = torch.polar(torch.ones_like(theta, dtype=torch.float64), -theta.to(torch.float64))
    density = derivative = torch.zeros_like(w)
    for n in range(needed, 0, -1):  # Horner's rule in w = exp(-i theta)
        density = (density + modes[..., n]) * w
        derivative = (derivative - 1j * n * modes[..., n]) * w
    return (1 + 2 * density.real) / (2 * math.pi), derivative.real / math.pi


def _shared_field_torque(process: KuramotoProcess, c: Tensor, t: float) -> Tensor:
    """The pull on all rows of c (A, rows, M + 1) of the field that the first row makes."""
    return torque_of_field(process, c, c[:, :1, 1:2], t)


def _pair_torque(process: KuramotoProcess, c: Tensor, t: float) -> Tensor:
    """The same for modes c_{mn} = E exp(i m theta_1 + i n theta_2) of two oscillators, both part of the mean field."""
    half = 0.5 * process.coupling_strength.at(t)
    reference = process.reference_strength.at(t) * reference_direction(process)
    order = torch.arange(c.shape[0]) - c.shape[0] // 2

    def shift(dm: int, dn: int) -> Tensor:  # c_{m+dm, n+dn}, zero outside the square of modes
        padded = torch.nn.functional.pad(c, (1, 1, 1, 1))
        return padded[1 + dm : 1 + dm + c.shape[0], 1 + dn : 1 + dn + c.shape[1]]

    first = half * (shift(-1, 1) - shift(1, -1)) + reference * shift(-1, 0) - reference.conjugate() * shift(1, 0)
    second = half * (shift(1, -1) - shift(-1, 1)) + reference * shift(0, -1) - reference.conjugate() * shift(0, 1)
    return 0.5 * (order[:, None] * first + order[None, :] * second)


def _on_grid(density: Callable[..., Tensor] | Tensor, dims: int, size: int) -> Tensor:
    """Values of the density times the cell volume on a uniform grid over [-pi, pi)^dims, checked to sum to 1."""
    if isinstance(density, Tensor):
        values = density.to(torch.float64)
        if values.ndim != dims or min(values.shape) < size // 2 or len(set(values.shape)) > 1:
            expected = f"{dims} equal sides of at least {size // 2}"
            raise ValueError(f"density: got {told(values)}, expected {expected}; try a finer grid or fewer modes")
    else:
        angles = -math.pi + 2 * math.pi * torch.arange(size, dtype=torch.float64) / size
        values = density(*torch.meshgrid(*[angles] * dims, indexing="ij"))
    values = values * (2 * math.pi / values.shape[0]) ** dims
    mass = float(values.sum())
    if not abs(mass - 1) < 1e-6 or bool((values < 0).any()):
        got = f"minimum {float(values.min()):.3g} and integral {mass:.8g}"
        raise ValueError(f"density: got {got}, expected >= 0 and 1; try dividing by the integral, or more modes")
    return values / mass


def _warn_if_unresolved(last: Tensor, modes: int) -> None:
    size = float(last.abs().max())
    if size > 1e-6:
        cut = f"the initial density has a mode of size {size:.1e} at the cut-off {modes}"
        warnings.warn(f"{cut}: densities at early times will ripple; try more modes", stacklevel=3)
