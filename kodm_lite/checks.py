"""Checks that a chapter states in one line, prints, and fails on.

A check compares a measured number with what the mathematics says. It prints one line,

    ✓ mean of sin theta: measured 3.1e-17, expected 0, within 1e-12

and raises :class:`AssertionError` when the comparison fails, which stops the notebook it stands in. The page
"All checks" of the book is made from these lines.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["check", "check_below"]


def check(
    what: str,
    measured: Any,
    expected: Any = 0.0,
    *,
    tolerance: float | None = None,
    standard_error: float | None = None,
    sigmas: float = 4.0,
) -> None:
    """Assert that a measured number, or an array of them, is the expected one; print the comparison.

    Exactly one of ``tolerance`` and ``standard_error`` is given: the first for identities and numerical errors, the
    second for Monte Carlo estimates, which may be off by ``sigmas`` standard errors. Of an array the entry that is
    farthest from its expectation is compared and printed. A NaN never passes.

    Args:
        what: What is compared, in words; the first column of the page "All checks". It contains no line break.
        measured, expected: Numbers, arrays or tensors, real or complex, that broadcast.
        tolerance: Largest allowed distance.
        standard_error, sigmas: Standard deviation of the estimate ``measured``, and how many of them are allowed.

    Raises:
        AssertionError: The distance exceeds what is allowed.
        ValueError: Both or neither of ``tolerance`` and ``standard_error`` are given, or one is not positive.

    Example:
        >>> check("one half, twice", 0.5 + 0.5, 1.0, tolerance=1e-12)
        ✓ one half, twice: measured 1, expected 1 (off by 0), within 1e-12
        >>> check("mean of 100 coin flips", 0.53, 0.5, standard_error=0.05)
        ✓ mean of 100 coin flips: measured 0.53, expected 0.5 (off by 0.03), within 4 standard errors of 0.05
    """
    if (tolerance is None) == (standard_error is None):
        got = f"tolerance={tolerance} and standard_error={standard_error}"
        raise ValueError(f"got {got}, expected exactly one of them, try tolerance=1e-12 for an identity")
    if tolerance is not None:
        allowed, bound = _positive("tolerance", tolerance), f"{tolerance:.3g}"
    else:
        assert standard_error is not None
        allowed = _positive("sigmas", sigmas) * _positive("standard_error", standard_error)
        bound = f"{sigmas:.3g} standard errors of {standard_error:.3g}"
    value, wanted = _farthest_entry(measured, expected)
    distance = abs(value - wanted)
    off = f" (off by {distance:.2g})" if wanted != 0 else ""  # two equal numbers do not show how equal they are
    line = f"{_one_line(what)}: measured {value:.6g}, expected {wanted:.6g}{off}, within {bound}"
    if not distance <= allowed:  # written so that NaN fails
        raise AssertionError(f"✗ {line}: off by {distance:.3g}, {distance / allowed:.3g} times what is allowed")
    print(f"✓ {line}")


def check_below(what: str, measured: Any, bound: float) -> None:
    """Assert that every entry of a real number, array or tensor is at most ``bound``, and none NaN; print the largest.

    Raises:
        AssertionError: The value is larger than ``bound``, or NaN.

    Example:
        >>> check_below("error at 100 steps", [0.004, 0.006], 0.01)
        ✓ error at 100 steps: measured 0.006, at most 0.01
    """
    value = float(_array(measured).max())  # the maximum of anything with a NaN is NaN
    line = f"{_one_line(what)}: measured {value:.6g}, at most {bound:.6g}"
    if not value <= bound:
        raise AssertionError(f"✗ {line}")
    print(f"✓ {line}")


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"got {name}={value}, expected a positive number, try the size of error that you would accept")
    return float(value)


def _one_line(what: str) -> str:
    if "\n" in what:
        raise ValueError(f"got a text of several lines, {what!r}, expected one line, try a shorter text")
    return what


def _array(values: Any) -> np.ndarray:
    """A NumPy array of any number, sequence, array or tensor."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.size == 0:
        raise ValueError("got no numbers at all, expected at least one, try printing the shape of what you measured")
    return array


def _farthest_entry(measured: Any, expected: Any) -> tuple[Any, Any]:
    """The entry of ``measured`` that is farthest from its expectation (a NaN is the farthest), and the expectation."""
    values, wanted = np.broadcast_arrays(_array(measured), _array(expected))
    distance = np.abs(values - wanted)
    index = np.unravel_index(np.argmax(np.where(np.isnan(distance), np.inf, distance)), distance.shape)
    return values[index].item(), wanted[index].item()
