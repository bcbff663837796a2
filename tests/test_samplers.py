"""Samplers on exact scores: the data come back; every method, its order, its last step, seeds, grids and errors."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import seeded
from scipy.optimize import brentq

from kodm_lite import (
    ExactScore,
    FokkerPlanck1D,
    FokkerPlanck2D,
    GibbsPrior,
    GlobalCoupling,
    KuramotoProcess,
    LinearSchedule,
    LocalCoupling,
    OrderParameterPrior,
    VonMises,
    WrappedNormal,
    angle_difference,
    calibrate,
    order_parameter,
    sample,
)
from kodm_lite.calibration import Calibration
from kodm_lite.samplers import time_grid

PI = math.pi
N = 200_000
PROCESS = KuramotoProcess()
METHODS = ("euler", "adams", "ancestral", "ode", "hybrid", "pc")
WIDTH = 0.25
MODES = (WrappedNormal(-2.0, WIDTH), WrappedNormal(2.0, WIDTH))


def two_modes(theta):
    return 0.6 * MODES[0].log_prob(theta).exp() + 0.4 * MODES[1].log_prob(theta).exp()


def draw_two_modes(n, generator):
    first = torch.rand(n, generator=generator) < 0.6
    return torch.where(first, *(mode.sample((n,), generator) for mode in MODES))


def total_variation(theta, density, bins=100, fine=40):
    """Half the sum of absolute differences between a histogram and the density's integrals over its bins."""
    share = torch.histc(theta.flatten().double(), bins, -PI, PI) / theta.numel()
    middle = -PI + (torch.arange(bins * fine, dtype=torch.float64) + 0.5) * 2 * PI / (bins * fine)
    expected = density(middle).reshape(bins, fine).mean(1) * 2 * PI / bins
    return 0.5 * float((share - expected).abs().sum())


class Tabulated:
    """An exact score read off a fine table, linear in between: for many particles at one time."""

    def __init__(self, solution, size=8192):
        self.solution, self.size = solution, size
        self.grid = -PI + 2 * PI * torch.arange(size + 1, dtype=torch.float64) / size

    def __call__(self, theta, t):
        table = self.solution.score(self.grid, float(t[0])).to(theta.dtype)
        position = (theta + PI) * (self.size / (2 * PI))
        k = position.long().clamp(0, self.size - 1)
        return torch.lerp(table[k], table[k + 1], position - k)


@pytest.fixture(scope="module")
def solution():
    # Images of one oscillator, which feels no neighbours: exactly the uncoupled equation.
    return FokkerPlanck1D(KuramotoProcess(coupling_strength=LinearSchedule(0, 0)), two_modes)


@pytest.fixture(scope="module")
def score(solution):
    return Tabulated(solution)


@pytest.fixture(scope="module")
def calibration(score):
    return calibrate(score, PROCESS, draw_two_modes(20_000, seeded(1))[:, None], generator=seeded(2))


@pytest.fixture(scope="module")
def errors(score, calibration):
    """Total variation to the data for every method at 100 and 25 steps, 2e5 particles."""
    return {
        (method, steps): total_variation(
            sample(score, PROCESS, (N, 1), steps=steps, method=method, calibration=calibration, generator=seeded(3)),
            two_modes,
        )
        for method in METHODS
        for steps in (100, 25)
    }


def test_the_table_is_the_exact_score(solution, score):
    theta = torch.rand(500, 1, generator=seeded(0), dtype=torch.float64) * 2 * PI - PI
    for t in (0.01, 0.3, 1.0):
        times = torch.full((500,), t, dtype=torch.float64)
        torch.testing.assert_close(score(theta, times), ExactScore(solution)(theta, times), atol=3e-4, rtol=1e-4)


def test_the_histogram_test_itself_is_as_noisy_as_expected():
    assert total_variation(draw_two_modes(N, seeded(4)), two_modes) < 0.0075


def test_the_calibrated_ancestral_sampler_returns_the_data(errors):
    assert errors["ancestral", 100] < 0.010
    assert errors["ancestral", 25] < 0.015


def test_the_ancestral_sampler_does_so_with_the_exact_score_itself(solution, calibration):
    theta = sample(
        ExactScore(solution),
        PROCESS,
        (N, 1),
        steps=25,
        method="ancestral",
        calibration=calibration,
        generator=seeded(5),
    )
    assert total_variation(theta, two_modes) < 0.015


def test_euler_is_too_noisy_by_an_error_of_order_one(errors):
    assert 0.012 < errors["euler", 100] < 0.022
    assert 0.04 < errors["euler", 25] < 0.06
    assert errors["euler", 25] > 2.5 * errors["ancestral", 25]


