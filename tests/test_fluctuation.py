"""What phases fluctuate together: equilibrium, and collective directions, by an identity that needs no transition."""

import json
import math
from pathlib import Path

import pytest
import torch
from helpers import seeded

from kodm_lite import GlobalCoupling, KuramotoProcess, LinearSchedule, LocalCoupling
from kodm_lite.data import textures
from kodm_lite.fluctuation import (
    Fluctuation,
    calibrate_fluctuation,
    linear_fluctuation,
    mean_field_score,
    shared_fluctuation,
)
from kodm_lite.mean_field import COARSEST, mean_field_law, mean_field_sample
from kodm_lite.objectives import mean_field_score_matching

PI = math.pi
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "objectives.json"


def images(n, side=16, seed=0):
    """Smooth images of different brightness, with some noise of their own."""
    x = torch.linspace(0, 2 * PI, side + 1)[:-1]
    waves = torch.sin(x + 1.0)[:, None] + torch.cos(2 * x)[None]
    means = 1.5 * torch.randn(n, 1, 1, 1, generator=seeded(seed))
    return (means + 0.6 * waves + 0.4 * torch.randn(n, 1, side, side, generator=seeded(seed + 1))).clamp(-3, 3)


@pytest.mark.parametrize(
    ("coupling", "count"), [(GlobalCoupling(), 3000), (LocalCoupling(2), 400), (LocalCoupling(1, "reflect"), 160)]
)
def test_in_equilibrium_gamma_is_the_coupling_over_the_diffusion(coupling, count):
    """The Gibbs law; with few neighbours 1/n is not small, and the closure misses a part of that size."""
    process = KuramotoProcess(coupling).scaled(2.5)
    side = 8 if isinstance(coupling, GlobalCoupling) else 16
    found = calibrate_fluctuation(process, images(count, side), times=(1.0,), generator=seeded(3))
    assert found.errors[0] < 0.07
    assert abs(found.ratios[0] - 1) < 4 * found.errors[0] + 0.03


def along_the_neighbourhoods(process, theta0, t, fluctuation, seed):
    """E[s g] / E[s' g] for g = box(s_mf), the true score s and two candidates s'; with standard errors.

    For the true score E[s g] = - E[div g], whatever it is: the oracle needs the closure's derivative only.
    """
    theta = process.simulate(theta0, t, 100, seeded(seed), method="heun").requires_grad_()
    times = torch.full((len(theta0),), t)
    alone = mean_field_law(process, theta0, times).score(theta)
    slope = torch.autograd.grad(alone.sum(), theta)[0]
    own = process.coupling.transfer(tuple(theta0.shape[1:])).sum() / theta0[0].numel()
    theta, alone = theta.detach(), alone.detach()
    g = process.coupling.average(alone).expand_as(theta)
    true = -(own * slope).flatten(1).sum(1)
    rows = []
    for score in (alone, mean_field_score(process, theta0, theta, times, fluctuation)):
        claimed = (score * g).flatten(1).sum(1)
        ratio = true.mean() / claimed.mean()
        rows.append((float(ratio), float((true - ratio * claimed).std() / claimed.mean()) / len(theta) ** 0.5))
    return rows


@pytest.mark.parametrize("radius", [1, 2, 4, 5])
def test_collective_directions_have_the_right_score_after_the_correction(radius):
    process = KuramotoProcess(LocalCoupling(radius, "reflect")).scaled(2.0)
    theta0, times = images(220), (0.2, 0.4, 0.7, 1.0)
    fluctuation = calibrate_fluctuation(process, theta0, times, generator=seeded(4))
    for t in times:
        (plain, _), (ratio, error) = along_the_neighbourhoods(process, theta0, t, fluctuation, seed=5)
        assert abs(ratio - 1) < 4 * error + 0.02 and error < 0.06
        if t >= 0.7:
            assert plain < 0.86  # without it, the score is too strong


