"""A convolutional network on the sphere that predicts the noise of coefficients.  Book: The sphere.

A convolution with a zonal kernel multiplies every degree by a number; so does a layer here, with a matrix over channels
for every degree.  Between layers comes a function of single points.  The network therefore turns with the sphere, up to
what the function of points makes beyond the band limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kodm_lite.euclidean import EuclideanDiffusion
from kodm_lite.schedules import per_image
from kodm_lite.sphere.grids import make_grid
from kodm_lite.sphere.inputs import check_fields
from kodm_lite.sphere.random_fields import check_spectrum, harmonic_noise
from kodm_lite.sphere.transform import SphericalTransform
from kodm_lite.validation import check_count, check_number, told

__all__ = ["SphericalNet"]


class SphericalNet(nn.Module):
    """Predicts E[eps | c_t] for coefficients (B, L^2) and times (B,).

    It adds to the best prediction for Gaussian fields, degree by degree, what a network makes of the field; with new
    weights that is nothing.  Weights are float32, until they are moved; the prediction has the dtype of the input.

    Args:
        process: the forward diffusion; gives L and the scales of data and noise.
        spectrum: C_l of the data (L,), from 1e-30 to 1e30, see :func:`kodm_lite.sphere.power_spectrum`.
        channels: fields that the layers work on.
        blocks: number of layers.
        oversampling: rings of the grid in units of L; the more, the less aliasing.

    Raises:
        ValueError: a spectrum of another length, sizes that are not positive; on use, other shapes, dtypes or times.
    """

    spectrum: Tensor
    transform: SphericalTransform
    time: TimeFeatures
    blocks: nn.ModuleList
    lift: nn.Parameter
    read: nn.Parameter

    def __init__(
        self,
        process: EuclideanDiffusion,
        spectrum: Sequence[float] | Tensor,
        channels: int = 24,
        blocks: int = 3,
        oversampling: float = 1.5,
    ):
        super().__init__()
        self.process, self.L = process, harmonic_noise(process).L
        values = _positive(spectrum, self.L)
        channels, blocks = check_count("channels", channels), check_count("blocks", blocks)
        oversampling = check_number("oversampling", oversampling, 1, 4, 1.5)
        if channels * channels * self.L * blocks > 2**30:
            raise ValueError(f"channels, blocks: got {channels} and {blocks}, expected fewer weights; try 24 and 3")
        sizes = {"channels": channels, "blocks": blocks, "oversampling": oversampling}
        self.config: dict[str, Any] = {"spectrum": values, **sizes}
        rings = math.ceil(oversampling * self.L)
        with torch.device("cpu"):  # numbers, also where parameters are only shapes
            self.transform = SphericalTransform(make_grid("gauss", self.L, nlat=rings, nlon=2 * rings), torch.float32)
            self.register_buffer("spectrum", torch.tensor(values, dtype=torch.float32), persistent=False)
        self.time = TimeFeatures(process, 4 * channels)
        self.lift = nn.Parameter(torch.randn(channels, self.L, dtype=torch.float32) * 0.5)
        self.blocks = nn.ModuleList(ZonalBlock(self.L, channels, 4 * channels) for _ in range(blocks))
        self.read = nn.Parameter(torch.zeros(channels, self.L, dtype=torch.float32))

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse samples that are no coefficients of this band limit."""
        if tuple(shape) != (self.L**2,):
            raise ValueError(f"shape: got {shape}, expected {(self.L**2,)}, coefficients of L = {self.L}")

    def forward(self, c: Tensor, t: Tensor) -> Tensor:
        check_fields(c, t, self.L)
        self._check_weights(c)
        with torch.autocast("cpu" if c.is_meta else c.device.type, enabled=False):  # transforms are not for 16 bits
            dtype, degree, x, t = c.dtype, self.transform.degree, c.to(self.read.dtype), t.to(self.read.dtype)
            alpha, sigma = (per_image(f(t), x) for f in (self.process.alpha, self.process.sigma))
            deviation = self.spectrum.sqrt()[degree]
            total = alpha**2 * deviation**2 + sigma**2
            embedding = self.time(t)
            unit = math.sqrt(4 * math.pi) / self.L  # coefficients of variance 1 make a field of variance 1 / unit^2
            field = self.transform.synthesis(unit * (x / total.sqrt())[:, None] * self.lift[:, degree])
            for block in self.blocks:
                field = block(field, embedding, self.transform)
            y = (self.transform.analysis(field) / unit * self.read[:, degree]).sum(1)
            return ((sigma * x + alpha * deviation * total.sqrt() * y) / total).to(dtype)

    def _check_weights(self, c: Tensor) -> None:
        """Refuse a batch of another form, and weights in which the transform does not work."""
        if c.ndim != 2 or c.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"c: got {told(c)}, expected float32 or float64 (B, {self.L**2}); try c.flatten(0, -2)")
        if self.read.dtype not in (torch.float32, torch.float64) or self.read.device != c.device:
            got = f"{self.read.dtype} weights on {self.read.device} for fields on {c.device}"
            raise ValueError(f"network: got {got}, expected float32 or 64; try network.float().to(c.device)")


