"""How a network is trained: what all trainings share, whatever they learn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from kodm_lite.validation import check_count

__all__ = ["TrainingOptions"]


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
        decay: "cosine" brings the learning rate to zero at the last step; "constant" leaves it.
        weight_decay: of AdamW.
        clip: largest norm of the gradient; a longer one is shortened to it.
        ema: how much of the running average of the weights a step keeps; less in the first steps.
        objective: what the network learns from, by the name of one of the process's objectives: of a Kuramoto process
            "mean_field", the conditional score given the data, or "transition", the published score of the last step;
            of a Euclidean diffusion "noise". By default the first.
        precision: "bf16" computes the network in 16 bits where that is safe; weights stay float32.
        compile: compile the network, which takes a minute and pays on GPUs.
        seed: of everything random.
        save_every: steps between saves, which also happen every two minutes; 0 for at the end only.
        keep_models: keep the model of every save, in the folder models, and not only the last.
        validate_every: steps between validations, if there are held-out data; 0 for never.
        sample_every: steps between pictures of samples; 0 for never.
        log_every: steps between lines of the log; 0 for never.

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
    objective: str | None = None
    precision: Literal["float32", "bf16"] = "float32"
    compile: bool = False
    seed: int = 0
    save_every: int = 500
    keep_models: bool = False
    validate_every: int = 500
    sample_every: int = 0
    log_every: int = 50

    def __post_init__(self) -> None:
        for name in (*_COUNTS, *_COUNTS_OR_NONE):  # integers of numpy become those of Python, which JSON can tell
            value = getattr(self, name)
            if isinstance(value, np.integer):
                object.__setattr__(self, name, int(value))
        self._require("an integer from 1", lambda x: type(x) is int and x >= 1, _COUNTS)
        self._require("an integer from 0", lambda x: type(x) is int and x >= 0, _COUNTS_OR_NONE)
        self._require("a positive number", lambda x: 0 < x < math.inf, ("learning_rate", "clip"))
        self._require("a number from 0", lambda x: 0 <= x < math.inf, ("weight_decay",))
        self._require("a number from 0 to below 1", lambda x: 0 <= x < 1, ("ema",))
        self._require("an integer below 10^15", lambda x: x < 10**15, ("seed",))
        for name, choices in _CHOICES.items():
            self._require(f"one of {choices}", choices.__contains__, (name,))
        if not isinstance(self.objective, str | None):
            raise ValueError(
                f"objective: got {self.objective!r}, expected a name; try fit(..., objective=...) for an object"
            )
        if self.batch_size % self.shards:
            raise ValueError(
                f"batch_size: got {self.batch_size}, expected a multiple of the {self.shards} shards; "
                f"try {self.shards * math.ceil(self.batch_size / self.shards)}"
            )

    def _require(self, expected: str, accepts: Callable[[Any], bool], names: Sequence[str]) -> None:
        for name in names:
            value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
            if isinstance(value, type(default) | int) and accepts(value):
                continue
            raise ValueError(f"{name}: got {value!r}, expected {expected}; try {default!r}, the default")

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
        processes = check_count("processes", processes)
        shards = max(self.shards, processes)
        if shards % processes:
            raise ValueError(
                f"shards: got {shards}, expected a multiple of the {processes} processes; try shards={processes}"
            )
        return replace(self, shards=shards)


_COUNTS = ("batch_size", "shards")
_COUNTS_OR_NONE = ("steps", "warmup", "seed", "save_every", "validate_every", "sample_every", "log_every")
_CHOICES = {
    "decay": ("cosine", "constant"),
    "precision": ("float32", "bf16"),
    "compile": (False, True),
    "keep_models": (False, True),
}