def test_collective_directions_of_a_globally_coupled_population():
    process = KuramotoProcess().scaled(2.0)
    theta0 = images(2500, 8)
    fluctuation = calibrate_fluctuation(process, theta0, (0.4, 1.0), generator=seeded(4))
    for t in (0.4, 1.0):
        (plain, _), (ratio, error) = along_the_neighbourhoods(process, theta0, t, fluctuation, seed=5)
        assert abs(ratio - 1) < 4 * error + 0.02 and error < 0.04
        assert plain < ratio - 0.05


@pytest.mark.parametrize("radius", [None, 2, 4])
def test_collective_directions_have_the_right_score_without_a_measurement(radius):
    """Phases of images are not near the reference, as linear theory assumes."""
    coupling = GlobalCoupling() if radius is None else LocalCoupling(radius, "reflect")
    process, theta0 = KuramotoProcess(coupling).scaled(2.0), images(*((2500, 8) if radius is None else (300,)), seed=9)
    for t in (0.2, 0.4, 0.7, 1.0):
        _, (ratio, error) = along_the_neighbourhoods(process, theta0, t, None, seed=6)
        assert abs(ratio - 1) < 3 * error + 0.04 and error < 0.06


@pytest.mark.parametrize(("radius", "size", "count"), [(None, 8, 6000), (2, 32, 160)])
def test_collective_directions_of_textures_have_the_right_score_to_five_per_cent(radius, size, count):
    coupling = GlobalCoupling() if radius is None else LocalCoupling(radius, "reflect")
    process, theta0 = (
        KuramotoProcess.for_shape((1, size, size), coupling=coupling),
        textures(size, n=count, seed=5, scale=0.9).theta,
    )
    for t in (0.4, 1.0):
        (plain, _), (ratio, error) = along_the_neighbourhoods(process, theta0, t, None, seed=7)
        assert abs(ratio - 1) < 0.05 and error < 0.02
        assert plain < 0.95


def test_the_benchmark_found_the_right_score_along_and_across_collective_directions():
    """Eight functions, of which parts of the score have the ratio 1 and the others the correlation 0 with its error."""
    rows = json.loads(RESULTS.read_text())["orthogonality"]
    for name in ("global", "radius 2", "radius 4", "radius 5"):
        for t in (0.2, 0.4, 0.7, 1.0):
            found = {
                function: values["linear"] for function, values in rows[name][str(t)].items() if function != "gamma"
            }
            for function in ("score", "box mean", "lowest waves"):
                ratio, error = found.pop(function)
                assert abs(ratio - 1) < 0.05 and error < 0.02
            assert len(found) == 5
            assert all(abs(value) < 0.01 and error < 0.004 for value, error in found.values())


@pytest.mark.parametrize(("k", "k_ref", "d"), [(0.6, 0.9, 1.0), (3.0, 4.5, 5.0), (0.5, 0.0, 2.0), (1e-6, 1.0, 1.0)])
def test_linear_theory_is_that_of_two_relaxing_modes(k, k_ref, d):
    """A pixel in a fixed field forgets at the rate K + K_ref, the sum of all pixels at K_ref."""
    process = KuramotoProcess(GlobalCoupling(), *(LinearSchedule(x, x) for x in (k, k_ref, d)))
    t = torch.tensor([0.02, 0.1, 0.3, 0.6, 1.0], dtype=torch.float64)

    def variance(rate):
        return d / rate * (1 - torch.exp(-2 * rate * t)) if rate else 2 * d * t

    gamma = 1 / variance(k + k_ref) - 1 / variance(k_ref)
    torch.testing.assert_close(linear_fluctuation(process, t), gamma * d / k, rtol=2e-4 if k < 0.1 else 1e-9, atol=0)


