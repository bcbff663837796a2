"""What every layer of a network should know of an image as a whole."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kodm_lite.networks.inputs import check_labels

__all__ = ["Embedding"]


class Embedding(nn.Module):
    """Features of an image: its time, on the scale of the noise, a few means over its pixels, and its class.

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
        self.classes = classes
        self.label = nn.Embedding(classes + 1, features) if classes else None

    def embed(self, log_noise: Tensor, means: Tensor, label: Tensor | None) -> Tensor:
        """Numbers (B, features), in the dtype of the weights.

        Args:
            log_noise: logarithm of the variance of the noise over that of what is left of the data (B,).
            means: of each image (B, means).
            label: class (B,), -1 for none; None for none at all.  Out of range on a GPU it ends the CUDA context.

        Raises:
            ValueError: labels that are no classes of the network.
        """
        if label is not None:
            check_labels(label, log_noise, self.classes)
        waves = log_noise[:, None] * self.frequencies
        own = next(self.layers.parameters()).dtype
        embedding = self.layers(torch.cat([waves.sin(), waves.cos(), means], 1).to(own))
        if self.label is not None:
            index = torch.full_like(log_noise, -1, dtype=torch.long) if label is None else label.long()
            embedding = embedding + self.label(index + 1)
        return embedding