def test_euler_widens_the_modes_and_calibrated_noise_does_not(score, calibration):
    """The Euler step adds the noise v although given theta_1 only v (1 - v m) is left: samples are too wide."""

    def width(method):
        theta = sample(score, PROCESS, (N, 1), steps=25, method=method, calibration=calibration, generator=seeded(3))
        return float(theta[theta < 0].std())

    assert width("euler") > 1.08 * WIDTH
    assert abs(width("ancestral") / WIDTH - 1) < 0.04


def test_predictor_corrector_beats_euler(errors):
    assert errors["pc", 100] < errors["euler", 100] and errors["pc", 25] < 0.75 * errors["euler", 25]


def test_the_probability_flow_is_exact_but_keeps_whatever_error_its_start_has(solution, score, errors):
    """A deterministic flow is one-to-one, so total variation between start and terminal law survives it unchanged."""
    fine = torch.linspace(-PI, PI, 2001, dtype=torch.float64)[:-1]
    alone = KuramotoProcess(coupling_strength=LinearSchedule(0, 0)).prior()
    start = alone.sample((N, 1), seeded(5))
    gap = 0.5 * float((solution.density(fine, 1.0) - alone.log_prob(fine).exp()).abs().sum()) * 2 * PI / 2000
    assert gap > 0.01  # the published schedule ends near the von Mises law, not in it
    theta = sample(score, PROCESS, (N, 1), method="ode", start=start, generator=seeded(3))
    assert abs(total_variation(theta, two_modes) - gap) < 0.005
    terminal = PROCESS.simulate(draw_two_modes(N, seeded(6))[:, None], 1.0, generator=seeded(7))
    for steps in (100, 25):
        back = sample(score, PROCESS, (N, 1), steps=steps, method="ode", start=terminal)
        assert total_variation(back, two_modes) < 0.5 * errors["euler", steps]


@pytest.mark.parametrize("method", METHODS)
def test_from_the_true_terminal_law_a_thousand_oscillators_in_one_field_come_back(method):
    """With coupling: one image of many oscillators, whose common field is that of the mean-field equation."""
    solution = FokkerPlanck1D(PROCESS, two_modes)
    network = Tabulated(solution)
    theta0 = draw_two_modes(N, seeded(6))[None]
    start = PROCESS.simulate(theta0, 1.0, generator=seeded(7))
    noise = calibrate(network, PROCESS, theta0[:, :20_000], generator=seeded(8))
    theta = sample(network, PROCESS, (1, N), method=method, calibration=noise, start=start, generator=seeded(9))
    assert (
        total_variation(theta, two_modes)
        < {"euler": 0.022, "adams": 0.012, "hybrid": 0.012, "ancestral": 0.011, "ode": 0.011, "pc": 0.014}[method]
    )
    assert abs(complex(order_parameter(theta)) - complex(solution.order_parameter(0.0))) < 0.01


def test_two_coupled_oscillators_come_back_with_their_dependence():
    """The joint score on the torus: the second phase follows the first by 1 rad, and so it does in the samples."""

    def joint(a, b):
        return two_modes(a) * VonMises(1.0, 6.0).log_prob(b - a).exp()

    solution = FokkerPlanck2D(PROCESS.scaled(2.0), joint, modes=32)
    theta = sample(ExactScore(solution), PROCESS.scaled(2.0), (2000, 2), steps=100, method="ode", generator=seeded(10))
    lag = theta[:, 1] - theta[:, 0]
    expected = complex(torch.exp(torch.tensor(1j))) * float(VonMises(1.0, 6.0).mean_resultant_length())
    assert abs(complex(order_parameter(lag)) - expected) < 0.03
    assert abs(complex(order_parameter(theta[:, 0])) - complex(solution.modes(0.0)[33, 32])) < 0.06


def smooth_solution():
    return FokkerPlanck1D(
        KuramotoProcess(coupling_strength=LinearSchedule(0, 0)), lambda x: VonMises(1.0, 2.0).log_prob(x).exp()
    )


def test_the_probability_flow_is_of_second_order():
    network = ExactScore(smooth_solution())
    start = torch.linspace(-3, 3, 60, dtype=torch.float64)[:, None]

    def flow(steps):
        return sample(network, PROCESS, (60, 1), steps=steps, method="ode", start=start)

    exact = flow(800)
    gaps = [float(angle_difference(flow(steps), exact).abs().max()) for steps in (12, 24, 48)]
    orders = [math.log2(a / b) for a, b in pairwise(gaps)]
    assert all(1.7 < order < 2.4 for order in orders), (gaps, orders)


