"""Who listens to whom: global and local coupling as complex mean fields, and the Kuramoto drift.

A coupling is a linear average over neighbours.  Applied to cos theta and sin theta it gives the mean field
z_i = <exp(i theta_j)> over the neighbours j of i, and with it the drift of every phase at a cost proportional to the
number of pixels.  Chapter 2 of the book derives this.

Shapes: images are (B, C, H, W), plain oscillators (B, N); the first dimension is always the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from kodm_lite.validation import check_count

__all__ = [
    "Coupling",
    "GlobalCoupling",
    "LocalCoupling",
    "drift_in_field",
    "kuramoto_drift",
    "pixels_beyond_edges",
    "without_autocast",
]

Boundary = Literal["periodic", "reflect"]


@runtime_checkable
class Coupling(Protocol):
    """What a process needs of a coupling; one of your own inherits from it.

    A process can be stored if its coupling has ``to_dict()``, see :mod:`kodm_lite.registry`.
    """

    def average(self, x: Tensor) -> Tensor:
        """A linear average of x (B, ...) over the neighbours of each entry; the weights are symmetric."""

    def mean_field(self, theta: Tensor) -> Tensor:
        """z_i = mean of exp(i theta_j) over the neighbours of i, complex."""
        return torch.complex(self.average(theta.cos()), self.average(theta.sin()))

    def transfer(self, shape: tuple[int, ...]) -> Tensor:
        """Factors by which the average multiplies its modes on an image (C, H, W) or line (N,)."""


@dataclass(frozen=True)
class GlobalCoupling:
    """Every phase listens to all phases of its image (all pixels, all channels), itself included.

    >>> GlobalCoupling().mean_field(torch.zeros(2, 1, 4, 4)).shape
    torch.Size([2, 1, 1, 1])
    """

    def average(self, x: Tensor) -> Tensor:
        """Mean over all dimensions but the first, kept with length 1."""
        _check_numbers(x, "global")
        return x.mean(dim=tuple(range(1, x.ndim)), keepdim=True)

    def mean_field(self, theta: Tensor) -> Tensor:
        """z_i = mean of exp(i theta_j) over all phases of the image, complex, shape (B, 1, ...)."""
        return torch.complex(self.average(theta.cos()), self.average(theta.sin()))

    def transfer(self, shape: tuple[int, ...]) -> Tensor:
        """Factor by which the average multiplies each Fourier mode of an image: 1 for the mean, 0 for all others."""
        b = torch.zeros(shape, dtype=torch.float32)
        b[(0,) * len(shape)] = 1.0
        return b

    def to_dict(self) -> dict[str, Any]:
        """The kind."""
        return {"kind": "global"}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> GlobalCoupling:
        """Inverse of :meth:`to_dict`."""
        return cls(**_options(data))


@dataclass(frozen=True)
class LocalCoupling:
    """Every phase listens to the (2 radius + 1)^2 box around it, channel by channel, itself included.

    Plain oscillators (B, N) form a ring (or a reflected line) and listen to 2 radius + 1 neighbours.  The cost does not
    depend on the radius.

    Args:
        radius: half width of the box in pixels, at least 1 and smaller than the image.
        boundary: "periodic", or "reflect": mirrored at the edge of the border pixels (d c b a | a b c d | d c b a),
            the one reflection that keeps the coupling symmetric, so that it derives from an energy.  A pair is for
            (rows, columns) of images: ("reflect", "periodic") goes on from the left edge at the right one.

    Raises:
        ValueError: radius or boundary outside these; on use, radius not smaller than the image.

    Source: arXiv 2509.15328, local coupling.  Book: chapter 2.
    """

    radius: int
    boundary: Boundary | tuple[Boundary, Boundary] = "periodic"

    def __post_init__(self) -> None:
        boundary: Any = self.boundary
        sides = (boundary, boundary) if isinstance(boundary, str) else boundary
        if (
            not isinstance(sides, (tuple, list))
            or len(sides) != 2
            or not set(map(str, sides)) <= {"periodic", "reflect"}
        ):
            raise ValueError(
                f"boundary: got {boundary!r}, expected 'periodic', 'reflect' or a pair of them for (rows, columns); "
                "try 'periodic'"
            )
        object.__setattr__(self, "radius", check_count("radius", self.radius))
        object.__setattr__(self, "boundary", str(sides[0]) if sides[0] == sides[1] else tuple(map(str, sides)))

    def average(self, x: Tensor) -> Tensor:
        """Mean over the box around every pixel, same shape as ``x``."""
        _check_numbers(x, "local")
        sides = self._sides(x.shape[1:])
        smallest = min(x.shape[dim] for dim in sides)
        if self.radius >= smallest:
            raise ValueError(
                f"radius: got {self.radius} for an image of shape {tuple(x.shape)}, expected less than {smallest}; "
                "try GlobalCoupling() for everybody"
            )
        for dim, boundary in sides.items():
            x = _box_mean(x, self.radius, dim, boundary)
        return x

    def mean_field(self, theta: Tensor) -> Tensor:
        """z_i = mean of exp(i theta_j) over the box around i, complex, same shape as ``theta``."""
        return torch.complex(self.average(theta.cos()), self.average(theta.sin()))

    def transfer(self, shape: tuple[int, ...]) -> Tensor:
        """Factor by which the average multiplies each mode of an image (C, H, W) or line (N,).

        Modes are those of the discrete Fourier transform along periodic sides, of the cosine transform (DCT-II) along
        reflecting ones.  Channels do not mix.
        """
        factor = torch.ones(shape, dtype=torch.float32)
        offsets = torch.arange(-self.radius, self.radius + 1, dtype=torch.float64)
        for dim, boundary in self._sides(shape).items():
            n = shape[dim]
            turn = torch.arange(n, dtype=torch.float64) * (math.pi / n) * (2 if boundary == "periodic" else 1)
            along = torch.cos(turn[:, None] * offsets).mean(1).to(factor.dtype)
            factor = factor * along.reshape(-1, *[1] * (-1 - dim))
        return factor

    def to_dict(self) -> dict[str, Any]:
        """Kind, radius and boundary."""
        boundary = self.boundary if isinstance(self.boundary, str) else list(self.boundary)
        return {"kind": "local", "radius": self.radius, "boundary": boundary}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LocalCoupling:
        """Inverse of :meth:`to_dict`.

        Raises:
            ValueError: other entries, or values that make no coupling.
        """
        try:
            return cls(**_options(data))
        except TypeError as error:
            raise ValueError(f"coupling: got {data!r}, expected kind 'local', radius and boundary") from error

    def _sides(self, shape: Sequence[int]) -> dict[int, str]:
        """The boundary along each dimension of space, counted from the last, of one image or line of this shape."""
        boundary: Any = self.boundary
        if len(shape) == 3:
            rows, columns = (boundary, boundary) if isinstance(boundary, str) else boundary
            return {-2: rows, -1: columns}
        if len(shape) == 1 and isinstance(boundary, str):
            return {-1: boundary}
        one = "images (C, H, W) or oscillators (N,)" if isinstance(boundary, str) else "images (C, H, W), for a pair"
        raise ValueError(
            f"local coupling: got {tuple(shape)} after the batch dimension, expected {one}; try x[None] for one image, "
            "one boundary for oscillators"
        )


def _options(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name != "kind"}


# A product with an n x n averaging matrix is up to three times faster than prefix sums for short lines and slower for
# long ones (benchmarks/core.py); neither depends on the radius.
_LONGEST_MATRIX = 128


def _box_mean(x: Tensor, radius: int, dim: int, boundary: str) -> Tensor:
    if x.shape[dim] <= _LONGEST_MATRIX:
        return _box_mean_by_matrix(x, radius, dim, boundary)
    return _box_mean_by_prefix_sums(x, radius, dim, boundary)


def _box_mean_by_matrix(x: Tensor, radius: int, dim: int, boundary: str) -> Tensor:
    # The compiler must not see the cache, and does not need it.
    make = _averaging_matrix if torch.compiler.is_compiling() else _kept_averaging_matrix
    matrix = make(x.shape[dim], radius, boundary, x.dtype, x.device)
    with without_autocast(x):  # bf16 would round the field away
        return matrix @ x if dim == -2 else x @ matrix


def _averaging_matrix(n: int, radius: int, boundary: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Symmetric: entry (i, j) counts how often the box around i meets pixel j or one of its images."""
    j = torch.arange(n, device=device)
    i = j[:, None]

    def meetings(offset: Tensor, period: int) -> Tensor:  # how often offset + m period, m integer, is in the box
        return (
            (radius - offset).div(period, rounding_mode="floor")
            + (radius + offset).div(period, rounding_mode="floor")
            + 1
        )

    counts = meetings(j - i, n) if boundary == "periodic" else meetings(j - i, 2 * n) + meetings(-1 - j - i, 2 * n)
    return counts.to(dtype) / (2 * radius + 1)


