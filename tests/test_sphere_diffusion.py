"""Diffusion of coefficients: laws, exact Gaussian denoisers, samplers, and what score matching weighs."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import seeded

from kodm_lite import LinearSchedule
from kodm_lite.euclidean import VariancePreserving
from kodm_lite.samplers import sample
from kodm_lite.sphere import (
    ExactDenoiser,
    IsotropicNoise,
    PerDegreeDenoiser,
    PixelNoise,
    SphericalTransform,
    degree_order,
    gaussian_fields,
    lognormal_fields,
    make_grid,
    pixel_score_matching,
    power_spectrum,
    spectral_score_matching,
)

L = 8
SPECTRUM = 4 * (1 + torch.arange(L, dtype=torch.float64) / 3) ** -2.5
GAUSS = SphericalTransform(make_grid("gauss", L))
NOISES = {"pixel": PixelNoise(GAUSS), "isotropic": IsotropicNoise(L)}
UNIT = torch.eye(L * L, dtype=torch.float64)
DATA = torch.diag(SPECTRUM[degree_order(L)[0]])


@pytest.fixture(params=NOISES)
def noise(request):
    return NOISES[request.param]


def matrix(network, t):
    """The matrix of a linear network at one time."""
    return network(UNIT, torch.full((L * L,), t, dtype=torch.float64)).T


def power(symmetric, exponent):
    values, axes = torch.linalg.eigh(symmetric)
    return axes @ torch.diag(values**exponent) @ axes.T


@pytest.mark.parametrize("kind", [VariancePreserving])
def test_the_forward_law_is_that_of_the_equation(kind, noise):
    """alpha' = f alpha and (sigma^2)' = 2 f sigma^2 + g^2, by finite differences."""
    rate = LinearSchedule(0.5, 4.0)
    diffusion = kind(noise, rate)
    t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    h = 1e-5
    f = -0.5 * rate.at(t) if kind is VariancePreserving else torch.zeros_like(t)
    growth = (diffusion.alpha(t + h) - diffusion.alpha(t - h)) / (2 * h)
    torch.testing.assert_close(growth, f * diffusion.alpha(t), rtol=1e-7, atol=1e-9)
    growth = (diffusion.sigma(t + h) ** 2 - diffusion.sigma(t - h) ** 2) / (2 * h)
    torch.testing.assert_close(growth, 2 * f * diffusion.sigma(t) ** 2 + rate.at(t), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", [VariancePreserving])
def test_two_steps_forward_are_one(kind, noise):
    diffusion = kind(noise, LinearSchedule(0.5, 4.0))
    n, c0 = 4000, torch.full((1, L * L), 2.0, dtype=torch.float64)
    whole, eps = diffusion.perturb(c0.expand(n, -1), torch.full((n,), 0.6, dtype=torch.float64), seeded(0))
    halfway = diffusion.advance(c0.expand(n, -1), 0.0, 0.3, seeded(1))
    parts = diffusion.advance(halfway, 0.3, 0.6, seeded(2))
    variance = diffusion.sigma(torch.tensor(0.6)) ** 2 * noise.covariance(UNIT).diagonal()
    for draws in (whole, parts):
        z = (draws.mean(0) - diffusion.alpha(torch.tensor(0.6)) * 2) / (variance / n).sqrt()
        assert float(z.abs().max()) < 4.5
        z = (draws.var(0) / variance - 1) / (2 / n) ** 0.5
        assert float(z.abs().max()) < 5 and 0.8 < float(z.square().mean().sqrt()) < 1.2
    shift = whole - diffusion.alpha(torch.tensor(0.6)) * 2 - diffusion.sigma(torch.tensor(0.6)) * eps
    assert float(shift.abs().max()) < 1e-6


def test_the_exact_denoiser_is_gaussian_conditioning(noise):
    diffusion = VariancePreserving(noise)
    sigma = noise.covariance(UNIT)
    for t in (0.01, 0.3, 1.0):
        a, s = (float(x(torch.tensor(t, dtype=torch.float64))) for x in (diffusion.alpha, diffusion.sigma))
        expected = s * sigma @ torch.linalg.inv(a**2 * DATA + s**2 * sigma)
        torch.testing.assert_close(matrix(ExactDenoiser(diffusion, SPECTRUM), t), expected, rtol=0, atol=1e-10)
        score = diffusion.score(
            matrix(ExactDenoiser(diffusion, SPECTRUM), t).T, torch.full((64,), t, dtype=torch.float64)
        ).T
        torch.testing.assert_close(score, -torch.linalg.inv(a**2 * DATA + s**2 * sigma), rtol=1e-8, atol=1e-9)


def covariance_of_samples(network, diffusion, steps, method, noise_covariance):
    """Of a linear sampler, exactly: by what it makes of unit vectors, and what each draw of noise adds."""
    grid = [(1 - k / steps) ** 2 for k in range(steps + 1)]
    one = torch.ones(1, dtype=torch.float64)
    covariance = float(diffusion.sigma(one)) ** 2 * noise_covariance
    for t1, t0 in pairwise(grid):
        below = max(2 * t0 - t1, 0.0) if method == "sde" and t0 > 0 else t0
        flow = sample(network, diffusion, (L * L, L * L), times=[t1, below], start=UNIT, method="ode").T
        covariance = flow @ covariance @ flow.T
        if below < t0:
            ends = torch.tensor([below, t0], dtype=torch.float64)
            alpha, sigma = diffusion.alpha(ends), diffusion.sigma(ends)
            kept = alpha[1] / alpha[0]
            covariance = kept**2 * covariance + (sigma[1] ** 2 - (kept * sigma[0]) ** 2) * noise_covariance
    return covariance


@pytest.mark.parametrize(("method", "steps", "bias"), [("sde", 50, 0.006), ("sde", 200, 0.0005), ("ode", 50, 0.004)])
def test_exact_scores_give_the_spectrum_back(noise, method, steps, bias):
    diffusion = VariancePreserving(noise)
    network = ExactDenoiser(diffusion, SPECTRUM)
    covariance = covariance_of_samples(network, diffusion, steps, method, noise.covariance(UNIT))
    spectrum = power_spectrum(covariance.diagonal().sqrt())
    assert float((spectrum / SPECTRUM - 1).abs().max()) < bias
    scaled = power(DATA, -0.5) @ covariance @ power(DATA, -0.5)
    assert float((scaled - UNIT).abs().max()) < 2.5 * bias  # every coefficient, and no correlations


def test_samples_have_the_spectrum(noise):
    diffusion, n = VariancePreserving(noise), 3000
    c = sample(
        ExactDenoiser(diffusion, SPECTRUM), diffusion, (n, L * L), steps=40, method="sde", generator=seeded(0),
        dtype=torch.float64,
    )  # fmt: skip
    counts = n * (2 * torch.arange(L) + 1)
    z = (power_spectrum(c).mean(0) / SPECTRUM - 1) / (2 / counts).sqrt()
    assert float(z.square().mean().sqrt()) < 1.8 and float(z.abs().max()) < 4


def test_a_step_of_the_sde_has_the_noise_of_a_step_forward(noise):
    """From one state, back to 2 t0 - t1 without noise and forward to t0: the spread of what comes out."""
    diffusion, n = VariancePreserving(noise), 6000
    network = PerDegreeDenoiser(diffusion, SPECTRUM)
    start = torch.ones(1, L * L, dtype=torch.float64).expand(n, -1)
    c = sample(network, diffusion, start.shape, times=[0.5, 0.4], start=start, method="sde", generator=seeded(0))
    alpha, sigma = (f(torch.tensor([0.3, 0.4], dtype=torch.float64)) for f in (diffusion.alpha, diffusion.sigma))
    kept = alpha[1] / alpha[0]
    expected = (sigma[1] ** 2 - (kept * sigma[0]) ** 2) * noise.covariance(UNIT).diagonal()
    z = (c.var(0) / expected - 1) / (2 / n) ** 0.5
    assert float(z.abs().max()) < 4.5
    flow = sample(network, diffusion, (1, L * L), times=[0.5, 0.3], start=start[:1], method="ode")
    assert float(((c.mean(0) - kept * flow[0]) / (expected / n).sqrt()).abs().max()) < 4.5


def test_batches_of_any_shape_and_any_precision_agree(noise):
    diffusion = VariancePreserving(noise)
    c, t = gaussian_fields(SPECTRUM, 6, seeded(4)), torch.tensor([0.1, 0.8], dtype=torch.float64)
    for kind in (ExactDenoiser, PerDegreeDenoiser):
        network = kind(diffusion, SPECTRUM)
        whole = network(c.reshape(2, 3, 64), t)
        torch.testing.assert_close(whole[1], network(c[3:], t[1:].expand(3)))
        single = network(c[3:].float(), t[1:].expand(3).float())
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), whole[1], rtol=1e-4, atol=1e-5)
    draws = noise.draw(torch.empty(2, 64), seeded(1))
    assert draws.dtype == torch.float32 and noise.solve(draws).dtype == torch.float32


def test_the_flow_is_the_map_between_two_gaussians(noise):
    diffusion = VariancePreserving(noise)
    steps = 100
    grid = [(1 - k / steps) ** 2 for k in range(steps + 1)]
    network = ExactDenoiser(diffusion, SPECTRUM)
    flow = sample(network, diffusion, (L * L, L * L), times=grid, start=UNIT, method="ode").T
    sigma = noise.covariance(UNIT)
    half, inverse = power(sigma, 0.5), power(sigma, -0.5)
    one = torch.ones((), dtype=torch.float64)
    a, s = diffusion.alpha(one), diffusion.sigma(one)
    values, axes = torch.linalg.eigh(inverse @ DATA @ inverse)
    expected = half @ axes @ torch.diag((values / (a**2 * values + s**2)).sqrt()) @ axes.T @ inverse
    torch.testing.assert_close(flow, expected, rtol=0, atol=1e-3)


def test_the_flow_is_of_second_order():
    diffusion = VariancePreserving(NOISES["pixel"])
    network = ExactDenoiser(diffusion, SPECTRUM)

    def flow(steps):
        return sample(network, diffusion, (L * L, L * L), steps=steps, start=UNIT, method="ode")

    exact = flow(800)
    coarse, fine = (float((flow(steps) - exact).norm()) for steps in (40, 80))
    assert 1.7 < math.log2(coarse / fine) < 2.4


def test_an_equivariant_denoiser_inherits_the_anisotropy_of_pixel_noise():
    """Var c_lm = C_l Sigma_lm,lm, though every degree has the right power; with isotropic noise all is right."""
    for noise in NOISES.values():
        diffusion = VariancePreserving(noise)
        network = PerDegreeDenoiser(diffusion, SPECTRUM)
        covariance = covariance_of_samples(network, diffusion, 100, "sde", noise.covariance(UNIT))
        inherited = SPECTRUM[degree_order(L)[0]] * noise.covariance(UNIT).diagonal()
        torch.testing.assert_close(covariance.diagonal(), inherited, rtol=0.003, atol=0)
        torch.testing.assert_close(power_spectrum(covariance.diagonal().sqrt()), SPECTRUM, rtol=0.003, atol=0)
        if noise is NOISES["pixel"]:
            rings = GAUSS.synthesis(power(covariance, 0.5)).square().sum(0).mean(1)  # variance on every ring
            right = GAUSS.synthesis(power(DATA, 0.5)).square().sum(0).mean(1)
            assert float(rings[0] / right[0]) == pytest.approx(0.46, abs=0.01)


def test_gaussian_fields_have_the_spectrum_for_every_order():
    n = 20_000
    c = gaussian_fields(SPECTRUM, n, seeded(3))
    z = (c.var(0) / DATA.diagonal() - 1) / (2 / n) ** 0.5
    assert float(z.abs().max()) < 4.5 and float(z.square().mean().sqrt()) < 1.3


@pytest.mark.parametrize("spectrum", [[4, 2, 1], (4.0, 2.0, 1.0), np.array([4, 2, 1]), torch.tensor([4, 2, 1])])
def test_spectra_of_any_kind_are_taken(spectrum):
    expected = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)
    assert torch.equal(gaussian_fields(spectrum, 5, seeded(0)), gaussian_fields(expected, 5, seeded(0)))
    assert torch.equal(lognormal_fields(spectrum, 5, seeded(0)), lognormal_fields(expected, 5, seeded(0)))
    diffusion, c, t = VariancePreserving(IsotropicNoise(3)), gaussian_fields(expected, 2), torch.tensor([0.2, 0.9])
    for kind in (ExactDenoiser, PerDegreeDenoiser):
        assert torch.equal(kind(diffusion, spectrum)(c, t), kind(diffusion, expected)(c, t))


def perturbed_model(seed=0):
    wrong = UNIT + 0.1 * torch.randn(L * L, L * L, generator=seeded(seed), dtype=torch.float64)
    return lambda c, t: c @ wrong.T


@pytest.mark.parametrize("kind", ["gauss", "equiangular"])
def test_pixel_score_matching_is_the_spectral_one_weighted_by_the_covariance(kind):
    """Field by field: |lift + z / sigma|^2 = r^T Sigma r + |(1 - Pi) z|^2 / sigma^2, in units of the pixels' noise."""
    noise = PixelNoise(SphericalTransform(make_grid(kind, L)))
    diffusion, transform = VariancePreserving(noise), noise.transform
    predict = perturbed_model()
    c0, t = gaussian_fields(SPECTRUM, 50, seeded(1)), torch.linspace(0.05, 1, 50, dtype=torch.float64)
    spectral = spectral_score_matching(predict, diffusion, c0, t, "covariance", seeded(2))

    def score(c, t):
        return diffusion.score(predict(c, t), t)

    pixel = pixel_score_matching(score, diffusion, c0, t, seeded(2))
    z = noise.pixels(c0, seeded(2)) / noise.pixel_std
    inside = transform.adjoint_analysis(noise.solve(transform.analysis(z))) * noise.pixel_std**2  # Pi z
    lost = (z - inside).square().sum((1, 2)) / diffusion.sigma(t) ** 2
    torch.testing.assert_close(pixel * noise.pixel_std**2, spectral + lost, rtol=1e-10, atol=0)
    assert float(lost.mean()) == pytest.approx(
        float((transform.grid.weights.numel() - L * L) * (diffusion.sigma(t) ** -2).mean()), rel=0.2
    )