def test_the_probability_flow_maps_quantiles_to_quantiles():
    """In one dimension the exact flow keeps the order of points: it carries each quantile at t = 1 to that at 0."""
    solution = smooth_solution()
    fine = torch.linspace(-PI, PI, 20_001, dtype=torch.float64)

    def mass(points, t):  # between the points, the same before and after if the flow is exact
        density = solution.density(fine, t)
        cdf = torch.cat((torch.zeros(1), ((density[1:] + density[:-1]) / 2 * (2 * PI / 20_000)).cumsum(0)))
        index = ((points + PI) / (2 * PI) * 20_000).round().long()
        return cdf[index[1:]] - cdf[index[:-1]]

    start = torch.linspace(-1.5, 1.5, 13, dtype=torch.float64)
    end = sample(ExactScore(solution), PROCESS, (13, 1), steps=400, method="ode", start=start[:, None])[:, 0]
    torch.testing.assert_close(mass(end, 0.0), mass(start, 1.0), atol=5e-4, rtol=0)


def last_steps(method, score, calibration, times=(0.3, 0.2, 0.0)):
    frames = []
    sample(
        score,
        PROCESS,
        (6, 1),
        method=method,
        calibration=calibration,
        times=times,
        prior=GibbsPrior(PROCESS),
        generator=seeded(11),
        callback=lambda t, x: frames.append((t, x)),
    )
    return frames


@pytest.mark.parametrize("method", METHODS)
def test_the_last_step_returns_its_mean_without_noise(method, score, calibration):
    frames = last_steps(method, score, calibration)
    before, after = frames[1][1], frames[2][1]
    step = PROCESS.coefficients(0.0, 0.2)
    pull = step.reference * torch.sin(-before)  # alone, an oscillator feels the reference only
    kick = step.variance * score(before, torch.full((6,), 0.2))
    if method in ("ancestral", "hybrid"):  # undoes the kick first, then the pull where the kick began
        pull = step.reference * torch.sin(-(before + kick))
    mean = before - pull + kick
    if method == "ode":
        mean = before + flow_step(score, *((t, x) for t, x in frames[:2]), 0.0)
    assert float(angle_difference(after, mean).abs().max()) < 1e-5


def flow_step(score, last, now, end):
    """The two-step rule in the angle, from (time, state) of the last two steps, in terms of arc cosines."""

    def turn(t):
        return math.acos(math.exp(-PROCESS.coefficients(0.0, t).variance / 2))

    def velocity(t, theta):
        ratio = PROCESS.reference_strength.at(t) / PROCESS.diffusion.at(t)
        return math.tan(turn(t)) * (score(theta, torch.full((len(theta),), t)) + ratio * torch.sin(theta))

    (t2, theta2), (t1, theta1) = last, now
    slope = (velocity(t2, theta2) - velocity(t1, theta1)) / (turn(t2) - turn(t1))
    length = turn(t1) - turn(end)
    return length * (velocity(t1, theta1) - length / 2 * slope)


@pytest.mark.parametrize("method", ["euler", "ancestral"])
def test_a_step_reverses_the_forward_step_between_the_same_times(method, calibration):
    """Mean and variance of many steps from 0.6 to 0.55 with a score that is constant."""
    n = 40_000
    start = torch.full((n, 1), 0.8, dtype=torch.float64)
    options = {"method": method, "calibration": calibration, "times": [0.6, 0.55], "start": start}
    theta = sample(lambda x, t: torch.full_like(x, 0.25), PROCESS, (n, 1), generator=seeded(12), **options)
    coupling, reference, variance = PROCESS.coefficients(0.55, 0.6)
    assert variance == pytest.approx(0.05 * (0.01 + 9.99 * 0.575)) and reference == pytest.approx(1.5 * coupling)
    moved = angle_difference(theta, start)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)  # quadrature over the normal kick
    if method == "euler":  # the pull of the start, then the kick
        end = reference * math.sin(0.8) + 0.25 * variance + math.sqrt(variance) * nodes
    else:  # the kick, then the pull where it began
        kick = 0.25 * variance + math.sqrt(variance * (1 - variance * calibration.at(0.6))) * nodes
        end = kick + reference * np.sin(0.8 + kick)
    mean, square = (float((weights * end**k).sum() / weights.sum()) for k in (1, 2))
    spread = square - mean**2
    assert float(moved.mean()) == pytest.approx(mean, abs=4 * math.sqrt(spread / n))
    assert float(moved.var()) == pytest.approx(spread, rel=4 * math.sqrt(2 / n))


@pytest.mark.parametrize("method", METHODS)
def test_the_network_is_asked_at_the_time_of_the_state_it_sees(method, calibration):
    asked = []

    def network(theta, t):
        assert t.shape == (3,) and t.dtype == theta.dtype
        asked.append(round(float(t[0]), 6))
        return torch.zeros_like(theta)

    sample(network, PROCESS, (3, 2), steps=4, method=method, calibration=calibration, generator=seeded(0))
    twice = [1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]
    assert asked == (twice if method == "pc" else twice[::2])


