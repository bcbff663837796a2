"""Phases that stay on disk or come one by one: the same numbers, no copy, no warning, and what is refused."""

import copy
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from kodm_lite import Angles, GreyLevels
from kodm_lite.data import DatasetExamples, memory_mapped

HELPFUL = r"(?s)got .*expected .*try "
PHASES = np.random.default_rng(0).uniform(-math.pi, math.pi, (9, 1, 4, 4)).astype(np.float32)


class Table(Dataset):
    """A data set as users write it, with labels or without."""

    def __init__(self, theta, labels=None):
        self.theta, self.labels = theta, labels

    def __len__(self):
        return len(self.theta)

    def __getitem__(self, k):
        return self.theta[k] if self.labels is None else (self.theta[k], self.labels[k])


def test_an_array_is_mapped_and_not_copied(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "a.npy", PHASES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = memory_mapped("~/a.npy", GreyLevels(0.5), torch.arange(9) % 2, ["odd", "even"])
    np.testing.assert_array_equal(data.theta.numpy(), PHASES)
    assert data.encoding == GreyLevels(0.5) and data.names == ("odd", "even") and len(data.of_class("odd")) == 5
    with (tmp_path / "a.npy").open("r+b") as file:  # only what is mapped can change under it
        file.seek(-4, 2)
        file.write(np.float32(0.25).tobytes())
    assert data.theta.flatten()[-1] == 0.25


@pytest.mark.parametrize(
    "wrong",
    [
        PHASES.astype(np.float64),
        PHASES.astype(">f4"),
        PHASES[:0],
        PHASES[0, 0, 0],
        np.asfortranarray(PHASES),
        np.array([{}], object),
    ],
    ids=["float64", "big endian", "empty", "one", "Fortran", "objects"],
)
def test_other_arrays_are_refused(tmp_path, wrong):
    np.save(tmp_path / "a.npy", wrong)
    with pytest.raises(ValueError, match=HELPFUL):
        memory_mapped(tmp_path / "a.npy", Angles())


def test_what_is_no_array_is_refused(tmp_path):
    (tmp_path / "text.npy").write_text("no array")
    np.savez(tmp_path / "many.npz", a=PHASES)
    for name in ("nowhere.npy", "text.npy", "many.npz", "."):
        with pytest.raises(ValueError, match=HELPFUL):
            memory_mapped(tmp_path / name, Angles())
    with pytest.raises(ValueError, match=HELPFUL):
        memory_mapped(None, Angles())


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_examples_are_those_of_the_data_set(tmp_path, kind):
    np.save(tmp_path / "a.npy", PHASES.astype(kind).clip(-3.14, 3.14))
    stored = np.load(tmp_path / "a.npy", mmap_mode="r")
    for dataset in (stored, Table(stored), Table(torch.from_numpy(np.array(stored)))):
        data = DatasetExamples(dataset, Angles())
        assert data.shape == PHASES.shape and len(data) == 9 and data.labels is None
        taken = data.take(torch.tensor([7, 0, 7]))
        assert taken.dtype == torch.float32
        np.testing.assert_array_equal(taken.numpy(), stored[[7, 0, 7]].astype(np.float32))
    again = pickle.loads(pickle.dumps(copy.deepcopy(DatasetExamples(Table(np.array(stored)), Angles()))))
    assert torch.equal(again.take(torch.tensor([3])), data.take(torch.tensor([3])))


def test_labels_of_a_data_set_are_found():
    labels = np.arange(9) % 3
    for own in (labels, torch.from_numpy(labels), labels.tolist()):
        data = DatasetExamples(Table(PHASES, own), Angles(), names="abc")
        assert data.labels.tolist() == labels.tolist() and data.names == ("a", "b", "c")


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        iter([]),
        5,
        None,
        [np.zeros((2, 2))],
        [np.zeros(3), np.zeros(4)],
        [np.array([0.0, math.nan])],
        [np.array([0.0, 180.0])],
        [(np.zeros(3), 0), (np.zeros(3), None)],
        [(np.zeros(3), "cat")],
        [(np.zeros(3), 0.5)],
        ["phases"],
    ],
)
def test_other_data_sets_are_refused(wrong):
    with pytest.raises(ValueError, match=HELPFUL):
        DatasetExamples(wrong, Angles())


def test_the_encoding_must_be_said():
    with pytest.raises(ValueError, match=HELPFUL):
        DatasetExamples(PHASES, 0.9)
