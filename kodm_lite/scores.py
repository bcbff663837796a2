"""Classifier-free guidance: images that are more of their class than those of the data.  Book: general images.

A network with classes knows two scores, that of a class and that of all images.  Their difference is the gradient of
log p(class | image), and guidance adds it more than once,

    s = s(no class) + weight (s(class) - s(no class)).

Weight 1 is the score of the class, 0 that of all images.  For any other weight s is the score of no forward process,
so that samples are sharper, more alike, and no longer distributed as the data of the class.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real

import torch
from torch import Tensor

__all__ = ["guided"]


def guided(
    network: Callable[[Tensor, Tensor, Tensor | None], Tensor], label: int | Tensor, weight: float = 1.0
) -> Callable[[Tensor, Tensor], Tensor]:
    """The guided score (or predicted noise) of one class, for the samplers.

    Args:
        network: called as ``network(theta, t, label)``; label -1 stands for no class.
        label: the class of all images, or of each (B,).
        weight: 1 asks for the class, more insists on it; other weights than 0 and 1 need two evaluations, done as one
            with twice the batch.

    Raises:
        ValueError: a weight that is not finite, labels that are no classes of the network.

    Source: Ho and Salimans 2022.
    """
    if isinstance(weight, bool) or not isinstance(weight, Real) or not math.isfinite(weight):
        raise ValueError(f"weight: got {weight!r}, expected a finite number; try 1.0, the score of the class itself")
    if isinstance(label, bool) or not isinstance(label, Integral | Tensor):
        raise ValueError(f"label: got {label!r}, expected a class or a tensor of one for each image (B,); try label=0")

    labels = label if isinstance(label, Tensor) else torch.tensor(int(label))
    classes = getattr(network, "config", {}).get("classes", math.inf) or 0
    if (
        labels.ndim > 1
        or labels.dtype not in (torch.int64, torch.int32)
        or not bool(((labels >= 0) & (labels < classes)).all())
    ):
        raise ValueError(
            f"label: got {label}, expected a class from 0 to {classes - 1}, or one for each image (B,); try label=0"
        )

    def score(theta: Tensor, t: Tensor) -> Tensor:
        if labels.ndim and len(labels) != len(theta):
            raise ValueError(f"label: got {len(labels)} for {len(theta)} images, expected one for each")
        own = labels.to(theta.device).expand(len(theta))
        none = torch.full_like(own, -1)
        if weight in (0, 1):
            return network(theta, t, own if weight else none)
        both = network(torch.cat([theta, theta]), torch.cat([t, t]), torch.cat([own, none]))
        of_class, of_all = both.chunk(2)
        return of_all + weight * (of_class - of_all)

    score.guidance = weight  # so that a likelihood can be refused
    return score