def test_weights_of_the_loss_are_powers_of_the_covariance():
    noise = NOISES["pixel"]
    diffusion, predict = VariancePreserving(noise), perturbed_model()
    c0, t = gaussian_fields(SPECTRUM, 6, seeded(1)), torch.linspace(0.1, 1, 6, dtype=torch.float64)
    c, eps = diffusion.perturb(c0, t, seeded(2))
    sigma = noise.covariance(UNIT)
    residual = diffusion.score(predict(c, t), t) + torch.linalg.solve(sigma, eps.T).T / diffusion.sigma(t)[:, None]
    for weight, M in (("identity", UNIT), ("covariance", sigma), ("noise", sigma @ sigma)):
        expected = (residual @ M * residual).sum(1)
        torch.testing.assert_close(spectral_score_matching(predict, diffusion, c0, t, weight, seeded(2)), expected)


@pytest.mark.parametrize("shape", [(6, 1), (1, 64), (64,), (6, 63), (2, 6, 64)])
def test_losses_refuse_predictions_of_another_shape(shape):
    diffusion, t = VariancePreserving(NOISES["pixel"]), torch.linspace(0.1, 1, 6, dtype=torch.float64)
    c0 = gaussian_fields(SPECTRUM, 6, seeded(1))

    def wrong(c, t):
        return torch.zeros(shape, dtype=torch.float64)

    with pytest.raises(ValueError, match=r"(?s)network: got .*expected \(6, 64\).*try "):
        spectral_score_matching(wrong, diffusion, c0, t, "noise")
    with pytest.raises(ValueError, match=r"(?s)score: got .*expected \(6, 64\).*try "):
        pixel_score_matching(wrong, diffusion, c0, t)


