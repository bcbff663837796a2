"""Couplings and drift against plain sums over pairs of oscillators and scipy's box filter."""

import cmath
import copy
import math
import pickle

import numpy as np
import pytest
import scipy.fft
import torch
from helpers import HELPFUL
from scipy.ndimage import uniform_filter1d

import kodm_lite.kuramoto
from kodm_lite.kuramoto import Coupling, GlobalCoupling, LocalCoupling, kuramoto_drift

PI = math.pi
BOUNDARIES = ["periodic", "reflect"]
SHAPES = [(2, 3, 5, 7), (1, 2, 130, 6), (1, 1, 6, 150), (2, 1, 8, 8), (3, 9), (2, 140)]


def phases(*shape, seed=0, dtype=torch.float64):
    return torch.tensor(np.random.default_rng(seed).uniform(-PI, PI, shape), dtype=dtype)


def box_mean(x: np.ndarray, radius: int, boundary: str) -> np.ndarray:
    """scipy's running mean along the spatial axes; its mode 'reflect' repeats the border pixel."""
    for axis in range(1, 2) if x.ndim == 2 else range(2, 4):
        x = uniform_filter1d(x, 2 * radius + 1, axis, mode={"periodic": "wrap", "reflect": "reflect"}[boundary])
    return x


def neighbours(i: int, n: int, radius: int, boundary: str) -> list[int]:
    """The 2 radius + 1 indices that i listens to, one by one."""
    found = []
    for j in range(i - radius, i + radius + 1):
        if boundary == "periodic":
            found.append(j % n)
        else:
            while not 0 <= j < n:
                j = -1 - j if j < 0 else 2 * n - 1 - j
            found.append(j)
    return found


def weights(shape: tuple[int, ...], coupling) -> np.ndarray:
    """The weight w_ij with which oscillator i of one image listens to j, by enumeration: (N, N)."""
    index = np.arange(math.prod(shape)).reshape(shape)
    w = np.zeros((index.size, index.size))
    for place in np.ndindex(shape):
        if isinstance(coupling, GlobalCoupling):
            w[index[place]] = 1 / index.size
            continue
        boundary, r = coupling.boundary, coupling.radius
        if len(shape) == 1:
            heard = [index[i] for i in neighbours(place[0], shape[0], r, boundary)]
        else:
            of_rows, of_columns = (boundary, boundary) if isinstance(boundary, str) else boundary
            rows, columns = neighbours(place[1], shape[1], r, of_rows), neighbours(place[2], shape[2], r, of_columns)
            heard = [index[place[0], i, j] for i in rows for j in columns]
        for j in heard:
            w[index[place], j] += 1 / len(heard)
    return w


def drift_by_pairs(theta: np.ndarray, w: np.ndarray, k: float, k_ref: float, psi_ref: float) -> np.ndarray:
    """K sum_j w_ij sin(theta_j - theta_i) + K_ref sin(psi_ref - theta_i), for each image."""
    rows = []
    for x in theta.reshape(len(theta), -1):
        rows.append(k * (w * np.sin(x[None, :] - x[:, None])).sum(1) + k_ref * np.sin(psi_ref - x))
    return np.stack(rows).reshape(theta.shape)


COUPLINGS = [
    GlobalCoupling(),
    LocalCoupling(1),
    LocalCoupling(3),
    LocalCoupling(2, "reflect"),
    LocalCoupling(4, "reflect"),
]
MIXED = [LocalCoupling(2, ("reflect", "periodic")), LocalCoupling(4, ("periodic", "reflect"))]  # for images alone
BOTH_SHAPES = [
    *((coupling, shape) for coupling in COUPLINGS for shape in [(2, 2, 5, 6), (2, 11)]),
    *((coupling, (2, 2, 5, 6)) for coupling in MIXED),
]


