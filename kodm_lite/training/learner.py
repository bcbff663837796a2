"""One step of a training: its gradient, and the weights after it.  Book: chapter 8."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from kodm_lite.kinds import Process
from kodm_lite.losses import Loss, Objective
from kodm_lite.training.batches import Batch
from kodm_lite.training.options import TrainingOptions
from kodm_lite.training.state import table

__all__ = ["Learner"]


class Learner:
    """A copy of a network, the running average of its weights, and the optimiser.

    Args:
        network: where to start.
        process: its forward process.
        objective: what is minimised.
        options: how to train.
        accelerator: of the package accelerate; knows the device and the other processes.
    """

    def __init__(
        self, network: nn.Module, process: Process, objective: Objective, options: TrainingOptions, accelerator: Any
    ):
        self.process, self.objective, self.options, self.accelerator = process, objective, options, accelerator
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
        t = self.objective.times(batch.u)
        return self.objective(network, self.process, batch.theta0, batch.label, t, batch.generator)

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
