"""What a network is regressed on, compared with exact scores: unbiased targets, their weights, the collective term."""

import cmath
import math
from dataclasses import asdict
from itertools import pairwise, product

import pytest
import torch
from helpers import random_phases, seeded

from kodm_lite import (
    ExactScore,
    FokkerPlanck1D,
    FokkerPlanck2D,
    GlobalCoupling,
    KuramotoProcess,
    LinearSchedule,
    LocalCoupling,
    VonMises,
)
from kodm_lite.euclidean import VariancePreserving, WhiteNoise
from kodm_lite.losses import PARTS
from kodm_lite.objectives import (
    Loss,
    MeanField,
    Transition,
    collective_error,
    early_times,
    mean_field_score_matching,
    random_times,
    transition_score_matching,
)

PI = math.pi
START = VonMises(2.0, 3.0)
STRONG = KuramotoProcess().scaled(1.5)
OBJECTIVES = {"transition": transition_score_matching, "mean field": mean_field_score_matching}


def clock(t):
    return 0.01 * t + 4.995 * t**2  # the integral of 2 D of the published schedule


def transition_variance(t, steps=100):
    return clock(t) - clock((t - 1 / steps).clamp(min=0))


def targets(objective, process, theta0, t, weight, **options):
    """The states that the network sees, and the target of the first phase of each: a predictor of +1 for that phase
    and one of -1 differ in their squared errors by four times the target."""
    seen, errors = [], []
    for sign in (1.0, -1.0):

        def network(theta, _, sign=sign):
            seen.append(theta)
            answer = torch.zeros_like(theta)
            answer[:, 0] = sign
            return answer

        times = torch.full((len(theta0),), t, dtype=torch.float64)
        errors.append(objective(network, process, theta0, t=times, generator=seeded(3), **options).error[:, 0])
    assert torch.equal(*seen)
    return seen[0], theta0.shape[1] * (errors[1] - errors[0]) / (4 * weight)


def mean_and_error(values):
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))


ONE = {
    "sin": torch.sin,
    "cos": torch.cos,
    "sin 2": lambda x: torch.sin(2 * x),
    "cos 2": lambda x: torch.cos(2 * x),
    "sin 3": lambda x: torch.sin(3 * x),
}


@pytest.fixture(scope="module")
def alone():
    return FokkerPlanck1D(KuramotoProcess(coupling_strength=LinearSchedule(0, 0)), lambda x: START.log_prob(x).exp())


@pytest.fixture(scope="module")
def theta0():
    return START.sample((40_000, 1), seeded(1)).double()


FINE = -PI + 2 * PI * torch.arange(2000, dtype=torch.float64) / 2000


def expected(solution, function, t):
    return float((solution.density(FINE, t) * function(FINE)).sum()) * 2 * PI / 2000


@pytest.mark.parametrize("t", [0.15, 0.5, 1.0])
def test_the_transition_target_is_unbiased(t, alone, theta0):
    theta, target = targets(transition_score_matching, alone.process, theta0, t, 1.0, weighting="none")
    for g in ONE.values():
        mean, error = mean_and_error(target * g(theta[:, 0]))
        assert abs(mean - expected(alone, lambda x, g=g: alone.score(x, t) * g(x), t)) < 4 * error + 0.01


@pytest.mark.parametrize("t", [0.15, 0.5, 1.0])
def test_the_mean_field_target_has_the_same_minimiser_and_less_noise(t, alone, theta0):
    theta, target = targets(mean_field_score_matching, alone.process, theta0, t, math.expm1(clock(t)))
    _, other = targets(transition_score_matching, alone.process, theta0[:5000], t, 1.0, weighting="none")
    assert float(target.std()) < 0.8 * float(other.std())
    for g in ONE.values():
        mean, error = mean_and_error(target * g(theta[:, 0]))
        assert abs(mean - expected(alone, lambda x, g=g: alone.score(x, t) * g(x), t)) < 4 * error + 0.003


def test_early_weights_are_the_geometric_mean_of_those_of_the_target_and_of_noise_prediction():
    t = torch.linspace(0.05, 1.0, 6)
    losses = [
        mean_field_score_matching(
            lambda x, t: x.sin(),
            STRONG,
            random_phases(6, 9),
            t=t,
            weighting=w,
            generator=seeded(0),
        )
        for w in ("target", "early")
    ]
    clock = STRONG.clock(t)
    geometric = (clock.expm1() * -(-clock).expm1()).sqrt() / clock.expm1()
    for entry in ("error", "baseline"):
        target, early = (getattr(loss, entry) for loss in losses)
        torch.testing.assert_close(early, target * geometric.to(target)[:, None], rtol=1e-4, atol=0.0)


