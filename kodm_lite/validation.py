"""Checks of arguments that many public functions share; each says what was got, what was expected and what to try."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

__all__ = ["check_choice", "check_count", "check_device", "check_methods", "check_number", "told"]


def told(value: Any) -> str:
    """What a message says that it got: dtype and shape of a tensor, a short value itself, or else the type."""
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return repr(value)[:60] if value is None or isinstance(value, str | Real) else type(value).__name__


def check_count(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least ``least``, also one of numpy; True is none.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}: got {value!r}, expected an integer from {least}; try {max(least, 1)}")
    return int(value)


def check_number(
    name: str, value: Any, low: float, high: float, hint: Any, *, open_low: bool = False, what: str = "a number"
) -> float:
    """A finite real number from ``low`` (or above it, with ``open_low``) to ``high``.

    Raises:
        ValueError: anything else; the message says ``what`` was expected, with its unit, and suggests ``hint``.
    """
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not real or not low <= value <= high or not math.isfinite(value) or (open_low and value == low):
        bounds = f"{'above' if open_low else 'from'} {low:g}" + (f" to {high:g}" if math.isfinite(high) else "")
        raise ValueError(f"{name}: got {value!r}, expected {what} {bounds}; try {hint}")
    return float(value)


def check_choice(name: str, value: Any, choices: Any) -> None:
    """One of some names, given as a tuple or as a ``Literal``.

    Raises:
        ValueError: anything else.
    """
    choices = choices if isinstance(choices, tuple) else get_args(choices)
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: got {value!r}, expected one of {choices}; try {choices[0]!r}")


def check_device(device: torch.device | str | None) -> torch.device | None:
    """A device that this machine has, or None.

    Raises:
        ValueError: another name, or a device that is not there.
    """
    if device is None:
        return None
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:  # torch raises all, depending on how it was built
        reason = str(error).splitlines()[0][:100]
        raise ValueError(f"device: got {device!r}, expected one of this machine ({reason}); try 'cpu'") from error


def check_methods(name: str, value: Any, *methods: str) -> None:
    """Refuse what lacks a method that is about to be called.

    Raises:
        ValueError: names the first that is missing.
    """
    for method in methods:
        if not callable(getattr(value, method, None)):
            raise ValueError(f"{name}: got {told(value)}, expected an object with a method {method}; try another one")
