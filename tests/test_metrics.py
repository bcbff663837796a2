"""Metrics against definitions written out in loops, closed forms, and another formula for the Fréchet distance."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from helpers import HELPFUL

import kodm_lite.metrics
from kodm_lite import GreyLevels, image_to_phase
from kodm_lite.data import PhaseData, textures
from kodm_lite.metrics import (
    TextureFeatures,
    class_shares,
    classify,
    frechet_distance,
    frechet_texture_distance,
    image_means,
    kuiper_distance,
    nearest_distances,
)

PI = math.pi
GREY = GreyLevels(0.9)
WAVELENGTHS = (3, 6, 12)
MEAN, DEVIATION, SKEWNESS, KURTOSIS, HORIZONTAL, VERTICAL = range(36, 42)


def noise(*shape: int, seed: int = 0, largest: float = 0.9 * PI) -> torch.Tensor:
    """Uniform phases in double precision."""
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1) * largest


def statistics(theta: torch.Tensor, scale: float = 0.9) -> torch.Tensor:
    """Features in their own units."""
    features = TextureFeatures(noise(4, *theta.shape[1:]), GreyLevels(scale))
    return features(theta) * features.deviation


def gain(down: float, right: float, wavelength: float, degrees: float) -> float:
    """Transfer function of one filter at one frequency, in cycles per pixel."""
    frequency = math.hypot(down, right)
    if frequency == 0 or frequency >= 0.5:
        return 0.0
    offset = math.atan2(down, right) - math.radians(degrees)
    offset = math.atan2(math.sin(offset), math.cos(offset))
    radial = math.exp(-(math.log(frequency * wavelength) ** 2) / (2 * math.log(0.65) ** 2))
    return 2 * radial * math.exp(-(offset**2) / (2 * 0.35**2)) / (1 + (frequency / 0.45) ** 30)


def response(image: np.ndarray, wavelength: float, degrees: float) -> np.ndarray:
    """Modulus of one filter's response, by sums over all frequencies of the image with mirror images around it."""
    wide = np.pad(image, 16, mode="symmetric")
    waves, frequencies = [], []
    for length in wide.shape:
        k = np.arange(length)
        waves.append(np.exp(-2j * np.pi * np.outer(k, k) / length))
        frequencies.append([(n if n < length / 2 else n - length) / length for n in range(length)])
    transfer = np.array(
        [[gain(down, right, wavelength, degrees) for right in frequencies[1]] for down in frequencies[0]]
    )
    spectrum = waves[0] @ wide @ waves[1]
    filtered = waves[0].conj() @ (spectrum * transfer) @ waves[1].conj() / wide.size
    return np.abs(filtered)[16:-16, 16:-16]


def statistics_by_definition(image: np.ndarray) -> np.ndarray:
    moduli = [response(image, wavelength, 30 * k) for wavelength in WAVELENGTHS for k in range(6)]
    values = [m.mean() for m in moduli] + [m.std() for m in moduli]
    values += [
        image.mean(),
        image.std(),
        scipy.stats.skew(image, None),
        scipy.stats.kurtosis(image, None, fisher=False),
    ]
    values += [np.mean(np.diff(image, axis=1) ** 2), np.mean(np.diff(image, axis=0) ** 2)]
    return np.array(values)