PAIRS = {
    "sin(a - b)": lambda x: torch.sin(x[:, 0] - x[:, 1]),
    "cos(a - b)": lambda x: torch.cos(x[:, 0] - x[:, 1]),
    "sin a": lambda x: torch.sin(x[:, 0]),
    "cos b": lambda x: torch.cos(x[:, 1]),
    "sin(2 b - a)": lambda x: torch.sin(2 * x[:, 1] - x[:, 0]),
}


@pytest.fixture(scope="module")
def couple():
    """Two oscillators that pull each other strongly, the second about 1 rad ahead of the first."""
    process = KuramotoProcess(coupling_strength=LinearSchedule(3.0, 6.0), reference_strength=LinearSchedule(1.0, 2.0))
    lag = VonMises(1.0, 4.0)
    solution = FokkerPlanck2D(process, lambda a, b: (START.log_prob(a) + lag.log_prob(b - a)).exp(), modes=20)
    first = START.sample((40_000,), seeded(4)).double()
    return process, solution, torch.stack([first, first + lag.sample((40_000,), seeded(5)).double()], 1)


@pytest.mark.parametrize("t", [0.2, 0.7])
def test_the_transition_target_is_unbiased_for_two_coupled_oscillators(t, couple):
    process, solution, theta0 = couple
    theta, target = targets(transition_score_matching, process, theta0, t, 1.0, weighting="none")
    grid = -PI + 2 * PI * torch.arange(64, dtype=torch.float64) / 64
    points = torch.cartesian_prod(grid, grid)
    flow = solution.density(points, t) * solution.score(points, t)[:, 0] * (2 * PI / 64) ** 2
    for g in PAIRS.values():
        mean, error = mean_and_error(target * g(theta))
        assert abs(mean - float((flow * g(points)).sum())) < 4 * error + 0.015


@pytest.mark.parametrize("process", [KuramotoProcess(), KuramotoProcess(LocalCoupling(1))], ids=["global", "local"])
def test_the_zero_predictor_has_error_one_at_every_time(process):
    theta0, t = random_phases(4000, 1, 4, 4, dtype=torch.float32), torch.linspace(0.001, 1.0, 4000)
    loss = transition_score_matching(lambda x, t: torch.zeros_like(x), process, theta0, t=t, generator=seeded(0))
    assert torch.equal(loss.error[:, 0], loss.baseline[:, 0]) and torch.equal(loss.error[:, 1], loss.baseline[:, 1])
    for part in loss.baseline[:, 0].reshape(4, -1):
        assert float(part.mean()) == pytest.approx(1.0, abs=4 * float(part.std()) / math.sqrt(len(part)))
        assert float(part.std()) == pytest.approx(math.sqrt(2 / 16), rel=0.12)  # squares of 16 normal numbers
    modes, order = loss.baseline[:, 1], loss.baseline[:1000, 2]  # later phases agree, and so do their scores
    assert float(modes.mean()) == pytest.approx(5.0, abs=4 * float(modes.std()) / math.sqrt(4000))
    assert float(order.mean()) == pytest.approx(1.0, abs=4 * float(order.std()) / math.sqrt(1000))
    assert torch.equal(loss.t, t)


def test_weights_are_powers_of_the_variance_of_the_transition():
    theta0, t = random_phases(7, 3), torch.tensor([0.002, 0.004, 0.01, 0.05, 0.3, 0.77, 1.0], dtype=torch.float64)
    losses = {
        w: transition_score_matching(
            lambda x, t: x.sin(), KuramotoProcess(), theta0, t=t, weighting=w, generator=seeded(0)
        )
        for w in ("none", "target", "published")
    }
    v = transition_variance(t)
    for name in ("error", "baseline"):
        plain = getattr(losses["none"], name)
        torch.testing.assert_close(getattr(losses["target"], name), v[:, None] * plain)
        torch.testing.assert_close(getattr(losses["published"], name), v[:, None] ** 2 / 4 * plain)
    assert float(losses["none"].loss) == pytest.approx(float(losses["none"].error[:, 0].mean()), rel=1e-12)
    assert torch.equal(losses["none"].error[:, 2], losses["none"].error[:, 1])  # oscillators have no waves