@lru_cache(maxsize=64)
def _kept_averaging_matrix(n: int, radius: int, boundary: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Twenty small operations, for which a step of a simulation would otherwise take twice as long."""
    with torch.inference_mode(False):  # whoever comes first, the matrix is for all
        return _averaging_matrix(n, radius, boundary, dtype, device)


def _box_mean_by_prefix_sums(x: Tensor, radius: int, dim: int, boundary: str) -> Tensor:
    n = x.shape[dim]
    index = pixels_beyond_edges(-radius - 1, n + radius, n, boundary, x.device)
    # Double precision: a difference of long float32 sums would lose the digits that the box mean needs.
    double = torch.complex128 if x.is_complex() else torch.float64
    sums = x.index_select(dim, index).cumsum(dim, dtype=double)
    box = sums.narrow(dim, 2 * radius + 1, n) - sums.narrow(dim, 0, n)
    return (box / (2 * radius + 1)).to(x.dtype)


def pixels_beyond_edges(first: int, last: int, n: int, boundary: str, device: torch.device) -> Tensor:
    """Which of the n pixels of a line is seen at each place from ``first`` to ``last`` - 1, also beyond its edges."""
    index = torch.arange(first, last, device=device)
    if boundary == "periodic":
        return index % n
    index = index % (2 * n)
    return torch.where(index < n, index, 2 * n - 1 - index)


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Full precision for what is computed on the device of x; the meta device, which computes nothing, has no other."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def _check_numbers(x: Tensor, kind: str) -> None:
    if not isinstance(x, Tensor) or not (x.is_floating_point() or x.is_complex()):
        got = f"dtype {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"{kind} coupling: got {got}, expected real or complex numbers; try torch.as_tensor(x).float()"
        )
    if x.ndim < 2:
        raise ValueError(f"{kind} coupling: got shape {tuple(x.shape)}, expected a batch (B, ...); try x[None]")


def drift_in_field(sin: Tensor, cos: Tensor, field_real: Tensor, field_imag: Tensor) -> Tensor:
    r"""Im(H e^{-i\theta}) in real arithmetic: the pull of a field H on phases with these sines and cosines."""
    return field_imag * cos - field_real * sin


def kuramoto_drift(
    theta: Tensor,
    mean_field: Tensor,
    coupling_strength: Tensor | float,
    reference_strength: Tensor | float,
    reference_phase: Tensor | float = 0.0,
) -> Tensor:
    r"""The Kuramoto drift :math:`K r_i \sin(\psi_i - \theta_i) + K_{ref} \sin(\psi_{ref} - \theta_i)`.

    Args:
        theta: phases, radians.
        mean_field: complex z_i = r_i exp(i psi_i), broadcastable to ``theta`` (``coupling.mean_field(theta)``).
        coupling_strength: K, per unit time (or integrated over a step, which gives a displacement).
        reference_strength: K_ref, likewise.
        reference_phase: psi_ref, radians.

    Returns:
        Angular velocity, same shape as ``theta``.  Source: arXiv 2509.15328, forward SDE; Sakaguchi 1988.
        Book: chapter 2.

    Raises:
        ValueError: a mean field that is not complex, or of a shape that does not broadcast to the phases'.

    >>> kuramoto_drift(torch.tensor([0.1]), torch.tensor([0.5j]), 2.0, 0.0)
    tensor([0.9950])
    """
    if not isinstance(mean_field, Tensor) or not mean_field.is_complex():
        got = f"dtype {mean_field.dtype}" if isinstance(mean_field, Tensor) else type(mean_field).__name__
        raise ValueError(f"mean_field: got {got}, expected a complex tensor; try coupling.mean_field(theta)")
    batch = theta.shape[:1] if theta.shape[:1] != (1,) else mean_field.shape[:1]  # one image may meet many fields
    sides = zip(reversed(mean_field.shape), reversed(batch + theta.shape[1:]), strict=False)
    if mean_field.ndim > theta.ndim or any(n not in (1, of_theta) for n, of_theta in sides):
        raise ValueError(
            f"mean_field: got shape {tuple(mean_field.shape)}, expected one that broadcasts to {tuple(theta.shape)}; "
            "try coupling.mean_field(theta)"
        )
    pull = drift_in_field(theta.sin(), theta.cos(), mean_field.real, mean_field.imag)
    return coupling_strength * pull - reference_strength * torch.sin(theta - reference_phase)
