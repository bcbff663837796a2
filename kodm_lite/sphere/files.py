"""Fields of xarray, as geophysicists read them from NetCDF, to coefficients and back.  Book: The sphere.

Attributes are believed: what says that it is packed, a date, in radians or on another kind of grid is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from kodm_lite.sphere.latlon import LatLonGrid
from kodm_lite.validation import told

if TYPE_CHECKING:
    import xarray

__all__ = ["from_xarray", "to_xarray"]

_SHORT = {"latitude": "lat", "longitude": "lon"}
_UNITS = {  # as the CF conventions spell them
    "latitude": {"degrees_north", "degree_north", "degrees_n", "degree_n", "degreesn", "degreen"},
    "longitude": {"degrees_east", "degree_east", "degrees_e", "degree_e", "degreese", "degreee"},
}
_ANY_DEGREES = {"", "1", "degrees", "degree", "deg", "°", "none"}
_PACKED = ("scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned")  # gone from what is decoded


def from_xarray(array: xarray.DataArray, L: int | None = None) -> tuple[Tensor, LatLonGrid]:
    """Coefficients of a DataArray, read for instance from NetCDF, and its grid; needs ``kodm-lite[netcdf]``.

    Args:
        array: with coordinates in degrees named latitude (lat) and longitude (lon), or with that standard name, or
            units such as degrees_north and degrees_east.  Other dimensions come first.
        L: band limit; by default the largest that the grid allows.

    Raises:
        ValueError: raw numbers of a file, dates, truth values; no coordinates, or such as :class:`LatLonGrid` refuses.
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

    if not isinstance(grid, LatLonGrid):
        raise ValueError(f"grid: got {told(grid)}, expected a LatLonGrid; try the one that from_xarray returned")
    values = grid.synthesis(c).detach()
    if like is not None:
        like, names = _ordered(like)
        same = [np.array_equal(like[k].values, x) for k, x in zip(names, (grid.latitude, grid.longitude), strict=True)]
        if like.shape != values.shape or not all(same):
            expected = f"{tuple(values.shape)} with the coordinates of the grid"
            raise ValueError(f"like: got shape {like.shape}, expected {expected}; try the array that c is from")
        name = name or (None if like.name is None else str(like.name)) or "field"
        return xarray.DataArray(values.numpy(), coords=like.coords, dims=like.dims, name=name, attrs=like.attrs)
    if values.ndim not in (2, 3):
        raise ValueError(f"c: got shape {tuple(c.shape)}, expected (L^2,) or (n, L^2); try c.flatten(0, -2)")
    dims = ("sample", "latitude", "longitude")[3 - values.ndim :]
    pairs = (("latitude", grid.latitude, "degrees_north"), ("longitude", grid.longitude, "degrees_east"))
    coordinates = {key: (key, x, {"standard_name": key, "units": units}) for key, x, units in pairs}
    return xarray.DataArray(values.numpy(), dims=dims, coords=coordinates, name=name or "field")


def _ordered(array: Any) -> tuple[xarray.DataArray, list[str]]:
    """The array with latitude and rising longitude last, and the names of these two."""
    import xarray

    if not isinstance(array, xarray.DataArray):
        raise ValueError(f"array: got {told(array)}, expected a DataArray with coordinates; try dataset[name]")
    _check_values(array)
    found = [_coordinate(array, kind) for kind in _SHORT]
    lines = [coordinate.dims[0] for coordinate in found]
    if lines[0] == lines[1]:
        hint = "kodm_lite.sphere.point_transform, or interpolating to a grid"
        raise ValueError(f"array: got points along {lines[0]!r} alone, expected a grid; try {hint}")
    names = [str(coordinate.name) for coordinate in found]
    array = array.swap_dims({line: name for line, name in zip(lines, names, strict=True) if line != name})
    return array.transpose(..., *names).sortby(names[1]), names


def _check_values(array: xarray.DataArray) -> None:
    """Refuse numbers that are codes for others, or stand for no numbers."""
    _refuse_packed(array, "array")
    kind, units = array.dtype.kind, str(array.attrs.get("units", ""))
    if kind in "mMOSU" or " since " in units:
        got, hint = f"{array.dtype} values, units {units!r}", "(array - array.min()) / np.timedelta64(1, 'h')"
        raise ValueError(f"array: got {got}, expected real numbers, no dates or words; try {hint}")
    if kind == "b":
        raise ValueError("array: got truth values, expected a field of real numbers; try array.astype(float)")
    if kind in "iuf" and array.size and float(np.nanmax(np.abs(array.values), initial=0)) > 1e30:
        raise ValueError("array: got values beyond 1e30, expected no stand-ins for gaps; try array.where(array < 1e30)")


def _refuse_packed(array: xarray.DataArray, name: str) -> None:
    left = ", ".join(f"{key} = {array.attrs[key]}" for key in _PACKED if key in array.attrs)
    if left:
        raise ValueError(f"{name}: got raw numbers of a file with {left}, expected values; try xr.decode_cf(dataset)")


def _coordinate(array: xarray.DataArray, kind: str) -> xarray.DataArray:
    """The coordinate of latitudes or longitudes, whose values go along one dimension."""
    known = [x for name in array.dims if _is(x := array[name], kind)]
    known = known or [x for x in array.coords.values() if _is(x, kind)]
    if not known:
        expected = f"one of them to be {kind} or {_SHORT[kind]}"
        raise ValueError(f"array: got dimensions {array.dims}, expected {expected}; try array.rename(name={kind!r})")
    if len(known) > 1:
        names = " and ".join(repr(x.name) for x in known)
        raise ValueError(f"array: got {names}, expected one {kind}; try array.drop_vars or .isel")
    (x,) = known
    if x.ndim != 1:
        advice = "interpolating to a grid first, by xesmf" if x.ndim else f"the array before .sel took one {kind}"
        raise ValueError(f"{kind}: got {x.ndim} dimensions {x.dims}, expected one; try {advice}")
    if x.name not in array.coords:
        raise ValueError(f"array: got no values of {x.name}, expected degrees; try array.assign_coords({x.name}=...)")
    _check_coordinate(x, kind)
    return x


def _is(x: xarray.DataArray, kind: str) -> bool:
    names = {str(x.name).lower(), str(x.attrs.get("standard_name", "")).lower()}
    return bool(names & {kind, _SHORT[kind]}) or str(x.attrs.get("units", "")).lower() in _UNITS[kind]


def _check_coordinate(x: xarray.DataArray, kind: str) -> None:
    """Refuse a coordinate whose attributes say that it is something else."""
    _refuse_packed(x, kind)
    units, standard = (str(x.attrs.get(key, "")).lower().strip() for key in ("units", "standard_name"))
    if units not in _UNITS[kind] | _ANY_DEGREES:
        other = f"interpolating to latitudes and longitudes, or the right {kind}"
        hint = f"np.rad2deg({x.name}), with units of degrees" if "rad" in units else other
        raise ValueError(f"{kind}: got units {units!r} of {x.name}, expected degrees; try {hint}")
    if standard not in ("", kind, _SHORT[kind]):
        raise ValueError(f"{kind}: got {x.name} with standard_name {standard!r}, expected {kind!r}; try interpolating")
    if x.dtype.kind not in "iuf":
        raise ValueError(f"{kind}: got {x.dtype} values of {x.name}, expected degrees; try array.assign_coords")
