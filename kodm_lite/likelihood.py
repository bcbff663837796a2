r"""The likelihood of data under a model: the density of the prior, carried back along the probability flow.

The flow takes a state from t = 0 to 1 without noise, and the density with it.  In the angle u of the samplers,
cos u = exp(-V/2), a Kuramoto process moves and its density changes by

.. math:: \frac{d\theta}{du} = v = \tan u\,(s_{eq} - s),\qquad s_{eq} = f / D,\qquad
          \log p_0(\theta_0) = \log p_1(\theta_1) + \int \nabla\cdot v\, du .

A Euclidean diffusion has such a flow too, v = (eps - x sin u) / cos u, with tan u = sigma / alpha.

Near the data the score diverges and v does not.  Before the earliest time that training sees v is frozen, as in the
last step of a sampler.

The divergence of s - s_eq is taken of the difference, as it vanishes towards the prior: estimates of its parts would be
noise, multiplied by tan u.

Source: Song et al. 2021, likelihoods; Grathwohl et al. 2019, Hutchinson's estimator in flows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from kodm_lite.encoding import GreyLevels
from kodm_lite.flows import Flow, Measure, exact_divergence, flow_of, hutchinson, plan_of
from kodm_lite.randomness import Generators, one_generator_per_seed, uniform
from kodm_lite.samplers import Score, take_steps
from kodm_lite.scores import guided
from kodm_lite.validation import check_choice, check_count

__all__ = ["Bits", "Likelihood", "bits_per_dimension", "log_likelihood"]

_PATIENCE = 32  # numbers of a sample up to which the divergence is exact by default

Divergence = Literal["exact", "hutchinson"]


class Likelihood(NamedTuple):
    """Log-densities (B,) with respect to radians, in nats per sample, and the standard errors of their estimates."""

    log_prob: Tensor
    standard_error: Tensor


class Bits(NamedTuple):
    """Bits per pixel and channel of images (B,), and the standard errors of their estimates."""

    bits: Tensor
    standard_error: Tensor


def log_likelihood(  # many parameters: those of sample()
    network: Score,
    process: Any,
    theta: Tensor,
    *,
    label: int | Tensor | None = None,
    steps: int = 50,
    divergence: Divergence | None = None,
    probes: int = 2,
    prior: Any = None,
    seeds: Sequence[int] | None = None,
    generator: Generators = None,
    chunk: int | None = None,
    earliest: float = 1e-3,
    progress: bool = False,
) -> Likelihood:
    """Log-density of samples under a model, by its probability flow from the data to the prior, in double precision.

    It is that of the deterministic sampler in the limit of many steps.  Damping and calibration of samplers leave the
    model, and so does guidance, whose score is that of no density: it has no likelihood.

    Args:
        network: as for :func:`kodm_lite.sample`; it is differentiated, so it must not be detached.
        process: a :class:`kodm_lite.KuramotoProcess` or a Euclidean diffusion.
        theta: samples (B, ...) that the process takes.
        label: the class given which the density is meant, or one per sample (B,).
        steps: of the Runge-Kutta method of fourth order in the angle u; four evaluations each, and one step more.
        divergence: "exact", by one backward pass for each number of a sample; "hutchinson", from random signs e, as
            E[e J e] = tr J; by default exact for up to 32 numbers.
        probes: random signs at each evaluation, at least 2, from whose spread the standard error comes.  They are new
            at each evaluation, so that errors average out along the path; -e would repeat what e has said.
        prior: has ``log_prob``; by default the stationary law of the process.
        seeds: one integer per sample, on which alone its random signs depend.
        generator: None, one torch.Generator, or one per sample, instead of seeds.
        chunk: samples at a time; fewer need less memory.
        earliest: the first time that a network has learnt; before it the velocity is frozen.  That neglects a second
            order in its angle, 1e-3 nats of smooth data, and blurs details finer than that angle, some 0.01 radians.
            An exact score takes 1e-5.
        progress: show a progress bar.

    Raises:
        ValueError: guidance, states that the process refuses, a prior without density, such as that of local coupling,
            a network whose answer has no gradient, or another argument out of its range.
        FloatingPointError: the state became NaN or infinite; names the step.

    Source: Song et al. 2021; Grathwohl et al. 2019.  Book: chapter 12.

    >>> import kodm_lite as kodm
    >>> process = kodm.KuramotoProcess().scaled(2.0)
    >>> found = log_likelihood(process.equilibrium_score, process, torch.zeros(1, 2))
    >>> bool((found.log_prob - kodm.GibbsPrior(process).log_prob(torch.zeros(1, 2))).abs() < 1e-6)
    True
    """
    flow = flow_of(process, prior)
    process.validate(theta, "theta")
    _refuse_guidance(network)
    count, d = len(theta), theta[0].numel()
    if divergence is None:
        divergence = "exact" if d <= _PATIENCE else "hutchinson"
    check_choice("divergence", divergence, Divergence)
    steps, probes = check_count("steps", steps), check_count("probes", probes, 2)
    if not 0 < earliest < flow.end:
        raise ValueError(f"earliest: got {earliest!r}, expected a time from 0 to {flow.end:.2g}; try 0.001")
    chunk = count if chunk is None else check_count("chunk", chunk)
    generator = one_generator_per_seed(seeds, count, generator, theta.device)
    labels = None if label is None else torch.as_tensor(label).expand(count)
    flow.log_prior(theta[:1].double())  # what has no density is refused before any work
    parts = []
    for first in range(0, count, chunk):
        own = slice(first, first + chunk)
        score = network if labels is None else guided(cast(Any, network), labels[own])
        signs = generator[own] if isinstance(generator, Sequence) else generator
        measure = exact_divergence if divergence == "exact" else partial(hutchinson, probes=probes, generator=signs)
        parts.append(_carry(flow, score, theta[own].detach().double(), steps, measure, earliest, progress))
    return Likelihood(*map(torch.cat, zip(*parts, strict=True)))


def bits_per_dimension(model: Any, images: Tensor, *, seeds: Sequence[int] | None = None, **options: Any) -> Bits:
    """Bits per pixel and channel that a model needs for images of 256 grey levels, as is usual for other models.

    Images are rounded to bytes k, and uniform noise of one grey level is added (dequantisation).  With the width
    w = 2 pi scale / 255 of a level in radians, by Jensen's inequality

        -log2 P(k) <= E[-log2(p(theta) w^d)],    theta = encode(2 k / 255 - 1) + w U(-1/2, 1/2) ;

    one draw of the noise estimates the right-hand side.

    Args:
        model: a :class:`kodm_lite.Model` of images.
        images: grey values (B, C, H, W) in [-1, 1].
        seeds: one integer per image, for the noise and for the divergence; 0, 1, ... by default.
        options: of :func:`log_likelihood`.

    Raises:
        ValueError: a model of angles, which has no grey levels, or what :func:`log_likelihood` refuses.

    Source: Uria et al. 2013, dequantisation.
    """
    encoding = model.encoding
    if not isinstance(encoding, GreyLevels):
        raise ValueError(
            f"model: got one of {encoding!r}, which have no grey levels, expected GreyLevels; try log_likelihood"
        )
    levels = encoding.to_uint8(encoding.encode(images)).double() / 127.5 - 1
    generator = one_generator_per_seed(range(len(images)) if seeds is None else seeds, len(images), None, images.device)
    width = 2 * math.pi * encoding.scale / 255
    theta = model.process.project(encoding.encode(levels) + width * (uniform(levels, generator) - 0.5))
    found = log_likelihood(model.network, model.process, theta, generator=generator, **options)
    d = theta[0].numel()
    return Bits(-(found.log_prob / d + math.log(width)) / math.log(2), found.standard_error / (d * math.log(2)))


def _carry(
    flow: Flow, score: Score, x: Tensor, steps: int, measure: Measure, early: float, progress: bool
) -> tuple[Tensor, Tensor]:
    """Log-density of x, and its standard error, along the path to the prior."""
    times, plan = plan_of(flow, steps, early)
    change, variance = torch.zeros_like(x.flatten(1)[:, 0]), torch.zeros_like(x.flatten(1)[:, 0])

    def at(t: float, x: Tensor, weight: float) -> Tensor:
        nonlocal change, variance
        velocity, trace, error = measure(lambda x: flow.velocity(score, x, max(t, early)), x)
        change, variance = change + weight * trace, variance + weight**2 * error
        return velocity

    def step(x: Tensor, t0: float, t1: float) -> Tensor:
        h, middle = plan[t0]
        first = at(t0, x, h / 6)
        second = at(middle, x + 0.5 * h * first, h / 3)
        third = at(middle, x + 0.5 * h * second, h / 3)
        return x + h / 6 * (first + 2 * (second + third) + at(t1, x + h * third, h / 6))

    x = take_steps(step, x, times, progress=progress)
    return flow.log_prior(x) + change, variance.sqrt()


def _refuse_guidance(network: Score) -> None:
    weight = getattr(network, "guidance", 1)
    if weight not in (0, 1):
        raise ValueError(
            f"network: got guidance of weight {weight}, whose score is that of no forward process, so that there is no "
            "likelihood, expected the score of a class; try label="
        )
