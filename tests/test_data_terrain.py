"""Terrain: the map lies where it says, directions are those of planes and of loops, and splits share no ground."""

import math

import matplotlib.cbook
import numpy as np
import pytest
import torch
from helpers import HELPFUL

import kodm_lite.data.terrain
from kodm_lite.data import aspect, elevation, terrain_aspect
from kodm_lite.data.crops import random_corners
from kodm_lite.encoding import Angles

PI = math.pi
NORTH, WEST, CELL = 36.44625, -84.41375, 1 / 1200  # degrees: the edges of the map and its 3 arc seconds


@pytest.fixture
def fresh():
    """Maps that a test has changed must not be remembered, neither before nor after it."""
    kodm_lite.data.terrain._region.cache_clear()
    yield
    kodm_lite.data.terrain._region.cache_clear()


def difference(a, b) -> np.ndarray:
    """Angles between directions."""
    return np.abs(np.angle(np.exp(1j * (np.asarray(a, np.float64) - np.asarray(b, np.float64)))))


def smoothed(z: np.ndarray, i: int, j: int, dx: float, dy: float) -> float:
    """Mean around a cell, weighted with a Gaussian of 100 m that ends at 4 standard deviations."""
    total = weights = 0.0
    for di in range(-int(400 / dy + 0.5), int(400 / dy + 0.5) + 1):
        for dj in range(-int(400 / dx + 0.5), int(400 / dx + 0.5) + 1):
            weight = math.exp(-((di * dy) ** 2 + (dj * dx) ** 2) / (2 * 100**2))
            row, column = min(max(i + di, 0), len(z) - 1), min(max(j + dj, 0), z.shape[1] - 1)
            total, weights = total + weight * z[row, column], weights + weight
    return total / weights


def haversine(latitude1: float, longitude1: float, latitude2: float, longitude2: float) -> float:
    """Metres along a great circle between two places in degrees."""
    a, b, c, d = (math.radians(x) for x in (latitude1, longitude1, latitude2, longitude2))
    h = math.sin((c - a) / 2) ** 2 + math.cos(a) * math.cos(c) * math.sin((d - b) / 2) ** 2
    return 2 * 6_371_000 * math.asin(math.sqrt(h))


def test_cells_have_the_size_of_great_circles():
    z, dx, dy = elevation()
    assert z.shape == (344, 403) and z.dtype == np.float64 and (z.min(), z.max()) == (236, 1076)
    middle = NORTH - 172 * CELL
    assert abs(dx - haversine(middle, WEST, middle, WEST + CELL)) < 0.001
    assert abs(dy - haversine(middle, WEST, middle + CELL, WEST)) < 0.001


def test_places_are_where_they_are_on_other_maps():
    """The highest cell is Cross Mountain, and towns are as high as they are: north is at the top, west on the left."""
    z, _, _ = elevation()
    row, column = np.unravel_index(z.argmax(), z.shape)
    assert abs(NORTH - (row + 0.5) * CELL - 36.19833) < CELL
    assert abs(WEST + (column + 0.5) * CELL + 84.23056) < CELL
    for latitude, longitude, metres in ((36.22417, -84.15583, 264), (36.375, -84.1275, 327)):  # Rocky Top, LaFollette
        assert abs(z[int((NORTH - latitude) / CELL), int((longitude - WEST) / CELL)] - metres) < 15


@pytest.mark.parametrize("degrees", [0, 30, 90, 135, 179, -30, -90, -150])
def test_the_direction_of_a_plane_is_that_in_which_it_falls(degrees):
    dx, dy, expected = 40.0, 110.0, math.radians(degrees)
    row, column = np.mgrid[:40, :50]
    east, north = column * dx, -row * dy
    z = 500 - 0.2 * (math.cos(expected) * east + math.sin(expected) * north)
    theta = aspect(z, dx, dy)
    assert theta.shape == (40, 50) and theta.dtype == torch.float32
    assert difference(theta[6:-6, 11:-11], expected).max() < 1e-5


