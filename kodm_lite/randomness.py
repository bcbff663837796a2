"""Random numbers from one generator for a batch, or from one generator per image.

With a generator per image, image k is the same whatever else is in the batch: the basis of reproducible
samples.  Every function here takes ``generator`` as None (torch's global one), one ``torch.Generator``, or a
sequence of them, one per entry of the first dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

__all__ = ["Generators", "check_one_per_image", "generators_from_seeds", "normal", "one_generator_per_seed", "uniform"]

Generators = Generator | Sequence[Generator] | None


def generators_from_seeds(seeds: Sequence[int], device: torch.device | str = "cpu") -> list[Generator]:
    """One generator per seed.

    >>> a, b = generators_from_seeds([1, 2])
    >>> a.initial_seed(), b.initial_seed()
    (1, 2)
    """
    return [Generator(device).manual_seed(int(seed)) for seed in seeds]


def one_generator_per_seed(
    seeds: Sequence[int] | None, count: int, generator: Generators, device: torch.device | str
) -> Generators:
    """The generators of ``seeds``, one for each of ``count`` images; without seeds ``generator`` as it is.

    Raises:
        ValueError: both, or another number of seeds.
    """
    if seeds is None:
        return generator
    if generator is not None:
        raise ValueError("seeds, generator: got both, expected one of them")
    if not isinstance(seeds, Sequence) or len(seeds) != count:
        raise ValueError(f"seeds: got {seeds!r}, expected one integer per image, {count}; try range({count})")
    return generators_from_seeds(seeds, device)


def normal(like: Tensor, generator: Generators = None) -> Tensor:
    """Standard normal numbers with the shape, dtype and device of ``like``."""
    return _draw(torch.randn, like, generator)


def uniform(like: Tensor, generator: Generators = None) -> Tensor:
    """Uniform numbers in [0, 1) with the shape, dtype and device of ``like``."""
    return _draw(torch.rand, like, generator)


def _draw(draw: Callable[..., Tensor], like: Tensor, generator: Generators) -> Tensor:
    if generator is None or isinstance(generator, Generator):
        return draw(like.shape, generator=generator, dtype=like.dtype, device=like.device)
    check_one_per_image(generator, like)
    rows = [draw(like.shape[1:], generator=g, dtype=like.dtype, device=like.device) for g in generator]
    return torch.stack(rows)


def check_one_per_image(generators: Sequence[Generator], like: Tensor) -> None:
    """Refuse another number of generators than ``like`` has entries in its first dimension.

    Raises:
        ValueError: says how many there are, and how many are needed.
    """
    if like.ndim == 0 or len(generators) != like.shape[0]:
        raise ValueError(
            f"generator: got {len(generators)} generators for the shape {tuple(like.shape)}, expected one per entry of "
            "the first dimension; try generators_from_seeds(range(batch))"
        )
