"""Any input of the public metrics gives a number or a ValueError that helps, and valid input never a NaN."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kodm_lite import Angles, GreyLevels
from kodm_lite.data import PhaseData
from kodm_lite.metrics import (
    TextureFeatures,
    circular_wasserstein,
    class_shares,
    classify,
    evaluate,
    frechet_distance,
    frechet_texture_distance,
    image_means,
    inception_distances,
    jackknife,
    kuiper_distance,
    memorisation,
    nearest_distances,
    order_statistics,
    peak_frequencies,
    precision_recall,
    radial_spectrum,
    wasserstein_distance,
)

GREY = GreyLevels(0.5)
IMAGES = (2 * torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0)) - 1) * 1.5
DATA = PhaseData(IMAGES, torch.arange(12) % 2, ("a", "b"), GREY, "made up")
FEATURES = TextureFeatures(IMAGES, GREY)


class Means(torch.nn.Module):
    def forward(self, images):
        return images.double().mean((2, 3))


METRICS = {
    "TextureFeatures": lambda a, b: TextureFeatures(a, b),
    "features": lambda a, b: FEATURES(a),
    "circular_wasserstein": lambda a, b: circular_wasserstein(a, b),
    "circular_wasserstein, period": lambda a, b: circular_wasserstein(IMAGES, IMAGES, a),
    "wasserstein_distance": lambda a, b: wasserstein_distance(a, b),
    "kuiper_distance": lambda a, b: kuiper_distance(a, b),
    "kuiper_distance, weights": lambda a, b: kuiper_distance(a, IMAGES, b),
    "wasserstein_distance, weights": lambda a, b: wasserstein_distance(a, IMAGES, b),
    "class_shares": lambda a, b: class_shares(a, DATA, FEATURES),
    "classify": lambda a, b: classify(IMAGES, a, b),
    "evaluate": lambda a, b: evaluate(a, b),
    "evaluate, train": lambda a, b: evaluate(IMAGES.repeat(4, 1, 1, 1), DATA, a, b),
    "frechet_distance": lambda a, b: frechet_distance(a, b),
    "frechet_texture_distance": lambda a, b: frechet_texture_distance(a, IMAGES, FEATURES),
    "image_means": lambda a, b: image_means(a),
    "inception_distances": lambda a, b: inception_distances(a, b, "test", GREY, feature=Means()),
    "inception_distances, options": lambda a, b: inception_distances(IMAGES, IMAGES, "test", a, Means(), subset_size=b),
    "inception_distances, more": lambda a, b: inception_distances(IMAGES, IMAGES, "test", GREY, Means(), a, None, b),
    "jackknife": lambda a, b: jackknife(lambda x, y: 0.0, a, b, 2),
    "jackknife, groups": lambda a, b: jackknife(lambda x, y: 0.0, IMAGES, IMAGES, a),
    "memorisation": lambda a, b: memorisation(a, b, IMAGES + 0.1),
    "memorisation, quantile": lambda a, b: memorisation(IMAGES, IMAGES, IMAGES + 0.1, a),
    "nearest_distances": lambda a, b: nearest_distances(a, b),
    "order_statistics": lambda a, b: order_statistics(a).modulus,
    "peak_frequencies": lambda a, b: peak_frequencies(a),
    "precision_recall": lambda a, b: precision_recall(a, b),
    "precision_recall, k": lambda a, b: precision_recall(IMAGES[:, 0, 0], IMAGES[:, 0, 1], a),
    "radial_spectrum": lambda a, b: radial_spectrum(a).power,
}
SHAPES = [
    (0,),
    (3,),
    (0, 1, 8, 8),
    (1, 1, 8, 8),
    (3, 2, 8, 8),
    (4, 1, 8, 8),
    (4, 1, 3, 9),
    (4, 8, 8),
    (5, 3),
    (2, 1, 1, 1),
    (),
]
VALUES = [0.0, 1.0, -1.5, 3.2, 18.0, 100.0, 1e30, 1e200, math.nan, math.inf]
DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.complex64,
]


@st.composite
def tensors(draw):
    """A tensor of some kind: mostly noise of one size, or one value everywhere."""
    shape, dtype = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(DTYPES))
    size, seed = draw(st.sampled_from(VALUES)), draw(st.integers(0, 9))
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = noise * size if draw(st.booleans()) else torch.full(shape, size, dtype=torch.float64)
    return x.nan_to_num(0, 0, 0).clamp(-99, 99).to(dtype) if not dtype.is_floating_point else x.to(dtype)


OTHERS = [
    None,
    0,
    3,
    2.5,
    -1,
    True,
    math.nan,
    "a",
    [1.0],
    DATA,
    GREY,
    Angles(),
    FEATURES,
    IMAGES,
    IMAGES.numpy(),
    object(),
]
ANYTHING = st.one_of(tensors(), tensors(), st.sampled_from(OTHERS))


def numbers(found) -> list[float]:
    """All numbers of an answer."""
    if isinstance(found, torch.Tensor):
        return found.double().flatten().tolist()
    if isinstance(found, tuple):
        return [x for part in found for x in numbers(part)]
    return [found] if isinstance(found, float) else []


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(a=ANYTHING, b=ANYTHING)
def test_any_input_gives_numbers_or_a_hint(name, a, b):
    try:
        found = METRICS[name](a, b)
    except ValueError as error:
        assert all(word in str(error) for word in ("got", "expected", "; try")), str(error)
    else:
        assert all(map(math.isfinite, numbers(found)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(4, 9),
    shape=st.tuples(st.integers(1, 3), st.integers(8, 14), st.integers(8, 14)),
    spread=st.sampled_from([0.0, 1e-9, 1e-3, 1.0, 3.1]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 99),
)
def test_images_always_have_numbers(n, shape, spread, dtype, seed):
    noise = torch.rand(2, n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    a, b = ((2 * noise - 1) * spread + 0.1).to(dtype)
    reference = (2 * noise[0] - 1).to(dtype)
    features = [TextureFeatures(reference, encoding) for encoding in (GREY, Angles())]
    found = [(x(a), frechet_distance(x(a), x(b)), precision_recall(x(a), x(b))) for x in features]
    found += [
        image_means(a),
        peak_frequencies(a),
        radial_spectrum(a),
        nearest_distances(a, b),
        order_statistics(a).modulus,
    ]
    found += [distance(a, b) for distance in (circular_wasserstein, kuiper_distance, wasserstein_distance)]
    assert all(map(math.isfinite, numbers(tuple(found))))


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    n=st.integers(20, 26), channels=st.integers(1, 3), cyclic=st.booleans(), spread=st.sampled_from([1e-3, 1.0, 3.1])
)
def test_every_row_is_a_number_or_says_why_not(n, channels, cyclic, spread):
    noise = torch.rand(3 * n, channels, 9, 8, generator=torch.Generator().manual_seed(n))
    theta = (2 * noise - 1) * spread
    data = PhaseData(theta[n:], None, (), Angles() if cyclic else GREY, "made up")
    for row in evaluate(theta[:n], data).rows:
        assert row.note or all(map(math.isfinite, row[1:4])), row
