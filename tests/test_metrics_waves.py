"""Spectra, peaks, orientations and order parameters of images that are known, and how they move."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import scipy.stats
import torch
from helpers import HELPFUL

import kodm_lite.metrics
from kodm_lite.data import textures
from kodm_lite.metrics import (
    circular_wasserstein,
    kuiper_distance,
    order_statistics,
    peak_frequencies,
    radial_spectrum,
    wasserstein_distance,
)
from kodm_lite.metrics.angles import directions, of_angles, of_weights, orientations
from kodm_lite.metrics.spectrum import between_spectra, spectra
from kodm_lite.orientation import orientation_field

PI = math.pi


class OrientationDistance(NamedTuple):
    circular_wasserstein: float
    kuiper: float
    coherence: float


class OrderDistance(NamedTuple):
    modulus: float
    direction: float


def spectrum_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return between_spectra(spectra(a), spectra(b))


def orientation_distance(a: torch.Tensor, b: torch.Tensor) -> OrientationDistance:
    """The numbers of an evaluation."""
    a, b = orientations(a), orientations(b)
    angles = [of_angles(distance, a, b) for distance in (circular_wasserstein, kuiper_distance)]
    return OrientationDistance(*angles, of_weights(wasserstein_distance, a, b))


def order_distance(a: torch.Tensor, b: torch.Tensor) -> OrderDistance:
    a, b = directions(a), directions(b)
    return OrderDistance(of_weights(wasserstein_distance, a, b), of_angles(circular_wasserstein, a, b))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def wave(frequency: float, degrees: float = 0.0, phase: float = 0.0, rows: int = 48, columns: int = 48):
    """A plane wave (1, 1, H, W); degrees from the horizontal axis towards the rows below."""
    down, right = torch.meshgrid(torch.arange(rows).double(), torch.arange(columns).double(), indexing="ij")
    along = right * math.cos(math.radians(degrees)) + down * math.sin(math.radians(degrees))
    return torch.cos(2 * PI * frequency * along + phase)[None, None]


def spectrum_by_definition(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums over all pixels for each wave vector of the grid that is twice as fine."""
    rows, columns = image.shape
    window = np.outer(*(np.sin(PI * (np.arange(n) + 0.5) / n) ** 2 for n in image.shape))
    windowed = (image - np.average(image, weights=window)) * window
    step = 1 / (2 * min(image.shape))
    power = np.zeros(int(math.hypot(0.5, 0.5) / step) + 3)
    for k in range(2 * rows):
        for l in range(2 * columns):
            p, q = (k / (2 * rows) + 0.5) % 1 - 0.5, (l / (2 * columns) + 0.5) % 1 - 0.5
            plane = np.exp(-2j * PI * (p * np.arange(rows)[:, None] + q * np.arange(columns)))
            share = abs((windowed * plane).sum()) ** 2 / (4 * rows * columns * (window**2).sum())
            place = math.hypot(p, q) / step
            power[int(place)] += share * (1 - place % 1)
            power[int(place) + 1] += share * (place % 1)
    return step * np.arange(len(power)), power


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("shape", [(8, 8), (7, 10)])
def test_spectra_are_those_of_the_definition(shape, complex_, monkeypatch):
    monkeypatch.setattr(kodm_lite.metrics.spectrum, "_CHUNK", 100)
    images = noise(3, 2, *shape) + 0.7
    if complex_:
        images = torch.polar(torch.ones_like(images), images)
    wave_number, power = radial_spectrum(images)
    assert power.shape == (3, 2, len(wave_number)) and power.dtype == wave_number.dtype == torch.float64
    for image, found in zip(images.reshape(-1, *shape), power.reshape(6, -1), strict=True):
        expected_number, expected = spectrum_by_definition(image.numpy())
        np.testing.assert_allclose(wave_number, expected_number[: len(wave_number)], atol=1e-12)
        np.testing.assert_allclose(found, expected[: len(found)], atol=1e-10)
        assert expected[len(found) :].sum() < 1e-12