def test_reverse_steps_use_up_the_whole_noise_of_the_forward_process():
    """The published code never reversed its first step.  Here all reverse steps add up to the whole."""
    times = time_grid(7)
    parts = [PROCESS.coefficients(b, a) for a, b in pairwise(times)]
    for k in range(3):
        assert sum(part[k] for part in parts) == pytest.approx(PROCESS.coefficients(0.0, 1.0)[k], rel=1e-12)
    assert times[0] == 1.0 and times[-1] == 0.0 and len(times) == 8


def test_grids_of_steps_are_evenly_spaced_or_given(score):
    by_steps = sample(score, PROCESS, (5, 1), steps=4, generator=seeded(13))
    by_times = sample(score, PROCESS, (5, 1), times=[1.0, 0.75, 0.5, 0.25, 0.0], generator=seeded(13))
    assert torch.equal(by_steps, by_times)
    assert sample(score, PROCESS, (5, 1), steps=1, generator=seeded(0)).shape == (5, 1)


def test_a_grid_may_stop_before_the_data_and_then_stays_noisy(score):
    a, b = (
        sample(score, PROCESS, (5, 1), method="euler", times=[1.0, 0.5], start=torch.zeros(5, 1), generator=seeded(s))
        for s in (1, 2)
    )
    assert not torch.equal(a, b)


@pytest.mark.parametrize("coupling", [GlobalCoupling(), LocalCoupling(1)])
@pytest.mark.parametrize("method", METHODS)
def test_with_seeds_an_image_does_not_depend_on_the_batch(method, coupling, score, calibration):
    process = KuramotoProcess(coupling)
    options = {"steps": 5, "method": method, "calibration": calibration}
    batch = sample(score, process, (4, 1, 6, 6), seeds=[7, 8, 9, 10], **options)
    alone = sample(score, process, (1, 1, 6, 6), seeds=(9,), **options)
    assert float(angle_difference(batch[2:3], alone).abs().max()) < 1e-5
    assert torch.equal(batch, sample(score, process, (4, 1, 6, 6), seeds=range(7, 11), **options))
    assert float(angle_difference(batch[0], batch[1]).abs().max()) > 0.1


def test_one_generator_reproduces_a_batch_and_a_generator_per_image_is_as_good_as_seeds(score):
    a, b = (sample(score, PROCESS, (3, 4), steps=3, generator=seeded(5)) for _ in range(2))
    assert torch.equal(a, b)
    by_seeds = sample(score, PROCESS, (3, 4), steps=3, seeds=[1, 2, 3])
    assert torch.equal(by_seeds, sample(score, PROCESS, (3, 4), steps=3, generator=[seeded(s) for s in (1, 2, 3)]))


def first_frame(**options):
    frames = []
    sample(
        lambda x, t: torch.zeros_like(x),
        PROCESS,
        (3, 1, 4, 4),
        steps=2,
        callback=lambda t, x: frames.append(x),
        **options,
    )
    return frames[0]


def test_sampling_starts_from_the_prior_and_never_from_data():
    expected = GibbsPrior(PROCESS).sample((3, 1, 4, 4), seeded(14))
    assert torch.equal(first_frame(generator=seeded(14)), expected)
    prior = OrderParameterPrior(torch.tensor([0.3j, 0.4 + 0j]))
    assert torch.equal(first_frame(prior=prior, generator=seeded(15)), prior.sample((3, 1, 4, 4), seeded(15)))


def test_a_given_start_is_used_and_left_alone():
    start = torch.linspace(-3, 3, 48).reshape(3, 1, 4, 4)
    kept = start.clone()
    assert torch.equal(first_frame(start=start), kept) and torch.equal(start, kept)


def test_the_callback_sees_every_state_and_the_result_last(score):
    frames = []
    theta = sample(
        score, PROCESS, (4, 1), steps=5, generator=seeded(16), callback=lambda t, x: frames.append((t, x.clone()))
    )
    assert [t for t, _ in frames] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.0])
    assert torch.equal(frames[-1][1], theta)
    assert float(theta.min()) >= -PI and float(theta.max()) < PI


def test_an_error_in_the_callback_reaches_the_caller(score):
    def stop(t, theta):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(score, PROCESS, (4, 1), steps=5, callback=stop)


def test_the_progress_bar_counts_steps(score, capsys):
    sample(score, PROCESS, (4, 1), steps=5, progress=True)
    assert "5/5" in capsys.readouterr().err
    sample(score, PROCESS, (4, 1), steps=5)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (2, 3, 8, 8), (1, 1, 1, 1), (1, 5)])
