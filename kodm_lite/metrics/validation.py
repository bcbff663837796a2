"""Checks that several metrics share; each says what was got, what was expected and what to try."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kodm_lite.circular import validate_phases
from kodm_lite.encoding import Encoding
from kodm_lite.validation import check_count, told

LARGEST = 1e60  # number whose powers and sums over a set are finite


def check_images(theta: Tensor, name: str) -> None:
    """Refuse what is no set of images (B, C, H, W) of phases."""
    validate_phases(theta, name)
    if theta.ndim != 4:
        raise ValueError(f"{name}: got shape {tuple(theta.shape)}, expected images (B, C, H, W); try {name}[:, None]")


def check_one_shape(a: Tensor, b: Tensor, names: str) -> None:
    """Refuse two sets of images of different shapes."""
    if a.shape[1:] != b.shape[1:]:
        shapes = f"{tuple(a.shape[1:])} and {tuple(b.shape[1:])}"
        raise ValueError(f"{names}: got images of shape {shapes}, expected the same; try images of one size")


def check_features(a: Tensor, b: Tensor) -> None:
    """Refuse what are no two sets of vectors of one length."""
    for features in (a, b):
        require_finite(features, "features")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        shapes, expected = f"{tuple(a.shape)} and {tuple(b.shape)}", "(n, F) and (m, F), n and m at least 2"
        raise ValueError(f"features: got shapes {shapes}, expected {expected}; try the features of more images")


def require_finite(x: Tensor, name: str, complex_too: bool = False) -> None:
    """Refuse what is no tensor of numbers, nothing at all, NaN, infinity, and what would overflow when squared."""
    if not isinstance(x, Tensor) or x.numel() == 0 or (x.is_complex() and not complex_too):
        raise ValueError(f"{name}: got {told(x)}, expected a tensor of numbers; try torch.as_tensor({name})")
    size = x.detach().abs() if x.is_floating_point() or x.is_complex() else x.double().abs()
    if not float(size.max()) <= LARGEST:  # written so that NaN fails too
        raise ValueError(f"{name}: got NaN or more than {LARGEST:g}, expected numbers; try torch.isfinite({name})")


def check_range(name: str, value: Any, least: int, most: int) -> None:
    """Refuse what is no whole number of a range."""
    if check_count(name, value, least) > most:
        raise ValueError(f"{name}: got {value!r}, expected an integer from {least} to {most}; try {least}")


def check_encoding(encoding: Any) -> None:
    """Refuse what does not say what phases stand for."""
    if not isinstance(encoding, Encoding):
        raise ValueError(f"encoding: got {encoding!r}, expected what phases stand for; try kodm_lite.GreyLevels(0.5)")
