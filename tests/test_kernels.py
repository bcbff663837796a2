"""Wrapped normal and von Mises: log-densities, scores and draws against many digits, scipy and exact distributions.

No oracle here shares a formula's code with the package: the wrapped normal is summed with mpmath, over images of the
line for small scales and over Fourier modes for large ones, far beyond double precision.
"""

import math
from functools import cache

import mpmath
import numpy as np
import pytest
import torch
from helpers import HELPFUL, seeded
from scipy import special, stats

import kodm_lite.kernels
from kodm_lite.kernels import VonMises, WrappedNormal
from kodm_lite.randomness import generators_from_seeds

PI = math.pi
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
SCALES = [1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.3, 0.7, 0.95, 1.0, 1.05, 1.5, 2.0, 3.0, 6.0, 12.0, 30.0, 100.0, 1e3]
SCALES += [float(np.nextafter(1, 0)), float(np.nextafter(np.float32(1), np.float32(0)))]  # just below the switch
LOCS = [0.0, 0.7, -2.9]


def points(loc: float, scale: float) -> list[float]:
    """At the mean, around it, opposite it, on both sides of the cut, and far outside the circle."""
    near = [0.0, 0.3 * scale, -scale, 5 * scale] if scale < 0.5 else [0.0, 0.15, -0.5]
    antipode = [PI - 1e-3, PI + 1e-3, -PI - 1e-3, -PI + 1e-3]
    return [loc + d for d in (*near, 1.0, -2.5, *antipode, 9.0, 40.0, -123.456, 1000.5)]


@cache
def wrapped_normal(x: float, loc: float, scale: float, images: bool | None = None) -> tuple[float, float, float]:
    """log p, its first and its second derivative in x, with 50 digits."""
    with mpmath.workdps(50):
        d, s = mpmath.mpf(x) - mpmath.mpf(loc), mpmath.mpf(scale)
        if images is None:
            images = scale < 3
        if images:
            centre = int(mpmath.nint(d / (2 * mpmath.pi)))
            reach = 3 + math.ceil(2.5 * scale)
            positions = [d - 2 * mpmath.pi * (centre + k) for k in range(-reach, reach + 1)]
            weights = [mpmath.exp((min(abs(q) for q in positions) ** 2 - p**2) / (2 * s**2)) for p in positions]
            total = mpmath.fsum(weights)
            mean = mpmath.fsum(w * p for w, p in zip(weights, positions, strict=True)) / total
            square = mpmath.fsum(w * p**2 for w, p in zip(weights, positions, strict=True)) / total
            nearest = min(abs(p) for p in positions)
            log_p = mpmath.log(total) - nearest**2 / (2 * s**2) - mpmath.log(s * mpmath.sqrt(2 * mpmath.pi))
            return float(log_p), float(-mean / s**2), float((square - mean**2) / s**4 - 1 / s**2)
        q = [2 * mpmath.exp(-((n * s) ** 2) / 2) for n in range(1, 40)]
        f = 1 + mpmath.fsum(a * mpmath.cos(n * d) for n, a in enumerate(q, 1))
        f1 = -mpmath.fsum(n * a * mpmath.sin(n * d) for n, a in enumerate(q, 1))
        f2 = -mpmath.fsum(n**2 * a * mpmath.cos(n * d) for n, a in enumerate(q, 1))
        return float(mpmath.log(f / (2 * mpmath.pi))), float(f1 / f), float(f2 / f - (f1 / f) ** 2)


def kuiper(sample, cdf) -> float:
    """Kuiper's statistic, normalised so that 1 % of samples of the right law exceed 2.00 (Stephens 1970).

    Unlike that of Kolmogorov and Smirnov it does not depend on where the circle is cut.
    """
    u = np.sort(cdf(np.asarray(sample, np.float64)))
    n = len(u)
    distance = (np.arange(1, n + 1) / n - u).max() + (u - np.arange(n) / n).max()
    return distance * (math.sqrt(n) + 0.155 + 0.24 / math.sqrt(n))


