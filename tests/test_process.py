"""The forward process: schedules, single steps, simulations, stationary laws and storage, each against an oracle."""

import json
import math
from dataclasses import FrozenInstanceError
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import random_phases, seeded
from scipy.integrate import quad
from scipy.special import iv
from scipy.stats import kstest

from kodm_lite import (
    FokkerPlanck1D,
    GlobalCoupling,
    KuramotoProcess,
    LinearSchedule,
    LocalCoupling,
    VonMises,
    WrappedNormal,
    angle_difference,
    kuramoto_drift,
)
from kodm_lite.memory import flat_image_memory

PI = math.pi


def largest_turn(a, b):
    """The largest angle between corresponding phases."""
    return float(angle_difference(a, b).abs().max())


def test_without_arguments_the_schedule_is_the_published_one():
    process = KuramotoProcess()
    steps = [process.coefficients(k / 100, (k + 1) / 100) for k in range(100)]
    rates = [(s.at(0.0) / 100, s.at(1.0) / 100) for s in (process.coupling_strength, process.diffusion)]
    assert rates[0] == pytest.approx((3e-5, 0.03), rel=1e-12)
    assert (2 * rates[1][0], 2 * rates[1][1]) == pytest.approx((1e-4, 0.1), rel=1e-12)
    assert sum(s.coupling for s in steps) == pytest.approx(1.5015, rel=1e-12)
    assert sum(s.reference for s in steps) == pytest.approx(1.5 * 1.5015, rel=1e-12)
    assert sum(s.variance for s in steps) == pytest.approx(5.005, rel=1e-12)
    assert all(s.reference == pytest.approx(1.5 * s.coupling, rel=1e-12) for s in steps)
    assert isinstance(process.coupling, GlobalCoupling)


@pytest.mark.parametrize(("t0", "t1"), [(0.0, 1.0), (0.13, 0.14), (0.5, 0.9)])
def test_step_coefficients_are_the_integrals_of_the_rates(t0, t1):
    process = KuramotoProcess(
        coupling_strength=LinearSchedule(0.7, 2.0),
        reference_strength=LinearSchedule(3.0, 1.0),
        diffusion=LinearSchedule(0.2, 6.0),
    )
    step = process.coefficients(t0, t1)
    assert step.coupling == pytest.approx(quad(lambda t: 0.7 + 1.3 * t, t0, t1)[0], rel=1e-12)
    assert step.reference == pytest.approx(quad(lambda t: 3.0 - 2.0 * t, t0, t1)[0], rel=1e-12)
    assert step.variance == pytest.approx(quad(lambda t: 2 * (0.2 + 5.8 * t), t0, t1)[0], rel=1e-12)


def test_step_coefficients_add_up_over_any_division_of_an_interval():
    process = KuramotoProcess()
    times = [0.1, 0.17, 0.3, 0.62, 0.95]
    parts = [process.coefficients(a, b) for a, b in pairwise(times)]
    for whole, *pieces in zip(process.coefficients(0.1, 0.95), *parts, strict=True):
        assert sum(pieces) == pytest.approx(whole, rel=1e-13)


def test_coefficients_of_one_time_per_image_are_those_of_each_time():
    process = KuramotoProcess()
    t0, t1 = torch.tensor([0.0, 0.2, 0.7]).double(), torch.tensor([0.1, 0.5, 0.7]).double()
    for k, batch in enumerate(process.coefficients(t0, t1)):
        single = [process.coefficients(a, b)[k] for a, b in zip(t0.tolist(), t1.tolist(), strict=True)]
        assert batch.tolist() == pytest.approx(single, rel=1e-13)


@pytest.mark.parametrize("rates", [(-1.0, 2.0), (0.0, math.inf), (math.nan, 1.0), ("a", 1.0), (None, 1.0)])
def test_a_schedule_refuses_rates_that_are_none(rates):
    with pytest.raises(ValueError, match=r"got .* expected a finite number >= 0"):
        LinearSchedule(*rates)


def test_the_process_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        KuramotoProcess().reference_phase = 1.0


@pytest.mark.parametrize("coupling", [GlobalCoupling(), LocalCoupling(2), LocalCoupling(1, "reflect")])
@pytest.mark.parametrize("phase", [0.7, random_phases(3, 6, 5, seed=9)], ids=["number", "field"])
def test_drift_is_the_kuramoto_drift_at_the_rates_of_that_time(coupling, phase):
    process = KuramotoProcess(coupling=coupling, reference_phase=phase)
    theta, t = random_phases(2, 3, 6, 5), 0.37
    k, k_ref = 0.003 + 2.997 * t, 1.5 * (0.003 + 2.997 * t)
    expected = kuramoto_drift(theta, coupling.mean_field(theta), k, k_ref, phase)
    torch.testing.assert_close(process.drift(theta, t), expected, rtol=1e-12, atol=1e-12)


def test_drift_of_two_oscillators_written_out_by_hand():
    process = KuramotoProcess(reference_phase=0.4)
    a, b, t = 0.3, 1.7, 0.6
    k = 0.003 + 2.997 * t
    expected = [
        k / 2 * math.sin(b - a) + 1.5 * k * math.sin(0.4 - a),
        k / 2 * math.sin(a - b) + 1.5 * k * math.sin(0.4 - b),
    ]
    assert process.drift(torch.tensor([[a, b]], dtype=torch.float64), t)[0].tolist() == pytest.approx(
        expected, rel=1e-12
    )


