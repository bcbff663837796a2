"""Fields on grids of latitude and longitude, as they come in files, to coefficients and back.  Book: The sphere.

Such grids have many forms: from the north or the south, with poles or without, longitudes from 0 or from -180 degrees.
Order by order, least squares with the area of the rings as weights finds the coefficients.  On fields of band limit L
this is exact for any latitudes that leave no large gap, at least L of them.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kodm_lite.sphere.harmonics import band_limit, check_band_limit, degree_order, legendre, real_scale

if TYPE_CHECKING:
    import xarray

__all__ = ["LatLonGrid", "from_xarray", "to_xarray"]

_WORST, _NOTABLE = 10.0, 3.0  # amplifications of errors that are refused, and that are worth a warning
_UNITS = {  # as the CF conventions spell them
    "latitude": {"degrees_north", "degree_north", "degrees_n", "degree_n", "degreesn", "degreen"},
    "longitude": {"degrees_east", "degree_east", "degrees_e", "degree_e", "degreese", "degreee"},
}


class LatLonGrid:
    """A grid of latitudes and longitudes in degrees, and its transform.

    Args:
        latitude: (nlat,), rising or falling, between -90 and 90; at least L.
        longitude: (nlon,), rising, equally spaced around the whole circle, from anywhere; at least 2L - 1.  A last one
            that repeats the first is left out.
        L: band limit; by default the largest that the grid allows.

    Attributes:
        amplification: largest factor by which least squares can enlarge errors of the data, and what in them is finer
            than L, in root mean square over the sphere: 1 at best, hardly more than 2 on grids of the whole sphere.

    Raises:
        ValueError: latitudes that turn back or are in radians; longitudes that leave a gap, overlap, or do not rise;
            an L that needs more of them, or makes the amplification larger than 10.

    Warns:
        UserWarning: an amplification of more than 3, as where the poles are cut off.
    """

    def __init__(self, latitude: Any, longitude: Any, L: int | None = None):
        self.latitude = _vector(latitude, "latitude")
        self.longitude = _vector(longitude, "longitude")
        gaps = np.diff(self.latitude)
        if len(gaps) and not (np.all(gaps > 0) or np.all(gaps < 0)):
            k = int(np.argmax(gaps * gaps[0] <= 0))
            raise ValueError(
                f"latitude: got {self.latitude[k]:g} followed by {self.latitude[k + 1]:g}, expected values that rise "
                "or fall; try array.sortby('latitude')"
            )
        if np.abs(self.latitude).max() > 90 + 1e-6:
            raise ValueError(f"latitude: got {np.abs(self.latitude).max():g}, expected degrees in [-90, 90]")
        if np.abs(self.latitude).max() <= math.pi / 2 and len(self.latitude) > 2:
            raise ValueError(
                f"latitude: got values up to {np.abs(self.latitude).max():g}, expected degrees of the whole sphere; "
                "try np.rad2deg(latitude) if these are radians"
            )
        turns = len(self.longitude) > 1 and math.isclose(self.longitude[-1] - self.longitude[0], 360, abs_tol=1e-3)
        self.repeated = bool(turns)
        around = self.longitude[:-1] if turns else self.longitude
        _check_turn(around)
        self.theta = torch.from_numpy(np.deg2rad(90 - self.latitude)).clamp(0, math.pi)
        self.phi = torch.from_numpy(np.deg2rad(around))
        root = _ring_weights(self.latitude).sqrt()
        most = min(len(self.latitude), (len(around) + 1) // 2)
        self.L = self._largest(most, root, _WORST) if L is None else check_band_limit(L)
        self._table = legendre(min(self.L, most), self.theta)  # (m, l, ring)
        self.amplification = _amplification(self._table * root) if self.L <= most else math.inf
        gap = float(np.abs(np.diff(np.concatenate([[90.0], np.sort(self.latitude)[::-1], [-90.0]]))).max())
        if self.amplification > _WORST:
            limit = self._largest(most, root, _WORST)
            raise ValueError(
                f"L: got {self.L}, expected at most {limit} for {len(around)} longitudes and {len(self.latitude)} "
                f"latitudes with a gap of {gap:.3g} degrees, or errors grow by more than {_WORST:g}; try L={limit}"
            )
        if self.amplification > _NOTABLE:
            limit = self._largest(most, root, _NOTABLE)
            warnings.warn(
                f"L: at {self.L} errors of the data, and what in them is finer than L, can grow by a factor "
                f"{self.amplification:.2g}, as the latitudes leave a gap of {gap:.3g} degrees; try L={limit}",
                stacklevel=2,
            )
        self._inverse = _least_squares(self._table * root) * root

    def analysis(self, field: Any) -> Tensor:
        """Coefficients (..., L^2), float64, of a field (..., nlat, nlon).

        Raises:
            ValueError: another shape, complex numbers, or NaN, for instance of a land mask.
        """
        if not isinstance(field, Tensor):  # masked values are gaps, and flipped arrays have no place in torch
            field = np.ma.asarray(field)
            kind = complex if np.iscomplexobj(field) else float
            field = torch.from_numpy(np.ascontiguousarray(np.ma.filled(field.astype(kind), np.nan)))
        x = field
        shape = (len(self.latitude), len(self.longitude))
        if x.is_complex() or tuple(x.shape[-2:]) != shape:
            raise ValueError(
                f"field: got {x.dtype} of shape {tuple(x.shape)}, expected real (..., {shape[0]}, {shape[1]})"
            )
        x = x.double()
        missing = int((~torch.isfinite(x)).sum())
        if missing:
            raise ValueError(f"field: got {missing} values NaN or infinite, expected none; try filling the gaps first")
        if self.repeated:
            x = x[..., :-1]
        if not x.numel():
            return x.new_zeros(*x.shape[:-2], self.L**2)
        waves = torch.fft.rfft(x, norm="forward")[..., : self.L]
        m = torch.arange(self.L, dtype=torch.float64)
        waves = waves * torch.polar(torch.ones_like(m), -m * self.phi[0])  # rings begin at the first longitude
        parts = torch.einsum("mli,...imp->...lmp", self._inverse, torch.view_as_real(waves))
        a = torch.complex(*parts.unbind(-1))
        l, m = degree_order(self.L)
        value = a[..., l, m.abs()]
        return torch.where(m < 0, value.imag, value.real) * real_scale(m)

    def synthesis(self, c: Tensor) -> Tensor:
        """The field (..., nlat, nlon), float64, with coefficients (..., L^2)."""
        if band_limit(c) != self.L:
            raise ValueError(f"c: got coefficients of L = {band_limit(c)}, expected L = {self.L}")
        l, m = degree_order(self.L)
        parts = c.double() * real_scale(m)
        cosines, sines = (torch.zeros(*c.shape[:-1], self.L, self.L, dtype=torch.float64) for _ in range(2))
        cosines[..., m[m >= 0], l[m >= 0]] = parts[..., m >= 0]
        sines[..., -m[m < 0], l[m < 0]] = parts[..., m < 0]
        turns = torch.arange(self.L, dtype=torch.float64)[:, None] * self.phi
        rings = torch.stack([torch.einsum("...ml,mli->...im", x, self._table) for x in (cosines, sines)])
        field = rings[0] @ turns.cos() - rings[1] @ turns.sin()
        return torch.cat([field, field[..., :1]], -1) if self.repeated else field

    def _largest(self, most: int, root: Tensor, worst: float) -> int:
        """The largest L with at most an amplification; one is always fine, as a mean amplifies nothing."""
        columns = legendre(most, self.theta) * root
        return next((L for L in range(most, 1, -1) if _amplification(columns[:L, :L], worst) <= worst), 1)


def _check_turn(around: np.ndarray) -> None:
    """Refuse longitudes that do not rise in equal steps around the circle."""
    step = 360 / len(around)
    if np.abs(around - around[0] - np.arange(len(around)) * step).max() <= 0.02 * step:
        return
    gaps = np.diff(np.append(around, around[0] + 360))
    if (gaps[:-1] <= 0).any():
        raise ValueError(
            f"longitude: got {around[0]:g} ... {around[-1]:g}, which do not always rise, expected rising values; try "
            "order = np.argsort(longitude), with longitude[order] and field[..., order]"
        )
    if gaps[-1] < 0.5 * gaps[:-1].max():
        extra = int((around > around[0] + 360 - 0.5 * gaps[:-1].max()).sum())
        raise ValueError(
            f"longitude: got {around[0]:g} ... {around[-1]:g}, more than one turn, expected one; try dropping the last "
            f"{extra} columns, which overlap with the first"
        )
    widest = int(gaps.argmax())
    raise ValueError(
        f"longitude: got a gap of {gaps[widest]:g} degrees after {around[widest]:g}, expected equal steps around the "
        "whole circle; try filling the gap, or interpolating to equal steps"
    )


def _ring_weights(latitude: np.ndarray) -> Tensor:
    """2 pi times the area of the rings in sin latitude: with them harmonics are orthonormal where rings suffice."""
    edges = np.deg2rad(np.concatenate([[90.0], 0.5 * (latitude[1:] + latitude[:-1]), [-90.0]]))
    if len(latitude) > 1 and latitude[1] > latitude[0]:
        edges[[0, -1]] = edges[[-1, 0]]
    return torch.from_numpy(np.abs(np.diff(np.sin(edges)))).clamp(min=1e-12) * (2 * math.pi)


def _amplification(columns: Tensor, enough: float = math.inf) -> float:
    """Inverse of the smallest singular value of weighted columns (m, l, ring) over all orders; stops where enough."""
    largest = 1.0
    for m in range(len(columns)):
        smallest = float(torch.linalg.eigvalsh(columns[m, m:] @ columns[m, m:].T)[0])
        largest = max(largest, max(smallest, 1e-30) ** -0.5)
        if largest > enough:
            break
    return largest


def _least_squares(columns: Tensor) -> Tensor:
    """R^-1 Q^T order by order of weighted columns Q R (m, l, ring)."""
    inverse = torch.zeros_like(columns)
    for m in range(len(columns)):
        Q, R = torch.linalg.qr(columns[m, m:].T)
        inverse[m, m:] = torch.linalg.solve_triangular(R, Q.T, upper=True)
    return inverse


def from_xarray(array: xarray.DataArray, L: int | None = None) -> tuple[Tensor, LatLonGrid]:
    """Coefficients of a DataArray, read for instance from NetCDF, and its grid; needs ``kodm-lite[netcdf]``.

    Args:
        array: with coordinates in degrees that are named latitude (lat) and longitude (lon), or have that standard
            name, or units such as degrees_north and degrees_east.  Other dimensions come first.
        L: band limit; by default the largest that the grid allows.

    Raises:
        ValueError: no DataArray, no such coordinates, or what :class:`LatLonGrid` refuses.
    """
    array, names = _ordered(array)
    grid = LatLonGrid(array[names[0]].values, array[names[1]].values, L)
    return grid.analysis(array.values), grid


def to_xarray(
    c: Tensor, grid: LatLonGrid, name: str | None = None, like: xarray.DataArray | None = None
) -> xarray.DataArray:
    """The field with coefficients c (L^2,) or (n, L^2) as a DataArray, which ``.to_netcdf(path)`` writes.

    Args:
        c: coefficients; with ``like`` of its batch shape.
        grid: where the field is wanted.
        name: of the field; by default that of ``like``, or "field".
        like: what :func:`from_xarray` read: gives the other coordinates, such as times, and the attributes.

    Raises:
        ValueError: coefficients of another shape, a ``like`` on another grid.
    """
    import xarray

    values = grid.synthesis(c).detach()
    if like is not None:
        like, names = _ordered(like)
        same = [np.array_equal(like[k].values, x) for k, x in zip(names, (grid.latitude, grid.longitude), strict=True)]
        if like.shape != values.shape or not all(same):
            raise ValueError(
                f"like: got shape {like.shape}, expected {tuple(values.shape)} with the coordinates of the grid; try "
                "the array that the coefficients are from"
            )
        name = name or (None if like.name is None else str(like.name)) or "field"
        return xarray.DataArray(values.numpy(), coords=like.coords, dims=like.dims, name=name, attrs=like.attrs)
    if values.ndim not in (2, 3):
        raise ValueError(f"c: got shape {tuple(c.shape)}, expected (L^2,) or (n, L^2)")
    dims = ("sample", "latitude", "longitude")[3 - values.ndim :]
    coordinates = {
        "latitude": ("latitude", grid.latitude, {"standard_name": "latitude", "units": "degrees_north"}),
        "longitude": ("longitude", grid.longitude, {"standard_name": "longitude", "units": "degrees_east"}),
    }
    return xarray.DataArray(values.numpy(), dims=dims, coords=coordinates, name=name or "field")


def _ordered(array: xarray.DataArray) -> tuple[xarray.DataArray, list[str]]:
    """The array with latitude and rising longitude last, and the names of these two."""
    import xarray

    if not isinstance(array, xarray.DataArray):
        raise ValueError(
            f"array: got {type(array).__name__}, expected a DataArray with coordinates; try one variable, dataset[name]"
        )
    names = [_coordinate(array, *kind) for kind in (("latitude", "lat"), ("longitude", "lon"))]
    return array.transpose(..., *names).sortby(names[1]), names


def _coordinate(array: xarray.DataArray, name: str, short: str) -> str:
    for dimension in map(str, array.dims):
        attributes = array[dimension].attrs
        known = {dimension.lower(), str(attributes.get("standard_name", "")).lower()}
        if known & {name, short} or str(attributes.get("units", "")).lower() in _UNITS[name]:
            if dimension not in array.coords:
                raise ValueError(
                    f"array: got no values of {dimension}, expected degrees; try "
                    f"array.assign_coords({dimension}=...) with the {name}s"
                )
            return dimension
    raise ValueError(f"array: got dimensions {array.dims}, expected one of them to be {name} or {short}; try .rename")


def _vector(values: Any, name: str) -> np.ndarray:
    if np.ma.is_masked(values):
        raise ValueError(f"{name}: got masked values, expected degrees for all; try leaving those out")
    vector = np.asarray(values, dtype=float)
    if vector.ndim != 1 or not len(vector) or not np.isfinite(vector).all():
        raise ValueError(f"{name}: got shape {vector.shape}, expected finite degrees (n,)")
    return vector