def test_linear_theory_begins_with_one_half_and_ends_with_one():
    t = torch.tensor([[0.0, 1e-4], [1e-2, 1.0]])
    found = linear_fluctuation(KuramotoProcess().scaled(4.0), t)
    assert found.shape == t.shape and found.dtype == t.dtype
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5], [0.5, 1.0]]), atol=0.002, rtol=0)
    assert linear_fluctuation(KuramotoProcess(coupling_strength=LinearSchedule(0, 0)), t).isfinite().all()


def test_gamma_is_interpolated_and_constant_outside():
    found = Fluctuation((0.2, 0.4, 1.0), (0.5, 0.7, 1.0), (0.0, 0.0, 0.0))
    t = torch.tensor([[0.0, 0.2, 0.3], [0.4, 0.7, 1.0]])
    torch.testing.assert_close(found.at(t), torch.tensor([[0.5, 0.5, 0.6], [0.7, 0.85, 1.0]]))
    assert found.at(t.double()).dtype == torch.float64
    assert Fluctuation((0.5,), (0.8,), (0.1,)).at(torch.zeros(2)).tolist() == pytest.approx([0.8, 0.8])


def test_the_score_is_that_of_independent_phases_and_the_pull_of_the_fluctuating_field():
    process, theta0 = KuramotoProcess(LocalCoupling(1), LinearSchedule(0.01, 2.0)), images(3, 6)
    t = torch.tensor([0.15, 0.5, 1.0])
    theta = process.simulate(theta0, t, 50, seeded(1))
    law = mean_field_law(process, theta0, t)
    expected = law.first_moment
    surplus = torch.polar(torch.ones_like(theta), theta) - expected
    shifts = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    dz = sum(surplus.roll(shift, (2, 3)) for shift in shifts) / 9
    q = dz.imag * theta.cos() - dz.real * theta.sin()
    torch.testing.assert_close(shared_fluctuation(process, law, theta), q, atol=1e-5, rtol=0)
    for fluctuation, share in ((None, linear_fluctuation(process, t)), (Fluctuation((0.5,), (0.7,), (0.0,)), 0.7)):
        ratio = share * torch.tensor([process.coupling_strength.at(x) / process.diffusion.at(x) for x in t.tolist()])
        found = mean_field_score(process, theta0, theta, t, fluctuation)
        torch.testing.assert_close(found, law.score(theta) + ratio.reshape(3, 1, 1, 1) * q, atol=1e-4, rtol=1e-4)


def test_the_objective_regresses_on_this_score():
    """A network that is the conditional score of its batch has no error."""
    process, theta0, t = KuramotoProcess(), images(6, 8), torch.linspace(0.1, 1, 6)

    def exact(theta, now):
        return mean_field_score(process, theta0, theta, t, tolerance=COARSEST)

    loss = mean_field_score_matching(exact, process, theta0, t=t, generator=seeded(2))
    assert float(loss.error.max()) < 1e-6 and float(loss.baseline.min()) > 0.1


@pytest.mark.parametrize("t", [0.0, 0.05, 0.3, 1.0])
def test_draws_have_the_moments_of_the_law_and_are_reproducible(t):
    process, n = KuramotoProcess(), 4000
    theta0 = torch.tensor([[-3.0, -1.0, 0.0, 0.5, 2.0, 3.1]])
    theta = mean_field_sample(process, theta0.expand(n, 6), torch.full((n,), t), seeded(1))
    assert theta.shape == (n, 6) and float(theta.min()) >= -PI and float(theta.max()) < PI
    chain = process.simulate(theta0.repeat(1, 500).expand(400, 3000), t, 50, seeded(2), method="heun")
    chain = chain.reshape(400, 500, 6).flatten(0, 1)[::20]  # an infinite population, of which each stands for one
    for k in (1, 2, 3):
        a, b = (torch.polar(torch.ones_like(x), k * x).mean(0) for x in (theta, chain))
        assert float((a - b).abs().max()) < 5 * (1 / n + 1 / len(chain)) ** 0.5 + 0.01
    again = mean_field_sample(process, theta0.expand(n, 6), torch.full((n,), t), seeded(1))
    assert torch.equal(theta, again)