@pytest.mark.parametrize("shape", [(32, 32), (20, 45)])
def test_the_power_of_all_rings_is_the_variance(shape):
    images = noise(500, *shape) * 1.5 + 4
    _, power = radial_spectrum(images)
    assert abs(float(power.sum(1).mean()) / 1.5**2 - 1) < 0.02
    brighter, doubled = radial_spectrum(images + 3)[1], radial_spectrum(2 * images)[1]
    torch.testing.assert_close(brighter, power, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(doubled, 4 * power)


@pytest.mark.parametrize("degrees", [0, 30, 90, 135])
@pytest.mark.parametrize("frequency", [0.1, 0.213, 0.4])
def test_a_wave_has_its_power_and_its_peak_at_its_wave_number(frequency, degrees):
    for phase in (0.0, 1.0, 2.5):
        image = wave(frequency, degrees, phase)
        wave_number, power = radial_spectrum(image[0, 0])
        near = (wave_number - frequency).abs() <= 2.5 / 48
        assert float(power[near].sum() / power.sum()) > 0.995
        assert abs(float((wave_number * power).sum() / power.sum()) - frequency) < 0.1 / 48
        assert abs(float(peak_frequencies(image)) - frequency) < 0.12 / 48


def test_peaks_are_those_of_each_image_and_flat_images_have_none():
    images = torch.cat([wave(f, 20) + 3 for f in (0.3, 0.1, 0.2)] + [torch.full((1, 1, 48, 48), 2.3)])
    for dtype in (torch.float32, torch.float64):
        found = peak_frequencies(images.to(dtype))
        np.testing.assert_allclose(found, [0.3, 0.1, 0.2, 0], atol=0.003)
        assert float(found[3]) == 0
    colours = torch.cat([wave(0.1), 3 * wave(0.3)], 1)
    assert abs(float(peak_frequencies(colours)) - 0.3) < 0.003


def test_angles_that_turn_have_a_spectrum_without_seam():
    """Phases that grow evenly jump by a turn at the seam; as unit arrows they are one wave."""
    theta = 2 * PI * 0.15 * torch.arange(64.0).expand(64, 64)
    wrapped = torch.remainder(theta + PI, 2 * PI) - PI
    assert abs(float(peak_frequencies(torch.polar(torch.ones_like(wrapped), wrapped)[None, None])) - 0.15) < 0.002
    wave_number, power = radial_spectrum(torch.polar(torch.ones_like(wrapped), wrapped))
    assert float(power[(wave_number - 0.15).abs() < 0.05].sum() / power.sum()) > 0.995


def test_distance_of_spectra():
    a, b = wave(0.12), wave(0.3, 50)
    assert abs(spectrum_distance(a, b) - 0.18) < 0.002
    half = torch.cat([wave(0.12), wave(0.3)])
    assert abs(spectrum_distance(half, a) - 0.09) < 0.002, "half of the power is moved"
    weighted = torch.cat([wave(0.12), 3 * wave(0.3)])
    assert abs(spectrum_distance(weighted, a) - 0.9 * 0.18) < 0.002, "power, not amplitude"
    assert spectrum_distance(5 * a + 1, a) < 1e-9
    spectra = [radial_spectrum(x) for x in (noise(5, 1, 12, 12), noise(4, 1, 18, 18, seed=1).cumsum(3))]
    numbers, powers = [s.wave_number for s in spectra], [s.power.mean((0, 1)) for s in spectra]
    found = spectrum_distance(noise(5, 1, 12, 12), noise(4, 1, 18, 18, seed=1).cumsum(3))
    assert abs(found - scipy.stats.wasserstein_distance(*numbers, *powers)) < 1e-12


def defects() -> dict[str, torch.Tensor]:
    other = textures(n=300, seed=1, scale=0.9)
    return {
        "none": other.theta,
        "blur": torch.nn.functional.avg_pool2d(other.theta, 3, 1, 1),
        "noise": other.theta + 0.5 * noise(*other.theta.shape).float(),
        "no brick": torch.cat([other.of_class("grass"), other.of_class("gravel")]),
        "turned": other.theta.mT,
    }


def test_spectra_see_blur_noise_and_a_missing_class_and_nothing_in_turned_images():
    real = textures(n=300, scale=0.9).theta
    found = {name: spectrum_distance(theta, real) for name, theta in defects().items()}
    assert found["none"] < 0.003 and abs(found["turned"] - found["none"]) < 1e-9
    assert min(found["blur"], found["noise"]) > 10 * found["none"]
    assert found["no brick"] > 2 * found["none"]
    signs = {}
    for name in ("blur", "noise"):
        (numbers, power), (_, of_real) = radial_spectrum(defects()[name]), radial_spectrum(real)
        signs[name] = [float((numbers * p.sum((0, 1))).sum() / p.sum()) for p in (power, of_real)]
    assert signs["blur"][0] < signs["blur"][1] and signs["noise"][0] > signs["noise"][1]


def test_orientations_of_turned_lines():
    a = wave(0.1, 20)
    for turn in (10, 40, 90, 130):
        found = orientation_distance(wave(0.1, 20 + turn), a)
        expected = 2 * math.radians(min(turn, 180 - turn))
        assert abs(found.circular_wasserstein - expected) < 0.1 and found.kuiper > 0.9 and found.coherence < 0.02
    mixed = orientation_distance(torch.cat([wave(0.1, 20), wave(0.1, 80)]), a)
    assert abs(mixed.circular_wasserstein - math.radians(60)) < 0.05 and abs(mixed.kuiper - 0.5) < 0.05
    assert orientation_distance(-2 * a, a) == pytest.approx((0, 0, 0), abs=1e-6)


def test_orientations_are_weighted_by_coherence():
    a, b = (noise(n, 1, 20, 20, seed=n) + n * wave(0.1, 9 * n, rows=20, columns=20) / 2 for n in (4, 6))
    fields = [orientation_field(x) for x in (a, b)]
    angles, weights = ([f[k][..., ::2, ::2].flatten().numpy() for f in fields] for k in (0, 1))
    found = orientation_distance(a, b)
    assert found.coherence == pytest.approx(scipy.stats.wasserstein_distance(*weights), abs=1e-9)
    ends = np.sort(np.concatenate(angles))
    shares = [np.array([w[x <= end].sum() / w.sum() for end in ends]) for x, w in zip(angles, weights, strict=True)]
    excess = shares[0] - shares[1]
    assert found.kuiper == pytest.approx(max(excess.max(), 0) + max(-excess.min(), 0), abs=1e-9)
    lengths = np.append(np.diff(ends), 2 * PI - (ends[-1] - ends[0]))
    flows = [(np.abs(excess - c) * lengths).sum() for c in np.linspace(-1, 1, 4001)]
    assert found.circular_wasserstein == pytest.approx(min(flows), abs=2 * PI / 4000)


def test_orientation_distances_see_a_missing_class_turned_images_and_noise():
    real = textures(n=300, scale=0.9).theta
    found = {name: orientation_distance(theta, real) for name, theta in defects().items()}
    floor = found["none"]
    assert floor.circular_wasserstein < 0.06 and floor.kuiper < 0.05 and floor.coherence < 0.02
    for name in ("turned", "no brick"):
        assert found[name].circular_wasserstein > 2 * floor.circular_wasserstein
        assert found[name].kuiper > 2 * floor.kuiper
    strong = real + 2 * noise(*real.shape, seed=2).float()
    assert orientation_distance(strong, real).coherence > 3 * floor.coherence


def test_order_statistics_are_mean_arrows():
    theta = noise(5, 2, 6, 7)
    arrows = np.exp(1j * theta.numpy()).mean((1, 2, 3))
    found = order_statistics(theta)
    np.testing.assert_allclose(found.modulus, np.abs(arrows), atol=1e-12)
    np.testing.assert_allclose(found.direction, np.angle(arrows), atol=1e-12)
    assert order_statistics(theta.float()).modulus.dtype == torch.float64
    opposite = order_statistics(torch.full((1, 1, 2, 2), PI, dtype=torch.float64))
    assert float(opposite.modulus) == 1 and float(opposite.direction) == -PI


def test_order_distance_of_known_sets():
    theta = noise(40, 1, 6, 6)
    turned = order_distance(theta + 1.1, theta)
    assert turned.modulus < 1e-9 and turned.direction > 0.3
    a, b = noise(30, 1, 6, 6), 1.5 * noise(30, 1, 6, 6, seed=1) + 0.4
    arrows = [np.exp(1j * x.numpy()).mean((1, 2, 3)) for x in (a, b)]
    found = order_distance(a, b)
    assert found.modulus == pytest.approx(scipy.stats.wasserstein_distance(*(np.abs(z) for z in arrows)), abs=1e-12)
    arrows = [z[order_statistics(x).direction.isfinite()] for x, z in zip((a, b), arrows, strict=True)]
    angles, weights = ([torch.tensor(f(z)) for z in arrows] for f in (np.angle, np.abs))
    assert found.direction == pytest.approx(circular_wasserstein(*angles, 2 * PI, *weights), abs=1e-12)


def test_order_moves_with_blur_and_noise_and_has_a_small_floor():
    real, images = textures(n=300, scale=0.9).theta, defects()
    moduli = {name: float(order_statistics(theta).modulus.mean()) for name, theta in images.items()}
    assert moduli["noise"] < moduli["none"] < moduli["blur"]
    found = {name: order_distance(theta, real) for name, theta in images.items()}
    assert found["none"].modulus < 0.02 and found["none"].direction < 0.15
    assert min(found[name].modulus for name in ("blur", "noise")) > 3 * found["none"].modulus
    brighter = order_distance(images["none"] + 0.5, real)
    assert brighter.direction > 3 * found["none"].direction
    assert order_distance(images["no brick"], real).direction > 1.5 * found["none"].direction


@pytest.mark.parametrize(
    "refused",
    [
        lambda: radial_spectrum(torch.zeros(8, 8, dtype=torch.uint8)),
        lambda: radial_spectrum(torch.zeros(3, 8)),
        lambda: radial_spectrum(torch.zeros(8)),
        lambda: radial_spectrum([[0.0]]),
        lambda: radial_spectrum(torch.full((8, 8), math.nan)),
        lambda: radial_spectrum(torch.zeros(0, 8, 8)),
        lambda: spectrum_distance(torch.zeros(2, 1, 8, 8), noise(2, 1, 8, 8)),
        lambda: peak_frequencies(noise(2, 8, 8)),
        lambda: orientation_distance(noise(8), noise(2, 1, 8, 8)),
        lambda: order_statistics(noise(2, 8, 8)),
        lambda: order_distance(noise(2, 1, 8, 8), noise(2, 1, 8, 8) * math.inf),
    ],
)
def test_what_cannot_be_measured_is_refused_with_a_hint(refused):
    with pytest.raises(ValueError, match=HELPFUL):
        refused()


def uniform(n: int, seed: int) -> torch.Tensor:
    """Phases without order and images without lines."""
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.rand(n, 1, 16, 16, generator=generator) - 1) * PI


