"""Terminal laws: the Gibbs prior against exact sums and theory, the order-parameter prior, and what t = 1 remembers."""

import math

import numpy as np
import pytest
import torch
from helpers import HELPFUL, random_phases, seeded
from scipy.special import ive
from scipy.stats import kstest, vonmises

from kodm_lite import (
    GibbsPrior,
    GlobalCoupling,
    KuramotoProcess,
    LinearSchedule,
    LocalCoupling,
    OrderParameterPrior,
    angle_difference,
    order_parameter,
    terminal_memory,
    wrap,
)
from kodm_lite.data import textures
from kodm_lite.memory import flat_image_memory

PI = math.pi
RATIO = 3.0 / 5.0  # K/D of the published schedule at t = 1
PULL = 4.5 / 5.0  # K_ref/D


def variance_and_error(x, dims):
    """Variance of independent zero-mean numbers, and the standard error of that estimate."""
    square = x.abs().square().mean(dims) if dims else x.abs().square()
    return float(square.mean()), float(square.std()) / math.sqrt(len(square))


def exact_moments(n):
    """E z, var Re z, var Im z of n globally coupled oscillators in their Gibbs law.

    exp(n K |z|^2 / 2D) is an average of exp(n Re(conj(h) z)) over a Gaussian field h (Hubbard and Stratonovich), given
    which the phases are independent von Mises draws.  What is left is an integral over the plane of h.
    """
    axis = torch.linspace(-4, 4, 801, dtype=torch.float64)
    real, imag = torch.meshgrid(axis + 0.6, axis, indexing="ij")
    total_real, kappa = real + PULL, torch.hypot(real + PULL, imag)
    i0, i1, i2 = (torch.from_numpy(ive(k, kappa.numpy())) for k in range(3))
    log_weight = -n * (real**2 + imag**2) / (2 * RATIO) + n * (i0.log() + kappa)
    weight = (log_weight - log_weight.max()).exp()
    weight = weight / weight.sum()
    cos, sin = total_real / kappa, imag / kappa
    mean_cos, mean_sin, second = (
        i1 / i0 * cos,
        i1 / i0 * sin,
        i2 / i0 * (cos**2 - sin**2),
    )  # E cos, E sin, E cos 2 theta
    expected = float((weight * mean_cos).sum())
    var_cos = float((weight * (mean_cos**2 * (1 - 1 / n) + (1 + second) / (2 * n))).sum()) - expected**2
    var_sin = float((weight * (mean_sin**2 * (1 - 1 / n) + (1 - second) / (2 * n))).sum())
    return expected, var_cos, var_sin


@pytest.fixture(scope="module")
def law():
    return KuramotoProcess().prior()


@pytest.fixture(scope="module")
def draws():
    """Draws of the default prior, with global coupling and with R = 4."""
    return {
        coupling: GibbsPrior(KuramotoProcess(coupling)).sample((4000, 1, 16, 16), seeded(1))
        for coupling in (GlobalCoupling(), LocalCoupling(4))
    }


@pytest.fixture(scope="module")
def data():
    return textures(size=32, n=240, scale=0.9)


def test_the_oracle_reproduces_the_theory_for_many_oscillators(law):
    v = float(law.mean_resultant_length() / law.concentration)
    mean, _, var_sin = exact_moments(4000)
    assert mean == pytest.approx(float(law.mean_resultant_length()), abs=5e-4)
    assert 4000 * var_sin == pytest.approx(v / (1 - RATIO * v), rel=2e-3)
    assert 1 / (1 - RATIO * v) == pytest.approx(1.35, abs=0.01)


def test_order_parameters_of_globally_coupled_draws_have_the_exact_moments(draws):
    z = order_parameter(draws[GlobalCoupling()], (1, 2, 3))
    mean, var_cos, var_sin = exact_moments(256)
    assert abs(float(z.real.mean()) - mean) < 4 * math.sqrt(var_cos / 4000) + 0.002  # 0.002: finite step
    for measured, exact in ((z.real - mean, var_cos), (z.imag, var_sin)):
        variance, error = variance_and_error(measured, ())
        assert abs(variance - exact) < 4 * error, (variance / exact, error / exact)


