"""A convolutional network on the sphere that predicts the noise of coefficients.  Book: The sphere.

A convolution with a zonal kernel multiplies every degree by a number; so does a layer here, with a matrix over channels
for every degree.  Between layers comes a function of single points.  The network therefore turns with the sphere, up to
what the function of points makes beyond the band limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kodm_lite.euclidean import EuclideanDiffusion
from kodm_lite.process import per_image
from kodm_lite.sphere.grids import make_grid
from kodm_lite.sphere.harmonics import degrees
from kodm_lite.sphere.transform import SphericalTransform

__all__ = ["SphericalNet"]


class SphericalNet(nn.Module):
    """Predicts E[eps | c_t] for coefficients (B, L^2) and times (B,).

    It adds to the best prediction for Gaussian fields, degree by degree, what a network makes of the field; with new
    weights that is nothing.

    Args:
        process: the forward diffusion; gives L and the scales of data and noise.
        spectrum: C_l of the data (L,), see :func:`kodm_lite.sphere.power_spectrum`.
        channels: fields that the layers work on.
        blocks: number of layers.
        oversampling: rings of the grid in units of L; the more, the less aliasing.

    Raises:
        ValueError: a spectrum of another length, sizes that are not positive.
    """

    spectrum: Tensor
    _degree: Tensor

    def __init__(
        self,
        process: EuclideanDiffusion,
        spectrum: Sequence[float] | Tensor,
        channels: int = 24,
        blocks: int = 3,
        oversampling: float = 1.5,
    ):
        super().__init__()
        L, values = process.noise.L, [float(x) for x in spectrum]
        if len(values) != L:
            raise ValueError(f"spectrum: got {len(values)} values, expected {L} positive ones, for l = 0 ... {L - 1}")
        bad = [f"C_{l} = {x:g}" for l, x in enumerate(values) if not 0 < x < math.inf]
        if bad:
            raise ValueError(
                f"spectrum: got {', '.join(bad[:3])}, expected positive finite numbers for l = 0 ... {L - 1}; try a "
                "small number in place of zero"
            )
        if not (channels >= 1 and blocks >= 1 and 1 <= oversampling <= 4):
            raise ValueError(
                f"channels, blocks, oversampling: got {channels}, {blocks} and {oversampling}, expected at least 1 of "
                "each, and an oversampling of at most 4"
            )
        self.process, self.L = process, L
        self.config: dict[str, Any] = {
            "spectrum": values,
            "channels": channels,
            "blocks": blocks,
            "oversampling": oversampling,
        }
        rings = math.ceil(oversampling * L)
        with torch.device("cpu"):  # numbers, also where parameters are only shapes
            self.transform = SphericalTransform(make_grid("gauss", L, nlat=rings, nlon=2 * rings), torch.float32)
            self.register_buffer("spectrum", torch.tensor(values), persistent=False)
            self.register_buffer("_degree", degrees(L), persistent=False)
        self.time = TimeFeatures(process, 4 * channels)
        self.lift = nn.Parameter(torch.randn(channels, L) * 0.5)
        self.blocks = nn.ModuleList(ZonalBlock(L, channels, 4 * channels) for _ in range(blocks))
        self.read = nn.Parameter(torch.zeros(channels, L))

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse samples that are no coefficients of this band limit."""
        if tuple(shape) != (self.L**2,):
            raise ValueError(f"shape: got {shape}, expected {(self.L**2,)}, coefficients of L = {self.L}")

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        with torch.autocast(c.device.type, enabled=False):  # transforms are not meant for 16 bits
            alpha, sigma = (per_image(f(t.float()), c) for f in (self.process.alpha, self.process.sigma))
            variance = self.spectrum[self._degree]
            total = alpha**2 * variance + sigma**2
            embedding = self.time(t.float())
            unit = math.sqrt(4 * math.pi) / self.L  # coefficients of variance 1 make a field of variance 1 / unit^2
            x = unit * (c.float() / total.sqrt())[:, None] * self.lift[:, self._degree]
            x = self.transform.synthesis(x)
            for block in self.blocks:
                x = block(x, embedding, self.transform, self._degree)
            y = (self.transform.analysis(x) / unit * self.read[:, self._degree]).sum(1)
            return (sigma * c + alpha * (variance * total).sqrt() * y) / total


class ZonalBlock(nn.Module):
    """x + a convolution of f(x), where f acts on single points and knows the time."""

    def __init__(self, L: int, channels: int, features: int):
        super().__init__()
        self.modulation = nn.Linear(features, 2 * channels)
        self.kernel = nn.Parameter(torch.randn(L, channels, channels) / math.sqrt(channels))
        self.points = nn.Linear(channels, channels)

    def forward(self, x: Tensor, embedding: Tensor, transform: SphericalTransform, degree: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        h = functional.silu(x * (1 + scale) + shift)
        c = torch.einsum("bij,jio->boj", transform.analysis(h), self.kernel[degree])
        mixed = self.points(h.movedim(1, -1)).movedim(-1, 1)
        return x + 0.5 * (transform.synthesis(c) + mixed)


class TimeFeatures(nn.Module):
    """What blocks know of the time: waves of the logarithm of the ratio of noise to signal."""

    frequencies: Tensor

    def __init__(self, process: EuclideanDiffusion, features: int):
        super().__init__()
        self.process = process
        with torch.device("cpu"):
            self.register_buffer("frequencies", torch.linspace(0.1, 1.5, 12), persistent=False)
        self.layers = nn.Sequential(nn.Linear(24, features), nn.SiLU(), nn.Linear(features, features), nn.SiLU())

    def forward(self, t: Tensor) -> Tensor:
        ratio = torch.log(self.process.sigma(t) / self.process.alpha(t) + 1e-6)[:, None] * self.frequencies
        return self.layers(torch.cat([ratio.cos(), ratio.sin()], 1))
