"""Isotropic random fields: Gaussian ones, where a diffusion is known exactly, and lognormal ones.  Book: The sphere.

The coefficients of a Gaussian field are independent, with a variance C_l that depends on the degree alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kodm_lite.euclidean import EuclideanDiffusion
from kodm_lite.randomness import Generators, normal
from kodm_lite.schedules import per_image
from kodm_lite.sphere.grids import make_grid
from kodm_lite.sphere.harmonics import degrees
from kodm_lite.sphere.inputs import check_fields
from kodm_lite.sphere.noise import HarmonicNoise, PixelNoise
from kodm_lite.sphere.transform import OnDevices, SphericalTransform
from kodm_lite.validation import check_count

__all__ = ["ExactDenoiser", "PerDegreeDenoiser", "Spectrum", "check_spectrum", "gaussian_fields", "lognormal_fields"]

Spectrum = Tensor | np.ndarray | Sequence[float]
_PIECE = 2**25  # numbers on a grid at a time: a quarter of a gigabyte


def gaussian_fields(spectrum: Spectrum, n: int, generator: Generators = None) -> Tensor:
    """Coefficients (n, L^2) of draws with a power spectrum: E c_lm^2 = C_l for every m.

    Args:
        spectrum: C_l >= 0 (L,), else ValueError; lists, arrays and whole numbers are taken as float64.
        n: number of fields.
        generator: None, one, or one per field.
    """
    spectrum, n = check_spectrum(spectrum), check_count("n", n, 0)
    std = spectrum.sqrt()[degrees(len(spectrum)).to(spectrum.device)]
    return std * normal(torch.empty(n, len(std), dtype=spectrum.dtype, device=spectrum.device), generator)


def lognormal_fields(spectrum: Spectrum, n: int, generator: Generators = None) -> Tensor:
    """Coefficients (n, L^2) of fields exp(g), less their mean, for Gaussian fields g of the spectrum: skewed ones.

    The exponential has no band limit; what lies beyond L is cut off.

    Raises:
        ValueError: as :func:`gaussian_fields`, and fields g of a variance above 100, of which exp overflows.
    """
    spectrum, n = check_spectrum(spectrum), check_count("n", n, 0)
    L = len(spectrum)
    variance = float((spectrum.double().cpu() * (2 * torch.arange(L) + 1)).sum()) / (4 * math.pi)  # of g at a point
    if variance > 100:
        hint = f"spectrum / {2 * variance:.3g}, for the variance 1/2"
        raise ValueError(f"spectrum: got fields of variance {variance:g}, expected at most 100; try {hint}")
    fine = SphericalTransform(make_grid("gauss", L, nlat=2 * L, nlon=4 * L), spectrum.dtype).to(spectrum.device)
    c = gaussian_fields(spectrum, n, generator)
    at_once = max(1, _PIECE // math.prod(fine.grid.shape))
    for start in range(0, n, at_once):  # in place: many fields on a grid fill the memory
        fields = fine.synthesis(c[start : start + at_once])
        c[start : start + at_once] = fine.analysis(torch.exp(fields) - math.exp(0.5 * variance))
    return c


class ExactDenoiser(OnDevices):
    """E[eps | c_t] for Gaussian fields with C_l > 0 (L,), exactly: sigma Sigma (alpha^2 C + sigma^2 Sigma)^{-1} c_t.

    In the coordinates in which C is the identity and Sigma diagonal, one factor per coordinate; so a new time needs no
    new factorisation.
    """

    def __init__(self, diffusion: EuclideanDiffusion, spectrum: Spectrum):
        self.diffusion, self.noise = diffusion, harmonic_noise(diffusion)
        spectrum = check_spectrum(spectrum, self.noise.L)
        if not bool((spectrum > 0).all()):
            raise ValueError("spectrum: got zeros, expected C_l > 0 for every degree; try spectrum.clamp(min=1e-12)")
        self.std = spectrum.double().sqrt()
        blocks = self.noise.blocks().double().to(self.std.device)
        self.values, self.axes = torch.linalg.eigh(blocks / (self.std * self.std[:, None]))

    def __call__(self, c: Tensor, t: Tensor) -> Tensor:
        check_fields(c, t, self.noise.L)
        here = self.on(c.device)
        alpha, sigma = (per_image(x(t).double(), c) for x in (self.diffusion.alpha, self.diffusion.sigma))
        if not isinstance(here.noise, PixelNoise):
            variance = (here.std**2)[degrees(self.noise.L).to(c.device)]
            return (sigma / (alpha**2 * variance + sigma**2) * c.double()).to(c)
        transform = here.noise.transform
        inside = (here.axes.mT @ (transform.planes(c.double()) / here.std)[..., None])[..., 0]
        alpha, sigma = alpha[..., None, None], sigma[..., None, None]
        inside = inside * (sigma * here.values / (alpha**2 + sigma**2 * here.values))
        return transform.from_planes((here.axes @ inside[..., None])[..., 0] * here.std).to(c)


class PerDegreeDenoiser(OnDevices):
    """The best linear prediction of the noise that treats all m of a degree alike: sigma c / (alpha^2 C_l + sigma^2).

    It is the best that is linear and commutes with rotations.  For Gaussian fields under isotropic noise it is exact.
    With pixel noise (normalised) the same formula minimises the expected error, and the samples inherit the anisotropy
    of the noise.
    """

    def __init__(self, diffusion: EuclideanDiffusion, spectrum: Spectrum):
        self.diffusion, L = diffusion, harmonic_noise(diffusion).L
        self.variance = check_spectrum(spectrum, L)[degrees(L)]

    def __call__(self, c: Tensor, t: Tensor) -> Tensor:
        check_fields(c, t, self.diffusion.noise.L)
        alpha, sigma = (per_image(x(t), c) for x in (self.diffusion.alpha, self.diffusion.sigma))
        return sigma * c / (alpha**2 * self.on(c.device).variance.to(c.dtype) + sigma**2)


def harmonic_noise(diffusion: EuclideanDiffusion) -> HarmonicNoise:
    """The noise of a diffusion of coefficients; ValueError for any other."""
    noise = getattr(diffusion, "noise", None)
    if not isinstance(diffusion, EuclideanDiffusion) or not isinstance(noise, HarmonicNoise):
        got = type(diffusion).__name__ + (f" with {type(noise).__name__}" if noise is not None else "")
        raise ValueError(f"diffusion: got {got}, expected one of coefficients; try with IsotropicNoise(L)")
    return noise


def check_spectrum(spectrum: Spectrum, L: int | None = None) -> Tensor:
    """A power spectrum (L,) as floating numbers; ValueError for another shape, negative or complex numbers, NaN."""
    expected = f"C_l for l = 0 ... {L - 1 if L else 'L - 1'}"
    if not isinstance(spectrum, Tensor):
        try:
            array = np.asarray(spectrum)
        except ValueError:  # lists of different lengths
            array = np.asarray(None)
        if array.dtype.kind not in "iufc":
            raise ValueError(f"spectrum: got {spectrum!r:.80}, expected numbers, {expected}; try power_spectrum(c)")
        spectrum = torch.from_numpy(array.astype(complex if array.dtype.kind == "c" else float))
    if spectrum.is_complex() or spectrum.dtype == torch.bool:
        raise ValueError(f"spectrum: got {spectrum.dtype}, expected real C_l; try power_spectrum(transform.pack(a))")
    if spectrum.dtype not in (torch.float32, torch.float64):
        spectrum = spectrum.double()
    if spectrum.ndim != 1 or len(spectrum) != (L or max(1, len(spectrum))):
        shape = tuple(spectrum.shape)
        raise ValueError(f"spectrum: got shape {shape}, expected {expected}; try power_spectrum(c).mean(0)")
    if not bool((spectrum >= 0).all() & spectrum.isfinite().all()):
        raise ValueError("spectrum: got negative values or NaN, expected finite ones from 0; try spectrum.clamp(min=0)")
    return spectrum
