r"""What the terminal state remembers of the data, measured and predicted, and the strength that makes it forget.

The mean of N phases has noise of only 1/sqrt(N), so that large images remember their mean long after every pixel has
forgotten itself.  Chapter 3 of the book measures it and derives the prediction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Generator, Tensor

from kodm_lite.circular import is_integer, order_parameter, validate_phases
from kodm_lite.modes import evolve_modes

if TYPE_CHECKING:
    from kodm_lite.process import KuramotoProcess

__all__ = ["TerminalMemory", "flat_image_memory", "forgetting_strength", "terminal_memory"]


def forgetting_strength(
    process: KuramotoProcess, shape: tuple[int, ...], memory: float, theta0: Tensor | None = None
) -> float:
    """The smallest common factor of noise and couplings, in hundredths from 1, that leaves at most ``memory``.

    Args:
        process, shape, theta0: as :func:`flat_image_memory`.
        memory: the largest acceptable ratio of signal to noise variance at t = 1.

    Raises:
        ValueError: memory not positive, no strength up to 64 that forgets, and what :func:`flat_image_memory` refuses.
    """
    if isinstance(memory, bool) or not isinstance(memory, Real) or not memory > 0:
        raise ValueError(f"memory: got {memory!r}, expected a positive signal-to-noise ratio; the default is 0.01")

    def remembers(strength: float) -> bool:
        return flat_image_memory(process.scaled(strength), shape, theta0) > memory

    weak, strong = 1.0, 2.0
    if not remembers(weak):
        return weak
    while remembers(strong):
        weak, strong = strong, 2 * strong
        if strong > 64:
            raise ValueError(f"memory: no strength up to 64 brings it to {memory}; try a weaker coupling")
    while strong - weak > 0.005:
        middle = 0.5 * (weak + strong)
        weak, strong = (middle, strong) if remembers(middle) else (weak, middle)
    return math.ceil(strong * 100) / 100


def flat_image_memory(process: KuramotoProcess, shape: tuple[int, ...], theta0: Tensor | None = None) -> float:
    r"""Predicted signal-to-noise ratio of the order parameter at t = 1, in the mean-field limit.

    Signal: the variance over images of the order parameter z(1) that the mean-field equation makes of each image.
    Noise: the variance of the mean of N phases in the Gibbs law at the final coefficients,
    :math:`\frac1N \sum_{a \in \{\cos, \sin\}} v_a / (1 - K v_a / D)`.

    Args:
        process: its reference phase is taken as a number; a field is replaced by phase 0.
        shape: shape of one image.
        theta0: images (B, ...) that make the signal; by default flat images of 32 greys in [-0.9 pi, 0.9 pi].

    Raises:
        ValueError: fewer than two images, or a reference too weak to hold phases that synchronise by themselves.
    """
    _check_image_shape(shape)
    if isinstance(process.reference_phase, Tensor):
        process = replace(process, reference_phase=0.0)
    law = process.prior()
    ratio = process.coupling_strength.end / process.diffusion.end
    r, kappa = float(law.mean_resultant_length()), float(law.concentration)
    variance_sin = r / kappa if kappa > 0 else 0.5
    if ratio * variance_sin > 1 - 1e-6:
        raise ValueError(
            f"reference_strength: got {process.reference_strength.end} at t = 1, expected enough to hold the common "
            "direction of phases that synchronise by themselves; try more of it, or coupling below 2 diffusion"
        )
    orders = torch.arange(33)
    if theta0 is None:
        start = torch.exp(1j * orders * torch.linspace(-0.9 * math.pi, 0.9 * math.pi, 32, dtype=torch.float64)[:, None])
    else:
        validate_phases(theta0, "theta0")
        if theta0.ndim < 2 or len(theta0) < 2:
            raise ValueError(
                f"theta0: got the shape {tuple(theta0.shape)}, expected at least 2 images: memory is a spread between "
                "them; try more"
            )
        start = torch.stack([order_parameter(n * theta0.double().flatten(1), dim=1) for n in orders.tolist()], -1)
    final = evolve_modes(process, start)[:, 1]
    signal = float((final - final.mean()).abs().square().sum() / (len(final) - 1))
    noise = sum(v / (1 - ratio * v) for v in (variance_sin, 1 - r**2 - variance_sin)) / math.prod(shape)
    return signal / noise


class TerminalMemory(NamedTuple):
    """Signal-to-noise ratio left in each spatial Fourier mode, with its standard error (jackknife over images).

    All tensors have the shape of one image; index (0, ..., 0) is the order parameter.
    """

    ratio: Tensor
    standard_error: Tensor
    signal: Tensor
    noise: Tensor


def terminal_memory(
    process: KuramotoProcess, theta0: Tensor, replicas: int = 8, t: float = 1.0, generator: Generator | None = None
) -> TerminalMemory:
    r"""How much of the data is left in the state at time t, per spatial Fourier mode of :math:`e^{i\theta}`.

    Every image is simulated ``replicas`` times.  The spread of a mode over replicas is noise; the spread of its mean
    over images, less what the noise adds to it, is signal.  A ratio far below 1 means that a sampler may start from a
    prior that knows nothing of the data.

    Args:
        process: the forward process.
        theta0: images (B, C, H, W) or (B, N), at least 3, radians.
        replicas: simulations per image, at least 2.
        t: the time to look at.
        generator: None or one generator.

    Returns:
        :class:`TerminalMemory`.  A ratio may come out slightly negative where nothing is left.

    Raises:
        ValueError: fewer than 3 images or 2 replicas, and whatever ``process.simulate`` refuses.  Book: chapter 3.
    """
    validate_phases(theta0, "theta0")
    if theta0.ndim < 2 or len(theta0) < 3 or not is_integer(replicas, 2):
        raise ValueError(
            f"theta0, replicas: got the shape {tuple(theta0.shape)} and {replicas!r} replicas, expected at least 3 "
            "images and 2 replicas; try more of them"
        )
    dims = tuple(range(1, theta0.ndim))
    modes = []
    for _ in range(replicas):
        theta = process.simulate(theta0, t, generator=generator)
        modes.append(torch.fft.fftn(torch.polar(torch.ones_like(theta), theta), dim=dims, norm="forward"))
    z = torch.stack(modes, 1)  # (B, replicas, *shape)
    mean = z.mean(1)
    noise = (z - mean[:, None]).abs().square().sum(1) / (replicas - 1)  # per image

    def estimate(keep: Tensor) -> tuple[Tensor, Tensor]:
        m, n = mean[keep], noise[keep].mean(0)
        between = (m - m.mean(0)).abs().square().sum(0) / (len(m) - 1)
        return between - n / replicas, n

    everything = torch.arange(len(theta0))
    signal, spread = estimate(everything)
    left_out = [estimate(everything[everything != b]) for b in range(len(theta0))]
    ratios = torch.stack([s / n for s, n in left_out])
    error = ((len(theta0) - 1) * (ratios - ratios.mean(0)).square().mean(0)).sqrt()
    return TerminalMemory(signal / spread, error, signal, spread)


def _check_image_shape(shape: Any) -> None:
    if not isinstance(shape, Sequence) or not shape or not all(is_integer(n, 1) for n in shape):
        raise ValueError(f"shape: got {shape!r}, expected that of one image, nothing empty; try (1, 32, 32)")
