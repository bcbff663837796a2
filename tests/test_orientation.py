"""Orientation fields against plane waves, sums over pixels, and functions whose zeros and poles are known."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from helpers import HELPFUL

from kodm_lite import wrap
from kodm_lite.orientation import blur, orientation_field, ridge_frequency, singular_points, winding_numbers


def wave(degrees: float, period: float, size: int = 48) -> torch.Tensor:
    """Lines that run at an angle from the horizontal axis towards the rows below."""
    row, column = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    across = -math.sin(math.radians(degrees)) * column + math.cos(math.radians(degrees)) * row
    return torch.from_numpy(np.cos(2 * np.pi / period * across))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plane(size: int = 21) -> torch.Tensor:
    """Places in the plane as complex numbers, x to the right and y down, none of which is 0."""
    pixel = torch.arange(size, dtype=torch.float64) - size / 2
    return torch.complex(*torch.meshgrid(pixel, pixel, indexing="xy"))


@pytest.mark.parametrize("degrees", [0, 20, 45, 90, 110, 170])
def test_lines_have_the_orientation_they_were_drawn_with(degrees):
    field = orientation_field(wave(degrees, 8))
    inner = (slice(10, -10), slice(10, -10))
    assert wrap(field.doubled[inner] - 2 * math.radians(degrees)).abs().max() < 0.01
    assert field.coherence[inner].min() > 0.99
    assert field.doubled.min() >= -math.pi and field.doubled.max() < math.pi


def test_orientation_is_the_mean_of_squared_gradients():
    image = noise(20, 17)
    down, right = (
        scipy.ndimage.gaussian_filter(image.numpy(), 1.5, order, mode="nearest", truncate=4)
        for order in ((1, 0), (0, 1))
    )
    square = (right + 1j * down) ** 2
    mean, size = (
        scipy.ndimage.gaussian_filter(part, 2.0, mode="nearest", truncate=4) for part in (square, np.abs(square))
    )
    field = orientation_field(image, 1.5, 2.0)
    expected = torch.from_numpy(np.angle(-mean))
    assert wrap(field.doubled - expected).abs().max() < 1e-9
    assert torch.allclose(field.coherence, torch.from_numpy(np.abs(mean) / size), atol=1e-9)


def test_turned_and_mirrored_images_have_turned_and_mirrored_fields():
    image = noise(24, 24, seed=1)
    field, turned = orientation_field(image), orientation_field(image.rot90())
    assert wrap(turned.doubled - (field.doubled.rot90() - math.pi)).abs().max() < 1e-9
    mirrored = orientation_field(image.flip(1))
    assert wrap(mirrored.doubled + field.doubled.flip(1)).abs().max() < 1e-9
    assert torch.allclose(mirrored.coherence, field.coherence.flip(1))


def test_noise_is_incoherent_and_flat_images_have_no_orientation():
    assert orientation_field(noise(64, 64), window_sigma=6.0).coherence.mean() < 0.3
    flat = orientation_field(torch.full((3, 8, 8), 0.7))
    assert not flat.coherence.any() and not flat.doubled.any()
    assert flat.doubled.shape == (3, 8, 8)


def test_contrast_and_brightness_do_not_matter():
    image = noise(16, 16)
    one, other = orientation_field(image), orientation_field(3 - 0.01 * image)
    assert wrap(one.doubled - other.doubled).abs().max() < 1e-6
    assert torch.allclose(one.coherence, other.coherence, atol=1e-6)


@pytest.mark.parametrize(
    ("zeros", "poles"), [([0], []), ([], [0]), ([3 + 2j, -4], [-5j]), ([2, -2 + 4j], [4j, 6 - 5j])]
)
def test_zeros_wind_once_and_poles_once_the_other_way(zeros, poles):
    z = plane()
    doubled = sum(torch.angle(z - c) for c in zeros) - sum(torch.angle(z - d) for d in poles)
    cores, deltas = singular_points(wrap(doubled + 1.0))
    for found, places in ((cores, zeros), (deltas, poles)):
        expected = sorted((complex(c).imag + 10, complex(c).real + 10) for c in places)
        assert len(found) == len(expected)
        assert np.abs(np.array(sorted(found.tolist())) - np.array(expected)).max(initial=0) <= 0.51
    assert int(winding_numbers(wrap(doubled)).sum()) == len(zeros) - len(poles)


def test_winding_numbers_add_up_to_the_turns_along_the_border():
    doubled = wrap(3 * noise(12, 9, seed=2))
    border = [*[(0, j) for j in range(8)], *[(i, 8) for i in range(11)], *[(11, j) for j in range(8, 0, -1)]]
    border += [(i, 0) for i in range(11, 0, -1)]
    values = [float(doubled[i, j]) for i, j in border]
    turns = 0.0
    for now, then in zip(values, values[1:] + values[:1], strict=True):
        turns += math.remainder(then - now, 2 * math.pi)
    assert int(winding_numbers(doubled).sum()) == round(turns / (2 * math.pi))


def test_points_outside_the_mask_do_not_count():
    doubled = torch.angle(plane())
    where = torch.ones(21, 21, dtype=torch.bool)
    assert len(singular_points(doubled, where)[0]) == 1
    where[10, 10] = False
    assert [len(points) for points in singular_points(doubled, where)] == [0, 0]


@pytest.mark.parametrize("degrees", [0, 30, 45, 75])
@pytest.mark.parametrize("period", [7, 9, 12])
def test_the_frequency_of_a_wave(degrees, period):
    for image in (wave(degrees, period), torch.tanh(3 * wave(degrees, period)) + 5):
        frequency = ridge_frequency(image, smoothing=period / 6)
        assert float(frequency[12:-12, 12:-12].median()) == pytest.approx(1 / period, rel=0.02)
    assert not ridge_frequency(torch.ones(16, 16)).any()


def test_blur_is_a_gaussian_mean():
    x = noise(2, 9, 14)
    expected = np.stack([scipy.ndimage.gaussian_filter(one.numpy(), 1.7, mode="nearest", truncate=4) for one in x])
    assert np.abs(blur(x, 1.7).numpy() - expected).max() < 1e-9


@pytest.mark.parametrize(
    "bad",
    [
        lambda: orientation_field(torch.zeros(8, 8, dtype=torch.uint8)),
        lambda: orientation_field(torch.zeros(8)),
        lambda: orientation_field(torch.full((8, 8), math.nan)),
        lambda: orientation_field(torch.zeros(8, 8), window_sigma=0.0),
        lambda: orientation_field(torch.zeros(8, 8), gradient_sigma=math.inf),
        lambda: orientation_field([[0.0]]),
        lambda: ridge_frequency(torch.zeros(2, 2)),
        lambda: winding_numbers(torch.zeros(5)),
        lambda: winding_numbers(torch.full((5, 5), 270.0)),
        lambda: singular_points(torch.zeros(2, 5, 5)),
        lambda: singular_points(torch.zeros(5, 5), torch.ones(5, 5)),
        lambda: singular_points(torch.zeros(5, 5), torch.ones(4, 5, dtype=torch.bool)),
        lambda: orientation_field(torch.zeros(0, 8, 8)),
        lambda: orientation_field(torch.zeros(8, 8), gradient_sigma=0.05),
    ],
)
def test_what_is_no_image_or_no_field_is_refused(bad):
    with pytest.raises(ValueError, match=HELPFUL):
        bad()


def test_an_image_does_not_depend_on_its_batch():
    image = wave(30, 8).float()
    for measure in (lambda x: orientation_field(x).coherence, ridge_frequency):
        assert torch.allclose(measure(torch.stack([1e4 * image, image]))[1], measure(image), atol=1e-6)
