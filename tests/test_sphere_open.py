"""What others do with the objects of the sphere: store and compare them, move and transform them, read files."""

import copy
import json
import pickle
import re

import numpy as np
import pytest
import torch

from kodm_lite import KuramotoProcess, sphere
from kodm_lite.euclidean import VariancePreserving

L = 4
SPECTRUM = [3.0, 1.0, 0.5, 0.2]
TRANSFORM = sphere.SphericalTransform(sphere.make_grid("equiangular", L, nlon=9), torch.float32)
COUPLINGS = [
    sphere.SphericalCoupling(TRANSFORM, kernel)
    for kernel in (sphere.cap_kernel(0.6), sphere.heat_kernel(0.6), lambda gamma: 1 + gamma.cos())
]
NOISES = [sphere.IsotropicNoise(L), sphere.PixelNoise(TRANSFORM), sphere.PixelNoise(TRANSFORM, normalise=False)]
PLAIN = [*COUPLINGS, *NOISES, TRANSFORM.grid, sphere.cap_kernel(0.6), sphere.heat_kernel(0.6)]
C, T = torch.randn(3, L * L, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1, 0.5, 1.0])


def network(noise=NOISES[0]):
    torch.manual_seed(0)
    net = sphere.SphericalNet(VariancePreserving(noise), SPECTRUM, channels=4, blocks=2)
    torch.nn.init.normal_(net.read)
    return net


@pytest.mark.parametrize("one", PLAIN, ids=lambda x: type(x).__name__)
def test_copies_are_equal_and_others_are_not(one):
    for other in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one), copy.copy(one)):
        assert other == one and hash(other) == hash(one)
    assert one != None and one != "x" and sum(one == x for x in PLAIN) == 1  # noqa: E711


@pytest.mark.parametrize("one", [*COUPLINGS, *NOISES], ids=lambda x: type(x).__name__)
def test_descriptions_are_json_and_give_the_same_object_back(one):
    text = json.dumps(one.to_dict())
    other = type(one).from_dict(json.loads(text))
    assert other == one and other.to_dict()["kind"] == one.kind
    if one in COUPLINGS:
        x = torch.randn(2, 1, *TRANSFORM.grid.shape)
        assert torch.equal(other.average(x), one.average(x))
        assert KuramotoProcess(one) == KuramotoProcess(other) and isinstance(hash(KuramotoProcess(one)), int)
    else:
        assert torch.equal(other.solve(C), one.solve(C))


@pytest.mark.parametrize(
    "change",
    [{"kind": "cap"}, {"factors": [1.0] * 3}, {"factors": [0.5] * 4}, {"factors": "1234"}, {"factors": [1, None, 0, 0]},
     {"transform": {}}, {"more": 1}, {"factors": [1.0, float("nan"), 0.0, 0.0]}],
)  # fmt: skip
def test_descriptions_of_no_coupling_are_refused(change):
    with pytest.raises(ValueError, match=r"(?s)(coupling|transform): got .*expected .*try "):
        sphere.SphericalCoupling.from_dict({**COUPLINGS[0].to_dict(), **change})


@pytest.mark.parametrize("noise", NOISES, ids=lambda x: x.kind)
def test_networks_run_on_the_meta_device_and_come_back(noise):
    net = network(noise)
    expected = net(C, T)
    meta = copy.deepcopy(net).to("meta")
    c = torch.empty(3, L * L, device="meta", requires_grad=True)
    meta(c, torch.empty(3, device="meta")).square().sum().backward()
    assert c.grad.shape == c.shape and all(p.grad is not None for p in meta.parameters())
    for numbers in (noise.draw(c), noise.solve(c), noise.covariance(c)):
        assert numbers.is_meta and numbers.shape == c.shape
    torch.testing.assert_close(net(C, T), expected)
    assert not noise.draw(C).is_meta


@pytest.mark.parametrize("noise", NOISES[:2], ids=lambda x: x.kind)
def test_the_rest_runs_on_the_meta_device(noise):
    c, t, theta = (torch.empty(*s, device="meta") for s in ((3, L * L), (3,), (3, 1, *TRANSFORM.grid.shape)))
    for kind in (sphere.ExactDenoiser, sphere.PerDegreeDenoiser):
        assert kind(VariancePreserving(noise), SPECTRUM)(c, t).is_meta
    assert KuramotoProcess(COUPLINGS[0]).drift(theta, 0.5).shape == theta.shape