@pytest.mark.parametrize(
    "t", [torch.zeros(6), torch.full((6,), 1.5), torch.full((6,), math.nan), torch.ones(1), torch.ones(6, 1), 0.5]
)
def test_losses_refuse_other_times(t):
    diffusion, c0 = VariancePreserving(NOISES["pixel"]), gaussian_fields(SPECTRUM, 6, seeded(1))
    for loss in (
        lambda: spectral_score_matching(perturbed_model(), diffusion, c0, t, "noise"),
        lambda: pixel_score_matching(perturbed_model(), diffusion, c0, t),
    ):
        with pytest.raises(ValueError, match=r"(?s)t: got .*expected one time in \(0, 1\].*try "):
            loss()


@pytest.mark.parametrize(
    ("power_of_sigma", "expected"),
    [
        (0, [0.4808, 0.7455, 0.9601, 1.1179, 1.2298, 1.3089, 1.3654, 1.4065]),
        (1, [0.4581, 0.7101, 0.9132, 1.0576, 1.1576, 1.2272, 1.3164, 1.3380]),
    ],
)
def test_the_best_equivariant_score_depends_on_the_weight(power_of_sigma, expected):
    """s = -h_l c_lm for Gaussian fields at alpha = .6, sigma = .8; values of an independent prototype."""
    sigma, (l, _) = NOISES["pixel"].covariance(UNIT), degree_order(L)
    M, P = torch.linalg.matrix_power(sigma, power_of_sigma), 0.36 * DATA + 0.64 * sigma
    choose = (l[:, None] == torch.arange(L)).double()
    h = torch.linalg.solve(choose.T @ (M * P) @ choose, choose.T @ M.diagonal())
    torch.testing.assert_close(h, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-4)
    if power_of_sigma == 0:
        torch.testing.assert_close(h, 1 / (0.36 * SPECTRUM + 0.64))


