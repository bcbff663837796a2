"""What noise on a grid becomes for the coefficients: its covariance, order by order.  Book: The sphere.

White noise of the pixels, z with independent standard normal numbers, has the coefficients A z of its analysis, with
the covariance Sigma = A A^T = Y^T W^2 Y: "multiply by the area of the pixel, then band-limit".  On rings it does not
mix orders m, so that it consists of one block of size L - m for every m, the same for m and -m.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from kodm_lite.randomness import Generators, normal
from kodm_lite.sphere.inputs import band_limit
from kodm_lite.sphere.transform import LARGEST, OnDevices, SphericalTransform
from kodm_lite.validation import check_count, told

__all__ = ["HarmonicNoise", "IsotropicNoise", "PixelNoise", "noise_from_dict"]


class HarmonicNoise(OnDevices, ABC):
    """Noise of coefficients (..., L^2) of band limit L, as :class:`kodm_lite.euclidean.Noise` asks for."""

    kind: ClassVar[str]
    unit = 1.0

    def __init__(self, L: int):
        self.L = check_count("L", L)
        self.shape = (self.L**2,)

    @abstractmethod
    def blocks(self) -> Tensor:
        """Sigma order by order (L, L, L), [m, l, l'], zero for l < m."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain values that ``from_dict`` and :func:`noise_from_dict` turn back into this noise."""

    def mean_mode(self, c: Tensor) -> Tensor:
        """The coefficient l = 0, the mean of the field."""
        band_limit(c, self.L)
        return c[..., 0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HarmonicNoise) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(repr(self.to_dict()))


class IsotropicNoise(HarmonicNoise):
    """Independent standard normal coefficients: white noise of the sphere itself, Sigma = 1, whatever the grid."""

    kind = "isotropic"

    def draw(self, like: Tensor, generator: Generators = None) -> Tensor:
        """Noise with the shape, dtype and device of coefficients ``like`` (..., L^2)."""
        band_limit(like, self.L)
        return normal(like, generator)

    def covariance(self, c: Tensor) -> Tensor:
        """Sigma c = c, and so is Sigma^{-1} c."""
        band_limit(c, self.L)
        return c

    solve = covariance

    def blocks(self) -> Tensor:
        l = torch.arange(self.L)
        return torch.diag_embed((l >= l[:, None]).double())

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "L": self.L}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> IsotropicNoise:
        """Inverse of :meth:`to_dict`."""
        if not isinstance(data, dict) or set(data) != {"kind", "L"} or data["kind"] != cls.kind:
            raise ValueError(f"noise: got {data!r}, expected kind {cls.kind!r} and L; try IsotropicNoise(8).to_dict()")
        if type(data["L"]) is not int or not 1 <= data["L"] <= LARGEST:
            raise ValueError(f"noise: got L = {data['L']!r}, expected a whole number up to {LARGEST}; try 8")
        return cls(data["L"])


class PixelNoise(HarmonicNoise):
    """The image of independent normal noise of the pixels of a grid.

    Memory and work grow as L^3: Sigma is never formed as one matrix.

    Args:
        transform: the transform of the grid.
        normalise: scale the pixels' noise so that Sigma has trace L^2, as for isotropic noise; every degree then has
            variance 1 on average over m.

    Source: shown in arXiv 2601.20498 for spherical data; book: The sphere.
    """

    kind = "pixel"

    def __init__(self, transform: SphericalTransform, normalise: bool = True):
        if not isinstance(transform, SphericalTransform) or not isinstance(normalise, bool):
            got = f"{told(transform)} and {normalise!r}"
            raise ValueError(f"transform, normalise: got {got}, expected a SphericalTransform and a bool; try True")
        super().__init__(transform.L)
        self.transform, self.normalise = copy.deepcopy(transform), normalise  # the one that is given may move
        area = transform.grid.weights
        self.pixel_std = 1 / math.sqrt(float(area.square().sum()) / (4 * math.pi)) if normalise else 1.0
        table = transform.legendre.double()
        scale = 4 * math.pi**2 / transform.grid.nlon * self.pixel_std**2
        blocks = scale * (table * transform.grid.ring_weights.to(table).square()) @ table.mT
        l = torch.arange(self.L, device=blocks.device)
        padding = torch.diag_embed((l < l[:, None]).double())  # ones where an order has no degree: so that it factors
        self._blocks = blocks.to(transform.legendre)
        self._factors = torch.linalg.cholesky(blocks + padding).to(transform.legendre)

    def draw(self, like: Tensor, generator: Generators = None) -> Tensor:
        """Noise with the shape, dtype and device of coefficients ``like`` (..., L^2): white pixels, analysed."""
        here = self.on(like.device) if band_limit(like, self.L) else self
        return here.transform.analysis(here.pixels(like, generator).to(here._blocks.dtype)).to(like.dtype)

    def pixels(self, like: Tensor, generator: Generators = None) -> Tensor:
        """White noise on the grid (..., nlat, nlon), for coefficients of the shape of ``like``."""
        band_limit(like, self.L)
        blank = torch.empty(*like.shape[:-1], *self.transform.grid.shape, dtype=like.dtype, device=like.device)
        return self.pixel_std * normal(blank, generator)

    def covariance(self, c: Tensor) -> Tensor:
        """Sigma c."""
        return self._by_order(c, lambda noise, columns: noise._blocks @ columns)

    def solve(self, c: Tensor) -> Tensor:
        """Sigma^{-1} c, by the Cholesky factors of the blocks."""
        return self._by_order(c, lambda noise, columns: torch.cholesky_solve(columns, noise._factors))

    def _by_order(self, c: Tensor, apply: Callable[[PixelNoise, Tensor], Tensor]) -> Tensor:
        """What ``apply`` makes of the columns (m, l, fields and parts)."""
        band_limit(c, self.L)
        here = self.on(c.device)
        planes = here.transform.planes(c.to(here._blocks.dtype)).movedim((-2, -1), (0, 1))  # (m, l, ..., part)
        columns = apply(here, planes.flatten(2)).reshape(planes.shape)
        return here.transform.from_planes(columns.movedim((0, 1), (-2, -1))).to(c.dtype)

    def blocks(self) -> Tensor:
        return self._blocks

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **self.transform.to_dict(), "normalise": self.normalise}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PixelNoise:
        """Inverse of :meth:`to_dict`."""
        rest = dict(data) if isinstance(data, dict) else {}
        if rest.pop("kind", None) != cls.kind or not isinstance(normalise := rest.pop("normalise", None), bool):
            raise ValueError(f"noise: got {data!r}, expected kind {cls.kind!r}, a grid, normalise; try noise.to_dict()")
        return cls(SphericalTransform.from_dict(rest), normalise)


def noise_from_dict(data: Any) -> IsotropicNoise | PixelNoise:
    """Inverse of ``to_dict`` of a noise; ValueError for other entries, and for values out of range."""
    kind = data.get("kind") if isinstance(data, dict) else None
    return PixelNoise.from_dict(data) if kind == PixelNoise.kind else IsotropicNoise.from_dict(data)
