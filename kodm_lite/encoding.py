"""What phases stand for: grey values, angles, or plain numbers.

An encoding belongs to data and to the model trained on them, so that pictures always come back with the contrast that
they went in with.  No function has an encoding of its own to fall back on.  Book: chapter 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from kodm_lite.circular import check_floating, image_to_phase, phase_to_image, to_uint8, validate_phases, wrap

__all__ = ["HALF_CIRCLE", "PUBLISHED", "Angles", "Encoding", "GreyLevels", "Numbers"]


@runtime_checkable
class Encoding(Protocol):
    """How values become phases and phases become values; frozen, comparable, and describable for a model's file."""

    kind: ClassVar[str]
    cyclic: ClassVar[bool]  # whether the whole circle is used, so that pictures need cyclic colours

    def encode(self, x: Tensor) -> Tensor:
        """Values (B, ...) as phases in radians."""

    def decode(self, theta: Tensor) -> Tensor:
        """Phases as values; the inverse of :meth:`encode`."""

    def project(self, x: Tensor) -> Tensor:
        """The nearest phases that stand for something, of numbers that were drawn on the line."""

    def to_dict(self) -> dict[str, Any]:
        """A JSON object with the ``kind``, see :mod:`kodm_lite.registry`."""


@dataclass(frozen=True)
class GreyLevels:
    """Grey values in [-1, 1] are phases in [-scale pi, scale pi], channel by channel.

    Args:
        scale: share of the half circle between grey and white, above 0 and below 1: with 0.5 black and white are
            opposite angles, with the published 0.9 they are neighbours.

    Raises:
        ValueError: a scale out of its range.

    >>> import torch
    >>> GreyLevels(0.5).decode(GreyLevels(0.5).encode(torch.tensor([-1.0, 0.0, 1.0])))
    tensor([-1.,  0.,  1.])
    """

    scale: float

    kind: ClassVar[str] = "grey_levels"
    cyclic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if isinstance(self.scale, bool) or not isinstance(self.scale, int | float) or not 0 < self.scale < 1:
            raise ValueError(
                f"scale: got {self.scale!r}, expected a number above 0 and below 1; try GreyLevels(0.5), or Angles() "
                "for data that are angles"
            )

    def encode(self, x: Tensor) -> Tensor:
        """Grey values in [-1, 1] as phases; see :func:`kodm_lite.image_to_phase` for what is refused."""
        return image_to_phase(x, self.scale)

    def decode(self, theta: Tensor) -> Tensor:
        """Phases as grey values in [-1, 1]; angles in the gap become the nearer of black and white."""
        return phase_to_image(theta, self.scale)

    def to_uint8(self, theta: Tensor) -> Tensor:
        """Phases as bytes 0 to 255, rounded."""
        return to_uint8(theta, self.scale)

    def project(self, x: Tensor) -> Tensor:
        """Beyond black is black, beyond white is white."""
        check_floating(x, "x")
        return wrap(x.clamp(-self.scale * math.pi, self.scale * math.pi))

    def to_dict(self) -> dict[str, Any]:
        """Kind and scale."""
        return {"kind": self.kind, "scale": float(self.scale)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> GreyLevels:
        """Inverse of :meth:`to_dict`.

        Raises:
            ValueError: other entries.
        """
        _check_entries(data, {"kind", "scale"})
        return cls(data["scale"])


@dataclass(frozen=True)
class Angles:
    """Phases that are angles from the start, such as directions: nothing is changed but whole turns."""

    kind: ClassVar[str] = "angles"
    cyclic: ClassVar[bool] = True

    def encode(self, x: Tensor) -> Tensor:
        """Angles in radians, brought to [-pi, pi).

        Raises:
            ValueError: what cannot be angles in radians, for instance degrees.
        """
        validate_phases(x, "x")
        return wrap(x)

    def decode(self, theta: Tensor) -> Tensor:
        """Angles in [-pi, pi)."""
        return wrap(theta)

    def project(self, x: Tensor) -> Tensor:
        """The ends of the circle for numbers beyond them."""
        check_floating(x, "x")
        return wrap(x.clamp(-math.pi, math.pi))

    def to_dict(self) -> dict[str, Any]:
        """The kind."""
        return {"kind": self.kind}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Angles:
        """Inverse of :meth:`to_dict`."""
        _check_entries(data, {"kind"})
        return cls()


@dataclass(frozen=True)
class Numbers:
    """Numbers that are no phases, such as coefficients of a field on the sphere: left as they are."""

    kind: ClassVar[str] = "numbers"
    cyclic: ClassVar[bool] = False

    def encode(self, x: Tensor) -> Tensor:
        """The numbers themselves."""
        return x

    decode = project = encode

    def to_dict(self) -> dict[str, Any]:
        """The kind."""
        return {"kind": self.kind}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Numbers:
        """Inverse of :meth:`to_dict`."""
        _check_entries(data, {"kind"})
        return cls()


#: Black and white are opposite angles, as far from each other as angles can be: what the shipped models use.
HALF_CIRCLE = GreyLevels(0.5)

#: Nearly the whole circle, as in arXiv 2509.15328: black and white are neighbours.
PUBLISHED = GreyLevels(0.9)


def _check_entries(data: dict[str, Any], expected: set[str]) -> None:
    if not isinstance(data, dict) or set(data) != expected:
        raise ValueError(f"encoding: got {str(data)[:60]}, expected entries {sorted(expected)}")
