"""Training on fields on the sphere, whose modules are loaded where they are needed, for they take a moment.

Book: The sphere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from kodm_lite.data import PhaseData
from kodm_lite.encoding import Numbers
from kodm_lite.euclidean import VariancePreserving
from kodm_lite.kinds import Process
from kodm_lite.recipes.base import Recipe
from kodm_lite.training import TrainingOptions
from kodm_lite.training.loop import objective_of
from kodm_lite.validation import check_count

__all__ = ["SphereRecipe", "sphere_spectrum"]


def sphere_options() -> TrainingOptions:
    """What trains well on small fields on the sphere."""
    return TrainingOptions(steps=1000, batch_size=64, learning_rate=4e-3, ema=0.995)


@dataclass(frozen=True, kw_only=True)
class SphereRecipe(Recipe):
    """Skewed random fields on the sphere, exp(g) of Gaussian fields g of variance 1/2, made on the spot.

    Args:
        L: band limit; degrees are l < L.
        noise: isotropic: white noise of the sphere; pixel: white noise of the points of a Gauss grid.
        channels: fields that the network works on.
        blocks: layers of the network.
        fields: number of fields to learn from.
        training: how the weights are found.
    """

    L: int = 16
    noise: Literal["isotropic", "pixel"] = "isotropic"
    channels: int = 16
    blocks: int = 3
    fields: int = 16384
    training: TrainingOptions = field(default_factory=sphere_options)

    @property
    def name(self) -> str:
        return f"sphere-{self.L}{'-pixel' if self.noise == 'pixel' else ''}"

    def check(self) -> None:
        from kodm_lite.sphere import IsotropicNoise

        check_count("L", self.L)
        check_count("fields", self.fields)
        objective_of(VariancePreserving(IsotropicNoise(self.L)), self.training.objective)
        if self.training.sample_every:
            raise ValueError("sample_every: got a number, expected 0, as there are no pictures of these samples")

    def data(self) -> tuple[PhaseData, PhaseData | None]:
        """Coefficients (n, L^2) to learn from, and others to measure on."""
        return self._fields(self.fields, 1), self._fields(1024, 99)

    def build(self, data: PhaseData) -> tuple[nn.Module, Process]:
        from kodm_lite.sphere import (
            IsotropicNoise,
            PixelNoise,
            SphericalNet,
            SphericalTransform,
            make_grid,
            power_spectrum,
        )

        noise: IsotropicNoise | PixelNoise = IsotropicNoise(self.L)
        if self.noise == "pixel":
            noise = PixelNoise(SphericalTransform(make_grid("gauss", self.L), torch.float32))
        process = VariancePreserving(noise)
        return SphericalNet(process, power_spectrum(data.theta).mean(0), self.channels, self.blocks), process

    def _fields(self, n: int, seed: int) -> PhaseData:
        from kodm_lite.sphere import lognormal_fields

        fields = lognormal_fields(sphere_spectrum(self.L), n, torch.Generator().manual_seed(seed)).float()
        source = f"{n} lognormal random fields of band limit {self.L}, made by kodm_lite"
        return PhaseData(fields, None, (), Numbers(), source, "none needed: the data are random numbers")


def sphere_spectrum(L: int) -> torch.Tensor:
    """Power spectrum of g: (1 + l/3)^-2.5, scaled to variance 1/2 at every point; float64."""
    shape = (1 + torch.arange(L, dtype=torch.float64) / 3) ** -2.5
    return shape * (2 * math.pi / float((shape * (2 * torch.arange(L) + 1)).sum()))