def test_draws_are_uniform_in_their_distribution_function():
    """Kolmogorov's distance of 10 000 draws of one sharp and skew law to a fine sum of its series."""
    process, n = KuramotoProcess().scaled(2.0), 10_000
    theta0 = torch.tensor([[2.5]], dtype=torch.float64)
    law = mean_field_law(process, theta0, torch.tensor([0.3]))
    theta = mean_field_sample(process, theta0.expand(n, 1), torch.full((n,), 0.3), seeded(1)).flatten()
    grid = torch.linspace(-PI, PI, 20_001, dtype=torch.float64)
    k = torch.arange(1, len(law.modes) + 1)[:, None]
    density = 1 + 2 * (law.modes.reshape(-1, 1) * torch.exp(-1j * k * grid)).real.sum(0)
    cdf = torch.cat([torch.zeros(1), ((density[1:] + density[:-1]) / 2).cumsum(0)]) / 20_000
    exact = cdf[((theta.sort().values + PI) / (2 * PI) * 20_000).round().long()]
    ranks = (torch.arange(n) + 0.5) / n
    assert float((exact - ranks).abs().max()) < 1.9 / n**0.5


def test_independent_draws_lack_the_common_fluctuation():
    """Why training simulates the chain: a quarter of the order parameter's variance is missing from them."""
    process, n = KuramotoProcess().scaled(2.0), 3000
    theta0, t = torch.zeros(n, 64), torch.ones(n)
    alone = mean_field_sample(process, theta0, t, seeded(1)).sin().mean(1).var()
    together = process.simulate(theta0, 1.0, 100, seeded(2), method="heun").sin().mean(1).var()
    law = process.prior()
    expected = 1 - 0.6 * float(law.mean_resultant_length() / law.concentration)
    assert float(alone / together) == pytest.approx(expected, abs=4 * expected * (4 / n) ** 0.5 + 0.02)


@pytest.mark.parametrize(
    "arguments",
    [
        ((), (), ()),
        ((0.5, 0.2), (1.0, 1.0), (0.0, 0.0)),
        ((0.0, 0.5), (1.0, 1.0), (0.0, 0.0)),
        ((0.5, 1.5), (1.0, 1.0), (0.0, 0.0)),
        ((0.5,), (math.nan,), (0.0,)),
        ((0.5,), (1.0, 1.0), (0.0,)),
    ],
)
def test_what_is_no_fluctuation_is_refused(arguments):
    with pytest.raises(ValueError, match="fluctuation: got times"):
        Fluctuation(*arguments)


def test_what_cannot_be_calibrated_is_refused():
    alone = KuramotoProcess(coupling_strength=LinearSchedule(0, 0))
    with pytest.raises(ValueError, match=r"process: got K/D = 0 at t = 0.1, expected a coupling"):
        calibrate_fluctuation(alone, images(2, 8))
    with pytest.raises(ValueError, match=r"theta: got shape \(2, 1, 8, 8\), expected that of theta0"):
        mean_field_score(KuramotoProcess(), images(3, 8), images(2, 8), torch.ones(3))
    with pytest.raises(ValueError, match="radians"):
        calibrate_fluctuation(KuramotoProcess(), 100 * images(2, 8))


def test_a_point_has_no_score_and_a_process_without_noise_no_fluctuation():
    theta0 = images(2, 8)
    with pytest.raises(ValueError, match=r"expected t > 0 and D\(t\) > 0"):
        mean_field_score(KuramotoProcess(), theta0, theta0 + 0.01, torch.zeros(2))
    fading = KuramotoProcess(diffusion=LinearSchedule(5.0, 0.0))
    with pytest.raises(ValueError, match="K/D = inf at t = 1"):
        calibrate_fluctuation(fading, theta0, times=(1.0,))
