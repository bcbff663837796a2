"""Angles: wrapping against exact remainders, order parameters against plain sums, images to phases and back."""

import cmath
import math

import mpmath
import numpy as np
import pytest
import torch
from helpers import HELPFUL

from kodm_lite.circular import (
    angle_difference,
    image_to_phase,
    order_parameter,
    phase_to_image,
    to_uint8,
    validate_phases,
    wrap,
)

PI = math.pi
DTYPES = [torch.float32, torch.float64]


def exactly_wrapped(x: float) -> float:
    """x - 2 pi round(x / 2 pi) for the exact 2 pi, with enough digits for any double."""
    with mpmath.workdps(400):
        turn = 2 * mpmath.pi
        return float(mpmath.mpf(x) - turn * mpmath.nint(mpmath.mpf(x) / turn))


def circular_distance(a, b):
    """The distance on the circle without wrapping: the chord 2 sin(d/2), which is d for small d."""
    return np.abs(2 * np.sin((np.asarray(a, np.float64) - np.asarray(b, np.float64)) / 2))


@pytest.mark.parametrize("dtype", DTYPES)
def test_wrap_agrees_with_the_exact_remainder_to_the_last_digits(dtype):
    x = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=dtype) * torch.logspace(-3, 4, 400).to(dtype)
    expected = [exactly_wrapped(v) for v in x.tolist()]
    assert circular_distance(wrap(x), expected).max() < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_angles_on_the_circle_come_back_unchanged_to_the_last_bit(dtype):
    inside = torch.linspace(-3.1415925, 3.1415925, 100_001, dtype=dtype)
    tiny = torch.tensor([0.0, -0.0, 1e-30, -1e-30, -1e-40], dtype=dtype)
    for x in (inside, tiny):
        assert torch.equal(wrap(x), x)
    assert torch.equal(wrap(wrap(5 * inside)), wrap(5 * inside))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_wrap_stays_in_the_half_open_circle_around_every_odd_multiple_of_pi(dtype):
    centre = torch.tensor([k * PI for k in range(-9, 10)], dtype=dtype)
    up, down = torch.nextafter(centre, centre + 9), torch.nextafter(centre, centre - 9)
    y = wrap(torch.cat((centre, up, down)))
    assert y.dtype == dtype
    y = y.to(torch.promote_types(dtype, torch.float32))  # in half precision pi itself would be rounded down
    assert bool((y >= -PI).all() & (y < PI).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_what_lies_on_the_circle_too(dtype):
    x = torch.tensor([3.140625, -3.140625, 1.5, 0.0], dtype=dtype)
    assert torch.equal(wrap(x), x)


def test_pi_itself_becomes_minus_pi():
    assert wrap(torch.tensor(PI, dtype=torch.float64)).item() == -PI
    assert wrap(torch.tensor(-PI, dtype=torch.float64)).item() == -PI


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_numbers_wrap_into_the_circle_too(dtype):
    x = torch.tensor([1e6, 1e9, 1e12, 1e20, 3e38, torch.finfo(dtype).max], dtype=dtype)
    y = wrap(torch.cat((x, -x)))
    assert bool((y.abs() <= PI + 1e-6).all())
    small = torch.tensor([1e6, -1e6, 1e9, -1e9], dtype=torch.float64)
    error = circular_distance(wrap(small), [exactly_wrapped(v) for v in small.tolist()])
    assert error.max() < 1e-7  # the rounding of 1e9 itself


def test_wrap_has_derivative_one_everywhere():
    x = torch.tensor([0.0, 1.0, PI, -PI, 4.0, -40.0, 1e5, 1e20], requires_grad=True)
    (gradient,) = torch.autograd.grad(wrap(x).sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))


def test_not_a_number_stays_not_a_number():
    assert torch.isnan(wrap(torch.tensor([math.nan, math.inf, -math.inf]))).all()


def test_wrap_takes_any_layout_and_shape_and_leaves_its_argument_alone():
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)) * 9
    before = x.clone()
    assert torch.equal(wrap(x.T[::2]), wrap(x).T[::2])
    assert wrap(torch.tensor(7.0)).shape == ()
    assert wrap(torch.zeros(0, 3)).shape == (0, 3)
    assert torch.equal(x, before)


def test_a_difference_of_angles_is_the_shortest_rotation():
    a, b = np.random.default_rng(0).uniform(-20, 20, (2, 500))
    expected = [cmath.phase(cmath.exp(1j * (p - q))) for p, q in zip(a, b, strict=True)]
    got = angle_difference(torch.tensor(a), torch.tensor(b))
    assert circular_distance(got, expected).max() < 1e-13
    assert float(angle_difference(torch.tensor(3.0), torch.tensor(-3.0))) == pytest.approx(6 - 2 * PI, abs=1e-6)