class ZonalBlock(nn.Module):
    """x + a convolution of f(x), where f acts on single points and knows the time."""

    def __init__(self, L: int, channels: int, features: int):
        super().__init__()
        self.modulation = nn.Linear(features, 2 * channels, dtype=torch.float32)
        self.kernel = nn.Parameter(torch.randn(L, channels, channels, dtype=torch.float32) / math.sqrt(channels))
        self.points = nn.Linear(channels, channels, dtype=torch.float32)

    def forward(self, x: Tensor, embedding: Tensor, transform: SphericalTransform) -> Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        h = functional.silu(x * (1 + scale) + shift)
        c = torch.einsum("bij,jio->boj", transform.analysis(h), self.kernel[transform.degree])
        mixed = self.points(h.movedim(1, -1)).movedim(-1, 1)
        return x + 0.5 * (transform.synthesis(c) + mixed)


class TimeFeatures(nn.Module):
    """What blocks know of the time: waves of the logarithm of the ratio of noise to signal."""

    frequencies: Tensor

    def __init__(self, process: EuclideanDiffusion, features: int):
        super().__init__()
        self.process = process
        with torch.device("cpu"):
            self.register_buffer("frequencies", torch.linspace(0.1, 1.5, 12, dtype=torch.float32), persistent=False)
        first, second = (nn.Linear(n, features, dtype=torch.float32) for n in (24, features))
        self.layers = nn.Sequential(first, nn.SiLU(), second, nn.SiLU())

    def forward(self, t: Tensor) -> Tensor:
        alpha = self.process.alpha(t).clamp(min=1e-18)  # of strong processes nothing is left that float32 could tell
        ratio = torch.log(self.process.sigma(t) / alpha + 1e-6)[:, None] * self.frequencies
        return self.layers(torch.cat([ratio.cos(), ratio.sin()], 1))


def _positive(spectrum: Any, L: int) -> list[float]:
    """A spectrum as numbers of which float32 can take squares."""
    numbers = isinstance(spectrum, (list, tuple)) and all(isinstance(x, Real) for x in spectrum)
    values = [float(x) for x in spectrum] if numbers else check_spectrum(spectrum).tolist()
    if len(values) != L:
        raise ValueError(f"spectrum: got {len(values)} values, expected {L}, all positive; try power_spectrum(c[0])")
    bad = [f"C_{l} = {x:g}" for l, x in enumerate(values) if not 1e-30 <= x <= 1e30]
    if bad:
        got = ", ".join(bad[:3])
        raise ValueError(f"spectrum: got {got}, expected numbers from 1e-30 to 1e30; try a small one in place of zero")
    return values
