"""Harmonics, grids and transforms: against scipy, quadrature rules, rotations, and other libraries."""

import math

import numpy as np
import pytest
import torch
from helpers import seeded
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y

from kodm_lite.sphere import (
    SphericalTransform,
    degree_order,
    icosahedron_points,
    make_grid,
    point_transform,
    power_spectrum,
    real_harmonics,
)

PI = math.pi
TWO = (torch.tensor([0.1, 3.0]), torch.tensor([0.0, 1.0]))
KINDS = ("gauss", "equiangular", "clenshaw")


def fields(n, L, seed=0, dtype=torch.float64):
    return torch.randn(n, L * L, generator=seeded(seed), dtype=dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("L", [1, 2, 3, 8, 32])
def test_analysis_inverts_synthesis(kind, L):
    transform, c = SphericalTransform(make_grid(kind, L)), fields(3, L).reshape(3, 1, L * L)
    torch.testing.assert_close(transform.analysis(transform.synthesis(c)), c, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("L", "dtype", "tolerance"), [(128, torch.float32, 1e-5), (256, torch.float64, 1e-10)])
def test_large_band_limits(L, dtype, tolerance):
    transform, c = SphericalTransform(make_grid("gauss", L), dtype), fields(1, L, dtype=dtype)
    assert float((transform.analysis(transform.synthesis(c)) - c).abs().max()) < tolerance


@pytest.mark.parametrize("kind", KINDS)
def test_more_points_than_needed_do_no_harm_and_fewer_are_refused(kind):
    L = 6
    transform = SphericalTransform(make_grid(kind, L, nlat=17, nlon=15))
    c = fields(2, L)
    torch.testing.assert_close(transform.analysis(transform.synthesis(c)), c)
    least = L if kind == "gauss" else 2 * L - 1
    SphericalTransform(make_grid(kind, L, nlat=least, nlon=2 * L - 1))
    with pytest.raises(ValueError, match=f"nlat: got {least - 1}"):
        make_grid(kind, L, nlat=least - 1)
    with pytest.raises(ValueError, match="nlon: got 10, expected at least 2L - 1 = 11"):
        make_grid(kind, L, nlon=10)


def test_one_longitude_fewer_would_lose_the_inverse():
    """The refusal is not pedantry: 2L - 2 points alias the sectoral harmonics."""
    L = 4
    grid = make_grid("gauss", L)
    phi = torch.arange(2 * L - 2, dtype=torch.float64) * (2 * PI / (2 * L - 2))
    theta, turn = (x.flatten() for x in torch.meshgrid(grid.theta, phi, indexing="ij"))
    weights = grid.ring_weights.repeat_interleave(len(phi)) * (2 * PI / len(phi))
    few = point_transform(L, theta, turn, weights)
    assert float((few.analysis @ few.synthesis - torch.eye(L * L)).abs().max()) > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_rings_integrate_polynomials_of_degree_2L_minus_2(kind):
    L = 7
    grid = make_grid(kind, L)
    x = grid.theta.cos()
    for degree in range(2 * L - 1):
        exact = 2 / (degree + 1) if degree % 2 == 0 else 0.0
        assert float((grid.ring_weights * x**degree).sum()) == pytest.approx(exact, abs=1e-14)
    assert float(grid.weights.sum()) == pytest.approx(4 * PI)
    assert (grid.theta.diff() > 0).all() and (grid.ring_weights > 0).all()


def test_the_basis_is_that_of_scipy_in_the_real_packing():
    generator = np.random.default_rng(0)
    theta, phi = generator.uniform(0, PI, 40), generator.uniform(-PI, PI, 40)
    ours = real_harmonics(6, torch.tensor(theta), torch.tensor(phi)).numpy()
    for j, (l, m) in enumerate(zip(*(x.tolist() for x in degree_order(6)), strict=True)):
        y = sph_harm_y(l, abs(m), theta, phi)
        expected = y.real if m == 0 else math.sqrt(2) * (y.real if m > 0 else -y.imag)
        np.testing.assert_allclose(ours[:, j], expected, atol=1e-13)


def test_packing_is_that_of_the_definition():
    L = 5
    transform, c = SphericalTransform(make_grid("equiangular", L)), fields(2, L)
    a = transform.unpack(c)
    for j, (l, m) in enumerate(zip(*(x.tolist() for x in degree_order(L)), strict=True)):
        value = a[:, l, abs(m)]
        expected = value.real if m == 0 else math.sqrt(2) * (value.real if m > 0 else value.imag)
        torch.testing.assert_close(c[:, j], expected)
    torch.testing.assert_close(transform.pack(a), c)
    assert (a[:, 1, 2:] == 0).all()  # no orders above the degree


def test_pack_refuses_what_it_would_drop():
    transform, c = SphericalTransform(make_grid("gauss", 4)), fields(2, 4)
    a = transform.unpack(c)
    torch.testing.assert_close(transform.pack(a + 1e-14 * torch.ones_like(a)), c)  # rounding
    with pytest.raises(ValueError, match=r"(?s)a: got .*expected .*try transform.pack\(a.mT\)"):
        transform.pack(a.mT)
    for l, m, value in ((1, 2, 1.0), (2, 3, 1j), (2, 0, 0.1j)):
        wrong = a.clone()
        wrong[1, l, m] += value
        with pytest.raises(ValueError, match="(?s)a: got .*expected .*try setting them to zero"):
            transform.pack(wrong)


def test_synthesis_and_evaluation_are_sums_over_the_basis():
    L = 6
    transform, c = SphericalTransform(make_grid("clenshaw", L)), fields(2, L)
    theta, phi = transform.grid.points()
    by_hand = c @ real_harmonics(L, theta, phi).T
    torch.testing.assert_close(transform.synthesis(c).flatten(1), by_hand, rtol=0, atol=1e-12)
    torch.testing.assert_close(transform.evaluate(c, theta, phi), by_hand, rtol=0, atol=1e-12)


def test_coefficients_have_the_norm_of_the_field():
    transform, c = SphericalTransform(make_grid("gauss", 9)), fields(3, 9)
    square = (transform.synthesis(c) ** 2 * transform.grid.weights).sum((1, 2))
    torch.testing.assert_close(square, c.square().sum(1))


def test_gradients_and_the_adjoint():
    L = 3
    transform = SphericalTransform(make_grid("gauss", L))
    x = torch.randn(2, *transform.grid.shape, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(transform.analysis, x)
    assert torch.autograd.gradcheck(transform.synthesis, fields(2, L).requires_grad_())
    c = fields(2, L)
    pulled = torch.autograd.grad((transform.analysis(x) * c).sum(), x)[0]
    torch.testing.assert_close(transform.adjoint_analysis(c), pulled)


def test_empty_batches_are_empty():
    transform = SphericalTransform(make_grid("gauss", 4))
    assert transform.synthesis(torch.zeros(0, 16, dtype=torch.float64)).shape == (0, 4, 8)
    assert transform.analysis(torch.zeros(2, 0, 4, 8, dtype=torch.float64)).shape == (2, 0, 16)
    assert transform.unpack(torch.zeros(0, 16, dtype=torch.float64)).shape == (0, 4, 4)
    assert transform.pack(torch.zeros(0, 4, 4, dtype=torch.complex128)).shape == (0, 16)


def test_integers_of_numpy_are_band_limits():
    assert make_grid("gauss", np.int64(4)).L == 4 and len(degree_order(np.int64(4))[0]) == 16


def test_rotations_move_points_and_keep_the_spectrum():
    L = 6
    transform, c = SphericalTransform(make_grid("gauss", L)), fields(2, L)
    R = torch.tensor(Rotation.from_euler("xyz", [0.3, 0.7, -1.0]).as_matrix())
    turned = transform.rotate(c, R)
    points = torch.randn(7, 3, generator=seeded(2), dtype=torch.float64)
    points = points / points.norm(dim=1, keepdim=True)

    def at(c, p):
        return transform.evaluate(c, p[:, 2].acos(), torch.atan2(p[:, 1], p[:, 0]))

    torch.testing.assert_close(at(turned, points @ R.T), at(c, points), rtol=0, atol=1e-12)
    torch.testing.assert_close(power_spectrum(turned), power_spectrum(c))
    torch.testing.assert_close(transform.rotate(turned, R.T), c, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="rotation"):
        transform.rotate(c, torch.diag(torch.tensor([1.0, 1.0, -1.0])))


def test_power_spectrum_is_the_mean_over_orders():
    c = fields(4, 5)
    expected = torch.stack([c[:, l * l : (l + 1) ** 2].square().mean(1) for l in range(5)], 1)
    torch.testing.assert_close(power_spectrum(c), expected)


def test_points_of_equal_area():
    theta, phi = icosahedron_points()
    ico = point_transform(3, theta, phi)
    torch.testing.assert_close(ico.analysis @ ico.synthesis, torch.eye(9, dtype=torch.float64), rtol=0, atol=1e-12)


def test_it_agrees_with_ducc0():
    ducc0 = pytest.importorskip("ducc0", exc_type=ImportError)
    L = 12
    transform, c = SphericalTransform(make_grid("gauss", L)), fields(1, L)
    a = transform.unpack(c)[0]
    packed = np.concatenate([a[m:, m].numpy() for m in range(L)])[None]
    theirs = ducc0.sht.synthesis_2d(alm=packed, spin=0, lmax=L - 1, geometry="GL", ntheta=L, nphi=2 * L)
    np.testing.assert_allclose(transform.synthesis(c)[0].numpy(), theirs[0], atol=1e-11)


def test_it_agrees_with_torch_harmonics():
    harmonics = pytest.importorskip("torch_harmonics", exc_type=ImportError)
    L = 12
    transform, c = SphericalTransform(make_grid("gauss", L)), fields(1, L)
    theirs = harmonics.RealSHT(L, 2 * L, lmax=L, mmax=L, grid="legendre-gauss").double()(transform.synthesis(c))
    torch.testing.assert_close(theirs, transform.unpack(c), rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda t: t.analysis(torch.zeros(8, 8, dtype=torch.float64)),
            r"x: got .*\(8, 8\), expected real \(..., 4, 8\)",
        ),
        (lambda t: t.analysis(torch.zeros(4, 8)), "x: got torch.float32, expected torch.float64, that of"),
        (lambda t: t.analysis(torch.zeros(4, 8, dtype=torch.complex128)), "x: got torch.complex128"),
        (lambda t: t.synthesis(torch.zeros(15, dtype=torch.float64)), r"c: got .*\(15,\), expected real \(..., 16\)"),
        (lambda t: t.pack(torch.zeros(4, 4)), "a: got torch.float32"),
        (lambda t: t.evaluate(torch.zeros(16).double(), torch.tensor([91.0]), torch.tensor([0.0])), "theta: .*radians"),
        (lambda t: t.evaluate(torch.zeros(16).double(), torch.tensor([1.0]), torch.tensor([180.0])), "phi: .*radians"),
        (lambda t: power_spectrum(torch.zeros(7)), r"c: got shape \(7,\)"),
        (lambda t: power_spectrum(torch.zeros(9, dtype=torch.complex64)), "c: got torch.complex64.*pack"),
        (lambda t: SphericalTransform(t.grid, torch.float16), "dtype: got torch.float16"),
        (lambda t: SphericalTransform(t.grid, np.zeros(3)), "dtype: got"),
        (lambda t: make_grid("healpix", 4), "kind: got 'healpix'"),
        (lambda t: make_grid("gauss", 0), "L: got 0"),
        (lambda t: make_grid("gauss", 4, nlat=4.5), "nlat: got 4.5"),
        (lambda t: make_grid("gauss", True), "L: got True"),
        (lambda t: degree_order(True), "L: got True"),
        (lambda t: point_transform(3, torch.zeros(0), torch.zeros(0)), "theta, phi: got no points"),
        (lambda t: point_transform(1, *TWO, torch.ones(2)), r"weights: got shape \(2,\) and sum 2, .*4 pi.*; try"),
        (lambda t: point_transform(1, *TWO, torch.tensor([math.nan, 1.0])), "weights: got .*sum nan"),
        (lambda t: point_transform(1, *TWO, torch.tensor([4 * PI])), r"weights: got shape \(1,\)"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(SphericalTransform(make_grid("gauss", 4)))
