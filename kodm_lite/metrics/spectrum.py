r"""How power is spread over wave numbers: radial spectra, and the main wave of each image.

An image is no period of a plane, and the jump between its opposite edges would put power at all wave numbers.  The
images are therefore multiplied by a Hann window, which falls to 0 at the edges.  The price is resolution: a pure wave
becomes a peak two cycles per image side wide on either side.

Wave numbers are in cycles per pixel: 0.5 is a period of two pixels; diagonal waves reach 0.707.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from kodm_lite.metrics.distributions import wasserstein_distance
from kodm_lite.metrics.validation import require_finite
from kodm_lite.validation import told

__all__ = ["RadialSpectrum", "peak_frequencies", "radial_spectrum"]

_PADDING = 2  # sides of the transform over those of the image: with 1 the peaks would be two points wide
_CHUNK = 2**20  # coefficients in memory at a time


class RadialSpectrum(NamedTuple):
    """Wave numbers of R rings (R,), cycles per pixel from 0 in equal steps, and the power in each (..., R); float64."""

    wave_number: Tensor
    power: Tensor


@torch.no_grad()
def radial_spectrum(image: Tensor) -> RadialSpectrum:
    r"""Power spectrum of images, summed over all directions.

    The mean is removed, the image windowed, and the power :math:`|\hat x(k)|^2` of each wave vector shared between the
    two nearest rings, so that mean wave numbers are those of the vectors.  All rings add up to the variance of the
    image, weighted by the squared window.

    Args:
        image: real or complex (..., H, W) from 4 x 4 pixels, finite, else ValueError; such as grey values, or
            ``torch.exp(1j * theta)`` for phases that are angles from the start.

    >>> columns = torch.arange(64.0).expand(64, 64)
    >>> wave_number, power = radial_spectrum(torch.cos(2 * torch.pi * columns / 8))
    >>> float(wave_number[power.argmax()])
    0.125
    """
    _check_image(image)
    *lead, height, width = image.shape
    images = image.detach().reshape(-1, height, width)
    images = images.to(torch.complex128 if images.is_complex() else torch.float64)
    window = (_hann(height)[:, None] * _hann(width)).to(image.device)
    shape = _PADDING * height, _PADDING * width
    lower, upper_share, rings, step = _rings(*shape)
    lower, upper_share = lower.to(image.device), upper_share.to(image.device)
    spectra = []
    for chunk in images.split(max(1, _CHUNK // lower.numel())):
        centred = chunk - (chunk * window).sum((-2, -1), keepdim=True) / window.sum()
        power = torch.fft.fft2(centred * window, s=shape).abs().square().flatten(1)
        power = power / (lower.numel() * window.square().sum())
        spectrum = power.new_zeros(len(chunk), rings)
        spectrum.index_add_(1, lower, power * (1 - upper_share))
        spectrum.index_add_(1, lower + 1, power * upper_share)
        spectra.append(spectrum)
    wave_number = torch.arange(rings, dtype=torch.float64, device=image.device) * step
    return RadialSpectrum(wave_number, torch.cat(spectra).reshape(*lead, rings))


def spectra(image: Tensor) -> Tensor:
    """Wave numbers and power (n, 2, R) of images (n, C, H, W), averaged over their channels."""
    wave_number, power = radial_spectrum(image)
    power = power.mean(1)
    return torch.stack([wave_number.expand_as(power), power], 1)


def between_spectra(a: Tensor, b: Tensor) -> float:
    """Wasserstein distance, over wave number, of two mean spectra: contrast does not matter, scale does."""
    return wasserstein_distance(a[0, 0], b[0, 0], a[:, 1].mean(0), b[:, 1].mean(0))


def peak_frequencies(image: Tensor) -> Tensor:
    """Wave number (B,), cycles per pixel, float64, of the peak of each image's spectrum; 0 for flat images.

    The place of the peak between rings is that of a parabola through the logarithms of the three highest.

    Args:
        image: real or complex images (B, C, H, W); their channels' spectra are added.

    Raises:
        ValueError: as in :func:`radial_spectrum`, or images of another shape.
    """
    _check_image(image)
    if image.ndim != 4:
        raise ValueError(f"image: got shape {tuple(image.shape)}, expected (B, C, H, W); try image[:, None]")
    wave_number, power = radial_spectrum(image)
    power = power.sum(1)
    smallest = torch.finfo(power.dtype).tiny
    peak = power[:, 1:-1].argmax(1, keepdim=True) + 1
    below, at, above = (power.gather(1, peak + step).clamp(min=smallest).log() for step in (-1, 0, 1))
    curvature = (below + above - 2 * at).clamp(max=-smallest)
    place = peak + ((above - below) / (-2 * curvature)).clamp(-0.5, 0.5)
    flat = power.sum(1) <= 1e-20 * image.detach().abs().double().square().mean((1, 2, 3))  # that is rounding
    return torch.where(flat, 0.0, place[:, 0] * wave_number[1])


def _hann(length: int) -> Tensor:
    """Window (length,), symmetric, without zeros."""
    return torch.sin(math.pi * (torch.arange(length, dtype=torch.float64) + 0.5) / length).square()


def _rings(rows: int, columns: int) -> tuple[Tensor, Tensor, int, float]:
    """The ring below each wave vector, the share of the ring above, the number of rings, and their distance."""
    step = 1 / min(rows, columns)
    down, right = (torch.fft.fftfreq(side, dtype=torch.float64) for side in (rows, columns))
    place = torch.hypot(down[:, None].expand(rows, columns), right.expand(rows, columns)).flatten() / step
    lower = place.floor().long()
    return lower, place - lower, int(lower.max()) + 2, step


def _check_image(image: Tensor) -> None:
    require_finite(image, "image", complex_too=True)
    if not (image.is_floating_point() or image.is_complex()) or image.ndim < 2 or min(image.shape[-2:]) < 4:
        expected = "floating or complex numbers (..., H, W) from 4 x 4"
        raise ValueError(f"image: got {told(image)}, expected {expected}; try larger images, or image.float()")
