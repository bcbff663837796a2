"""Gaussian noise of a diffusion in a vector space: what it asks of one, and white noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Protocol

from torch import Tensor

from kodm_lite.randomness import Generators, normal
from kodm_lite.validation import told

__all__ = ["GaussianNoise", "WhiteNoise"]


class GaussianNoise(Protocol):
    """What a diffusion needs of its noise: a centred Gaussian law of samples of one shape, with any batch before it.

    Its numbers have variance ``unit`` ** 2 on average.
    """

    shape: tuple[int, ...]
    unit: float

    def draw(self, like: Tensor, generator: Generators = None) -> Tensor: ...

    def solve(self, x: Tensor) -> Tensor: ...

    def mean_mode(self, x: Tensor) -> Tensor:
        """The part of x that is the same everywhere, as one number of variance ``unit`` ** 2 for each sample."""

    def to_dict(self) -> dict[str, Any]: ...


class WhiteNoise:
    """Independent numbers, N(0, unit^2).

    Args:
        shape: of one sample, such as (C, H, W).
        unit: standard deviation; 0.9 pi for phases whose grey values, in [-1, 1], get noise of deviation 1.
    """

    def __init__(self, shape: Sequence[int], unit: float = 1.0):
        self.shape: tuple[int, ...]
        self.unit: float
        if not isinstance(shape, Sequence) or isinstance(unit, bool) or not isinstance(unit, Real):
            raise ValueError(
                f"shape, unit: got {shape!r} and {unit!r}, expected integers and a number; try (1, 32, 32), 1.0"
            )
        self.shape, self.unit = tuple(shape), float(unit)
        if not self.shape or not all(type(n) is int and n >= 1 for n in self.shape) or not 0 < self.unit < math.inf:
            raise ValueError(f"shape, unit: got {shape} and {unit}, expected positive numbers; try (1, 32, 32) and 1.0")

    def draw(self, like: Tensor, generator: Generators = None) -> Tensor:
        """Noise with the shape, dtype and device of ``like``."""
        return self.unit * normal(like, generator)

    def solve(self, x: Tensor) -> Tensor:
        """Sigma^{-1} x."""
        return x / self.unit**2

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of noise (B, ...), one for each sample."""
        return -(0.5 * (x / self.unit).square() + math.log(self.unit) + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)

    def mean_mode(self, x: Tensor) -> Tensor:
        """Mean of the numbers of each sample times the root of how many they are."""
        return x.flatten(1).sum(1) / math.sqrt(math.prod(self.shape))

    def to_dict(self) -> dict[str, Any]:
        """Plain values: kind, shape, unit."""
        return {"kind": "white", "shape": list(self.shape), "unit": self.unit}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> WhiteNoise:
        """Inverse of :meth:`to_dict`.

        Raises:
            ValueError: other entries.
        """
        known = isinstance(data, dict) and set(data) == {"kind", "shape", "unit"}
        if not known or not isinstance(data["shape"], list):
            raise ValueError(f"noise: got {told(data)}, expected kind 'white', shape and unit")
        if type(data["unit"]) not in (int, float):
            raise ValueError(f"noise: got unit {data['unit']!r}, expected a number")
        return cls(data["shape"], data["unit"])

    def __repr__(self) -> str:
        return f"WhiteNoise({self.shape}, {self.unit:g})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WhiteNoise) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.shape, self.unit))
