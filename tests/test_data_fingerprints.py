"""Made fingerprints: what was prescribed is found again by measurement."""

import math

import numpy as np
import pytest
import torch
from helpers import HELPFUL

from kodm_lite import wrap
from kodm_lite.data import fingerprints
from kodm_lite.data.fingerprints import FINGERPRINTS, draw_fingers
from kodm_lite.data.ridges import grow_ridges, oriented_filter
from kodm_lite.encoding import Angles, GreyLevels
from kodm_lite.orientation import orientation_field, ridge_frequency, singular_points

POINTS = [0, 1, 1, 2]  # cores, and as many deltas, of each class


@pytest.fixture(scope="module")
def fingers():
    return draw_fingers(64, n=48)


def away_from_the_edge(inside: torch.Tensor, pixels: int) -> torch.Tensor:
    near = torch.nn.functional.max_pool2d((~inside).float()[:, None], 2 * pixels + 1, 1, pixels)[:, 0]
    return near == 0


def test_ridges_run_as_prescribed(fingers):
    measured = orientation_field(fingers.image[:, 0])
    degrees = torch.rad2deg(wrap(measured.doubled - fingers.doubled).abs() / 2)
    inner = away_from_the_edge(fingers.inside, 3)
    assert degrees[inner].median() < 5
    by_print = torch.stack([one[where].median() for one, where in zip(degrees, inner, strict=True)])
    assert by_print.max() < 12, "no print is all wrong"
    assert measured.coherence[inner].median() > 0.9


@pytest.mark.parametrize(("size", "period"), [(64, 9.0), (96, 9.0), (64, 6.0)])
def test_ridges_are_a_period_apart(size, period):
    fingers = draw_fingers(size, n=24, period=period)
    inner = away_from_the_edge(fingers.inside, round(period))
    frequency = ridge_frequency(fingers.image[:, 0], smoothing=period / 6, window_sigma=0.6 * period)
    assert float(frequency[inner].median()) * period == pytest.approx(1, abs=0.1)


def test_every_class_has_its_cores_and_deltas(fingers):
    for doubled, label, cores, deltas in zip(
        fingers.doubled, fingers.labels.tolist(), fingers.cores, fingers.deltas, strict=True
    ):
        for found, places in zip(singular_points(doubled), (cores, deltas), strict=True):
            expected = places[~places.isnan().any(1)]
            assert len(found) == len(expected) == POINTS[label]
            if len(expected):
                assert torch.cdist(expected, found).min(1).values.max() < 1


def test_cores_can_be_measured_in_the_image():
    """Not only in the prescribed field: in whorls that are printed large, ridges turn once around the pair of cores."""
    fingers = draw_fingers(128, n=12)
    measured = orientation_field(fingers.image[:, 0], window_sigma=4.0)
    for k in range(3, 12, 4):
        middle = fingers.cores[k].mean(0)
        radius = 26
        angles = torch.arange(0, 2 * math.pi, 0.05)
        rows, columns = (
            (middle[axis] + radius * f(angles)).round().long().clamp(0, 127)
            for axis, f in enumerate((torch.sin, torch.cos))
        )
        along = measured.doubled[k][rows, columns]
        turns = wrap(along.roll(-1) - along).sum() / (2 * math.pi)
        assert round(float(turns)) == 2


def test_loops_are_mirror_images_of_each_other_on_average(fingers):
    left, right = (torch.polar(torch.ones(()), fingers.doubled[fingers.labels == k]).mean(0) for k in (1, 2))
    agreement = (left.conj() * right.conj().flip(1)).sum() / (left.abs() * right.abs()).sum()
    assert agreement.conj().real > 0.95
    assert ((left.conj() * right).sum() / (left.abs() * right.abs()).sum()).real < 0.9


def test_coherence_is_low_at_singular_points_only(fingers):
    at = [
        float(coherence[tuple(place.round().long().clamp(0, 63).tolist())])
        for coherence, places in zip(fingers.coherence, torch.cat([fingers.cores, fingers.deltas], 1), strict=True)
        for place in places[~places.isnan().any(1)]
    ]
    assert np.median(at) < 0.5 < 0.9 < float(fingers.coherence.median())
    assert 0 <= fingers.coherence.min() and fingers.coherence.max() <= 1 + 1e-6


def test_what_did_not_touch_is_white(fingers):
    outside = away_from_the_edge(~fingers.inside, 2)
    assert fingers.image[:, 0][outside].min() > 0.9
    assert 0.4 < fingers.inside.float().mean() < 0.75
    ridges = fingers.image[:, 0][fingers.inside]
    assert 0.35 < (ridges < 0).float().mean() < 0.6
    assert fingers.image.abs().max() <= 1


