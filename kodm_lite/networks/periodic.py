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

from kodm_lite.kuramoto import without_autocast
from kodm_lite.networks.embedding import Embedding
from kodm_lite.networks.inputs import check_numbers, check_process, check_times
from kodm_lite.networks.unet import UNet, zero
from kodm_lite.process import KuramotoProcess
from kodm_lite.schedules import per_image
from kodm_lite.validation import check_count

__all__ = ["PeriodicMLP", "PeriodicUNet", "ScoreHead", "TimeEmbedding"]


class ScoreHead(nn.Module):
    """From a network's vectors (a, b) to a score: tangent part, noise scale and equilibrium score of a process.

    Everything here is float32 at least, also under mixed precision: a rounded angle or score is a wrong drift.
    """

    def __init__(self, process: KuramotoProcess):
        super().__init__()
        check_process(process, "clock", "equilibrium_score")
        self.process = process

    def forward(self, theta: Tensor, t: Tensor, a: Tensor, b: Tensor) -> Tensor:
        with without_autocast(theta):
            t = t.to(theta.dtype)
            scale = per_image(_noise_to_data(self.process, t).sqrt(), theta)
            tangent = b.to(theta.dtype) * theta.cos() - a.to(theta.dtype) * theta.sin()
            return self.process.equilibrium_score(theta, t) + tangent / scale


class TimeEmbedding(Embedding):
    """For phases: the means are those of the first two harmonics, the order parameter and the one of double angles."""

    def __init__(self, process: KuramotoProcess, features: int, classes: int | None = None):
        check_process(process, "clock")
        super().__init__(4, features, classes)
        self.process = process

    def forward(self, theta: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        check_times(t, theta)
        flat = theta.flatten(1)
        # The mean direction and its second harmonic, magnified: near t = 1 images differ in them by 1/sqrt(N) only.
        moments = torch.stack([f(n * flat).mean(1) for n in (1, 2) for f in (torch.cos, torch.sin)], 1)
        return self.embed(torch.log(_noise_to_data(self.process, t.to(theta.dtype))), 4 * moments, label)


def _noise_to_data(process: KuramotoProcess, t: Tensor) -> Tensor:
    """e^V - 1 at times t (B,): the variance of the noise over that of what is left of the data.

    Beyond V = 80 it stays as it is, before it overflows: what a network says counts there less than a rounding error.
    """
    return torch.expm1(process.clock(t).clamp(1e-12, 80.0))


class PeriodicMLP(nn.Module):
    """Score network for N plain oscillators: phases (B, N) and times (B,) to scores (B, N).

    Args:
        dim: number of oscillators N.
        process: the forward process; gives the scale of noise and the score of equilibrium.
        width: hidden units.
        depth: hidden layers.
        classes: number of class labels, or None.

    Raises:
        ValueError: sizes that are not positive; phases of another shape, times outside (0, 1], labels that are none.

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
        dim, width, depth = (check_count(*size) for size in (("dim", dim), ("width", width), ("depth", depth)))
        classes = None if classes is None else check_count("classes", classes, 0)
        self.config = {"dim": dim, "width": width, "depth": depth, "classes": classes}
        self.shape: tuple[int, ...] = (dim,)
        process = KuramotoProcess() if process is None else process
        self.embedding = TimeEmbedding(process, width, classes)
        self.first = nn.Linear(2 * dim, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = zero(nn.Linear(width, 2 * dim))
        self.head = ScoreHead(process)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse a shape of one sample with another number of oscillators."""
        if tuple(shape) != self.shape:
            raise ValueError(f"shape: got {shape}, expected {self.shape}, as many oscillators as the network has")

    def forward(self, theta: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The score at phases (B, N), any real numbers in radians, and times t (B,) in (0, 1]; labels (B,) or None.

        Angles and score have the dtype of theta, float32 or float64; between them the network computes in its own.
        """
        weight = self.first.weight
        check_numbers(theta, "theta", weight)
        if theta.ndim != 2 or theta.shape[1] != self.shape[0]:
            raise ValueError(f"theta: got shape {tuple(theta.shape)}, expected (B, {self.shape[0]})")
        embedding = self.embedding(theta, t, label)
        x = self.first(torch.cat([theta.cos(), theta.sin()], 1).to(weight.dtype)) + embedding
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
        ValueError: sizes that are not positive; phases of other channels, times outside (0, 1], labels that are none.

    >>> network = PeriodicUNet(1, width=32, multipliers=(1, 1, 2, 2))
    >>> network(torch.zeros(2, 1, 16, 16), torch.full((2,), 0.5)).shape
    torch.Size([2, 1, 16, 16])
    """

    inputs, outputs, embedding_class = 2, 2, TimeEmbedding

    def __init__(self, channels: int, process: KuramotoProcess | None = None, **options: Any):
        process = KuramotoProcess() if process is None else process
        super().__init__(channels, process, **options)
        self.head = ScoreHead(process)

    def forward(self, theta: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The score at phases (B, C, H, W), any real numbers in radians, and times t (B,) in (0, 1].

        Args:
            theta: phases, radians, float32 or float64; the score has the same dtype, the network computes in its own.
            t: times.
            label: class of each image (B,), -1 for none; None for none at all.
        """
        self.check(theta, "theta")
        maps = self.run(torch.cat([theta.cos(), theta.sin()], 1), self.embedding(theta, t, label))
        a, b = maps.chunk(2, dim=1)
        return self.head(theta, t, a, b)
