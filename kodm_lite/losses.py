"""What every objective gives and how a training calls it, whatever the process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from kodm_lite.randomness import Generators
from kodm_lite.validation import told

__all__ = ["PARTS", "Loss", "Objective", "early_times", "squared_error"]

#: Columns of the errors of a loss: over the phases, along the collective modes, and along the order parameter alone.
PARTS = ("error", "collective", "order")


class Loss(NamedTuple):
    """A loss and what it consists of; everything but ``loss`` is detached.

    All errors are weighted, so that the zero predictor has about 1 at every time (with the default weighting).

    Args:
        loss: the scalar to differentiate.
        t: times of the images (B,).
        error: (B, 3), columns as ``PARTS``: the weighted mean squared error over the phases; the weighted squared error
            along the collective modes, summed over modes and multiplied by N, so that an error without spatial
            structure has the same size in the first column and in each mode; and the part of that along the order
            parameter, which decides what kind of image appears.
        baseline: the same of the predictor s = 0: what the target itself amounts to.
    """

    loss: Tensor
    t: Tensor
    error: Tensor
    baseline: Tensor


class Objective(Protocol):
    """What a training minimises: a frozen dataclass, whose fields a model's card tells.

    A class of your own that inherits from it needs ``__call__`` only.
    """

    def times(self, u: Tensor) -> Tensor:
        """From numbers u (B,), evenly spread over (0, 1], to the times of a batch, on the CPU; by default as often."""
        return u

    def check(self, process: Any, x0: Tensor) -> None:
        """Refuse a process or an example x0 (1, ...) that cannot be trained on; called once, before any work."""
        return None

    def __call__(
        self,
        network: Callable[..., Tensor],
        process: Any,
        x0: Tensor,
        label: Tensor | None,
        t: Tensor,
        generator: Generators,
    ) -> Loss:
        """The loss of data x0 (B, ...) at times t (B,), on the CPU, with the network's labels (B,) or None."""


def squared_error(answer: Tensor, target: Tensor, t: Tensor, weight: Tensor | float = 1.0) -> Loss:
    """The loss of a network's answers (B, ...), whose collective part is the error of each example's mean.

    Args:
        answer: of the network.
        target: what it should have been.
        t: times (B,).
        weight: of each example (B,), or of all.

    Raises:
        ValueError: answers of another shape, which broadcasting would hide.
    """
    if not (isinstance(answer, Tensor) and isinstance(target, Tensor)) or answer.shape != target.shape:
        raise ValueError(
            f"network: got {told(answer)} where the target is {told(target)}, expected tensors of one shape; "
            "try answer.reshape(x.shape)"
        )

    def parts(wrong: Tensor) -> Tensor:
        numbers = wrong.flatten(1)
        mean = numbers.sum(1).square() / numbers.shape[1]
        return torch.stack([numbers.square().mean(1), mean, mean], 1) * torch.as_tensor(weight).reshape(-1, 1).to(wrong)

    error = parts(answer - target)
    return Loss(error[:, 0].mean(), t, error.detach(), parts(target.detach()))


def early_times(u: Tensor) -> Tensor:
    """From uniform numbers to times that dwell where details form: u^2, but not so early that nothing has happened.

    The clock V grows like t^2 at first; half of these times lie before V = 0.6 to 0.8, where single pixels are still
    legible.
    """
    if not isinstance(u, Tensor) or not u.is_floating_point():
        raise ValueError(f"u: got {told(u)}, expected floating numbers in (0, 1]; try torch.rand(n)")
    return u.square().clamp(min=1e-3)
