"""The covariance of pixel noise for coefficients: dense sums, traces, eigenvalues, isotropy, and draws."""

import math

import pytest
import torch
from helpers import seeded
from scipy.spatial.transform import Rotation

from kodm_lite.sphere import (
    IsotropicNoise,
    PixelNoise,
    SphericalTransform,
    degree_order,
    icosahedron_points,
    make_grid,
    point_transform,
)

PI = math.pi


def transform_of(kind, L, **options):
    return SphericalTransform(make_grid(kind, L, **options))


def dense(transform):
    """Y^T W^2 Y from values of the basis at all points, not normalised."""
    theta, phi = transform.grid.points()
    points = point_transform(transform.L, theta, phi, transform.grid.weights.flatten())
    return points.analysis @ points.analysis.T


@pytest.mark.parametrize(("kind", "L"), [("gauss", 6), ("equiangular", 6), ("clenshaw", 5)])
def test_blocks_are_the_dense_covariance(kind, L):
    transform = transform_of(kind, L, nlon=2 * L + 1)
    noise, sigma = PixelNoise(transform, normalise=False), dense(transform)
    unit = torch.eye(L * L, dtype=torch.float64)
    torch.testing.assert_close(noise.covariance(unit), sigma, rtol=0, atol=1e-12)
    torch.testing.assert_close(noise.solve(sigma), unit, rtol=0, atol=1e-10)
    _, m = degree_order(L)
    assert float(sigma[m[:, None] != m].abs().max()) < 1e-12  # cosines, sines and orders do not mix


@pytest.mark.parametrize("kind", ["gauss", "equiangular", "clenshaw"])
def test_normalised_noise_has_variance_one_in_every_degree(kind):
    L = 9
    variance = PixelNoise(transform_of(kind, L)).covariance(torch.eye(L * L, dtype=torch.float64)).diagonal()
    l, _ = degree_order(L)
    for degree in range(L):
        assert float(variance[l == degree].mean()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "L", "smallest", "largest", "condition", "zonal", "sectoral"),
    [
        ("gauss", 8, 0.3495, 1.2521, 3.5828, 1.079, 1.235),
        ("gauss", 32, 0.0925, 1.2719, 13.7549, 1.081, 1.263),
        ("equiangular", 16, 0.1464, 1.2680, 8.6631, 0.806, 1.254),
    ],
)
def test_eigenvalues_and_corners(kind, L, smallest, largest, condition, zonal, sectoral):
    """Values of an independent prototype in float64."""
    blocks = PixelNoise(transform_of(kind, L)).blocks()
    values = torch.cat([torch.linalg.eigvalsh(blocks[m, m:, m:]) for m in range(L)])
    assert float(values.min()) == pytest.approx(smallest, abs=6e-5)
    assert float(values.max()) == pytest.approx(largest, abs=6e-5)
    assert float(values.max() / values.min()) == pytest.approx(condition, rel=1e-4)
    assert float(blocks[0, -1, -1]) == pytest.approx(zonal, abs=6e-4)
    assert float(blocks[-1, -1, -1]) == pytest.approx(sectoral, abs=6e-4)


def test_on_gauss_rings_the_zonal_block_has_the_areas_as_eigenvalues():
    transform = transform_of("gauss", 12)
    values = torch.linalg.eigvalsh(PixelNoise(transform, normalise=False).blocks()[0])
    areas = (2 * PI / transform.grid.nlon * transform.grid.ring_weights).sort().values
    torch.testing.assert_close(values, areas, rtol=0, atol=1e-12)


def test_isotropic_on_an_icosahedron_and_not_on_rings():
    ico = point_transform(3, *icosahedron_points())
    unit = torch.eye(9, dtype=torch.float64)
    torch.testing.assert_close(ico.analysis @ ico.analysis.T, PI / 3 * unit, rtol=0, atol=1e-12)

    transform = transform_of("gauss", 8)
    sigma = PixelNoise(transform).covariance(torch.eye(64, dtype=torch.float64))

    def change(rotation):
        D = transform.rotate(torch.eye(64, dtype=torch.float64), torch.tensor(rotation.as_matrix())).T
        return float((D @ sigma @ D.T - sigma).norm() / sigma.norm())

    assert change(Rotation.from_euler("zyz", [0.4, 1.2, 0.3])) > 0.3
    assert change(Rotation.from_euler("z", 0.9)) < 1e-12


@pytest.mark.parametrize("kind", ["gauss", "equiangular"])
def test_draws_have_the_covariance(kind):
    n, noise = 20_000, PixelNoise(transform_of(kind, 6))
    draws = noise.draw(torch.empty(n, 36, dtype=torch.float64), seeded(0))
    sigma = noise.covariance(torch.eye(36, dtype=torch.float64))
    bar = ((sigma.square() + sigma.diagonal()[:, None] * sigma.diagonal()) / n).sqrt()
    z = (draws.T @ draws / n - sigma) / bar
    assert 0.9 < float(z.square().mean().sqrt()) < 1.1 and float(z.abs().max()) < 5
    assert float(draws.mean(0).abs().max()) < 5 * (1.3 / n) ** 0.5


def test_isotropic_noise_is_the_identity_in_every_respect():
    noise, c = IsotropicNoise(4), torch.randn(5, 16, generator=seeded(1), dtype=torch.float64)
    assert torch.equal(noise.covariance(c), c) and torch.equal(noise.solve(c), c)
    for m, block in enumerate(noise.blocks()):
        torch.testing.assert_close(block, torch.diag((torch.arange(4) >= m).double()))
    draws = noise.draw(torch.empty(20_000, 16), seeded(2))
    assert abs(float(draws.var()) - 1) < 0.02


def test_each_field_has_its_own_generator():
    noise = PixelNoise(transform_of("gauss", 4))
    both = noise.draw(torch.empty(2, 16, dtype=torch.float64), [seeded(1), seeded(2)])
    alone = noise.draw(torch.empty(1, 16, dtype=torch.float64), [seeded(2)])
    torch.testing.assert_close(both[1:], alone)


@pytest.mark.parametrize("noise", [IsotropicNoise(4), PixelNoise(transform_of("gauss", 4))])
def test_another_band_limit_is_refused(noise):
    with pytest.raises(ValueError, match="c: got coefficients of L = 5, expected L = 4"):
        noise.draw(torch.empty(2, 25, dtype=torch.float64))


@pytest.mark.parametrize("L", [0, -3, 2.5, "8", True, None])
def test_what_is_no_band_limit_is_refused(L):
    with pytest.raises(ValueError, match=r"(?s)L: got .*expected .*try "):
        IsotropicNoise(L)