def test_seeds_do_not_depend_on_the_batch_and_the_callback_sees_every_step():
    diffusion = VariancePreserving(NOISES["pixel"])
    network, seen = PerDegreeDenoiser(diffusion, SPECTRUM), []
    options = {"steps": 4, "method": "sde", "dtype": torch.float64}
    both = sample(network, diffusion, (2, 64), seeds=[5, 6], callback=lambda t, c: seen.append(t), **options)
    alone = sample(network, diffusion, (1, 64), seeds=[6], **options)
    torch.testing.assert_close(both[1:], alone)
    assert seen == pytest.approx([1.0, 0.5625, 0.25, 0.0625, 0.0])


def never(c, t):
    return torch.full_like(c, math.nan)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "euler"}, "method: got 'euler'"),
        ({"times": [0.5, 0.7]}, "times: got"),
        ({"times": [1.0, math.nan, 0.0]}, "times: got"),
        ({"times": [0.5, 0.2, 0.0]}, "start: got None and times from 0.5"),
        ({"shape": (2, 63)}, r"shape: got shape \(2, 63\)"),
        ({"start": torch.zeros(3, 64)}, r"start: got shape \(3, 64\)"),
        ({"seeds": [1]}, r"seeds: got \[1\], expected one integer per image, 2"),
    ],
)
def test_bad_input_is_refused(options, message):
    diffusion = VariancePreserving(NOISES["isotropic"])
    shape = options.pop("shape", (2, 64))
    with pytest.raises(ValueError, match=message):
        sample(PerDegreeDenoiser(diffusion, SPECTRUM), diffusion, shape, **options)


