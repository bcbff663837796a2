"""Every public function of the sphere, for inputs of every kind: a finite answer, or a ValueError that helps."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kodm_lite import sphere
from kodm_lite.euclidean import VariancePreserving

settings.register_profile("sphere", deadline=None, derandomize=True, max_examples=12)
often = settings(settings.get_profile("sphere"), max_examples=40)
usual = settings(settings.get_profile("sphere"))

KINDS = st.sampled_from(["gauss", "equiangular", "clenshaw"])
LIMITS = st.integers(1, 6)
DTYPES = st.sampled_from([torch.float32, torch.float64])
SEEDS = st.integers(0, 2**31)
WRONG = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=3), st.lists(st.floats(), max_size=3),
    st.sampled_from([
        torch.zeros(0), torch.zeros(()), torch.zeros(7), torch.zeros(2, 5, dtype=torch.int64), torch.zeros(3, 3) * 1j,
        torch.ones(4, dtype=torch.bool), torch.full((9,), math.nan), torch.zeros(2, 3, 4, dtype=torch.float16),
        np.zeros(3), np.array(["x"]), [[1.0], [1.0, 2.0]], {}, object(),
    ]),
)  # fmt: skip


def numbers(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def answers(call):
    """What it returns, or None where it refuses as the house does; any other error is a fault."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            return call()
        except ValueError as error:
            assert "got " in str(error) and "expected " in str(error), f"not in the form of the house: {error}"
            return None


def finite(*tensors):
    assert all(bool(torch.isfinite(x).all()) for x in tensors)


TRANSFORM = sphere.SphericalTransform(sphere.make_grid("gauss", 3))
DIFFUSIONS = {name: VariancePreserving(noise) for name, noise in (
    ("isotropic", sphere.IsotropicNoise(3)), ("pixel", sphere.PixelNoise(TRANSFORM)))}  # fmt: skip
NETWORK = sphere.SphericalNet(DIFFUSIONS["isotropic"], [1.0] * 3, channels=2, blocks=1)
COUPLING = sphere.SphericalCoupling(TRANSFORM, sphere.cap_kernel(0.5))
GRID = sphere.LatLonGrid(np.linspace(-80, 80, 9), np.arange(0, 360, 30.0), 3)
C, T = numbers(0, 2, 9), torch.tensor([0.3, 0.9], dtype=torch.float64)
ANGLES = torch.tensor([0.3, 1.0], dtype=torch.float64)
exact, per_degree = (kind(DIFFUSIONS["pixel"], [1.0] * 3) for kind in (sphere.ExactDenoiser, sphere.PerDegreeDenoiser))
pixel, isotropic = (DIFFUSIONS[name].noise for name in ("pixel", "isotropic"))