def wrapped_normal_cdf(loc, scale):
    k = np.arange(-60, 61)

    def cdf(x):
        edges = 2 * PI * k - loc
        return (stats.norm.cdf((x[:, None] + edges) / scale) - stats.norm.cdf((-PI + edges) / scale)).sum(1)

    return cdf


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 4.0])
def test_the_two_sums_of_the_oracle_agree_with_each_other(scale):
    for x in (0.1, 2.0, 3.1):
        a, b = wrapped_normal(x, 0.3, scale, images=True), wrapped_normal(x, 0.3, scale, images=False)
        assert a == pytest.approx(b, rel=1e-15)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", SCALES)
def test_log_density_and_score_have_all_their_digits(scale, dtype):
    """Relative error below 1e-9 (float32: 1e-4), up to the rounding of the argument itself.

    x - loc is known only to about 2 ulp(x); no formula can do better than |derivative| times that.  Scores below the
    smallest normal number of the dtype (scales above 37, float32: 13) count as zero.
    """
    scale = float(torch.tensor(scale, dtype=dtype))
    for loc in (float(torch.tensor(v, dtype=dtype)) for v in LOCS):
        x = torch.tensor(points(loc, scale), dtype=dtype)
        law = WrappedNormal(torch.tensor(loc, dtype=dtype), torch.tensor(scale, dtype=dtype))
        log_prob, score = law.log_prob(x), law.score(x)
        assert log_prob.dtype == score.dtype == dtype
        expected = np.array([wrapped_normal(v, loc, scale) for v in x.tolist()])
        rounding = 2 * torch.finfo(dtype).eps * (x.double().abs().numpy() + abs(loc))
        for got, column in ((log_prob, 0), (score, 1)):
            error = np.abs(got.double().numpy() - expected[:, column])
            allowed = TOLERANCE[dtype] * np.abs(expected[:, column]) + rounding * np.abs(expected[:, column + 1])
            assert (error <= allowed + torch.finfo(dtype).tiny).all(), (loc, x[error.argmax()], error.max())


@pytest.mark.parametrize("scale", [0.05, 0.999999, 1.0, 1.000001, 3.0, 50.0])
def test_the_wrapped_density_integrates_to_one(scale):
    x = torch.arange(4096, dtype=torch.float64) * (2 * PI / 4096)
    mass = WrappedNormal(torch.tensor(1.0, dtype=torch.float64), scale).log_prob(x).exp().mean() * 2 * PI
    assert float(mass) == pytest.approx(1, abs=1e-13)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nothing_jumps_at_the_switch_between_the_two_sums(dtype):
    eps = torch.finfo(dtype).eps
    x = torch.linspace(-3.1, 3.1, 101, dtype=dtype)
    below, above = (WrappedNormal(torch.tensor(0.0, dtype=dtype), torch.tensor(1 + s, dtype=dtype)) for s in (-eps, 0))
    assert torch.allclose(below.log_prob(x), above.log_prob(x), rtol=0, atol=100 * eps)
    assert torch.allclose(below.score(x), above.score(x), rtol=0, atol=100 * eps)


@pytest.mark.parametrize("scale", [1e-3, 0.9, 1.1, 5.0])
def test_the_wrapped_law_is_periodic_even_and_turns_with_its_mean(scale):
    x = torch.linspace(-3, 3, 50, dtype=torch.float64)
    law, turned = (
        WrappedNormal(torch.zeros((), dtype=torch.float64), scale),
        WrappedNormal(torch.tensor(2.0, dtype=torch.float64), scale),
    )
    for function, sign in (("log_prob", 1), ("score", -1)):
        value = getattr(law, function)(x)
        close = {"rtol": 1e-9, "atol": 1e-12}
        assert torch.allclose(getattr(law, function)(x + 6 * PI), value, **close)
        assert torch.allclose(sign * getattr(law, function)(-x), value, **close)
        assert torch.allclose(getattr(turned, function)(x + 2), value, **close)


