"""Phases on the globe: coupling to the neighbours on a sphere, by a kernel of distance.  Book: The sphere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kodm_lite.sphere.harmonics import legendre
from kodm_lite.sphere.transform import OnDevices, SphericalTransform
from kodm_lite.validation import check_number, told

__all__ = ["SphericalCoupling", "ZonalKernel", "cap_kernel", "heat_kernel"]


@dataclass(frozen=True)
class ZonalKernel:
    """A weight as a function of angular distance, of width ``radius``, radians: "cap" or "heat"."""

    kind: Literal["cap", "heat"]
    radius: float

    def __post_init__(self) -> None:
        what = "an angle in radians"
        check_number("radius", self.radius, 0, math.pi, "math.radians(radius)", open_low=True, what=what)

    def __call__(self, gamma: Tensor) -> Tensor:
        """The weight at angular distances gamma in [0, pi], radians; same shape."""
        if self.kind == "cap":
            return torch.sigmoid((self.radius - gamma) / (0.1 * self.radius))
        return torch.exp(-(gamma**2) / (2 * self.radius**2))


def cap_kernel(radius: float) -> ZonalKernel:
    """All within a distance alike, smoothly cut off: the weight has fallen to a half at ``radius``, radians."""
    return ZonalKernel("cap", radius)


def heat_kernel(radius: float) -> ZonalKernel:
    """A Gaussian bell: exp(-distance^2 / (2 radius^2)), radians."""
    return ZonalKernel("heat", radius)


class SphericalCoupling(OnDevices):
    """Every point of the sphere listens to its neighbourhood, with weights that depend on the distance alone.

    A convolution with such a kernel multiplies every degree by one number (Funk and Hecke), so that the cost is that of
    a transform.  It takes the place of :class:`kodm_lite.LocalCoupling` in a process, for phases (B, 1, nlat, nlon) on
    the grid; points count by the area they stand for, and parts of exp(i theta) beyond the band limit are left out.

    Args:
        transform: the transform of the grid.
        kernel: weight as a function of angular distance gamma in [0, pi], for instance :func:`cap_kernel`; it is
            divided by its integral, which must be positive, else ValueError.  Only its ``factors`` are kept, by which
            each degree is multiplied (L,), float64; so a function of one's own can be stored, too.
    """

    kind = "spherical"

    def __init__(self, transform: SphericalTransform, kernel: Callable[[Tensor], Tensor]):
        if not isinstance(transform, SphericalTransform):
            raise ValueError(f"transform: got {told(transform)}, expected a SphericalTransform; try one of make_grid")
        if not callable(kernel):
            raise ValueError(f"kernel: got {kernel!r}, expected a function of the distance; try cap_kernel(0.5)")
        self.transform = transform
        nodes, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(8 * transform.L + 200))
        values = kernel(nodes.acos())
        if not isinstance(values, Tensor) or values.is_complex() or values.shape != nodes.shape:
            raise ValueError(f"kernel: got values {told(values)}, expected one real weight each; try torch.exp(-x)")
        values = values.double() * weights
        integral = float(values.sum())
        if not (math.isfinite(integral) and integral > 0):
            raise ValueError(f"kernel: got a kernel with integral {integral:g}, expected above 0; try cap_kernel(0.5)")
        zonal = legendre_polynomials(transform.L, nodes)
        self.factors = ((zonal @ values) / integral).to(transform.ring_weights.device)

    def average(self, x: Tensor) -> Tensor:
        """Weighted mean over the neighbourhood of every point (..., nlat, nlon), real or complex, same shape."""
        if not isinstance(x, Tensor):
            raise ValueError(f"x: got {told(x)}, expected a tensor (..., nlat, nlon); try torch.as_tensor(x)")
        if x.is_complex():
            return torch.complex(self.average(x.real), self.average(x.imag))
        here = self.on(x.device)
        c = here.transform.analysis(x.to(here.transform.ring_weights.dtype))
        mean = here.transform.synthesis(here.factors.to(c.dtype)[here.transform.degree] * c)
        return mean.to(x.dtype) if x.is_floating_point() else mean

    def mean_field(self, theta: Tensor) -> Tensor:
        """z = weighted mean of exp(i theta) around every point, complex, same shape as ``theta``."""
        if not isinstance(theta, Tensor) or not theta.is_floating_point():
            raise ValueError(f"theta: got {told(theta)}, expected phases, radians; try torch.as_tensor(theta)")
        return torch.complex(self.average(theta.cos()), self.average(theta.sin()))

    def transfer(self, shape: tuple[int, ...]) -> Tensor:
        """The factor of every coefficient (L^2,): what the average multiplies each harmonic by."""
        rows, columns = self.transform.grid.shape
        if not isinstance(shape, Sequence) or tuple(shape[-2:]) != (rows, columns):
            raise ValueError(f"shape: got {shape}, expected (..., {rows}, {columns}); try (1, {rows}, {columns})")
        return self.factors[self.transform.degree].float()

    def to_dict(self) -> dict[str, Any]:
        """Plain values that :meth:`from_dict` turns back into an equal coupling."""
        return {"kind": self.kind, "transform": self.transform.to_dict(), "factors": self.factors.tolist()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SphericalCoupling:
        """Inverse of :meth:`to_dict`; ValueError for other entries, and for factors that belong to no kernel."""
        if not isinstance(data, dict) or set(data) - {"kind"} != {"transform", "factors"}:
            raise ValueError(f"coupling: got {data!r}, expected transform and factors; try coupling.to_dict()")
        transform, factors = SphericalTransform.from_dict(data["transform"]), data["factors"]
        fine = isinstance(factors, list) and all(type(x) in (int, float) and math.isfinite(x) for x in factors)
        fine = fine and len(factors) == transform.L and abs(factors[0] - 1) < 1e-6
        if not fine or data.get("kind", cls.kind) != cls.kind:
            expected = f"kind {cls.kind!r} and {transform.L} finite factors, the first 1"
            raise ValueError(f"coupling: got {data!r:.200}, expected {expected}; try coupling.to_dict()")
        coupling = cls.__new__(cls)
        coupling.transform, coupling.factors = transform, torch.tensor(factors, dtype=torch.float64)
        return coupling

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SphericalCoupling) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(repr(self.to_dict()))


def legendre_polynomials(L: int, x: Tensor) -> Tensor:
    """P_l(x) for l < L, (L, P): zonal harmonics, 1 at x = 1."""
    l = torch.arange(L, dtype=torch.float64)
    return legendre(L, x.acos())[0] / ((2 * l + 1) / (4 * math.pi)).sqrt()[:, None]
