"""What noise on a grid becomes for the coefficients: its covariance, order by order.  Book: The sphere.

White noise of the pixels, z with independent standard normal numbers, has the coefficients A z of its analysis, with
the covariance Sigma = A A^T = Y^T W^2 Y: "multiply by the area of the pixel, then band-limit".  On rings it does not
mix orders m, so that it consists of one block of size L - m for every m, the same for m and -m.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kodm_lite.randomness import Generators, normal
from kodm_lite.sphere.grids import make_grid
from kodm_lite.sphere.harmonics import band_limit, check_band_limit
from kodm_lite.sphere.transform import SphericalTransform

__all__ = ["HarmonicNoise", "IsotropicNoise", "PixelNoise", "noise_from_dict"]


class HarmonicNoise(nn.Module):
    """Noise of coefficients (..., L^2), as :class:`kodm_lite.euclidean.Noise` asks for.

    Args:
        L: band limit.

    Raises:
        ValueError: an L that is no whole number from 1 on.
    """

    unit = 1.0

    def __init__(self, L: int):
        super().__init__()
        self.L = check_band_limit(L)
        self.shape = (self.L**2,)

    def mean_mode(self, c: Tensor) -> Tensor:
        """The coefficient l = 0, the mean of the field."""
        return c[..., 0]


class IsotropicNoise(HarmonicNoise):
    """Independent standard normal coefficients: white noise of the sphere itself, Sigma = 1, whatever the grid.

    Args:
        L: band limit.
    """

    def draw(self, like: Tensor, generator: Generators = None) -> Tensor:
        """Noise with the shape, dtype and device of coefficients ``like`` (..., L^2)."""
        _check(like, self.L)
        return normal(like, generator)

    def covariance(self, c: Tensor) -> Tensor:
        """Sigma c = c."""
        return c

    def solve(self, c: Tensor) -> Tensor:
        """Sigma^{-1} c = c."""
        return c

    def logdet(self) -> Tensor:
        """log det Sigma = 0."""
        return torch.zeros((), dtype=torch.float64)

    def blocks(self) -> Tensor:
        """Sigma order by order (L, L, L), [m, l, l'], zero for l < m."""
        l = torch.arange(self.L)
        return torch.diag_embed((l >= l[:, None]).double())

    def to_dict(self) -> dict[str, Any]:
        """Plain values that :func:`noise_from_dict` turns back into this noise."""
        return {"kind": "isotropic", "L": self.L}


class PixelNoise(HarmonicNoise):
    """The image of independent normal noise of the pixels of a grid.

    Memory and work grow as L^3: Sigma is never formed as one matrix.

    Args:
        transform: the transform of the grid.
        normalise: scale the pixels' noise so that Sigma has trace L^2, as for isotropic noise; every degree then has
            variance 1 on average over m.

    Source: shown in arXiv 2601.20498 for spherical data; book: The sphere.
    """

    _blocks: Tensor
    _factors: Tensor

    def __init__(self, transform: SphericalTransform, normalise: bool = True):
        super().__init__(transform.L)
        self.transform, self.normalise = copy.deepcopy(transform), normalise  # it may move
        area = transform.grid.weights
        self.pixel_std = 1 / math.sqrt(float(area.square().sum()) / (4 * math.pi)) if normalise else 1.0
        rings = transform.grid.ring_weights.to(transform.legendre.device)
        table = transform.legendre.double()
        scale = 4 * math.pi**2 / transform.grid.nlon * self.pixel_std**2
        blocks = scale * (table * rings.square()) @ table.mT
        l = torch.arange(self.L, device=blocks.device)
        padding = torch.diag_embed((l < l[:, None]).double())  # ones where an order has no degree: so that it factors
        self.register_buffer("_blocks", blocks.to(transform.legendre), persistent=False)
        factors = torch.linalg.cholesky(blocks + padding)
        self.register_buffer("_factors", factors.to(transform.legendre), persistent=False)

    def draw(self, like: Tensor, generator: Generators = None) -> Tensor:
        """Noise with the shape, dtype and device of coefficients ``like`` (..., L^2): white pixels, analysed."""
        _check(like, self.L)
        return self.transform.analysis(self._follow(self.pixels(like, generator))).to(like)

    def pixels(self, like: Tensor, generator: Generators = None) -> Tensor:
        """White noise on the grid (..., nlat, nlon), for coefficients of the shape of ``like``."""
        blank = torch.empty(*like.shape[:-1], *self.transform.grid.shape, dtype=like.dtype, device=like.device)
        return self.pixel_std * normal(blank, generator)

    def covariance(self, c: Tensor) -> Tensor:
        """Sigma c."""
        _check(c, self.L)
        return self._by_order(c, lambda columns: self._blocks @ columns)

    def solve(self, c: Tensor) -> Tensor:
        """Sigma^{-1} c, by the Cholesky factors of the blocks."""
        _check(c, self.L)
        return self._by_order(c, lambda columns: torch.cholesky_solve(columns, self._factors))

    def _by_order(self, c: Tensor, apply: Callable[[Tensor], Tensor]) -> Tensor:
        """What ``apply`` makes of the columns (m, l, fields and parts)."""
        planes = self.transform.planes(self._follow(c)).movedim((-2, -1), (0, 1))  # (m, l, ..., part)
        columns = apply(planes.flatten(2)).reshape(planes.shape)
        return self.transform.from_planes(columns.movedim((0, 1), (-2, -1))).to(c)

    def _follow(self, x: Tensor) -> Tensor:
        """Numbers as the transform takes them; it moves to their device, as the process it belongs to is no module."""
        self.to(x.device)
        return x.to(self.transform.ring_weights.dtype)

    def logdet(self) -> Tensor:
        """log det Sigma; every order but m = 0 counts twice, for its cosines and its sines."""
        each = 2 * self._factors.diagonal(dim1=-2, dim2=-1).double().log().sum(-1)
        return each[0] + 2 * each[1:].sum()

    def blocks(self) -> Tensor:
        """Sigma order by order (L, L, L), [m, l, l'], zero for l < m."""
        return self._blocks

    def to_dict(self) -> dict[str, Any]:
        """Plain values that :func:`noise_from_dict` turns back into this noise."""
        grid, dtype = self.transform.grid, str(self.transform.ring_weights.dtype).removeprefix("torch.")
        sizes = {"L": self.L, "nlat": grid.nlat, "nlon": grid.nlon}
        return {"kind": "pixel", "grid": grid.kind, **sizes, "dtype": dtype, "normalise": self.normalise}


def noise_from_dict(data: Any) -> IsotropicNoise | PixelNoise:
    """Inverse of ``to_dict`` of a noise.

    Raises:
        ValueError: missing or unknown entries, values out of range.
    """
    expected = {"isotropic": {"kind", "L"}, "pixel": {"kind", "grid", "L", "nlat", "nlon", "dtype", "normalise"}}
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or set(data) != expected.get(kind):
        raise ValueError(f"noise: got {data!r}, expected kind 'isotropic' or 'pixel' with {expected}")
    sizes = [data[name] for name in ("L", "nlat", "nlon") if name in data]
    if not all(type(n) is int and 1 <= n <= _LARGEST for n in sizes):
        raise ValueError(f"noise: got sizes {sizes}, expected whole numbers up to {_LARGEST}")
    if kind == "isotropic":
        return IsotropicNoise(data["L"])
    if data["dtype"] not in ("float32", "float64") or not isinstance(data["normalise"], bool):
        raise ValueError(f"noise: got {data!r}, expected dtype 'float32' or 'float64', normalise true or false")
    grid = make_grid(data["grid"], data["L"], data["nlat"], data["nlon"])
    return PixelNoise(SphericalTransform(grid, getattr(torch, data["dtype"])), data["normalise"])


_LARGEST = 512  # of the sizes of a stored grid: at most seconds of work


def _check(c: Tensor, L: int) -> None:
    if band_limit(c) != L:
        raise ValueError(f"c: got coefficients of L = {band_limit(c)}, expected L = {L}, that of the noise")