@pytest.fixture(params=["matrix", "prefix sums"])
def branch(request, monkeypatch):
    """Both ways to take the box mean, whatever the length of the line."""
    monkeypatch.setattr(kodm_lite.kuramoto, "_LONGEST_MATRIX", {"matrix": 10**9, "prefix sums": 0}[request.param])
    return request.param


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_box_mean_is_scipys_for_every_kind_of_radius(shape, boundary, branch):
    x = np.random.default_rng(1).normal(size=shape)
    smallest = min(shape[1:] if len(shape) == 2 else shape[2:])
    for radius in sorted({1, 2, smallest // 2, smallest - 1}):
        expected = box_mean(x, radius, boundary)
        coupling = LocalCoupling(radius, boundary)
        assert np.abs(coupling.average(torch.tensor(x)).numpy() - expected).max() < 1e-12
        single = coupling.average(torch.tensor(x, dtype=torch.float32))
        assert single.dtype == torch.float32
        assert np.abs(single.numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_two_axes_of_an_image_are_not_confused_at_their_default_branches(boundary):
    x = np.zeros((1, 1, 130, 12))
    x[0, 0, 3] = 1  # a horizontal line: spreads over rows only
    mean = LocalCoupling(2, boundary).average(torch.tensor(x)).numpy()
    assert np.abs(mean - box_mean(x, 2, boundary)).max() < 1e-15
    assert np.allclose(mean[0, 0, 1:6], 0.2)


@pytest.mark.parametrize("radius", [1, 50, 4999])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_long_lines_lose_no_digits_in_single_precision(radius, boundary):
    x = 1 + 0.1 * np.random.default_rng(6).normal(size=(1, 5000))
    mean = LocalCoupling(radius, boundary).average(torch.tensor(x, dtype=torch.float32))
    assert np.abs(mean.numpy() - box_mean(x, radius, boundary)).max() < 1e-6


@pytest.mark.parametrize(("coupling", "shape"), BOTH_SHAPES, ids=repr)
def test_the_mean_field_is_the_sum_over_neighbours(coupling, shape, branch):
    theta = phases(*shape)
    w = weights(shape[1:], coupling)
    expected = (np.exp(1j * theta.numpy()).reshape(len(theta), -1) @ w.T).reshape(shape)
    z = coupling.mean_field(theta)
    assert np.abs(z.numpy() - expected).max() < 1e-12
    single = coupling.mean_field(theta.float())
    assert single.dtype == torch.complex64
    assert np.abs(single.numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("n", [3, 8])
def test_everybody_is_heard_as_much_as_he_listens(n, boundary, branch):
    """A symmetric matrix with rows of sum 1: without it the coupling would derive from no energy."""
    for radius in range(1, n):
        matrix = LocalCoupling(radius, boundary).average(torch.eye(n, dtype=torch.float64)).numpy()
        assert np.abs(matrix - matrix.T).max() < 1e-15
        assert np.abs(matrix.sum(0) - 1).max() < 1e-15
        assert np.abs(matrix - weights((n,), LocalCoupling(radius, boundary))).max() < 1e-15


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_complex_numbers_keep_their_imaginary_part(dtype, boundary, branch):
    x = torch.polar(torch.ones(2, 30, dtype=torch.float64), phases(2, 30))
    mean = LocalCoupling(3, boundary).average(x.to(dtype))
    expected = box_mean(x.real.numpy(), 3, boundary) + 1j * box_mean(x.imag.numpy(), 3, boundary)
    assert mean.dtype == dtype
    assert np.abs(mean.numpy() - expected).max() < 1e-6


def test_autocast_does_not_round_the_field():
    theta = phases(1, 1, 16, 16, dtype=torch.float32)
    expected = LocalCoupling(2).mean_field(theta)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = LocalCoupling(2).mean_field(theta)
    assert (got - expected).abs().max() < 1e-6


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("shape", [(1, 2, 4, 5), (2, 6)])
def test_gradients_flow_through_the_box_mean(shape, boundary, branch):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(LocalCoupling(2, boundary).average, x)


@pytest.mark.parametrize("coupling", [*COUPLINGS, *MIXED], ids=repr)
def test_layout_and_batch_do_not_matter_and_phases_are_left_alone(coupling, branch):
    theta = phases(3, 1, 7, 6)
    before = theta.clone()
    z = coupling.mean_field(theta)
    transposed = coupling.mean_field(theta.mT.contiguous().mT)
    assert torch.allclose(transposed, z, rtol=0, atol=1e-14)
    assert torch.allclose(coupling.mean_field(theta[1:2]), z[1:2], rtol=0, atol=1e-14)
    assert coupling.mean_field(theta[:0]).shape == z[:0].shape
    assert torch.equal(theta, before)


@pytest.mark.parametrize("coupling", [*COUPLINGS, *MIXED], ids=repr)
def test_rotating_all_phases_rotates_the_field_and_keeps_the_drift(coupling):
    theta = phases(2, 2, 8, 8)
    z, turned = coupling.mean_field(theta), coupling.mean_field(theta + 1.234)
    assert (turned - z * cmath.exp(1.234j)).abs().max() < 1e-14
    assert (coupling.mean_field(theta + 2 * PI * torch.arange(8, dtype=torch.float64)) - z).abs().max() < 1e-13
    drift, after = kuramoto_drift(theta, z, 1.5, 0.7, 0.2), kuramoto_drift(theta + 1.234, turned, 1.5, 0.7, 1.434)
    assert (after - drift).abs().max() < 1e-14


def test_shifting_a_periodic_image_shifts_the_field():
    theta = phases(1, 1, 9, 7)
    shifted = LocalCoupling(2).mean_field(theta.roll((4, 3), (2, 3)))
    assert (shifted - LocalCoupling(2).mean_field(theta).roll((4, 3), (2, 3))).abs().max() < 1e-15


@pytest.mark.parametrize("coupling", [*COUPLINGS, *MIXED], ids=repr)
def test_mirroring_an_image_mirrors_the_field(coupling):
    theta = phases(1, 1, 9, 7)
    z = coupling.mean_field(theta).expand(1, 1, 9, 7)
    for dim in (2, 3):
        assert (coupling.mean_field(theta.flip(dim)) - z.flip(dim)).abs().max() < 1e-14


@pytest.mark.parametrize("coupling", MIXED, ids=repr)
def test_a_shift_along_the_periodic_side_alone_shifts_the_field(coupling):
    theta = phases(1, 1, 9, 7)
    for dim, boundary in zip((2, 3), coupling.boundary, strict=True):
        moved = coupling.mean_field(theta.roll(3, dim)) - coupling.mean_field(theta).roll(3, dim)
        assert (float(moved.abs().max()) < 1e-14) == (boundary == "periodic")


def test_channels_share_the_global_field_and_keep_their_own_local_one():
    theta = phases(1, 3, 6, 6)
    assert GlobalCoupling().mean_field(theta).shape == (1, 1, 1, 1)
    for c in range(3):
        alone = LocalCoupling(2).mean_field(theta[:, c : c + 1])
        assert torch.allclose(LocalCoupling(2).mean_field(theta)[:, c : c + 1], alone, rtol=0, atol=1e-15)


def test_the_field_near_plus_and_minus_pi_points_there():
    """Regression: the published local coupling smooths moduli (all 1) and raw angles in place of exp(i theta)."""
    theta = PI + 0.3 * torch.tensor(np.random.default_rng(3).normal(size=(1, 1, 24, 24)))
    theta = torch.remainder(theta + PI, 2 * PI) - PI
    exact = drift_by_pairs(theta.numpy(), weights((1, 24, 24), LocalCoupling(2)), 1.0, 0.0, 0.0)
    published = np.sin(box_mean(theta.numpy(), 2, "periodic") - theta.numpy())
    assert np.corrcoef(published.ravel(), exact.ravel())[0, 1] < 0, "the defect that this guards against"
    ours = kuramoto_drift(theta, LocalCoupling(2).mean_field(theta), 1.0, 0.0)
    assert np.abs(ours.numpy() - exact).max() < 1e-12
    assert float(LocalCoupling(2).mean_field(theta).angle().abs().min()) > 2.5


@pytest.mark.parametrize("shape", [(2, 6, 9), (1, 7, 8), (12,)])
def test_the_transfer_function_multiplies_fourier_modes(shape):
    x = np.random.default_rng(4).normal(size=(1, *shape))
    for coupling in (GlobalCoupling(), LocalCoupling(1), LocalCoupling(4)):
        mean = np.broadcast_to(coupling.average(torch.tensor(x)).numpy(), x.shape)
        axes = tuple(range(1, x.ndim))
        factor = coupling.transfer(shape)
        assert factor.shape == shape
        assert np.abs(np.fft.fftn(mean, axes=axes) - factor.numpy() * np.fft.fftn(x, axes=axes)).max() < 1e-5


@pytest.mark.parametrize("shape", [(2, 6, 9), (12,)])
def test_the_transfer_function_of_mirrors_multiplies_cosine_modes(shape):
    x = np.random.default_rng(5).normal(size=(1, *shape))
    axes = tuple(range(max(1, x.ndim - 2), x.ndim))
    for radius in (1, 5):
        coupling = LocalCoupling(radius, "reflect")
        mean = coupling.average(torch.tensor(x)).numpy()
        before, after = (scipy.fft.dctn(v, axes=axes) for v in (x, mean))
        assert np.abs(after - coupling.transfer(shape).numpy() * before).max() < 1e-5


@pytest.mark.parametrize(("coupling", "shape"), BOTH_SHAPES, ids=repr)
def test_the_drift_is_the_sum_of_sines_over_pairs(coupling, shape):
    theta = phases(*shape)
    expected = drift_by_pairs(theta.numpy(), weights(shape[1:], coupling), 1.7, 0.6, -0.4)
    got = kuramoto_drift(theta, coupling.mean_field(theta), 1.7, 0.6, -0.4)
    assert np.abs(got.numpy() - expected).max() < 1e-12
    single = kuramoto_drift(theta.float(), coupling.mean_field(theta.float()), 1.7, 0.6, -0.4)
    assert single.dtype == torch.float32
    assert np.abs(single.numpy() - expected).max() < 2e-6


@pytest.mark.parametrize("coupling", [*COUPLINGS, *MIXED], ids=repr)
def test_the_drift_goes_down_an_energy(coupling):
    w = torch.tensor(weights((1, 5, 6), coupling))
    theta = phases(1, 1, 5, 6).requires_grad_()
    x = theta.flatten()
    energy = -0.5 * 1.7 * (w * torch.cos(x[:, None] - x)).sum() - 0.6 * torch.cos(x - 0.3).sum()
    (slope,) = torch.autograd.grad(energy, theta)
    assert (kuramoto_drift(theta, coupling.mean_field(theta), 1.7, 0.6, 0.3) + slope).abs().max() < 1e-14


def test_a_reference_alone_pulls_towards_its_phase_which_may_differ_from_pixel_to_pixel():
    theta, reference = phases(2, 1, 4, 4), phases(1, 4, 4, seed=9)
    zero = torch.zeros(2, 1, 1, 1, dtype=torch.complex128)
    drift = kuramoto_drift(theta, zero, 5.0, 2.0, reference)
    assert (drift - 2 * torch.sin(reference - theta)).abs().max() < 1e-15
    small = kuramoto_drift(reference[None] - 0.1, zero, 5.0, 1.0, reference)
    assert bool((small > 0).all()), "a phase behind its reference is pulled forward"


@pytest.mark.parametrize("coupling", MIXED, ids=repr)
def test_the_transfer_function_of_one_periodic_side_multiplies_waves_along_it_and_cosines_across(coupling):
    x = np.random.default_rng(7).normal(size=(1, 2, 6, 9))
    along, across = (2, 3) if coupling.boundary[0] == "periodic" else (3, 2)

    def modes(x):
        return np.fft.fft(scipy.fft.dct(x, axis=across), axis=along)

    mean = coupling.average(torch.tensor(x)).numpy()
    assert np.abs(modes(mean) - coupling.transfer((2, 6, 9)).numpy() * modes(x)).max() < 1e-5


@pytest.mark.parametrize(
    "coupling", [GlobalCoupling(), LocalCoupling(2), LocalCoupling(2, "reflect"), MIXED[0]], ids=repr
)
def test_couplings_and_drift_compile_without_graph_breaks(coupling, branch):
    def drift(theta):
        return kuramoto_drift(theta, coupling.mean_field(theta), 1.7, 0.6, 0.1) + 0 * coupling.average(theta)

    torch._dynamo.reset()
    theta = phases(2, 1, 6, 6, dtype=torch.float32)
    compiled = torch.compile(drift, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(theta), drift(theta), atol=1e-6)


@pytest.mark.parametrize("coupling", [GlobalCoupling(), LocalCoupling(2, "reflect"), MIXED[0]], ids=repr)
def test_couplings_run_on_the_meta_device_and_under_torch_func(coupling, branch):
    theta, v = phases(2, 1, 6, 6), phases(2, 1, 6, 6, seed=1)
    assert coupling.mean_field(theta.to("meta")).device.type == "meta"
    assert torch.equal(torch.func.jvp(coupling.average, (theta,), (v,))[1], coupling.average(v))  # as it is linear
    mapped = torch.vmap(lambda x: coupling.mean_field(x[None])[0])(theta)
    assert (mapped - coupling.mean_field(theta)).abs().max() < 1e-15


@pytest.mark.parametrize("coupling", [GlobalCoupling(), LocalCoupling(2, "reflect"), MIXED[0]], ids=repr)
def test_the_default_dtype_changes_nothing(coupling, branch):
    theta = phases(1, 1, 6, 6, dtype=torch.float32)

    def results():
        return coupling.mean_field(theta), coupling.average(theta), coupling.transfer((1, 6, 6))

    expected, before = results(), torch.get_default_dtype()
    kodm_lite.kuramoto._kept_averaging_matrix.cache_clear()
    try:
        torch.set_default_dtype(torch.float64)
        assert all(torch.equal(x, y) and x.dtype == y.dtype for x, y in zip(results(), expected, strict=True))
    finally:
        torch.set_default_dtype(before)


def test_couplings_are_values():
    assert LocalCoupling(2) == LocalCoupling(2, "periodic") != LocalCoupling(2, "reflect")
    assert LocalCoupling(2, ["reflect", "reflect"]) == LocalCoupling(np.int64(2), "reflect")
    assert repr(LocalCoupling(np.uint8(2), [np.str_("reflect"), "periodic"])) == repr(MIXED[0])
    assert len({*COUPLINGS, *MIXED, *map(copy.deepcopy, MIXED), *pickle.loads(pickle.dumps(COUPLINGS))}) == 7
    assert hash(GlobalCoupling()) == hash(GlobalCoupling())
    assert all(isinstance(c, Coupling) for c in COUPLINGS)
    with pytest.raises(AttributeError):
        LocalCoupling(2).radius = 3


@pytest.mark.parametrize(
    "call",
    [
        lambda: LocalCoupling(0),
        lambda: LocalCoupling(-1),
        lambda: LocalCoupling(1.5),
        lambda: LocalCoupling(True),
        lambda: LocalCoupling(1, "wrap"),
        lambda: LocalCoupling(1, None),
        lambda: LocalCoupling(1, ("reflect",)),
        lambda: LocalCoupling(1, ("reflect", "wrap")),
        lambda: LocalCoupling(1, (True, False)),
        lambda: MIXED[0].average(torch.zeros(3, 9)),
        lambda: MIXED[0].transfer((9,)),
        lambda: GlobalCoupling().average(torch.zeros(7)),
        lambda: GlobalCoupling().average(torch.zeros(2, 7, dtype=torch.long)),
        lambda: GlobalCoupling().average([[1.0, 2.0]]),
        lambda: LocalCoupling(4).average(torch.zeros(1, 1, 4, 9)),
        lambda: LocalCoupling(9).average(torch.zeros(1, 9)),
        lambda: LocalCoupling(1).average(torch.zeros(3, 4, 5)),
        lambda: LocalCoupling(1).average(torch.zeros(7)),
        lambda: LocalCoupling(1).average(torch.zeros(1, 1, 4, 4, dtype=torch.long)),
        lambda: LocalCoupling(1).average(torch.zeros(1, 200, dtype=torch.long)),
        lambda: kuramoto_drift(torch.zeros(2, 3), torch.zeros(2, 1), 1.0, 1.0),
        lambda: kuramoto_drift(torch.zeros(2, 1), torch.zeros(2, 3, dtype=torch.complex64), 1.0, 1.0),
        lambda: kuramoto_drift(torch.zeros(3), torch.zeros(2, 3, dtype=torch.complex64), 1.0, 1.0),
        lambda: kuramoto_drift(torch.zeros(2, 3), 0.5j, 1.0, 1.0),
    ],
)
def test_bad_arguments_are_refused_with_a_hint(call):
    with pytest.raises(ValueError, match=HELPFUL):
        call()