def test_twenty_steps_already_have_the_exact_mean():
    """Sharp enough to see the memory of a first step with too little noise, .0028, and Euler's error, .025."""
    z = order_parameter(GibbsPrior(KuramotoProcess()).sample((300, 1, 96, 96), seeded(4)), (1, 2, 3))
    mean, var_cos, _ = exact_moments(96 * 96)
    assert abs(float(z.real.mean()) - mean) < 4 * math.sqrt(var_cos / 300) + 6e-4  # 6e-4: finite step


@pytest.mark.parametrize("n", [2, 8])
def test_even_few_oscillators_have_their_exact_gibbs_law(n):
    # Far fewer than many: the von Mises start is farther off and needs longer.
    theta = GibbsPrior(KuramotoProcess(), relaxation=150, variance=0.1).sample((100_000, n), seeded(2))
    z = order_parameter(theta, 1)
    mean, var_cos, var_sin = exact_moments(n)
    assert float(z.real.mean()) == pytest.approx(mean, abs=4 * math.sqrt(var_cos / 1e5) + 5e-4)
    assert float(z.imag.square().mean()) == pytest.approx(var_sin, rel=4 * math.sqrt(2 / 1e5) + 2e-3)
    assert float((z.real - mean).square().mean()) == pytest.approx(var_cos, rel=4 * math.sqrt(2 / 1e5) + 2e-3)


@pytest.mark.parametrize("coupling", [GlobalCoupling(), LocalCoupling(4)])
def test_every_spatial_mode_has_the_variance_of_the_transfer_function(draws, law, coupling):
    v = float(law.mean_resultant_length() / law.concentration)
    power = torch.fft.fft2(draws[coupling].sin(), norm="ortho").abs().square()[:, 0] / v
    expected = 1 / (1 - RATIO * v * coupling.transfer((1, 16, 16))[0])
    error = power.std(0) / math.sqrt(len(power))
    deviation = (power.mean(0) - expected) / error
    assert float(deviation.abs().max()) < 4.5  # 256 modes, half of them independent
    for k in ((0, 0), (0, 1), (1, 0), (1, 1)):
        assert abs(float(power.mean(0)[k] / expected[k]) - 1) < 4.5 * float(error[k] / expected[k])


def test_without_relaxation_phases_are_independent_von_mises(law):
    theta = GibbsPrior(KuramotoProcess(), relaxation=0).sample((2000, 1, 8, 8), seeded(3))
    assert kstest(theta.flatten()[::7].double().numpy(), vonmises(float(law.concentration)).cdf).pvalue > 1e-3
    v = float(law.mean_resultant_length() / law.concentration)
    variance, error = variance_and_error(order_parameter(theta, (1, 2, 3)).imag * 8, ())
    assert abs(variance - v) < 4 * error


def test_single_phases_keep_the_von_mises_law(draws, law):
    theta = draws[GlobalCoupling()][:, 0, ::5, ::5].flatten().double()
    assert kstest(theta.numpy(), vonmises(float(law.concentration)).cdf).statistic < 2.5 / math.sqrt(len(theta))


@pytest.mark.parametrize("coupling", [GlobalCoupling(), LocalCoupling(4)])
def test_a_strong_process_ends_in_the_law_of_the_prior(draws, coupling):
    """Forward-simulated states of a process strong enough to follow its stationary law, from one grey image."""
    theta = (
        KuramotoProcess(coupling).scaled(8.0).simulate(torch.zeros(600, 1, 16, 16), 1.0, steps=600, generator=seeded(4))
    )
    for f in (torch.sin, lambda x: x.cos() - 0.515):
        for size in (16, 5):  # the whole image, and patches of it
            forward, prior = (f(x)[..., :size, :size].mean((1, 2, 3)) for x in (theta, draws[coupling]))
            (a, da), (b, db) = variance_and_error(forward, ()), variance_and_error(prior, ())
            assert abs(a - b) < 4 * math.hypot(da, db) + 0.02 * b, (size, a / b)


