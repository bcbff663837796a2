"""From a field on a grid to its coefficients and back.  Book: The sphere.

A Fourier transform along every ring, then one matrix product per order m: L^3 operations and numbers.
"""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from kodm_lite.sphere.grids import SphereGrid, make_grid
from kodm_lite.sphere.harmonics import degree_order, legendre, real_harmonics, real_scale
from kodm_lite.sphere.inputs import check_points, check_real
from kodm_lite.validation import check_count, told

__all__ = ["LARGEST", "OnDevices", "Packing", "PointTransform", "SphericalTransform", "point_transform"]

LARGEST = 512  # of the sizes of a stored grid: at most seconds of work


class Packing(nn.Module):
    """Between coefficients (..., L^2) and the real and imaginary parts of a_lm, for work order by order."""

    degree: Tensor
    _packed: Tensor
    _packed_scale: Tensor
    _planes: Tensor
    _planes_scale: Tensor

    def __init__(self, L: int, dtype: torch.dtype):
        super().__init__()
        self.L, (l, m) = L, degree_order(L)
        packed = ((m < 0).long() * L + m.abs()) * L + l  # places in planes (2, L, L), [part, m, l]
        scale = real_scale(m)
        planes = torch.full((2 * L * L,), L * L)  # an index past the end: a zero
        planes[packed] = torch.arange(L * L)
        planes_scale = torch.ones(2 * L * L, dtype=torch.float64)
        planes_scale[packed] = 1 / scale
        self._keep(degree=l, _packed=packed, _packed_scale=scale.to(dtype))
        self._keep(_planes=planes, _planes_scale=planes_scale.to(dtype))

    def _keep(self, **buffers: Tensor) -> None:
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    def planes(self, c: Tensor) -> Tensor:
        """Real and imaginary parts of a_lm, (..., 2, L, L), [part, m, l]."""
        padded = torch.cat([c, torch.zeros_like(c[..., :1])], -1)
        return (padded[..., self._planes] * self._planes_scale).reshape(*c.shape[:-1], 2, self.L, self.L)

    def from_planes(self, planes: Tensor) -> Tensor:
        """Inverse of :meth:`planes`; what is in places that belong to no coefficient is dropped."""
        return planes.flatten(-3)[..., self._packed] * self._packed_scale