def test_networks_run_under_torch_func():
    net = network()

    def single(c, t):
        return net(c[None], t[None])[0]

    torch.testing.assert_close(torch.vmap(single)(C, T), net(C, T))
    slope = torch.func.jvp(lambda c: net(c, T), (C,), (C,))[1]
    jacobian = torch.vmap(torch.func.jacrev(single))(C, T)
    torch.testing.assert_close(slope, (jacobian @ C[..., None])[..., 0], rtol=1e-4, atol=1e-5)
    weights = dict(net.named_parameters())

    def loss(weights, c, t):
        return torch.func.functional_call(net, weights, (c[None], t[None])).square().sum()

    each = torch.vmap(torch.func.grad(loss), (None, 0, 0))(weights, C, T)
    net(C, T).square().sum().backward()
    torch.testing.assert_close(each["lift"].sum(0), net.lift.grad, rtol=1e-4, atol=1e-5)


def test_networks_answer_in_the_dtype_of_their_input():
    net = network()
    single, double = net(C, T), net.double()
    assert double(C.double(), T.double()).dtype == torch.float64 and double(C, T).dtype == torch.float32
    torch.testing.assert_close(double(C, T), single, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"network: got torch.float16 weights .*try network.float\(\)"):
        network().half()(C, T)
    for c, t in ((C[0], T), (C[None], T[:1]), (C, T[:2]), (C, 1.5 * T), (C, 0 * T), (C, T * torch.nan), (C.half(), T)):
        with pytest.raises(ValueError, match=r"(?s)(c|t): got .*expected .*try "):
            network()(c, t)


def test_the_default_dtype_changes_nothing():
    def made():
        torch.manual_seed(1)
        net = network()
        grid = sphere.LatLonGrid(np.linspace(-80, 80, 9), np.arange(0, 360, 30.0), 3)
        fields = sphere.gaussian_fields(SPECTRUM, 2), sphere.lognormal_fields(torch.tensor([1.0, 2.0]).float(), 2)
        transform = sphere.SphericalTransform(sphere.make_grid("clenshaw", 4), torch.float32)
        coupling = sphere.SphericalCoupling(transform, sphere.cap_kernel(0.5))
        return [
            net(C, T), *net.parameters(), grid.synthesis(torch.ones(9, dtype=torch.float32)), *fields,
            transform.legendre, coupling.factors,
            coupling.transfer((7, 8)), *sphere.icosahedron_points(),
            sphere.PixelNoise(transform).draw(C), sphere.IsotropicNoise(3).blocks(), sphere.power_spectrum(C),
        ]  # fmt: skip

    before = made()
    try:
        torch.set_default_dtype(torch.float64)
        after = made()
    finally:
        torch.set_default_dtype(torch.float32)
    for x, y in zip(before, after, strict=True):
        assert x.dtype == y.dtype and torch.equal(x, y)


xarray = pytest.importorskip("xarray", reason="needs the extra kodm-lite[netcdf]")
LATITUDE, LONGITUDE = np.linspace(80, -80, 9), np.arange(0, 360, 30.0)


def array_of(values=None, latitude=LATITUDE, longitude=LONGITUDE, lat=None, lon=None, attrs=None, dims=("lat", "lon")):
    values = np.ones((len(latitude), len(longitude))) if values is None else values
    coordinates = {dims[0]: (dims[0], latitude, lat or {}), dims[1]: (dims[1], longitude, lon or {})}
    return xarray.DataArray(values, dims=dims, coords=coordinates, attrs=attrs or {})