def test_rotating_the_reference_rotates_the_draws():
    plain, turned = (
        GibbsPrior(KuramotoProcess(LocalCoupling(1), reference_phase=phase)).sample((3, 1, 6, 6), seeded(5))
        for phase in (0.0, 1.3)
    )
    assert float(angle_difference(turned, plain + 1.3).abs().max()) < 1e-4


def test_a_reference_field_gives_every_pixel_its_own_direction():
    field = torch.linspace(-3, 3, 36).reshape(1, 6, 6)
    theta = GibbsPrior(KuramotoProcess(LocalCoupling(1), reference_phase=field)).sample((3000, 1, 6, 6), seeded(6))
    law = KuramotoProcess(LocalCoupling(1), reference_phase=field).prior()
    assert float(angle_difference(order_parameter(theta, 0).angle(), law.loc).abs().max()) < 0.15


@pytest.mark.parametrize("concentration", [20.0, 400.0])
def test_a_sharply_peaked_law_does_not_overshoot(concentration):
    process = KuramotoProcess(
        GlobalCoupling(), LinearSchedule(0, 0), LinearSchedule(0, concentration), LinearSchedule(0, 1)
    )
    theta = GibbsPrior(process).sample((50, 400), seeded(7))
    assert float(theta.sin().square().mean()) * concentration == pytest.approx(1.0, abs=0.06)


def test_an_image_of_the_prior_depends_on_its_own_generator_only():
    for prior in (GibbsPrior(KuramotoProcess()), OrderParameterPrior(torch.tensor([0.3 + 0.1j, 0.5 - 0.2j, -0.4j]))):
        batch = prior.sample((3, 1, 8, 8), [seeded(b) for b in (1, 2, 3)])
        assert torch.allclose(batch[1:2], prior.sample((1, 1, 8, 8), [seeded(2)]), atol=1e-6)


def test_draws_have_exactly_the_given_order_parameters():
    given = torch.tensor([0.42 - 0.07j, 0.5 + 0.02j, 0.0, -0.9, 0.7j], dtype=torch.complex128)
    theta = OrderParameterPrior(given).sample((64, 1, 16, 16), seeded(8))
    z = order_parameter(theta, (1, 2, 3))
    distance = (z[:, None] - given).abs()
    assert float(distance.min(1).values.max()) < 1e-10
    assert set(distance.argmin(1).tolist()) == set(range(5))  # and every one of them is drawn
    assert theta.dtype == torch.float64 and float(theta.min()) >= -PI and float(theta.max()) < PI


def test_given_its_order_parameter_phases_are_von_mises():
    theta = OrderParameterPrior(torch.tensor([0.5157j])).sample((40, 1, 32, 32), seeded(9))
    centred = angle_difference(theta, torch.tensor(PI / 2)).flatten().double()
    assert kstest(centred.numpy(), vonmises(1.2094).cdf).statistic < 1.63 / math.sqrt(len(centred))


def test_the_prior_from_data_holds_the_terminal_order_parameters(data):
    process = KuramotoProcess()
    prior = OrderParameterPrior.from_data(process, data.theta, seeded(10))
    final = process.simulate(data.theta, 1.0, generator=seeded(10))
    assert torch.allclose(prior.order_parameters, order_parameter(final, (1, 2, 3)), atol=1e-6)


@pytest.mark.parametrize(
    "pool",
    [
        torch.tensor([]),
        torch.tensor([0.5]),
        torch.tensor([1.0 + 0j]),
        torch.tensor([[0.1j]]),
        [0.1j],
        torch.tensor([math.nan * 1j]),
    ],
)
def test_what_are_no_order_parameters_is_refused(pool):
    with pytest.raises(ValueError, match=r"order_parameters: got .* expected complex \(n,\)"):
        OrderParameterPrior(pool)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 4), (0, 4), (2, 1, 0, 4), 5])
def test_a_shape_of_nothing_that_is_simulated_is_refused(shape):
    for prior in (GibbsPrior(KuramotoProcess()), OrderParameterPrior(torch.tensor([0.1j]))):
        with pytest.raises(ValueError, match=r"shape: got .* expected images \(B, C, H, W\)"):
            prior.sample(shape)