@pytest.mark.parametrize("shape", [(8, 8), (11, 8), (8, 15), (40, 9)])
def test_features_are_those_of_the_definition(shape):
    theta = noise(2, 3, *shape, seed=1)
    found = statistics(theta)
    assert found.dtype == torch.float64 and found.shape == (2, 42)
    for vector, image in zip(found, theta / (0.9 * PI), strict=True):
        np.testing.assert_allclose(vector, statistics_by_definition(image.mean(0).numpy()), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("vertical", [False, True])
@pytest.mark.parametrize("wavelength", WAVELENGTHS)
def test_every_filter_measures_the_amplitude_of_a_wave(wavelength, vertical):
    wave = 0.4 * torch.cos(2 * PI * (torch.arange(96) + 0.5) / wavelength).double()
    image = wave.expand(72, 96) if not vertical else wave[:72, None].expand(72, 96)
    found = statistics(image_to_phase(image, 0.9)[None, None])[0]
    for k, expected_at in enumerate(30.0 * n for n in range(6)):
        turn = abs(expected_at - 90 * vertical)
        turn = math.radians(min(turn, 180 - turn))
        for s, other in enumerate(WAVELENGTHS):
            amplitude = 0.4 * math.exp(-(math.log(other / wavelength) ** 2) / (2 * math.log(0.65) ** 2))
            amplitude *= math.exp(-(turn**2) / (2 * 0.35**2))
            assert abs(float(found[6 * s + k]) - amplitude) < 0.004
            assert float(found[18 + 6 * s + k]) < 0.01, "the modulus does not oscillate"


@pytest.mark.parametrize("shape", [(32, 32), (24, 80)])
def test_every_filter_responds_most_to_its_own_wave_in_images_of_any_size(shape):
    down, right = torch.meshgrid(*(torch.arange(side).double() for side in shape), indexing="ij")
    for s, wavelength in enumerate(WAVELENGTHS):
        for k in range(6):
            along = right * math.cos(k * PI / 6) + down * math.sin(k * PI / 6)
            image = image_to_phase(0.8 * torch.cos(2 * PI * along / wavelength), 0.9)
            assert int(statistics(image[None, None])[0, :18].argmax()) == 6 * s + k


def test_turned_and_mirrored_images_have_turned_and_mirrored_features():
    theta = noise(3, 1, 12, 18)
    found = statistics(theta)

    def expected(orientation, last):
        order = [18 * kind + 6 * s + orientation(k) % 6 for kind in range(2) for s in range(3) for k in range(6)]
        return found[:, order + last]

    mirrored = expected(lambda k: -k, [MEAN, DEVIATION, SKEWNESS, KURTOSIS, HORIZONTAL, VERTICAL])
    transposed = expected(lambda k: 3 - k, [MEAN, DEVIATION, SKEWNESS, KURTOSIS, VERTICAL, HORIZONTAL])
    torch.testing.assert_close(statistics(theta.flip(3)), mirrored, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(statistics(theta.flip(2)), mirrored, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(statistics(theta.mT.contiguous()), transposed, rtol=1e-10, atol=1e-12)


def test_brightness_moves_the_mean_only_and_contrast_scales():
    theta = noise(2, 1, 16, 16, largest=1.0)
    found, brighter, fainter, negative = (statistics(x) for x in (theta, theta + 0.5, theta / 2, -theta))
    shift = torch.zeros(42, dtype=torch.float64)
    shift[MEAN] = 0.5 / (0.9 * PI)
    torch.testing.assert_close(brighter, found + shift, rtol=1e-10, atol=1e-10)
    factors = torch.full((42,), 0.5, dtype=torch.float64)
    factors[[SKEWNESS, KURTOSIS]] = 1
    factors[[HORIZONTAL, VERTICAL]] = 0.25
    torch.testing.assert_close(fainter, found * factors, rtol=1e-9, atol=1e-9)
    signs = torch.ones(42, dtype=torch.float64)
    signs[[MEAN, SKEWNESS]] = -1
    torch.testing.assert_close(negative, found * signs, rtol=1e-10, atol=1e-10)


def test_flat_images_have_a_mean_and_nothing_else():
    for dtype in (torch.float32, torch.float64):
        flat = torch.tensor([-2.0, 0.0, 1.1], dtype=dtype).reshape(3, 1, 1, 1).expand(3, 1, 16, 16)
        found = statistics(flat)
        torch.testing.assert_close(found[:, MEAN], flat[:, 0, 0, 0].double() / (0.9 * PI), rtol=1e-6, atol=1e-6)
        found[:, MEAN] = 0
        assert float(found.abs().max()) < 1e-6


def test_phases_in_the_gap_are_black_or_white_and_turns_do_not_matter():
    theta = noise(2, 1, 9, 9, largest=PI)
    clamped = theta.clamp(-0.9 * PI, 0.9 * PI)
    torch.testing.assert_close(statistics(theta + 2 * PI), statistics(clamped), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(statistics(theta / 2, 0.45), statistics(theta, 0.9), rtol=1e-9, atol=1e-9)


def test_features_of_the_reference_have_unit_deviation():
    reference = textures(n=40, scale=0.9).theta
    features = TextureFeatures(reference, GREY)
    assert features.num_features == 42 and features.image_shape == (1, 32, 32) and features.encoding == GREY
    np.testing.assert_allclose(np.std(features(reference).numpy(), axis=0, ddof=1), 1, rtol=1e-12)


def test_what_never_varies_in_the_reference_keeps_its_unit():
    stripes = noise(6, 1, 1, 16).expand(6, 1, 16, 16)
    features = TextureFeatures(stripes, GREY)
    found = features(noise(2, 1, 16, 16))
    assert bool(torch.isfinite(found).all())
    assert float(features.deviation[VERTICAL]) == 1 and float(features.deviation[HORIZONTAL]) != 1


def test_many_images_are_measured_a_few_at_a_time(monkeypatch):
    theta = textures(n=40, scale=0.9).theta
    features = TextureFeatures(theta, GREY)
    expected, sizes, transform = features(theta), [], torch.fft.ifft2
    monkeypatch.setattr(torch.fft, "ifft2", lambda x: sizes.append(x.numel()) or transform(x))
    for limit in (2**20, 300_000, 1):
        monkeypatch.setattr(kodm_lite.metrics.texture, "_CHUNK", limit)
        sizes.clear()
        torch.testing.assert_close(features(theta), expected, rtol=1e-5, atol=1e-5)
        assert max(sizes) <= max(limit, features.bank.numel()) and len(sizes) >= 3


def test_single_precision_is_enough():
    theta = textures(n=6, scale=0.9).theta
    torch.testing.assert_close(statistics(theta), statistics(theta.double()), rtol=1e-4, atol=1e-5)
    assert not statistics(theta.clone().requires_grad_()).requires_grad


def sample_with(mean, covariance, n: int = 40, seed: int = 0) -> torch.Tensor:
    """Vectors whose sample mean and sample covariance are exactly these."""
    white = np.random.default_rng(seed).normal(size=(n, len(mean)))
    white -= white.mean(0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white.T))).T
    return torch.tensor(white @ np.linalg.cholesky(np.array(covariance, float)).T + mean)


def test_frechet_distance_of_known_gaussians():
    one = frechet_distance(
        sample_with([1, 2, 0], np.diag([4, 9, 1])), sample_with([0, 2, 2], np.diag([1, 1, 1]), seed=1)
    )
    assert abs(one - (1 + 4 + (2 - 1) ** 2 + (3 - 1) ** 2)) < 1e-9
    first, second = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[1.0, -0.5], [-0.5, 0.5]])
    root = math.sqrt(
        np.trace(first @ second) + 2 * math.sqrt(np.linalg.det(first @ second))
    )  # trace, of a 2 x 2 matrix
    expected = 3.0**2 + np.trace(first) + np.trace(second) - 2 * root
    found = frechet_distance(sample_with([0, 3], first, n=7), sample_with([0, 0], second, n=30, seed=1))
    assert abs(found - expected) < 1e-9


