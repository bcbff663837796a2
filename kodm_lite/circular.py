"""Angles: wrapping, differences, order parameters, and images as phases.

All angles are in radians, on the circle [-pi, pi).  Chapter 1 of the book derives what is here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "angle_difference",
    "image_to_phase",
    "order_parameter",
    "phase_to_image",
    "to_uint8",
    "validate_phases",
    "wrap",
]

TWO_PI = 2 * math.pi

# 2 pi as a sum of two numbers: the first has so few bits that multiples of it are exact, so that
# reducing an angle loses no digits (Cody and Waite).  First entry: exact part; second: remainder.
_TWO_PI_PARTS = {
    torch.float64: (6.283185303211212, 3.968374318722162e-09),
    torch.float32: (6.28125, 0.001935307179586477),
}


def wrap(x: Tensor) -> Tensor:
    """The angle in [-pi, pi) that is equal to ``x`` up to a multiple of 2 pi.

    Angles that already lie there come back unchanged to the last bit, and the gradient is 1 everywhere.

    Args:
        x: angles in radians, any shape, any floating dtype.

    Returns:
        Angles in [-pi, pi), same shape and dtype.

    Raises:
        ValueError: no tensor, or one that is not floating.

    >>> wrap(torch.tensor([0.5, 4.0, -7.0]))
    tensor([ 0.5000, -2.2832, -0.7168])
    """
    check_floating(x, "x")
    if x.dtype not in _TWO_PI_PARTS:  # half precision has no digits to spare
        return wrap(x.float()).to(x.dtype)
    high, low = _TWO_PI_PARTS[x.dtype]
    turns = torch.round(x.detach() / TWO_PI)  # exactly 0 for all angles of the circle
    # Beyond 1e8 turns (float32: 6e4) the digits are gone; the remainder keeps at least the range.
    y = torch.fmod(x - turns * high - turns * low, TWO_PI)
    # Rounding can leave y one unit in the last place outside; a whole turn brings it back.
    y = torch.where(y >= math.pi, y - TWO_PI, y)
    return torch.where(y < -math.pi, y + TWO_PI, y)


def angle_difference(a: Tensor, b: Tensor) -> Tensor:
    """The shortest signed rotation from ``b`` to ``a``: ``wrap(a - b)``, in [-pi, pi).

    Raises:
        ValueError: no floating tensors, or shapes that do not broadcast.

    >>> angle_difference(torch.tensor(3.0), torch.tensor(-3.0))
    tensor(-0.2832)
    """
    check_floating(a, "a")
    check_floating(b, "b")
    if a.shape != b.shape:
        check_broadcast(b, a, "b")
    return wrap(a - b)


def order_parameter(theta: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    r"""The complex order parameter :math:`z = r e^{i\psi} = \langle e^{i\theta_j} \rangle_j`.

    Its modulus r is 0 for phases spread evenly and 1 for equal phases; its argument is their mean direction.

    Args:
        theta: phases in radians.
        dim: dimensions to average over; all of them by default.
        keepdim: keep the averaged dimensions with length 1.

    Returns:
        Complex tensor.  Source: Kuramoto 1975; Mardia and Jupp 2000, section 2.2.  Book: chapter 1.

    Raises:
        ValueError: no tensor of float32 or float64, dimensions that it has not, or no phases to average over.

    >>> order_parameter(torch.tensor([0.0, torch.pi / 2]))
    tensor(0.5000+0.5000j)
    """
    check_precision(theta, "theta")
    dims = _dimensions(dim, theta)
    return torch.complex(theta.cos().mean(dims, keepdim), theta.sin().mean(dims, keepdim))


def image_to_phase(x: Tensor, scale: float) -> Tensor:
    """Grey values in [-1, 1] as phases in [-scale pi, scale pi].

    ``scale`` < 1 leaves a gap between black and white, which would otherwise be the same angle.

    Args:
        x: image, any shape, values in [-1, 1].
        scale: share of the half circle that is used, in (0, 1].

    Raises:
        ValueError: values outside [-1, 1], for instance bytes, an empty image, or a scale outside (0, 1].

    Source: arXiv 2509.15328, experiments (scale 0.9).  Book: chapter 1.
    """
    _check_scale(scale)
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.numel() == 0:
        got = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"image_to_phase: got {got}, expected a floating image; try x.float() / 127.5 - 1 for bytes")
    low, high = float(x.min()), float(x.max())
    if not (low >= -1.0 - 1e-6 and high <= 1.0 + 1e-6):  # written so that NaN fails too
        raise ValueError(
            f"image_to_phase: got values from {low:.4g} to {high:.4g}, expected [-1, 1]; "
            "try x / 127.5 - 1 for bytes, 2 * x - 1 for values in [0, 1]"
        )
    return x * (scale * math.pi)


def phase_to_image(theta: Tensor, scale: float) -> Tensor:
    """Phases as grey values in [-1, 1]; angles in the gap become the nearer of black and white.

    Inverse of :func:`image_to_phase`.
    """
    _check_scale(scale)
    return (wrap(theta) / (scale * math.pi)).clamp(-1.0, 1.0)


def to_uint8(theta: Tensor, scale: float) -> Tensor:
    """Phases as bytes 0 to 255, rounded to the nearest (not truncated).

    Raises:
        ValueError: NaN, infinity, degrees: what no byte should hide.
    """
    validate_phases(theta)
    return ((phase_to_image(theta, scale) + 1) * 127.5).round().to(torch.uint8)


def validate_phases(theta: Tensor, name: str = "theta") -> None:
    """Refuse what cannot be phases in radians: wrong dtype, NaN, infinity, angles that look like degrees.

    Args:
        theta: what a user passed where phases in [-pi, pi) are expected; a few turns more are tolerated.
        name: the argument's name for the message.

    Raises:
        ValueError: says what was got, what was expected and what to try.
    """
    check_precision(theta, name)
    if theta.numel() == 0:
        raise ValueError(
            f"{name}: got an empty tensor of shape {tuple(theta.shape)}, expected at least one phase; try another batch"
        )
    if theta.is_meta or torch.compiler.is_compiling():  # a graph cannot look at values
        return
    # No copies, as data may be larger than the memory; NaN and infinity survive.
    largest = max(abs(float(extreme)) for extreme in torch.aminmax(theta.detach()))
    if not math.isfinite(largest):
        raise ValueError(
            f"{name}: got NaN or infinity, expected finite phases; try torch.isfinite({name}) to find them"
        )
    if largest > 6 * math.pi:
        raise ValueError(
            f"{name}: got angles up to {largest:.4g}, expected radians in [-pi, pi); "
            f"try torch.deg2rad({name}) if these are degrees, kodm_lite.wrap({name}) if they are many turns"
        )


def check_floating(x: Any, name: str) -> None:
    """Refuse what is no tensor of floating numbers."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name}: got {type(x).__name__}, expected a torch tensor; try torch.as_tensor({name})")
    if not x.is_floating_point():
        raise ValueError(f"{name}: got dtype {x.dtype}, expected floating numbers; try {name}.float()")


