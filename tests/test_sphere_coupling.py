"""Kuramoto phases on the globe: against explicit sums over geodesic neighbourhoods, and in the process."""

import math

import pytest
import torch
from helpers import seeded
from scipy.spatial.transform import Rotation

from kodm_lite import KuramotoProcess, sample
from kodm_lite.mean_field import mean_field_law
from kodm_lite.objectives import mean_field_score_matching
from kodm_lite.sphere import SphericalCoupling, SphericalTransform, cap_kernel, gaussian_fields, heat_kernel, make_grid

PI = math.pi
TRANSFORM = SphericalTransform(make_grid("gauss", 12))


def smooth_phases(n, transform=TRANSFORM, seed=0):
    spectrum = 3 * torch.exp(-torch.arange(transform.L, dtype=torch.float64))
    return transform.synthesis(gaussian_fields(spectrum, n, seeded(seed)))[:, None]


def distances(grid):
    theta, phi = grid.points()
    points = torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], 1)
    return (points @ points.T).clamp(-1, 1).acos()


@pytest.mark.parametrize("kernel", [cap_kernel(1.0), heat_kernel(0.5)])
@pytest.mark.parametrize("kind", ["gauss", "equiangular"])
def test_the_average_is_the_sum_over_the_neighbourhood(kernel, kind):
    transform = SphericalTransform(make_grid(kind, 12))
    coupling, x = SphericalCoupling(transform, kernel), smooth_phases(2, transform)
    weights = kernel(distances(transform.grid)) * transform.grid.weights.flatten()
    gamma = torch.linspace(0, PI, 20001, dtype=torch.float64)
    integral = 2 * PI * torch.trapezoid(kernel(gamma) * gamma.sin(), gamma)
    explicit = (torch.polar(torch.ones_like(x), x).flatten(1) @ (weights / integral).T.to(torch.complex128)).reshape(
        x.shape
    )
    assert float((coupling.mean_field(x) - explicit).abs().max()) < 2e-3
    torch.testing.assert_close(coupling.average(torch.polar(torch.ones_like(x), x)), coupling.mean_field(x))


def test_factors_are_the_integrals_of_the_kernel():
    """Funk and Hecke; the heat kernel of the sphere itself has exp(-l (l + 1) s)."""
    s = 0.05
    degrees = torch.arange(40, dtype=torch.float64)

    def heat(gamma):  # by its own series
        x, previous, total = gamma.cos(), torch.ones_like(gamma), torch.ones_like(gamma)
        current = x
        for l in range(1, 40):
            total = total + (2 * l + 1) * math.exp(-l * (l + 1) * s) * current
            previous, current = current, ((2 * l + 1) * x * current - l * previous) / (l + 1)
        return total

    factors = SphericalCoupling(TRANSFORM, heat).factors
    torch.testing.assert_close(factors, torch.exp(-degrees * (degrees + 1) * s)[:12], rtol=0, atol=1e-12)


def test_the_drift_turns_with_the_globe():
    """Rotating phases and then coupling is coupling and then rotating, for what is within the band limit."""
    coupling = SphericalCoupling(TRANSFORM, cap_kernel(1.2))
    rotation = torch.tensor(Rotation.from_euler("zyz", [0.4, 1.2, 0.3]).as_matrix())
    c = gaussian_fields(0.3 ** torch.arange(12, dtype=torch.float64), 2, seeded(1))
    averaged = coupling.average(TRANSFORM.synthesis(TRANSFORM.rotate(c, rotation)))
    turned = TRANSFORM.synthesis(
        TRANSFORM.rotate(TRANSFORM.analysis(coupling.average(TRANSFORM.synthesis(c))), rotation)
    )
    torch.testing.assert_close(averaged, turned, rtol=0, atol=1e-12)


def test_equal_phases_pull_alike_and_the_trace_is_that_of_the_average():
    coupling = SphericalCoupling(TRANSFORM, cap_kernel(0.8))
    flat = torch.full((1, 1, *TRANSFORM.grid.shape), 0.7)
    torch.testing.assert_close(coupling.average(flat), flat)
    unit = torch.eye(12 * 24, dtype=torch.float64).reshape(-1, 1, 12, 24)
    trace = coupling.average(unit).flatten(1).diagonal().sum()
    assert float(coupling.transfer((1, 12, 24)).sum()) == pytest.approx(float(trace), rel=1e-5)


def test_it_takes_the_place_of_local_coupling_in_a_process():
    coupling = SphericalCoupling(TRANSFORM, cap_kernel(1.0))
    process = KuramotoProcess(coupling).scaled(2.5)
    theta0 = smooth_phases(3).float()
    end = process.simulate(theta0, 1.0, generator=seeded(0), method="heun")
    assert abs(float(end.cos().mean()) - process.prior().mean_resultant_length()) < 0.08
    loss = mean_field_score_matching(lambda x, t: torch.zeros_like(x), process, theta0, generator=seeded(1))
    assert torch.isfinite(loss.loss)
    theta = sample(lambda x, t: process.drift(x, t) / process.diffusion.at(t)[:, None, None, None], process,
                   (2, 1, 12, 24), steps=3, generator=seeded(2))  # fmt: skip
    assert torch.isfinite(theta).all()


def test_the_mean_field_law_is_that_of_simulated_phases():
    coupling = SphericalCoupling(TRANSFORM, heat_kernel(0.7))
    process, n = KuramotoProcess(coupling).scaled(2.0), 600
    theta0 = smooth_phases(1, seed=3).float()
    law = mean_field_law(process, theta0, torch.tensor([0.3]))
    theta = process.simulate(theta0.expand(n, -1, -1, -1), 0.3, 200, seeded(4), method="heun")
    turns = torch.polar(torch.ones_like(theta), theta)
    z = (turns.mean(0) - law.first_moment[0]).abs() / (turns.var(0) / n).sqrt()
    assert 0.8 < float(z.square().mean()) < 1.25


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8])
def test_means_of_whole_numbers_are_not_rounded(dtype):
    coupling = SphericalCoupling(TRANSFORM, cap_kernel(1.0))
    x = (TRANSFORM.grid.theta < 1.5)[:, None].expand(TRANSFORM.grid.shape)
    torch.testing.assert_close(coupling.average(x.to(dtype)), coupling.average(x.double()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cap_kernel(90.0), "radius: got 90.0, expected an angle in radians above 0 to 3.14"),
        (lambda: heat_kernel(0.0), "radius: got 0.0"),
        (lambda: SphericalCoupling(TRANSFORM, torch.zeros_like), "kernel: got a kernel with integral 0"),
        (lambda: SphericalCoupling(TRANSFORM, cap_kernel(1.0)).average(torch.zeros(1, 1, 8, 8)), "x: got"),
        (lambda: SphericalCoupling(TRANSFORM, cap_kernel(1.0)).transfer((1, 8, 8)), r"shape: got \(1, 8, 8\)"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
