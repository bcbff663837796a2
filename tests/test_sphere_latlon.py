"""Grids of latitude and longitude as users have them, to coefficients and back."""

import numpy as np
import pytest
import torch

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
        (np.linspace(-80, 80, 9), np.arange(0, 180, 20.0), 3, "longitude: got 0, 20.0 ... 160, expected 9 values 40"),
        (np.linspace(-80, 80, 9), np.arange(0, 360, 30.0), 7, "L: got 7, expected at most 6"),
        (
            np.linspace(0, 85, 18),
            np.arange(0, 360, 10.0),
            12,
            "L: got 12, expected a smaller one: .* gap of 90 degrees",
        ),
        ([np.nan, 1.0], np.arange(0, 360, 30.0), 1, "latitude: got shape"),
    ],
)
def test_bad_grids_are_refused(latitude, longitude, limit, message):
    with pytest.raises(ValueError, match=message):
        LatLonGrid(latitude, longitude, limit)


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