def check_precision(x: Any, name: str) -> None:
    """Refuse what is no tensor of float32 or float64."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name}: got {type(x).__name__}, expected a torch tensor; try torch.as_tensor({name})")
    if x.dtype not in _TWO_PI_PARTS:
        raise ValueError(f"{name}: got dtype {x.dtype}, expected float32 or float64; try {name}.float()")


def check_broadcast(x: Tensor, other: Tensor, name: str) -> None:
    """Refuse a tensor whose shape does not go with that of another one."""
    for a, b in zip(reversed(x.shape), reversed(other.shape), strict=False):
        if a != b and a != 1 and b != 1:
            raise ValueError(
                f"{name}: got shape {tuple(x.shape)} beside {tuple(other.shape)}, expected shapes that broadcast; "
                "try dimensions of length 1"
            )


def _dimensions(dim: Any, theta: Tensor) -> tuple[int, ...]:
    """The dimensions to average over, of which there is at least one phase."""
    chosen = range(theta.ndim) if dim is None else (dim,) if isinstance(dim, Integral) else dim
    dims = tuple(chosen) if isinstance(chosen, Sequence) else ()
    if not all(is_integer(d, -theta.ndim) and d < theta.ndim for d in dims) or (
        len({d % theta.ndim for d in dims}) < len(dims) or (not dims and theta.ndim > 0)
    ):
        raise ValueError(f"dim: got {dim!r}, expected different dimensions of {theta.ndim}; try dim=-1")
    if 0 in (theta.shape[d] for d in dims):
        raise ValueError(
            f"theta: got shape {tuple(theta.shape)}, expected at least one phase to average over; try another batch"
        )
    return dims


def is_integer(n: Any, least: int) -> bool:
    """Whether n is an integer, of Python or numpy, of at least that size; True and False are none."""
    return isinstance(n, (int, Integral)) and not isinstance(n, bool) and int(n) >= least


def _check_scale(scale: float) -> None:
    if not 0 < scale <= 1:
        raise ValueError(f"scale: got {scale}, expected a number in (0, 1]; try 0.9, as in the paper")