def test_the_axes_are_east_and_north():
    slope = np.arange(30.0) * np.ones((30, 1))
    west, north = -PI, PI / 2
    for z, expected in ((slope, west), (slope.T, north), (-slope, 0.0), (-slope.T, -north)):
        np.testing.assert_allclose(aspect(z, 75, 93)[15, 15], expected, atol=1e-6)


def test_a_hill_falls_away_from_its_top():
    row, column = np.mgrid[-40:41, -40:41]
    east, north = 75 * column, -93 * row
    theta = aspect(1000 - 1e-4 * (east**2 + north**2), 75, 93).numpy()
    far = (east**2 + north**2 > 0)[8:-8, 8:-8]
    assert difference(theta, np.arctan2(north, east))[8:-8, 8:-8][far].max() < 1e-5


@pytest.mark.parametrize(("dx", "dy"), [(75.0, 93.0), (120.0, 60.0)])
def test_directions_are_those_of_loops(dx, dy):
    z = np.random.default_rng(0).integers(0, 300, (12, 15)).astype(np.float64)
    theta = aspect(z, dx, dy)
    for i in range(1, 11):
        for j in range(1, 14):
            east = -(smoothed(z, i, j + 1, dx, dy) - smoothed(z, i, j - 1, dx, dy)) / (2 * dx)
            north = -(smoothed(z, i - 1, j, dx, dy) - smoothed(z, i + 1, j, dx, dy)) / (2 * dy)
            assert difference(float(theta[i, j]), math.atan2(north, east)) < 1e-5


def test_flat_ground_has_direction_zero_and_no_angle_leaves_the_range():
    assert torch.equal(aspect(np.full((9, 9), 300, np.int16), 75, 93), torch.zeros(9, 9))
    rising_to_the_east = np.arange(9) * np.ones((9, 1), np.int16)
    for z in (rising_to_the_east, elevation()[0]):
        theta = aspect(z, 75, 93)
        assert bool((theta >= -PI).all()) and bool((theta < PI).all())


def test_an_elevation_is_not_changed():
    z, dx, dy = elevation()
    before = z.copy()
    aspect(z, dx, dy)
    np.testing.assert_array_equal(z, before)


def whole_map() -> np.ndarray:
    z, dx, dy = elevation()
    return aspect(z, dx, dy).numpy()


def places(crop: np.ndarray, image: np.ndarray) -> list[tuple[int, int]]:
    """Every (row, column) of the map at which the crop is found."""
    windows = np.lib.stride_tricks.sliding_window_view(image, crop.shape)
    candidates = np.argwhere(np.abs(windows[:, :, 0, 0] - crop[0, 0]) < 1e-5)
    return [(int(i), int(j)) for i, j in candidates if difference(windows[i, j], crop).max() < 1e-5]


@pytest.mark.parametrize(("split", "columns"), [("train", range(6, 285)), ("test", range(297, 397))])
def test_every_crop_is_a_window_of_its_part_of_the_map(split, columns):
    """Also directions near the edge of a part are those of the whole map, so that no edge is seen."""
    data = terrain_aspect(size=16, split=split, n=80, seed=3)
    found = [places(crop, whole_map()) for crop in data.theta[:, 0].numpy()]
    assert all(len(where) == 1 for where in found)
    rows, left = np.array([where[0] for where in found]).T
    assert rows.min() >= 6 and rows.max() + 15 < 338 and rows.min() < 30 and rows.max() > 300
    assert left.min() in columns and left.max() + 15 in columns
    assert left.min() < columns.start + 12 and left.max() + 15 > columns.stop - 13


@pytest.mark.parametrize(("split", "size", "left"), [("train", 279, 6), ("test", 100, 297)])
def test_the_largest_crops_reach_the_edges_of_their_parts(split, size, left):
    crop = terrain_aspect(size=size, split=split, n=1).theta[0, 0].numpy()
    image = whole_map()[:, left : left + size]
    assert min(difference(image[i : i + size], crop).max() for i in range(6, 339 - size)) < 1e-5


