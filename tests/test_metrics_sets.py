"""Errors by jackknife on Gaussians of known distance; precision, recall and memorisation against loops."""

import math

import numpy as np
import pytest
import torch
from helpers import HELPFUL, seeded

import kodm_lite.metrics
from kodm_lite.data import textures
from kodm_lite.metrics import (
    TextureFeatures,
    frechet_distance,
    jackknife,
    memorisation,
    nearest_distances,
    precision_recall,
    wasserstein_distance,
)

PI = math.pi


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def test_the_jackknife_of_a_mean_is_the_textbook_formula():
    x, y = normal(30), normal(50, seed=1)
    found = jackknife(lambda a, b: float(a.mean()), x, y, groups=30)
    assert abs(found.error - float(x.std()) / math.sqrt(30)) < 1e-12
    assert abs(found.corrected - float(x.mean())) < 1e-12 and found.value == float(x.mean())
    found = jackknife(lambda a, b: float(b.mean()), x, y[:30], groups=30)
    assert abs(found.error - float(y[:30].std()) / math.sqrt(30)) < 1e-12


def test_the_jackknife_removes_the_bias_of_a_square():
    """The mean of squares of means is too large by the variance of the mean."""
    x = normal(24)
    found = jackknife(lambda a, b: float(a.mean()) ** 2, x, x, groups=24)
    assert abs(found.corrected - (float(x.mean()) ** 2 - float(x.var()) / 24)) < 1e-12


def test_each_image_is_left_out_once_and_groups_are_of_one_size():
    x, y = torch.arange(23.0), torch.arange(100.0, 140.0)
    seen = []
    jackknife(lambda a, b: seen.append((set(a.tolist()), set(b.tolist()))) or 0.0, x, y, 5, seeded())
    (all_x, all_y), *rest = seen
    for everything, number, k in ((all_x, 23, 0), (all_y, 40, 1)):
        left_out = [everything - sets[k] for sets in rest]
        assert len(everything) == number and sorted(v for group in left_out for v in group) == sorted(everything)
        assert {len(group) for group in left_out} <= {number // 5, number // 5 + 1}
        assert max(left_out[0]) - min(left_out[0]) > 5, "groups are random"


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_frechet_distance_of_gaussians_bootstrap_and_jackknife(shift):
    """Distance F shift^2 of unit Gaussians in F = 8 dimensions."""
    truth, n, repetitions = 8 * shift**2, 300, 24
    values, errors, corrected, bootstrap = [], [], [], []
    for seed in range(repetitions):
        a, b = normal(n, 8, seed=seed) + shift, normal(n, 8, seed=1000 + seed)
        estimate = jackknife(frechet_distance, a, b, 10, seeded(seed))
        values.append(estimate.value), errors.append(estimate.error), corrected.append(estimate.corrected)
        random = np.random.default_rng(seed)
        again = [frechet_distance(*(x[random.integers(0, n, n)] for x in (a, b))) for _ in range(4)]
        bootstrap.append(np.mean(again))
    spread = np.std(values, ddof=1)
    standard_error = spread / math.sqrt(repetitions)
    bias = np.mean(values) - truth
    assert bias > 6 * standard_error
    assert 1.7 * bias < np.mean(bootstrap) - truth < 2.6 * bias, "a bootstrap adds the bias once more"
    assert abs(np.mean(corrected) - truth) < 4 * standard_error and abs(np.mean(corrected) - truth) < bias / 4
    low, high = (0.75, 1.35) if shift else (0.9, 2.2)  # too large where the distance has no first order
    assert low < np.mean(errors) / spread < high


def test_the_jackknife_works_for_entries_of_any_shape_and_changes_no_generator():
    state = torch.get_rng_state()
    found = jackknife(wasserstein_distance, normal(40, 3, 2), normal(20, 3, 2, seed=1), 4, seeded())
    again = jackknife(wasserstein_distance, normal(40, 3, 2), normal(20, 3, 2, seed=1), 4, seeded())
    assert found == again and found.error > 0 and torch.equal(state, torch.get_rng_state())


def share_within(points: np.ndarray, centres: np.ndarray, k: int) -> float:
    """Share of points within the ball of some centre, by sorting all distances."""
    inside = 0
    for p in points:
        for i, c in enumerate(centres):
            others = sorted(math.dist(c, d) for j, d in enumerate(centres) if j != i)
            if math.dist(p, c) <= others[k - 1]:
                inside += 1
                break
    return inside / len(points)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("n", "m"), [(12, 12), (9, 20)])
def test_precision_and_recall_are_those_of_the_definition(n, m, k, monkeypatch):
    monkeypatch.setattr(kodm_lite.metrics.coverage, "_PAIRS", 50)
    for seed in range(4):
        a, b = normal(n, 3, seed=seed) * 0.6 + 0.5, normal(m, 3, seed=10 + seed)
        b[3] = b[4]
        expected = share_within(a.numpy(), b.numpy(), k), share_within(b.numpy(), a.numpy(), k)
        assert precision_recall(a, b, k) == pytest.approx(expected, abs=1e-12)


def test_precision_and_recall_of_extreme_sets():
    real = normal(40, 4)
    assert precision_recall(real, real) == (1, 1) == precision_recall(real.flip(0), real, k=1)
    assert precision_recall(real + 100, real) == (0, 0)
    other = normal(40, 4, seed=1) + 0.5
    assert precision_recall(other + 1e8, real + 1e8) == precision_recall(other, real), "products lose these digits"


