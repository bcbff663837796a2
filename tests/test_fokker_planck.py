"""Exact densities and scores against independent solvers, simulated oscillators, limits and convergence orders."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import seeded
from scipy.integrate import solve_ivp
from scipy.stats import kstest

from kodm_lite import (
    ExactScore,
    FokkerPlanck1D,
    FokkerPlanck2D,
    GlobalCoupling,
    ImageSetScore,
    KuramotoProcess,
    LinearSchedule,
    LocalCoupling,
    VonMises,
    WrappedNormal,
)
from kodm_lite.modes import evolve_modes

PI = math.pi
PROCESS = KuramotoProcess(reference_phase=0.4)
UNCOUPLED = KuramotoProcess(coupling_strength=LinearSchedule(0, 0), reference_phase=0.4)
# Strong coupling, weak reference: the mean field matters, and phases turn far.
COUPLED = KuramotoProcess(
    GlobalCoupling(), LinearSchedule(2.0, 6.0), LinearSchedule(0.5, 1.0), LinearSchedule(0.3, 1.0), reference_phase=-1.0
)


def grid(n):
    return -PI + 2 * PI * torch.arange(n, dtype=torch.float64) / n


def two_modes(theta):
    return 0.6 * VonMises(-1.2, 8.0).log_prob(theta).exp() + 0.4 * VonMises(1.5, 5.0).log_prob(theta).exp()


def draw_two_modes(n, generator):
    first = torch.rand(n, generator=generator) < 0.6
    a, b = (VonMises(mu, kappa).sample((n,), generator) for mu, kappa in ((-1.2, 8.0), (1.5, 5.0)))
    return torch.where(first, a, b)


def pair_density(a, b):
    """Two oscillators that are not independent: the second tends to lie 1 rad after the first."""
    return two_modes(a) * VonMises(1.0, 3.0).log_prob(b - a).exp()


@pytest.fixture(scope="module")
def published():
    return FokkerPlanck1D(PROCESS, two_modes)


@pytest.fixture(scope="module")
def coupled():
    return FokkerPlanck1D(COUPLED, two_modes)


@pytest.fixture(scope="module")
def pair():
    return FokkerPlanck2D(COUPLED, pair_density)


def derivative_matrix(n):
    """Spectral derivative on n (odd) equidistant points of the circle."""
    k = np.fft.fftfreq(n, 1 / n)
    return np.real(np.fft.ifft(1j * k[:, None] * np.fft.fft(np.eye(n), axis=0), axis=0))


def rates(process, t):
    return [
        s.start + (s.end - s.start) * t
        for s in (process.coupling_strength, process.reference_strength, process.diffusion)
    ]


def solve_on_grid(process, density, times, n=61):
    """dp/dt = -d/dtheta (f p) + D d2p/dtheta2 on points of the circle, with f from the density's own mean."""
    theta = -PI + 2 * PI * np.arange(n) / n
    first = derivative_matrix(n)
    second = first @ first

    def slope(t, p):
        k, k_ref, d = rates(process, t)
        z = np.sum(p * np.exp(1j * theta)) * 2 * PI / n
        velocity = k * abs(z) * np.sin(np.angle(z) - theta) + k_ref * np.sin(process.reference_phase - theta)
        return -first @ (velocity * p) + d * (second @ p)

    start = density(torch.from_numpy(theta)).numpy()
    solution = solve_ivp(slope, (0, 1), start, "BDF", t_eval=times, rtol=1e-9, atol=1e-12)
    return torch.from_numpy(theta), torch.from_numpy(solution.y.T)


@pytest.mark.parametrize("name", ["published", "coupled"])
def test_density_agrees_with_an_independent_solver_on_a_grid(name, request):
    exact, process = request.getfixturevalue(name), {"published": PROCESS, "coupled": COUPLED}[name]
    times = [0.003, 0.1, 0.25, 0.5, 0.777, 1.0]
    theta, densities = solve_on_grid(process, two_modes, times)
    for t, density in zip(times, densities, strict=True):
        assert float((exact.density(theta, t) - density).abs().max()) < 2e-6, t