def test_drift_takes_one_time_per_image():
    process, theta, t = KuramotoProcess(LocalCoupling(1)), random_phases(3, 2, 4, 4), torch.tensor([0.1, 0.5, 1.0])
    each = [process.drift(theta[b : b + 1], float(t[b])) for b in range(3)]
    torch.testing.assert_close(process.drift(theta, t.double()), torch.cat(each))


def test_step_drift_is_the_drift_times_the_step_where_rates_are_constant():
    constant = KuramotoProcess(coupling_strength=LinearSchedule(2, 2), reference_strength=LinearSchedule(1, 1))
    theta = random_phases(2, 1, 4, 4)
    torch.testing.assert_close(constant.step_drift(theta, 0.2, 0.5), 0.3 * constant.drift(theta, 0.2))


@pytest.mark.parametrize("coupling", [GlobalCoupling(), LocalCoupling(2)])
def test_rotating_all_phases_and_the_reference_rotates_the_whole_process(coupling):
    turn, theta0 = 2.1, random_phases(3, 1, 8, 8)
    process, rotated = (KuramotoProcess(coupling, reference_phase=phase) for phase in (0.3, 0.3 + turn))
    plain = process.simulate(theta0, 0.8, generator=seeded(1))
    assert largest_turn(rotated.simulate(theta0 + turn, 0.8, generator=seeded(1)), plain + turn) < 1e-11


@pytest.mark.parametrize("coupling", [GlobalCoupling(), LocalCoupling(1)])
def test_one_step_is_a_wrapped_normal_around_the_drifted_phase(coupling):
    t0, t1, n = 0.75, 0.97, 4000
    start = random_phases(1, 1, 4, 4, seed=3)
    after = KuramotoProcess(coupling).forward_step(start.expand(n, -1, -1, -1), t0, t1, generator=seeded(4))
    k, k_ref, variance = (
        quad(lambda t, a=a, b=b: a + b * t, t0, t1)[0] for a, b in ((0.003, 2.997), (0.0045, 4.4955), (0.01, 9.99))
    )
    mean = start + kuramoto_drift(start, coupling.mean_field(start), k, k_ref)
    grid = torch.linspace(-PI, PI, 2001, dtype=torch.float64)
    for i, j in ((0, 0), (1, 3), (3, 2)):
        law = WrappedNormal(mean[0, 0, i, j], math.sqrt(variance))
        density = law.log_prob(grid).exp()
        cdf = torch.cat((torch.zeros(1), ((density[1:] + density[:-1]) / 2 * (2 * PI / 2000)).cumsum(0)))
        assert kstest(after[:, 0, i, j].numpy(), lambda x, cdf=cdf: np.interp(x, grid, cdf)).pvalue > 1e-3
    noise = angle_difference(after, mean).flatten(1)
    correlation = torch.corrcoef(noise.T) - torch.eye(16)
    assert float(correlation.abs().max()) < 5 / math.sqrt(n)  # the noises of different pixels are independent


def test_a_step_of_length_zero_changes_nothing():
    theta = random_phases(2, 1, 4, 4)
    assert torch.equal(KuramotoProcess().forward_step(theta, 0.4, 0.4), theta)


@pytest.mark.parametrize(("t0", "t1"), [(0.5, 0.4), (-0.1, 0.2), (0.9, 1.1), (0.0, math.nan)])
def test_forward_step_refuses_times_outside_the_unit_interval_or_in_the_wrong_order(t0, t1):
    with pytest.raises(ValueError, match=r"t0, t1: got .* expected 0 <= t0 <= t1 <= 1"):
        KuramotoProcess().forward_step(random_phases(2, 4), t0, t1)


def test_the_euler_chain_approaches_fokker_planck_with_weak_order_one():
    """The density of the chain is computed without sampling: a product of wrapped-normal transition matrices."""
    process = KuramotoProcess(diffusion=LinearSchedule(1.0, 3.0))  # steps wide enough for the grid
    n = 120
    grid = -PI + 2 * PI * torch.arange(n, dtype=torch.float64) / n
    start = VonMises(2.0, 4.0)
    # An image of one oscillator feels no coupling, only the reference.
    alone = KuramotoProcess(coupling_strength=LinearSchedule(0, 0), diffusion=process.diffusion)
    exact = FokkerPlanck1D(alone, lambda x: start.log_prob(x).exp()).density(grid, 1.0)
    errors = []
    for steps in (20, 40, 80, 160):
        density = start.log_prob(grid).exp()
        for t0, t1 in pairwise(k / steps for k in range(steps + 1)):
            mean = grid[:, None] + process.step_drift(grid[:, None], t0, t1)
            transition = WrappedNormal(mean, math.sqrt(process.coefficients(t0, t1).variance)).log_prob(grid).exp()
            density = density @ transition * (2 * PI / n)
        errors.append(float((density - exact).abs().sum() * 2 * PI / n))
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(0.85 < order < 1.15 for order in orders), (errors, orders)
    assert errors[2] < 0.02