@pytest.mark.parametrize(
    ("dim", "axes"), [(None, (0, 1, 2)), (1, (1,)), (-1, (2,)), ((0, 2), (0, 2)), ([1, 2], (1, 2))]
)
@pytest.mark.parametrize("keepdim", [False, True])
def test_the_order_parameter_is_the_mean_of_unit_vectors(dim, axes, keepdim):
    theta = np.random.default_rng(1).uniform(-PI, PI, (3, 4, 5))
    expected = np.exp(1j * theta).mean(axes, keepdims=keepdim)
    got = order_parameter(torch.tensor(theta), dim, keepdim)
    assert got.shape == expected.shape
    assert np.abs(got.numpy() - expected).max() < 1e-15


def test_rotating_all_phases_rotates_the_order_parameter():
    theta = torch.tensor(np.random.default_rng(2).uniform(-PI, PI, 100))
    turned = order_parameter(wrap(theta + 2.5))
    assert abs(complex(turned) - complex(order_parameter(theta)) * cmath.exp(2.5j)) < 1e-15


def test_the_modulus_is_one_for_equal_and_zero_for_even_phases():
    assert abs(complex(order_parameter(torch.full((50,), 2.0, dtype=torch.float64)))) == pytest.approx(1, abs=1e-15)
    assert abs(complex(order_parameter(torch.arange(7, dtype=torch.float64) * (2 * PI / 7)))) < 1e-15
    assert complex(order_parameter(torch.tensor(0.0))) == 1


def test_grey_values_and_phases_are_each_others_inverse():
    x = torch.linspace(-1, 1, 257, dtype=torch.float64)
    theta = image_to_phase(x, 0.9)
    assert theta.min() == pytest.approx(-0.9 * PI) and theta.max() == pytest.approx(0.9 * PI)
    assert torch.allclose(phase_to_image(theta, 0.9), x, rtol=0, atol=1e-15)
    assert torch.allclose(phase_to_image(theta + 4 * PI, 0.9), x, rtol=0, atol=1e-14)
    assert torch.allclose(image_to_phase(x, 0.5), x * PI / 2)


def test_angles_in_the_gap_become_the_nearer_of_black_and_white():
    assert phase_to_image(torch.tensor([0.95 * PI, -0.95 * PI, 1.05 * PI, 0.99 * PI]), 0.9).tolist() == [1, -1, -1, 1]


def test_bytes_survive_the_round_trip_because_they_are_rounded_not_truncated():
    """Regression: the published code truncates, which makes bytes darker by half a grey level on average."""
    grey = torch.arange(256)
    theta = image_to_phase(grey.float() / 127.5 - 1, 0.9)
    assert to_uint8(theta, 0.9).dtype == torch.uint8
    assert torch.equal(to_uint8(theta, 0.9).long(), grey)
    between = image_to_phase((grey[:-1].double() + 0.6) / 127.5 - 1, 0.9)
    assert torch.equal(to_uint8(between, 0.9).long(), grey[1:])


@pytest.mark.parametrize(
    "image",
    [
        torch.tensor([0, 255], dtype=torch.uint8),
        torch.tensor([0.0, 255.0]),
        torch.tensor([0.0, 1.1]),
        torch.tensor([-1.1, 0.0]),
        torch.tensor([0.0, math.nan]),
        torch.zeros(0),
        np.zeros(3),
    ],
    ids=["bytes", "bytes as floats", "too bright", "too dark", "nan", "empty", "numpy"],
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match=HELPFUL):
        image_to_phase(image, 0.9)


@pytest.mark.parametrize("scale", [0.0, -0.9, 1.5, math.nan])
def test_an_impossible_scale_is_refused(scale):
    for call in (image_to_phase, phase_to_image, to_uint8):
        with pytest.raises(ValueError, match=HELPFUL):
            call(torch.zeros(3), scale)


@pytest.mark.parametrize(
    ("theta", "hint"),
    [
        (torch.tensor([90.0, 180.0]), "deg2rad"),
        (torch.tensor([0.0, math.nan]), "isfinite"),
        (torch.tensor([0.0, -math.inf]), "isfinite"),
        (torch.tensor([1, 2]), "float"),
        (torch.zeros(3, dtype=torch.bfloat16), "float"),
        (torch.zeros(3, dtype=torch.complex64), "float"),
        (torch.zeros(0, 4), "empty"),
        (np.zeros(3), "as_tensor"),
        (1.0, "as_tensor"),
    ],
    ids=["degrees", "nan", "infinity", "integers", "bfloat16", "complex", "empty", "numpy", "number"],
)
def test_what_cannot_be_phases_is_refused_with_a_hint(theta, hint):
    with pytest.raises(ValueError, match=HELPFUL) as refusal:
        validate_phases(theta, "phases")
    assert hint in str(refusal.value) and "phases" in str(refusal.value)


def test_phases_a_few_turns_away_are_accepted():
    validate_phases(torch.tensor([6 * PI - 1e-3, -PI]))
    validate_phases(torch.tensor(0.5, dtype=torch.float64))


def test_bytes_never_hide_a_broken_state():
    with pytest.raises(ValueError, match=HELPFUL):
        to_uint8(torch.tensor([0.0, math.nan]), 0.9)
