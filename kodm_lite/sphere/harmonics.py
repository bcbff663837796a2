"""Spherical harmonics: their real packing, values at any points, spectra.  Book: The sphere.

A field of band limit L is f = sum over l < L and abs(m) <= l of a_lm Y_lm, with orthonormal Y_lm (Condon and Shortley's
sign).  For a real field a_{l,-m} = (-1)^m conj(a_lm), so that L^2 real numbers c tell it, in the order j = l^2 + l + m:

    c_l0 = a_l0,    c_lm = sqrt(2) Re a_lm,    c_{l,-m} = sqrt(2) Im a_lm    for m > 0.

They are the coordinates of f in an orthonormal basis: the norm of c is that of f, and densities of c are those of f.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kodm_lite.sphere.inputs import band_limit, check_points
from kodm_lite.validation import check_count

__all__ = ["degree_order", "degrees", "legendre", "power_spectrum", "real_harmonics", "real_scale"]


def degree_order(L: int) -> tuple[Tensor, Tensor]:
    """Degree l and order m of each of the L^2 packed coefficients.

    >>> degree_order(2)
    (tensor([0, 1, 1, 1]), tensor([ 0, -1,  0,  1]))
    """
    l = degrees(check_count("L", L))
    return l, torch.arange(len(l)) - l * l - l


def degrees(L: int) -> Tensor:
    """Degree l of each of the L^2 packed coefficients: l is the whole part of the square root of the index."""
    return torch.repeat_interleave(torch.arange(L), 2 * torch.arange(L) + 1)


def power_spectrum(c: Tensor) -> Tensor:
    """Mean square of the 2l + 1 coefficients of every degree: (..., L^2) to (..., L)."""
    L = band_limit(c)
    sums = torch.zeros(*c.shape[:-1], L, dtype=c.dtype, device=c.device)
    sums = sums.index_add(-1, degrees(L).to(c.device), c.square())
    return sums / (2 * torch.arange(L, device=c.device) + 1)


def legendre(L: int, theta: Tensor) -> Tensor:
    r"""The colatitude part of all harmonics with m >= 0, Y_lm = P_lm(theta) exp(i m phi), in float64.

    By the recursion in l from the sectoral :math:`P_{mm} \propto \sin^m\theta`, which is stable.  Colatitudes (P,) in
    [0, pi], radians, make (L, L, P), [m, l, point], zero for l < m.
    """
    x, sine = theta.double().cos(), theta.double().sin()
    table = torch.zeros(L, L, len(theta), dtype=torch.float64, device=theta.device)
    table[0, 0] = math.sqrt(1 / (4 * math.pi))
    for l in range(1, L):
        table[l, l] = -math.sqrt((2 * l + 1) / (2 * l)) * sine * table[l - 1, l - 1]
        m = torch.arange(l, dtype=torch.float64, device=theta.device)[:, None]
        rise = ((4 * l * l - 1) / (l * l - m * m)).sqrt()
        fall = (((l - 1) ** 2 - m * m) / (4 * (l - 1) ** 2 - 1)).sqrt() if l > 1 else 0.0
        table[:l, l] = rise * (x * table[:l, l - 1] - fall * table[:l, l - 2])
    return table


def real_harmonics(L: int, theta: Tensor, phi: Tensor) -> Tensor:
    """The orthonormal real basis R_j at points: R_l0 = Y_l0, R_lm = sqrt(2) Re Y_lm, R_{l,-m} = -sqrt(2) Im Y_lm.

    Of points (P,), radians, colatitudes in [0, pi] and longitudes, else ValueError, it makes (P, L^2), float64: a field
    with coefficients c is ``real_harmonics(L, theta, phi) @ c`` there.
    """
    L = check_count("L", L)
    check_points(theta, phi)
    l, m = (x.to(theta.device) for x in degree_order(L))
    part = legendre(L, theta)[m.abs(), l]  # (L^2, P)
    angle = m[:, None] * phi.double()
    wave = torch.where(m[:, None] < 0, angle.sin(), angle.cos())  # -Im exp(i |m| phi) = sin(m phi) for m < 0
    return (real_scale(m)[:, None] * part * wave).T


def real_scale(m: Tensor) -> Tensor:
    """1 for m = 0, sqrt(2) for all others: what makes real and imaginary parts coordinates of unit vectors."""
    return (1 + (m != 0).double()).sqrt()