@pytest.mark.parametrize("origin", [0.0, 1e6])
def test_frechet_distance_is_that_of_scipy(origin):
    random = np.random.default_rng(2)
    a, b = random.normal(size=(60, 5)) @ random.normal(size=(5, 5)), random.exponential(size=(90, 5))
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    difference = a.mean(0) - b.mean(0)
    expected = difference @ difference + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    first, second = torch.tensor(a + origin), torch.tensor(b + origin)
    assert abs(frechet_distance(first, second) - expected) < 1e-7 * expected
    assert abs(frechet_distance(second, first) - expected) < 1e-7 * expected


def test_frechet_distance_of_fewer_vectors_than_features():
    """Singular covariances: the trace of the root is the nuclear norm of the product of the data."""
    a, b = (np.random.default_rng(seed).normal(size=(n, 12)) for seed, n in ((0, 5), (1, 7)))
    centred_a, centred_b = a - a.mean(0), b - b.mean(0)
    root = np.linalg.svd(centred_a @ centred_b.T, compute_uv=False).sum() / math.sqrt(4 * 6)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.cov(a.T).trace() + np.cov(b.T).trace() - 2 * root
    assert abs(frechet_distance(torch.tensor(a), torch.tensor(b)) - expected) < 1e-5


def test_frechet_distance_of_a_set_to_itself_is_zero():
    a = sample_with([5, -3], [[1, 0.2], [0.2, 0.3]])
    assert 0 <= frechet_distance(a, a) < 1e-10
    assert 0 <= frechet_distance(torch.ones(3, 2), torch.ones(4, 2)) < 1e-10


