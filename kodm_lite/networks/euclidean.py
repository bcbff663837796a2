"""The U-Net of the Euclidean baseline: numbers in, predicted noise out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kodm_lite.euclidean import EuclideanDiffusion
from kodm_lite.networks.embedding import Embedding
from kodm_lite.networks.inputs import check_process, check_times
from kodm_lite.networks.unet import UNet

__all__ = ["EuclideanUNet", "NoiseEmbedding"]


class NoiseEmbedding(Embedding):
    """For numbers: the means are those of the numbers and of their squares."""

    def __init__(self, process: EuclideanDiffusion, features: int, classes: int | None = None):
        check_process(process, "alpha", "sigma")
        super().__init__(2, features, classes)
        self.process = process

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        check_times(t, x)
        flat, t = x.flatten(1), t.to(x.dtype)
        moments = torch.stack([flat.mean(1), flat.square().mean(1)], 1)
        ratio = self.process.sigma(t) / self.process.alpha(t)
        # Infinite where nothing is left of the data that a float32 could hold.
        return self.embed(2 * torch.log(ratio.clamp(1e-6, 1e30)), 4 * moments, label)


class EuclideanUNet(UNet):
    """The same U-Net for images as numbers: predicts the noise, for the Euclidean baseline.

    It sees numbers where :class:`PeriodicUNet` sees cosines and sines, and answers with numbers where that answers with
    vectors; everything between is the same.

    Args:
        channels: C.
        process: the forward diffusion; gives the scales of data and noise.
        options: those of :class:`kodm_lite.networks.unet.UNet`.

    Raises:
        ValueError: sizes that are not positive, images of other channels, times outside (0, 1], labels that are none.
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