@pytest.mark.parametrize("t", [1.0, torch.tensor([0.3, 1.0])])
def test_simulation_never_touches_its_input(t):
    theta0 = random_phases(2, 1, 4, 4)
    kept = theta0.clone()
    process = KuramotoProcess()
    process.simulate(theta0, t)
    process.trajectory(theta0, [0.0, 0.5])
    process.forward_step(theta0, 0.0, 1.0)
    result = process.simulate(theta0, 0.0)
    result += 1
    process.trajectory(theta0, [0.0])[0] += 1
    assert torch.equal(theta0, kept)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 1, 5, 7), (4, 10), (1, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_simulation_keeps_shape_and_dtype_and_returns_phases(shape, dtype):
    theta = KuramotoProcess().simulate(random_phases(*shape, dtype=dtype), 1.0, steps=10, generator=seeded(0))
    assert theta.shape == shape and theta.dtype == dtype
    assert float(theta.min()) >= -PI and float(theta.max()) < PI


@pytest.mark.parametrize("coupling", [GlobalCoupling(), LocalCoupling(1)])
def test_one_time_per_image_gives_what_each_image_gives_alone(coupling):
    process, theta0 = KuramotoProcess(coupling), random_phases(5, 1, 4, 4)
    times = torch.tensor([0.3, 1.0, 0.0, 0.505, 0.07], dtype=torch.float64)
    together = process.simulate(theta0, times, generator=[seeded(b) for b in range(5)])
    for b, t in enumerate(times.tolist()):
        alone = process.simulate(theta0[b : b + 1], t, generator=seeded(b))
        assert largest_turn(together[b], alone[0]) < 1e-11


def test_equal_times_per_image_are_the_scalar_time_even_in_single_precision():
    process, theta0 = KuramotoProcess(), random_phases(3, 16, dtype=torch.float32)
    for t in (0.3, 0.07, 1.0):
        a, b = seeded(0), seeded(0)
        scalar = process.simulate(theta0, t, generator=a)
        per_image = process.simulate(theta0, torch.full((3,), t), generator=b)
        assert largest_turn(scalar, per_image) < 1e-4  # float32 times near 1 know a step of 0.01 to 1e-5 of itself
        assert torch.equal(a.get_state(), b.get_state())  # no step more, no step less


def test_with_a_generator_per_image_an_image_does_not_depend_on_the_batch():
    process, theta0 = KuramotoProcess(), random_phases(4, 1, 8, 8, dtype=torch.float32)
    batch = process.simulate(theta0, 1.0, generator=[seeded(10 + b) for b in range(4)])
    alone = process.simulate(theta0[2:3], 1.0, generator=(seeded(12),))
    assert torch.equal(batch[2], alone[0])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_number_of_generators_is_refused(count):
    with pytest.raises(ValueError, match=rf"got {count} generators"):
        KuramotoProcess().simulate(random_phases(2, 4), 1.0, generator=[seeded(b) for b in range(count)])


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_a_trajectory_passes_through_the_states_that_simulation_reaches(steps):
    process, theta0 = KuramotoProcess(LocalCoupling(1)).scaled(0.2), random_phases(2, 1, 4, 4)
    times = [k / steps for k in range(steps + 1)]
    frames = process.trajectory(theta0, times, steps=steps, generator=seeded(5))
    assert frames.shape == (steps + 1, 2, 1, 4, 4)
    assert torch.equal(frames[0], theta0)
    for k in (steps // 2, steps):
        assert largest_turn(frames[k], process.simulate(theta0, k / steps, steps=steps, generator=seeded(5))) < 1e-11


def test_a_trajectory_stays_where_time_does():
    frames = KuramotoProcess().trajectory(random_phases(2, 4), [0.5, 0.5, 1.0], generator=seeded(0))
    assert torch.equal(frames[0], frames[1]) and not torch.equal(frames[1], frames[2])


def test_a_step_of_the_simulation_is_a_forward_step():
    process, theta0 = KuramotoProcess().scaled(0.2), random_phases(2, 8)
    generator = seeded(3)
    theta = theta0
    for t0, t1 in ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75)):
        theta = process.forward_step(theta, t0, t1, generator=generator)
    assert largest_turn(theta, process.simulate(theta0, 0.75, steps=4, generator=seeded(3))) < 1e-12


def test_gradients_flow_through_the_simulation():
    theta0 = random_phases(2, 6).requires_grad_()
    KuramotoProcess().simulate(theta0, 0.5, steps=10, generator=seeded(0)).sin().sum().backward()
    assert torch.isfinite(theta0.grad).all() and float(theta0.grad.abs().min()) > 0


def test_strided_input_gives_what_contiguous_input_gives():
    strided = random_phases(4, 8, 8, 3)[:2].permute(0, 3, 1, 2)
    process = KuramotoProcess(LocalCoupling(2))
    result = process.simulate(strided, 1.0, steps=10, generator=seeded(0))
    torch.testing.assert_close(result, process.simulate(strided.contiguous(), 1.0, steps=10, generator=seeded(0)))