CALLS = {  # every public function with one wrong argument at a time
    "make_grid kind": lambda x: sphere.make_grid(x, 4),
    "make_grid L": lambda x: sphere.make_grid("gauss", x),
    "make_grid nlat": lambda x: sphere.make_grid("clenshaw", 4, nlat=x),
    "make_grid nlon": lambda x: sphere.make_grid("gauss", 4, nlon=x),
    "degree_order": sphere.degree_order,
    "power_spectrum": sphere.power_spectrum,
    "real_harmonics L": lambda x: sphere.real_harmonics(x, ANGLES, ANGLES),
    "real_harmonics theta": lambda x: sphere.real_harmonics(2, x, ANGLES),
    "real_harmonics phi": lambda x: sphere.real_harmonics(2, ANGLES, x),
    "SphericalTransform": sphere.SphericalTransform,
    "SphericalTransform dtype": lambda x: sphere.SphericalTransform(TRANSFORM.grid, x),
    "analysis": TRANSFORM.analysis,
    "synthesis": TRANSFORM.synthesis,
    "adjoint_analysis": TRANSFORM.adjoint_analysis,
    "evaluate c": lambda x: TRANSFORM.evaluate(x, ANGLES, ANGLES),
    "evaluate theta": lambda x: TRANSFORM.evaluate(C, x, ANGLES),
    "rotate c": lambda x: TRANSFORM.rotate(x, torch.eye(3, dtype=torch.float64)),
    "rotate R": lambda x: TRANSFORM.rotate(C, x),
    "pack": TRANSFORM.pack,
    "unpack": TRANSFORM.unpack,
    "transform from_dict": sphere.SphericalTransform.from_dict,
    "point_transform L": lambda x: sphere.point_transform(x, ANGLES, ANGLES),
    "point_transform theta": lambda x: sphere.point_transform(2, x, ANGLES),
    "point_transform weights": lambda x: sphere.point_transform(2, ANGLES, ANGLES, x),
    "cap_kernel": sphere.cap_kernel,
    "heat_kernel": sphere.heat_kernel,
    "SphericalCoupling": lambda x: sphere.SphericalCoupling(x, sphere.cap_kernel(0.5)),
    "SphericalCoupling kernel": lambda x: sphere.SphericalCoupling(TRANSFORM, x),
    "coupling from_dict": sphere.SphericalCoupling.from_dict,
    "average": COUPLING.average,
    "mean_field": COUPLING.mean_field,
    "transfer": COUPLING.transfer,
    "IsotropicNoise": sphere.IsotropicNoise,
    "IsotropicNoise from_dict": sphere.IsotropicNoise.from_dict,
    "PixelNoise": sphere.PixelNoise,
    "PixelNoise normalise": lambda x: sphere.PixelNoise(TRANSFORM, x),
    "PixelNoise from_dict": sphere.PixelNoise.from_dict,
    **{f"{n.kind} {f}": getattr(n, f) for n in (pixel, isotropic) for f in ("draw", "covariance", "solve")},
    "mean_mode": pixel.mean_mode,
    "pixels": pixel.pixels,
    "gaussian_fields": lambda x: sphere.gaussian_fields(x, 2),
    "gaussian_fields n": lambda x: sphere.gaussian_fields([1.0, 2.0], x),
    "lognormal_fields": lambda x: sphere.lognormal_fields(x, 2),
    "lognormal_fields n": lambda x: sphere.lognormal_fields([1.0, 2.0], x),
    "ExactDenoiser": lambda x: sphere.ExactDenoiser(x, [1.0] * 3),
    "ExactDenoiser spectrum": lambda x: sphere.ExactDenoiser(DIFFUSIONS["pixel"], x),
    "PerDegreeDenoiser": lambda x: sphere.PerDegreeDenoiser(x, [1.0] * 3),
    "PerDegreeDenoiser spectrum": lambda x: sphere.PerDegreeDenoiser(DIFFUSIONS["pixel"], x),
    "exact c": lambda x: exact(x, T),
    "exact t": lambda x: exact(C, x),
    "per degree c": lambda x: per_degree(x, T),
    "per degree t": lambda x: per_degree(C, x),
    "spectral c0": lambda x: sphere.spectral_score_matching(exact, DIFFUSIONS["pixel"], x, T, "noise"),
    "spectral t": lambda x: sphere.spectral_score_matching(exact, DIFFUSIONS["pixel"], C, x, "noise"),
    "spectral weight": lambda x: sphere.spectral_score_matching(exact, DIFFUSIONS["pixel"], C, T, x),
    "spectral diffusion": lambda x: sphere.spectral_score_matching(exact, x, C, T, "noise"),
    "pixel c0": lambda x: sphere.pixel_score_matching(exact, DIFFUSIONS["pixel"], x, T),
    "pixel prediction": lambda x: sphere.pixel_score_matching(lambda c, t: x, DIFFUSIONS["pixel"], C, T),
    "SphericalNet": lambda x: sphere.SphericalNet(x, [1.0] * 3),
    "SphericalNet spectrum": lambda x: sphere.SphericalNet(DIFFUSIONS["pixel"], x, channels=2, blocks=1),
    "SphericalNet channels": lambda x: sphere.SphericalNet(DIFFUSIONS["pixel"], [1.0] * 3, x, 1),
    "SphericalNet blocks": lambda x: sphere.SphericalNet(DIFFUSIONS["pixel"], [1.0] * 3, 2, x),
    "SphericalNet oversampling": lambda x: sphere.SphericalNet(DIFFUSIONS["pixel"], [1.0] * 3, 2, 1, x),
    "network c": lambda x: NETWORK(x, T),
    "network t": lambda x: NETWORK(C, x),
    "LatLonGrid latitude": lambda x: sphere.LatLonGrid(x, np.arange(0, 360, 30.0)),
    "LatLonGrid longitude": lambda x: sphere.LatLonGrid(np.linspace(-80, 80, 9), x),
    "LatLonGrid L": lambda x: sphere.LatLonGrid(np.linspace(-80, 80, 9), np.arange(0, 360, 30.0), x),
    "grid analysis": GRID.analysis,
    "grid synthesis": GRID.synthesis,
    "from_xarray": sphere.from_xarray,
    "to_xarray c": lambda x: sphere.to_xarray(x, GRID),
    "to_xarray grid": lambda x: sphere.to_xarray(C, x),
    "to_xarray like": lambda x: sphere.to_xarray(C, GRID, like=x),
}  # fmt: skip


@often
@given(data=st.data(), value=WRONG)
def test_wrong_inputs_get_an_answer_or_a_helpful_error(data, value):
    for name in data.draw(st.lists(st.sampled_from(sorted(CALLS)), min_size=20, max_size=20, unique=True)):
        answers(lambda name=name: CALLS[name](value))


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("value", ["x", object(), torch.full((9,), 1j), {}, [[1.0], [1.0, 2.0]]])
def test_what_can_never_be_used_is_refused(name, value):
    fine = {"make_grid nlat", "SphericalNet oversampling"}
    assert answers(lambda: CALLS[name](value)) is None or name in fine or "average" in name