@pytest.mark.parametrize("options", [{"relaxation": -1}, {"variance": 0.0}, {"variance": -0.1}, {"variance": math.nan}])
def test_a_relaxation_that_is_none_is_refused(options):
    with pytest.raises(ValueError, match="relaxation, variance: got"):
        GibbsPrior(KuramotoProcess(), **options)


@pytest.mark.parametrize(("strength", "low", "high"), [(1.0, 3.0, 4.0), (1.5, 0.2, 0.4), (2.0, -0.1, 0.1)])
def test_textures_leave_the_known_memory_in_the_order_parameter(data, strength, low, high):
    process = KuramotoProcess().scaled(strength)
    memory = terminal_memory(process, data.theta, replicas=4, generator=seeded(11))
    ratio, error = float(memory.ratio[0, 0, 0]), float(memory.standard_error[0, 0, 0])
    assert low < ratio < high and 0 < error < 0.15 * ratio + 0.05
    assert abs(flat_image_memory(process, (1, 32, 32), data.theta) - ratio) < 4 * error + 0.05 * ratio
    others = memory.ratio.flatten()[1:]
    assert float(others.max()) < 0.3 and abs(float(others.mean())) < 0.01  # all other modes forget
    assert torch.equal(memory.ratio, memory.signal / memory.noise)


def test_bricks_and_grass_end_at_the_known_order_parameters_and_von_mises_draws_never_do(data):
    process = KuramotoProcess()
    mean = {
        name: complex(
            order_parameter(process.simulate(data.of_class(name), 1.0, generator=seeded(12)), (1, 2, 3)).mean()
        )
        for name in ("brick", "grass")
    }
    assert abs(mean["brick"] - (0.42 - 0.07j)) < 0.015
    assert abs(mean["grass"] - (0.50 + 0.02j)) < 0.015
    independent = order_parameter(GibbsPrior(process, relaxation=0).sample((500, 1, 32, 32), seeded(13)), (1, 2, 3))
    assert float(independent.real.std()) == pytest.approx(0.019, abs=0.003)
    assert float((independent - mean["brick"]).abs().min()) > 0.02  # no draw comes near the mean brick


def test_the_strength_for_a_shape_leaves_at_most_the_memory_asked_for(data):
    process = KuramotoProcess.for_shape((1, 32, 32), memory=0.3, theta0=data.theta)
    memory = terminal_memory(process, data.theta, replicas=4, generator=seeded(15))
    assert float(memory.ratio[0, 0, 0]) == pytest.approx(0.3, abs=3 * float(memory.standard_error[0, 0, 0]))
    assert (
        KuramotoProcess.for_shape((1, 32, 32)).diffusion.end > process.diffusion.end
    )  # any flat image: the worst case


class Additive:
    """Not a Kuramoto process: states are small known phases plus small noise, so that signal and noise are known."""

    def simulate(self, theta0, t, generator=None):
        return theta0 + 0.01 * torch.randn(theta0.shape, generator=generator, dtype=theta0.dtype)


def test_signal_and_noise_of_a_known_law_are_found_without_bias():
    signal = 0.004 * torch.randn(400, 1, 1, 1, generator=seeded(16)).expand(-1, 1, 4, 4).double()
    true_signal, true_noise = float(signal[:, 0, 0, 0].var()), 1e-4 / 16
    ratios = []
    for seed in range(20):
        memory = terminal_memory(Additive(), signal, replicas=2, generator=seeded(100 + seed))
        ratios.append((float(memory.signal[0, 0, 0]), float(memory.noise[0, 0, 0]), float(memory.ratio[0, 1, 1])))
    signals, noises, elsewhere = (torch.tensor(x) for x in zip(*ratios, strict=True))
    assert float(signals.mean()) == pytest.approx(true_signal, rel=0.02)
    assert float(noises.mean()) == pytest.approx(true_noise, rel=0.03)
    assert abs(float(elsewhere.mean())) < 4 * float(elsewhere.std()) / math.sqrt(20)  # 1/2 without the correction