def test_texture_distance_is_what_torchmetrics_makes_of_the_features():
    from torchmetrics.image.fid import FrechetInceptionDistance

    real, other = textures(n=60, scale=0.9), textures(n=60, seed=1, scale=0.9)
    features = TextureFeatures(real.theta, GREY)
    metric = FrechetInceptionDistance(feature=features).set_dtype(torch.float64)
    metric.update(real.theta, real=True)
    metric.update(other.theta, real=False)
    found = frechet_texture_distance(other.theta, real.theta, features)
    assert abs(found - float(metric.compute())) < 1e-4 * found


def test_texture_distance_orders_what_the_eye_orders():
    real, other = textures(n=300, scale=0.9), textures(n=300, seed=1, scale=0.9)
    features = TextureFeatures(real.theta, GREY)
    blurred = torch.nn.functional.avg_pool2d(other.theta, 3, 1, 1)
    brighter, white_made_black = other.theta + 0.3, other.theta + 0.6
    mixed = [other.theta, brighter, white_made_black, blurred, noise(300, 1, 32, 32).float()]
    distances = [frechet_texture_distance(theta, real.theta, features) for theta in mixed]
    assert distances == sorted(distances) and distances[1] > 1.05 * distances[0] and distances[3] > 10 * distances[0]


def test_torchmetrics_is_loaded_when_it_is_needed():
    program = "import sys, kodm_lite.metrics; print('torchmetrics' in sys.modules)"
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert seen.strip() == "False"


def test_images_belong_to_the_class_with_the_nearest_centroid():
    data = textures(n=90, names=["gravel", "brick", "grass"], scale=0.9)
    images = torch.cat(
        [textures(n=30, split="test", scale=0.9).theta, noise(10, 1, 32, 32).float(), torch.zeros(1, 1, 32, 32)]
    )
    features = TextureFeatures(data.theta, GREY)
    centroids = [features(data.of_class(name)).numpy().mean(0) for name in data.names]
    expected = [int(np.argmin([np.linalg.norm(x - c) for c in centroids])) for x in features(images).numpy()]
    found = classify(images, data, features)
    assert found.dtype == torch.int64 and found.tolist() == expected and len(set(expected)) == 3
    shares = class_shares(images, data, features)
    assert shares.dtype == torch.float64
    np.testing.assert_allclose(shares, [expected.count(k) / 41 for k in range(3)], rtol=1e-12)


def test_centroids_are_means():
    brightness = torch.tensor([-1.0, -1.0, -1.0, 1.4, 1.0, 1.0]).reshape(6, 1, 1, 1).expand(6, 1, 8, 8)
    data = PhaseData(brightness, torch.tensor([0, 0, 0, 0, 1, 1]), ("mostly dark", "bright"), 0.9, "nowhere")
    images = torch.tensor([0.25, 0.35]).reshape(2, 1, 1, 1).expand(2, 1, 8, 8)  # the means are -0.4 and 1
    assert classify(images, data, TextureFeatures(brightness, GREY)).tolist() == [0, 1]


def test_held_out_crops_are_classified_and_a_missing_class_is_seen():
    data, held_out = textures(n=300, scale=0.9), textures(n=150, split="test", scale=0.9)
    features = TextureFeatures(data.theta, GREY)
    assert float((classify(held_out.theta, data, features) == held_out.labels).double().mean()) > 0.95
    without_brick = torch.cat([held_out.of_class("grass"), held_out.of_class("gravel")])
    assert float(class_shares(without_brick, data, features)[0]) < 0.02


