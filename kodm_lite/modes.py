r"""The Fourier modes of a density on the circle, carried along in the field that they make themselves.

With infinitely many oscillators each one sees a deterministic field H(t) = K c_1 + K_ref exp(i psi_ref), so that its
density obeys a Fokker-Planck equation on the circle.  In the Fourier modes c_n = E exp(i n theta) it reads

.. math:: \dot c_n = \tfrac n2 \bigl(H c_{n-1} - \bar H c_{n+1}\bigr) - n^2 D c_n .

Chapter 3 of the book derives it.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from kodm_lite.process import KuramotoProcess

__all__ = [
    "cos_sin_of_field",
    "evolve_modes",
    "lawson_step",
    "mean_field_torque",
    "reference_direction",
    "stable_steps",
    "torque_of_field",
]

Torque = Callable[["KuramotoProcess", Tensor, float], Tensor]

FEWEST_STEPS, MOST_STEPS = 200, 20_000  # the most take some seconds


def evolve_modes(process: KuramotoProcess, modes: Tensor, t0: float = 0.0, t1: float = 1.0) -> Tensor:
    """Modes c_n of the one-oscillator density at t1 from those at t0, in the mean-field limit.

    Args:
        process: its schedules and its (numerical) reference phase are used.
        modes: complex (..., M + 1), modes n = 0..M with c_0 = 1; leading dimensions are independent populations,
            for instance one per image.

    Returns:
        Complex (..., M + 1).  Source: Sakaguchi 1988.  Book: chapter 3.

    Raises:
        ValueError: a reference phase that is a field, or strengths that would take more than 20,000 steps.
    """
    decay = torch.arange(modes.shape[-1], dtype=torch.float64) ** 2
    grid = torch.linspace(t0, t1, stable_steps(process, modes.shape[-1], t1 - t0) + 1, dtype=torch.float64).tolist()
    for a, b in pairwise(grid):
        modes = lawson_step(process, mean_field_torque, modes, decay, a, b)
    return modes


def mean_field_torque(process: KuramotoProcess, c: Tensor, t: float) -> Tensor:
    """The pull of the field that the population c itself makes, H = K c_1 + K_ref exp(i psi_ref)."""
    return torque_of_field(process, c, c[..., 1:2], t)


def torque_of_field(process: KuramotoProcess, c: Tensor, z: Tensor, t: float) -> Tensor:
    """(n/2)(H c_{n-1} - conj(H) c_{n+1}) in the field of the order parameter z; the mode after the last is zero."""
    field = process.coupling_strength.at(t) * z + process.reference_strength.at(t) * reference_direction(process)
    below = torch.nn.functional.pad(c[..., :-1], (1, 0))  # what stands at n = 0 is multiplied by 0
    above = torch.nn.functional.pad(c[..., 1:], (0, 1))
    return 0.5 * torch.arange(c.shape[-1], dtype=torch.float64) * (field * below - field.conj() * above)


def lawson_step(process: KuramotoProcess, torque: Torque, c: Tensor, decay: Tensor, a: float, b: float) -> Tensor:
    """Step of the integrating-factor Runge-Kutta method of order 4 (Lawson 1967): diffusion exact, torque explicit."""
    h, middle = b - a, 0.5 * (a + b)
    first = torch.exp(-decay * process.diffusion.integral(a, middle))
    second = torch.exp(-decay * process.diffusion.integral(middle, b))
    k1 = torque(process, c, a)
    k2 = torque(process, first * (c + 0.5 * h * k1), middle)
    k3 = torque(process, first * c + 0.5 * h * k2, middle)
    k4 = torque(process, second * (first * c + h * k3), b)
    return second * (first * (c + h / 6 * k1) + h / 3 * (k2 + k3)) + h / 6 * k4


def stable_steps(process: KuramotoProcess, modes: int, duration: float = 1.0) -> int:
    """Steps that keep the explicit part stable: the fastest mode turns by at most about one radian a step.

    Raises:
        ValueError: more than 20,000 of them.
    """
    strongest = max(process.coupling_strength.at(t) + process.reference_strength.at(t) for t in (0.0, 1.0))
    needed = duration * modes * strongest
    if needed > MOST_STEPS:
        raise ValueError(
            f"process: got K + K_ref = {strongest:.4g}, expected at most {MOST_STEPS / duration / modes:.4g} for "
            f"{modes} modes to be followed in {MOST_STEPS} steps; try weaker couplings, or fewer modes"
        )
    return max(FEWEST_STEPS, math.ceil(needed))


def reference_direction(process: KuramotoProcess) -> complex:
    """exp(i psi_ref).

    Raises:
        ValueError: the reference phase is a field.
    """
    if isinstance(process.reference_phase, Tensor):
        raise ValueError(
            "reference_phase: got a field, expected a number: one marginal density serves all oscillators here; try 0.0"
        )
    return cmath.exp(1j * process.reference_phase)


def cos_sin_of_field(phase: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of a reference field on the device of ``like`` and with its precision, made once for all steps.

    The compiler must not see what is kept, and a gradient with respect to the field needs it made anew.
    """
    keep = not (torch.compiler.is_compiling() or phase.requires_grad)
    return (_kept_cos_sin if keep else _cos_sin)(phase, like.dtype, like.device)


def _cos_sin(phase: Tensor, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    phase = phase.to(device, dtype)
    return phase.cos(), phase.sin()


@lru_cache(maxsize=16)
def _kept_cos_sin(phase: Tensor, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Tensors as keys are equal to themselves alone, and live as long as what is kept."""
    with torch.inference_mode(False):  # whoever comes first, the field is for all
        return _cos_sin(phase.clone(), dtype, device)
