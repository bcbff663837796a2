"""What the functions of this room accept: all else is refused by name, before any work.  Book: The sphere."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["band_limit", "check_fields", "check_points", "check_real", "told"]


def told(x: Any) -> str:
    """What a message says that it got: dtype and shape, or the type of what is no tensor."""
    return f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__


def check_real(x: Any, name: str) -> None:
    """Refuse what is no tensor of real floating numbers."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        advice = "transform.pack(a) for complex a_lm" if isinstance(x, Tensor) and x.is_complex() else ".double()"
        advice = advice if isinstance(x, Tensor) else f"torch.as_tensor({name})"
        raise ValueError(f"{name}: got {told(x)}, expected a tensor of real floating numbers; try {advice}")


def band_limit(c: Any, L: int | None = None, name: str = "c") -> int:
    """L of packed coefficients (..., L^2).

    Raises:
        ValueError: complex or whole numbers, a last dimension that is no square, another L than the one given.
    """
    check_real(c, name)
    found = math.isqrt(c.shape[-1]) if c.ndim else 0
    if found < 1 or found * found != c.shape[-1]:
        raise ValueError(
            f"{name}: got shape {tuple(c.shape)}, expected (..., L^2) with the L^2 packed coefficients last; try "
            f"{name}[..., :{max(1, found * found)}] for fewer degrees"
        )
    if found != (L or found):
        raise ValueError(f"{name}: got coefficients of L = {found}, expected L = {L}, or {(L or 0) ** 2} numbers")
    return found


def check_fields(c: Any, t: Any, L: int, name: str = "c") -> None:
    """Refuse what are no coefficients (B, ..., L^2), or not one time in (0, 1] for each of B.

    The values of times are looked at only where they are at hand: not on a GPU, and not under torch.func.
    """
    if band_limit(c, L, name) and c.ndim < 2:
        raise ValueError(f"{name}: got shape {tuple(c.shape)}, expected (B, L^2); try {name}[None] for a single field")
    t = torch.as_tensor(t) if isinstance(t, (int, float)) else t  # refused below, as it is not one for each
    fine = isinstance(t, Tensor) and t.shape == c.shape[:1] and t.is_floating_point() and t.device == c.device
    if fine and t.device.type == "cpu" and not torch._C._functorch.is_functorch_wrapped_tensor(t):
        fine = torch.compiler.is_compiling() or bool(((t > 0) & (t <= 1)).all())
    if not fine:
        got = told(t)
        if isinstance(t, Tensor) and t.device.type == "cpu":
            got += f", {t.flatten()[:3].tolist()}..."
        raise ValueError(
            f"t: got {got}, expected one time in (0, 1] for each of {len(c)} fields, on {c.device}; try "
            f"torch.rand({len(c)}).clamp(min=1e-3)"
        )


def check_points(theta: Any, phi: Any) -> None:
    """Refuse what are no points of the sphere.

    Raises:
        ValueError: shapes that differ, NaN, colatitudes outside [0, pi], longitudes beyond two turns.
    """
    for name, x in (("theta", theta), ("phi", phi)):
        check_real(x, name)
    if theta.ndim != 1 or theta.shape != phi.shape:
        raise ValueError(
            f"theta, phi: got shapes {tuple(theta.shape)} and {tuple(phi.shape)}, expected (P,) twice; try .flatten()"
        )
    if not bool(((theta >= -1e-6) & (theta <= math.pi + 1e-6)).all()):
        raise ValueError(
            "theta: got values outside [0, pi] or NaN, expected colatitudes in radians; try deg2rad(90 - latitude)"
        )
    if not bool((phi.abs() <= 4 * math.pi + 1e-6).all()):
        raise ValueError("phi: got values beyond two turns or NaN, expected longitudes in radians; try torch.deg2rad")
