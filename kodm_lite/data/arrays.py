"""Phases that need not fit into memory: an array on disk, or a data set that gives them one by one.

A training asks for no more than a :class:`PhaseSource` has, which :class:`PhaseData` has too.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from kodm_lite.circular import validate_phases
from kodm_lite.data.options import check_whole, given_path
from kodm_lite.data.phase_data import PhaseData
from kodm_lite.encoding import Encoding

__all__ = ["DatasetExamples", "PhaseSource", "memory_mapped"]


@runtime_checkable
class PhaseSource(Protocol):
    """What a training needs to know of its data."""

    @property
    def labels(self) -> Tensor | None:
        """Class of each example (n,), integers, or None."""

    @property
    def names(self) -> tuple[str, ...]:
        """The classes' names."""

    @property
    def encoding(self) -> Encoding:
        """What the phases stand for."""

    @property
    def source(self) -> str:
        """Where the examples come from."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of examples and shape of one (n, ...)."""

    def take(self, index: Tensor) -> Tensor:
        """The phases of these examples (B, ...), float32, radians."""


def memory_mapped(
    path: str | os.PathLike[str], encoding: Encoding, labels: Tensor | None = None, names: Sequence[str] = ()
) -> PhaseData:
    """Phases of a .npy file, which stays on disk: the system fetches what is asked for and forgets it again.

    Args:
        path: a file that np.save wrote, float32, (n, C, H, W) or (n, N), radians.  Do not change it meanwhile.
        encoding: what the phases stand for.
        labels: class of each example (n,), integers.
        names: the classes' names.

    Returns:
        :class:`PhaseData` whose phases can be read and not written to.

    Raises:
        ValueError: no such file, objects instead of numbers, other numbers than float32, no examples.
    """
    file = given_path("path", path)
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"path: got {file} ({error}), expected a .npy file of numbers; try np.save") from error
    if not isinstance(array, np.memmap) or array.dtype != np.float32 or array.ndim < 2 or not array.size:
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise ValueError(
            f"path: got {file} with {got}, expected one array of float32 (n, C, H, W) or (n, N); try "
            "DatasetExamples(np.load(path, mmap_mode='r'), encoding), which converts the examples of a batch"
        )
    if not array.flags.c_contiguous:
        raise ValueError(f"path: got {file} in the order of Fortran, expected that of C; try np.ascontiguousarray")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it cannot be written to, which is meant
        theta = torch.from_numpy(array)
    return PhaseData(theta, labels, tuple(names), encoding, f"the array {file.name}", "that of the array")


class DatasetExamples:
    """Any data set with a length and numbered items, such as torch.utils.data.Dataset, as data of a training.

    It is read once at the beginning, to find the labels and what cannot be phases.

    Args:
        dataset: ``dataset[k]`` is an example, or a pair of it and its label, an integer; phases (C, H, W) or (N,),
            numbers of any precision, radians; the same whenever it is asked for.
        encoding: what the phases stand for.
        names: the classes' names.
        source: where the examples come from.

    Raises:
        ValueError: no examples, examples of several shapes or that are no phases, labels of some only.

    >>> from kodm_lite import Angles
    >>> data = DatasetExamples(np.zeros((5, 3)), Angles())
    >>> data.shape, data.take(torch.tensor([4, 0])).dtype
    ((5, 3), torch.float32)
    """

    def __init__(self, dataset: Any, encoding: Encoding, names: Sequence[str] = (), source: str = "a data set"):
        try:
            count = len(dataset) if hasattr(dataset, "__getitem__") else 0
        except TypeError:
            count = 0
        if not count:
            got = type(dataset).__name__
            raise ValueError(f"dataset: got {got}, expected numbered examples, at least one; try a list")
        if not isinstance(encoding, Encoding):
            raise ValueError(f"encoding: got {encoding!r}, expected what the phases stand for; try kodm_lite.Angles()")
        self.dataset, self.encoding, self.names, self.source = dataset, encoding, tuple(names), source
        self.shape = (count, *self._item(0)[0].shape)
        labels = [self._checked(k) for k in range(count)]
        if len({label is None for label in labels}) == 2:
            raise ValueError("dataset: got labels of some examples, expected those of all or none; try to add them")
        self.labels = None if labels[0] is None else torch.tensor(labels)

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, index: Tensor) -> Tensor:
        """The phases of these examples (B, ...), float32."""
        return torch.stack([self._item(k)[0] for k in index.tolist()])

    def _item(self, k: int) -> tuple[Tensor, Any]:
        item = self.dataset[k]
        theta, label = item if isinstance(item, tuple | list) and len(item) == 2 else (item, None)
        try:
            if not isinstance(theta, Tensor):
                theta = torch.from_numpy(np.array(theta, np.float32))  # a copy: PyTorch warns of what is read-only
            return theta.float(), label
        except (TypeError, ValueError) as error:
            raise ValueError(f"dataset: got {theta!r:.40} as example {k}, expected an array; try np.array") from error

    def _checked(self, k: int) -> int | None:
        """The label of an example that can be used."""
        theta, label = self._item(k)
        if theta.ndim not in (1, 3) or theta.shape != self.shape[1:]:
            expected = "(C, H, W) or (N,)" if theta.ndim not in (1, 3) else str(self.shape[1:])
            raise ValueError(f"dataset: got shape {tuple(theta.shape)} of example {k}, expected {expected}; try [None]")
        validate_phases(theta[None], f"dataset[{k}]")
        return None if label is None else check_whole("label", label, 0)