ONES = np.ones((9, 12))
CONTRADICTIONS = {
    "scale_factor": (array_of(attrs={"scale_factor": 0.1}), "decode_cf"),
    "add_offset": (array_of(attrs={"add_offset": 280.0}), "decode_cf"),
    "_FillValue": (array_of(ONES.astype("i2"), attrs={"_FillValue": -32767}), "decode_cf"),
    "missing_value": (array_of(attrs={"missing_value": -9999.0}), "decode_cf"),
    "packed latitudes": (array_of(lat={"scale_factor": 0.1}), "latitude: .*decode_cf"),
    "dates": (array_of(np.full((9, 12), np.datetime64("2020-01-01", "ns"))), "timedelta64"),
    "durations": (array_of(np.full((9, 12), np.timedelta64(1, "ns"))), "timedelta64"),
    "raw dates": (array_of(attrs={"units": "days since 1900-01-01"}), "units 'days since 1900-01-01'"),
    "words": (array_of(np.full((9, 12), "x")), "words"),
    "objects": (array_of(np.full((9, 12), None)), "words"),
    "truth values": (array_of(ONES > 0), "astype"),
    "complex": (array_of(ONES * 1j), "real"),
    "stand-ins for gaps": (array_of(np.where(np.eye(9, 12) > 0, 9.96921e36, 1.0)), "where"),
    "gaps": (array_of(np.where(np.eye(9, 12) > 0, np.nan, 1.0)), "9 values NaN"),
    "latitudes in radians": (array_of(latitude=np.deg2rad(LATITUDE)), "latitude: .*rad2deg"),
    "longitudes in radians": (array_of(longitude=np.deg2rad(LONGITUDE)), "longitude: .*rad2deg"),
    "units of radians": (array_of(lat={"units": "radians"}), "latitude: .*rad2deg"),
    "longitudes with units of radians": (array_of(lon={"units": "radian"}), "longitude: .*rad2deg"),
    "kilometres": (array_of(lat={"units": "km"}), "interpolating"),
    "rotated poles": (array_of(lat={"standard_name": "grid_latitude"}), "interpolating"),
    "swapped names": (array_of(lat={"units": "degrees_east"}), "longitude"),
    "colatitudes": (array_of(latitude=np.linspace(0, 180, 9)), "90 - latitude"),
    "a latitude twice": (array_of(latitude=np.sort(np.r_[LATITUDE[:8], LATITUDE[0]])), "latitude: .*drop_duplicates"),
    "a longitude twice": (array_of(longitude=np.r_[LONGITUDE[:11], 0.0]), "longitude: .*drop_duplicates"),
    "latitudes in no order": (array_of(latitude=np.roll(LATITUDE, 3)), "sortby"),
    "words for latitudes": (array_of(latitude=list("abcdefghi")), "latitude: .*degrees"),
    "half the globe": (array_of(longitude=LONGITUDE / 2), "gap"),
    "one latitude": (array_of().isel(lat=0), "latitude: .*before .sel"),
    "two latitudes": (array_of().expand_dims(latitude=2), "latitude"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_attributes_that_contradict_the_numbers_are_refused(name):
    array, advice = CONTRADICTIONS[name]
    with pytest.raises(ValueError, match=r"(?s)got .*expected .*try ") as refused:
        sphere.from_xarray(array)
    assert re.search(advice, str(refused.value)), refused.value


def test_what_is_decoded_is_taken():
    decoded = xarray.decode_cf(array_of((10 * ONES).astype("i2"), attrs={"scale_factor": 0.1}).to_dataset(name="x")).x
    units = array_of(lat={"units": "Degrees_North", "standard_name": "latitude"}, lon={"units": "degrees"})
    lines = array_of(dims=("y", "x")).rename(y="j", x="i").assign_coords(lat=("j", LATITUDE), lon=("i", LONGITUDE))
    for array in (decoded, units, lines.drop_vars(["i", "j"]), array_of(longitude=LONGITUDE[::-1]), array_of().T):
        c, _ = sphere.from_xarray(array, 3)
        torch.testing.assert_close(c, (4 * torch.pi) ** 0.5 * torch.eye(9, dtype=torch.float64)[0])


def test_grids_of_other_kinds_get_advice_that_can_help():
    north, east = (np.broadcast_to(x, (9, 12)) for x in (LATITUDE[:, None], LONGITUDE))
    two = xarray.DataArray(ONES, dims=("y", "x"), coords={"lat": (("y", "x"), north), "lon": (("y", "x"), east)})
    points = xarray.DataArray(ONES.ravel(), dims="values", coords={
        "latitude": ("values", np.repeat(LATITUDE, 12)), "longitude": ("values", np.tile(LONGITUDE, 9))})  # fmt: skip
    turned = array_of(np.ones((9, 13)), longitude=np.arange(-180, 181, 30.0) % 360)
    for array, advice in ((two, "interpolating"), (points, "point_transform"), (turned, "drop_duplicates")):
        with pytest.raises(ValueError, match=advice) as refused:
            sphere.from_xarray(array)
        assert "rename" not in str(refused.value) and "argsort" not in str(refused.value)
