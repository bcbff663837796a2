"""Digits: which images are in which split, and that pixels and labels are those of scikit-learn."""

import hashlib
import math
import subprocess
import sys

import numpy as np
import pytest
import sklearn.datasets
import torch
from helpers import HELPFUL
from PIL import Image

from kodm_lite import phase_to_image
from kodm_lite.data import digits
from kodm_lite.encoding import GreyLevels

PI = math.pi
LOADED = sklearn.datasets.load_digits()


def in_test(image: np.ndarray) -> bool:
    """The definition: the first 8 bytes of the hash of the 64 pixels, as a number, in the lowest sixth."""
    digest = hashlib.sha256(bytes(int(value) for row in image for value in row)).digest()
    return sum(digit * 256**-k for k, digit in enumerate(digest[:8], start=1)) < 1 / 6


def dots(data) -> np.ndarray:
    """Images in the numbers of dots, 0 to 16."""
    return 8 * (phase_to_image(data.theta, data.encoding.scale)[:, 0].double().numpy() + 1)


def test_both_splits_together_are_the_images_of_scikit_learn():
    expected = np.array([in_test(image) for image in LOADED.images])
    for split, chosen, n in (("test", expected, 282), ("train", ~expected, 1515)):
        data = digits(split)
        assert data.theta.shape == (n, 1, 8, 8) and data.theta.dtype == torch.float32 and len(data) == chosen.sum()
        np.testing.assert_allclose(dots(data), LOADED.images[chosen], atol=1e-5)
        assert data.labels.dtype == torch.int64 and data.labels.tolist() == LOADED.target[chosen].tolist()
        assert data.names == tuple(str(k) for k in range(10)) and data.encoding == GreyLevels(0.5)
        assert data.licence == "CC BY 4.0" and "scikit-learn" in data.source
        assert min(data.labels.bincount().tolist()) >= 15


def test_ink_and_paper_are_the_ends_of_the_range():
    for size in (8, 16):
        theta = digits(size=size).theta
        assert abs(float(theta.max()) - 0.5 * PI) < 1e-6 and abs(float(theta.min()) + 0.5 * PI) < 1e-6
        assert abs(float(digits(size=size, scale=0.9).theta.max()) - 0.9 * PI) < 1e-6
    assert float(digits().theta[:, 0, 0, 0].mean()) < -0.49 * PI, "corners are paper"


def test_the_scale_does_not_change_the_images():
    wide = digits("test", scale=0.9)
    assert wide.encoding == GreyLevels(0.9)
    np.testing.assert_allclose(dots(wide), dots(digits("test")), atol=1e-5)


def test_images_of_one_digit_resemble_each_other():
    train, test = digits("train"), digits("test")
    means = np.stack([dots(train)[train.labels == k].mean(0) for k in range(10)])
    nearest = [int(((image - means) ** 2).sum((1, 2)).argmin()) for image in dots(test)]
    assert np.mean(np.array(nearest) == test.labels.numpy()) > 0.85


def test_enlarged_images_are_those_of_pillow():
    small, large = digits("test"), digits("test", size=16)
    assert large.theta.shape == (282, 1, 16, 16) and torch.equal(large.labels, small.labels)
    for found, image in zip(dots(large), dots(small).astype(np.float32), strict=True):
        expected = np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_equal_images_are_never_in_both_splits(monkeypatch):
    twice = sklearn.utils.Bunch(images=np.tile(LOADED.images[:200], (2, 1, 1)), target=np.tile(LOADED.target[:200], 2))
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: twice)
    train, test = ({image.tobytes() for image in digits(split).theta.numpy()} for split in ("train", "test"))
    assert not train & test and len(train) + len(test) == 200
    assert len(digits("train")) == 2 * len(train)


def test_two_calls_agree_and_share_nothing():
    first = digits("test")
    before = first.theta.clone()
    first.theta.fill_(0)
    assert torch.equal(digits("test").theta, before)


def test_without_scikit_learn_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=HELPFUL) as refused:
        digits()
    assert "pip install scikit-learn" in str(refused.value)


def test_scikit_learn_is_loaded_when_it_is_needed():
    program = "import sys, kodm_lite.data; print('sklearn' in sys.modules)"
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert seen.strip() == "False"


@pytest.mark.parametrize(
    "arguments",
    [{"split": "all"}, {"split": 16}, {"size": 32}, {"size": "8"}, {"scale": 0.0}, {"scale": 1.5}],
    ids=repr,
)
def test_impossible_digits_are_refused_with_a_hint(arguments):
    with pytest.raises(ValueError, match=HELPFUL):
        digits(**arguments)