BAD_SIMULATIONS = {
    "integers": (torch.zeros(2, 4, dtype=torch.long), 1.0, {}, "dtype"),
    "half precision": (torch.zeros(2, 4).half(), 1.0, {}, "dtype"),
    "NaN": (torch.full((2, 4), math.nan), 1.0, {}, "finite phases"),
    "degrees": (torch.linspace(0, 359, 8).reshape(2, 4), 1.0, {}, "deg2rad"),
    "a list": ([[0.0, 1.0]], 1.0, {}, "torch tensor"),
    "nothing": (torch.zeros(0, 4), 1.0, {}, "empty"),
    "no batch": (torch.zeros(4), 1.0, {}, r"expected images \(B, C, H, W\)"),
    "three dimensions": (torch.zeros(1, 4, 4), 1.0, {}, r"expected images \(B, C, H, W\)"),
    "time after the end": (torch.zeros(2, 4), 1.5, {}, r"expected \[0, 1\]"),
    "time before the start": (torch.zeros(2, 4), -0.1, {}, r"expected \[0, 1\]"),
    "time NaN": (torch.zeros(2, 4), math.nan, {}, r"expected \[0, 1\]"),
    "one of the times NaN": (torch.zeros(2, 4), torch.tensor([0.5, math.nan]), {}, r"expected \[0, 1\]"),
    "three times for two images": (torch.zeros(2, 4), torch.rand(3), {}, r"one time per image, \(2,\)"),
    "a time per pixel": (torch.zeros(2, 4), torch.rand(2, 4), {}, r"one time per image, \(2,\)"),
    "a list of times": (torch.zeros(2, 4), [0.1, 0.2], {}, "one time per image"),
    "no steps": (torch.zeros(2, 4), 1.0, {"steps": 0}, "at least 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_SIMULATIONS)
def test_simulation_refuses(case):
    theta0, t, options, message = BAD_SIMULATIONS[case]
    with pytest.raises(ValueError, match=message):
        KuramotoProcess().simulate(theta0, t, **options)


@pytest.mark.parametrize("times", [[0.5, 0.2], [0.0, 1.2], [-0.1], [0.0, math.nan]])
def test_trajectory_refuses_times_that_do_not_increase_within_the_unit_interval(times):
    with pytest.raises(ValueError, match=r"times: got .* expected increasing times in \[0, 1\]"):
        KuramotoProcess().trajectory(torch.zeros(2, 4), times)


def test_forward_step_refuses_what_simulation_refuses():
    for theta in (torch.full((2, 4), 90.0), torch.zeros(2, 4, dtype=torch.long), torch.zeros(4)):
        with pytest.raises(ValueError, match="theta: got"):
            KuramotoProcess().forward_step(theta, 0.0, 0.1)


def test_a_radius_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="radius: got 8 for an image"):
        KuramotoProcess(LocalCoupling(8)).simulate(torch.zeros(1, 1, 8, 8), 1.0)


def test_one_image_and_three_channels_work_without_a_gpu():
    for shape in ((1, 1, 6, 6), (1, 3, 6, 6), (2, 5, 6, 4)):
        assert KuramotoProcess(LocalCoupling(2)).simulate(torch.zeros(shape), 1.0, steps=8).shape == shape


def test_a_constant_reference_field_is_the_number():
    theta0 = random_phases(2, 3, 4, 4)
    number = KuramotoProcess(reference_phase=0.9)
    for shape in ((3, 4, 4), (4, 4), (1, 1), (3, 1, 1), (1,), ()):
        field = KuramotoProcess(reference_phase=torch.full(shape, 0.9, dtype=torch.float64))
        assert (
            largest_turn(
                field.simulate(theta0, 1.0, steps=10, generator=seeded(0)),
                number.simulate(theta0, 1.0, steps=10, generator=seeded(0)),
            )
            < 1e-12
        )
        law, expected = field.prior((3, 4, 4)), number.prior()
        assert torch.allclose(law.loc.double(), expected.loc, atol=1e-6)
        assert torch.allclose(law.concentration.double(), expected.concentration, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 4, 4), (3, 4, 5), (2, 3, 4, 4), (5,)])
def test_a_reference_field_that_does_not_fit_the_image_is_refused(shape):
    process = KuramotoProcess(reference_phase=torch.zeros(shape))
    for call in (
        lambda: process.simulate(torch.zeros(2, 3, 4, 4), 1.0),
        lambda: process.trajectory(torch.zeros(2, 3, 4, 4), [1.0]),
        lambda: process.forward_step(torch.zeros(2, 3, 4, 4), 0.0, 0.1),
        lambda: process.prior((3, 4, 4)),
    ):
        with pytest.raises(ValueError, match=r"reference_phase: got shape .* expected one that broadcasts"):
            call()


def test_the_prior_of_a_reference_field_solves_its_self_consistency_equation():
    phase = random_phases(1, 6, 6, seed=2)
    process = KuramotoProcess(LocalCoupling(1), reference_phase=phase)
    law = process.prior()
    kappa, mu = law.concentration.double(), law.loc.double()
    z = torch.as_tensor(iv(1, kappa.numpy()) / iv(0, kappa.numpy())) * torch.exp(1j * mu)
    box = sum(torch.roll(z, (i, j), (1, 2)) for i in (-1, 0, 1) for j in (-1, 0, 1)) / 9
    field = 3.0 * box + 4.5 * torch.exp(1j * phase)
    torch.testing.assert_close(field / 5.0, kappa * torch.exp(1j * mu), atol=2e-6, rtol=0)


