"""What a forward process is to the rest of the package, and what is known of one kind of process.

A process of your own is a frozen dataclass that inherits from :class:`Process`; with :func:`register` a model of it can
be loaded again, and its objectives and samplers go by name.  CONTRIBUTING has a complete example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from kodm_lite.randomness import Generators
from kodm_lite.registry import processes
from kodm_lite.validation import check_count, told

__all__ = ["Process", "ProcessKind", "process_from_dict", "register", "time_grid"]


class Process(Protocol):
    """A forward process from data at time 0 to noise at time 1.

    What is written out here suits a frozen dataclass of numbers; :meth:`simulate` and :meth:`draw_prior` are its own.
    """

    @property
    def kind(self) -> str:
        """Its name in the registry and in files."""

    def validate(self, x: Tensor, name: str = "x") -> None:
        """Refuse what cannot be a batch of states (B, ...), with a ValueError that begins with ``name``."""
        states = isinstance(x, Tensor) and x.is_floating_point() and x.ndim >= 2
        if not states or not (x.is_meta or bool(torch.isfinite(x).all())):
            got = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"{name}: got {got}, expected finite floating numbers (B, ...); try {name}.float()")

    def project(self, x: Tensor) -> Tensor:
        """The state that numbers stand for: phases are wrapped, numbers stay."""
        return x

    def simulate(self, x0: Tensor, t: Tensor, *, generator: Generators = None) -> Tensor:
        """States at times t (B,) of data x0 (B, ...)."""

    def draw_prior(
        self, shape: tuple[int, ...], generator: Generators = None, device: torch.device | None = None
    ) -> Tensor:
        """States (B, ...) at time 1 that know nothing of the data, float32."""

    def to_dict(self) -> dict[str, Any]:
        """A JSON object with the ``kind``, from which an equal process can be made."""
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]


def time_grid(steps: int) -> list[float]:
    """Times from 1 down to 0 in equal steps.

    >>> time_grid(4)
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    check_count("steps", steps)
    return [1 - k / steps for k in range(steps + 1)]


def check_grid(times: Sequence[float]) -> list[float]:
    """The times of a sampler as numbers.

    Raises:
        ValueError: fewer than two, times that do not decrease or lie outside [0, 1].
    """
    try:
        grid = [float(t) for t in times]
    except (TypeError, ValueError, RuntimeError):
        grid = []
    if len(grid) < 2 or not all(1 >= a > b >= 0 for a, b in pairwise(grid)):
        raise ValueError(
            f"times: got {grid[:5] or told(times)}, expected at least two decreasing times in [0, 1], from 1 (prior) "
            "to 0 (data); try [1.0, 0.5, 0.0]"
        )
    return grid


@dataclass(frozen=True)
class ProcessKind:
    """What the package knows of a kind of process; the first objective and the first sampler are the defaults.

    Args:
        from_dict: inverse of ``to_dict``; raises a ValueError for anything else.
        objectives: classes of objectives by name, see :class:`kodm_lite.losses.Objective`.
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
    """Make a kind of process known by its name.

    Args:
        kind: its name.
        from_dict: inverse of ``to_dict``, or the class of a dataclass, whose fields are the other entries.
        objectives, samplers, grid: as of :class:`ProcessKind`.

    Raises:
        ValueError: a name that is taken.
    """
    if not callable(from_dict):
        raise ValueError(f"from_dict: got {told(from_dict)}, expected a function of a description; try MyProcess")
    make = _maker(from_dict) if is_dataclass(from_dict) else from_dict
    processes.register(kind, ProcessKind(make, dict(objectives or {}), dict(samplers or {}), grid))


def _maker(cls: Any) -> Callable[[dict[str, Any]], Any]:
    def make(data: dict[str, Any]) -> Any:
        names = {"kind", *(field.name for field in fields(cls))}
        if set(data) != names:
            raise ValueError(f"process: got entries {sorted(data)}, expected {sorted(names)}")
        return cls(**{name: value for name, value in data.items() if name != "kind"})

    return make


def process_from_dict(data: dict[str, Any]) -> Any:
    """Inverse of ``to_dict`` of any process whose kind is known.

    Raises:
        ValueError: an unknown kind, missing or unknown entries, or values that make no process.
    """
    return processes.of(data).from_dict(data)