class SphericalTransform(Packing):
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

    def __init__(self, grid: SphereGrid, dtype: torch.dtype = torch.float64):
        if not isinstance(grid, SphereGrid):
            raise ValueError(f"grid: got {told(grid)}, expected a SphereGrid; try make_grid('gauss', 16)")
        if not isinstance(dtype, torch.dtype) or dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype: got {dtype}, expected torch.float32 or torch.float64; try torch.float64")
        super().__init__(grid.L, dtype)
        self.grid = grid
        self._keep(legendre=legendre(grid.L, grid.theta).to(dtype), ring_weights=grid.ring_weights.to(dtype))

    def analysis(self, x: Tensor) -> Tensor:
        """Coefficients (..., L^2) of a real field (..., nlat, nlon): integrals against the basis, by quadrature."""
        self._check(x, "x", self.grid.shape, "fields on this grid")
        if not x.numel():
            return x.new_zeros(*x.shape[:-2], self.L**2)
        waves = torch.fft.rfft(x, norm="forward")[..., : self.L] * (2 * math.pi * self.ring_weights[:, None])
        rings = torch.view_as_real(waves).movedim((-2, -1), (0, -2))  # (m, ..., part, ring)
        batch = rings.shape[1:-1]
        a = rings.reshape(self.L, -1, self.grid.nlat) @ self.legendre.mT  # (m, batch and part, l)
        return self.from_planes(a.reshape(self.L, *batch, self.L).movedim(0, -2))

    def synthesis(self, c: Tensor) -> Tensor:
        """The field (..., nlat, nlon) with coefficients (..., L^2)."""
        self._check_coefficients(c)
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
        self._check_coefficients(c)
        return c @ real_harmonics(self.L, theta, phi).to(c).T

    def rotate(self, c: Tensor, rotation: Tensor) -> Tensor:
        """Coefficients (..., L^2) of the rotated field x -> f(R^-1 x), without error.

        Raises:
            ValueError: what is no orthogonal matrix R (3, 3) of determinant 1.
        """
        self._check_coefficients(c)
        if not isinstance(rotation, Tensor) or rotation.is_complex() or rotation.shape != (3, 3):
            raise ValueError(f"rotation: got {told(rotation)}, expected a tensor R (3, 3); try torch.tensor(R)")
        R = rotation.to(c.device, torch.float64)
        unit = torch.eye(3, dtype=torch.float64, device=c.device)
        if not float((R @ R.T - unit).abs().max()) <= 1e-6 or float(torch.linalg.det(R)) < 0:
            raise ValueError("rotation: got no rotation, expected R R^T = 1 and det R = 1; try scipy's Rotation")
        theta, phi = (x.to(c.device) for x in self.grid.points())
        points = torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], 1) @ R  # R^-1 x
        values = self.evaluate(c, points[:, 2].clamp(-1, 1).acos(), torch.atan2(points[:, 1], points[:, 0]))
        return self.analysis(values.reshape(*c.shape[:-1], *self.grid.shape))

    def pack(self, a: Tensor) -> Tensor:
        """Real coefficients (..., L^2) of complex ones (..., L, L), [l, m] with m >= 0.

        Raises:
            ValueError: another shape, orders above the degree, imaginary parts at m = 0.
        """
        own = torch.complex128 if self.ring_weights.dtype == torch.float64 else torch.complex64
        if not isinstance(a, Tensor) or a.dtype != own or a.shape[-2:] != (self.L, self.L):
            raise ValueError(f"a: got {told(a)}, expected {own} (..., {self.L}, {self.L}), [l, m]; try a.to({own})")
        if self._lost(a):
            hint = "transform.pack(a.mT)" if not self._lost(a.mT) else "setting them to zero"
            raise ValueError(f"a: got numbers at m > l or imaginary ones at m = 0, expected none; try {hint}")
        return self.from_planes(torch.view_as_real(a.mT.contiguous()).movedim(-1, -3))

    def unpack(self, c: Tensor) -> Tensor:
        """Complex coefficients (..., L, L), [l, m] with m >= 0, of real ones (..., L^2)."""
        self._check_coefficients(c)
        planes = self.planes(c)
        return torch.complex(planes[..., 0, :, :], planes[..., 1, :, :]).mT

    def to_dict(self) -> dict[str, Any]:
        """Plain values that :meth:`from_dict` turns back into this transform."""
        grid, dtype = self.grid, str(self.ring_weights.dtype).removeprefix("torch.")
        return {"grid": grid.kind, "L": self.L, "nlat": grid.nlat, "nlon": grid.nlon, "dtype": dtype}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SphericalTransform:
        """Inverse of :meth:`to_dict`; ValueError for other entries and sizes."""
        if not isinstance(data, dict) or set(data) != {"grid", "L", "nlat", "nlon", "dtype"}:
            raise ValueError(f"transform: got {data!r}, expected grid, L, nlat, nlon, dtype; try transform.to_dict()")
        sizes = [data[name] for name in ("L", "nlat", "nlon")]
        if not all(type(n) is int and 1 <= n <= LARGEST for n in sizes):
            raise ValueError(f"transform: got sizes {sizes}, expected whole numbers up to {LARGEST}; try L = 64")
        if data["dtype"] not in ("float32", "float64"):
            raise ValueError(f"transform: got dtype {data['dtype']!r}, expected 'float32' or 'float64'; try 'float64'")
        return cls(make_grid(data["grid"], *sizes), getattr(torch, data["dtype"]))

    def _lost(self, a: Tensor) -> bool:
        """Whether more than rounding stands where a real field has no coefficients."""
        above = torch.cat([a.detach().triu(1).abs(), a.detach()[..., :1].imag.abs()], -1)
        largest = a.detach().abs().nan_to_num().amax() if a.numel() else 0.0
        return not bool((above <= largest * torch.finfo(a.dtype).eps ** 0.5).all())

    def _check_coefficients(self, c: Tensor) -> None:
        self._check(c, "c", (self.L**2,), f"coefficients of a field with L = {self.L}")

    def _check(self, x: Tensor, name: str, shape: tuple[int, ...], expected: str) -> None:
        if not isinstance(x, Tensor) or x.is_complex() or tuple(x.shape[-len(shape) :]) != shape:
            sizes = ", ".join(("...", *map(str, shape)))
            raise ValueError(f"{name}: got {told(x)}, expected real ({sizes}), {expected}; try another transform")
        own, kind = self.ring_weights, self.ring_weights.dtype
        if x.dtype != kind:
            raise ValueError(f"{name}: got {x.dtype}, expected {kind}, that of the transform; try {name}.to({kind})")
        if x.device != own.device:
            raise ValueError(f"{name}: got {x.device}, expected {own.device}; try transform.to({name}.device)")


class OnDevices:
    """What a process holds, and no network moves: copies on other devices are made once, and kept."""

    def on(self, device: torch.device) -> Self:
        """This object itself, or its copy on the device."""
        if device == next((x.device for x in vars(self).values() if isinstance(x, Tensor)), device):
            return self
        kept = self.__dict__.setdefault("_kept", {})
        if device not in kept:
            kept[device] = copy.copy(self)
            for name, x in vars(kept[device]).items():
                if isinstance(x, (Tensor, OnDevices)):
                    setattr(kept[device], name, x.on(device) if isinstance(x, OnDevices) else x.to(device))
                elif isinstance(x, nn.Module):  # which would move itself
                    setattr(kept[device], name, copy.deepcopy(x).to(device))
        return kept[device]

    def __getstate__(self) -> dict[str, Any]:
        return {name: x for name, x in vars(self).items() if name != "_kept"}


class PointTransform(NamedTuple):
    """Matrices for points in no order: Y (P, L^2), values of the basis, and A = Y^T W (L^2, P), its near inverse."""

    synthesis: Tensor
    analysis: Tensor


def point_transform(L: int, theta: Tensor, phi: Tensor, weights: Tensor | None = None) -> PointTransform:
    """The transform of any points (P,), radians, as dense matrices: for few points, designs, and to check the fast one.

    Quadrature weights (P,) have sum 4 pi, and are equal by default.  Raises ValueError for other points or weights.
    """
    L = check_count("L", L)
    check_points(theta, phi)
    if not len(theta):
        raise ValueError("theta, phi: got no points, expected at least one; try icosahedron_points()")
    weights = torch.full_like(theta, 4 * math.pi / len(theta)) if weights is None else weights
    check_real(weights, "weights")
    total = float(weights.double().sum())
    if weights.shape != theta.shape or not math.isclose(total, 4 * math.pi, rel_tol=1e-3):
        got, expected = f"shape {tuple(weights.shape)} and sum {total:g}", f"{tuple(theta.shape)} and sum 4 pi"
        raise ValueError(f"weights: got {got}, expected {expected}; try weights * (4 * math.pi / weights.sum())")
    values = real_harmonics(L, theta, phi)
    return PointTransform(values, values.T * weights.double())
