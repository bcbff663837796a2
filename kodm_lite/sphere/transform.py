"""From a field on a grid to its coefficients and back.  Book: The sphere.

A Fourier transform along every ring, then one matrix product per order m: L^3 operations and numbers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kodm_lite.sphere.grids import SphereGrid
from kodm_lite.sphere.harmonics import check_points, degree_order, legendre, real_harmonics, real_scale

__all__ = ["PointTransform", "SphericalTransform", "point_transform"]


class SphericalTransform(nn.Module):
    """Analysis and synthesis of real fields of band limit L on a grid: exact inverses of one another on such fields.

    Differentiable, in any batch shape, on the device that the module is on.

    Args:
        grid: from :func:`kodm_lite.sphere.grids.make_grid`.
        dtype: torch.float64, or torch.float32: twice as fast, errors of some 1e-6.

    >>> from kodm_lite.sphere import SphericalTransform, make_grid
    >>> transform = SphericalTransform(make_grid("gauss", 8))
    >>> c = torch.randn(3, 64, dtype=torch.float64)
    >>> x = transform.synthesis(c)
    >>> x.shape, bool(torch.allclose(transform.analysis(x), c))
    (torch.Size([3, 8, 16]), True)
    """

    legendre: Tensor
    ring_weights: Tensor
    _packed: Tensor
    _packed_scale: Tensor
    _planes: Tensor
    _planes_scale: Tensor

    def __init__(self, grid: SphereGrid, dtype: torch.dtype = torch.float64):
        super().__init__()
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype: got {dtype}, expected torch.float32 or torch.float64")
        self.grid, self.L = grid, grid.L
        L, (l, m) = grid.L, degree_order(grid.L)
        plane = (m < 0).long()  # real parts first, then imaginary parts: planes (2, L, L), [part, m, l]
        packed = (plane * L + m.abs()) * L + l
        scale = real_scale(m)
        planes = torch.full((2 * L * L,), L * L)  # an index past the end: a zero
        planes[packed] = torch.arange(L * L)
        planes_scale = torch.ones(2 * L * L, dtype=torch.float64)
        planes_scale[packed] = 1 / scale
        for name, value in (
            ("legendre", legendre(L, grid.theta).to(dtype)),
            ("ring_weights", grid.ring_weights.to(dtype)),
            ("_packed", packed),
            ("_packed_scale", scale.to(dtype)),
            ("_planes", planes),
            ("_planes_scale", planes_scale.to(dtype)),
        ):
            self.register_buffer(name, value, persistent=False)

    def analysis(self, x: Tensor) -> Tensor:
        """Coefficients (..., L^2) of a field (..., nlat, nlon): integrals against the basis, by quadrature.

        Raises:
            ValueError: another grid, complex numbers.
        """
        self._check(x, "x", self.grid.shape, "a field on this grid")
        if not x.numel():
            return x.new_zeros(*x.shape[:-2], self.L**2)
        waves = torch.fft.rfft(x, norm="forward")[..., : self.L] * (2 * math.pi * self.ring_weights[:, None])
        rings = torch.view_as_real(waves).movedim((-2, -1), (0, -2))  # (m, ..., part, ring)
        batch = rings.shape[1:-1]
        a = rings.reshape(self.L, -1, self.grid.nlat) @ self.legendre.mT  # (m, batch and part, l)
        return self.from_planes(a.reshape(self.L, *batch, self.L).movedim(0, -2))

    def synthesis(self, c: Tensor) -> Tensor:
        """The field (..., nlat, nlon) with coefficients (..., L^2).

        Raises:
            ValueError: another number of coefficients, complex numbers.
        """
        self._check(c, "c", (self.L**2,), f"the coefficients of a field with L = {self.L}")
        if not c.numel():
            return c.new_zeros(*c.shape[:-1], *self.grid.shape)
        planes = self.planes(c).movedim(-2, 0)  # (m, ..., part, l)
        rings = planes.reshape(self.L, -1, self.L) @ self.legendre
        rings = rings.reshape(*planes.shape[:-1], self.grid.nlat).movedim((0, -2), (-2, -1))  # (..., ring, m, part)
        return torch.fft.irfft(torch.complex(*rings.unbind(-1)), n=self.grid.nlon, norm="forward")

    def adjoint_analysis(self, c: Tensor) -> Tensor:
        """The transpose of :meth:`analysis`: synthesis times the area of every point."""
        area = self.ring_weights[:, None] * (2 * math.pi / self.grid.nlon)
        return area * self.synthesis(c)

    def evaluate(self, c: Tensor, theta: Tensor, phi: Tensor) -> Tensor:
        """The field at any points: (..., L^2) and (P,) twice to (..., P)."""
        self._check(c, "c", (self.L**2,), f"the coefficients of a field with L = {self.L}")
        return c @ real_harmonics(self.L, theta, phi).to(c).T

    def rotate(self, c: Tensor, rotation: Tensor) -> Tensor:
        """Coefficients of the rotated field x -> f(R^-1 x), without error.

        Args:
            c: (..., L^2).
            rotation: orthogonal matrix R (3, 3) of determinant 1.

        Raises:
            ValueError: a matrix that is no rotation.
        """
        R = torch.as_tensor(rotation, dtype=torch.float64, device=c.device)
        unit = torch.eye(3, dtype=torch.float64, device=c.device)
        if R.shape != (3, 3) or float((R @ R.T - unit).abs().max()) > 1e-6 or float(torch.linalg.det(R)) < 0:
            raise ValueError(
                "rotation: got a matrix that is no rotation, expected R (3, 3) with R R^T = 1 and det R = 1"
            )
        theta, phi = (x.to(c.device) for x in self.grid.points())
        points = torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], 1) @ R  # R^-1 x
        values = self.evaluate(c, points[:, 2].clamp(-1, 1).acos(), torch.atan2(points[:, 1], points[:, 0]))
        return self.analysis(values.reshape(*c.shape[:-1], *self.grid.shape))

    def pack(self, a: Tensor) -> Tensor:
        """Real coefficients (..., L^2) of complex ones (..., L, L), [l, m] with m >= 0.

        Raises:
            ValueError: another shape, orders above the degree, imaginary parts at m = 0.
        """
        if not a.is_complex() or a.shape[-2:] != (self.L, self.L):
            raise ValueError(
                f"a: got {a.dtype} of shape {tuple(a.shape)}, expected complex (..., {self.L}, {self.L}), [l, m]"
            )
        if self._lost(a):
            hint = "transform.pack(a.mT), as these look like [m, l]" if not self._lost(a.mT) else "setting them to zero"
            raise ValueError(
                "a: got numbers at m > l or imaginary parts at m = 0, expected none in the coefficients [l, m] of a "
                f"real field; try {hint}"
            )
        return self.from_planes(torch.view_as_real(a.mT.contiguous()).movedim(-1, -3))

    def unpack(self, c: Tensor) -> Tensor:
        """Complex coefficients (..., L, L), [l, m] with m >= 0, of real ones (..., L^2)."""
        self._check(c, "c", (self.L**2,), f"the coefficients of a field with L = {self.L}")
        planes = self.planes(c)
        return torch.complex(planes[..., 0, :, :], planes[..., 1, :, :]).mT

    def planes(self, c: Tensor) -> Tensor:
        """Real and imaginary parts of a_lm, (..., 2, L, L), [part, m, l]: for work order by order."""
        padded = torch.cat([c, torch.zeros_like(c[..., :1])], -1)
        return (padded[..., self._planes] * self._planes_scale).reshape(*c.shape[:-1], 2, self.L, self.L)

    def from_planes(self, planes: Tensor) -> Tensor:
        """Inverse of :meth:`planes`; what is in places that belong to no coefficient is dropped."""
        return planes.flatten(-3)[..., self._packed] * self._packed_scale

    def _lost(self, a: Tensor) -> bool:
        """Whether more than rounding stands where a real field has no coefficients."""
        above = torch.cat([a.detach().triu(1).abs(), a.detach()[..., :1].imag.abs()], -1)
        largest = a.detach().abs().nan_to_num().amax() if a.numel() else 0.0
        return not bool((above <= largest * torch.finfo(a.dtype).eps ** 0.5).all())

    def _check(self, x: Tensor, name: str, shape: tuple[int, ...], expected: str) -> None:
        if x.is_complex() or tuple(x.shape[-len(shape) :]) != shape:
            sizes = ", ".join(map(str, shape))
            raise ValueError(
                f"{name}: got {x.dtype} of shape {tuple(x.shape)}, expected real (..., {sizes}), {expected}"
            )
        dtype = self.ring_weights.dtype
        if x.dtype != dtype:
            raise ValueError(f"{name}: got {x.dtype}, expected {dtype}, that of the transform; try {name}.to({dtype})")


class PointTransform(NamedTuple):
    """Synthesis and analysis as matrices, for points in no order.

    Args:
        synthesis: Y (P, L^2), values of the basis.
        analysis: A = Y^T W (L^2, P); the inverse of Y up to the error of the quadrature.
    """

    synthesis: Tensor
    analysis: Tensor


def point_transform(L: int, theta: Tensor, phi: Tensor, weights: Tensor | None = None) -> PointTransform:
    """The transform of any set of points as dense matrices: for few points, designs, and to check the fast one.

    Args:
        L: band limit.
        theta, phi: points (P,), radians.
        weights: quadrature weights (P,), sum 4 pi; equal ones by default.

    Raises:
        ValueError: no points, or weights that do not sum to 4 pi.
    """
    check_points(theta, phi)
    if not len(theta):
        raise ValueError("theta, phi: got no points, expected at least one; try icosahedron_points()")
    values = real_harmonics(L, theta, phi)
    if weights is None:
        weights = torch.full_like(theta, 4 * math.pi / len(theta))
    total = float(weights.double().sum())
    if weights.shape != theta.shape or not math.isclose(total, 4 * math.pi, rel_tol=1e-3):
        raise ValueError(
            f"weights: got shape {tuple(weights.shape)} and sum {total:g}, expected {tuple(theta.shape)} and 4 pi, the "
            "area of the sphere; try weights * (4 * math.pi / weights.sum())"
        )
    return PointTransform(values, values.T * weights.double())