def test_a_finger_is_the_same_in_every_set_and_no_finger_is_in_both_splits():
    few, many = fingerprints(32, n=6, period=5, scale=0.9), fingerprints(32, n=70, period=5, scale=0.9)
    assert torch.allclose(few.theta, many.theta[:6], atol=1e-5)
    assert few.labels.tolist() == [0, 1, 2, 3, 0, 1]
    test = fingerprints(32, "test", n=40, period=5, scale=0.9)
    together = torch.cat([many.theta, test.theta]).flatten(1)
    distances = torch.cdist(together, together).fill_diagonal_(math.inf)
    assert distances.min() > 1
    assert not torch.equal(few.theta, fingerprints(32, n=6, period=5, seed=1, scale=0.9).theta)
    state = torch.get_rng_state()
    fingerprints(16, n=1, period=4, scale=0.9)
    assert torch.equal(state, torch.get_rng_state())


def test_about_a_tenth_of_the_fingers_is_for_tests():
    from kodm_lite.data.fingerprints import _fingers_of

    train, test = _fingers_of(0, "train", 0), _fingers_of(0, "test", 0)
    both = {next(train) for _ in range(900)} | {next(test) for _ in range(100)}
    assert len(both) == 1000


def test_orientations_as_data(fingers):
    data = fingerprints(64, n=48, kind="orientation")
    assert torch.equal(data.theta[:, 0], fingers.doubled)
    assert data.encoding == Angles() and data.names == FINGERPRINTS
    assert torch.equal(data.labels, fingers.labels)
    half = fingerprints(64, n=4, scale=0.5)
    assert torch.allclose(half.theta, fingers.image[:4] * 0.5 * math.pi, atol=1e-5) and half.encoding == GreyLevels(0.5)
    images = fingerprints(64, n=4, scale=0.9)
    assert torch.allclose(images.theta, fingers.image[:4] * 0.9 * math.pi, atol=1e-5)


def test_pores_are_white_dots_on_ridges_and_noise_is_noise():
    plain, pores, noisy = (draw_fingers(64, n=4, **more) for more in ({}, {"pores": True}, {"noise": 0.2}))
    brighter = (pores.image - plain.image)[:, 0]
    dots = brighter > 0.3
    assert brighter.min() > -1e-6 and 0.002 < dots[plain.inside].float().mean() < 0.05
    assert (plain.image[:, 0][dots] < 0).float().mean() > 0.9, "on ridges"
    difference = (noisy.image - plain.image)[:, 0][plain.image[:, 0].abs() < 0.4]
    assert float(difference.std()) == pytest.approx(0.2, rel=0.1)


def constant_filter(x: np.ndarray, degrees: float, period: float) -> np.ndarray:
    """The wave packet of one orientation for all pixels, by its transfer function."""
    down, right = np.meshgrid(np.fft.fftfreq(x.shape[0]), np.fft.fftfreq(x.shape[1]), indexing="ij")
    frequency, direction = np.hypot(down, right), np.arctan2(down, right)
    band = np.exp(-((frequency * period - 1) ** 2) / (2 * 0.4**2)) * (frequency > 0)
    window = np.exp(6.0 * (np.cos(2 * (direction - math.radians(degrees + 90))) - 1))
    return np.fft.ifft2(np.fft.fft2(x) * band * window).real


def test_the_filter_is_at_each_pixel_the_one_of_its_orientation():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 18, 20, generator=generator, dtype=torch.float64)
    degrees = torch.tensor([[0, 30], [75, 140]]).repeat_interleave(9, 0).repeat_interleave(10, 1)
    response = oriented_filter(x, 2 * torch.deg2rad(degrees.double())[None], 6.0)
    for angle in (0, 30, 75, 140):
        expected = constant_filter(x[0].numpy(), angle, 6.0)
        where = (degrees == angle).numpy()
        assert np.abs(response[0].numpy() - expected)[where].max() < 2e-3 * np.abs(expected).max()


def test_ridges_grow_straight_in_a_straight_field():
    noise = torch.randn(2, 48, 48, generator=torch.Generator().manual_seed(1))
    ridges = grow_ridges(noise, torch.full_like(noise, 2 * math.radians(60)), 8.0)
    field = orientation_field(ridges)
    assert torch.rad2deg(wrap(field.doubled - 2 * math.radians(60)).abs() / 2).median() < 4
    assert 0.7 < ridges.abs().mean() and ridges.abs().max() < 1
    assert float(ridge_frequency(ridges, 8 / 6).median()) == pytest.approx(1 / 8, rel=0.06)


@pytest.mark.parametrize(
    "bad",
    [
        {"size": 8},
        {"size": 32.0},
        {"split": "all"},
        {"n": 0},
        {"period": 2.0},
        {"period": 40.0},
        {"period": math.nan},
        {"noise": -0.1},
        {"noise": math.nan},
        {"kind": "minutiae"},
    ],
)
def test_bad_options_end_in_a_helpful_message(bad):
    with pytest.raises(ValueError, match=HELPFUL):
        fingerprints(**bad)


def test_the_filter_refuses_other_shapes():
    with pytest.raises(ValueError, match=HELPFUL):
        grow_ridges(torch.zeros(2, 8, 8), torch.zeros(1, 8, 8), 9.0)
    with pytest.raises(ValueError, match=HELPFUL):
        oriented_filter(torch.zeros(1, 8, 8), torch.zeros(1, 8, 8), 2.0)
