"""Grids of latitude and longitude as users have them, to coefficients and back."""

import math
import warnings

import numpy as np
import pytest
import torch
from helpers import HELPFUL

from kodm_lite.sphere import LatLonGrid, from_xarray, real_harmonics, to_xarray

L = 6
C = torch.randn(2, L * L, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def field_at(latitude, longitude):
    theta, phi = (torch.tensor(np.deg2rad(x)) for x in (90 - np.asarray(latitude, float), np.asarray(longitude, float)))
    theta, phi = (x.flatten() for x in torch.meshgrid(theta, phi, indexing="ij"))
    return (C @ real_harmonics(L, theta, phi).T).reshape(2, len(latitude), len(longitude))


GRIDS = {
    "poles, from the north": (np.linspace(90, -90, 13), np.arange(0, 360, 20.0)),
    "poles, from the south": (np.linspace(-90, 90, 13), np.arange(-180, 180, 20.0)),
    "cell centres": (np.linspace(-85, 85, 18), np.arange(5, 360, 10.0)),
    "longitude 360 repeated": (np.linspace(87.5, -87.5, 36), np.linspace(-180, 180, 37)),
    "odd offsets": (np.linspace(-88, 80, 15), np.arange(11) * 360 / 11 + 3),
    "uneven latitudes": (np.sort(np.random.default_rng(1).uniform(-88, 88, 40)), np.arange(0, 360, 30.0)),
}


@pytest.mark.parametrize("name", GRIDS)
def test_any_regular_grid_gives_the_coefficients_back(name):
    latitude, longitude = GRIDS[name]
    grid, field = LatLonGrid(latitude, longitude, L), field_at(latitude, longitude)
    torch.testing.assert_close(grid.analysis(field), C, rtol=0, atol=1e-10)
    torch.testing.assert_close(grid.analysis(field.float().numpy()), C, rtol=0, atol=1e-4)
    torch.testing.assert_close(grid.synthesis(C), field, rtol=0, atol=1e-10)
    torch.testing.assert_close(grid.synthesis(C[0]), field[0], rtol=0, atol=1e-10)


def test_the_largest_band_limit_is_the_default():
    assert LatLonGrid(np.linspace(-85, 85, 18), np.arange(0, 360, 30.0)).L == 6
    assert LatLonGrid(np.linspace(-80, 80, 5), np.arange(0, 360, 10.0)).L == 5


def test_what_is_finer_than_the_band_limit_is_left_out_and_not_folded():
    """On a fine grid least squares with areas is close to the projection."""
    latitude, longitude = np.linspace(-89.5, 89.5, 180), np.arange(0, 360, 2.0)
    low = LatLonGrid(latitude, longitude, 3)
    torch.testing.assert_close(low.analysis(field_at(latitude, longitude)), C[:, :9], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("latitude", "longitude", "limit", "message"),
    [
        ([-60, 0, 30, 20, 80], np.arange(0, 360, 30.0), 3, "latitude: got 30 followed by 20"),
        (np.linspace(-1.5, 1.5, 9), np.arange(0, 360, 30.0), 3, "latitude: .*rad2deg"),
        ([-100, 0, 80], np.arange(0, 360, 30.0), 3, r"latitude: got 100, expected degrees in \[-90, 90\]"),
        (np.linspace(-80, 80, 9), np.arange(0, 180, 20.0), 3, "longitude: got a gap of 200 degrees after 160"),
        (np.linspace(-80, 80, 9), np.arange(0, 360, 30.0), 7, "L: got 7, expected at most 6"),
        (np.linspace(0, 85, 18), np.arange(0, 360, 10.0), 12, "L: got 12, expected at most 3 .* gap of 90 degrees"),
        (np.linspace(-80, 80, 9), np.arange(0, 360, 30.0), True, "L: got True"),
        (np.linspace(-80, 80, 9), np.arange(0, 360, 30.0), 2.5, "L: got 2.5"),
        (np.ma.masked_less(np.linspace(-80, 80, 9), 0), np.arange(0, 360, 30.0), 3, "latitude: got masked values"),
        ([np.nan, 1.0], np.arange(0, 360, 30.0), 1, "latitude: got shape"),
    ],
)
def test_bad_grids_are_refused(latitude, longitude, limit, message):
    with pytest.raises(ValueError, match=message):
        LatLonGrid(latitude, longitude, limit)


@pytest.mark.parametrize(
    ("longitude", "message"),
    [
        (np.arange(0, 353.0), "gap of 8 degrees after 352"),
        (np.delete(np.arange(360.0), 100), "gap of 2 degrees after 99"),
        (np.arange(0, 355, 0.25), "gap of 5.25 degrees after 354.75"),
        (np.arange(0, 362.0), "dropping the last 2 columns"),
        (np.array([0.0, 10, 20, 31, *range(40, 360, 10)]), "gap of 11 degrees after 20"),
        (np.arange(359, -1, -1.0), "argsort"),
        (np.roll(np.arange(-180, 180, 10.0), 18), "argsort"),
    ],
    ids=["7 of 360 lacking", "one lacking", "a quarter degree apart", "overlap", "uneven", "falling", "rolled"],
)
def test_longitudes_must_be_one_turn_in_equal_steps(longitude, message):
    with pytest.raises(ValueError, match=HELPFUL) as refused:
        LatLonGrid(np.linspace(-80, 80, 9), longitude, 3)
    assert message in str(refused.value)
    rounded = np.round(np.arange(0, 360, 1 / 3), 2)  # as files have them
    assert LatLonGrid(np.linspace(-80, 80, 9), rounded.astype(np.float32), 3).L == 3


def test_advice_on_falling_longitudes_is_right():
    latitude, longitude = np.linspace(-80, 80, 9), np.arange(350, -10, -10.0)
    field, order = field_at(latitude, longitude), np.argsort(longitude)
    c = LatLonGrid(latitude, longitude[order], L).analysis(field[..., order])
    torch.testing.assert_close(c, C, rtol=0, atol=1e-10)


def test_a_grid_of_half_degrees():
    """On it the singular value decomposition of some order does not converge."""
    latitude, longitude = np.linspace(-90, 90, 361), np.arange(0, 360, 0.5)
    grid = LatLonGrid(latitude, longitude, 360)
    c = torch.zeros(360**2, dtype=torch.float64)
    c[: L * L] = C[0]
    torch.testing.assert_close(grid.analysis(field_at(latitude, longitude)[0]), c, rtol=0, atol=1e-10)


def errors_grow_by(latitude, limit):
    """The norm of (Y^T W Y)^-1 Y^T W^1/2 for the functions of all orders at once, by dense algebra."""
    latitude = np.asarray(latitude, float)
    longitude = np.arange(2 * limit) * 180 / limit
    edges = np.deg2rad(np.array([-90, *(0.5 * (latitude[1:] + latitude[:-1])), 90]))
    area = torch.tensor(np.diff(np.sin(edges)) * math.pi / limit).repeat_interleave(2 * limit)
    theta, phi = (x.flatten() for x in np.meshgrid(np.deg2rad(90 - latitude), np.deg2rad(longitude), indexing="ij"))
    weighted = real_harmonics(limit, torch.tensor(theta), torch.tensor(phi)) * area.sqrt()[:, None]
    return 1 / float(torch.linalg.svdvals(weighted)[-1])


@pytest.mark.parametrize(
    ("latitude", "limit"), [(np.linspace(-90, 90, 13), 9), (np.linspace(-60, 60, 25), 8), (np.linspace(-80, 80, 5), 5)]
)
@pytest.mark.filterwarnings("ignore:L. at 8 errors")
def test_the_amplification_is_that_of_dense_least_squares(latitude, limit):
    grid = LatLonGrid(latitude[::-1], np.arange(2 * limit) * 180 / limit, limit)
    assert grid.amplification == pytest.approx(errors_grow_by(latitude, limit), rel=1e-6)


def test_cropped_grids_are_refused_or_warned_of():
    latitude, longitude = np.linspace(-60, 60, 25), np.arange(0, 360, 5.0)
    with pytest.raises(ValueError, match=r"(?s)L: got 17, expected at most 9 .* gap of 30 degrees.*; try L=9"):
        LatLonGrid(latitude, longitude, 17)
    with pytest.warns(UserWarning, match=r"L: at 9 .* a factor 10, .*; try L=6") as warned:
        assert 9 < LatLonGrid(latitude, longitude).amplification < 10
    assert warned[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 1 < LatLonGrid(latitude, longitude, 6).amplification < 3


@pytest.mark.parametrize(
    ("latitude", "longitudes", "largest"),
    [
        (np.linspace(-90, 90, 37), 360, 36),
        (np.linspace(-90, 90, 73), 192, 72),
        (np.linspace(90, -90, 73), 144, 72),
        (np.linspace(-87.5, 87.5, 36), 360, 36),
        (np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(32)[0])), 64, 32),
    ],
)
def test_grids_of_the_whole_sphere_have_a_default_without_a_warning(latitude, longitudes, largest):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grid = LatLonGrid(latitude, np.arange(longitudes) * 360 / longitudes)
    assert grid.L == largest and grid.amplification < 2.5
    if largest < min(len(latitude), (longitudes + 1) // 2):
        with pytest.raises(ValueError, match=f"L: got {largest + 1}, expected at most {largest} .*; try L={largest}"):
            LatLonGrid(latitude, np.arange(longitudes) * 360 / longitudes, largest + 1)


@pytest.mark.filterwarnings("ignore:L. at 38 errors")
def test_a_grid_without_poles_has_a_default_too():
    assert LatLonGrid(np.arange(-82.5, 82.6, 2.5), np.arange(0, 360, 2.5)).L == 38


def test_empty_batches_and_integers_of_numpy():
    grid = LatLonGrid(np.linspace(-80, 80, 9), np.arange(0, 360, 30.0), np.int64(3))
    assert type(grid.L) is int
    assert grid.analysis(torch.zeros(2, 0, 9, 12)).shape == (2, 0, 9)
    assert grid.synthesis(torch.zeros(0, 9)).shape == (0, 9, 12)


def test_bad_fields_are_refused():
    grid = LatLonGrid(np.linspace(-80, 80, 9), np.arange(0, 360, 30.0), 3)
    gap = torch.zeros(9, 12)
    gap[3, 4] = torch.nan
    masked = np.ma.masked_equal(np.where(np.isnan(gap.numpy()), -9999.0, 1.0), -9999.0)
    assert grid.analysis(np.ones((9, 12))[::-1]).shape == (9,)  # a flipped array
    for field, message in (
        (gap, "field: got 1 values NaN"),
        (masked, "field: got 1 values NaN"),
        (torch.zeros(12, 9), r"field: got .*\(12, 9\), expected real \(..., 9, 12\)"),
        (torch.zeros(9, 12, dtype=torch.complex64), "field: got torch.complex64"),
    ):
        with pytest.raises(ValueError, match=message):
            grid.analysis(field)
    with pytest.raises(ValueError, match="c: got coefficients of L = 4, expected L = 3"):
        grid.synthesis(torch.zeros(16))


def test_netcdf_through_xarray(tmp_path):
    xarray = pytest.importorskip("xarray", reason="needs the extra kodm-lite[netcdf]")
    latitude, longitude = np.linspace(90, -90, 13), np.concatenate([np.arange(0, 180, 20.0), np.arange(-180, 0, 20.0)])
    field = field_at(latitude, longitude).numpy()
    path = tmp_path / "field.nc"
    xarray.DataArray(
        field.transpose(1, 0, 2), dims=("lat", "time", "lon"), coords={"lat": latitude, "lon": longitude}, name="height"
    ).to_netcdf(path, engine="scipy")
    with xarray.open_dataarray(path, engine="scipy") as array:
        c, grid = from_xarray(array, L)
    torch.testing.assert_close(c, C, rtol=0, atol=1e-10)
    back = to_xarray(c, grid)
    assert back.dims == ("sample", "latitude", "longitude")
    np.testing.assert_allclose(back.sel(longitude=20.0).values, field[:, :, 1], atol=1e-10)
    with pytest.raises(
        ValueError, match=r"array: got dimensions \('x', 'y'\), expected one of them to be latitude or lat"
    ):
        from_xarray(xarray.DataArray(np.zeros((9, 12)), dims=("x", "y")))


def array_of(dims=("time", "lat", "lon"), units=False):
    xarray = pytest.importorskip("xarray", reason="needs the extra kodm-lite[netcdf]")
    latitude, longitude = np.linspace(80, -80, 9), np.arange(-180, 180, 30.0)
    attributes = ({"units": "degrees_north"}, {"units": "degreesE"}) if units else ({}, {})
    coordinates = {"time": [10, 20], dims[1]: (dims[1], latitude, attributes[0]),
                   dims[2]: (dims[2], longitude, attributes[1]), "month": ("time", [1, 2])}  # fmt: skip
    return xarray.DataArray(
        field_at(latitude, longitude).numpy(), dims=dims, coords=coordinates, name="t2m", attrs={"units": "K"}
    )


def test_coordinates_are_known_by_their_units_and_written_with_them():
    c, grid = from_xarray(array_of(("time", "y", "x"), units=True), L)
    torch.testing.assert_close(c, C, rtol=0, atol=1e-10)
    written = to_xarray(c.requires_grad_(), grid)
    assert written.latitude.attrs == {"standard_name": "latitude", "units": "degrees_north"}
    assert written.longitude.attrs == {"standard_name": "longitude", "units": "degrees_east"}
    torch.testing.assert_close(from_xarray(written.rename(latitude="y", longitude="x"), L)[0], c.detach())


def test_other_coordinates_come_back_with_like():
    array = array_of()
    c, grid = from_xarray(array, L)
    back = to_xarray(c, grid, like=array)
    assert back.name == "t2m" and back.attrs == {"units": "K"} and list(back.coords) == list(array.coords)
    np.testing.assert_allclose((back - array).values, 0, atol=1e-10)
    assert to_xarray(c, grid, "high", like=array).name == "high"
    for wrong in (array[:1], array.assign_coords(lat=array.lat - 1)):
        with pytest.raises(ValueError, match=f"like: {HELPFUL[4:]}"):
            to_xarray(c, grid, like=wrong)


def test_what_is_no_array_with_coordinates_is_refused():
    array = array_of()
    for wrong, message in (
        (array.to_dataset(), "array: got Dataset"),
        (array.values, "array: got ndarray"),
        (array.drop_vars("lat"), "array: got no values of lat"),
    ):
        with pytest.raises(ValueError, match=HELPFUL) as refused:
            from_xarray(wrong, L)
        assert message in str(refused.value)
