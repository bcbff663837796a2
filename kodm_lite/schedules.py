"""How strengths and noise grow with time: schedules that know their integrals.

A step of the process goes from one time to another and uses the integral of every coefficient between them, so that
training and sampling may use different time grids and still take the same steps.  Chapter 3 of the book.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias, overload

import torch
from torch import Tensor

from kodm_lite.circular import check_broadcast

__all__ = ["LinearSchedule", "per_image"]

Time: TypeAlias = Tensor | float  # a number, or one time per image


@dataclass(frozen=True)
class LinearSchedule:
    """A rate that grows linearly from ``start`` at t = 0 to ``end`` at t = 1 (equal values: a constant).

    Args:
        start, end: finite rates >= 0, per unit of (dimensionless) time.

    Raises:
        ValueError: a negative or non-finite rate.

    >>> LinearSchedule(0.0, 2.0).integral(0.0, 0.5)
    0.25
    """

    start: float
    end: float

    def __post_init__(self) -> None:
        for name, value in (("start", self.start), ("end", self.end)):
            if isinstance(value, bool) or not (isinstance(value, Real) and math.isfinite(value) and value >= 0):
                raise ValueError(f"schedule: got {name} = {value!r}, expected a finite number >= 0; try float({name})")
            object.__setattr__(self, name, float(value))

    @overload
    def at(self, t: float) -> float: ...
    @overload
    def at(self, t: Tensor) -> Tensor: ...
    def at(self, t: Time) -> Time:
        """The rate at time t in [0, 1]; one per image if t is."""
        check_time(t, "t")
        return self.start + (self.end - self.start) * t

    @overload
    def integral(self, t0: float, t1: float) -> float: ...
    @overload
    def integral(self, t0: Time, t1: Tensor) -> Tensor: ...
    @overload
    def integral(self, t0: Time, t1: Time) -> Time: ...
    def integral(self, t0: Time, t1: Time) -> Time:
        """The integral of the rate from t0 to t1, exactly."""
        check_time(t0, "t0")
        check_time(t1, "t1")
        if isinstance(t0, Tensor) and isinstance(t1, Tensor) and t0.shape != t1.shape:
            check_broadcast(t0, t1, "t0")
        return (t1 - t0) * (self.start + 0.5 * (self.end - self.start) * (t0 + t1))

    def scaled(self, factor: float) -> LinearSchedule:
        """The same schedule with every rate multiplied by ``factor``."""
        if isinstance(factor, bool) or not isinstance(factor, Real):
            raise ValueError(f"factor: got {factor!r}, expected a number >= 0; try 2.0")
        return LinearSchedule(self.start * factor, self.end * factor)


@overload
def per_image(value: Tensor, theta: Tensor) -> Tensor: ...
@overload
def per_image(value: Tensor | float, theta: Tensor) -> Tensor | float: ...
def per_image(value: Tensor | float, theta: Tensor) -> Tensor | float:
    """A number as it is; one number per image with the dimensions it needs to multiply ``theta``."""
    if isinstance(value, Tensor) and value.ndim == 1:
        return value.reshape(-1, *[1] * (theta.ndim - 1))
    return value


def check_time(t: Any, name: str) -> None:
    """Refuse what is neither a number nor a tensor of real ones; no device waits."""
    if isinstance(t, (Tensor, float, int)) or isinstance(t, Real):
        if not isinstance(t, bool) and not (isinstance(t, Tensor) and (t.dtype is torch.bool or t.is_complex())):
            return
    got = f"dtype {t.dtype}" if isinstance(t, Tensor) else type(t).__name__
    raise ValueError(f"{name}: got {got}, expected a number or one time per image; try torch.as_tensor({name})")
