"""Grids of rings on the sphere, with quadrature exact for products of two fields.

A transform is exact, that is analysis after synthesis is the identity, if the grid integrates all products of two
fields of band limit L, hence degree 2L - 2, without error.  Book: The sphere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kodm_lite.validation import check_choice, check_count

__all__ = ["GridKind", "SphereGrid", "icosahedron_points", "make_grid"]

GridKind = Literal["gauss", "equiangular", "clenshaw"]


@dataclass(frozen=True)
class SphereGrid:
    """Rings of equally spaced points, from north to south, exact for band limit L; made by :func:`make_grid`."""

    kind: GridKind
    L: int
    nlat: int
    nlon: int

    @property
    def shape(self) -> tuple[int, int]:
        """(nlat, nlon), of a field on the grid."""
        return self.nlat, self.nlon

    @cached_property
    def theta(self) -> Tensor:
        """Colatitudes of the rings (nlat,), increasing, radians."""
        return _RULES[self.kind](self.nlat)[0]

    @cached_property
    def phi(self) -> Tensor:
        """Longitudes of the points of a ring (nlon,), from 0, radians."""
        return torch.arange(self.nlon, dtype=torch.float64) * (2 * math.pi / self.nlon)

    @cached_property
    def ring_weights(self) -> Tensor:
        """Quadrature weights of the rings in cos theta (nlat,), sum 2."""
        return _RULES[self.kind](self.nlat)[1]

    @property
    def weights(self) -> Tensor:
        """Area that every point stands for (nlat, nlon), sum 4 pi."""
        return (self.ring_weights * (2 * math.pi / self.nlon))[:, None].expand(self.shape)

    def points(self) -> tuple[Tensor, Tensor]:
        """Colatitude and longitude of all points, each (nlat nlon,), ring by ring."""
        theta, phi = torch.meshgrid(self.theta, self.phi, indexing="ij")
        return theta.flatten(), phi.flatten()


def make_grid(kind: GridKind, L: int, nlat: int | None = None, nlon: int | None = None) -> SphereGrid:
    """A grid on which fields of band limit L can be transformed without error.

    Args:
        kind: "gauss": L rings of Gauss and Legendre, the fewest; "equiangular": 2L rings halfway between equal steps of
            colatitude, without poles (Fejer's first rule, the weights of Driscoll and Healy); "clenshaw": 2L - 1 rings
            with both poles (Clenshaw and Curtis).
        L: band limit, degrees l < L.
        nlat, nlon: rings and points of a ring, at least as many as needed; by default as above, and 2L.

    Raises:
        ValueError: an unknown kind, or too few points to be exact.
    """
    check_choice("kind", kind, GridKind)
    L = check_count("L", L)
    least = {"gauss": L, "equiangular": 2 * L - 1, "clenshaw": max(2 * L - 1, 2)}[kind]
    nlat = least + (kind == "equiangular") if nlat is None else check_count("nlat", nlat)
    nlon = 2 * L if nlon is None else check_count("nlon", nlon)
    if nlat < least:
        most = nlat if kind == "gauss" else (nlat + 1) // 2
        raise ValueError(f"nlat: got {nlat}, expected at least {least} {kind} rings for L = {L}; try L = {most}")
    if nlon < 2 * L - 1:
        raise ValueError(f"nlon: got {nlon}, expected at least 2L - 1 = {2 * L - 1}; try L = {max(1, (nlon + 1) // 2)}")
    return SphereGrid(kind, L, nlat, nlon)


def _gauss(n: int) -> tuple[Tensor, Tensor]:
    x, weights = np.polynomial.legendre.leggauss(n)
    return torch.from_numpy(np.arccos(x[::-1]).copy()), torch.from_numpy(weights[::-1].copy())


def _fejer(n: int) -> tuple[Tensor, Tensor]:
    theta = (torch.arange(n, dtype=torch.float64) + 0.5) * (math.pi / n)
    k = torch.arange(1, n // 2 + 1, dtype=torch.float64)
    waves = torch.cos(2 * theta[:, None] * k) / (4 * k * k - 1)
    return theta, (2 / n) * (1 - 2 * waves.sum(1))


def _clenshaw_curtis(n: int) -> tuple[Tensor, Tensor]:
    theta = torch.arange(n, dtype=torch.float64) * (math.pi / (n - 1))
    k = torch.arange(1, (n - 1) // 2 + 1, dtype=torch.float64)
    count = torch.where(2 * k == n - 1, 1.0, 2.0)
    waves = count * torch.cos(2 * theta[:, None] * k) / (4 * k * k - 1)
    inside = torch.full((n,), 2.0, dtype=torch.float64)
    inside[[0, -1]] = 1.0
    return theta, inside / (n - 1) * (1 - waves.sum(1))


_RULES = {"gauss": _gauss, "equiangular": _fejer, "clenshaw": _clenshaw_curtis}


def icosahedron_points() -> tuple[Tensor, Tensor]:
    """Colatitudes and longitudes of the twelve corners of an icosahedron: equal weights integrate degree 5 exactly."""
    ring, fifth = math.acos(1 / math.sqrt(5)), 2 * math.pi / 5
    theta = torch.tensor([0.0, *[ring] * 5, *[math.pi - ring] * 5, math.pi], dtype=torch.float64)
    phi = [0.0, *(k * fifth for k in range(5)), *((k + 0.5) * fifth for k in range(5)), 0.0]
    return theta, torch.tensor(phi, dtype=torch.float64)
