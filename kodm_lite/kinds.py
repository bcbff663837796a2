"""What a forward process is to the rest of the package, and what is known of one kind of process.

A process of your own is a class with the methods of :class:`Process`; with :func:`register` a model of it can be loaded
again, and its objectives and samplers go by name.  CONTRIBUTING has a complete example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from kodm_lite.randomness import Generators
from kodm_lite.registry import processes
from kodm_lite.validation import check_count

__all__ = ["Process", "ProcessKind", "process_from_dict", "register", "time_grid"]


class Process(Protocol):
    """A forward process from data at time 0 to noise at time 1."""

    @property
    def kind(self) -> str:
        """Its name in the registry and in files."""

    def validate(self, x: Tensor, name: str) -> None:
        """Refuse what cannot be a batch of states (B, ...), with a ValueError that begins with ``name``."""

    def project(self, x: Tensor) -> Tensor:
        """The state that numbers stand for: phases are wrapped, numbers stay."""

    def simulate(self, x0: Tensor, t: Tensor, *, generator: Generators = None) -> Tensor:
        """States at times t (B,) of data x0 (B, ...)."""

    def draw_prior(
        self, shape: tuple[int, ...], generator: Generators = None, device: torch.device | None = None
    ) -> Tensor:
        """States (B, ...) at time 1 that know nothing of the data, float32."""

    def to_dict(self) -> dict[str, Any]:
        """A JSON object with the ``kind``, from which an equal process can be made."""


def time_grid(steps: int) -> list[float]:
    """Times from 1 down to 0 in equal steps.

    >>> time_grid(4)
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    check_count("steps", steps)
    return [1 - k / steps for k in range(steps + 1)]


@dataclass(frozen=True)
class ProcessKind:
    """What the package knows of a kind of process; the first objective and the first sampler are the defaults.

    Args:
        from_dict: inverse of ``to_dict``; raises a ValueError for anything else.
        objectives: classes of objectives by name, see :class:`kodm_lite.objectives.Objective`.
        samplers: steps by name, see :mod:`kodm_lite.samplers`.
        grid: number of steps to the times from 1 down to 0 that suit the samplers.
        calibrate: what measures a trained network for the samplers, see
            :func:`kodm_lite.calibration.calibrate_all`; None where they need nothing.
    """

    from_dict: Callable[[dict[str, Any]], Any]
    objectives: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    samplers: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    grid: Callable[[int], list[float]] = time_grid
    calibrate: Callable[..., Any] | None = None


def register(
    kind: str,
    from_dict: Callable[[dict[str, Any]], Any],
    *,
    objectives: Mapping[str, Callable[..., Any]] | None = None,
    samplers: Mapping[str, Callable[..., Any]] | None = None,
    grid: Callable[[int], list[float]] = time_grid,
) -> None:
    """Make a kind of process known by its name; arguments as of :class:`ProcessKind`.

    Raises:
        ValueError: a name that is taken.
    """
    processes.register(kind, ProcessKind(from_dict, dict(objectives or {}), dict(samplers or {}), grid))


def process_from_dict(data: dict[str, Any]) -> Any:
    """Inverse of ``to_dict`` of any process whose kind is known.

    Raises:
        ValueError: an unknown kind, missing or unknown entries, or values that make no process.
    """
    return processes.of(data).from_dict(data)