@pytest.mark.parametrize("steps", [10, 100])
def test_the_transition_has_the_length_of_a_step_or_starts_at_the_data(steps):
    """The target of a wrapped normal around one point: with N = 1 and no pull, (theta0 - theta) / variance."""
    process = KuramotoProcess(coupling_strength=LinearSchedule(0, 0), reference_strength=LinearSchedule(0, 0))
    t = torch.full((20_000,), 0.05, dtype=torch.float64)
    seen = []
    loss = transition_score_matching(
        lambda x, t: (seen.append((x, t)), torch.zeros_like(x))[1],
        process,
        torch.zeros(20_000, 1, dtype=torch.float64),
        t=t,
        steps=steps,
        weighting="none",
        generator=seeded(1),
    )
    (theta, times), v = seen[0], float(transition_variance(t[:1], steps))
    assert torch.equal(times, t)
    assert float(theta.var()) == pytest.approx(clock(0.05), rel=4 * math.sqrt(2 / 20_000))
    assert float(loss.baseline[:, 0].mean()) == pytest.approx(1 / v, rel=4 * math.sqrt(2 / 20_000))
    if steps == 10:  # one transition from the data: the target is known point by point
        torch.testing.assert_close(loss.baseline[:, 0], (theta[:, 0] / v).square(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", [0.1, 0.6])
def test_the_exact_score_gains_its_own_second_moment(t, alone, theta0):
    times = torch.full((len(theta0),), t, dtype=torch.float64)
    exact = ExactScore(alone)
    loss = transition_score_matching(exact, KuramotoProcess(), theta0, t=times, generator=seeded(6))
    gain = loss.baseline[:, 0] - loss.error[:, 0]
    weight = float(transition_variance(times[:1]))
    moment = expected(alone, lambda x: alone.score(x, t).square(), t)
    assert abs(float(gain.mean()) / weight - moment) < 4 * float(gain.std()) / weight / math.sqrt(len(gain)) + 0.01
    worse = transition_score_matching(
        lambda x, t: 1.3 * exact(x, t), KuramotoProcess(), theta0, t=times, generator=seeded(6)
    )
    assert float(worse.loss) > float(loss.loss)


def test_draws_are_transitions_from_the_same_state():
    states = []

    def network(x, t):
        states.append(x)
        return x.sin()

    theta0, t = random_phases(6, 4), torch.linspace(0.1, 1.0, 6, dtype=torch.float64)
    five = transition_score_matching(network, STRONG, theta0, t=t, draws=5, generator=seeded(0))
    one = transition_score_matching(network, STRONG, theta0, t=t, generator=seeded(0))
    assert len(states) == 6 and torch.equal(states[0], states[5])  # the first of five is the only one of one
    assert all(not torch.equal(a, b) for a, b in pairwise(states[:5]))
    turns = torch.stack([torch.exp(1j * x) for x in states[:5]])
    spread = -2 * torch.log(turns.mean(0).abs())  # wrapped normal of five: about 4/5 of the variance of a step
    assert float(spread.mean()) < float(1.5 * transition_variance(t).max())
    assert one.error[:, 0].shape == five.error[:, 0].shape == (6,) and five.loss.ndim == 0
    assert float(five.loss) == pytest.approx(float(five.error[:, 0].mean()), rel=1e-10)


def test_more_draws_make_the_baseline_less_noisy():
    theta0, t = random_phases(3000, 1), torch.full((3000,), 0.5, dtype=torch.float64)
    stds = [
        float(
            transition_score_matching(lambda x, t: x.sin(), STRONG, theta0, t=t, draws=draws, generator=seeded(0))
            .baseline[:, 0]
            .std()
        )
        for draws in (1, 4)
    ]
    assert stds[0] / stds[1] == pytest.approx(2.0, rel=0.15)


@pytest.mark.parametrize("shape", [(2, 2, 3, 5), (3, 7)])
def test_the_collective_error_is_what_a_double_loop_finds(shape):
    error, theta = random_phases(*shape, seed=1), random_phases(*shape, seed=2)
    for b, found in enumerate(collective_error(error, theta).tolist()):
        total = 0.0
        waves = [lambda *_: 1.0]
        if len(shape) == 4:
            for axis, n in ((1, shape[2]), (2, shape[3])):
                for wave in (math.cos, math.sin):
                    waves.append(lambda *at, f=wave, d=axis, n=n: math.sqrt(2) * f(2 * PI * at[d] / n))
        sites = list(product(*(range(n) for n in shape[1:])))
        for wave in waves:
            z = sum(wave(*at) * cmath.exp(1j * float(theta[(b, *at)])) * float(error[(b, *at)]) for at in sites)
            total += len(sites) * abs(z / len(sites)) ** 2
        assert found == pytest.approx(total, rel=1e-10)


@pytest.mark.parametrize(("shape", "modes"), [((3000, 2, 4, 6), 5), ((3000, 12), 1)])
def test_an_error_without_structure_has_its_square_in_every_mode(shape, modes):
    found = collective_error(torch.randn(shape, generator=seeded(1)), random_phases(*shape, dtype=torch.float32))
    assert float(found.mean()) == pytest.approx(modes, abs=4 * float(found.std()) / math.sqrt(3000))


def test_an_error_along_the_order_parameter_is_n_times_as_large():
    theta = 0.4 + torch.zeros(2, 1, 8, 8)
    torch.testing.assert_close(collective_error(torch.full_like(theta, 0.5), theta), torch.full((2,), 64 * 0.25))


def test_the_order_part_is_the_error_along_the_order_parameter():
    seen = []

    def network(theta, _):
        seen.append(theta)
        return 1e6 * theta.sin()  # so large that the target does not matter

    theta0 = 1.0 + 0.3 * random_phases(3, 1, 6, 4)
    found = transition_score_matching(network, KuramotoProcess(), theta0, weighting="none", t=torch.full((3,), 0.1))
    z = (torch.exp(1j * seen[0]) * seen[0].sin()).flatten(1).mean(1)
    torch.testing.assert_close(
        found.error[:, 2] / 1e12, 24 * z.abs().square().to(found.error[:, 2]), rtol=1e-3, atol=0.0
    )
    assert (found.error[:, 1] > 1.01 * found.error[:, 2]).all()


@pytest.mark.parametrize("objective", [MeanField(), MeanField("target", 20), Transition(), Transition(2, 20, "none")])
def test_an_objective_is_its_function_with_its_options(objective):
    function = mean_field_score_matching if isinstance(objective, MeanField) else transition_score_matching
    theta0, t = random_phases(4, 1, 4, 4), torch.tensor([0.1, 0.4, 0.7, 1.0])
    ours = objective(lambda x, t: x.cos(), STRONG, theta0, None, t, seeded(0))
    same = function(lambda x, t: x.cos(), STRONG, theta0, t=t, generator=seeded(0), **asdict(objective))
    assert all(torch.equal(a, b) for a, b in zip(ours, same, strict=True))
    assert float(ours.loss) == pytest.approx(float(ours.error[:, 0].mean()), rel=1e-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MeanField("published"), "weighting: got 'published', expected one of"),
        (lambda: MeanField(steps=0), "steps: got 0, expected an integer from 1"),
        (lambda: Transition(draws=True), "draws: got True"),
        (lambda: Transition(weighting="early"), "weighting: got 'early'"),
        (lambda: MeanField().check(VariancePreserving(WhiteNoise((3,))), torch.zeros(1, 3)), "which has no coupling"),
    ],
)
def test_objectives_refuse(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_random_times_are_one_in_each_interval_and_reproducible():
    for generator in (seeded(1), [seeded(k) for k in range(50)]):
        t = random_times(50, generator)
        assert t.shape == (50,) and t.dtype == torch.float32 and t.device.type == "cpu"
        assert torch.equal((t * 50).ceil(), torch.arange(1, 51.0)) and float(t.min()) > 0 and float(t.max()) <= 1
        assert len(set((t * 50 % 1).tolist())) == 50  # not at the same place of every interval
    assert torch.equal(random_times(9, seeded(3)), random_times(9, seeded(3)))
    assert not torch.equal(random_times(9, seeded(3)), random_times(9, seeded(4)))
    u = torch.cat([torch.arange(1, 101) - 100 * random_times(100, seeded(k)) for k in range(50)])
    assert float(u.mean()) == pytest.approx(0.5, abs=4 / math.sqrt(12 * 5000))
    assert float(u.var()) == pytest.approx(1 / 12, rel=0.05)


def test_early_times_are_squares_that_do_not_vanish():
    assert early_times(torch.tensor([1e-6, 0.02, 0.1, 0.5, 1.0])).tolist() == pytest.approx(
        [1e-3, 1e-3, 0.01, 0.25, 1.0]
    )
    loss = mean_field_score_matching(lambda x, t: x.sin(), STRONG, random_phases(40, 4), generator=seeded(1))
    assert torch.equal(loss.t, random_times(40, seeded(1)).square().clamp(min=1e-3))


def test_random_times_depend_on_the_generator_of_the_image():
    one, other = (random_times(3, [seeded(1), seeded(k), seeded(3)]) for k in (2, 7))
    assert one[0] == other[0] and one[2] == other[2] and one[1] != other[1]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("t", [None, torch.tensor([0.8, 0.05, 0.5])])
def test_a_generator_makes_everything_reproducible(objective, t):
    theta0 = random_phases(3, 1, 4, 4, dtype=torch.float32)

    def loss(generator):
        return OBJECTIVES[objective](lambda x, t: x.sin(), STRONG, theta0, t=t, generator=generator)

    for make in (lambda: seeded(5), lambda: [seeded(k) for k in (5, 6, 7)]):
        for a, b in zip(loss(make()), loss(make()), strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(loss(seeded(5)).error[:, 0], loss(seeded(6)).error[:, 0])


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("coupling", [GlobalCoupling(), LocalCoupling(1)])
def test_with_a_generator_per_image_an_image_does_not_depend_on_the_batch(objective, coupling):
    process, theta0, t = KuramotoProcess(coupling), random_phases(4, 1, 4, 4), torch.tensor([0.3, 1.0, 0.01, 0.6])
    options = {"draws": 2} if objective == "transition" else {}

    def loss(images):
        return OBJECTIVES[objective](
            lambda x, t: x.sin(), process, theta0[images], t=t[images], generator=[seeded(k) for k in images], **options
        )

    together = loss([0, 1, 2, 3])
    for k in range(4):
        alone = loss([k])
        for name in ("error", "baseline"):
            torch.testing.assert_close(getattr(alone, name)[0], getattr(together, name)[k], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_gradient_is_that_of_the_loss_and_nothing_else_carries_one(objective):
    c = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    theta0 = random_phases(4, 1, 4, 4)

    def loss(c):
        return OBJECTIVES[objective](lambda x, t: c * x.cos(), STRONG, theta0, t=torch.rand(4), generator=seeded(0))

    torch.manual_seed(0)
    result = loss(c)
    assert isinstance(result, Loss)
    assert result.loss.requires_grad and not any(part.requires_grad for part in result[1:])
    result.loss.backward()
    values = []
    for shift in (1e-4, -1e-4):
        torch.manual_seed(0)
        values.append(float(loss(c.detach() + shift).loss))
    assert float(c.grad) == pytest.approx((values[0] - values[1]) / 2e-4, rel=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_labels_reach_the_network_and_are_left_out_if_there_are_none(objective):
    seen = []

    def network(theta, t, *label):
        seen.append(label)
        return torch.zeros_like(theta)

    label = torch.tensor([2, -1, 0])
    OBJECTIVES[objective](network, STRONG, random_phases(3, 4), label, generator=seeded(0))
    OBJECTIVES[objective](network, STRONG, random_phases(3, 4), generator=seeded(0))
    assert seen[0][0] is label and seen[1] == ()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_data_stay_as_they_are(objective):
    theta0, t = random_phases(3, 1, 4, 4), torch.tensor([0.9, 0.0005, 0.5])
    kept, kept_t = theta0.clone(), t.clone()
    OBJECTIVES[objective](lambda x, t: x.sin(), STRONG, theta0, t=t, generator=seeded(0))
    assert torch.equal(theta0, kept) and torch.equal(t, kept_t)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("shape", [(3, 5), (3, 2, 4, 4), (1, 1, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_network_sees_phases_and_their_times(objective, shape, dtype):
    seen = []

    def network(theta, t):
        seen.append((theta, t))
        return torch.zeros_like(theta)

    t = torch.linspace(1.0, 0.1, shape[0])
    loss = OBJECTIVES[objective](network, STRONG, random_phases(*shape, dtype=dtype), t=t, generator=seeded(0))
    theta, times = seen[0]
    assert theta.shape == shape and theta.dtype == times.dtype == dtype
    torch.testing.assert_close(times, t.to(dtype))
    assert float(theta.min()) >= -PI and float(theta.max()) < PI
    assert loss.error.shape == loss.baseline.shape == (shape[0], len(PARTS)) and loss.t.shape == shape[:1]
    assert all(torch.isfinite(part).all() for part in loss)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("coupling", [GlobalCoupling(), LocalCoupling(1)])
def test_mixed_precision_reaches_the_network_alone(objective, coupling):
    """Projections on modes are products of matrices, which autocast would round to 8 bits."""
    process, theta0, t = KuramotoProcess(coupling), random_phases(5, 1, 8, 8).float(), torch.linspace(0.05, 1.0, 5)
    active = []

    def network(theta, t):
        active.append(torch.is_autocast_enabled("cpu"))
        return theta.cos()

    def loss():
        return OBJECTIVES[objective](network, process, theta0, t=t, generator=seeded(0))

    plain = loss()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = loss()
    assert active == [False, True]
    for a, b in zip(plain, mixed, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-7)


def test_a_score_in_low_precision_is_compared_in_full():
    theta0, t = random_phases(4, 1, 4, 4).float(), torch.linspace(0.1, 1.0, 4)
    for objective in OBJECTIVES.values():
        loss = objective(lambda x, t: x.cos().bfloat16(), STRONG, theta0, t=t, generator=seeded(0))
        plain = objective(lambda x, t: x.cos(), STRONG, theta0, t=t, generator=seeded(0))
        assert loss.loss.dtype == torch.float32 and torch.equal(loss.baseline[:, 0], plain.baseline[:, 0])
        torch.testing.assert_close(loss.error[:, 0], plain.error[:, 0], rtol=0.03, atol=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weighting": "snr"}, "weighting: got 'snr', expected one of"),
        ({"draws": 0}, "draws: got 0"),
        ({"draws": 1.5}, "draws: got 1.5"),
        ({"steps": 0}, "steps: got 0"),
        ({"t": torch.tensor([0.5, 1.5])}, r"expected one time in \(0, 1\]"),
        ({"t": torch.tensor([0.5, 0.5, 0.5])}, "one time .* for each of 2"),
    ],
)
def test_transition_score_matching_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        transition_score_matching(lambda x, t: x.sin(), STRONG, random_phases(2, 4), **options)


@pytest.mark.parametrize(
    ("theta0", "options", "message"),
    [
        (torch.full((2, 4), math.nan), {}, "theta0: got NaN"),
        (torch.full((2, 4), 90.0), {}, "radians"),
        (torch.zeros(4), {}, "theta0: got shape"),
        (torch.zeros(2, 4), {"t": torch.tensor([0.5, 1.5])}, r"expected one time in \(0, 1\]"),
        (torch.zeros(2, 4), {"t": torch.tensor([0.5, math.nan])}, r"expected one time in \(0, 1\]"),
        (torch.zeros(2, 4), {"steps": 0}, "steps: got 0"),
        (torch.zeros(2, 4), {"weighting": "published"}, "weighting: got 'published', expected one of"),
    ],
)
def test_mean_field_score_matching_refuses(theta0, options, message):
    with pytest.raises(ValueError, match=message):
        mean_field_score_matching(lambda x, t: x.sin(), STRONG, theta0, **options)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
@pytest.mark.parametrize("t", [[0.0, 0.5], [-0.5, 0.5], [0.5, 1.005], [0.5, math.nan], [0.5]])
def test_times_that_are_none_are_refused(objective, t):
    with pytest.raises(ValueError, match=r"^t: got .* expected one time in \(0, 1\] for each of 2"):
        objective(lambda theta, t: theta, STRONG, random_phases(2, 4), t=torch.tensor(t))


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_times_without_noise_are_refused(objective):
    fading = KuramotoProcess(diffusion=LinearSchedule(5.0, 0.0))
    with pytest.raises(ValueError, match=r"without noise, expected D\(t\) > 0"):
        objective(lambda theta, t: theta, fading, random_phases(2, 4), t=torch.ones(2))


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_scores_that_would_be_broadcast_are_refused(objective):
    with pytest.raises(ValueError, match=r"network: got scores \(2, 1\) for phases \(2, 4\)"):
        objective(lambda theta, t: theta[:, :1], STRONG, random_phases(2, 4))