def test_the_score_far_from_the_mean_is_a_number_where_the_naive_formula_gives_none():
    """Regression: the published score is 0/0 beyond 14 standard deviations, 95 % of the circle at scale 0.01."""
    x = torch.linspace(-3.1, 3.1, 1001)
    images = x[:, None] + 2 * PI * torch.arange(-1, 2)
    weights = torch.exp(-0.5 * (images / 0.01) ** 2)
    naive = -(weights * images).sum(1) / weights.sum(1) / 0.01**2
    assert float(naive.isnan().float().mean()) > 0.9
    assert torch.allclose(WrappedNormal(0.0, 0.01).score(x), -x / 0.01**2, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("function", ["log_prob", "score"])
def test_values_and_gradients_are_finite_everywhere(function, dtype):
    scales = torch.tensor(SCALES, dtype=dtype)[:, None, None]
    locs = torch.tensor([*LOCS, PI, 50.0], dtype=dtype)[:, None]
    x = torch.tensor([*points(0.0, 1.0), 0.0, PI, -PI, 1e4, -1e8, 1e20], dtype=dtype)
    arguments = [v.expand(len(SCALES), 5, len(x)).clone().requires_grad_() for v in (x, locs, scales)]
    value = getattr(WrappedNormal(*arguments[1:]), function)(arguments[0])
    assert value.isfinite().all()
    for gradient in torch.autograd.grad(value.sum(), arguments):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("scale", [1e-3, 0.2, 0.99, 1.0, 1.5, 4.0])
def test_gradients_are_the_derivatives_of_the_oracle(scale):
    """In x and loc directly; in the scale by the heat equation dp/dscale = scale d2p/dx2."""
    for loc in LOCS:
        x = torch.tensor(points(loc, scale)[:10], dtype=torch.float64, requires_grad=True)
        mu, sigma = (torch.full_like(x, v, requires_grad=True) for v in (loc, scale))
        law = WrappedNormal(mu, sigma)
        by_x, by_loc, by_scale = torch.autograd.grad(law.log_prob(x).sum(), (x, mu, sigma))
        second = torch.autograd.grad(law.score(x).sum(), x)[0]
        _, score, slope = np.array([wrapped_normal(v, loc, scale) for v in x.tolist()]).T
        rounding = 4 * 2.3e-16 * (np.abs(x.detach().numpy()) + abs(loc)) * (np.abs(slope) + 1)
        assert (np.abs(by_x.numpy() - score) <= 1e-9 * np.abs(score) + rounding).all()
        assert (np.abs(by_loc.numpy() + score) <= 1e-9 * np.abs(score) + rounding).all()
        size = scale * (np.abs(slope) + score**2)
        assert (np.abs(by_scale.numpy() - scale * (slope + score**2)) <= 1e-8 * size).all()
        assert (np.abs(second.numpy() - slope) <= 1e-8 * np.abs(slope) + rounding / scale**4).all()


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 0.01), (3.0, 0.5), (-1.0, 1.5), (2.0, 3.0), (0.5, 30.0)])
def test_draws_are_wrapped_normal(loc, scale):
    draws = WrappedNormal(torch.tensor(loc, dtype=torch.float64), scale).sample((20_000,), seeded(1))
    assert bool((draws >= -PI).all() & (draws < PI).all())
    assert kuiper(draws, wrapped_normal_cdf(loc, scale)) < 2.0


@pytest.mark.parametrize("law", [WrappedNormal, VonMises])
def test_draws_have_the_shape_and_dtype_of_the_parameters(law):
    assert law(0.0, 1.0).sample().shape == ()
    assert law(0.0, 1.0).sample().dtype == torch.float32
    assert law(torch.zeros(2, 1), torch.ones(3)).sample((5, 4)).shape == (5, 4, 2, 3)
    assert law(torch.zeros(3, dtype=torch.float64), 1.0).sample().dtype == torch.float64
    assert law(0, torch.ones(0, 4)).sample((2,)).shape == (2, 0, 4)


