r"""The exact law of globally coupled phases at frozen coefficients: one complex number undoes the coupling.

With kappa = K/D, rho_i = (K_ref/D) e^{i psi_i} and z = mean_j e^{i theta_j}, the stationary law is

.. math:: p(\theta) = \frac1Z \exp\Bigl(\tfrac{\kappa N}2 |z|^2 + \sum_i \Re(\bar\rho_i e^{i\theta_i})\Bigr) .

The square is what couples the phases, and a Gaussian integral over a field h takes it apart:

.. math:: e^{\kappa N |z|^2 / 2} = \frac N{2\pi\kappa} \int d^2h\, e^{-N |h|^2 / 2\kappa + N \Re(\bar h z)},
          \qquad Z = \frac N{2\pi\kappa} \int d^2h\, e^{-N |h|^2 / 2\kappa} \prod_i 2\pi I_0(|h + \rho_i|) .

Given h the phases are independent von Mises draws in the fields h + rho_i.  So an integral over a plane gives Z, and a
draw of h makes exact draws of all phases, however many there are and however strongly they pull on each other.

Source: Stratonovich 1957; Hubbard 1959.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from kodm_lite.randomness import Generators, uniform

__all__ = ["FieldInReferences", "SharedField"]

_NEGLECTED = 40.0  # logarithms of a density that are so far below the largest one are left out
_REACH = 10.0  # h lies within so many of its standard deviations of kappa z, whose modulus is at most kappa
_POINTS, _ROWS = 4097, 513  # moduli of a table along one direction, and of one in the plane
_WEAKEST = 1e-12  # kappa, below which phases are independent to all digits
_MODES = 512  # of the Fourier series in direction


class SharedField:
    """The law of g = h + rho for one reference phase: of its modulus from a table, of its direction von Mises.

    The integral over directions is a Bessel function, which leaves one over a = abs(g),

        Z = (N / kappa) (2 pi)^N int a da exp(-N (a - rho)^2 / 2 kappa + N ln I0(a)) i0e(N a rho / kappa) .

    Args:
        kappa: coupling over diffusion.
        rho: reference coupling over diffusion.
        phase: of the reference, radians.
        count: number N of phases.
    """

    def __init__(self, kappa: float, rho: float, phase: float, count: int):
        kappa = max(kappa, _WEAKEST)
        self.sharpness, self.rho, self.phase, self.count = count / kappa, rho, phase, count
        self.pull = self.sharpness * rho
        width = 1 / math.sqrt(self.sharpness)
        reach = kappa + _REACH * width
        self.moduli = _where_it_counts(self._log_density, max(0.0, rho - reach), rho + reach, width / 4, _POINTS)
        log_density = self._log_density(self.moduli)
        self.cumulative = _cumulative(log_density)
        integral = _log_integral(log_density, self.moduli)
        self.log_normaliser = math.log(self.sharpness) + count * math.log(2 * math.pi) + integral

    def _log_density(self, a: Tensor) -> Tensor:
        pull = -0.5 * self.sharpness * (a - self.rho) ** 2 + torch.special.i0e(self.pull * a).log()
        return a.log() + pull + self.count * _log_i0(a)

    def draw(self, like: Tensor, generator: Generators = None) -> Tensor:
        """Moduli of h + rho, one for each entry of ``like``, which is float64, (B, 1, ...).

        The direction is then von Mises around the reference, with the concentration ``pull`` times the modulus.
        """
        row, between = _from_table(self.cumulative.to(like.device), uniform(like, generator))
        return self.moduli[0].to(like) + (row + between) * (self.moduli[1] - self.moduli[0]).to(like)


class FieldInReferences:
    """The law of h for a reference phase of each pixel, from a table in the plane.

    What the pixels say of h = a e^{i phi} is an average of one function of a and of the angle to their references, so
    that its Fourier series in phi is that of the function times the moments c_m = mean e^{i m psi} of the references.

    Args:
        kappa, rho: as of :class:`SharedField`.
        phases: of the reference, one per pixel, radians.
    """

    def __init__(self, kappa: float, rho: float, phases: Tensor):
        self.count, self.rho, self.phases = phases.numel(), rho, phases.detach().cpu().double()
        kappa = max(kappa, _WEAKEST)
        self.sharpness = self.count / kappa
        width = 1 / math.sqrt(self.sharpness)
        reach = kappa + _REACH * width
        flat = self.phases.flatten()
        self.moments = torch.stack([torch.polar(torch.ones_like(flat), m * flat).mean() for m in range(_MODES)])
        self.angles = max(2 * _MODES, 2 ** math.ceil(math.log2(8 * reach / width)))
        self.moduli = _where_it_counts(self._largest, 0.0, reach, width / 2, _ROWS)
        log_density = self._log_density(self.moduli)
        rows = self.moduli.log() + log_density.logsumexp(1) + math.log(2 * math.pi / self.angles)
        self.cumulative, self.cumulative_of_row = _cumulative(rows), _cumulative(log_density)
        integral = _log_integral(rows, self.moduli) + math.log(self.sharpness / (2 * math.pi))
        self.log_normaliser = integral + self.count * math.log(2 * math.pi)

    def _log_density(self, a: Tensor) -> Tensor:
        """At moduli (A,) and at directions -pi to pi; shape (A, angles)."""
        a = a[:, None]
        apart = 2 * math.pi * torch.arange(2 * _MODES, dtype=torch.float64) / (2 * _MODES)
        said = _log_i0(torch.hypot(a + self.rho * apart.cos(), self.rho * apart.sin()))
        series = torch.fft.rfft(said)[:, :_MODES].real / (2 * _MODES) * self.moments.conj()
        shifted = series * (-1.0) ** torch.arange(_MODES)  # so that the first direction is -pi
        average = torch.fft.irfft(shifted * self.angles, self.angles)
        return self.count * average - 0.5 * self.sharpness * a**2

    def _largest(self, a: Tensor) -> Tensor:
        """On each circle, the factor of its length included; that of directions alone is finite at a = 0 too."""
        return a.log() + torch.cat([self._log_density(some).amax(1) for some in a.split(64)])

    def draw(self, like: Tensor, generator: Generators = None) -> Tensor:
        """Fields h + rho_i of all pixels (B, ...), complex; ``like`` is float64, (B, 1, ...)."""
        row, between = _from_table(self.cumulative.to(like.device), uniform(like, generator))
        table = self.cumulative_of_row.to(like.device)[(row + between.round().long()).flatten()]
        angle, part = _from_table(table, uniform(like, generator).reshape(-1, 1))
        direction = (angle + part).reshape(like.shape) * (2 * math.pi / self.angles) - math.pi
        a = self.moduli[0].to(like) + (row + between) * (self.moduli[1] - self.moduli[0]).to(like)
        own = torch.polar(torch.full_like(self.phases, self.rho), self.phases)
        return torch.polar(a, direction) + own.to(like.device)


def _where_it_counts(
    log_density: Callable[[Tensor], Tensor], first: float, last: float, step: float, points: int
) -> Tensor:
    """Equally distant moduli where a density between two of them, smooth on the scale of a step, is not negligible."""
    coarse = torch.linspace(first, last, math.ceil((last - first) / step) + 1, dtype=torch.float64)
    values = log_density(coarse)
    counts = (values > values.max() - _NEGLECTED).nonzero()
    low, high = max(int(counts.min()) - 1, 0), min(int(counts.max()) + 1, len(coarse) - 1)
    return torch.linspace(float(coarse[low]), float(coarse[high]), points, dtype=torch.float64)


def _log_integral(log_density: Tensor, x: Tensor) -> float:
    """Logarithm of the integral of a density along an odd number of equally distant points, by Simpson's rule."""
    weights = torch.full_like(x, 2.0)
    weights[1::2], weights[0], weights[-1] = 4.0, 1.0, 1.0
    return float((log_density + weights.log()).logsumexp(0) + torch.log((x[1] - x[0]) / 3))


def _cumulative(log_density: Tensor) -> Tensor:
    """Distribution function between neighbours of a table's last dimension, from 0 to 1."""
    density = (log_density - log_density.amax(-1, keepdim=True)).exp()
    cumulative = torch.nn.functional.pad((density[..., 1:] + density[..., :-1]).cumsum(-1), (1, 0))
    return cumulative / cumulative[..., -1:]


def _from_table(cumulative: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Where distribution functions (..., n) take the values u: after which point, and how far towards the next."""
    below = (torch.searchsorted(cumulative, u.contiguous(), right=True) - 1).clamp(0, cumulative.shape[-1] - 2)
    at = (lambda k: cumulative[k]) if cumulative.ndim == 1 else (lambda k: cumulative.gather(-1, k))
    start, end = at(below), at(below + 1)
    return below, (u - start) / (end - start)


def _log_i0(x: Tensor) -> Tensor:
    return torch.special.i0e(x).log() + x
