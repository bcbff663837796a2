"""Orientation for inputs of every kind: a finite answer, or a ValueError that helps; other devices and dtypes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kodm_lite.orientation import blur, orientation_field, ridge_frequency, singular_points, winding_numbers

usual = settings(deadline=None, derandomize=True, max_examples=40)
WRONG = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=3), st.lists(st.floats(), max_size=3),
    st.sampled_from([
        torch.zeros(0), torch.zeros(()), torch.zeros(7), torch.zeros(5, 5, dtype=torch.int64), torch.zeros(3, 3) * 1j,
        torch.ones(5, 5, dtype=torch.bool), torch.full((5, 5), math.nan), torch.zeros(5, 5, dtype=torch.float16),
        torch.zeros(0, 5, 5), torch.full((5, 5), 400.0), np.zeros((5, 5)), {}, object(),
    ]),
)  # fmt: skip
IMAGE = torch.rand(6, 6, generator=torch.Generator().manual_seed(0))
CALLS = {
    "orientation_field": orientation_field,
    "gradient_sigma": lambda x: orientation_field(IMAGE, gradient_sigma=x),
    "window_sigma": lambda x: orientation_field(IMAGE, window_sigma=x),
    "winding_numbers": winding_numbers,
    "singular_points": singular_points,
    "where": lambda x: singular_points(IMAGE, x),
    "ridge_frequency": ridge_frequency,
    "smoothing": lambda x: ridge_frequency(IMAGE, smoothing=x),
    "window": lambda x: ridge_frequency(IMAGE, window_sigma=x),
    "blur": lambda x: blur(x, 1.0),
    "sigma": lambda x: blur(IMAGE, x),
}


@usual
@given(WRONG)
def test_wrong_inputs_get_an_answer_or_a_helpful_error(value):
    for call in CALLS.values():
        try:
            call(value)
        except ValueError as error:
            assert all(word in str(error) for word in ("got ", "expected ", "try ")), error


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("value", ["x", object(), torch.zeros(5, 5) * 1j, [[1.0], [1.0, 2.0]]])
def test_what_can_never_be_used_is_refused(name, value):
    with pytest.raises(ValueError, match=r"(?s)got .*expected .*try "):
        CALLS[name](value)


@usual
@given(
    st.integers(3, 12), st.integers(3, 12), st.floats(-30, 30), st.floats(0.3, 9), st.integers(0, 999), st.booleans()
)
def test_finite_images_have_finite_fields(rows, columns, magnitude, sigma, seed, double):
    dtype = torch.float64 if double else torch.float32
    image = torch.randn(2, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 10.0**magnitude
    doubled, coherence = orientation_field(image, window_sigma=sigma)
    frequency = ridge_frequency(image, window_sigma=sigma)
    for x in (doubled, coherence, frequency, blur(image, sigma)):
        assert x.dtype == dtype and x.shape == image.shape and bool(torch.isfinite(x).all())
    assert bool(((coherence > 0) & (coherence <= 1)).all()) and bool((frequency >= 0).all())
    expected = orientation_field(image * 2.0**20, window_sigma=sigma).doubled
    assert torch.equal(doubled, expected)  # whatever the unit of the grey values is
    cores, deltas = singular_points(doubled[0])
    assert cores.dtype == dtype
    assert len(cores) - len(deltas) == int(winding_numbers(doubled[0]).sum())


def test_what_can_be_differentiated_runs_on_the_meta_device_and_under_vmap():
    image = torch.empty(2, 8, 8, device="meta", requires_grad=True)
    doubled, coherence = orientation_field(image)
    (doubled.sum() + coherence.sum() + ridge_frequency(image).sum() + blur(image, 2.0).sum()).backward()
    assert image.grad.shape == image.shape
    images = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(torch.vmap(lambda x: orientation_field(x).doubled)(images), orientation_field(images)[0])


def test_the_default_dtype_changes_nothing():
    def made():
        return [*orientation_field(IMAGE), ridge_frequency(IMAGE), blur(IMAGE, 1.0), *singular_points(6 * IMAGE - 3)]

    before = made()
    try:
        torch.set_default_dtype(torch.float64)
        after = made()
    finally:
        torch.set_default_dtype(torch.float32)
    for x, y in zip(before, after, strict=True):
        assert x.dtype == y.dtype and torch.equal(x, y)
