"""A U-Net of residual blocks: the same for phases and for their Euclidean baseline.  Book: chapter 8."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from kodm_lite.kuramoto import pixels_beyond_edges
from kodm_lite.networks.inputs import check_counts, check_numbers, is_transformed
from kodm_lite.validation import check_count

__all__ = ["SIZES", "UNet", "zero"]

Periodic = tuple[bool, bool]  # along the rows (height), along the columns (width)

#: Sizes by name: 1.2, 7.7 and 35 million parameters; a grey 32 x 32 image costs 0.3, 1.9 and
#: 8 GFLOP forward, three times that in training.  Their total stride is 8; images of other sides than its multiples are
#: filled up inside.  "coarse" is the small one on blocks of 2 x 2 pixels, for smooth images from 64 x 64, total stride
#: 16, at a quarter of the cost.
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
        periodic_boundary: pad convolutions with the opposite edge, for images that are periodic; True, False, or a pair
            of them for (rows, columns), that is, for height and width.  Commutes with translations along periodic sides
            by the total stride where it divides them.
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
        periodic_boundary: bool | Sequence[bool] = False,
        classes: int | None = None,
    ):
        super().__init__()
        channels, width = check_count("channels", channels), check_count("width", width)
        blocks, patch = check_count("blocks", blocks), check_count("patch", patch)
        classes = None if classes is None else check_count("classes", classes, 0)
        multipliers, attention = check_counts("multipliers", multipliers), check_counts("attention", attention, 0)
        levels, self.periodic = check_count("levels", len(multipliers)), _axes(periodic_boundary)
        if width % 8:
            raise ValueError(f"width: got {width}, expected a multiple of 8; try {8 * math.ceil(width / 8)}")
        rows, columns = self.periodic
        self.config: dict[str, Any] = {
            "channels": channels,
            "width": width,
            "multipliers": multipliers,
            "blocks": blocks,
            "patch": patch,
            "attention": attention,
            "periodic_boundary": rows if rows == columns else [rows, columns],
            "classes": classes,
        }
        self.channels, self.patch, self.stride = channels, patch, patch * 2 ** (levels - 1)
        features = 4 * width
        self.embedding = self.embedding_class(process, features, classes)
        self.first = Convolution(self.inputs * channels * patch**2, width, self.periodic)
        self._add_levels([m * width for m in multipliers], blocks, attention, features)
        self.norm = Norm(8, multipliers[0] * width)
        self.last = zero(Convolution(multipliers[0] * width, self.outputs * channels * patch**2, self.periodic))
        self.pooled = nn.Sequential(
            nn.Linear(multipliers[-1] * width + features, features),
            nn.SiLU(),
            zero(nn.Linear(features, self.outputs * channels)),
        )
        # What convolutions are fastest in, on CPU and GPU.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _add_levels(self, widths: list[int], blocks: int, attention: list[int], features: int) -> None:
        """Residual blocks on the way down, in the middle and on the way up; levels have these feature channels."""

        def block(level: int, n_in: int) -> ResidualBlock:
            return ResidualBlock(n_in, widths[level], features, self.periodic, attend=level in attention)

        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        n = self.first.out_channels
        skips = [n]
        for level, width in enumerate(widths):
            if level:
                self.shrink.append(Convolution(n, n, self.periodic, stride=2))
                skips.append(n)
            stage = nn.ModuleList()
            for _ in range(blocks):
                stage.append(block(level, n))
                n = width
                skips.append(n)
            self.down.append(stage)
        self.middle = ResidualBlock(n, n, features, self.periodic, attend=True)
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            stage = nn.ModuleList()
            for _ in range(blocks + 1):
                stage.append(block(level, n + skips.pop()))
                n = width
            self.up.append(stage)
            if level:
                self.grow.append(Convolution(n, n, self.periodic))

    def run(self, x: Tensor, embedding: Tensor) -> Tensor:
        """From maps (B, inputs * C, H, W) and what is known of the whole (B, features) to (B, outputs * C, H, W)."""
        height, width = x.shape[2:]
        x, (above, left) = self._fill(x.to(self.first.weight.dtype))
        x = functional.pixel_unshuffle(x, self.patch)
        if not is_transformed(x):
            x = x.contiguous(memory_format=torch.channels_last)
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
        return functional.pixel_shuffle(x, self.patch)[..., above : above + height, left : left + width] + whole

    def _fill(self, x: Tensor) -> tuple[Tensor, list[int]]:
        """The image goes on beyond its edges, around or mirrored, until the total stride divides its sides.

        Returns:
            The larger image, and how many rows are above and columns to the left of the own ones.
        """
        before = []
        for dim, periodic in zip((2, 3), self.periodic, strict=True):
            n = x.shape[dim]
            missing = -n % self.stride
            before.append(missing // 2)
            if missing:
                first, boundary = -(missing // 2), "periodic" if periodic else "reflect"
                x = x.index_select(dim, pixels_beyond_edges(first, first + n + missing, n, boundary, x.device))
        return x, before

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse a shape of one sample that is no image with the channels of the network."""
        if len(shape) != 3 or shape[0] != self.channels or 0 in shape:
            raise ValueError(f"shape: got {shape}, expected ({self.channels}, H, W), images of the network's channels")

    def check(self, x: Tensor, name: str) -> None:
        """Refuse what is no batch of images with the channels of the network."""
        check_numbers(x, name, self.first.weight)
        if x.ndim != 4 or x.shape[1] != self.channels or 0 in x.shape[2:]:
            raise ValueError(
                f"{name}: got shape {tuple(x.shape)}, expected (B, {self.channels}, H, W); "
                f"try {name}[None] for one image, or a network with channels={x.shape[-3] if x.ndim > 2 else 1}"
            )