@pytest.mark.parametrize("method", METHODS)
def test_one_image_and_any_number_of_channels_work_without_a_gpu(shape, method, calibration):
    theta = sample(lambda x, t: -torch.sin(x), PROCESS, shape, steps=3, method=method, calibration=calibration)
    assert theta.shape == shape and theta.dtype == torch.float32 and theta.device.type == "cpu"


def test_no_gradient_is_recorded():
    network = torch.nn.Linear(4, 4)
    assert not sample(lambda x, t: network(x), PROCESS, (3, 4), steps=2).requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_network_of_another_precision_leaves_the_precision_of_the_state(dtype):
    assert sample(lambda x, t: -x.sin().to(dtype), PROCESS, (3, 4), steps=3).dtype == torch.float32
    start = torch.zeros(3, 4, dtype=torch.float64)
    assert sample(lambda x, t: -x.sin().to(dtype), PROCESS, (3, 4), steps=3, start=start).dtype == torch.float64


def test_calibration_measures_the_second_moment_of_the_score(solution, calibration):
    fine = torch.linspace(-PI, PI, 2001, dtype=torch.float64)[:-1]
    for t in (0.1, 0.5, 1.0):
        exact = float((solution.density(fine, t) * solution.score(fine, t) ** 2).sum() * 2 * PI / 2000)
        assert calibration.at(t) == pytest.approx(exact, rel=0.05)
    assert calibration.times == pytest.approx([k / 50 for k in range(1, 51)])


def test_calibration_is_log_linear_between_times_and_constant_outside():
    calibration = Calibration((0.2, 0.6), (16.0, 4.0))
    assert [calibration.at(t) for t in (0.0, 0.2, 0.4, 0.6, 1.0)] == pytest.approx([16.0, 16.0, 8.0, 4.0, 4.0])
    assert Calibration((0.2, 0.6), (0.0, 0.0)).at(0.3) == 0.0


def test_a_score_of_zero_can_be_calibrated():
    calibration = calibrate(lambda x, t: torch.zeros_like(x), PROCESS, torch.zeros(3, 4), points=4)
    theta = sample(
        lambda x, t: torch.zeros_like(x), PROCESS, (3, 4), steps=3, method="ancestral", calibration=calibration
    )
    assert torch.isfinite(theta).all()


@pytest.mark.parametrize(
    ("times", "moments"),
    [
        ((), ()),
        ((0.1,), (1.0, 2.0)),
        ((0.5, 0.1), (1.0, 1.0)),
        ((0.5, 1.5), (1.0, 1.0)),
        ((0.5,), (-1.0,)),
        ((0.5,), (math.nan,)),
        ((math.nan,), (1.0,)),
    ],
)
def test_what_is_no_calibration_is_refused(times, moments):
    with pytest.raises(ValueError, match="calibration: got"):
        Calibration(times, moments)


def test_huge_scores_leave_the_ancestral_variance_at_zero_rather_than_below():
    calibration = Calibration((0.5,), (1e6,))
    theta = sample(
        lambda x, t: -x.sin(),
        PROCESS,
        (3, 4),
        steps=3,
        method="ancestral",
        calibration=calibration,
        start=torch.ones(3, 4),
    )
    assert torch.isfinite(theta).all()


BAD = {
    "unknown method": ({"method": "magic"}, "method: got 'magic', expected one of"),
    "ancestral without calibration": ({"method": "ancestral"}, "calibration: got None"),
    "seeds and a generator": ({"seeds": [1, 2], "generator": torch.Generator()}, "got both"),
    "too few seeds": ({"seeds": [1]}, "seeds: got .* one integer per image, 2"),
    "one seed for all": ({"seeds": 3}, "seeds: got 3"),
    "too many generators": ({"generator": [torch.Generator()] * 3}, "got 3 generators"),
    "no steps": ({"steps": 0}, "steps: got 0"),
    "one time": ({"times": [1.0]}, "times: got"),
    "increasing times": ({"times": [0.0, 1.0]}, "times: got"),
    "a repeated time": ({"times": [1.0, 0.5, 0.5, 0.0]}, "times: got"),
    "a time after the prior": ({"times": [1.5, 0.0]}, "times: got"),
    "a time before the data": ({"times": [1.0, -0.5]}, "times: got"),
    "a time that is NaN": ({"times": [1.0, math.nan, 0.0]}, "times: got"),
    "a start of another shape": ({"start": torch.zeros(3, 4)}, "start: got shape"),
    "half a step": ({"steps": 2.5}, "steps: got 2.5"),
    "a start in degrees": ({"start": torch.full((2, 4), 90.0)}, "radians"),
    "a start with NaN": ({"start": torch.full((2, 4), math.nan)}, "start: got NaN"),
    "a start of integers": ({"start": torch.zeros(2, 4, dtype=torch.long)}, "start: got dtype"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_sampling_refuses(case):
    options, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        sample(lambda x, t: torch.zeros_like(x), PROCESS, (2, 4), **options)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 4), (0, 4), 4])