def test_pair_density_agrees_with_an_independent_solver_on_a_grid(pair):
    n = 41
    theta = -PI + 2 * PI * np.arange(n) / n
    k = np.fft.fftfreq(n, 1 / n)
    a, b = np.meshgrid(theta, theta, indexing="ij")

    def slope(t, flat):
        p = flat.reshape(n, n)
        strength, k_ref, d = rates(COUPLED, t)
        # Each listens to both, itself included: half of the pull comes from the other one.
        first = strength / 2 * np.sin(b - a) + k_ref * np.sin(-1.0 - a)
        second = strength / 2 * np.sin(a - b) + k_ref * np.sin(-1.0 - b)
        flux = -1j * k[:, None] * np.fft.fft2(first * p) - 1j * k[None, :] * np.fft.fft2(second * p)
        return np.real(np.fft.ifft2(flux - d * (k[:, None] ** 2 + k[None, :] ** 2) * np.fft.fft2(p))).ravel()

    start = pair_density(torch.from_numpy(a), torch.from_numpy(b)).numpy().ravel()
    solution = solve_ivp(slope, (0, 1), start, "RK45", t_eval=[0.1, 0.4, 1.0], rtol=1e-8, atol=1e-10)
    points = torch.from_numpy(np.stack((a.ravel(), b.ravel()), 1))
    for t, density in zip(solution.t, solution.y.T, strict=True):
        assert float((pair.density(points, t) - torch.from_numpy(density)).abs().max()) < 1e-6, t


@pytest.mark.parametrize("name", ["published", "coupled"])
def test_a_hundred_thousand_oscillators_have_the_exact_marginal(name, request):
    """400 steps make the error of the time step (order 1) smaller than the Monte Carlo error."""
    exact, process = request.getfixturevalue(name), {"published": PROCESS, "coupled": COUPLED}[name]
    n, generator = 100_000, seeded(7)
    times = [0.2, 0.5, 1.0]
    frames = process.trajectory(draw_two_modes(n, generator)[None], times, steps=400, generator=generator)
    fine = torch.linspace(-PI, PI, 4001, dtype=torch.float64)
    for t, frame in zip(times, frames, strict=True):
        density = exact.density(fine, t)
        cdf = torch.cat((torch.zeros(1), ((density[1:] + density[:-1]) / 2 * (2 * PI / 4000)).cumsum(0)))
        statistic = kstest(frame[0].double().numpy(), lambda x, cdf=cdf: np.interp(x, fine, cdf)).statistic
        # The mean field fluctuates with the sample, which adds to the 1.63 / sqrt(n) of independent draws.
        assert statistic < 2.5 / math.sqrt(n), t
        z = torch.polar(torch.ones(n), frame[0]).mean()
        assert abs(complex(z) - complex(exact.order_parameter(t))) < 4 / math.sqrt(n), t


def test_simulated_pairs_have_the_exact_joint_moments(pair):
    n, generator = 100_000, seeded(8)
    first = draw_two_modes(n, generator)
    start = torch.stack((first, first + VonMises(1.0, 3.0).sample((n,), generator)), 1)
    frames = COUPLED.trajectory(start, [0.3, 1.0], steps=400, generator=generator)
    for t, frame in zip((0.3, 1.0), frames, strict=True):
        modes = pair.modes(t)
        middle = modes.shape[0] // 2
        for m, k in ((1, 0), (0, 1), (1, 1), (1, -1), (2, -1), (0, 2)):
            measured = torch.exp(1j * (m * frame[:, 0] + k * frame[:, 1])).mean()
            assert abs(complex(measured) - complex(modes[middle + m, middle + k])) < 5 / math.sqrt(n), (t, m, k)


@pytest.mark.parametrize("t", [0.0, 1e-3, 0.1, 1 / 3, 0.9999, 1.0])
def test_mass_is_conserved_and_densities_are_real_and_positive(published, coupled, pair, t):
    theta = grid(512)
    for exact in (published, coupled):
        density = exact.density(theta, t)
        assert abs(float(density.sum()) * 2 * PI / 512 - 1) < 1e-10
        assert float(density.min()) > -1e-12
    points = torch.cartesian_prod(grid(64), grid(64))
    assert abs(float(pair.density(points, t).sum()) * (2 * PI / 64) ** 2 - 1) < 1e-10
    torch.testing.assert_close(pair.modes(t).flip(0, 1).conj(), pair.modes(t))


