"""Inpainting against the conditional law of two coupled oscillators, which is known exactly."""

import math

import pytest
import torch
from helpers import HELPFUL, seeded

from kodm_lite import KuramotoProcess, LinearSchedule, wrap
from kodm_lite.fokker_planck import ExactScore, FokkerPlanck2D
from kodm_lite.inpainting import inpaint

PI = math.pi


def density(a, b):
    """Two bumps: the second phase depends on the first in all ways but its mean direction."""
    bumps = [(1.2, 0.6), (-1.2, 2.4), (1.2, -2.0)]
    turn = 2 * PI * torch.special.i0e(torch.tensor(5.0, dtype=torch.float64))
    turn = turn * 2 * PI * torch.special.i0e(torch.tensor(8.0, dtype=torch.float64))
    return sum(torch.exp(5 * ((a - x).cos() - 1) + 8 * ((b - y).cos() - 1)) for x, y in bumps) / (3 * turn)


@pytest.fixture(scope="module")
def pair():
    process = KuramotoProcess(diffusion=LinearSchedule(0.1, 3.0), coupling_strength=LinearSchedule(0.05, 1.5))
    return process, ExactScore(FokkerPlanck2D(process, density, modes=24))


def distance(samples: torch.Tensor, first: float, bins: int = 24) -> float:
    """Total variation between a histogram of the second phase and its law given the first."""
    fine = torch.linspace(-PI, PI, 64 * bins + 1)[:-1] + PI / (64 * bins)
    law = density(torch.tensor(first), fine).reshape(bins, -1).sum(1)
    counts = torch.histc(samples, bins, -PI, PI)
    return float((counts / counts.sum() - law / law.sum()).abs().sum() / 2)


@pytest.mark.parametrize("first", [1.2, -1.2, 0.3])
def test_corrections_bring_the_missing_phase_to_its_conditional_law(pair, first):
    process, score = pair
    known = torch.tensor([first, 0.0], dtype=torch.float64).expand(3000, 2)
    missing = torch.tensor([False, True])
    wrong, right = (
        inpaint(score, process, known, missing, steps=40, corrections=n, generator=seeded(1)) for n in (0, 10)
    )
    assert torch.equal(right[:, 0], known[:, 0])
    noise = math.sqrt(24 / (2 * PI * 3000))  # about what a histogram of exact draws would have
    assert distance(right[:, 1], first) < (0.1 if first == 0.3 else 0.05) + noise, "0.3 has two bumps to choose from"
    assert distance(right[:, 1], first) < 0.75 * distance(wrong[:, 1], first)


def test_what_is_known_is_kept_and_what_is_not_known_does_not_matter(pair):
    process, score = pair
    known = torch.tensor([[0.5, 0.3], [0.5, 0.3], [4.0, 0.3]], dtype=torch.float64)
    missing = torch.tensor([[False, True], [False, True], [True, False]])
    options = {"steps": 5, "seeds": [1, 1, 2]}
    first = inpaint(score, process, known, missing, **options)
    other = inpaint(score, process, torch.where(missing, math.nan, known), missing, **options)
    assert torch.equal(first, other) and torch.equal(first[0], first[1])
    assert torch.equal(first[~missing], known[~missing])
    assert first.min() >= -PI and first.max() < PI


def test_an_image_does_not_depend_on_the_others_in_its_batch(pair):
    process, score = pair
    known, missing = torch.zeros(2, 2, dtype=torch.float64), torch.tensor([True, False])
    both = inpaint(score, process, known, missing, steps=4, seeds=[5, 6])
    assert torch.allclose(both[1:], inpaint(score, process, known[1:], missing, steps=4, seeds=[6]))


def test_the_callback_sees_the_known_part_on_its_way(pair):
    process, score = pair
    known, seen = torch.full((50, 2), 1.2, dtype=torch.float64), []
    inpaint(
        score, process, known, torch.tensor([False, True]), steps=8, generator=seeded(3),
        callback=lambda t, theta: seen.append((t, float(wrap(theta[:, 0] - 1.2).abs().mean()))),
    )  # fmt: skip
    times, spread = zip(*seen, strict=True)
    assert times[0] == 1 and times[-1] == 0 and len(times) == 9
    assert spread[-1] == 0 and spread[-2] < 0.5 < spread[0]


@pytest.mark.parametrize(
    "bad",
    [
        {"missing": torch.tensor([0, 1])},
        {"missing": [False, True]},
        {"missing": torch.tensor([False, True, True])},
        {"missing": torch.tensor([True, True])},
        {"corrections": -1},
        {"corrections": 1.5},
        {"method": "adams"},
        {"size": 0.0},
        {"size": math.nan},
        {"known": torch.full((2, 2), math.nan)},
        {"known": torch.full((2, 2), 180.0)},
    ],
)
def test_bad_input_ends_in_a_helpful_message(pair, bad):
    process, score = pair
    arguments = {"known": torch.zeros(2, 2), "missing": torch.tensor([False, True]), **bad}
    known, missing = arguments.pop("known"), arguments.pop("missing")
    with pytest.raises(ValueError, match=HELPFUL):
        inpaint(score, process, known, missing, steps=2, **arguments)


def test_corrections_take_the_score_of_the_time_that_the_step_has_reached():
    seen = []

    def network(theta, t):
        seen.append(float(t[0]))
        return -torch.sin(theta)

    known = torch.zeros(1, 4)
    missing = torch.tensor([[True, False, False, False]])
    inpaint(network, KuramotoProcess(), known, missing, steps=4, corrections=2, method="euler", seeds=[0])
    expected = [1.0, 0.75, 0.75, 0.75, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert seen == pytest.approx(expected, abs=1e-6)
