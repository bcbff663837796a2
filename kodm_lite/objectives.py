r"""What a score network is trained on: regression on the exact score of one wrapped-normal transition.

.. math:: L = E\Bigl[ w \Bigl( \frac1N \sum_i e_i^2
          + c \sum_m \Bigl|\frac1N \sum_i \varphi_m(i)\, e^{i\theta_i} e_i\Bigr|^2 \Bigr)\Bigr],
          \qquad e = s(\theta_t, t) - \nabla \log p(\theta_t \mid \theta_{t-\delta})

The state at t - delta comes from the forward chain, the one at t from one more step.  The second term weighs errors
that all pixels share, along the order parameter and the lowest spatial modes: their part of the first is 1/N, but they
decide what kind of image appears.  Chapter 6 of the book derives the first term, chapter 8 the second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kodm_lite.circular import wrap
from kodm_lite.fluctuation import Fluctuation, linear_fluctuation, mean_field_score, shared_fluctuation
from kodm_lite.kernels import WrappedNormal
from kodm_lite.kuramoto import drift_in_field
from kodm_lite.mean_field import COARSEST, mean_field_law, mean_field_sample
from kodm_lite.process import STEPS, KuramotoProcess, per_image
from kodm_lite.randomness import Generators, normal, uniform

__all__ = [
    "Loss",
    "collective_error",
    "early_times",
    "mean_field_sample",
    "mean_field_score",
    "mean_field_score_matching",
    "transition_score_matching",
]

_LARGEST_CLOCK = 20.0  # later the distance from equilibrium is below rounding, and its weight e^V must not grow on

Weighting = Literal["target", "published", "none", "early"]


class Loss(NamedTuple):
    """A loss and what it consists of; everything but ``loss`` is detached, with one entry per image (B,).

    All errors are weighted, so that the zero predictor has about 1 at every time (with the default weighting).

    Args:
        loss: the scalar to differentiate.
        t: times of the images.
        error: weighted mean squared error over the phases.
        baseline: the same of the predictor s = 0: what the target itself amounts to.
        collective: weighted squared error along the collective modes, summed over modes and multiplied by N, so that
            an error without spatial structure has the same size in ``error`` and in each mode.
        collective_baseline: the same of the predictor s = 0.
        order: the part of ``collective`` along the order parameter, which decides what kind of image appears.
        order_baseline: the same of the predictor s = 0.
    """

    loss: Tensor
    t: Tensor
    error: Tensor
    baseline: Tensor
    collective: Tensor
    collective_baseline: Tensor
    order: Tensor
    order_baseline: Tensor


def transition_score_matching(
    network: Callable[..., Tensor],
    process: KuramotoProcess,
    theta0: Tensor,
    label: Tensor | None = None,
    *,
    draws: int = 1,
    steps: int = STEPS,
    weighting: Weighting = "target",
    collective_weight: float = 0.0,
    t: Tensor | None = None,
    generator: Generators = None,
) -> Loss:
    """The published local score matching, in continuous time.

    Simulates every image to a time t - delta, delta = 1/steps, draws theta(t) from the wrapped normal around the state
    plus drift, and compares the network with the exact score of that transition.

    Args:
        network: called as ``network(theta, t)``, or ``network(theta, t, label)`` if there are labels.
        process: the forward process.
        theta0: data (B, C, H, W) or (B, N), radians.
        label: classes (B,), or None.
        draws: transitions per simulated state (the paper: 5); each is evaluated by the network.
        steps: steps per unit of time of the forward chain, and of the transition.
        weighting: "target": 1/E[target^2], the variance v of the transition, which is also the likelihood weighting;
            "published": v^2 / 4, that of the published code; "none": 1.
        collective_weight: c, weight of the collective term.
        t: times (B,) in (0, 1] on the CPU; stratified random ones by default.
        generator: None, one, or one per image.

    Returns:
        :class:`Loss`; with several draws its entries are means over them.

    Raises:
        ValueError: an unknown weighting, no draws, negative weights, times outside (0, 1] or without noise, scores of
            another shape, and whatever ``process.simulate`` refuses.

    Source: arXiv 2509.15328, local score matching.  Book: chapter 6.
    """
    if weighting not in ("target", "published", "none"):
        raise ValueError(f"weighting: got {weighting!r}, expected 'target', 'published' or 'none' for transitions")
    if not (isinstance(draws, int) and draws >= 1 and steps >= 1):
        raise ValueError(f"draws, steps: got {draws!r} and {steps!r}, expected at least 1 of each")
    _check_weight(collective_weight)
    t = random_times(len(theta0), generator) if t is None else t
    _check_times(t, process, len(theta0))
    before = (t - 1 / steps).clamp(min=0)
    theta = process.simulate(theta0, before, steps, generator)
    t0, t1 = before.to(theta), t.to(theta)
    variance = torch.as_tensor(process.coefficients(t0, t1).variance)
    mean = theta + process.step_drift(theta, t0, t1)
    scale = variance.sqrt().reshape(-1, *[1] * (theta.ndim - 1))
    law = WrappedNormal(mean, scale, validate_args=False)
    weight = {"target": variance, "published": variance**2 / 4, "none": torch.ones_like(variance)}[weighting]

    losses = []
    for _ in range(draws):
        theta1 = wrap(mean + scale * normal(mean, generator))
        target = law.score(theta1)
        score = _ask(network, theta1, t1, label)
        losses.append(_loss(score, target, theta1, t1, weight, collective_weight))
    return losses[0] if draws == 1 else Loss(*(torch.stack(parts).mean(0) for parts in zip(*losses, strict=True)))


def mean_field_score_matching(
    network: Callable[..., Tensor],
    process: KuramotoProcess,
    theta0: Tensor,
    label: Tensor | None = None,
    *,
    steps: int = STEPS // 2,
    weighting: Literal["target", "early"] = "target",
    collective_weight: float = 0.0,
    fluctuation: Fluctuation | None = None,
    t: Tensor | None = None,
    generator: Generators = None,
) -> Loss:
    r"""Regression on the conditional score given the data, not the last transition: the same minimiser, less noise.

    Given theta0 the phases are almost independent, each in the field H_i of its neighbours' expected phases, so that
    their conditional score is known (:mod:`kodm_lite.mean_field`); what fluctuates together adds gamma times the pull
    q_i of the field's fluctuation (:mod:`kodm_lite.fluctuation`).  The network is compared with the distance from the
    equilibrium score,

    .. math:: s - f/D = \frac{p_i'(\theta_i)}{p_i(\theta_i)} - \frac1D \operatorname{Im}(H_i e^{-i\theta_i})
              - \Bigl(\frac KD - \gamma\Bigr) q_i ,

    which has hardly any noise from a phase's neighbours and vanishes where the process ends, at the scale of the
    network's head, so that by default every time counts equally.

    The law knows no number of steps, and the simulation of the states has a grid of its own: a process of 100 steps and
    one of 1000 have the same target at the same cost.

    Args:
        network, process, theta0, label, collective_weight, t, generator: as :func:`transition_score_matching`, but the
            default times are :func:`early_times`.
        steps: Heun steps per unit of time of the forward simulation.
        weighting: "target": e^V - 1, with which every time counts equally; "early": 2 sinh(V / 2), the geometric mean
            of that and of 1 - e^-V, the weight of noise prediction.  Late targets are hardly predictable, and less of
            the gradient is then their noise.
        fluctuation: from :func:`kodm_lite.fluctuation.calibrate_fluctuation`, for the measured gamma(t) in place of
            that of linear theory.

    Returns:
        :class:`Loss`; the baseline is the score of equilibrium.

    Raises:
        ValueError: an unknown weighting, a negative weight, times outside (0, 1] or without noise, scores of another
            shape, and whatever ``process.simulate`` refuses.

    Source: this project.  Book: chapters 7 and 11.
    """
    if weighting not in ("target", "early"):
        raise ValueError(f"weighting: got {weighting!r}, expected 'target' or 'early' for the mean-field objective")
    _check_weight(collective_weight)
    t = early_times(random_times(len(theta0), generator)) if t is None else t
    _check_times(t, process, len(theta0))
    theta = process.simulate(theta0, t, steps, generator, method="heun")
    law = mean_field_law(process, theta0, t, COARSEST)  # the error of the best network is far larger
    now = t.to(theta)
    diffusion = per_image(process.diffusion.at(now), theta)
    pull = drift_in_field(theta.sin(), theta.cos(), law.field.real, law.field.imag)
    target = law.score(theta) - pull / diffusion
    ratio = linear_fluctuation(process, now) if fluctuation is None else fluctuation.at(now)
    excess = per_image((ratio - 1) * process.coupling_strength.at(now), theta) / diffusion
    target = target + excess * shared_fluctuation(process, law, theta)
    score = _ask(network, theta, now, label)
    distance = score - process.equilibrium_score(theta, now)
    clock = process.clock(now).clamp(max=_LARGEST_CLOCK)
    weight = torch.expm1(clock) if weighting == "target" else 2 * torch.sinh(clock / 2)
    return _loss(distance, target, theta, now, weight, collective_weight)


def random_times(batch: int, generator: Generators = None) -> Tensor:
    """One time in (0, 1] per image, one in each of ``batch`` equal intervals: on the CPU, where the simulation plans.

    The images of a batch are in random order, so these need not be shuffled.
    """
    first = generator[0] if isinstance(generator, Sequence) else generator
    device = "cpu" if first is None else first.device
    u = uniform(torch.zeros(batch, device=device), generator).cpu()
    return (torch.arange(batch) + 1 - u) / batch


def early_times(u: Tensor) -> Tensor:
    """From uniform numbers to times that dwell where details form: u^2, but not so early that nothing has happened.

    The clock V grows like t^2 at first; half of these times lie before V = 0.6 to 0.8, where single pixels are still
    legible.
    """
    return u.square().clamp(min=1e-3)


def _check_weight(collective_weight: float) -> None:
    if not 0 <= collective_weight < math.inf:
        raise ValueError(f"collective_weight: got {collective_weight!r}, expected a number >= 0")


def _check_times(t: Tensor, process: KuramotoProcess, count: int) -> None:
    """On the CPU, where they are: no device waits."""
    if t.shape != (count,) or not bool(((t > 0) & (t <= 1)).all()):
        got = [round(x, 4) for x in t.flatten()[:3].tolist()]
        raise ValueError(f"t: got {got}..., expected one time in (0, 1] for each of {count}")
    if not bool((process.diffusion.at(t) > 0).all()):
        raise ValueError("t: got a time without noise, expected D(t) > 0; there is no score there")


def _ask(network: Callable[..., Tensor], theta: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
    score = network(theta, t) if label is None else network(theta, t, label)
    if score.shape != theta.shape:
        raise ValueError(f"network: got scores {tuple(score.shape)} for phases {tuple(theta.shape)}, expected the same")
    return score


def _loss(score: Tensor, target: Tensor, theta: Tensor, t: Tensor, weight: Tensor, collective_weight: float) -> Loss:
    def mean_square(e: Tensor) -> Tensor:
        return weight * e.square().flatten(1).mean(1)

    def collective(e: Tensor) -> tuple[Tensor, Tensor]:
        modes = weight * _mode_errors(e, theta)
        return modes.sum(0), modes[0]

    error = score - target
    pixels, (shared, order) = mean_square(error), collective(error)
    loss = (pixels + collective_weight / theta[0].numel() * shared).mean()
    with torch.no_grad():
        shared_baseline, order_baseline = collective(target)
        return Loss(
            loss,
            t,
            pixels.detach(),
            mean_square(target),
            shared.detach(),
            shared_baseline,
            order.detach(),
            order_baseline,
        )


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
    return _mode_errors(error, theta).sum(0)


def _mode_errors(error: Tensor, theta: Tensor) -> Tensor:
    """The terms of that sum: (modes, B), the first one along the order parameter."""
    modes = _lowest_modes(theta)
    with torch.autocast(theta.device.type, enabled=False):
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
