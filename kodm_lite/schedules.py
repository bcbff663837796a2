"""How strengths and noise grow with time: schedules that know their integrals.

A step of the process goes from one time to another and uses the integral of every coefficient between them, so that
training and sampling may use different time grids and still take the same steps.  Chapter 3 of the book.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias, overload

from torch import Tensor

__all__ = ["LinearSchedule"]

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
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
                raise ValueError(f"schedule: got {name} = {value!r}, expected a finite number >= 0; try float({name})")

    @overload
    def at(self, t: float) -> float: ...
    @overload
    def at(self, t: Tensor) -> Tensor: ...
    def at(self, t: Time) -> Time:
        """The rate at time t in [0, 1]; one per image if t is."""
        return self.start + (self.end - self.start) * t

    @overload
    def integral(self, t0: float, t1: float) -> float: ...
    @overload
    def integral(self, t0: Time, t1: Tensor) -> Tensor: ...
    @overload
    def integral(self, t0: Time, t1: Time) -> Time: ...
    def integral(self, t0: Time, t1: Time) -> Time:
        """The integral of the rate from t0 to t1, exactly."""
        return (t1 - t0) * (self.start + 0.5 * (self.end - self.start) * (t0 + t1))

    def scaled(self, factor: float) -> LinearSchedule:
        """The same schedule with every rate multiplied by ``factor``."""
        return LinearSchedule(self.start * factor, self.end * factor)