def test_the_published_schedule_ends_at_concentration_1_209_and_order_0_516():
    law = KuramotoProcess().prior()
    assert float(law.concentration) == pytest.approx(1.209, abs=5e-4)
    assert float(law.mean_resultant_length()) == pytest.approx(0.5157, abs=1e-4)
    assert float(law.loc) == 0.0
    assert float(KuramotoProcess(reference_phase=-2.0).prior().loc) == -2.0


@pytest.mark.parametrize(("k", "k_ref", "d"), [(3.0, 4.5, 5.0), (0.0, 2.0, 1.0), (10.0, 0.1, 2.0), (40.0, 60.0, 1.0)])
def test_the_prior_solves_the_self_consistency_equation(k, k_ref, d):
    law = KuramotoProcess(
        GlobalCoupling(), LinearSchedule(0, k), LinearSchedule(0, k_ref), LinearSchedule(0, d)
    ).prior()
    kappa = float(law.concentration)
    assert (k * iv(1, kappa) / iv(0, kappa) + k_ref) / d == pytest.approx(kappa, rel=1e-9)


def test_without_a_reference_the_prior_is_uniform_below_the_transition_and_ordered_above():
    def order(ratio):
        process = KuramotoProcess(
            GlobalCoupling(), LinearSchedule(0, ratio), LinearSchedule(0, 0), LinearSchedule(0, 1.0)
        )
        return float(process.prior().mean_resultant_length())

    assert order(0.0) == 0.0 and order(1.0) < 1e-12 and order(1.9) < 1e-10
    # Just above the transition I1(x)/I0(x) = x/2 - x^3/16 gives x^2 = 8 (1 - 2D/K) with x = r K/D.
    assert order(2.02) == pytest.approx(math.sqrt(8 * (1 - 2 / 2.02)) / 2.02, rel=0.01)
    assert order(4.0) == pytest.approx(iv(1, 4 * order(4.0)) / iv(0, 4 * order(4.0)), rel=1e-12)


def test_strength_leaves_the_stationary_law_and_multiplies_the_rates():
    process, strong = KuramotoProcess(), KuramotoProcess().scaled(2.5)
    assert float(strong.prior().concentration) == pytest.approx(float(process.prior().concentration), rel=1e-12)
    assert list(strong.coefficients(0.2, 0.3)) == pytest.approx([2.5 * c for c in process.coefficients(0.2, 0.3)])


def test_a_process_that_ends_without_noise_has_no_prior():
    with pytest.raises(ValueError, match="diffusion: got 0 at t = 1"):
        KuramotoProcess(diffusion=LinearSchedule(1.0, 0.0)).prior()


@pytest.mark.parametrize("memory", [0.1, 0.01])
def test_for_shape_takes_the_smallest_strength_that_forgets(memory):
    shape = (1, 32, 32)
    process = KuramotoProcess.for_shape(shape, memory)
    strength = process.diffusion.end / 5.0
    assert (
        flat_image_memory(process, shape)
        <= memory
        < flat_image_memory(KuramotoProcess().scaled(strength - 0.02), shape)
    )
    assert process == KuramotoProcess().scaled(strength)


def test_for_shape_needs_more_strength_for_larger_images_and_none_for_forgetful_ones():
    small, large = (KuramotoProcess.for_shape((n,)).diffusion.end for n in (64, 1024))
    assert 5.0 < small < large
    assert KuramotoProcess.for_shape((1, 32, 32), memory=100.0) == KuramotoProcess()


def test_for_shape_passes_options_on_and_takes_data():
    coupling = LocalCoupling(2)
    process = KuramotoProcess.for_shape((1, 32, 32), coupling=coupling, reference_phase=0.5)
    assert process.coupling == coupling and process.reference_phase == 0.5
    grey = (torch.arange(8.0) / 20)[:, None, None, None].expand(8, 1, 32, 32)  # hardly any contrast
    assert KuramotoProcess.for_shape((1, 32, 32), memory=0.1, theta0=grey) == KuramotoProcess()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": 0.0}, "memory: got 0.0"),
        ({"memory": math.nan}, "memory: got nan"),
        ({"theta0": torch.zeros(1, 1, 8, 8)}, "at least 2 images"),
        ({"theta0": torch.full((4, 1, 8, 8), 90.0)}, "radians"),
        ({"reference_strength": LinearSchedule(0, 0), "coupling_strength": LinearSchedule(0, 20)}, "reference"),
    ],
)
def test_for_shape_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        KuramotoProcess.for_shape((1, 8, 8), **options)


