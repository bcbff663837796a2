"""What an error of the score does to whole images: its part along the lowest modes.  Book: chapter 8."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kodm_lite.kuramoto import without_autocast

__all__ = ["collective_error", "mode_errors"]


def collective_error(error: Tensor, theta: Tensor) -> Tensor:
    r"""How much of an error of the score moves whole images.

    .. math:: N \sum_m \Bigl|\frac1N \sum_i \varphi_m(i)\, e^{i\theta_i} e_i\Bigr|^2

    The modes m are the constant (the order parameter's direction) and, for images, the cosines and sines with one wave
    across the width or the height.  An error that is independent from pixel to pixel has E[error^2] in every mode.

    Args:
        error: difference of two scores (B, C, H, W) or (B, N).
        theta: the phases.

    Returns:
        One number per image (B,).
    """
    return mode_errors(error, theta).sum(0)


def mode_errors(error: Tensor, theta: Tensor) -> Tensor:
    """The terms of that sum: (modes, B), the first one along the order parameter."""
    modes = _lowest_modes(theta)
    with without_autocast(theta):
        real = torch.einsum("bn,mn->mb", (error * theta.cos()).flatten(1), modes)
        imag = torch.einsum("bn,mn->mb", (error * theta.sin()).flatten(1), modes)
    return (real.square() + imag.square()) / theta[0].numel()


def _lowest_modes(theta: Tensor) -> Tensor:
    """Functions of the pixel with mean square 1: (modes, N)."""
    constant = torch.ones_like(theta[0])
    modes = [constant]
    if theta.ndim == 4:
        for dim in (1, 2):
            n = constant.shape[dim]
            turn = 2 * math.pi * torch.arange(n, device=theta.device, dtype=theta.dtype) / n
            wave = turn.reshape([-1 if d == dim else 1 for d in range(3)])
            modes += [2**0.5 * wave.cos() * constant, 2**0.5 * wave.sin() * constant]
    return torch.stack(modes).flatten(1)