def test_sampling_refuses_shapes_that_are_not_simulated(shape):
    with pytest.raises(ValueError, match=r"shape: got .*expected"):
        sample(lambda x, t: torch.zeros_like(x), PROCESS, shape)


def test_a_prior_that_draws_another_shape_is_refused():
    class Wrong:
        def sample(self, shape, generator=None):
            return torch.zeros(7, 4)

    with pytest.raises(ValueError, match=r"prior: got shape \(7, 4\), expected \(2, 4\)"):
        sample(lambda x, t: torch.zeros_like(x), PROCESS, (2, 4), prior=Wrong())


def test_a_reference_field_that_does_not_fit_is_refused_whatever_the_start():
    process = KuramotoProcess(reference_phase=torch.zeros(3, 4, 4))
    for start in (None, torch.zeros(2, 1, 4, 4)):
        with pytest.raises(ValueError, match="reference_phase: got shape"):
            sample(lambda x, t: torch.zeros_like(x), process, (2, 1, 4, 4), start=start)


def test_a_network_of_another_shape_is_refused_by_sampling_and_calibration():
    for call in (lambda n: sample(n, PROCESS, (2, 4)), lambda n: calibrate(n, PROCESS, torch.zeros(2, 4))):
        with pytest.raises(ValueError, match=r"network: got shape \(2,\) for states of shape \(2, 4\)"):
            call(lambda x, t: x.sum(1))


@pytest.mark.parametrize("method", METHODS)
def test_a_state_that_becomes_nan_stops_and_names_the_step(method, calibration):
    def network(theta, t):
        return torch.zeros_like(theta) if float(t[0]) > 0.6 else torch.full_like(theta, math.nan)

    # The second evaluation of pc already looks at the end of the step before.
    step = 2 if method == "pc" else 3
    with pytest.raises(FloatingPointError, match=rf"NaN or infinite in step {step}, from t"):
        sample(network, PROCESS, (2, 4), steps=4, method=method, calibration=calibration)


FINE_STEPS = 200


def reverse_moments(network, start, method, steps, monkeypatch, end=0.3, seed=30):
    """E exp(i theta) and E exp(2 i theta) at ``end``, from a given start at t = 1, driven by one and the same path of
    noise whatever the number of steps: differences between two runs hold hardly any Monte Carlo error."""
    noise, used = torch.randn(FINE_STEPS, *start.shape, generator=seeded(seed), dtype=start.dtype), []
    fine = [1 - (1 - end) * k / FINE_STEPS for k in range(FINE_STEPS + 1)]
    stds = [math.sqrt(PROCESS.coefficients(b, a).variance) for a, b in pairwise(fine)]
    length = FINE_STEPS // steps

    def path(like, generator):
        part = slice(len(used) * length, (len(used) + 1) * length)
        used.append(part)
        weights = torch.tensor(stds[part], dtype=like.dtype)
        return torch.einsum("k,k...->...", weights, noise[part]) / weights.norm()

    monkeypatch.setattr("kodm_lite.samplers.normal", path)
    theta = sample(network, PROCESS, start.shape, method=method, times=fine[::length], start=start)
    assert len(used) == steps
    return torch.stack([torch.exp(1j * n * theta).mean() for n in (1, 2)])


def test_adams_is_of_second_order_in_law_and_euler_of_first(monkeypatch):
    solution = smooth_solution()
    grid = torch.linspace(-PI, PI, 4001, dtype=torch.float64)
    cdf = solution.density(grid, 1.0).cumsum(0)
    quantiles = (torch.arange(12_000, dtype=torch.float64) + 0.5) / 12_000
    start = torch.as_tensor(np.interp(quantiles, cdf / cdf[-1], grid))[:, None]
    network = Tabulated(solution)

    def moments(method, steps):
        return reverse_moments(network, start, method, steps, monkeypatch)

    exact = moments("adams", FINE_STEPS)
    assert float((exact - solution.modes(0.3)[1:3]).abs().max()) < 5 / math.sqrt(len(start))  # the law it should be
    adams, euler = ([float((moments(m, steps) - exact).abs().norm()) for steps in (20, 40)] for m in ("adams", "euler"))
    assert 1.75 < math.log2(adams[0] / adams[1]) < 2.3, adams
    assert 0.85 < math.log2(euler[0] / euler[1]) < 1.15, euler
    assert adams[0] < 0.25 * euler[0] and adams[1] < 0.12 * euler[1]


STILL = KuramotoProcess(coupling_strength=LinearSchedule(0, 0), reference_strength=LinearSchedule(0, 0))