def test_images_without_order_have_no_direction_and_others_do():
    found = order_statistics(uniform(4000, 0))
    assert float(found.direction.isfinite().double().mean()) < 0.003, "one in a thousand by chance"
    assert bool(order_statistics(uniform(4000, 1) * 0.7 + 1).direction.isfinite().all())
    # Neighbours that agree are no independent witnesses: patches of one direction each have none together.
    patches = uniform(4000, 2)[:, :, :4, :4].repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert float(order_statistics(patches).direction.isfinite().double().mean()) < 0.003
    opposite = torch.tensor([0.0, -PI]).repeat(8, 4)[None, None]
    assert bool(order_statistics(opposite).direction.isnan()), "what is left is rounding"
    assert float(order_statistics(torch.full((1, 1, 1, 1), 2.0)).direction) == pytest.approx(2)


@pytest.mark.parametrize("defined", [False, True])
def test_undefined_angles_are_compared_with_nothing(defined):
    theta = uniform(60, 3)
    other = 0.5 * uniform(60, 4) + 1 if defined else uniform(60, 5)
    for a, b in ((theta, other), (other, theta)):
        assert math.isnan(order_distance(a, b).direction) and order_distance(a, b).modulus >= 0
    lines = wave(0.1, rows=16, columns=16).float() + 0.1 * theta if defined else other
    for a, b in ((theta, lines), (lines, theta), (torch.zeros_like(theta), lines)):
        found = orientation_distance(a, b)
        assert math.isnan(found.circular_wasserstein) and math.isnan(found.kuiper) and 0 <= found.coherence <= 1


def test_images_without_an_angle_are_left_out():
    lines, order = wave(0.1, rows=16, columns=16) + 0.1 * uniform(60, 6), 0.5 * uniform(60, 7) + 1
    mixed = torch.cat([order, uniform(30, 8)])
    assert order_distance(mixed, order).direction == pytest.approx(order_distance(order, order).direction, abs=1e-12)
    flat = torch.cat([lines, torch.zeros(9, 1, 16, 16)])
    assert orientation_distance(flat, lines)[:2] == pytest.approx((0, 0), abs=1e-12)
