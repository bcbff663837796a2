"""Textures: real photographs, cut into crops of which no pixel is both in training and in test."""

import math

import numpy as np
import pytest
import skimage.data
import torch
from helpers import HELPFUL

from kodm_lite import phase_to_image
from kodm_lite.data import PhaseData, textures
from kodm_lite.recipes import recipe_of

PI = math.pi
NAMES = ["brick", "grass", "gravel"]


def photograph(name: str) -> np.ndarray:
    """The photograph at half size, stretched between its 1st and 99th percentile over the left 192 columns."""
    pixels = np.asarray(getattr(skimage.data, name)(), np.float64)
    small = pixels.reshape(256, 2, 256, 2).mean((1, 3))
    black, white = np.percentile(small[:, :192], [1, 99])
    return np.clip(2 * (small - black) / (white - black) - 1, -1, 1)


def places(crop: np.ndarray, image: np.ndarray) -> list[tuple[int, int]]:
    """Every (row, column) of the image at which the crop is found."""
    size = len(crop)
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size))
    candidates = np.argwhere(np.abs(windows[:, :, 0, 0] - crop[0, 0]) < 1e-4)
    return [(int(i), int(j)) for i, j in candidates if np.abs(windows[i, j] - crop).max() < 1e-4]


@pytest.mark.parametrize(("split", "columns"), [("train", range(192)), ("test", range(192, 256))])
def test_every_crop_lies_in_its_part_of_the_photograph(split, columns):
    data = textures(size=16, split=split, n=60, seed=3, scale=0.9)
    found = []
    for crop, label in zip(phase_to_image(data.theta, 0.9)[:, 0].double().numpy(), data.labels.tolist(), strict=True):
        where = places(crop, photograph(NAMES[label]))
        assert len(where) == 1
        found.append(where[0])
        assert where[0][1] in columns and where[0][1] + 15 in columns
    rows, left = np.array(found).T
    assert rows.min() < 30 and rows.max() > 210, "crops come from everywhere"
    assert left.min() < columns.start + 12 and left.max() + 15 > columns.stop - 12


def test_the_largest_crops_reach_the_edges_of_their_parts():
    for split, size, start in (("train", 192, 0), ("test", 64, 192)):
        crop = phase_to_image(textures(size=size, split=split, n=1, scale=0.9).theta, 0.9)[0, 0].double().numpy()
        image = photograph("brick")[:, start : start + size]
        differences = [np.abs(image[i : i + size] - crop).max() for i in range(256 - size + 1)]
        assert min(differences) < 1e-4


def test_the_same_seed_gives_the_same_crops_and_another_seed_others():
    first = textures(size=8, n=12, seed=5, scale=0.9)
    assert torch.equal(first.theta, textures(size=8, n=12, seed=5, scale=0.9).theta)
    assert not torch.equal(first.theta, textures(size=8, n=12, seed=6, scale=0.9).theta)
    state = torch.get_rng_state()
    textures(size=8, n=12, scale=0.9)
    assert torch.equal(torch.get_rng_state(), state)


def test_changing_the_crops_does_not_change_the_photographs():
    before = textures(size=8, n=3, scale=0.9).theta.clone()
    textures(size=8, n=3, scale=0.9).theta.fill_(0)
    assert torch.equal(textures(size=8, n=3, scale=0.9).theta, before)


def test_crops_are_phases_with_full_contrast():
    data = textures(size=192, n=3, scale=0.9)
    assert data.theta.dtype == torch.float32 and data.theta.shape == (3, 1, 192, 192)
    assert float(data.theta.abs().max()) <= 0.9 * PI + 1e-6
    for theta in data.theta:
        black, white = (float((sign * theta > 0.9 * PI - 1e-5).float().mean()) for sign in (-1, 1))
        assert 0.003 < black < 0.02 and 0.003 < white < 0.02
    assert float(data.theta.std()) > 0.5


def test_classes_take_turns_and_can_be_chosen():
    data = textures(size=8, n=7, scale=0.9)
    assert data.names == tuple(NAMES) and data.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert len(data) == 7 and data.encoding.scale == 0.9 and "scikit-image" in data.source
    assert torch.equal(data.of_class("grass"), data.theta[[1, 4]])
    some = textures(size=8, n=4, names=["gravel", "brick"], scale=0.9)
    assert some.names == ("gravel", "brick") and some.labels.tolist() == [0, 1, 0, 1]
    for k, name in enumerate(("gravel", "brick")):
        assert places(phase_to_image(some.theta, 0.9)[k, 0].double().numpy(), photograph(name))


@pytest.mark.parametrize(
    "arguments",
    [
        {"split": "valid"},
        {"size": 3},
        {"size": 193},
        {"size": 65, "split": "test"},
        {"size": 8.5},
        {"size": "32"},
        {"n": 0},
        {"names": []},
        {"names": ["brick", "wood"]},
        {"names": "brick"},
    ],
    ids=repr,
)
def test_impossible_crops_are_refused_with_a_hint(arguments):
    with pytest.raises(ValueError, match=HELPFUL):
        textures(**arguments)


def test_a_class_that_is_none_is_refused_with_a_hint():
    for data in (textures(size=8, n=3, scale=0.9), PhaseData(torch.zeros(1, 1, 4, 4), None, (), 0.9, "nowhere")):
        with pytest.raises(ValueError, match=HELPFUL):
            data.of_class("wood")


def test_the_scale_does_not_change_the_pictures():
    published, half = textures(16, n=6, scale=0.9), textures(16, n=6, scale=0.5)
    assert half.encoding.scale == 0.5 and float(half.theta.abs().max()) <= 0.5 * math.pi + 1e-6
    assert torch.allclose(phase_to_image(half.theta, 0.5), phase_to_image(published.theta, 0.9), atol=1e-5)
    with pytest.raises(ValueError, match=r"scale: got 1.5, expected .* try"):
        textures(16, n=6, scale=1.5)


def test_no_image_to_measure_on_is_one_that_was_learned_from():
    recipe = recipe_of("textures-32")
    learned = {crop.numpy().tobytes() for crop in recipe.images("train").theta}
    assert len(learned) > 20_000  # some places are drawn twice
    measured = [crop.numpy().tobytes() for crop in recipe.images("test", 1024).theta]
    assert not learned & set(measured)
    plain = [crop.numpy().tobytes() for crop in textures(32, n=1024, seed=99, scale=recipe.scale).theta]
    assert len(learned & set(plain)) > 200  # a quarter of all places were learned from