def test_more_bad_input():
    diffusion = VariancePreserving(NOISES["isotropic"])
    with pytest.raises(FloatingPointError, match="step 1"):
        sample(never, diffusion, (2, 64), steps=3)
    with pytest.raises(ValueError, match="t: got"):
        diffusion.perturb(torch.zeros(2, 64), torch.ones(3))
    with pytest.raises(ValueError, match="noise: got IsotropicNoise, expected PixelNoise"):
        pixel_score_matching(never, diffusion, torch.zeros(2, 64), torch.ones(2))
    with pytest.raises(ValueError, match="weight: got 'sigma'"):
        spectral_score_matching(never, diffusion, torch.zeros(2, 64), torch.ones(2), "sigma")
    with pytest.raises(ValueError, match="spectrum: got negative"):
        gaussian_fields(torch.tensor([1.0, -1.0]), 3)
    with pytest.raises(ValueError, match="spectrum: got torch.complex128, expected real"):
        gaussian_fields(np.array([1.0, 1j]), 3)
    for kind in (ExactDenoiser, PerDegreeDenoiser):
        with pytest.raises(ValueError, match=r"spectrum: got shape \(1,\), expected C_l for l = 0 ... 7"):
            kind(diffusion, torch.ones(1))
    with pytest.raises(ValueError, match="t0, t1: got 0.5 and 0.2"):
        diffusion.advance(torch.zeros(1, 64), 0.5, 0.2)