@pytest.mark.parametrize("law", [WrappedNormal, VonMises])
def test_draws_repeat_with_the_seed_and_do_not_depend_on_the_batch(law):
    both = law(0.5, 2.0).sample((3, 40), generators_from_seeds([4, 5, 6]))
    for k, seed in enumerate([4, 5, 6]):
        assert torch.equal(law(0.5, 2.0).sample((1, 40), generators_from_seeds([seed]))[0], both[k])
    generators = tuple(generators_from_seeds([6, 4]))
    assert torch.equal(law(torch.full((2, 40), 0.5), 2.0).sample((), generators), both[[2, 0]])
    assert torch.equal(law(0.5, 2.0).sample((9,), seeded(1)), law(0.5, 2.0).sample((9,), seeded(1)))


@pytest.mark.parametrize("law", [WrappedNormal, VonMises])
def test_generators_afterwards_do_not_depend_on_the_batch_either(law):
    together, alone = generators_from_seeds([4, 5]), generators_from_seeds([5])
    law(0.0, 3.0).sample((2, 100), together)
    law(0.0, 3.0).sample((1, 100), alone)
    assert torch.equal(torch.rand(3, generator=together[1]), torch.rand(3, generator=alone[0]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kappa", [0.0, 1e-8, 1e-3, 0.1, 1.0, 10.0, 300.0, 1e3, 1e4])
def test_von_mises_log_density_and_score_agree_with_scipy(kappa, dtype):
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}[dtype]
    kappa = float(torch.tensor(kappa, dtype=dtype))
    for loc in (float(torch.tensor(v, dtype=dtype)) for v in LOCS):
        x = torch.tensor(points(loc, 1 / math.sqrt(kappa + 1)), dtype=dtype)
        law = VonMises(torch.tensor(loc, dtype=dtype), torch.tensor(kappa, dtype=dtype))
        d = x.double().numpy() - loc
        rounding = 2 * torch.finfo(dtype).eps * (x.double().abs().numpy() + abs(loc)) * kappa
        log_density = stats.vonmises.logpdf(d, kappa)
        assert (np.abs(law.log_prob(x).numpy() - log_density) <= tolerance * (1 + np.abs(log_density)) + rounding).all()
        score = -kappa * np.sin(d)
        assert (np.abs(law.score(x).numpy() - score) <= tolerance * np.abs(score) + rounding).all()


@pytest.mark.parametrize("kappa", [0.0, 0.5, 50.0])
def test_von_mises_gradients_are_its_derivatives(kappa):
    x = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    concentration = torch.full_like(x, kappa, requires_grad=True)
    law = VonMises(torch.zeros_like(x), concentration)
    by_x, by_kappa = torch.autograd.grad(law.log_prob(x).sum(), (x, concentration))
    assert torch.allclose(by_x, law.score(x))
    length = special.i1e(kappa) / special.i0e(kappa)
    assert torch.allclose(by_kappa, x.cos() - length, atol=1e-14), "also at kappa = 0, where i0e has a kink"


@pytest.mark.parametrize("kappa", [0.0, 0.1, 1.0, 10.0, 1e3, 1e4])
@pytest.mark.parametrize("loc", [0.0, 3.0])
def test_draws_are_von_mises(kappa, loc):
    draws = VonMises(torch.tensor(loc, dtype=torch.float64), kappa).sample((20_000,), seeded(2))
    assert bool((draws >= -PI).all() & (draws < PI).all())
    centred = np.remainder(draws.numpy() - loc + PI, 2 * PI) - PI
    assert kuiper(centred, lambda d: stats.vonmises.cdf(d, kappa)) < 2.0
    assert stats.kstest(centred, lambda d: stats.vonmises.cdf(d, kappa)).pvalue > 0.01


def test_concentrations_may_differ_between_the_entries_of_one_draw():
    kappa = torch.tensor([0.0, 2.0, 1e4], dtype=torch.float64)
    law = VonMises(torch.tensor([0.0, 1.0, -3.0], dtype=torch.float64), kappa)
    z = torch.exp(1j * law.sample((20_000,), seeded(3))).mean(0)
    expected = torch.exp(1j * law.loc) * torch.tensor(special.i1e(kappa.numpy()) / special.i0e(kappa.numpy()))
    assert (z - expected).abs().max() < 4 / math.sqrt(20_000)
    assert torch.allclose(law.mean_resultant_length(), expected.abs())


@pytest.mark.parametrize("kappa", [0.0, 1.0, 100.0, 1e4, 1e8, 1e16])
def test_most_proposals_are_accepted_whatever_the_concentration(kappa, monkeypatch):
    rounds = []
    uniform = kodm_lite.kernels.uniform
    monkeypatch.setattr(kodm_lite.kernels, "uniform", lambda *a: rounds.append(0) or uniform(*a))
    draws = VonMises(torch.tensor(0.0, dtype=torch.float64), kappa).sample((10_000,), seeded(4))
    assert len(rounds) / 2 <= 22, "0.35^22 of 10000 is 1e-6"
    assert draws.isfinite().all()
    if 100 <= kappa <= 1e14:
        assert float(draws.std()) * math.sqrt(kappa) == pytest.approx(1, abs=0.04)


def test_sampling_ends_even_if_every_proposal_is_refused(monkeypatch):
    calls = []
    monkeypatch.setattr(
        kodm_lite.kernels,
        "uniform",
        lambda like, _: calls.append(0) or torch.full_like(like, 1 - 0.01 * (len(calls) % 2)),
    )
    assert VonMises(0.0, 100.0).sample((3,)).isfinite().all()
    assert len(calls) == 56


def test_draws_pass_gradients_to_the_mean_direction_only():
    loc, kappa = torch.zeros(4, requires_grad=True), torch.ones(4, requires_grad=True)
    by_loc, by_kappa = torch.autograd.grad(VonMises(loc, kappa).sample().sum(), (loc, kappa), allow_unused=True)
    assert torch.equal(by_loc, torch.ones(4)) and by_kappa is None


@pytest.mark.parametrize("r", [0.0, 1e-8, 1e-3, 0.1, 0.5, 0.9, 0.99, 0.9999, 1 - 1e-8, 1 - 1e-12])
def test_from_order_parameter_finds_the_law_with_this_mean(r):
    z = torch.polar(torch.tensor([r, r], dtype=torch.float64), torch.tensor([0.4, -3.0], dtype=torch.float64))
    law = VonMises.from_order_parameter(z)
    kappa = law.concentration.numpy()
    assert special.i1e(kappa) / special.i0e(kappa) == pytest.approx([r, r], rel=1e-12, abs=1e-15)
    if 0.01 < r < 0.99:
        assert torch.allclose(law.loc, torch.tensor([0.4, -3.0], dtype=torch.float64))
    assert law.mean_resultant_length().tolist() == pytest.approx([r, r], rel=1e-12, abs=1e-15)


def test_from_order_parameter_is_the_maximum_likelihood_fit():
    data = VonMises(1.0, 3.0).sample((5000,), seeded(5)).double()
    fit = VonMises.from_order_parameter(torch.exp(1j * data).mean())
    kappa, loc, _ = stats.vonmises.fit(data.numpy(), fscale=1)
    assert float(fit.concentration) == pytest.approx(kappa, rel=1e-5)
    assert float(fit.loc) == pytest.approx(loc, abs=1e-5)
    assert VonMises.from_order_parameter(torch.tensor(0.5j)).concentration.dtype == torch.float32


def test_parameters_are_promoted_and_broadcast_whatever_their_order():
    single, double = torch.zeros(3, 1), torch.ones(4, dtype=torch.float64)
    for law in (WrappedNormal(single, double), VonMises(single + 1, double)):
        assert law.log_prob(torch.zeros(())).shape == law.score(torch.zeros(2, 3, 4))[0].shape == (3, 4)
        assert law.sample().dtype == torch.float64
    assert WrappedNormal(double, 1.0).log_prob(torch.zeros(4)).dtype == torch.float64
    assert WrappedNormal(0, 1).log_prob(torch.zeros(4)).dtype == torch.float32


def test_layout_of_the_argument_does_not_matter_and_it_is_left_alone():
    x = torch.randn(5, 6, generator=seeded(6))
    before = x.clone()
    for law in (WrappedNormal(0.1, 0.5), VonMises(0.1, 2.0)):
        assert torch.equal(law.score(x.T), law.score(x).T)
        assert law.log_prob(torch.zeros(0, 3)).shape == (0, 3)
    assert torch.equal(x, before)


def test_not_a_number_is_passed_on_not_hidden():
    for law in (WrappedNormal(0.0, 0.5), WrappedNormal(0.0, 2.0), VonMises(0.0, 1.0)):
        for value in (law.log_prob(torch.tensor([math.nan, 0.0])), law.score(torch.tensor([math.nan, 0.0]))):
            assert value.isnan().tolist() == [True, False]


@pytest.mark.parametrize(
    "make",
    [
        lambda: WrappedNormal(0.0, 0.0),
        lambda: WrappedNormal(0.0, torch.tensor([1.0, -1.0])),
        lambda: WrappedNormal(0.0, math.inf),
        lambda: WrappedNormal(0.0, math.nan),
        lambda: WrappedNormal(math.nan, 1.0),
        lambda: WrappedNormal(torch.tensor([1]), torch.tensor([1])),
        lambda: WrappedNormal(torch.zeros(2), torch.ones(3)),
        lambda: VonMises(0.0, -1e-9),
        lambda: VonMises(0.0, math.inf),
        lambda: VonMises(torch.tensor([0.0, math.inf]), 1.0),
        lambda: VonMises(torch.zeros(2), torch.ones(3)),
        lambda: VonMises.from_order_parameter(torch.tensor(1.0 + 0j)),
        lambda: VonMises.from_order_parameter(torch.tensor(complex(math.nan, 0))),
        lambda: WrappedNormal(0.0, 1.0).sample((3,), generators_from_seeds([1, 2])),
        lambda: VonMises(0.0, 1.0).sample((3,), generators_from_seeds([1, 2])),
        lambda: VonMises(0.0, 1.0).sample((), generators_from_seeds([1])),
    ],
)
def test_bad_arguments_are_refused_with_a_hint(make):
    with pytest.raises(ValueError, match=HELPFUL):
        make()


def test_validation_can_be_switched_off():
    assert WrappedNormal(0.0, -1.0, validate_args=False).scale == -1
    assert VonMises(0.0, -1.0, validate_args=False).concentration == -1


@pytest.mark.parametrize("function", ["score", "log_prob"])
def test_the_wrapped_normal_compiles_without_graph_breaks(function):
    def call(x, loc, scale):
        return getattr(WrappedNormal(loc, scale, validate_args=False), function)(x)

    torch._dynamo.reset()
    x, loc, scale = torch.linspace(-3, 3, 8), torch.zeros(8), torch.logspace(-3, 1, 8)
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x, loc, scale), call(x, loc, scale))


@pytest.mark.parametrize("concentration", [0.0, 0.3, 2.0, 50.0, 1e4])
def test_moments_and_entropy_of_von_mises_are_integrals(concentration):
    width = PI if concentration < 10 else 12 / math.sqrt(concentration)
    x = torch.linspace(-width, width, 20_001, dtype=torch.float64)[:-1]
    law = VonMises(torch.zeros((), dtype=torch.float64), torch.tensor(concentration, dtype=torch.float64))
    log_density, cell = law.log_prob(x), 2 * width / 20_000
    density = log_density.exp()
    assert float(law.mean) == 0.0
    assert float(law.variance) == pytest.approx(float((density * (1 - x.cos())).sum() * cell), abs=1e-9)
    assert float(law.entropy()) == pytest.approx(float(-(density * log_density).sum() * cell), abs=1e-9)
