"""A U-Net of residual blocks: the same for phases and for their Euclidean baseline.  Book: chapter 8."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SIZES", "UNet", "require_positive", "zero"]

Padding = Literal["zeros", "circular"]

#: Sizes by name: 1.2, 7.7 and 35 million parameters; a grey 32 x 32 image costs 0.3, 1.9 and
#: 8 GFLOP forward, three times that in training.  They take images whose sides are multiples of 8.  "coarse" is the
#: small one on blocks of 2 x 2 pixels, for smooth images from 64 x 64, sides multiples of 16, at a quarter of the cost.
SIZES: dict[str, dict[str, Any]] = {
    "small": {"width": 32, "multipliers": (1, 1, 2, 2), "blocks": 1, "patch": 1, "attention": (3,)},
    "coarse": {"width": 32, "multipliers": (1, 1, 2, 2), "blocks": 1, "patch": 2, "attention": (3,)},
    "medium": {"width": 64, "multipliers": (1, 1, 2, 2), "blocks": 2, "patch": 1, "attention": (2, 3)},
    "large": {"width": 104, "multipliers": (1, 2, 2, 3), "blocks": 2, "patch": 1, "attention": (2, 3)},
}


class UNet(nn.Module):
    """From feature maps, and what is known of the whole image, to numbers for every pixel.

    Self-attention at chosen levels.  The result is a sum of two parts: of a map, and of numbers for the whole image,
    which are what all pixels share.

    A kind of network says what goes in and out: a subclass has the numbers that the first layer sees of each pixel and
    channel (``inputs``), those that the last one returns (``outputs``), and the class of its embedding.

    Args:
        channels: C of one image.
        process: the forward process, for the embedding.
        width: feature channels at the first level.
        multipliers: feature channels of each level, in units of ``width``; each level halves the resolution.
        blocks: residual blocks per level on the way down, and on the way up.
        patch: side of the pixel blocks that the first level takes as one; 2 nearly quarters the cost, and the detail.
        attention: levels with self-attention, 0 being the finest.
        periodic_boundary: pad convolutions with the opposite edge, for images that are periodic; commutes with
            translations by the total stride.
        classes: number of class labels, or None.

    Raises:
        ValueError: sizes that are not positive.
    """

    inputs: ClassVar[int]
    outputs: ClassVar[int]
    embedding_class: ClassVar[Callable[..., nn.Module]]

    def __init__(
        self,
        channels: int,
        process: Any,
        width: int = 32,
        multipliers: Sequence[int] = (1, 1, 2, 2),
        blocks: int = 1,
        patch: int = 1,
        attention: Sequence[int] = (3,),
        periodic_boundary: bool = False,
        classes: int | None = None,
    ):
        super().__init__()
        require_positive(channels=channels, width=width, blocks=blocks, patch=patch, levels=len(multipliers))
        if width % 8:
            raise ValueError(f"width: got {width}, expected a multiple of 8; try {8 * math.ceil(width / 8)}")
        self.config: dict[str, Any] = {
            "channels": channels,
            "width": width,
            "multipliers": list(multipliers),
            "blocks": blocks,
            "patch": patch,
            "attention": list(attention),
            "periodic_boundary": periodic_boundary,
            "classes": classes,
        }
        self.channels, self.patch = channels, patch
        self.stride = patch * 2 ** (len(multipliers) - 1)
        features = 4 * width
        self.embedding = self.embedding_class(process, features, classes)
        padding: Padding = "circular" if periodic_boundary else "zeros"

        def block(level: int, n_in: int, n_out: int) -> ResidualBlock:
            return ResidualBlock(n_in, n_out, features, padding, attend=level in attention)

        self.first = _conv(self.inputs * channels * patch**2, width, padding)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        skips, n = [width], width
        for level, m in enumerate(multipliers):
            if level:
                self.shrink.append(_conv(n, n, padding, stride=2))
                skips.append(n)
            stage = nn.ModuleList()
            for _ in range(blocks):
                stage.append(block(level, n, m * width))
                n = m * width
                skips.append(n)
            self.down.append(stage)
        self.middle = ResidualBlock(n, n, features, padding, attend=True)
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level, m in reversed(list(enumerate(multipliers))):
            stage = nn.ModuleList()
            for _ in range(blocks + 1):
                stage.append(block(level, n + skips.pop(), m * width))
                n = m * width
            self.up.append(stage)
            if level:
                self.grow.append(_conv(n, n, padding))
        self.norm = nn.GroupNorm(8, n)
        self.last = zero(_conv(n, self.outputs * channels * patch**2, padding))
        middle = multipliers[-1] * width
        self.pooled = nn.Sequential(
            nn.Linear(middle + features, features), nn.SiLU(), zero(nn.Linear(features, self.outputs * channels))
        )
        # What convolutions are fastest in, on CPU and GPU.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(self, x: Tensor, embedding: Tensor) -> Tensor:
        """From maps (B, inputs * C, H, W) and what is known of the whole (B, features) to (B, outputs * C, H, W)."""
        x = functional.pixel_unshuffle(x, self.patch).contiguous(memory_format=torch.channels_last)
        x = self.first(x)
        skips = [x]
        for level, stage in enumerate(self.down):
            if level:
                x = self.shrink[level - 1](x)
                skips.append(x)
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, embedding)
                skips.append(x)
        x = self.middle(x, embedding)
        whole = self.pooled(torch.cat([x.mean((2, 3)), embedding], 1))[:, :, None, None]
        for level, stage in enumerate(self.up):
            for block in stage:  # type: ignore[attr-defined]
                x = block(torch.cat([x, skips.pop()], 1), embedding)
            if level < len(self.grow):
                x = self.grow[level](functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        x = self.last(functional.silu(self.norm(x)))
        return functional.pixel_shuffle(x, self.patch) + whole

    def check(self, x: Tensor, name: str) -> None:
        """Refuse what is no batch of images that the strides divide."""
        if x.ndim != 4 or x.shape[1] != self.channels or x.shape[2] % self.stride or x.shape[3] % self.stride:
            raise ValueError(
                f"{name}: got shape {tuple(x.shape)}, expected (B, {self.channels}, H, W) with H and W multiples of "
                f"{self.stride}; try a crop, or fewer levels"
            )


class ResidualBlock(nn.Module):
    """Two normalised convolutions around a scale and shift from the embedding, then attention if wanted."""

    def __init__(self, n_in: int, n_out: int, features: int, padding: Padding, attend: bool):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, n_in), _conv(n_in, n_out, padding)
        self.modulation = nn.Linear(features, 2 * n_out)
        self.norm2, self.conv2 = nn.GroupNorm(8, n_out), zero(_conv(n_out, n_out, padding))
        self.skip = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()
        self.attention = Attention(n_out) if attend else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(functional.silu(self.norm1(x)))
        scale, shift = self.modulation(functional.silu(embedding))[:, :, None, None].chunk(2, dim=1)
        h = self.conv2(functional.silu(self.norm2(h) * (1 + scale) + shift))
        x = self.skip(x) + h
        return x if self.attention is None else self.attention(x)


class Attention(nn.Module):
    """Every position looks at all others: scaled dot products, heads of about 32 channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.heads = max(1, channels // 32)
        while channels % self.heads:
            self.heads -= 1
        self.norm = nn.GroupNorm(8, channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.query_key_value(self.norm(x)).reshape(batch, 3, self.heads, channels // self.heads, height * width)
        query, key, value = qkv.transpose(3, 4).unbind(1)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return x + self.out(mixed.transpose(2, 3).reshape(batch, channels, height, width))


def _conv(n_in: int, n_out: int, padding: Padding, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, stride, padding=1, padding_mode=padding)


def zero(layer: Any) -> Any:
    """The layer with zero weights: a new block changes nothing, a new network is in equilibrium."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def require_positive(**sizes: int) -> None:
    for name, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: got {value!r}, expected a positive integer")