def test_the_jackknife_error_is_the_spread_of_repetitions():
    def repeat(seed):
        signal = 0.004 * torch.randn(60, 1, generator=seeded(seed)).expand(-1, 16).double()
        memory = terminal_memory(Additive(), signal, replicas=4, generator=seeded(1000 + seed))
        return float(memory.ratio[0]), float(memory.standard_error[0])

    ratios, errors = (torch.tensor(x) for x in zip(*(repeat(seed) for seed in range(200)), strict=True))
    assert float(errors.square().mean().sqrt()) == pytest.approx(float(ratios.std()), rel=0.25)


def test_memory_needs_several_images_and_replicas():
    for theta0, replicas in ((torch.zeros(2, 4), 4), (torch.zeros(5, 4), 1)):
        with pytest.raises(ValueError, match="expected at least 3 images and 2 replicas"):
            terminal_memory(KuramotoProcess(), theta0, replicas)
    with pytest.raises(ValueError, match="radians"):
        terminal_memory(KuramotoProcess(), torch.full((5, 4), 90.0))


def test_memory_leaves_its_images_alone(data):
    kept = data.theta[:4].clone()
    terminal_memory(KuramotoProcess(), kept, replicas=2)
    assert torch.equal(kept, data.theta[:4]) and torch.equal(wrap(kept), kept)


# The exact density and exact draws, against sums over a grid of the torus.

FEW_OSCILLATORS = [(0.6, 0.9), (0.0, 0.9), (0.0, 0.0), (0.01, 0.0), (5.0, 0.0), (5.0, 0.3), (30.0, 2.0)]


def at_rest(kappa, rho, phase=0.0):
    """A process with K/D = kappa and K_ref/D = rho at t = 1."""
    rates = LinearSchedule(0.0, kappa), LinearSchedule(0.0, rho), LinearSchedule(0.01, 1.0)
    return KuramotoProcess(GlobalCoupling(), *rates, reference_phase=phase)


def on_the_torus(n, kappa, rho, phases):
    """Grid (G, n), normalised log-density on it, and weight of a point; sums over it are exact to 1e-12."""
    size = {1: 300, 2: 200, 3: 70}[n]
    axis = -PI + 2 * PI * torch.arange(size, dtype=torch.float64) / size
    theta = torch.stack(torch.meshgrid(*[axis] * n, indexing="ij"), -1).reshape(-1, n)
    energy = kappa * n / 2 * torch.exp(1j * theta).mean(1).abs() ** 2 + rho * torch.cos(theta - phases).sum(1)
    weight = (2 * PI / size) ** n
    return theta, energy - energy.logsumexp(0) - math.log(weight), weight


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(("kappa", "rho"), FEW_OSCILLATORS)
def test_the_density_of_few_oscillators_is_exact(n, kappa, rho):
    for phase in (0.4, torch.linspace(-1, 2, n, dtype=torch.float64)):
        theta, expected, _ = on_the_torus(n, kappa, rho, phase)
        found = GibbsPrior(at_rest(kappa, rho, phase)).log_prob(theta)
        assert float((found - expected).abs().max()) < 2e-8


def test_two_oscillators_of_the_published_process():
    prior = GibbsPrior(KuramotoProcess())
    assert float(-prior.log_prob(torch.full((1, 2), PI / 2))) == pytest.approx(4.43309 - RATIO, abs=2e-5)
    cos = prior.sample_exact((200_000, 2), seeded()).cos().mean(1)
    assert abs(float(cos.mean()) - 0.45378) < 4 * float(cos.std()) / len(cos) ** 0.5


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize(("kappa", "rho"), FEW_OSCILLATORS)
def test_exact_draws_have_the_exact_law(n, kappa, rho):
    for phase in (0.4, torch.linspace(-1, 2, n, dtype=torch.float64)):
        theta, log_prob, weight = on_the_torus(n, kappa, rho, phase)
        drawn = GibbsPrior(at_rest(kappa, rho, phase)).sample_exact((4000, n), seeded(3))
        assert drawn.dtype == torch.float32 and bool((drawn.abs() <= PI).all())
        size = round(len(theta) ** (1 / n))
        cells = (log_prob.exp() * weight).reshape(size, -1).sum(1)  # probabilities, centred at the points of the grid
        up_to, ends = np.append(0.0, cells.cumsum(0)), np.linspace(0, 2 * PI, size + 1)
        first = (drawn[:, 0].double().numpy() + PI + PI / size) % (2 * PI)  # from where the first cell begins
        assert kstest(first, lambda x, ends=ends, up_to=up_to: np.interp(x, ends, up_to)).pvalue > 1e-3
        pair = torch.cos(drawn[:, 0].double() - drawn[:, -1])
        expected = float((log_prob.exp() * weight * torch.cos(theta[:, 0] - theta[:, -1])).sum())
        assert abs(float(pair.mean()) - expected) < 4 * float(pair.std()) / len(pair) ** 0.5 + 1e-9


