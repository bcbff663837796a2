"""Loaders that need no files: phases from every valid option, and a ValueError that helps from every other one."""

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kodm_lite import Angles
from kodm_lite.data import (
    DatasetExamples,
    PhaseData,
    aspect,
    cifar10,
    digits,
    fingerprints,
    image_folder,
    memory_mapped,
    terrain_aspect,
    textures,
)

FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
HELPFUL = r"(?s)got .*expected .*try "

anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3),
    st.lists(st.integers(), max_size=2), st.just(np.array([1, 2])), st.just(np.array("train")), st.just(torch.ones(2)),
    st.just(np.float64(0.3)), st.just(np.int64(-1)), st.just(1j),
)  # fmt: skip
splits, seeds, scales = st.sampled_from(["train", "test"]), st.integers(0, 2**40), st.floats(0.01, 0.99)
valid = {
    textures: {"size": st.integers(4, 64), "split": splits, "n": st.integers(1, 5), "seed": seeds, "scale": scales,
               "names": st.lists(st.sampled_from(["brick", "grass", "gravel"]), min_size=1, max_size=4)},
    terrain_aspect: {"size": st.integers(4, 100), "split": splits, "n": st.integers(1, 5), "seed": seeds},
    digits: {"split": splits, "size": st.sampled_from([8, 16]), "scale": scales},
    fingerprints: {"size": st.integers(16, 24), "split": splits, "n": st.integers(1, 2), "seed": seeds,
                   "kind": st.sampled_from(["ridges", "orientation"]), "period": st.floats(3, 8),
                   "pores": st.booleans(), "noise": st.floats(0, 1), "scale": scales},
}  # fmt: skip
small = {textures: {"n": 2}, terrain_aspect: {"n": 2}, digits: {}, fingerprints: {"size": 16, "n": 1, "period": 4.0}}
loaders = pytest.mark.parametrize("load", list(valid), ids=lambda load: load.__name__)


def assert_phases(data: PhaseData) -> None:
    assert data.theta.dtype == torch.float32 and len(data) > 0
    assert bool(torch.isfinite(data.theta).all()) and float(data.theta.abs().max()) <= math.pi + 1e-6
    assert data.labels is None or (len(data.labels) == len(data) and int(data.labels.max()) < len(data.names))


@loaders
@FEW
@given(data=st.data())
def test_valid_options_give_phases(load, data):
    assert_phases(load(**{name: data.draw(values, name) for name, values in valid[load].items()}))


@loaders
@FEW
@given(data=st.data())
def test_every_option_is_taken_or_refused_with_help(load, data):
    name = data.draw(st.sampled_from(sorted({*valid[load]} - {"n", "pores"})))
    value = data.draw(anything)
    try:
        loaded = load(**{**small[load], name: value})
    except ValueError as refused:
        assert "got" in str(refused) and "expected" in str(refused) and "try" in str(refused)
    else:
        assert_phases(loaded)


@FEW
@given(value=anything)
def test_numbers_of_examples_are_taken_or_refused_with_help(value):
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return  # that many take their time
    for load in (textures, terrain_aspect, fingerprints):
        with pytest.raises(ValueError, match=HELPFUL):
            load(n=value)


@FEW
@given(value=anything, dx=anything)
def test_maps_are_taken_or_refused_with_help(value, dx):
    try:
        angles = aspect(value, dx, 1.0)
    except ValueError as refused:
        assert "got" in str(refused) and "try" in str(refused)
    else:
        assert bool(torch.isfinite(angles).all())


@FEW
@given(value=anything)
def test_paths_and_data_sets_are_refused_with_help(value):
    for call in (image_folder, cifar10, lambda path: memory_mapped(path, Angles())):
        with pytest.raises(ValueError, match=HELPFUL):
            call(None if isinstance(value, str) else value)
    try:
        assert len(DatasetExamples(value, Angles())) > 0
    except ValueError as refused:
        assert "got" in str(refused) and "try" in str(refused)


@FEW
@given(name=st.sampled_from(["size", "split", "channels", "crops", "scale", "seed", "test_share", "workers", "flips"]),
       value=anything)  # fmt: skip
def test_options_of_a_folder_are_refused_before_it_is_read(name, value):
    with tempfile.TemporaryDirectory() as folder, pytest.raises(ValueError, match=HELPFUL):
        image_folder(Path(folder), **{name: value})  # an empty folder: refused in any case