def test_at_time_zero_the_density_is_the_given_one(published, pair):
    theta = grid(37)
    torch.testing.assert_close(published.density(theta, 0.0), two_modes(theta), atol=1e-12, rtol=1e-9)
    points = torch.cartesian_prod(grid(9), grid(9))
    torch.testing.assert_close(pair.density(points, 0.0), pair_density(*points.unbind(1)), atol=1e-6, rtol=0)


def test_constant_coefficients_lead_to_the_self_consistent_von_mises_law():
    constant = KuramotoProcess(
        GlobalCoupling(), LinearSchedule(30, 30), LinearSchedule(45, 45), LinearSchedule(50, 50), reference_phase=0.8
    )
    theta, law = grid(100), constant.prior()
    assert float(law.concentration) == pytest.approx(1.2094, abs=1e-4)
    exact = FokkerPlanck1D(constant, two_modes)
    torch.testing.assert_close(exact.density(theta, 1.0), law.log_prob(theta).exp(), atol=1e-9, rtol=0)
    torch.testing.assert_close(exact.score(theta, 1.0), law.score(theta), atol=1e-7, rtol=0)


def test_the_von_mises_law_is_stationary_to_begin_with():
    constant = KuramotoProcess(GlobalCoupling(), LinearSchedule(3, 3), LinearSchedule(4.5, 4.5), LinearSchedule(5, 5))
    density = constant.prior().log_prob(grid(512)).exp()
    exact = FokkerPlanck1D(constant, density)
    for t in (0.1, 1.0):  # Lawson's method keeps a steady state to its order, not to the last digit
        torch.testing.assert_close(exact.density(grid(512), t), density, atol=2e-9, rtol=0)


def test_the_pair_settles_in_its_gibbs_law():
    """exp(-U/D) with U = -(K/2) cos(a - b) - K_ref (cos a + cos b): the normalisation K/N sum has N = 2."""
    constant = KuramotoProcess(GlobalCoupling(), LinearSchedule(30, 30), LinearSchedule(10, 10), LinearSchedule(20, 20))
    points = torch.cartesian_prod(grid(48), grid(48))
    a, b = points.unbind(1)
    gibbs = torch.exp((30 * torch.cos(a - b) + 20 * (torch.cos(a) + torch.cos(b))) / 40)
    gibbs = gibbs / (gibbs.sum() * (2 * PI / 48) ** 2)
    exact = FokkerPlanck2D(constant, lambda x, y: two_modes(x) * two_modes(y), modes=20)
    torch.testing.assert_close(exact.density(points, 1.0), gibbs, atol=1e-8, rtol=0)


def test_pure_diffusion_damps_every_mode_by_n_squared():
    still = KuramotoProcess(GlobalCoupling(), LinearSchedule(0, 0), LinearSchedule(0, 0), LinearSchedule(0.1, 0.5))
    exact = FokkerPlanck1D(still, two_modes, modes=40)
    n = torch.arange(41, dtype=torch.float64)
    for t in (0.2, 1.0):
        damped = exact.modes(0.0) * torch.exp(-(n**2) * (0.1 * t + 0.2 * t**2))
        torch.testing.assert_close(exact.modes(t), damped, atol=1e-13, rtol=0)


def test_without_coupling_a_pair_is_a_product_of_two_single_oscillators():
    other = VonMises(0.3, 6.0)
    joint = FokkerPlanck2D(UNCOUPLED, lambda a, b: two_modes(a) * other.log_prob(b).exp())
    first, second = FokkerPlanck1D(UNCOUPLED, two_modes), FokkerPlanck1D(UNCOUPLED, lambda x: other.log_prob(x).exp())
    points = torch.cartesian_prod(grid(16), grid(16))
    a, b = points.unbind(1)
    for t in (0.05, 0.4, 1.0):
        product = first.density(a, t) * second.density(b, t)
        torch.testing.assert_close(joint.density(points, t), product, atol=1e-6, rtol=0)
    scores = torch.stack((first.score(a, 1.0), second.score(b, 1.0)), 1)
    torch.testing.assert_close(joint.score(points, 1.0), scores, atol=1e-6, rtol=0)


