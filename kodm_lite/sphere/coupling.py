"""Phases on the globe: coupling to the neighbours on a sphere, by a kernel of distance.  Book: The sphere."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from kodm_lite.sphere.harmonics import degrees, legendre
from kodm_lite.sphere.transform import SphericalTransform

__all__ = ["SphericalCoupling", "cap_kernel", "heat_kernel"]

Kernel = Callable[[Tensor], Tensor]


def cap_kernel(radius: float) -> Kernel:
    """All within a distance alike, smoothly cut off at its edge.

    Args:
        radius: angular distance at which the weight has fallen to a half, radians.
    """
    _check_radius(radius)
    return lambda gamma: torch.sigmoid((radius - gamma) / (0.1 * radius))


def heat_kernel(radius: float) -> Kernel:
    """A Gaussian bell: exp(-distance^2 / (2 radius^2)), radians."""
    _check_radius(radius)
    return lambda gamma: torch.exp(-(gamma**2) / (2 * radius**2))


class SphericalCoupling:
    """Every point of the sphere listens to its neighbourhood, with weights that depend on the distance alone.

    A convolution with such a kernel multiplies every degree by one number (Funk and Hecke), so that the cost is that of
    a transform.  It takes the place of :class:`kodm_lite.LocalCoupling` in a process, for phases (B, 1, nlat, nlon) on
    the grid; points count by the area they stand for, and parts of exp(i theta) beyond the band limit are left out.

    Args:
        transform: the transform of the grid.
        kernel: weight as a function of angular distance gamma in [0, pi], for instance :func:`cap_kernel`; it is
            divided by its integral.

    Raises:
        ValueError: a kernel whose integral is not positive.
    """

    def __init__(self, transform: SphericalTransform, kernel: Kernel):
        self.transform, self.kernel = transform, kernel
        nodes, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(8 * transform.L + 200))
        gamma = nodes.acos()
        zonal = legendre_polynomials(transform.L, nodes)
        values = kernel(gamma).double() * weights
        integral = float(values.sum())
        if not (math.isfinite(integral) and integral > 0):
            raise ValueError(f"kernel: got a kernel with integral {2 * math.pi * integral:g}, expected a positive one")
        self.factors = (zonal @ values) / integral  # (L,): by how much each degree is multiplied

    def average(self, x: Tensor) -> Tensor:
        """Weighted mean over the neighbourhood of every point; real or complex (..., nlat, nlon), same shape.

        Means of whole numbers and of truth values have the dtype of the transform.
        """
        if x.is_complex():
            return torch.complex(self.average(x.real), self.average(x.imag))
        transform = self.transform
        c = transform.analysis(x.to(transform.ring_weights))
        factors = self.factors.to(c)[degrees(transform.L).to(c.device)]
        mean = transform.synthesis(factors * c)
        return mean.to(x) if x.is_floating_point() else mean

    def mean_field(self, theta: Tensor) -> Tensor:
        """z = weighted mean of exp(i theta) around every point, complex, same shape as ``theta``."""
        return torch.complex(self.average(theta.cos()), self.average(theta.sin()))

    def transfer(self, shape: tuple[int, ...]) -> Tensor:
        """The factor of every coefficient (L^2,): what the average multiplies each harmonic by."""
        if tuple(shape[-2:]) != self.transform.grid.shape:
            rows, columns = self.transform.grid.shape
            raise ValueError(f"shape: got {tuple(shape)}, expected (..., {rows}, {columns}), that of the grid")
        return self.factors[degrees(self.transform.L)].float()


def legendre_polynomials(L: int, x: Tensor) -> Tensor:
    """P_l(x) for l < L, (L, P): zonal harmonics, 1 at x = 1."""
    l = torch.arange(L, dtype=torch.float64)
    return legendre(L, x.acos())[0] / ((2 * l + 1) / (4 * math.pi)).sqrt()[:, None]


def _check_radius(radius: float) -> None:
    if not 0 < radius <= math.pi:
        raise ValueError(f"radius: got {radius}, expected an angle in (0, pi], radians; try math.radians(radius)")