def kuiper_by_definition(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of the shares of both sets on any interval (s, t]."""
    ends = np.concatenate([[-np.inf], a, b])
    return max(abs(((a > s) & (a <= t)).mean() - ((b > s) & (b <= t)).mean()) for s in ends for t in ends)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 7), (9, 9), (20, 13)])
def test_kuiper_distance_is_that_of_the_definition(n, m, ties):
    for seed in range(5):
        random = np.random.default_rng(seed)
        a, b = random.normal(size=n), random.normal(0.5, 2, size=m)
        if ties:
            a, b = a.round(), b.round()
        found = kuiper_distance(torch.tensor(a).reshape(-1, 1), torch.tensor(b))
        assert abs(found - kuiper_by_definition(a, b)) < 1e-12


def test_kuiper_distance_does_not_depend_on_the_origin_of_angles():
    a, b = noise(200, largest=PI), noise(300, seed=1, largest=PI) * 0.9
    distances = [kuiper_distance(*(torch.remainder(x + shift, 2 * PI) for x in (a, b))) for shift in range(7)]
    assert max(distances) - min(distances) < 1e-12 and distances[0] > 0.05
    assert kuiper_distance(a, a.flip(0)) == 0 and kuiper_distance(a, b + 10) == 1


def test_image_means_are_those_of_the_phases():
    theta = noise(4, 3, 5, 6, largest=PI)
    np.testing.assert_allclose(image_means(theta), theta.numpy().mean((1, 2, 3)), rtol=1e-12)
    assert image_means(theta.float()).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearest_distances_are_those_of_all_pairs(dtype, monkeypatch):
    monkeypatch.setattr(kodm_lite.metrics.nearest, "_PAIRS", 200)  # chunks of 4 references
    theta, reference = noise(5, 2, 4, 6, largest=15.0).to(dtype), noise(9, 2, 4, 6, seed=1, largest=PI).to(dtype)
    reference[7] = theta[2] + 0.3 * noise(2, 4, 6, seed=2).to(dtype)
    difference = theta.double().numpy()[:, None] - reference.double().numpy()[None]
    wrapped = np.arctan2(np.sin(difference), np.cos(difference))
    expected = np.sqrt((wrapped**2).mean((2, 3, 4))).min(1)
    found = nearest_distances(theta, reference)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, expected, rtol=1e-5 if dtype == torch.float32 else 1e-12)


def test_copies_are_at_distance_zero_and_the_other_side_is_pi_away():
    theta = textures(n=3, scale=0.9).theta
    assert nearest_distances(theta, theta.flip(0)).tolist() == [0, 0, 0]
    assert abs(float(nearest_distances(torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), -PI))) - PI) < 1e-6


DATA = PhaseData(noise(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]), ("a", "b"), 0.9, "nowhere")
NAN = torch.full((3, 2), math.nan)


@pytest.mark.parametrize(
    "refused",
    [
        lambda: TextureFeatures(noise(4, 8, 8), GREY),
        lambda: TextureFeatures(noise(1, 1, 8, 8), GREY),
        lambda: TextureFeatures(noise(4, 1, 7, 8), GREY),
        lambda: TextureFeatures(noise(4, 1, 8, 8), 0.9),
        lambda: TextureFeatures(torch.zeros(4, 1, 8, 8), GREY),
        lambda: TextureFeatures(noise(4, 1, 8, 8), GREY)(noise(4, 1, 8, 9)),
        lambda: TextureFeatures(noise(4, 1, 8, 8), GREY)(noise(4, 3, 8, 8)),
        lambda: TextureFeatures(noise(4, 1, 8, 8), GREY)(noise(4, 1, 8, 8) * 100),
        lambda: frechet_distance(noise(1, 3), noise(4, 3)),
        lambda: frechet_distance(noise(4, 2), noise(4, 3)),
        lambda: frechet_distance(noise(4), noise(4)),
        lambda: frechet_distance(NAN, noise(4, 2)),
        lambda: frechet_distance(noise(4, 2), NAN),
        lambda: classify(DATA.theta, replace(DATA, labels=None), TextureFeatures(DATA.theta, GREY)),
        lambda: classify(DATA.theta, replace(DATA, names=("a", "b", "c")), TextureFeatures(DATA.theta, GREY)),
        lambda: class_shares(DATA.theta, replace(DATA, encoding=GreyLevels(0.8)), TextureFeatures(DATA.theta, GREY)),
        lambda: kuiper_distance(torch.zeros(0), torch.zeros(3)),
        lambda: kuiper_distance(torch.zeros(3), NAN),
        lambda: image_means(noise(4, 8, 8)),
        lambda: nearest_distances(noise(2, 1, 8, 8), noise(2, 1, 8, 9)),
        lambda: nearest_distances(noise(2, 1, 8, 8), noise(2, 8, 8)),
    ],
)
def test_what_cannot_be_measured_is_refused_with_a_hint(refused):
    with pytest.raises(ValueError, match=HELPFUL):
        refused()