PROCESSES = {
    "published": KuramotoProcess(),
    "local": KuramotoProcess(LocalCoupling(3, "reflect"), LinearSchedule(0, 1), reference_phase=-0.5),
    "field": KuramotoProcess(reference_phase=random_phases(1, 3, 4, dtype=torch.float32)),
    "float64 field": KuramotoProcess(reference_phase=random_phases(1, 3, 4)),
    "tensor of no dimension": KuramotoProcess(reference_phase=torch.tensor(0.25)),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_survives_json(name):
    process = PROCESSES[name]
    again = KuramotoProcess.from_dict(json.loads(json.dumps(process.to_dict())))
    assert again == process and hash(again) == hash(process)
    theta0 = random_phases(2, 1, 3, 4) if name != "local" else random_phases(2, 1, 5, 5)
    assert torch.equal(
        again.simulate(theta0, 1.0, generator=seeded(0)), process.simulate(theta0, 1.0, generator=seeded(0))
    )


def test_different_processes_are_not_equal():
    assert len({*PROCESSES.values(), KuramotoProcess(LocalCoupling(3)), KuramotoProcess().scaled(2)}) == 7
    assert KuramotoProcess() != "a process"
    assert KuramotoProcess() == KuramotoProcess() and hash(KuramotoProcess()) == hash(KuramotoProcess())


def test_from_dict_leaves_its_argument_alone():
    data = PROCESSES["local"].to_dict()
    copy = json.loads(json.dumps(data))
    KuramotoProcess.from_dict(data)
    assert data == copy


HOSTILE = {
    "nothing": lambda d: {},
    "no dictionary": lambda d: [1, 2],
    "one entry missing": lambda d: {k: v for k, v in d.items() if k != "diffusion"},
    "one entry too many": lambda d: {**d, "steps": 3},
    "unknown coupling": lambda d: {**d, "coupling": {"kind": "telepathic"}},
    "coupling as a string": lambda d: {**d, "coupling": "global"},
    "coupling as a number": lambda d: {**d, "coupling": 3},
    "coupling of a kind that is a list": lambda d: {**d, "coupling": {"kind": ["global"]}},
    "coupling with an unknown option": lambda d: {**d, "coupling": {"kind": "global", "radius": 2}},
    "a fraction as radius": lambda d: {**d, "coupling": {"kind": "local", "radius": 1.5}},
    "three rates": lambda d: {**d, "diffusion": [1, 2, 3]},
    "a negative rate": lambda d: {**d, "diffusion": [1, -2]},
    "an infinite rate": lambda d: {**d, "diffusion": [1, math.inf]},
    "no noise at all": lambda d: {**d, "diffusion": [0, 0]},
    "a rate as a string": lambda d: {**d, "coupling_strength": "ab"},
    "a rate that is None": lambda d: {**d, "coupling_strength": None},
    "phase NaN": lambda d: {**d, "reference_phase": math.nan},
    "phase None": lambda d: {**d, "reference_phase": None},
    "phase as a string": lambda d: {**d, "reference_phase": "1.0"},
    "phase in degrees": lambda d: {**d, "reference_phase": [[90.0]]},
    "phase as a ragged list": lambda d: {**d, "reference_phase": [[0.0], [0.0, 1.0]]},
    "phase as an empty list": lambda d: {**d, "reference_phase": []},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_from_dict_refuses(name):
    with pytest.raises(ValueError):
        KuramotoProcess.from_dict(HOSTILE[name](KuramotoProcess().to_dict()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coupling": "global"}, "expected GlobalCoupling"),
        ({"diffusion": 5.0}, "expected LinearSchedule"),
        ({"diffusion": LinearSchedule(0, 0)}, "no noise at all"),
        ({"reference_phase": "north"}, "reference_phase: got 'north'"),
        ({"reference_phase": None}, "reference_phase: got None"),
        ({"reference_phase": 90.0}, "radians"),
        ({"reference_phase": torch.zeros(4, dtype=torch.long)}, "dtype"),
    ],
)
def test_a_process_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        KuramotoProcess(**options)


@pytest.mark.parametrize("coupling", [GlobalCoupling(), LocalCoupling(2), LocalCoupling(2, "reflect")])
@pytest.mark.parametrize("phase", [0.3, random_phases(1, 8, 8, dtype=torch.float32)], ids=["number", "field"])
def test_steps_compile_without_graph_breaks(coupling, phase):
    process = KuramotoProcess(coupling, reference_phase=phase)
    theta, noise = random_phases(2, 1, 8, 8, dtype=torch.float32), torch.randn(2, 1, 8, 8, generator=seeded(1))
    t0, t1 = torch.tensor([0.1, 0.5]), torch.tensor([0.2, 0.6])
    torch._dynamo.reset()
    drift = torch.compile(process.drift, fullgraph=True, backend="aot_eager")
    advance = torch.compile(process.advance, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(drift(theta, t0), process.drift(theta, t0))
    torch.testing.assert_close(advance(theta, noise, t0, t1), process.advance(theta, noise, t0, t1))
    torch.testing.assert_close(advance(theta, noise, 0.25, 0.5), process.advance(theta, noise, 0.25, 0.5))


@pytest.mark.parametrize("method", ["euler", "heun"])
def test_a_simulation_compiles_without_graph_breaks(method):
    process, theta0 = KuramotoProcess(LocalCoupling(1)), torch.linspace(-3, 3, 32).reshape(2, 1, 4, 4)
    compiled = torch.compile(
        lambda theta: process.simulate(theta, 0.3, 10, method=method), fullgraph=True, backend="aot_eager"
    )
    torch.manual_seed(0)
    found = compiled(theta0)
    torch.manual_seed(0)
    torch.testing.assert_close(found, process.simulate(theta0, 0.3, 10, method=method), atol=1e-5, rtol=0)


def test_other_times_do_not_compile_again():
    process, theta = KuramotoProcess(), random_phases(2, 1, 8, 8, dtype=torch.float32)
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    advance = torch.compile(process.advance, fullgraph=True, backend=counter)
    for k in range(12):
        advance(theta, theta, torch.tensor(k / 12), torch.tensor((k + 1) / 12))
    assert counter.frame_count == 1


def order_parameters(process, theta0, steps, method, monkeypatch, finest=200):
    """Mean of cos theta over images and phases at t = 1; every number of steps sums up the same path of noise, so that
    differences hold hardly any Monte Carlo error."""
    length, used = finest // steps, []
    stds = [math.sqrt(process.coefficients(k / finest, (k + 1) / finest).variance) for k in range(finest)]

    def path(like, generator):
        first = len(used) * length
        used.append(first)
        pieces = [stds[k] * torch.randn(like.shape, generator=seeded(k)) for k in range(first, first + length)]
        return sum(pieces) / math.sqrt(sum(std**2 for std in stds[first : first + length]))

    monkeypatch.setattr("kodm_lite.simulation.normal", path)
    theta = process.simulate(theta0, 1.0, steps, method=method)
    assert len(used) == steps
    return float(theta.cos().mean())


def test_heun_is_of_second_order_in_law_and_euler_misses_the_order_parameter(monkeypatch):
    process, theta0 = KuramotoProcess(), random_phases(600, 1, 8, 8, dtype=torch.float32)
    exact = order_parameters(process, theta0, 200, "heun", monkeypatch)
    heun = [abs(order_parameters(process, theta0, steps, "heun", monkeypatch) - exact) for steps in (25, 50)]
    euler = [exact - order_parameters(process, theta0, steps, "euler", monkeypatch) for steps in (25, 50, 100)]
    assert heun[0] < 0.004 and heun[1] < 0.0015
    assert all(1.6 < a / b < 2.4 for a, b in pairwise(euler)) and 0.005 < euler[2] < 0.02
    assert heun[0] < 0.1 * euler[0] and heun[1] < 0.1 * euler[1]


@pytest.mark.parametrize("coupling", [GlobalCoupling(), LocalCoupling(1)])
def test_without_noise_heun_is_the_textbook_step(coupling):
    constant = KuramotoProcess(coupling, LinearSchedule(2, 2), LinearSchedule(1, 1), reference_phase=0.3)
    theta, h = random_phases(2, 1, 4, 4), 0.2

    def velocity(x):
        return kuramoto_drift(x, coupling.mean_field(x), 2.0, 1.0, 0.3)

    first = velocity(theta)
    expected = theta + h / 2 * (first + velocity(theta + h * first))
    torch.testing.assert_close(constant.advance_heun(theta, torch.zeros_like(theta), 0.4, 0.6), expected)


def test_heun_kicks_once_and_looks_at_the_drift_where_it_arrives():
    process, theta, noise = KuramotoProcess(), random_phases(2, 5), random_phases(2, 5, seed=1)
    step = process.coefficients(0.3, 0.5)

    def pull(x):
        return kuramoto_drift(x, GlobalCoupling().mean_field(x), step.coupling, step.reference)

    kick = math.sqrt(step.variance) * noise
    expected = theta + 0.5 * pull(theta) + 0.5 * pull(theta + pull(theta) + kick) + kick
    torch.testing.assert_close(process.advance_heun(theta, noise, 0.3, 0.5), expected)


def test_heun_without_noise_converges_with_order_two_at_rates_that_change(monkeypatch):
    monkeypatch.setattr("kodm_lite.simulation.normal", lambda like, generator: torch.zeros_like(like))
    theta0 = random_phases(3, 6)
    runs = [KuramotoProcess().simulate(theta0, 1.0, steps, method="heun") for steps in (20, 40, 2000)]
    gaps = [largest_turn(run, runs[2]) for run in runs[:2]]
    assert 3.3 < gaps[0] / gaps[1] < 4.8 and gaps[1] < 3e-3


MIXED_TIMES = torch.tensor([0.3, 1.0, 0.0, 0.505, 0.3, 0.0, 1.0, 0.07], dtype=torch.float64)


@pytest.mark.parametrize("method", ["euler", "heun"])
@pytest.mark.parametrize("coupling", [GlobalCoupling(), LocalCoupling(1)])
def test_images_that_have_arrived_leave_the_batch_and_nothing_else_changes(coupling, method):
    """Unsorted times with repeats and zeros: every image is the one simulated alone, in its place."""
    process, theta0 = KuramotoProcess(coupling), random_phases(8, 2, 4, 4)
    kept, times = theta0.clone(), MIXED_TIMES.clone()
    together = process.simulate(theta0, times, 20, [seeded(b) for b in range(8)], method=method)
    assert torch.equal(theta0, kept) and torch.equal(times, MIXED_TIMES)
    for b, t in enumerate(MIXED_TIMES.tolist()):
        alone = process.simulate(theta0[b : b + 1], t, 20, seeded(b), method=method)
        assert largest_turn(together[b], alone[0]) < 1e-11
        if t == 0:
            assert torch.equal(together[b], theta0[b])


@pytest.mark.parametrize(("method", "per_step"), [("euler", 1), ("heun", 2)])
@pytest.mark.parametrize("each", [False, True])
def test_the_batch_really_shrinks(method, per_step, each, monkeypatch):
    sizes, plain = [], GlobalCoupling.average

    def counted(self, x):
        sizes.append(len(x))
        return plain(self, x)

    monkeypatch.setattr(GlobalCoupling, "average", counted)
    times = torch.tensor([0.25, 1.0, 0.0, 0.5, 0.6])  # with 4 steps: 1, 4, 0, 2 and 3 of them
    generator = [seeded(b) for b in range(5)] if each else seeded(0)
    KuramotoProcess().scaled(0.2).simulate(random_phases(5, 3), times, 4, generator, method=method)
    assert sizes == [size for size in (4, 3, 2, 1) for _ in range(2 * per_step)]  # of the cosines and the sines


def test_nothing_is_simulated_if_all_times_are_zero():
    theta0 = random_phases(3, 4)
    result = KuramotoProcess().simulate(theta0, torch.zeros(3), generator=seeded(0), method="heun")
    assert torch.equal(result, theta0) and result.data_ptr() != theta0.data_ptr()


def test_an_unknown_method_of_simulation_is_refused():
    with pytest.raises(ValueError, match="method: got 'milstein', expected 'euler' or 'heun'"):
        KuramotoProcess().simulate(random_phases(2, 4), 1.0, method="milstein")


@pytest.mark.parametrize("clock", [1e-6, 0.01, 0.3, 3.0])
def test_the_time_of_a_clock_is_when_it_shows_it(clock):
    assert KuramotoProcess().clock(KuramotoProcess().time_of(clock)) == pytest.approx(clock, rel=1e-9)


def test_a_clock_that_is_never_shown_is_the_end_and_one_before_the_start_refused():
    assert KuramotoProcess().time_of(99.0) == 1
    for clock in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="clock: got"):
            KuramotoProcess().time_of(clock)


def test_steps_that_overshoot_are_refused_with_the_number_that_does_not():
    strong = KuramotoProcess(reference_strength=LinearSchedule(300.0, 300.0))
    with pytest.raises(ValueError, match=r"steps: got 100 for K \+ K_ref up to 303, .* try steps=303"):
        strong.simulate(torch.zeros(2, 4), 1.0)
    assert float(strong.simulate(torch.zeros(2, 500), 1.0, 303, seeded(0)).cos().mean()) > 0.98
    with pytest.raises(ValueError, match="steps: got 100"):
        strong.trajectory(torch.zeros(2, 4), [0.5])
    weak = KuramotoProcess()
    weak.simulate(torch.zeros(2, 4), torch.tensor([0.1, 0.2]), 4)  # early steps are short
    for steps in (True, 2.5, "10", 0):
        with pytest.raises(ValueError, match=r"steps: got .*, expected an integer"):
            weak.simulate(torch.zeros(2, 4), 1.0, steps)


def test_what_would_take_too_long_is_refused_before_it_is_computed():
    strong = LinearSchedule(1000.0, 1000.0)
    with pytest.raises(ValueError, match=r"process: got K \+ K_ref = 2000, expected at most 606"):
        KuramotoProcess.for_shape((1, 8, 8), coupling_strength=strong, reference_strength=strong)
    with pytest.raises(ValueError, match=r"followed in 20000 steps"):
        FokkerPlanck1D(KuramotoProcess(reference_strength=strong), lambda x: VonMises(0.0, 1.0).log_prob(x).exp())


def test_the_drift_refuses_a_field_or_times_of_another_shape():
    with pytest.raises(ValueError, match=r"reference_phase: got shape \(3, 4\)"):
        KuramotoProcess(reference_phase=torch.zeros(3, 4)).drift(torch.zeros(2, 1, 4, 4), 0.5)
    for t in (torch.rand(3), torch.rand(2, 3), True, "a", None):
        with pytest.raises(ValueError, match=r"t: got .* one time per image"):
            KuramotoProcess().drift(torch.zeros(2, 4), t)


class Own:
    """A coupling of one's own, without a description."""

    def average(self, x):
        return x

    def mean_field(self, theta):
        return torch.polar(torch.ones_like(theta), theta)

    def transfer(self, shape):
        return torch.ones(shape)


def test_a_coupling_of_ones_own_compares_and_is_only_refused_for_storage():
    own = Own()
    process = KuramotoProcess(own)
    assert process == KuramotoProcess(own) and hash(process) == hash(KuramotoProcess(own))
    assert process != KuramotoProcess(Own()) and process != KuramotoProcess() and process != None  # noqa: E711
    with pytest.raises(ValueError, match="coupling: got Own, which has no description to store"):
        process.to_dict()
