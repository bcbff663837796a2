"""Distances of numbers and angles against scipy, optimal assignments, linear programs and closed forms."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from helpers import HELPFUL

from kodm_lite.metrics import circular_wasserstein, kuiper_distance, wasserstein_distance

PI = math.pi


def shorter_way(a: np.ndarray, b: np.ndarray, period: float = 2 * PI) -> np.ndarray:
    """Distances (n, m) along the circle, written out."""
    apart = np.abs(a[:, None] - b[None]) % period
    return np.minimum(apart, period - apart)


def by_assignment(a: np.ndarray, b: np.ndarray, period: float = 2 * PI) -> float:
    """Least mean distance over all pairings of two sets of one size."""
    cost = shorter_way(a, b, period)
    rows, columns = scipy.optimize.linear_sum_assignment(cost)
    return cost[rows, columns].mean()


def by_linear_program(a: np.ndarray, b: np.ndarray, a_weights: np.ndarray, b_weights: np.ndarray) -> float:
    """Least mean distance over all plans that move the weights of ``a`` to those of ``b``."""
    n, m = len(a), len(b)
    rows = [np.kron(np.eye(n)[i], np.ones(m)) for i in range(n)]
    columns = [np.kron(np.ones(n), np.eye(m)[j]) for j in range(m)]
    limits = np.concatenate([a_weights / a_weights.sum(), b_weights / b_weights.sum()])
    return scipy.optimize.linprog(shorter_way(a, b).ravel(), A_eq=np.stack(rows + columns), b_eq=limits).fun


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 6), (30, 30), (17, 40)])
def test_wasserstein_distance_is_that_of_scipy(n, m, weighted):
    for seed in range(5):
        random = np.random.default_rng(seed)
        a, b = random.normal(size=n).round(seed % 2 * 9), random.normal(0.5, 2, size=m).round(seed % 2 * 9)  # ties too
        weights = (random.exponential(size=n), random.exponential(size=m)) if weighted else (None, None)
        expected = scipy.stats.wasserstein_distance(a, b, *weights)
        tensors = [None if w is None else torch.tensor(w) for w in weights]
        assert abs(wasserstein_distance(torch.tensor(a), torch.tensor(b), *tensors) - expected) < 1e-12


@pytest.mark.parametrize("period", [2 * PI, PI, 1.0])
@pytest.mark.parametrize("n", [1, 2, 3, 8, 25])
def test_circular_wasserstein_is_that_of_the_best_pairing(n, period):
    for seed in range(8):
        random = np.random.default_rng(seed)
        a, b = random.uniform(-3 * period, 3 * period, n), random.normal(0, period / 6, n)
        found = circular_wasserstein(torch.tensor(a), torch.tensor(b), period)
        assert abs(found - by_assignment(a, b, period)) < 1e-12


@pytest.mark.parametrize(("n", "m"), [(1, 5), (6, 4), (9, 9)])
def test_circular_wasserstein_of_weighted_angles_is_that_of_the_best_plan(n, m):
    for seed in range(5):
        random = np.random.default_rng(seed)
        a, b = random.uniform(-PI, PI, n), random.normal(3, 1, m)
        weights = random.exponential(size=n), random.exponential(size=m)
        found = circular_wasserstein(*(torch.tensor(x) for x in (a, b)), 2 * PI, *(torch.tensor(w) for w in weights))
        assert abs(found - by_linear_program(a, b, *weights)) < 1e-9


@pytest.mark.parametrize("distance", [wasserstein_distance, circular_wasserstein, kuiper_distance])
def test_weights_are_repetitions(distance):
    random = np.random.default_rng(0)
    a, b = torch.tensor(random.uniform(-PI, PI, 12)), torch.tensor(random.uniform(-2, PI, 9))
    times = torch.tensor(random.integers(0, 4, 12)), torch.tensor(random.integers(1, 4, 9))
    expected = distance(a.repeat_interleave(times[0]), b.repeat_interleave(times[1]))
    found = distance(a, b, a_weights=0.7 * times[0].double(), b_weights=3 * times[1].double())
    assert abs(found - expected) < 1e-12
    shaped = distance(a.reshape(3, 4), b, a_weights=times[0].reshape(3, 4), b_weights=times[1])
    assert abs(shaped - expected) < 1e-12


def test_closed_forms():
    assert wasserstein_distance(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 6.0])) == 3.5
    for apart in (0.5, 3.0, 4.0, 6.0):
        found = circular_wasserstein(*(torch.tensor([x]).double() for x in (0.25, 0.25 + apart)))
        assert abs(found - min(apart, 2 * PI - apart)) < 1e-12
    arc = torch.linspace(-1, 1, 50).double()
    assert abs(circular_wasserstein(arc + 3.0, arc + 3.4) - 0.4) < 1e-12
    even = torch.arange(400).double() * 2 * PI / 400
    assert abs(circular_wasserstein(even, even + 0.3) - 0) < 2 * PI / 400, "turning an even spread changes nothing"
    assert abs(circular_wasserstein(even, torch.zeros(1)) - PI / 2) < 1e-2, "the mean distance to one point"


def test_circular_wasserstein_does_not_depend_on_the_origin_and_never_exceeds_that_of_the_line():
    random = np.random.default_rng(3)
    a, b = torch.tensor(random.uniform(-PI, PI, 40)), torch.tensor(random.normal(2.8, 0.5, 30))
    found = [circular_wasserstein(a + shift, b + shift) for shift in range(9)]
    assert max(found) - min(found) < 1e-12
    assert found[0] <= wasserstein_distance(*(torch.remainder(x, 2 * PI) for x in (a, b)))
    assert circular_wasserstein(a, a.flip(0) + 2 * PI) < 1e-12
    assert abs(circular_wasserstein(a, b) - circular_wasserstein(b, a)) < 1e-12


def test_noise_and_shifts_move_all_distances_and_the_floor_is_small():
    generator = torch.Generator().manual_seed(0)
    real, other = torch.randn(2, 2000, generator=generator) * 0.5
    for distance in (wasserstein_distance, circular_wasserstein, kuiper_distance):
        floor = distance(other, real)
        assert 0 < floor < 0.05
        shifted = [distance(other + shift, real) for shift in (0.0, 0.2, 0.4)]
        wider = [distance(other + noise * torch.randn(2000, generator=generator), real) for noise in (0.3, 0.6, 1.0)]
        assert shifted == sorted(shifted) and wider == sorted(wider) and wider[0] > floor < shifted[1] / 3


NUMBERS = torch.zeros(3)


@pytest.mark.parametrize("distance", [wasserstein_distance, circular_wasserstein, kuiper_distance])
@pytest.mark.parametrize(
    ("a", "weights"),
    [
        (torch.zeros(0), None),
        (torch.tensor([0.0, math.nan]), None),
        (torch.tensor([0.0, math.inf]), None),
        (NUMBERS, torch.ones(2)),
        (NUMBERS, torch.zeros(3)),
        (NUMBERS, torch.tensor([1.0, -1.0, 2.0])),
        (NUMBERS, torch.tensor([1.0, math.nan, 2.0])),
        (NUMBERS, torch.tensor([1.0, math.inf, 2.0])),
    ],
)
def test_what_has_no_distance_is_refused_with_a_hint(distance, a, weights):
    with pytest.raises(ValueError, match=HELPFUL):
        distance(a, NUMBERS, a_weights=weights)
    with pytest.raises(ValueError, match=HELPFUL):
        distance(NUMBERS, a, b_weights=weights)


@pytest.mark.parametrize("period", [0.0, -1.0, math.inf, math.nan])
def test_periods_are_positive(period):
    with pytest.raises(ValueError, match=HELPFUL):
        circular_wasserstein(NUMBERS, NUMBERS, period)
