r"""Score networks on angles: 2 pi-periodic by construction, exact where synchronisation is complete.

A network sees phases as (cos theta, sin theta) and answers with a vector (a, b) per phase, of which the score takes the
part that is tangent to the circle,

.. math:: s(\theta, t) = \frac{f(\theta, t)}{D(t)} + \frac{-a \sin\theta + b \cos\theta}{\sqrt{e^{V(t)} - 1}},
          \qquad V(t) = \int_0^t 2D .

The first term, drift over diffusion, is the score of the Gibbs law that the forward process approaches; the network
learns only how far the state is from it.  That distance is 1/sqrt(V) at first and decays like exp(-V/2), and so does
the head's scale: what the network outputs stays of order one.  Chapter 6 of the book derives this.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kodm_lite.euclidean import EuclideanDiffusion
from kodm_lite.networks.unet import SIZES, UNet, require_positive, zero
from kodm_lite.process import KuramotoProcess, per_image

__all__ = ["SIZES", "EuclideanUNet", "PeriodicMLP", "PeriodicUNet", "describe"]


class ScoreHead(nn.Module):
    """From a network's vectors (a, b) to a score: tangent part, noise scale and equilibrium score of a process.

    Everything here is float32 at least, also under mixed precision: a rounded angle or score is a wrong drift.
    """

    def __init__(self, process: KuramotoProcess):
        super().__init__()
        self.process = process

    def forward(self, theta: Tensor, t: Tensor, a: Tensor, b: Tensor) -> Tensor:
        with torch.autocast(theta.device.type, enabled=False):
            t = t.to(theta.dtype)
            scale = per_image(torch.expm1(self.process.clock(t)).sqrt(), theta)
            tangent = b.to(theta.dtype) * theta.cos() - a.to(theta.dtype) * theta.sin()
            return self.process.equilibrium_score(theta, t) + tangent / scale


class Embedding(nn.Module):
    """What every layer should know of an image: its time, on the scale of the noise, and a few means over its pixels.

    Args:
        means: how many.
        features: number of outputs.
        classes: number of class labels; label -1, the null token, stands for no label.  None: no labels at all.
    """

    frequencies: Tensor

    def __init__(self, means: int, features: int, classes: int | None = None):
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.arange(-3, 4), persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(2 * len(self.frequencies) + means, features), nn.SiLU(), nn.Linear(features, features)
        )
        self.label = nn.Embedding(classes + 1, features) if classes else None

    def embed(self, log_noise: Tensor, means: Tensor, label: Tensor | None) -> Tensor:
        """Numbers (B, features).

        Args:
            log_noise: logarithm of the variance of the noise over that of what is left of the data (B,).
            means: of each image (B, means).
            label: class (B,), or None.
        """
        waves = log_noise[:, None] * self.frequencies
        embedding = self.layers(torch.cat([waves.sin(), waves.cos(), means.to(waves.dtype)], 1))
        if self.label is None and label is not None:
            raise ValueError("label: got labels, expected none, as the network has no classes; try classes=...")
        if self.label is not None:
            index = torch.full_like(log_noise, -1, dtype=torch.long) if label is None else label
            embedding = embedding + self.label(index + 1)
        return embedding


class TimeEmbedding(Embedding):
    """For phases: the means are those of the first two harmonics, the order parameter and the one of double angles."""

    def __init__(self, process: KuramotoProcess, features: int, classes: int | None = None):
        super().__init__(4, features, classes)
        self.process = process

    def forward(self, theta: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        flat = theta.flatten(1)
        # The mean direction and its second harmonic, magnified: near t = 1 images differ in them by 1/sqrt(N) only.
        moments = torch.stack([f(n * flat).mean(1) for n in (1, 2) for f in (torch.cos, torch.sin)], 1)
        return self.embed(torch.log(torch.expm1(self.process.clock(t))), 4 * moments, label)


class NoiseEmbedding(Embedding):
    """For numbers: the means are those of the numbers and of their squares."""

    def __init__(self, process: EuclideanDiffusion, features: int, classes: int | None = None):
        super().__init__(2, features, classes)
        self.process = process

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        flat = x.flatten(1)
        moments = torch.stack([flat.mean(1), flat.square().mean(1)], 1)
        ratio = self.process.sigma(t) / self.process.alpha(t)
        return self.embed(2 * torch.log(ratio.clamp(min=1e-6)), 4 * moments, label)


class PeriodicMLP(nn.Module):
    """Score network for N plain oscillators: phases (B, N) and times (B,) to scores (B, N).

    Args:
        dim: number of oscillators N.
        process: the forward process; gives the scale of noise and the score of equilibrium.
        width: hidden units.
        depth: hidden layers.
        classes: number of class labels, or None.

    Raises:
        ValueError: sizes that are not positive, phases of another shape.

    >>> PeriodicMLP(2)(torch.zeros(5, 2), torch.full((5,), 0.5)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        dim: int,
        process: KuramotoProcess | None = None,
        width: int = 128,
        depth: int = 3,
        classes: int | None = None,
    ):
        super().__init__()
        require_positive(dim=dim, width=width, depth=depth)
        self.config = {"dim": dim, "width": width, "depth": depth, "classes": classes}
        self.shape: tuple[int, ...] = (dim,)
        process = process or KuramotoProcess()
        self.embedding = TimeEmbedding(process, width, classes)
        self.first = nn.Linear(2 * dim, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = zero(nn.Linear(width, 2 * dim))
        self.head = ScoreHead(process)

    def forward(self, theta: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The score at phases (B, N), any real numbers in radians, and times t (B,) in (0, 1]; labels (B,) or None."""
        if theta.ndim != 2 or theta.shape[1] != self.shape[0]:
            raise ValueError(f"theta: got shape {tuple(theta.shape)}, expected (B, {self.shape[0]})")
        x = self.first(torch.cat([theta.cos(), theta.sin()], 1)) + self.embedding(theta, t, label)
        for layer in self.hidden:
            x = x + functional.silu(layer(functional.silu(x)))
        a, b = self.last(functional.silu(x)).chunk(2, dim=1)
        return self.head(theta, t, a, b)


class PeriodicUNet(UNet):
    """Score network for images: phases (B, C, H, W) and times (B,) to scores of the same shape.

    A U-Net of residual blocks, with self-attention at chosen levels.  The head has two parts: a vector (a, b) for every
    pixel, and one for the whole image, which is the field that the collective modes need.

    Args:
        channels: C.
        process: the forward process; gives the scale of noise and the score of equilibrium.
        options: width, multipliers, blocks, patch, attention, periodic_boundary and classes of
            :class:`kodm_lite.networks.unet.UNet`.

    Raises:
        ValueError: sizes that are not positive, phases whose height or width the total stride does not divide.

    >>> network = PeriodicUNet(1, **SIZES["small"])
    >>> network(torch.zeros(2, 1, 16, 16), torch.full((2,), 0.5)).shape
    torch.Size([2, 1, 16, 16])
    """

    inputs, outputs, embedding_class = 2, 2, TimeEmbedding

    def __init__(self, channels: int, process: KuramotoProcess | None = None, **options: Any):
        process = process or KuramotoProcess()
        super().__init__(channels, process, **options)
        self.head = ScoreHead(process)

    def forward(self, theta: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The score at phases (B, C, H, W), any real numbers in radians, and times t (B,) in (0, 1].

        Args:
            theta: phases, radians; H and W divisible by the total stride (8 for "small").
            t: times.
            label: class of each image (B,), -1 for none; None for none at all.
        """
        self.check(theta, "theta")
        maps = self.run(torch.cat([theta.cos(), theta.sin()], 1), self.embedding(theta, t, label))
        a, b = maps.chunk(2, dim=1)
        return self.head(theta, t, a, b)


class EuclideanUNet(UNet):
    """The same U-Net for images as numbers: predicts the noise, for the Euclidean baseline.

    It sees numbers where :class:`PeriodicUNet` sees cosines and sines, and answers with numbers where that answers with
    vectors; everything between is the same.

    Args:
        channels: C.
        process: the forward diffusion; gives the scales of data and noise.
        options: those of :class:`kodm_lite.networks.unet.UNet`.

    Raises:
        ValueError: sizes that are not positive, images whose height or width the total stride does not divide.
    """

    inputs, outputs, embedding_class = 1, 1, NoiseEmbedding

    def __init__(self, channels: int, process: EuclideanDiffusion, **options: Any):
        super().__init__(channels, process, **options)
        self.process = process

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The predicted noise of images (B, C, H, W) at times t (B,) in (0, 1]; labels (B,) or None."""
        self.check(x, "x")
        unit = self.process.noise.unit
        noise = self.run(x / unit, self.embedding(x / unit, t, label))
        return unit * noise.to(x.dtype)


def describe(network: nn.Module) -> dict[str, Any]:
    """Kind and configuration: with the process and the weights all that :mod:`kodm_lite.models` needs to build it."""
    return {"kind": type(network).__name__, **network.config}  # type: ignore[dict-item]
