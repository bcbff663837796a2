"""Schedules: rates and their exact integrals."""

import math

import pytest
import torch
from helpers import HELPFUL
from scipy.integrate import quad

from kodm_lite.schedules import LinearSchedule

SCHEDULES = [LinearSchedule(0.003, 3.0), LinearSchedule(2.0, 0.5), LinearSchedule(1.5, 1.5), LinearSchedule(0, 0)]
STEPS = [(0.0, 1.0), (0.2, 0.7), (0.99, 1.0), (0.5, 0.5), (0.0, 1e-6)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_runs_straight_from_start_to_end(schedule):
    assert schedule.at(0.0) == schedule.start
    assert schedule.at(1.0) == pytest.approx(schedule.end, rel=1e-15)
    assert schedule.at(0.25) == pytest.approx(0.75 * schedule.start + 0.25 * schedule.end, rel=1e-15)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("t0", "t1"), STEPS)
def test_the_integral_is_that_of_the_rate(schedule, t0, t1):
    expected, _ = quad(schedule.at, t0, t1, epsabs=0, epsrel=1e-13)
    assert schedule.integral(t0, t1) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_integrals_add_up_and_change_sign_with_direction(schedule):
    whole = schedule.integral(0.0, 1.0)
    assert sum(schedule.integral(k / 7, (k + 1) / 7) for k in range(7)) == pytest.approx(whole, rel=1e-14)
    assert schedule.integral(0.9, 0.4) == pytest.approx(-schedule.integral(0.4, 0.9), rel=1e-15)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_one_time_per_image_gives_one_rate_per_image(schedule):
    t0, t1 = torch.tensor([0.0, 0.2], dtype=torch.float64), torch.tensor([0.5, 0.2], dtype=torch.float64)
    assert schedule.at(t1).tolist() == [schedule.at(0.5), schedule.at(0.2)]
    assert schedule.integral(t0, t1).tolist() == [schedule.integral(0.0, 0.5), 0.0]
    assert schedule.integral(0.0, t1).shape == (2,)


def test_scaling_multiplies_every_rate():
    twice = LinearSchedule(0.5, 3.0).scaled(2)
    assert (twice.start, twice.end) == (1.0, 6.0)


@pytest.mark.parametrize("start", [-1e-9, math.nan, math.inf, "1", None, torch.tensor(1.0)])
def test_rates_that_are_none_are_refused_and_named(start):
    with pytest.raises(ValueError, match=HELPFUL) as refusal:
        LinearSchedule(start, 1.0)
    assert "start" in str(refusal.value)
    with pytest.raises(ValueError, match=HELPFUL) as refusal:
        LinearSchedule(1.0, start)
    assert "end" in str(refusal.value)


def test_a_schedule_cannot_be_scaled_below_zero_or_changed():
    with pytest.raises(ValueError, match=HELPFUL):
        LinearSchedule(1.0, 1.0).scaled(-1.0)
    with pytest.raises(AttributeError):
        LinearSchedule(1.0, 1.0).start = 2.0
