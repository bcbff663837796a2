"""Options that several loaders share, refused with the same words."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["check_choice", "check_whole", "given_path", "listed"]


def check_choice(name: str, value: Any, choices: Sequence[Any], unit: str = "") -> None:
    """Refuse what is none of the choices."""
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        *most, last = map(repr, choices)
        expected = f"{', '.join(most)} or {last}" if most else last
        raise ValueError(f"{name}: got {value!r}, expected {expected}{unit}; try {name}={choices[0]!r}")


def check_whole(name: str, value: Any, least: int, most: int = 2**63 - 1, hint: int = 0, unit: str = "") -> int:
    """A whole number, of Python or of NumPy, within bounds.

    Raises:
        ValueError: names the option, what was given, and ``hint``, which is to be tried.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        limit = f"from {least}" if most == 2**63 - 1 else f"from {least} to {most}"
        raise ValueError(f"{name}: got {value!r}, expected a whole number {limit}{unit}; try {name}={hint or least}")
    return number


def given_path(name: str, path: str | os.PathLike[str]) -> Path:
    """A path, in which ~ is the home.

    Raises:
        ValueError: no text and no path.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise ValueError(f"{name}: got {path!r}, expected text or a path; try {name}='~/pictures'")
    return Path(path).expanduser()


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are; bytes that are no UTF-8 as escapes, so that they can be printed."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]).encode("utf8", "backslashreplace").decode() + more
