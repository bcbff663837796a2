"""Checks that several metrics share."""

from __future__ import annotations

import torch
from torch import Tensor

from kodm_lite.circular import validate_phases


def check_images(theta: Tensor, name: str) -> None:
    validate_phases(theta, name)
    if theta.ndim != 4:
        raise ValueError(
            f"{name}: got shape {tuple(theta.shape)}, expected images (B, C, H, W); try {name}[:, None] for (B, H, W)"
        )


def check_features(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"features: got shapes {tuple(a.shape)} and {tuple(b.shape)}, expected (n, F) and (m, F) with n and m at "
            "least 2; try the features of more images"
        )
    if not (bool(torch.isfinite(a).all()) and bool(torch.isfinite(b).all())):
        raise ValueError("features: got NaN or infinity, expected numbers; try torch.isfinite to find them")
