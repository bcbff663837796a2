"""Fields on grids of latitude and longitude, as they come in files, to coefficients and back.  Book: The sphere.

Such grids have many forms: from the north or the south, with poles or without, longitudes from 0 or from -180 degrees.
Order by order, least squares with the area of the rings as weights finds the coefficients.  On fields of band limit L
this is exact for any latitudes that leave no large gap, at least L of them.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kodm_lite.sphere.harmonics import legendre
from kodm_lite.sphere.inputs import band_limit
from kodm_lite.sphere.transform import Packing
from kodm_lite.validation import check_count, told

__all__ = ["LatLonGrid"]

_WORST, _NOTABLE = 10.0, 3.0  # amplifications of errors that are refused, and that are worth a warning


class LatLonGrid:
    """A grid of latitudes and longitudes in degrees, and its transform.

    Args:
        latitude: (nlat,), rising or falling, between -90 and 90; at least L.
        longitude: (nlon,), rising, equally spaced around the whole circle, from anywhere; at least 2L - 1.  A last one
            that repeats the first is left out.
        L: band limit; by default the largest that the grid allows.

    Attributes:
        amplification: largest factor by which least squares can enlarge errors of the data, and what in them is finer
            than L, in root mean square over the sphere: 1 at best, hardly more than 2 on grids of the whole sphere; a
            warning above 3, as where the poles are cut off.

    Raises:
        ValueError: latitudes that turn back or are in radians; longitudes that leave a gap, overlap, or do not rise;
            an L that needs more of them, or makes the amplification larger than 10.
    """

    def __init__(self, latitude: Any, longitude: Any, L: int | None = None):
        self.latitude, self.longitude = _vector(latitude, "latitude"), _vector(longitude, "longitude")
        _check_latitudes(self.latitude)
        turns = len(self.longitude) > 1 and math.isclose(self.longitude[-1] - self.longitude[0], 360, abs_tol=1e-3)
        self.repeated = bool(turns)
        around = self.longitude[:-1] if turns else self.longitude
        _check_turn(around)
        self.theta = torch.from_numpy(np.deg2rad(90 - self.latitude)).clamp(0, math.pi)
        self.phi = torch.from_numpy(np.deg2rad(around))
        root = _ring_weights(self.latitude).sqrt()
        most = min(len(self.latitude), (len(around) + 1) // 2)
        self.L = self._largest(most, root, _WORST) if L is None else check_count("L", L)
        self._table = legendre(min(self.L, most), self.theta)  # (m, l, ring)
        self.amplification = _amplification(self._table * root) if self.L <= most else math.inf
        gap = float(np.abs(np.diff(np.concatenate([[90.0], np.sort(self.latitude)[::-1], [-90.0]]))).max())
        if self.amplification > _WORST:
            limit, there = self._largest(most, root, _WORST), f"{len(self.latitude)} x {len(around)} points"
            raise ValueError(
                f"L: got {self.L}, expected at most {limit} for {there} with a gap of {gap:.3g} degrees; try L={limit}"
            )
        if self.amplification > _NOTABLE:
            limit = self._largest(most, root, _NOTABLE)
            warnings.warn(
                f"L: at {self.L} errors of the data can grow by a factor {self.amplification:.2g}, as latitudes leave "
                f"a gap of {gap:.3g} degrees; try L={limit}",
                stacklevel=2,
            )
        self._inverse = _least_squares(self._table * root) * root
        self._packing = Packing(self.L, torch.float64)

    def analysis(self, field: Any) -> Tensor:
        """Coefficients (..., L^2), float64 on the CPU, of a real field (..., nlat, nlon): a tensor or array."""
        x = field if isinstance(field, Tensor) else _tensor(field)
        rows, columns = len(self.latitude), len(self.longitude)
        if x.is_complex() or x.dtype == torch.bool or tuple(x.shape[-2:]) != (rows, columns):
            raise ValueError(f"field: got {told(x)}, expected real (..., {rows}, {columns}); try numbers on this grid")
        x = x.cpu().double()
        if missing := int((~torch.isfinite(x)).sum()):
            raise ValueError(f"field: got {missing} values NaN or infinite, expected none; try filling the gaps first")
        if self.repeated:
            x = x[..., :-1]
        if not x.numel():
            return x.new_zeros(*x.shape[:-2], self.L**2)
        waves = torch.fft.rfft(x, norm="forward")[..., : self.L]
        m = torch.arange(self.L, dtype=torch.float64)
        waves = waves * torch.polar(torch.ones_like(m), -m * self.phi[0])  # rings begin at the first longitude
        return self._packing.from_planes(torch.einsum("mli,...imp->...pml", self._inverse, torch.view_as_real(waves)))

    def synthesis(self, c: Tensor) -> Tensor:
        """The field (..., nlat, nlon), float64 on the CPU, with coefficients (..., L^2)."""
        band_limit(c, self.L)
        rings = torch.einsum("...pml,mli->...pim", self._packing.planes(c.cpu().double()), self._table)
        m = torch.arange(self.L, dtype=torch.float64)[:, None]
        both = torch.where(m == 0, 1.0, 2.0)  # m and -m
        cosines, sines = both * (m * self.phi).cos(), both * (m * self.phi).sin()
        field = rings[..., 0, :, :] @ cosines - rings[..., 1, :, :] @ sines
        return torch.cat([field, field[..., :1]], -1) if self.repeated else field

    def _largest(self, most: int, root: Tensor, worst: float) -> int:
        """The largest L with at most an amplification; one is always fine, as a mean amplifies nothing."""
        columns = legendre(most, self.theta) * root
        return next((L for L in range(most, 1, -1) if _amplification(columns[:L, :L], worst) <= worst), 1)


def _vector(values: Any, name: str) -> np.ndarray:
    """Coordinates as finite numbers (n,), each once."""
    values = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    if np.ma.is_masked(values):
        raise ValueError(f"{name}: got masked values, expected degrees for all; try leaving those out")
    try:
        vector = np.asarray(values)
    except ValueError:  # lists of different lengths
        vector = np.asarray(None)
    if vector.dtype.kind not in "iuf":
        raise ValueError(f"{name}: got {vector.dtype} values, expected degrees (n,), numbers; try np.arange(0, 360, 5)")
    if vector.ndim != 1 or not len(vector) or not np.isfinite(vector).all():
        raise ValueError(f"{name}: got shape {vector.shape}, expected finite degrees (n,); try np.unique({name})")
    vector = vector.astype(float)
    ordered = np.sort(vector)
    twice = ordered[1:][np.diff(ordered) == 0]
    if len(twice):
        raise ValueError(f"{name}: got {twice[0]:g} twice, expected each once; try array.drop_duplicates({name!r})")
    return vector


def _check_latitudes(latitude: np.ndarray) -> None:
    """Refuse latitudes that turn back, or are no degrees of the whole sphere."""
    gaps, largest = np.diff(latitude), np.abs(latitude).max()
    if len(gaps) and not (np.all(gaps > 0) or np.all(gaps < 0)):
        k = int(np.argmax(gaps * gaps[0] <= 0))
        got = f"{latitude[k]:g} followed by {latitude[k + 1]:g}"
        raise ValueError(f"latitude: got {got}, expected values that rise or fall; try array.sortby('latitude')")
    if largest > 90 + 1e-6:
        raise ValueError(f"latitude: got {largest:g}, expected degrees in [-90, 90]; try 90 - latitude of colatitudes")
    if largest <= math.pi / 2 and len(latitude) > 2:
        raise ValueError(f"latitude: got at most {largest:g}, expected degrees of a whole sphere; try np.rad2deg")


def _check_turn(around: np.ndarray) -> None:
    """Refuse longitudes that do not rise in equal steps around the circle."""
    step, span = 360 / len(around), np.ptp(around)
    if np.abs(around - around[0] - np.arange(len(around)) * step).max() <= 0.02 * step:
        return
    if len(around) > 2 and span <= 2 * math.pi + 1e-3:
        got = f"values from {around.min():g} to {around.max():g}"
        raise ValueError(f"longitude: got {got}, expected degrees of a whole turn; try np.rad2deg(longitude)")
    gaps = np.diff(np.append(around, around[0] + 360))
    got = f"{around[0]:g} ... {around[-1]:g}"
    if (gaps[:-1] <= 0).any():
        hint = "order = np.argsort(longitude), with field[..., order]"
        raise ValueError(f"longitude: got {got}, expected rising values; try {hint}")
    if gaps[-1] < 0.5 * gaps[:-1].max():
        extra = int((around > around[0] + 360 - 0.5 * gaps[:-1].max()).sum())
        raise ValueError(f"longitude: got {got}, over a turn, expected one; try dropping the last {extra} columns")
    widest = int(gaps.argmax())
    got = f"a gap of {gaps[widest]:g} degrees after {around[widest]:g}"
    raise ValueError(f"longitude: got {got}, expected equal steps around the whole circle; try to interpolate")


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


def _tensor(field: Any) -> Tensor:
    """Arrays and lists as a tensor: masked values are gaps, and flipped arrays have no place in torch."""
    try:
        array = np.ma.asarray(field)
    except ValueError:  # lists of different lengths
        array = np.ma.asarray(None)
    if array.dtype.kind not in "iufc":
        hint = "array.astype(float) for a mask" if array.dtype.kind == "b" else "one number for each point"
        raise ValueError(f"field: got {array.dtype} values, expected real numbers (..., nlat, nlon); try {hint}")
    kind = complex if array.dtype.kind == "c" else float
    return torch.from_numpy(np.ascontiguousarray(np.ma.filled(array.astype(kind), np.nan)))
