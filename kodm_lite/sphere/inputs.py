"""What the functions of this room accept: all else is refused by name, before any work.  Book: The sphere."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kodm_lite.validation import told

__all__ = ["band_limit", "check_fields", "check_points", "check_real"]


def check_real(x: Any, name: str) -> None:
    """Refuse what is no tensor of real floating numbers."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        hint = "transform.pack(a)" if isinstance(x, Tensor) and x.is_complex() else f"torch.as_tensor({name}).double()"
        raise ValueError(f"{name}: got {told(x)}, expected a tensor of real floating numbers; try {hint}")


def band_limit(c: Any, L: int | None = None, name: str = "c") -> int:
    """L of packed coefficients (..., L^2): real ones, and of the L that is given."""
    check_real(c, name)
    found = math.isqrt(c.shape[-1]) if c.ndim else 0
    if found < 1 or found * found != c.shape[-1]:
        raise ValueError(f"{name}: got shape {tuple(c.shape)}, expected (..., L^2); try {name}[..., :{found**2 or 1}]")
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
        got = told(t) + (f", {t.flatten()[:3].tolist()}" if isinstance(t, Tensor) and t.device.type == "cpu" else "")
        raise ValueError(f"t: got {got}, expected one time in (0, 1] per field, {len(c)} on {c.device}; try clamp")


def check_points(theta: Any, phi: Any) -> None:
    """Refuse what are no points of the sphere: colatitudes in [0, pi], longitudes up to two turns, radians."""
    for name, x in (("theta", theta), ("phi", phi)):
        check_real(x, name)
    if theta.ndim != 1 or theta.shape != phi.shape:
        raise ValueError(f"theta, phi: got {told(theta)} and {told(phi)}, expected (P,) twice; try .flatten()")
    if not bool(((theta >= -1e-6) & (theta <= math.pi + 1e-6)).all()):
        raise ValueError("theta: got values outside [0, pi] or NaN, expected radians; try deg2rad(90 - latitude)")
    if not bool((phi.abs() <= 4 * math.pi + 1e-6).all()):
        raise ValueError("phi: got values beyond two turns or NaN, expected longitudes in radians; try torch.deg2rad")