class ResidualBlock(nn.Module):
    """Two normalised convolutions around a scale and shift from the embedding, then attention if wanted."""

    def __init__(self, n_in: int, n_out: int, features: int, periodic: Periodic, attend: bool):
        super().__init__()
        self.norm1, self.conv1 = Norm(8, n_in), Convolution(n_in, n_out, periodic)
        self.modulation = nn.Linear(features, 2 * n_out)
        self.norm2, self.conv2 = Norm(8, n_out), zero(Convolution(n_out, n_out, periodic))
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
        self.norm = Norm(8, channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.query_key_value(self.norm(x)).reshape(batch, 3, self.heads, channels // self.heads, height * width)
        query, key, value = qkv.transpose(3, 4).unbind(1)
        if is_transformed(query):  # the fused kernels have no forward derivatives
            mixed = (query @ key.mT / math.sqrt(query.shape[-1])).softmax(-1) @ value
        else:
            mixed = functional.scaled_dot_product_attention(query, key, value)
        return x + self.out(mixed.transpose(2, 3).reshape(batch, channels, height, width))


class Convolution(nn.Conv2d):
    """3 x 3, the same size: continued around along periodic sides, with zeros along others."""

    def __init__(self, n_in: int, n_out: int, periodic: Periodic, stride: int = 1):
        rows, columns = map(int, periodic)
        super().__init__(n_in, n_out, 3, stride, padding=(1 - rows, 1 - columns))
        self.around = [columns, columns, rows, rows]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, self.around, mode="circular") if any(self.around) else x)


class Norm(nn.GroupNorm):
    """Forward derivatives of it need one layout of the memory, the plain one."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.contiguous() if is_transformed(x) else x)


def zero(layer: Any) -> Any:
    """The layer with zero weights: a new block changes nothing, a new network is in equilibrium."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _axes(periodic_boundary: bool | Sequence[bool]) -> Periodic:
    flags, kinds = periodic_boundary, (bool, np.bool_)
    pair = (flags, flags) if isinstance(flags, kinds) else flags
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(flag, kinds) for flag in pair):
        raise ValueError(
            f"periodic_boundary: got {flags!r}, expected True, False or a pair of them for (rows, columns); "
            "try (False, True) for images whose left edge goes on at the right"
        )
    return bool(pair[0]), bool(pair[1])