def point_score(theta, t, phase=0.7):
    """All data at one phase: the exact score where turns do not matter."""
    return -angle_difference(theta, torch.full_like(theta, phase)) / variance_at(t)[:, None]


def variance_at(t):
    return STILL.coefficients(torch.zeros_like(t), t).variance


def test_the_flow_takes_points_home_in_few_steps():
    """Around a point the exact flow shrinks like sqrt(V), and in the angle that is all but a straight line."""
    start = torch.linspace(0.1, 1.3, 7, dtype=torch.float64)[:, None]
    first, last = time_of(STILL, 0.3), time_of(STILL, 0.003)
    times = [first + (last - first) * k / 4 for k in range(5)]
    theta = sample(point_score, STILL, (7, 1), method="ode", times=times, start=start)
    torch.testing.assert_close(theta - 0.7, 0.1 * (start - 0.7), rtol=0.01, atol=1e-12)
    home = sample(point_score, STILL, (7, 1), method="ode", times=[*times, 0.0], start=start)
    assert float((home - 0.7).abs().max()) < 2e-3


@pytest.mark.parametrize("ends", [(1.0, 5.0), (5.0, 1.0)])
def test_the_flow_does_not_move_what_has_the_score_of_equilibrium(ends):
    """Whatever the schedules do: its velocity is the distance of the score from drift / D."""
    process = KuramotoProcess(coupling_strength=LinearSchedule(*ends), diffusion=LinearSchedule(2.0, 3.0))
    start = 3 * torch.rand(4, 1, 8, 8, generator=seeded(3)) - 1.5

    def equilibrium(theta, t):
        return process.drift(theta, float(t[0])) / process.diffusion.at(float(t[0]))

    theta = sample(equilibrium, process, (4, 1, 8, 8), steps=6, method="ode", start=start)
    assert float(angle_difference(theta, start).abs().max()) < 1e-4


@pytest.mark.parametrize("strength", [30.0, 1000.0])
@pytest.mark.parametrize("method", METHODS)
def test_any_strength_of_the_process_can_be_reversed(method, strength, calibration):
    process = PROCESS.scaled(strength)  # so much noise that u is pi / 2 to all digits in many steps

    def equilibrium(theta, t):
        return process.drift(theta, t) / process.diffusion.at(t)[:, None]

    theta = sample(equilibrium, process, (3, 5), steps=7, method=method, calibration=calibration, generator=seeded(3))
    assert torch.isfinite(theta).all()


def test_hybrid_is_the_flow_while_it_is_open_what_appears_and_ancestral_from_there(score, calibration):
    frames: dict[str, list] = {"ode": [], "hybrid": []}
    decided = time_of(PROCESS, 1.0)
    times = [1.0, 0.8, 0.6, decided + 1e-3, decided - 1e-3, 0.3, 0.1, 0.0]
    options = {"times": times, "calibration": calibration, "start": torch.linspace(-3, 3, 6)[:, None]}
    for method, states in frames.items():
        sample(
            score,
            PROCESS,
            (6, 1),
            method=method,
            generator=seeded(4),
            callback=lambda t, x, s=states: s.append(x),
            **options,
        )
    for k in range(5):  # the step from decided + 1e-3 is still one of the flow
        assert torch.equal(frames["hybrid"][k], frames["ode"][k])
    options |= {"times": times[4:], "start": frames["hybrid"][4]}
    rest = sample(score, PROCESS, (6, 1), method="ancestral", generator=seeded(4), **options)
    torch.testing.assert_close(rest, frames["hybrid"][-1])


def test_hybrid_returns_the_data_in_as_few_steps_as_the_best(errors):
    assert errors["hybrid", 100] < 0.010
    assert errors["hybrid", 25] < 0.016
    assert errors["hybrid", 25] < 0.4 * errors["euler", 25]


def test_hybrid_leaves_the_right_noise_around_points():
    """After any steps near points, theta - phase has the variance of the forward process."""
    n = 40_000
    start = 0.7 + 0.3 * torch.randn(n, 1, generator=seeded(1), dtype=torch.float64)
    first, last = time_of(STILL, 0.09), time_of(STILL, 0.01)
    times = [first, 0.6 * first, last]
    second_moments = tuple(1 / STILL.coefficients(0.0, t).variance for t in times[1::-1])
    known = Calibration(tuple(times[1::-1]), second_moments)
    options = {"times": times, "start": start, "generator": seeded(2)}
    theta = sample(point_score, STILL, (n, 1), method="hybrid", calibration=known, **options)
    spread = angle_difference(theta, torch.full((n, 1), 0.7))
    assert float(spread.square().mean()) == pytest.approx(0.01, rel=5 * (2 / n) ** 0.5)
    assert abs(float(spread.mean())) < 5 * 0.1 / n**0.5
    euler = angle_difference(sample(point_score, STILL, (n, 1), method="euler", **options), torch.full((n, 1), 0.7))
    assert float(euler.square().mean()) > 0.015  # the noise of the forward step is too much there


