"""One step of a training: its options, its batch, its gradient, and the weights after it.

Everything random in a step is a function of the seed, the number of the step and the shard, a part of the batch.  So
steps need no memory but weights, averages and moments, and it does not matter which process computes which shard.
Chapter 8 of the book.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kodm_lite.data.phase_data import PhaseData
from kodm_lite.euclidean import EuclideanDiffusion, noise_prediction
from kodm_lite.fluctuation import Fluctuation, calibrate_fluctuation, trusted_fluctuation
from kodm_lite.models import Process
from kodm_lite.objectives import (
    Loss,
    Weighting,
    early_times,
    mean_field_score_matching,
    transition_score_matching,
)
from kodm_lite.process import STEPS, KuramotoProcess
from kodm_lite.training.state import table

__all__ = ["OBJECTIVES", "Batch", "Batches", "Examples", "Learner", "TrainingOptions", "check_examples"]

RESIDENT_BYTES = 2**32  # of data that a GPU holds all the time; images of larger sets come batch by batch
MEASURED = 256  # images that tell how the field fluctuates
NO_LABEL = 0.1  # share of images whose label is left out, so that the network also learns to do without
ORDER, BATCH, NOISE, HELD_OUT = range(4)  # what random numbers are for: streams that never meet


@dataclass(frozen=True)
class TrainingOptions:
    """How a network is trained.

    Args:
        steps: optimiser steps; with 0 the weights stay as they are, and the model is only completed and saved.
        batch_size: images per optimiser step, over all processes together.
        shards: equal parts of a batch, each with random numbers of its own; processes share them, and one that has
            several takes one after another, which saves memory. Fewer than processes: one for each process.
        learning_rate: of AdamW, after the warm-up.
        warmup: steps in which the learning rate grows linearly.
        decay: "cosine" brings the learning rate to zero at the last step; "constant" leaves it, and allows to go on
            with more steps later.
        weight_decay: of AdamW.
        clip: largest norm of the gradient; a longer one is shortened to it.
        ema: how much of the running average of the weights a step keeps; less in the first steps.
        objective: what the network learns from: "mean_field", the conditional score given the data; "transition", the
            published score of the last step; "noise", the noise of a Euclidean diffusion.
        draws: transitions per simulated image.
        simulation_steps: drifts per unit of time of the forward process.
        weighting: weight of the times, see kodm_lite.objectives; by default what serves samples best: "early" with the
            mean-field objective, "target" with transitions.
        collective_weight: weight of errors that all pixels share.
        fluctuation: the fluctuation of the field in the mean-field objective: by "linear" theory, or "measured" on
            simulated states of some images before the first step, as far as the measurement is certain.
        precision: "bf16" computes the network in 16 bits where that is safe; weights stay float32.
        compile: compile the network, which takes a minute and pays on GPUs.
        seed: of everything random.
        save_every: steps between saves; 0 for at the end only.
        keep_models: keep the model of every save, in the folder models, and not only the last.
        validate_every: steps between validations, if there are held-out data; 0 for never.
        sample_every: steps between pictures of samples; 0 for never.
        log_every: steps between lines of the log; 0 for never.
        tensorboard: write events for TensorBoard too.

    Raises:
        ValueError: an option out of its range.
    """

    steps: int = 3000
    batch_size: int = 64
    shards: int = 1
    learning_rate: float = 1e-3
    warmup: int = 100
    decay: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.998
    objective: Literal["mean_field", "transition", "noise"] = "mean_field"
    draws: int = 1
    simulation_steps: int = STEPS
    weighting: Weighting | None = None
    collective_weight: float = 0.0
    fluctuation: Literal["linear", "measured"] = "linear"
    precision: Literal["float32", "bf16"] = "float32"
    compile: bool = False
    seed: int = 0
    save_every: int = 500
    keep_models: bool = False
    validate_every: int = 500
    sample_every: int = 0
    log_every: int = 50
    tensorboard: bool = False

    def __post_init__(self) -> None:
        self._require("an integer from 1", lambda x: type(x) is int and x >= 1, _COUNTS)
        self._require("an integer from 0", lambda x: type(x) is int and x >= 0, _COUNTS_OR_NONE)
        self._require("a positive number", lambda x: 0 < x < math.inf, ("learning_rate", "clip"))
        self._require("a number from 0", lambda x: 0 <= x < math.inf, ("weight_decay", "collective_weight"))
        self._require("a number from 0 to below 1", lambda x: 0 <= x < 1, ("ema",))
        self._require("an integer below 10^15", lambda x: x < 10**15, ("seed",))
        for name, choices in {**_CHOICES, "objective": tuple(OBJECTIVES)}.items():
            self._require(f"one of {choices}", choices.__contains__, (name,))
        if self.objective == "mean_field" and (self.draws != 1 or self.weighting not in (None, "target", "early")):
            raise ValueError(
                f"draws, weighting: got {self.draws} and {self.weighting!r}, expected 1 and 'target' or 'early' with "
                "the mean-field objective, which has no transitions to draw or weigh; try objective='transition'"
            )
        if self.objective == "transition" and self.weighting == "early":
            raise ValueError(
                "weighting: got 'early', expected 'target', 'published' or 'none' with transitions; try "
                "objective='mean_field'"
            )
        if self.objective == "transition" and self.fluctuation == "measured":
            raise ValueError(
                "fluctuation: got 'measured', expected 'linear' with transitions, which have no use for it; try "
                "objective='mean_field'"
            )
        unused = [name for name in _OF_PHASES if getattr(self, name) != type(self).__dataclass_fields__[name].default]
        if self.objective == "noise" and unused:
            raise ValueError(
                f"{', '.join(unused)}: got a value, expected none with the objective 'noise', which has no use for it; "
                "try to leave it out"
            )
        if self.batch_size % self.shards:
            raise ValueError(
                f"batch_size: got {self.batch_size}, expected a multiple of the {self.shards} shards; "
                f"try {self.shards * math.ceil(self.batch_size / self.shards)}"
            )

    def _require(self, expected: str, accepts: Callable[[Any], bool], names: Sequence[str]) -> None:
        for name in names:
            value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
            if (default is None or isinstance(value, type(default) | int)) and accepts(value):
                continue
            raise ValueError(f"{name}: got {value!r}, expected {expected}; try {default!r}, the default")

    @property
    def resolved_weighting(self) -> Weighting:
        """The weight of the times that is used."""
        return self.weighting or ("early" if self.objective == "mean_field" else "target")

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, the first being 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        if self.decay == "constant":
            return self.learning_rate
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / (self.steps - self.warmup)))

    def ema_at(self, step: int) -> float:
        """How much of the average a step keeps, the first being 0: an average of few steps forgets the start fast."""
        return min(self.ema, (1 + step) / (10 + step))

    def for_processes(self, processes: int) -> TrainingOptions:
        """The same with as many shards as the processes need.

        Raises:
            ValueError: a number of shards, or a size of the batch, that the processes cannot share equally.
        """
        shards = max(self.shards, processes)
        if shards % processes:
            raise ValueError(
                f"shards: got {shards}, expected a multiple of the {processes} processes; try shards={processes}"
            )
        return replace(self, shards=shards)


_OF_PHASES = ("draws", "weighting", "simulation_steps", "collective_weight", "fluctuation")
_COUNTS = ("batch_size", "shards", "draws", "simulation_steps")
_COUNTS_OR_NONE = ("steps", "warmup", "seed", "save_every", "validate_every", "sample_every", "log_every")
_CHOICES = {
    "decay": ("cosine", "constant"),
    "weighting": (None, "target", "published", "none", "early"),
    "fluctuation": ("linear", "measured"),
    "precision": ("float32", "bf16"),
    "compile": (False, True),
    "keep_models": (False, True),
    "tensorboard": (False, True),
}


class Examples(NamedTuple):
    """A checked data set: phases (n, ...), labels (n,) if the network has classes, scale and source of PhaseData."""

    theta: Tensor
    labels: Tensor | None
    scale: float
    source: str


def check_examples(name: str, data: Tensor | PhaseData, network: nn.Module, process: Process) -> Examples:
    """The data as the network needs them.

    Raises:
        ValueError: no phases, another shape than the network's, labels that are not its classes, another process.
    """
    if not isinstance(data, PhaseData):
        data = PhaseData(data, None, (), 0.9, "a tensor")
    process.validate(data.theta, name)
    if isinstance(process, EuclideanDiffusion):
        process.check_forgotten(data.theta, name)
    if any(getattr(part, "process", process) != process for part in network.modules()):
        raise ValueError(
            "process: got another one than the network's, expected the same; try to build it with this one"
        )
    labels, classes = data.labels, getattr(network, "config", {}).get("classes")
    if not classes:
        labels = None
    elif not _are_classes(labels, len(data), classes):
        raise ValueError(
            f"{name}: got {'no labels' if labels is None else 'other labels'}, expected one from 0 to {classes - 1} "
            "for each image, the classes of the network; try a network without classes"
        )
    _check_network(network, name, data.theta[:1])
    theta = data.theta.detach().float()
    return Examples(theta, labels if labels is None else labels.cpu().long(), data.scale, data.source)


def _are_classes(labels: Any, count: int, classes: int) -> bool:
    if not isinstance(labels, Tensor) or labels.shape != (count,):
        return False
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    return whole and bool(((labels >= 0) & (labels < classes)).all())


def _check_network(network: nn.Module, name: str, one: Tensor) -> None:
    """Try a copy on one example."""
    kinds = {weight.dtype for weight in network.parameters()}
    if kinds != {torch.float32}:
        got = ", ".join(sorted(str(kind) for kind in kinds)) or "none"
        raise ValueError(f"network: got parameters of type {got}, expected torch.float32; try network.float()")
    copied = copy.deepcopy(network).train()
    before = [x.clone() for x in copied.buffers()]
    one = one.detach().to(next(copied.parameters()))
    with torch.no_grad():
        score = copied(one, torch.ones_like(one.flatten(1)[:, 0]))
    if score.shape != one.shape:
        raise ValueError(f"network: got scores {tuple(score.shape)} for {name} {tuple(one.shape)}, expected the same")
    if not all(torch.equal(x, y) for x, y in zip(before, copied.buffers(), strict=True)):
        raise ValueError(
            "network: got buffers that change in training, like those of BatchNorm, expected none, as they depend on "
            "who computes which part of a batch; try GroupNorm"
        )


def check_objective(options: TrainingOptions, process: Process) -> None:
    """Refuse an objective that is not one of the process.

    Raises:
        ValueError: says which it has.
    """
    euclidean = isinstance(process, EuclideanDiffusion)
    if euclidean != (options.objective == "noise"):
        fitting = "'noise'" if euclidean else "'mean_field' or 'transition'"
        raise ValueError(f"objective: got {options.objective!r} for {type(process).__name__}, expected {fitting}")


class Batch(NamedTuple):
    """What an objective needs to know of some images; the times are on the CPU, where the simulation plans."""

    theta0: Tensor
    label: Tensor | None
    t: Tensor
    generator: torch.Generator


class Batches:
    """The images, labels, times and noise of every step; data that are not too large stay on ``device``."""

    def __init__(self, data: Examples, options: TrainingOptions, device: torch.device):
        small = data.theta.nbytes <= RESIDENT_BYTES
        self.theta, self.labels = data.theta.to(device) if small else data.theta, data.labels
        self.options, self.device = options, device

    def shard(self, step: int, shard: int) -> Batch:
        """Every ``shards``-th image of the batch, so that each shard has times from all of (0, 1]."""
        seed, size = self.options.seed, self.options.batch_size
        u, no_label = np.random.default_rng([BATCH, seed, step]).random((2, size))
        t = (np.arange(size) + 1 - u) / size  # one in each of as many intervals: the images are in random order
        own = slice(shard, None, self.options.shards)
        return self._batch(self._order(step)[own], no_label[own] < NO_LABEL, t[own], (NOISE, seed, step, shard))

    def whole(self) -> Iterator[Batch]:
        """All images in parts, with the same times and noise whenever it is called."""
        n, seed = len(self.theta), self.options.seed
        t = (_permutation(HELD_OUT, seed, 0, n) + 0.5) / n
        for start in range(0, n, self.options.batch_size):
            part = np.arange(n)[start : start + self.options.batch_size]
            yield self._batch(part, part < 0, t[part], (HELD_OUT, seed, 1, start))

    def _order(self, step: int) -> np.ndarray:
        """Which images: all of them in random order, then all in another order, and so on, cut into batches."""
        size, n = self.options.batch_size, len(self.theta)
        epochs, places = np.divmod(np.arange(step * size, (step + 1) * size), n)
        orders = [_permutation(ORDER, self.options.seed, e, n)[places[epochs == e]] for e in np.unique(epochs)]
        return np.concatenate(orders)

    def _batch(self, images: np.ndarray, no_label: np.ndarray, t: np.ndarray, key: tuple[int, ...]) -> Batch:
        index, label = torch.from_numpy(images), None
        if self.labels is not None:
            label = self._send(torch.where(torch.from_numpy(no_label), -1, self.labels[index]))
        # Neighbouring steps and shards must not have neighbouring seeds.
        seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]) >> 1
        generator = torch.Generator(self.device).manual_seed(seed)
        theta0 = self._send(self.theta[index.to(self.theta.device, non_blocking=True)])
        return Batch(theta0, label, torch.from_numpy(t).float(), generator)

    def _send(self, x: Tensor) -> Tensor:
        return x.to(self.device, non_blocking=True)  # a GPU need not be waited for


@lru_cache(maxsize=4)
def _permutation(purpose: int, seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng([purpose, seed, epoch]).permutation(n)


def _transition(network: nn.Module, process: KuramotoProcess, batch: Batch, options: TrainingOptions) -> Loss:
    return transition_score_matching(
        network,
        process,
        batch.theta0,
        batch.label,
        draws=options.draws,
        steps=options.simulation_steps,
        weighting=options.resolved_weighting,
        collective_weight=options.collective_weight,
        t=batch.t,
        generator=batch.generator,
    )


def _mean_field(
    network: nn.Module,
    process: KuramotoProcess,
    batch: Batch,
    options: TrainingOptions,
    fluctuation: Fluctuation | None = None,
) -> Loss:
    return mean_field_score_matching(
        network,
        process,
        batch.theta0,
        batch.label,
        steps=math.ceil(options.simulation_steps / 2),  # of Heun's method, which takes two drifts
        weighting=options.resolved_weighting,  # type: ignore[arg-type]  # of the two that go with this objective
        collective_weight=options.collective_weight,
        fluctuation=fluctuation,
        t=early_times(batch.t),
        generator=batch.generator,
    )


def _noise(network: nn.Module, process: EuclideanDiffusion, batch: Batch, options: TrainingOptions) -> Loss:
    return noise_prediction(network, process, batch.theta0, early_times(batch.t), batch.generator, batch.label)


#: What can be learnt, by the name of the option.
OBJECTIVES: dict[str, Callable[..., Loss]] = {
    "noise": _noise,
    "mean_field": _mean_field,
    "transition": _transition,
}


class Learner:
    """A copy of a network, the running average of its weights, and the optimiser.

    Args:
        network: where to start.
        process: its forward process.
        options: how to train.
        accelerator: of the package accelerate; knows the device and the other processes.
        data: what the fluctuation of the field is measured on, if the options ask for it.
    """

    def __init__(
        self, network: nn.Module, process: Process, options: TrainingOptions, accelerator: Any, data: Examples
    ):
        self.process, self.options, self.accelerator = process, options, accelerator
        self.objective = OBJECTIVES[options.objective]
        if isinstance(process, KuramotoProcess) and options.fluctuation == "measured":
            measured = calibrate_fluctuation(process, data.theta[:MEASURED], generator=torch.Generator().manual_seed(0))
            self.objective = partial(self.objective, fluctuation=trusted_fluctuation(process, measured))
        model = copy.deepcopy(network).train().requires_grad_(True)
        self.model = accelerator.prepare(model)  # on the device; all processes get the weights of the first one
        if options.compile:
            model.compile()
        self.names = [name for name, _ in model.named_parameters()]
        self.weights: list[Tensor] = list(model.parameters())
        self.gradients = [torch.zeros_like(weight) for weight in self.weights]
        for weight, gradient in zip(self.weights, self.gradients, strict=True):
            weight.grad = gradient
        self.optimizer = _adamw(self.weights, options)
        self.average = copy.deepcopy(network).to(accelerator.device).eval().requires_grad_(False)
        self.averages: list[Tensor] = list(self.average.parameters())
        with torch.no_grad():
            torch._foreach_copy_(self.averages, self.weights)

    def update(self, step: int, batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
        """Follow the mean gradient over the shards of all processes.

        Args:
            step: its number, the first being 0.
            batches: the shards of this process.

        Returns:
            One row per image of these shards, see ``training_state.table``, and the norm of each weight's gradient.
        """
        rows = []
        self.optimizer.zero_grad(set_to_none=False)
        for k, batch in enumerate(batches, 1):
            is_last = k == len(batches)  # with it the processes exchange their gradients
            with nullcontext() if is_last else self.accelerator.no_sync(self.model):
                loss = self.loss(self.model, batch)
                self.accelerator.backward(loss.loss / len(batches))
            rows.append(table(loss))
        norms = torch.stack(torch._foreach_norm(self.gradients))
        self.accelerator.clip_grad_norm_(self.weights, self.options.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate_at(step)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.weights, 1 - self.options.ema_at(step))
        return torch.cat(rows), norms

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        return self.objective(network, self.process, batch, self.options)

    def tensors(self) -> dict[str, Tensor]:
        """All that a training goes on from, "weights.NAME", "ema.NAME" and so on; not copies."""
        moments = [self.optimizer.state[weight] for weight in self.weights]
        groups = {
            "weights": self.weights,
            "ema": self.averages,
            **{key: [moment[key] for moment in moments] for key in ("exp_avg", "exp_avg_sq", "step")},
        }
        return {f"{key}.{name}": x.detach() for key in groups for name, x in zip(self.names, groups[key], strict=True)}


def _adamw(weights: list[Tensor], options: TrainingOptions) -> torch.optim.AdamW:
    """The optimiser, with the moments that it would otherwise make in its first step."""
    fused = weights[0].is_cuda
    optimizer = torch.optim.AdamW(
        weights, options.learning_rate, weight_decay=options.weight_decay, fused=fused or None
    )
    for weight in weights:
        optimizer.state[weight] = {
            "step": torch.zeros((), dtype=torch.float32, device=weight.device if fused else "cpu"),
            "exp_avg": torch.zeros_like(weight, requires_grad=False),
            "exp_avg_sq": torch.zeros_like(weight, requires_grad=False),
        }
    return optimizer