def test_crops_come_from_every_place_of_their_part(monkeypatch):
    monkeypatch.setattr(kodm_lite.data.terrain, "_region", lambda split: torch.arange(48.0).reshape(8, 6))
    corners = terrain_aspect(size=5, n=200).theta[:, 0, 0, 0].unique().tolist()
    assert corners == [6 * row + column for row in range(4) for column in range(2)]


@pytest.mark.parametrize("side", ["west", "east"])
def test_no_elevation_has_an_influence_on_both_splits(monkeypatch, fresh, side):
    z, dx, dy = elevation()
    before = {split: terrain_aspect(size=100, split=split, n=30).theta for split in ("train", "test")}
    changed = z.copy()
    part = changed[:, :291] if side == "west" else changed[:, 291:]
    part += np.random.default_rng(1).normal(0, 100, part.shape)
    monkeypatch.setattr(kodm_lite.data.terrain, "elevation", lambda: (changed, dx, dy))
    kodm_lite.data.terrain._region.cache_clear()
    same = {split: torch.equal(terrain_aspect(size=100, split=split, n=30).theta, before[split]) for split in before}
    assert same == {"train": side == "east", "test": side == "west"}


def test_directions_are_angles_on_the_whole_circle():
    data = terrain_aspect(n=200)
    assert data.theta.shape == (200, 1, 32, 32) and data.theta.dtype == torch.float32 and len(data) == 200
    assert data.encoding == Angles() and data.labels is None and data.names == ()
    assert "matplotlib" in data.source and data.licence == "public domain"
    shares = np.histogram(data.theta.numpy(), 12, (-PI, PI))[0] / data.theta.numel()
    assert shares.min() > 0.04 and shares.sum() == 1


def test_the_same_seed_gives_the_same_crops_and_another_seed_others():
    state = torch.get_rng_state()
    first = terrain_aspect(size=8, n=12, seed=5).theta
    assert torch.equal(first, terrain_aspect(size=8, n=12, seed=5).theta)
    assert not torch.equal(first, terrain_aspect(size=8, n=12, seed=6).theta)
    assert torch.equal(torch.get_rng_state(), state)
    expected = first.clone()
    first.fill_(0)
    assert torch.equal(terrain_aspect(size=8, n=12, seed=5).theta, expected)


def test_a_matplotlib_without_its_sample_data_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(matplotlib.cbook, "get_sample_data", lambda name, asfileobj: str(tmp_path / name))
    with pytest.raises(ValueError, match=HELPFUL):
        elevation()


MAP = np.ones((8, 8))


@pytest.mark.parametrize(
    "refused",
    [
        lambda: terrain_aspect(split="all"),
        lambda: terrain_aspect(size=3),
        lambda: terrain_aspect(size=280),
        lambda: terrain_aspect(size=101, split="test"),
        lambda: terrain_aspect(size=8.0),
        lambda: terrain_aspect(n=0),
        lambda: aspect(MAP[0], 75, 93),
        lambda: aspect(MAP[:1], 75, 93),
        lambda: aspect(MAP * math.nan, 75, 93),
        lambda: aspect(MAP, 0, 93),
        lambda: aspect(MAP, 75, -93),
        lambda: aspect(MAP, math.nan, 93),
    ],
)
def test_impossible_maps_and_crops_are_refused_with_a_hint(refused):
    with pytest.raises(ValueError, match=HELPFUL):
        refused()


def test_crops_without_others_share_no_place_with_them():
    train = {crop.numpy().tobytes() for crop in terrain_aspect(32, n=32768, seed=1).theta}
    plain, other = (terrain_aspect(32, n=64, seed=2, without=x) for x in (None, (32768, 1)))
    assert any(crop.numpy().tobytes() in train for crop in plain.theta), "otherwise the test says nothing"
    assert not any(crop.numpy().tobytes() in train for crop in other.theta) and len(other) == 64
    with pytest.raises(ValueError, match=r"without: got 4 corners, expected fewer than all 4"):
        random_corners((5, 5), 4, 1, 0, "train", without=[(0, 0), (0, 1), (1, 0), (1, 1)])
