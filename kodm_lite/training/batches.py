"""What a step learns from: checked data, and from them images, labels, times and noise of every batch.

Everything random in a batch is a function of the seed, the number of the step and the shard, a part of the batch.  So
steps need no memory, and it does not matter which process computes which shard.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kodm_lite.data.arrays import PhaseSource
from kodm_lite.data.phase_data import PhaseData
from kodm_lite.encoding import Angles, Encoding
from kodm_lite.kinds import Process
from kodm_lite.training.options import TrainingOptions

__all__ = ["Batch", "Batches", "as_data", "check_data"]

RESIDENT_BYTES = 2**32  # of data that a GPU holds all the time; images of larger sets come batch by batch
NO_LABEL = 0.1  # share of images whose label is left out, so that the network also learns to do without
ORDER, BATCH, NOISE, HELD_OUT = range(4)  # what random numbers are for: streams that never meet


def as_data(
    name: str, data: Tensor | PhaseSource, encoding: Encoding | None, process: Process, stored: bool
) -> PhaseSource:
    """Data that know what their phases stand for.

    Args:
        name: of the argument, for messages.
        data: phases, with or without what is known of them.
        encoding: of a bare tensor.
        process: a table (n, N) of its states stands for angles if whole turns do not change them.
        stored: whether a model or a picture will be written, which have to know the encoding.

    Raises:
        ValueError: an encoding beside data that have one, or none for a bare tensor of images that needs one.
    """
    if encoding is not None and not isinstance(encoding, Encoding):
        raise ValueError(f"encoding: got {encoding!r:.60}, expected what the phases stand for; try kodm_lite.Angles()")
    if isinstance(data, PhaseSource):
        if encoding is not None and encoding != data.encoding:
            raise ValueError(f"encoding: got {encoding} for {name} with {data.encoding}, expected no other one")
        return data
    if not isinstance(data, Tensor):
        got = type(data).__name__
        raise ValueError(f"{name}: got {got}, expected PhaseData or a torch tensor; try torch.as_tensor({name})")
    table_of_numbers = data.ndim == 2 and bool(process.project(torch.full((1, 1), 7.0)) == 7.0)
    if encoding is None and stored and (data.ndim > 2 or table_of_numbers):
        raise ValueError(
            f"encoding: got none with {name} of shape {tuple(data.shape)}, expected what the phases stand for, so that "
            "samples get the contrast of the data; try fit(..., encoding=kodm_lite.GreyLevels(0.5)) for images that "
            "were encoded so, encoding=kodm_lite.Angles() for angles, or PhaseData, which has it"
        )
    return PhaseData(data, None, (), encoding or Angles(), "a tensor")


def check_data(name: str, data: PhaseSource, network: nn.Module, process: Process) -> PhaseSource:
    """The data as the network needs them: float32, with labels if it has classes.

    The phases of :class:`kodm_lite.PhaseData` are looked at, those of other sources only as far as one example tells.

    Raises:
        ValueError: no states of the process, another shape than the network's, labels that are not its classes,
            another process.
    """
    one = data.take(torch.arange(1))
    process.validate(data.theta if isinstance(data, PhaseData) else one, name)
    if any(getattr(part, "process", process) != process for part in network.modules()):
        raise ValueError(
            "process: got another one than the network's, expected the same; try to build it with this one"
        )
    labels, classes = data.labels, getattr(network, "config", {}).get("classes")
    if classes:
        labels = check_labels(f"{name}, labels", labels, data.shape[0], classes)
    _check_network(network, name, one)
    own = copy.copy(data)  # the caller's is not changed
    object.__setattr__(own, "labels", labels if classes else None)
    if isinstance(own, PhaseData):
        object.__setattr__(own, "theta", own.theta.detach().float())
    return own


def check_labels(name: str, labels: Any, count: int, classes: int) -> Tensor:
    """Labels as integers on the CPU, one for each of ``count`` images, from 0 to ``classes`` - 1.

    Raises:
        ValueError: says what they are instead, and what to try.
    """
    expected = f"expected one integer from 0 to {classes - 1} for each of {count}, the classes of the network"
    if labels is None:
        raise ValueError(f"{name}: got none, {expected}; try a network without classes")
    if not isinstance(labels, Tensor):
        raise ValueError(f"{name}: got {type(labels).__name__}, {expected}; try torch.as_tensor(labels)")
    got = f"{str(labels.dtype).removeprefix('torch.')} of shape {tuple(labels.shape)}"
    if labels.shape != (count,):
        hint = "labels.argmax(1)" if labels.ndim == 2 and labels.shape[1] == classes > 1 else "labels.flatten()"
        raise ValueError(f"{name}: got {got}, {expected}; try {hint}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{name}: got {got}, {expected}; try labels.long()")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        hint = "labels - 1" if low == 1 and high == classes else "a network with more classes"
        raise ValueError(f"{name}: got numbers from {low} to {high}, {expected}; try {hint}")
    return labels.cpu().long()


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


class Batch(NamedTuple):
    """What an objective needs to know of some images.

    Args:
        theta0: the images (B, ...).
        label: their classes (B,), -1 for none, or None.
        u: numbers (B,), evenly spread over (0, 1], from which the objective makes times; on the CPU, where the
            simulation plans.
        generator: of the noise.
    """

    theta0: Tensor
    label: Tensor | None
    u: Tensor
    generator: torch.Generator


class Batches:
    """The images, labels, times and noise of every step; data that are not too large stay on ``device``."""

    def __init__(self, data: PhaseSource, options: TrainingOptions, device: torch.device):
        if isinstance(data, PhaseData) and data.theta.nbytes <= RESIDENT_BYTES:
            data = replace(data, theta=data.theta.to(device))
        self.data, self.labels, self.count = data, data.labels, data.shape[0]
        self.options, self.device = options, device

    def shard(self, step: int, shard: int) -> Batch:
        """Every ``shards``-th image of the batch, so that each shard has numbers from all of (0, 1]."""
        seed, size = self.options.seed, self.options.batch_size
        back, no_label = np.random.default_rng([BATCH, seed, step]).random((2, size))
        u = (np.arange(size) + 1 - back) / size  # one in each of as many intervals: the images are in random order
        own = slice(shard, None, self.options.shards)
        return self._batch(self._order(step)[own], no_label[own] < NO_LABEL, u[own], (NOISE, seed, step, shard))

    def whole(self) -> Iterator[Batch]:
        """All images in parts, with the same times and noise whenever it is called."""
        n, seed = self.count, self.options.seed
        u = (_permutation(HELD_OUT, seed, 0, n) + 0.5) / n
        for start in range(0, n, self.options.batch_size):
            part = np.arange(n)[start : start + self.options.batch_size]
            yield self._batch(part, part < 0, u[part], (HELD_OUT, seed, 1, start))

    def _order(self, step: int) -> np.ndarray:
        """Which images: all of them in random order, then all in another order, and so on, cut into batches."""
        size, n = self.options.batch_size, self.count
        epochs, places = np.divmod(np.arange(step * size, (step + 1) * size), n)
        orders = [_permutation(ORDER, self.options.seed, e, n)[places[epochs == e]] for e in np.unique(epochs)]
        return np.concatenate(orders)

    def _batch(self, images: np.ndarray, no_label: np.ndarray, u: np.ndarray, key: tuple[int, ...]) -> Batch:
        index, label = torch.from_numpy(images), None
        if self.labels is not None:
            label = self._send(torch.where(torch.from_numpy(no_label), -1, self.labels[index]))
        # Neighbouring steps and shards must not have neighbouring seeds.
        seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]) >> 1
        generator = torch.Generator(self.device).manual_seed(seed)
        theta0 = self._send(self.data.take(index))
        return Batch(theta0, label, torch.from_numpy(u).float(), generator)

    def _send(self, x: Tensor) -> Tensor:
        return x.to(self.device, non_blocking=True)  # a GPU need not be waited for


@lru_cache(maxsize=4)
def _permutation(purpose: int, seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng([purpose, seed, epoch]).permutation(n)
