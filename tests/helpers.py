"""What many tests share."""

import math

import torch
from torch import Tensor

# The house's form of a refusal.
HELPFUL = r"(?s)got .*expected .*try "
# Seconds after which a process, or a page, is taken to hang. Nothing that works comes near, however busy the machine.
PATIENCE = 900


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_phases(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Uniform on the whole circle."""
    return (torch.rand(shape, generator=seeded(seed), dtype=dtype) - 0.5) * 2 * math.pi
