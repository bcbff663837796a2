"""No pixel of a test image is a pixel of a training image: measured, not read off the code."""

import sys

import numpy as np
import pytest
import torch

import kodm_lite.data.terrain
from kodm_lite.data import digits, fingerprints, terrain_aspect, textures

SPLITS = ("train", "test")


def test_textures_share_no_pixel(monkeypatch):
    """Each pixel of the photographs is replaced by its own number."""
    numbers = torch.linspace(-1, 1, 3 * 256 * 256, dtype=torch.float64).reshape(3, 256, 256)
    numbers = dict(zip(("brick", "grass", "gravel"), numbers, strict=True))
    monkeypatch.setattr(sys.modules["kodm_lite.data.textures"], "_photograph", numbers.__getitem__)
    seen = {split: textures(32, split, n=3000, seed=1).theta for split in SPLITS}
    train, test = (set(seen[split].flatten().tolist()) for split in SPLITS)
    assert not train & test and len(train) > 0.9 * 3 * 256 * 192 and len(test) > 0.9 * 3 * 256 * 64


def test_terrain_shares_no_cell(monkeypatch):
    """Each cell of the map is replaced by its own number; that of the ground itself is in test_data_terrain."""
    numbers = torch.arange(344.0 * 403).reshape(344, 403).numpy()
    monkeypatch.setattr(kodm_lite.data.terrain, "elevation", lambda: (numbers, 1.0, 1.0))
    monkeypatch.setattr(kodm_lite.data.terrain, "aspect", lambda part, dx, dy: torch.from_numpy(part))
    kodm_lite.data.terrain._region.cache_clear()
    try:
        train, test = (set(terrain_aspect(32, split, n=3000, seed=1).theta.flatten().tolist()) for split in SPLITS)
    finally:
        kodm_lite.data.terrain._region.cache_clear()
    assert not train & test and len(train) > 0.9 * 332 * 279 and len(test) > 0.9 * 332 * 100
    assert min(test) % 403 - max(x % 403 for x in train) >= 12, "and each sees 6 cells beyond itself"


@pytest.mark.parametrize("seed", [0, 3])
def test_prints_share_no_finger(seed):
    theta = [fingerprints(16, split, 24, seed=seed, period=4.0, progress=False).theta for split in SPLITS]
    train, test = ({image.numpy().tobytes() for image in part} for part in theta)
    assert len(train) == len(test) == 24 and not train & test


def test_digits_share_no_image():
    train, test = ({image.numpy().tobytes() for image in digits(split).theta} for split in SPLITS)
    assert not train & test and np.isclose(len(test) / len(train), 282 / 1515, rtol=0.05)