def test_precision_falls_with_wrong_images_and_recall_with_missing_ones():
    data, other = textures(n=300, scale=0.9), textures(n=300, seed=1, scale=0.9)
    features = TextureFeatures(data.theta, data.encoding)
    real = features(data.theta)

    def found(theta):
        return precision_recall(features(theta), real[: len(theta)])

    floor = found(other.theta)
    blurred = found(torch.nn.functional.avg_pool2d(other.theta, 3, 1, 1))
    noisy = found(other.theta + 0.5 * torch.randn(other.theta.shape, generator=seeded()))
    dropped = precision_recall(features(other.of_class("grass")), real)
    collapsed = precision_recall(features(data.theta[:10]).repeat(20, 1), real)
    assert min(floor) > 0.85
    assert blurred.precision < 0.3 and noisy.precision < 0.3
    assert dropped.precision > 0.85 and dropped.recall < 0.5 and collapsed == (1, pytest.approx(0.03, abs=0.02))


def distances_to_nearest(images: np.ndarray, others: np.ndarray) -> list[float]:
    found = []
    for image in images:
        wrapped = [np.angle(np.exp(1j * (image - other))) for other in others]
        found.append(min(math.sqrt((w**2).mean()) for w in wrapped))
    return found


@pytest.mark.parametrize("quantile", [0.05, 0.5])
def test_memorisation_is_that_of_the_definition(quantile):
    theta, train, held_out = ((2 * torch.rand(n, 1, 4, 5, generator=seeded(n)) - 1) * PI for n in (14, 30, 21))
    theta[:3] = train[:3] + 0.1
    mine, theirs = (distances_to_nearest(x.double().numpy(), train.double().numpy()) for x in (theta, held_out))
    threshold = np.quantile(theirs, quantile)
    found = memorisation(theta, train, held_out, quantile)
    assert found.share == np.mean([d < threshold for d in mine]) > 0.2
    assert found.samples_median == pytest.approx(sorted(mine)[6], abs=1e-6)  # of an even number, the lower of two
    assert found.held_out_median == pytest.approx(sorted(theirs)[10], abs=1e-6)


def test_copies_are_memorised_and_new_images_and_noise_are_not():
    train = textures(n=400, size=16, scale=0.9).theta
    held_out, new = textures(n=400, size=16, split="test", scale=0.9).theta.split(200)
    generator = seeded()
    copies = train[:100] + 0.05 * torch.randn(100, 1, 16, 16, generator=generator)
    noisy = new + 0.8 * torch.randn(new.shape, generator=generator)
    shares = [memorisation(x, train, held_out).share for x in (noisy, new, torch.cat([copies, new[:100]]), copies)]
    assert shares == sorted(shares) and shares[0] < 0.01 and shares[1] < 0.15
    assert 0.5 <= shares[2] < 0.6 and shares[3] == 1
    blurred = torch.nn.functional.avg_pool2d(new, 5, 1, 2)
    found = memorisation(blurred, train, held_out, quantile=0.5)
    assert found.share > 0.6 and found.samples_median < 0.85 * found.held_out_median, "as the docstring warns"


IMAGES = (2 * torch.rand(12, 1, 8, 8, generator=seeded()) - 1) * PI


@pytest.mark.parametrize(
    "refused",
    [
        lambda: jackknife(wasserstein_distance, normal(5), normal(9), groups=6),
        lambda: jackknife(wasserstein_distance, normal(5), normal(9), groups=1),
        lambda: precision_recall(normal(5, 2), normal(5, 3)),
        lambda: precision_recall(normal(5), normal(5)),
        lambda: precision_recall(normal(5, 2), normal(5, 2), k=0),
        lambda: precision_recall(normal(5, 2), normal(9, 2), k=5),
        lambda: precision_recall(normal(5, 2), normal(5, 2) * math.nan),
        lambda: memorisation(IMAGES, IMAGES, IMAGES[:3]),
        lambda: memorisation(IMAGES, IMAGES[:6], IMAGES[6:], quantile=5),
        lambda: memorisation(IMAGES, IMAGES[:6], IMAGES[6:, :, :7]),
        lambda: memorisation(IMAGES[0], IMAGES[:6], IMAGES[6:]),
    ],
)
def test_what_cannot_be_measured_is_refused_with_a_hint(refused):
    with pytest.raises(ValueError, match=HELPFUL):
        refused()


def test_all_training_images_are_looked_at_and_never_copied_at_once(monkeypatch):
    reference = (2 * torch.rand(50, 1, 8, 8, generator=seeded(5)) - 1) * PI
    sizes, wrap = [], kodm_lite.metrics.nearest.wrap
    monkeypatch.setattr(kodm_lite.metrics.nearest, "_PAIRS", 7 * 64)
    monkeypatch.setattr(kodm_lite.metrics.nearest, "wrap", lambda x: sizes.append(len(x)) or wrap(x))
    for copied in (0, 6, 7, 49):
        assert float(nearest_distances(reference[copied : copied + 1], reference)) < 1e-6
    assert max(sizes) == 7 and sum(sizes) == 4 * (50 + 1)