def test_a_pair_that_starts_exchangeable_stays_so(pair):
    symmetric = FokkerPlanck2D(COUPLED, lambda a, b: two_modes(a) * two_modes(b), modes=16)
    for t in (0.1, 0.7):
        torch.testing.assert_close(symmetric.modes(t), symmetric.modes(t).T)
    assert float((pair.modes(0.1) - pair.modes(0.1).T).abs().max()) > 0.1  # and this one does not


def test_rotating_density_and_reference_rotates_the_solution():
    turn, theta = 2.2, grid(64)
    turned = KuramotoProcess(reference_phase=0.4 + turn)
    plain = FokkerPlanck1D(PROCESS, two_modes).density(theta, 0.6)
    rotated = FokkerPlanck1D(turned, lambda x: two_modes(x - turn)).density(theta + turn, 0.6)
    torch.testing.assert_close(rotated, plain, atol=1e-10, rtol=0)


@pytest.mark.parametrize("t", [0.05, 0.3, 1.0])
def test_score_is_the_derivative_of_the_log_density(published, t):
    theta, h = grid(50), 1e-5
    numerical = (published.density(theta + h, t).log() - published.density(theta - h, t).log()) / (2 * h)
    torch.testing.assert_close(published.score(theta, t), numerical, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("t", [0.2, 0.6, 1.0])
def test_pair_score_is_the_gradient_of_the_log_density(pair, t):
    points, h = torch.cartesian_prod(grid(7), grid(6)), 1e-5
    for axis in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[axis] = h
        numerical = (pair.density(points + step, t).log() - pair.density(points - step, t).log()) / (2 * h)
        torch.testing.assert_close(pair.score(points, t)[:, axis], numerical, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kappa", [30.0, 1000.0])
def test_scores_of_narrow_densities_are_finite_everywhere(kappa):
    exact = FokkerPlanck1D(PROCESS, lambda x: VonMises(0.0, kappa).log_prob(x).exp(), modes=256)
    for t in (0.0, 1e-4, 0.01, 1.0):
        assert torch.isfinite(exact.score(grid(400), t)).all()
    near = torch.linspace(-0.1, 0.1, 11, dtype=torch.float64)
    torch.testing.assert_close(exact.score(near, 0.0), VonMises(0.0, kappa).score(near), atol=1e-6, rtol=1e-6)


def test_exact_score_has_the_interface_of_a_network(published, pair):
    network = ExactScore(published)
    theta = torch.rand(3, 1, 4, 4, generator=seeded(0)) * 6 - 3
    t = torch.tensor([0.2, 0.5, 1.0])
    scores = network(theta, t)
    assert scores.shape == theta.shape and scores.dtype == torch.float32
    for b in range(3):
        expected = published.score(theta[b].double(), float(t[b])).float()
        torch.testing.assert_close(scores[b], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(network(theta[b : b + 1], t[b : b + 1])[0], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network(theta, torch.full((3,), 0.5)), network(theta, 0.5))
    pairs = torch.rand(3, 2, generator=seeded(1), dtype=torch.float64) * 6 - 3
    each = torch.cat([pair.score(pairs[b : b + 1], float(t[b])) for b in range(3)])
    torch.testing.assert_close(ExactScore(pair)(pairs, t), each)


@pytest.mark.filterwarnings("ignore:the initial density has a mode")
def test_the_error_falls_exponentially_with_the_number_of_modes():
    theta = grid(64)
    reference = FokkerPlanck1D(COUPLED, two_modes, modes=48).density(theta, 0.2)
    errors = []
    for modes in (4, 6, 8, 10, 12):
        coarse = FokkerPlanck1D(COUPLED, two_modes(grid(400)), modes=modes)
        errors.append(float((coarse.density(theta, 0.2) - reference).abs().max()))
    falls = [b / a for a, b in pairwise(errors)]
    assert all(fall < 0.2 for fall in falls) and errors[-1] < 1e-6, errors  # faster than any power


def test_the_error_falls_with_the_fourth_power_of_the_time_step(monkeypatch):
    start = FokkerPlanck1D(COUPLED, two_modes, modes=24).modes(0.0)

    def end(steps):
        monkeypatch.setattr("kodm_lite.modes.stable_steps", lambda *_: steps)
        return evolve_modes(COUPLED, start)

    exact = end(4000)
    errors = [float((end(steps) - exact).abs().max()) for steps in (50, 100, 200)]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(3.7 < order < 4.4 for order in orders), (errors, orders)


@pytest.mark.parametrize("process", [PROCESS, COUPLED])
def test_between_stored_times_the_interpolation_is_as_good_as_the_solution(process):
    exact = FokkerPlanck1D(process, two_modes)
    for t in (0.00123, 0.1003, 0.5017, 0.99987):
        direct = evolve_modes(process, exact.modes(0.0), 0.0, t)
        assert float((exact.modes(t) - direct).abs().max()) < 1e-7, t


def test_many_times_at_once_are_the_times_one_by_one(published):
    times = torch.tensor([[0.0, 0.3], [0.301, 1.0]])
    together = published.modes(times)
    assert together.shape == (2, 2, 65)
    for index in ((0, 0), (0, 1), (1, 0), (1, 1)):
        torch.testing.assert_close(together[index], published.modes(float(times[index])))


def test_populations_evolve_independently_and_in_two_stages():
    densities = (two_modes, lambda x: VonMises(0.5, 3.0).log_prob(x).exp())
    start = torch.stack([FokkerPlanck1D(PROCESS, density, modes=24).modes(0.0) for density in densities])
    both = evolve_modes(PROCESS, start)
    for one, modes in zip(start, both, strict=True):
        torch.testing.assert_close(evolve_modes(PROCESS, one), modes)
    staged = evolve_modes(PROCESS, evolve_modes(PROCESS, start, 0.0, 0.4), 0.4, 1.0)  # takes finer steps
    torch.testing.assert_close(staged, both, atol=1e-7, rtol=0)


def test_strong_coefficients_stay_stable():
    strong = PROCESS.scaled(16.0)
    exact = FokkerPlanck1D(strong, two_modes, modes=32)
    density = exact.density(grid(200), 1.0)
    torch.testing.assert_close(density, strong.prior().log_prob(grid(200)).exp(), atol=2e-3, rtol=0)


@pytest.mark.filterwarnings("ignore:the initial density has a mode")
def test_a_grid_of_values_is_as_good_as_a_function(published):
    from_values = FokkerPlanck1D(PROCESS, two_modes(grid(512)))
    torch.testing.assert_close(from_values.modes(0.7), published.modes(0.7))
    joint = FokkerPlanck2D(PROCESS, pair_density(*torch.meshgrid(grid(60), grid(60), indexing="ij")), modes=12)
    torch.testing.assert_close(
        joint.modes(0.7), FokkerPlanck2D(PROCESS, pair_density, modes=12).modes(0.7), atol=1e-4, rtol=0
    )


@pytest.mark.filterwarnings("ignore:the initial density has a mode")
@pytest.mark.parametrize(
    ("density", "message"),
    [
        (lambda x: torch.ones_like(x), "integral 6.28"),
        (lambda x: torch.cos(x) + 1 / (2 * PI), "minimum -"),
        (lambda x: torch.full_like(x, math.nan), "expected >= 0 and 1"),
        (torch.full((64,), 1 / (2 * PI)), "try a finer grid or fewer modes"),
        (torch.full((600, 600), 1 / (2 * PI)), "expected 1 equal sides"),
    ],
)
def test_what_is_no_density_is_refused(density, message):
    with pytest.raises(ValueError, match=message):
        FokkerPlanck1D(PROCESS, density)


def test_a_density_too_narrow_for_the_modes_warns_in_either_direction():
    narrow, wide = VonMises(0.0, 100.0), VonMises(0.0, 2.0)
    with pytest.warns(UserWarning, match="try more modes"):
        FokkerPlanck1D(PROCESS, lambda x: narrow.log_prob(x).exp(), modes=16)
    for first, second in ((narrow, wide), (wide, narrow)):
        with pytest.warns(UserWarning, match="try more modes"):
            FokkerPlanck2D(PROCESS, lambda a, b, p=first, q=second: (p.log_prob(a) + q.log_prob(b)).exp(), modes=16)


def test_a_reference_field_has_no_single_marginal():
    with pytest.raises(ValueError, match="reference_phase: got a field, expected a number"):
        FokkerPlanck1D(KuramotoProcess(reference_phase=torch.zeros(4, 4)), two_modes)


@pytest.mark.parametrize("t", [-0.1, 1.1, math.nan])
def test_times_outside_the_unit_interval_are_refused(published, t):
    with pytest.raises(ValueError, match=r"expected times in \[0, 1\]"):
        published.density(grid(4), t)


def test_the_pair_wants_pairs(pair):
    with pytest.raises(ValueError, match=r"expected pairs of angles \(B, 2\)"):
        pair.score(torch.zeros(4, 3), 0.5)


def flat_images(*phases):
    return torch.tensor(phases, dtype=torch.float64)[:, None, None, None].expand(-1, 1, 3, 3)


def alone(phase, blur=0.3):
    """The law of every pixel of a flat image: one population that starts as a wrapped normal."""
    return FokkerPlanck1D(COUPLED, lambda x: WrappedNormal(phase, blur).log_prob(x).exp(), modes=40)


@pytest.mark.parametrize("t", [0.01, 0.3, 1.0])
def test_the_score_of_one_flat_image_is_that_of_its_population(t):
    theta = torch.rand(5, 1, 3, 3, generator=seeded(0), dtype=torch.float64) * 1.6 + 0.2
    score = ImageSetScore(COUPLED, flat_images(1.0), blur=0.3)(theta, t)
    torch.testing.assert_close(score, alone(1.0).score(theta, t), atol=1e-5, rtol=1e-5)


def test_the_score_of_two_flat_images_is_their_mean_weighted_by_likelihood():
    theta = torch.rand(50, 1, 3, 3, generator=seeded(1), dtype=torch.float64) * 2 - 1
    network, t = ImageSetScore(COUPLED, flat_images(0.5, -0.8), blur=0.3), 0.25  # a stored time: exact in the tails
    laws = [alone(phase) for phase in (0.5, -0.8)]
    log_weights = torch.stack([law.density(theta, t).log().sum((1, 2, 3)) for law in laws], 1).log_softmax(1)
    torch.testing.assert_close(network.log_weights(theta, t), log_weights, atol=1e-5, rtol=1e-5)
    weights = log_weights.exp()
    assert float(weights.min(1).values.max()) > 0.05  # some states could be either
    mixed = sum(weights[:, a, None, None, None] * laws[a].score(theta, t) for a in range(2))
    torch.testing.assert_close(network(theta, torch.full((50,), t)), mixed, atol=1e-4, rtol=1e-4)


def test_pixels_of_an_image_of_two_greys_follow_the_field_that_both_make():
    """The mean of the pixels' laws is the law of the population, which the mean-field equation gives."""
    image = torch.tensor([[1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)[None, None]
    network, theta = ImageSetScore(COUPLED, image, blur=0.3), grid(40)
    mixture = FokkerPlanck1D(
        COUPLED,
        lambda x: sum(w * WrappedNormal(m, 0.3).log_prob(x).exp() for m, w in ((1.0, 0.75), (-1.0, 0.25))),
        modes=40,
    )
    for t in (0.1, 0.5):
        states = theta[:, None, None, None].expand(-1, 1, 2, 2)
        densities, _ = network._density_and_derivative(states, t)
        torch.testing.assert_close(densities[:, 0].mean(1), mixture.density(theta, t), atol=1e-7, rtol=0)


def test_a_set_of_images_needs_global_coupling_and_enough_modes():
    with pytest.raises(ValueError, match="expected GlobalCoupling"):
        ImageSetScore(KuramotoProcess(LocalCoupling(1)), flat_images(0.0))
    with pytest.raises(ValueError, match="try more modes"):
        ImageSetScore(KuramotoProcess(), flat_images(0.0), blur=0.05)


def test_the_score_of_a_set_of_images_refuses_what_it_would_get_wrong():
    process, images = KuramotoProcess(), torch.zeros(2, 1, 4, 4)
    for bad in (images + math.nan, images + 90.0):
        with pytest.raises(ValueError, match="images: got"):
            ImageSetScore(process, bad)
    score = ImageSetScore(process, images)
    with pytest.raises(ValueError, match="theta: got shape"):
        score(torch.zeros(3, 1, 4, 5), 0.5)
    with pytest.raises(ValueError, match="expected one time for the batch"):
        score(torch.zeros(3, 1, 4, 4), torch.tensor([0.1, 0.1, 0.2]))
