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

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from kodm_lite.process import KuramotoProcess, per_image

__all__ = ["SIZES", "PeriodicMLP", "PeriodicUNet", "build", "describe"]

Padding = Literal["zeros", "circular"]

#: Sizes of :class:`PeriodicUNet` by name: 1.2, 7.7 and 35 million parameters; a grey 32 x 32 image costs 0.3, 1.9 and
#: 8 GFLOP forward, three times that in training.  All take images whose sides are multiples of 8.
SIZES: dict[str, dict[str, Any]] = {
    "small": {"width": 32, "multipliers": (1, 1, 2, 2), "blocks": 1, "patch": 1, "attention": (3,)},
    "medium": {"width": 64, "multipliers": (1, 1, 2, 2), "blocks": 2, "patch": 1, "attention": (2, 3)},
    "large": {"width": 104, "multipliers": (1, 2, 2, 3), "blocks": 2, "patch": 1, "attention": (2, 3)},
}


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


class TimeEmbedding(nn.Module):
    """What every layer should know of an image: its time, on the scale of the noise, and its order parameter.

    Args:
        process: whose noise sets the scale of time.
        features: number of outputs.
        classes: number of class labels; label -1, the null token, stands for no label.  None: no labels at all.
    """

    frequencies: Tensor

    def __init__(self, process: KuramotoProcess, features: int, classes: int | None = None):
        super().__init__()
        self.process = process
        self.register_buffer("frequencies", 2.0 ** torch.arange(-3, 4), persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(2 * len(self.frequencies) + 4, features), nn.SiLU(), nn.Linear(features, features)
        )
        self.label = nn.Embedding(classes + 1, features) if classes else None

    def forward(self, theta: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        clock = torch.log(torch.expm1(self.process.clock(t)))[:, None] * self.frequencies
        flat = theta.flatten(1)
        # The mean direction and its second harmonic, magnified: near t = 1 images differ in them by 1/sqrt(N) only.
        moments = torch.stack([f(n * flat).mean(1) for n in (1, 2) for f in (torch.cos, torch.sin)], 1)
        embedding = self.layers(torch.cat([clock.sin(), clock.cos(), 4 * moments.to(clock.dtype)], 1))
        if self.label is None and label is not None:
            raise ValueError("label: got labels, expected none, as the network has no classes; try classes=...")
        if self.label is not None:
            index = torch.full_like(t, -1, dtype=torch.long) if label is None else label
            embedding = embedding + self.label(index + 1)
        return embedding


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
        _require_positive(dim=dim, width=width, depth=depth)
        self.config = {"dim": dim, "width": width, "depth": depth, "classes": classes}
        self.shape: tuple[int, ...] = (dim,)
        process = process or KuramotoProcess()
        self.embedding = TimeEmbedding(process, width, classes)
        self.first = nn.Linear(2 * dim, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = _zero(nn.Linear(width, 2 * dim))
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


class PeriodicUNet(nn.Module):
    """Score network for images: phases (B, C, H, W) and times (B,) to scores of the same shape.

    A U-Net of residual blocks, with self-attention at chosen levels.  The head has two parts: a vector (a, b) for every
    pixel, and one for the whole image, which is the field that the collective modes need.

    Args:
        channels: C.
        process: the forward process; gives the scale of noise and the score of equilibrium.
        width: feature channels at the first level.
        multipliers: feature channels of each level, in units of ``width``; each level halves the resolution.
        blocks: residual blocks per level on the way down, and on the way up.
        patch: side of the pixel blocks that the first level takes as one; 2 nearly quarters the cost, and the detail.
        attention: levels with self-attention, 0 being the finest.
        periodic_boundary: pad convolutions with the opposite edge, for images that are periodic; commutes with
            translations by the total stride.
        classes: number of class labels, or None.

    Raises:
        ValueError: sizes that are not positive, phases whose height or width the total stride does not divide.

    >>> network = PeriodicUNet(1, **SIZES["small"])
    >>> network(torch.zeros(2, 1, 16, 16), torch.full((2,), 0.5)).shape
    torch.Size([2, 1, 16, 16])
    """

    def __init__(
        self,
        channels: int,
        process: KuramotoProcess | None = None,
        width: int = 32,
        multipliers: Sequence[int] = (1, 1, 2, 2),
        blocks: int = 1,
        patch: int = 1,
        attention: Sequence[int] = (3,),
        periodic_boundary: bool = False,
        classes: int | None = None,
    ):
        super().__init__()
        _require_positive(channels=channels, width=width, blocks=blocks, patch=patch, levels=len(multipliers))
        if width % 8:
            raise ValueError(f"width: got {width}, expected a multiple of 8; try {8 * math.ceil(width / 8)}")
        self.config = {
            "channels": channels,
            "width": width,
            "multipliers": list(multipliers),
            "blocks": blocks,
            "patch": patch,
            "attention": list(attention),
            "periodic_boundary": periodic_boundary,
            "classes": classes,
        }
        process = process or KuramotoProcess()
        self.channels, self.patch = channels, patch
        self.stride = patch * 2 ** (len(multipliers) - 1)
        features = 4 * width
        self.embedding = TimeEmbedding(process, features, classes)
        padding: Padding = "circular" if periodic_boundary else "zeros"

        def block(level: int, n_in: int, n_out: int) -> ResidualBlock:
            return ResidualBlock(n_in, n_out, features, padding, attend=level in attention)

        self.first = _conv(2 * channels * patch**2, width, padding)
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
        self.last = _zero(_conv(n, 2 * channels * patch**2, padding))
        middle = multipliers[-1] * width
        self.pooled = nn.Sequential(
            nn.Linear(middle + features, features), nn.SiLU(), _zero(nn.Linear(features, 2 * channels))
        )
        self.head = ScoreHead(process)
        # What convolutions are fastest in, on CPU and GPU.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, theta: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The score at phases (B, C, H, W), any real numbers in radians, and times t (B,) in (0, 1].

        Args:
            theta: phases, radians; H and W divisible by the total stride (8 for "small").
            t: times.
            label: class of each image (B,), -1 for none; None for none at all.
        """
        self._check(theta)
        embedding = self.embedding(theta, t, label)
        x = torch.cat([theta.cos(), theta.sin()], 1)
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
        a, b = (functional.pixel_shuffle(x, self.patch) + whole).chunk(2, dim=1)
        return self.head(theta, t, a, b)

    def _check(self, theta: Tensor) -> None:
        if (
            theta.ndim != 4
            or theta.shape[1] != self.channels
            or theta.shape[2] % self.stride
            or theta.shape[3] % self.stride
        ):
            raise ValueError(
                f"theta: got shape {tuple(theta.shape)}, expected (B, {self.channels}, H, W) with H and W multiples of "
                f"{self.stride}; try a crop, or fewer levels"
            )


class ResidualBlock(nn.Module):
    """Two normalised convolutions around a scale and shift from the embedding, then attention if wanted."""

    def __init__(self, n_in: int, n_out: int, features: int, padding: Padding, attend: bool):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, n_in), _conv(n_in, n_out, padding)
        self.modulation = nn.Linear(features, 2 * n_out)
        self.norm2, self.conv2 = nn.GroupNorm(8, n_out), _zero(_conv(n_out, n_out, padding))
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
        self.out = _zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.query_key_value(self.norm(x)).reshape(batch, 3, self.heads, channels // self.heads, height * width)
        query, key, value = qkv.transpose(3, 4).unbind(1)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return x + self.out(mixed.transpose(2, 3).reshape(batch, channels, height, width))


def describe(network: nn.Module) -> dict[str, Any]:
    """What :func:`build` needs besides the process and the weights: the kind of network and its configuration."""
    return {"kind": type(network).__name__, **network.config}  # type: ignore[dict-item]


def build(description: dict[str, Any], process: KuramotoProcess) -> PeriodicUNet | PeriodicMLP:
    """The untrained network of a description.

    Raises:
        ValueError: an unknown kind, or options that it does not have.
    """
    kinds: dict[str, Any] = {"PeriodicUNet": PeriodicUNet, "PeriodicMLP": PeriodicMLP}
    options = dict(description)
    kind = options.pop("kind", None)
    if kind not in kinds:
        raise ValueError(f"network: got kind {kind!r}, expected one of {sorted(kinds)}")
    try:
        return kinds[kind](process=process, **options)
    except TypeError as error:
        raise ValueError(f"network: got options {options}, expected those of {kind} ({error})") from error


def _conv(n_in: int, n_out: int, padding: Padding, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, stride, padding=1, padding_mode=padding)


def _zero(layer: Any) -> Any:
    """The layer with zero weights: a new block changes nothing, a new network is in equilibrium."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _require_positive(**sizes: int) -> None:
    for name, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: got {value!r}, expected a positive integer")