@pytest.mark.parametrize("n", [16, 3072])
def test_exact_draws_fluctuate_together_as_in_theory(n):
    z = order_parameter(GibbsPrior(KuramotoProcess()).sample_exact((1000, n), seeded(5)), dim=1)
    mean, var_cos, var_sin = exact_moments(n)
    for found, expected in ((z.real - mean, var_cos), (z.imag, var_sin)):
        variance, error = variance_and_error(found, ())
        assert abs(variance - expected) < 4 * error and abs(float(found.mean())) < 4 * (variance / 1000) ** 0.5
    if n > 1000:
        law = KuramotoProcess().prior()
        assert n * var_sin == pytest.approx(1.344 * float(law.mean_resultant_length() / law.concentration), rel=2e-3)


@pytest.mark.parametrize(("kappa", "rho"), [(0.6, 0.9), (5.0, 0.0)])
def test_the_normaliser_of_very_many_oscillators_knows_their_order(kappa, rho):
    """d ln Z / d kappa = (N / 2) E abs(z)^2, which is that of the mean field but for terms of order 1 / N."""
    n, step = 100_000, 1e-3

    def log_z(kappa):
        return (kappa / 2 + rho) * n - float(GibbsPrior(at_rest(kappa, rho)).log_prob(torch.zeros(1, n)))

    square = (log_z(kappa + step) - log_z(kappa - step)) / (step * n)
    assert square == pytest.approx(float(at_rest(kappa, rho).prior().mean_resultant_length()) ** 2, abs=3e-5)


def test_synchronised_phases_have_no_direction_and_the_modulus_of_theory():
    process = at_rest(5.0, 0.0)
    z = order_parameter(GibbsPrior(process).sample_exact((1000, 1000), seeded(1)), dim=1)
    assert float(z.abs().mean()) == pytest.approx(float(process.prior().mean_resultant_length()), abs=2e-3)
    assert abs(complex(z.mean())) < 4 * float(z.abs().mean()) / 1000**0.5


def test_exact_draws_depend_on_their_own_generator_and_fit_images():
    field = torch.linspace(-3, 3, 64).reshape(1, 8, 8)
    for phase in (0.3, field):
        prior = GibbsPrior(KuramotoProcess(reference_phase=phase))
        both = prior.sample_exact((2, 3, 8, 8), [seeded(1), seeded(2)])
        assert torch.equal(both[1:], prior.sample_exact((1, 3, 8, 8), [seeded(2)]))
        assert prior.log_prob(both).dtype == torch.float64 and prior.log_prob(both).shape == (2,)


def test_a_constant_reference_field_is_a_reference():
    theta = random_phases(4, 5)
    one, field = (GibbsPrior(KuramotoProcess(reference_phase=p)).log_prob(theta) for p in (0.3, torch.full((5,), 0.3)))
    torch.testing.assert_close(one, field, atol=1e-6, rtol=0)


def test_local_coupling_has_no_density_yet():
    prior = GibbsPrior(KuramotoProcess(LocalCoupling(2)))
    for call in (lambda: prior.log_prob(torch.zeros(1, 1, 8, 8)), lambda: prior.sample_exact((1, 1, 8, 8))):
        with pytest.raises(ValueError, match=HELPFUL):
            call()
