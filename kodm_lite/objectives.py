r"""What a score network is trained on: regression on an exact score, whose mean is the score that is wanted.

Two targets have the same minimiser.  The published one is the score of the last transition of a simulated chain,

.. math:: L = E\Bigl[ \frac wN \sum_i e_i^2 \Bigr],
          \qquad e = s(\theta_t, t) - \nabla \log p(\theta_t \mid \theta_{t-\delta}) ;

the other one its mean given the data, which mean-field theory knows.  Chapter 6 of the book derives the first,
chapter 7 the second.

An objective is a small frozen dataclass with the methods of :class:`Objective`; :func:`kodm_lite.fit` takes any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from kodm_lite.circular import wrap
from kodm_lite.collective import collective_error, mode_errors
from kodm_lite.fluctuation import conditional_score, mean_field_score
from kodm_lite.kernels import WrappedNormal
from kodm_lite.losses import Loss, early_times
from kodm_lite.mean_field import COARSEST, mean_field_law, mean_field_sample
from kodm_lite.process import STEPS, KuramotoProcess, per_image
from kodm_lite.randomness import Generators, check_kind, check_one_per_image, device_of, normal, uniform
from kodm_lite.validation import check_choice, check_count, told

__all__ = [
    "MeanField",
    "Transition",
    "collective_error",
    "mean_field_sample",
    "mean_field_score",
    "mean_field_score_matching",
    "transition_score_matching",
]

_LARGEST_CLOCK = 20.0  # later the distance from equilibrium is below rounding, and its weight e^V must not grow on

TransitionWeighting = Literal["target", "published", "none"]
MeanFieldWeighting = Literal["target", "early"]


@dataclass(frozen=True)
class MeanField:
    """Regression on the conditional score given the data, by :func:`mean_field_score_matching`.

    Args:
        weighting: weight of the times: "early" serves samples best, "target" counts every time equally.
        steps: Heun steps per unit of time of the forward simulation.

    Raises:
        ValueError: another weighting, no steps.
    """

    weighting: MeanFieldWeighting = "early"
    steps: int = STEPS // 2

    def __post_init__(self) -> None:
        check_choice("weighting", self.weighting, MeanFieldWeighting)
        check_count("steps", self.steps)

    def times(self, u: Tensor) -> Tensor:
        """More of the early ones, see :func:`early_times`."""
        return early_times(u)

    def check(self, process: Any, x0: Tensor) -> None:
        """Refuse a process without a mean field, or with one that is too strong for its law."""
        _check_kuramoto(self, process)
        mean_field_law(process, x0[:1], torch.ones(1))
        process.check_steps(self.steps)

    def __call__(
        self,
        network: Callable[..., Tensor],
        process: KuramotoProcess,
        x0: Tensor,
        label: Tensor | None,
        t: Tensor,
        generator: Generators,
    ) -> Loss:
        """The loss of phases x0, of which no value is looked at: no device waits."""
        _check_times(t, process, len(x0))
        theta, now = process.run(x0, t, self.steps, generator, method="heun"), t.to(x0)
        target = conditional_score(process, x0, theta, t, tolerance=COARSEST)  # the best network's error is far larger
        clock = process.clock(now).clamp(max=_LARGEST_CLOCK)
        weight = torch.expm1(clock) if self.weighting == "target" else 2 * torch.sinh(clock / 2)
        equilibrium = process.equilibrium_score(theta, now)
        return _loss(_ask(network, theta, now, label), target, equilibrium, theta, now, weight)


@dataclass(frozen=True)
class Transition:
    """Regression on the score of the last transition, as published, by :func:`transition_score_matching`.

    Args:
        draws: transitions per simulated state; the paper has 5.
        steps: steps per unit of time of the forward chain.
        weighting: weight of the times.

    Raises:
        ValueError: another weighting, no draws, no steps.
    """

    draws: int = 1
    steps: int = STEPS
    weighting: TransitionWeighting = "target"

    def __post_init__(self) -> None:
        check_choice("weighting", self.weighting, TransitionWeighting)
        check_count("draws", self.draws)
        check_count("steps", self.steps)

    def times(self, u: Tensor) -> Tensor:
        """Every time equally often."""
        return u

    def check(self, process: Any, x0: Tensor) -> None:
        """Refuse another process than a Kuramoto process, and steps that overshoot."""
        _check_kuramoto(self, process)
        process.check_steps(self.steps)

    def __call__(
        self,
        network: Callable[..., Tensor],
        process: KuramotoProcess,
        x0: Tensor,
        label: Tensor | None,
        t: Tensor,
        generator: Generators,
    ) -> Loss:
        """The loss of phases x0, of which no value is looked at: no device waits."""
        _check_times(t, process, len(x0))
        before = (t - 1 / self.steps).clamp(min=0)
        theta = process.run(x0, before, self.steps, generator)
        t0, t1 = before.to(theta), t.to(theta)
        variance = torch.as_tensor(process.coefficients(t0, t1).variance)
        mean, scale = theta + process.step_drift(theta, t0, t1), per_image(variance.sqrt(), theta)
        law = WrappedNormal(mean, scale, validate_args=False)
        powers = {"target": variance, "published": variance**2 / 4, "none": torch.ones_like(variance)}
        losses = []
        for _ in range(self.draws):
            theta1 = wrap(mean + scale * normal(mean, generator))
            score, target = _ask(network, theta1, t1, label), law.score(theta1)
            losses.append(_loss(score, target, torch.zeros_like(target), theta1, t1, powers[self.weighting]))
        return losses[0] if self.draws == 1 else Loss(*(torch.stack(x).mean(0) for x in zip(*losses, strict=True)))


def transition_score_matching(
    network: Callable[..., Tensor],
    process: KuramotoProcess,
    theta0: Tensor,
    label: Tensor | None = None,
    *,
    draws: int = 1,
    steps: int = STEPS,
    weighting: TransitionWeighting = "target",
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
        t: times (B,) in (0, 1] on the CPU; stratified random ones by default.
        generator: None, one, or one per image.

    Returns:
        :class:`Loss`; with several draws its entries are means over them.

    Raises:
        ValueError: an unknown weighting, no draws, times outside (0, 1] or without noise, scores of
            another shape, and whatever ``process.simulate`` refuses.

    Source: arXiv 2509.15328, local score matching.  Book: chapter 6.
    """
    options = Transition(draws, steps, weighting)  # refuses what they cannot be
    _check_kuramoto(options, process)
    process.validate(theta0, "theta0")
    process.check_steps(steps)
    t = random_times(len(theta0), generator) if t is None else t
    return options(network, process, theta0, label, t, generator)


