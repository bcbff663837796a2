"""Random numbers from one generator for a batch, or from one generator per image.

With a generator per image, image k is the same whatever else is in the batch: the basis of reproducible
samples.  Every function here takes ``generator`` as None (torch's global one), one ``torch.Generator``, or a
sequence of them, one per entry of the first dimension.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

__all__ = [
    "Generators",
    "Seeds",
    "check_kind",
    "check_one_per_image",
    "device_of",
    "generators_from_seeds",
    "known_device",
    "normal",
    "one_generator_per_seed",
    "uniform",
]

Generators = Generator | Sequence[Generator] | None
Seeds = Sequence[int] | np.ndarray | Tensor


def generators_from_seeds(seeds: Seeds, device: torch.device | str = "cpu") -> list[Generator]:
    """One generator per seed.

    Args:
        seeds: integers; on the CPU torch uses the last 32 bits of each.
        device: of the generators.

    Raises:
        ValueError: no sequence of integers, integers of more than 64 bits, or a device that is not there.

    >>> a, b = generators_from_seeds([1, 2])
    >>> a.initial_seed(), b.initial_seed()
    (1, 2)
    """
    device = known_device(device)
    return [Generator(device).manual_seed(seed) for seed in _integers(seeds)]


def known_device(device: torch.device | str | None) -> torch.device:
    """The device of that name, if this machine has it; None is the CPU.

    Raises:
        ValueError: no device of this machine.
    """
    try:
        known = torch.device("cpu" if device is None else device)
        torch.empty(0, device=known)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"device: got {device!r}, expected one of this machine ({str(error).splitlines()[0]}); try 'cpu'"
        ) from None
    return known


def one_generator_per_seed(
    seeds: Seeds | None, count: int, generator: Generators, device: torch.device | str
) -> Generators:
    """The generators of ``seeds``, one for each of ``count`` images; without seeds ``generator`` as it is.

    Raises:
        ValueError: both, another number of seeds, seeds that are no integers, generators that are none.
    """
    if seeds is None:
        check_kind(generator)
        return generator
    if generator is not None:
        raise ValueError("seeds, generator: got both, expected one of them")
    integers = _integers(seeds, count)
    if len(integers) != count:
        raise ValueError(f"seeds: got {seeds!r}, expected one integer per image, {count}; try range({count})")
    return generators_from_seeds(integers, device)


def _integers(seeds: Any, count: int = 4) -> list[int]:
    """Seeds as integers of 64 bits; ``count`` is for the hint."""
    hint = f"expected one integer per image; try range({count})"
    if isinstance(seeds, (np.ndarray, Tensor)) and seeds.ndim == 1:
        seeds = seeds.tolist()
    if not isinstance(seeds, Sequence) or isinstance(seeds, (str, bytes)):
        raise ValueError(f"seeds: got {seeds!r}, {hint}")
    integers = []
    for seed in seeds:
        try:
            integers.append(operator.index(seed))
        except TypeError:
            raise ValueError(f"seeds: got {seed!r} among them, {hint}") from None
        if not -(2**63) <= integers[-1] < 2**64:
            raise ValueError(f"seeds: got {seed}, expected integers from -2^63 to 2^64 - 1; try seed % 2**64")
    return integers


def normal(like: Tensor, generator: Generators = None) -> Tensor:
    """Standard normal numbers with the shape, dtype and device of ``like``."""
    return _draw(torch.randn, like, generator)


def uniform(like: Tensor, generator: Generators = None) -> Tensor:
    """Uniform numbers in [0, 1) with the shape, dtype and device of ``like``."""
    return _draw(torch.rand, like, generator)


def device_of(generator: Generators) -> torch.device:
    """Where random numbers of a generator are made; the CPU for None."""
    check_kind(generator)
    first = next(iter(generator), None) if isinstance(generator, Sequence) else generator
    return torch.device("cpu") if first is None else first.device


def _draw(draw: Callable[..., Tensor], like: Tensor, generator: Generators) -> Tensor:
    if generator is None or isinstance(generator, Generator):
        _check_device(generator, like)
        return draw(like.shape, generator=generator, dtype=like.dtype, device=like.device)
    check_one_per_image(generator, like)
    for g in generator:
        _check_device(g, like)
    rows = [draw(like.shape[1:], generator=g, dtype=like.dtype, device=like.device) for g in generator]
    return torch.stack(rows) if rows else torch.empty_like(like)


def _check_device(generator: Generator | None, like: Tensor) -> None:
    if generator is not None and generator.device.type != like.device.type:
        raise ValueError(
            f"generator: got one on {generator.device}, expected one on {like.device}, where the numbers are wanted; "
            f"try torch.Generator({like.device.type!r})"
        )


def check_kind(generator: Any) -> None:
    """Refuse what is neither None nor a generator nor a sequence of generators."""
    if generator is None or isinstance(generator, Generator):
        return
    if not isinstance(generator, Sequence) or not all(isinstance(g, Generator) for g in generator):
        raise ValueError(
            f"generator: got {generator!r}, expected torch.Generator or one per image; try "
            "torch.Generator().manual_seed(3), or generators_from_seeds([1, 2])"
        )


def check_one_per_image(generators: Sequence[Generator], like: Tensor) -> None:
    """Refuse another number of generators than ``like`` has entries in its first dimension.

    Raises:
        ValueError: says how many there are, and how many are needed; also for what are no generators.
    """
    check_kind(generators)
    if like.ndim == 0 or len(generators) != like.shape[0]:
        raise ValueError(
            f"generator: got {len(generators)} generators for the shape {tuple(like.shape)}, expected one per entry of "
            "the first dimension; try generators_from_seeds(range(batch))"
        )