def time_of(process, variance):
    return brentq(lambda t: process.coefficients(0.0, t).variance - variance, 0, 1)


def test_adams_returns_the_data_better_than_euler(errors):
    assert errors["adams", 100] < 0.75 * errors["euler", 100]
    assert errors["adams", 25] < 0.95 * errors["euler", 25]  # most of it is the noise of the steps near the data


def test_adams_keeps_the_stationary_order_parameter_that_euler_lowers():
    """At constant rates, drift over diffusion is exactly the score, and nothing but an error of the steps moves r."""
    rates = {"coupling_strength": 6.0, "reference_strength": 9.0, "diffusion": 10.0}
    process = KuramotoProcess(**{name: LinearSchedule(rate, rate) for name, rate in rates.items()})
    start = GibbsPrior(process, relaxation=60, variance=0.1).sample((300, 1, 12, 12), seeded(1))

    def r(theta):  # the mean of cos theta over images, and its standard error
        means = theta.cos().flatten(1).mean(1)
        return float(means.mean()), float(means.std()) / math.sqrt(len(means))

    def after(method, steps):  # for a duration of 1/2, so not down to t = 0, whose last step adds no noise
        times = [1 - 0.5 * k / steps for k in range(steps + 1)]
        return r(
            sample(
                lambda x, t: process.drift(x, 1.0) / 10.0,
                process,
                tuple(start.shape),
                method=method,
                times=times,
                start=start,
                generator=seeded(2),
            )
        )

    before, error = r(start)
    assert after("euler", 25)[0] < before - 0.03
    assert abs(after("adams", 25)[0] - before) < 0.012 + 4 * error
    assert abs(after("adams", 50)[0] - before) < 0.003 + 4 * error
    assert abs(after("adams", 25)[0] - before) < 0.5 * abs(after("euler", 25)[0] - before)


def test_the_first_step_of_adams_is_that_of_euler_and_the_second_is_extrapolated(score):
    start = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    options = {"start": start, "times": [1.0, 0.9, 0.8]}
    frames = {}
    for method in ("euler", "adams"):
        states = frames[method] = []
        sample(
            score,
            PROCESS,
            (7, 1),
            method=method,
            generator=seeded(4),
            callback=lambda t, x, s=states: s.append(x),
            **options,
        )
    assert torch.equal(frames["adams"][1], frames["euler"][1])
    first, second = (PROCESS.coefficients(b, a) for a, b in ((1.0, 0.9), (0.9, 0.8)))

    def velocity(theta, t, step):
        return score(theta, torch.full((7,), t)) + step.reference / step.variance * torch.sin(theta)

    bend = velocity(frames["adams"][1], 0.9, second) - velocity(start, 1.0, first)
    expected = second.variance * (second.variance / first.variance) / 2 * bend
    moved = angle_difference(frames["adams"][2], frames["euler"][2])
    torch.testing.assert_close(moved, expected, rtol=1e-5, atol=1e-7)


def test_adams_does_not_extrapolate_into_the_data(score):
    """The last steps, which take a quarter of the noise that is left or more, are those of Euler."""
    start = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    a, b = (
        sample(score, PROCESS, (7, 1), method=m, times=[0.2, 0.15, 0.1, 0.0], start=start, generator=seeded(4))
        for m in ("adams", "euler")
    )
    assert torch.equal(a, b)


def test_adams_forgets_between_calls_and_is_reproducible(score):
    def draw(**options):
        return sample(score, PROCESS, (3, 1), steps=6, method="adams", **options)

    first = draw(seeds=[1, 2, 3])
    draw(seeds=[7, 8, 9])
    assert torch.equal(draw(seeds=[1, 2, 3]), first)
    assert torch.equal(draw(generator=seeded(5)), draw(generator=seeded(5)))
    assert not torch.equal(draw(generator=seeded(5)), draw(generator=seeded(6)))


@pytest.mark.parametrize("method", ["ode", "hybrid"])
def test_the_flow_refuses_to_begin_without_noise(method, calibration):
    process = KuramotoProcess(diffusion=LinearSchedule(5.0, 0.0))
    with pytest.raises(ValueError, match=r"diffusion: got 0 at t = 1, expected noise"):
        sample(lambda x, t: -x, process, (2, 4), start=torch.zeros(2, 4), method=method, calibration=calibration)


def test_chunks_do_not_hide_a_start_of_another_shape():
    with pytest.raises(ValueError, match=r"start: got shape \(3, 4\), expected \(2, 4\)"):
        sample(lambda x, t: -x, PROCESS, (2, 4), start=torch.zeros(3, 4), chunk=1)
