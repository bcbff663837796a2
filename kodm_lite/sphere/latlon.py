"""Fields on grids of latitude and longitude, as they come in files, to coefficients and back.  Book: The sphere.

Such grids have many forms: from the north or the south, with poles or without, longitudes from 0 or from -180 degrees.
Order by order, least squares with the area of the rings as weights finds the coefficients.  On fields of band limit L
this is exact for any latitudes that leave no large gap, at least L of them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kodm_lite.sphere.harmonics import band_limit, degree_order, legendre, real_scale

if TYPE_CHECKING:
    import xarray

__all__ = ["LatLonGrid", "from_xarray", "to_xarray"]

_WORST = 1e3  # largest amplification of errors by the least squares


class LatLonGrid:
    """A grid of latitudes and longitudes in degrees, and its transform.

    Args:
        latitude: (nlat,), rising or falling, between -90 and 90; at least L.
        longitude: (nlon,), rising, equally spaced around the whole circle, from anywhere; at least 2L - 1.  A last one
            that repeats the first is left out.
        L: band limit; by default the largest that the grid allows.

    Raises:
        ValueError: latitudes that turn back, in radians, or leave too large a gap; longitudes that leave one; too large
            an L.
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
        step = 360 / len(around)
        if not np.allclose(np.diff(around), step, atol=0.02 * step):
            raise ValueError(
                f"longitude: got {around[0]:g}, {around[1] if len(around) > 1 else ''} ... {around[-1]:g}, expected "
                f"{len(around)} values {step:g} degrees apart, around the whole circle"
            )
        most = min(len(self.latitude), (len(around) + 1) // 2)
        self.L = most if L is None else L
        if not 1 <= self.L <= most:
            raise ValueError(
                f"L: got {self.L}, expected at most {most} for {len(self.latitude)} latitudes, {len(around)} longitudes"
            )
        self.theta = torch.from_numpy(np.deg2rad(90 - self.latitude)).clamp(0, math.pi)
        self.phi = torch.from_numpy(np.deg2rad(around))
        self._table = legendre(self.L, self.theta)  # (m, l, ring)
        self._inverse = self._least_squares()

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
        waves = torch.fft.rfft(x, norm="forward")[..., : self.L]
        m = torch.arange(self.L, dtype=torch.float64)
        waves = waves * torch.polar(torch.ones_like(m), -m * self.phi[0])  # rings begin at the first longitude
        parts = torch.einsum("mli,...imp->...lmp", self._inverse, torch.view_as_real(waves))
        a = torch.view_as_complex(parts.contiguous())
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

    def _least_squares(self) -> Tensor:
        edges = np.deg2rad(np.concatenate([[90.0], 0.5 * (self.latitude[1:] + self.latitude[:-1]), [-90.0]]))
        if len(self.latitude) > 1 and self.latitude[1] > self.latitude[0]:
            edges[[0, -1]] = edges[[-1, 0]]
        area = torch.from_numpy(np.abs(np.diff(np.sin(edges)))).clamp(min=1e-12).sqrt()
        inverse = torch.zeros_like(self._table)
        for m in range(self.L):
            columns = (self._table[m, m:] * area).T * math.sqrt(2 * math.pi)  # orthonormal where the rings suffice
            smallest = float(torch.linalg.svdvals(columns)[-1])
            if smallest < 1 / _WORST:
                gap = float(np.abs(np.diff(np.concatenate([[90.0], np.sort(self.latitude)[::-1], [-90.0]]))).max())
                raise ValueError(
                    f"L: got {self.L}, expected a smaller one: these latitudes leave a gap of {gap:.3g} degrees, and "
                    f"errors of the data would grow by more than {_WORST:g} at order {m}"
                )
            inverse[m, m:] = torch.linalg.pinv(columns) * area * math.sqrt(2 * math.pi)
        return inverse


def from_xarray(array: xarray.DataArray, L: int | None = None) -> tuple[Tensor, LatLonGrid]:
    """Coefficients of a DataArray, read for instance from NetCDF, and its grid; needs ``kodm-lite[netcdf]``.

    Args:
        array: with coordinates that are named, or have the standard name, latitude (lat) and longitude (lon), in
            degrees.  Other dimensions come first.
        L: band limit; by default the largest that the grid allows.

    Raises:
        ValueError: no such coordinates, or what :class:`LatLonGrid` refuses.
    """
    names = [_coordinate(array, *kind) for kind in (("latitude", "lat"), ("longitude", "lon"))]
    array = array.transpose(..., *names).sortby(names[1])
    grid = LatLonGrid(array[names[0]].values, array[names[1]].values, L)
    return grid.analysis(array.values), grid


def to_xarray(c: Tensor, grid: LatLonGrid, name: str = "field") -> xarray.DataArray:
    """The field with coefficients c (L^2,) or (n, L^2) as a DataArray, which ``.to_netcdf(path)`` writes."""
    import xarray

    values = grid.synthesis(c)
    if values.ndim not in (2, 3):
        raise ValueError(f"c: got shape {tuple(c.shape)}, expected (L^2,) or (n, L^2)")
    dims = ("sample", "latitude", "longitude")[3 - values.ndim :]
    coordinates = {"latitude": grid.latitude, "longitude": grid.longitude}
    return xarray.DataArray(values.numpy(), dims=dims, coords=coordinates, name=name)


def _coordinate(array: xarray.DataArray, *names: str) -> str:
    for coordinate in array.dims:
        known = {str(coordinate).lower()}
        if coordinate in array.coords:
            known.add(str(array[coordinate].attrs.get("standard_name", "")).lower())
        if known & set(names):
            return str(coordinate)
    raise ValueError(
        f"array: got dimensions {array.dims}, expected one of them to be {' or '.join(names)}; try .rename"
    )


def _vector(values: Any, name: str) -> np.ndarray:
    vector = np.asarray(values, dtype=float)
    if vector.ndim != 1 or not len(vector) or not np.isfinite(vector).all():
        raise ValueError(f"{name}: got shape {vector.shape}, expected finite degrees (n,)")
    return vector