def mean_field_score_matching(
    network: Callable[..., Tensor],
    process: KuramotoProcess,
    theta0: Tensor,
    label: Tensor | None = None,
    *,
    steps: int = STEPS // 2,
    weighting: MeanFieldWeighting = "target",
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
        network, process, theta0, label, t, generator: as :func:`transition_score_matching`, but the
            default times are :func:`early_times`.
        steps: Heun steps per unit of time of the forward simulation.
        weighting: "target": e^V - 1, with which every time counts equally; "early": 2 sinh(V / 2), the geometric mean
            of that and of 1 - e^-V, the weight of noise prediction.  Late targets are hardly predictable, and less of
            the gradient is then their noise.

    Returns:
        :class:`Loss`; the baseline is the score of equilibrium.

    Raises:
        ValueError: an unknown weighting, times outside (0, 1] or without noise, scores of another
            shape, and whatever ``process.simulate`` refuses.

    Source: this project.  Book: chapters 7 and 11.
    """
    options = MeanField(weighting, steps)
    _check_kuramoto(options, process)
    process.validate(theta0, "theta0")
    process.check_steps(steps)
    t = early_times(random_times(len(theta0), generator)) if t is None else t
    return options(network, process, theta0, label, t, generator)


def random_times(batch: int, generator: Generators = None) -> Tensor:
    """One time in (0, 1] per image, one in each of ``batch`` equal intervals: on the CPU, where the simulation plans.

    The images of a batch are in random order, so these need not be shuffled.
    """
    check_kind(generator)
    if isinstance(generator, Sequence):
        check_one_per_image(generator, torch.zeros(batch))
    u = uniform(torch.zeros(batch, device=device_of(generator)), generator).cpu()
    return (torch.arange(batch) + 1 - u) / batch


def _check_kuramoto(objective: Any, process: Any) -> None:
    missing = [name for name in ("coupling", "clock", "step_drift", "equilibrium_score") if not hasattr(process, name)]
    if missing:
        raise ValueError(
            f"objective: got {type(objective).__name__} for {type(process).__name__}, which has no {missing[0]}, "
            "expected a KuramotoProcess; try leaving the objective out"
        )


def _check_times(t: Tensor, process: KuramotoProcess, count: int) -> None:
    """On the CPU, where they are: no device waits."""
    if not isinstance(t, Tensor) or not t.is_floating_point():
        raise ValueError(
            f"t: got {told(t)}, expected one time in (0, 1] for each of {count}; try random_times({count})"
        )
    if t.shape != (count,) or not bool(((t > 0) & (t <= 1)).all()):
        got = [round(x, 4) for x in t.flatten()[:3].tolist()]
        raise ValueError(f"t: got {got}..., expected one time in (0, 1] for each of {count}")
    if not bool((process.diffusion.at(t) > 0).all()):
        raise ValueError("t: got a time without noise, expected D(t) > 0; there is no score there")


def _ask(network: Callable[..., Tensor], theta: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
    score = network(theta, t) if label is None else network(theta, t, label)
    if not isinstance(score, Tensor):
        raise ValueError(
            f"network: got {told(score)} for phases {tuple(theta.shape)}, expected a tensor of scores; try another"
        )
    if score.shape != theta.shape:
        raise ValueError(f"network: got scores {tuple(score.shape)} for phases {tuple(theta.shape)}, expected the same")
    return score


def _loss(score: Tensor, target: Tensor, known: Tensor, theta: Tensor, t: Tensor, weight: Tensor) -> Loss:
    """The error of the network beside that of what is known without one: the score s = 0, or that of equilibrium."""
    error = score - target
    loss = (weight * error.square().flatten(1).mean(1)).mean()
    return Loss(loss, t, _parts(error.detach(), theta, weight), _parts(target - known, theta, weight))


def _parts(error: Tensor, theta: Tensor, weight: Tensor) -> Tensor:
    """(B, 3), columns as ``PARTS``."""
    modes = mode_errors(error, theta)
    return weight[:, None] * torch.stack([error.square().flatten(1).mean(1), modes.sum(0), modes[0]], 1)