@usual
@given(KINDS, LIMITS, st.integers(0, 3), st.integers(0, 3), DTYPES, SEEDS)
def test_transforms_invert_one_another(kind, L, rings, columns, dtype, seed):
    least = sphere.make_grid(kind, L)
    grid = sphere.make_grid(kind, L, least.nlat + rings, least.nlon + columns)
    transform, c = sphere.SphericalTransform(grid, dtype), numbers(seed, 2, L * L, dtype=dtype)
    back = transform.analysis(transform.synthesis(c))
    torch.testing.assert_close(back, c, rtol=0, atol=1e-4 if dtype == torch.float32 else 1e-10)
    torch.testing.assert_close(transform.pack(transform.unpack(c)), c)
    assert sphere.SphericalTransform.from_dict(transform.to_dict()).grid == grid


@usual
@given(KINDS, LIMITS, st.booleans(), SEEDS, st.floats(1e-6, 1e6))
def test_noise_and_denoisers_are_finite(kind, L, normalise, seed, scale):
    noise = sphere.PixelNoise(sphere.SphericalTransform(sphere.make_grid(kind, L)), normalise)
    c, t = scale * numbers(seed, 3, L * L), torch.tensor([1e-6, 0.5, 1.0], dtype=torch.float64)
    spectrum = scale * (numbers(seed, L).square() + 1e-6)
    finite(noise.draw(c))
    torch.testing.assert_close(noise.solve(noise.covariance(c)), c, rtol=1e-6, atol=1e-8 * scale)
    assert type(noise).from_dict(noise.to_dict()) == noise
    for law in (noise, sphere.IsotropicNoise(L)):
        diffusion = VariancePreserving(law)
        for denoiser in (sphere.ExactDenoiser(diffusion, spectrum), sphere.PerDegreeDenoiser(diffusion, spectrum)):
            finite(denoiser(c, t), sphere.spectral_score_matching(denoiser, diffusion, c, t, "covariance"))


@usual
@given(LIMITS, SEEDS, st.floats(1e-20, 1e20), st.floats(1e-3, 1), DTYPES)
def test_networks_are_finite(L, seed, scale, t, dtype):
    net = sphere.SphericalNet(VariancePreserving(sphere.IsotropicNoise(L)), [scale] * L, channels=2, blocks=1)
    torch.nn.init.normal_(net.read)
    c = math.sqrt(scale) * numbers(seed, 2, L * L, dtype=dtype)
    predicted = net(c, torch.full((2,), t, dtype=dtype))
    finite(predicted)
    assert predicted.dtype == dtype


@usual
@given(KINDS, LIMITS, st.floats(0.05, math.pi), st.sampled_from([sphere.cap_kernel, sphere.heat_kernel]), SEEDS)
def test_couplings_average(kind, L, radius, kernel, seed):
    transform = sphere.SphericalTransform(sphere.make_grid(kind, L))
    coupling = sphere.SphericalCoupling(transform, kernel(radius))
    theta = numbers(seed, 2, 1, *transform.grid.shape)
    finite(coupling.mean_field(theta).abs(), coupling.transfer(theta.shape))
    torch.testing.assert_close(coupling.average(torch.ones_like(theta)), torch.ones_like(theta))
    assert sphere.SphericalCoupling.from_dict(coupling.to_dict()) == coupling


@usual
@given(LIMITS, st.integers(0, 3), st.floats(0, 90), SEEDS)
def test_random_fields_are_finite(L, n, size, seed):
    spectrum = numbers(seed, L).square() + 1e-9
    spectrum *= size * 4 * math.pi / float((spectrum * (2 * torch.arange(L) + 1)).sum())
    for fields in (sphere.gaussian_fields(spectrum, n), sphere.lognormal_fields(spectrum, n)):
        finite(fields, sphere.power_spectrum(fields))
        assert fields.shape == (n, L * L)


@usual
@given(LIMITS, st.floats(1e3, 1e300))
def test_fields_whose_exponential_overflows_are_refused(L, size):
    with pytest.raises(ValueError, match=r"(?s)spectrum: got .*expected at most 100.*try "):
        sphere.lognormal_fields([4 * math.pi * size] * L, 2)


@usual
@given(st.integers(3, 20), st.integers(3, 30), st.floats(0, 60), st.floats(-180, 180), st.booleans(), SEEDS)
def test_grids_of_files_are_exact_or_refused(rows, columns, cut, start, falling, seed):
    latitude = np.linspace(cut - 90, 90 - cut, rows)[:: -1 if falling else 1]
    grid = answers(lambda: sphere.LatLonGrid(latitude, start + np.arange(columns) * 360 / columns))
    if grid is not None:
        c = numbers(seed, 2, grid.L**2)
        torch.testing.assert_close(grid.analysis(grid.synthesis(c)), c, rtol=0, atol=1e-8)
