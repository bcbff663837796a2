"""Maps and spectra: what is drawn where."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from kodm_lite.sphere import LatLonGrid, PixelNoise, SphericalTransform, gaussian_fields, make_grid, power_spectrum
from kodm_lite.sphere.maps import map_axes, map_figure, plot_block, plot_map, plot_spectrum

GRID = make_grid("gauss", 6)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_every_point_lies_where_it_is_on_the_globe():
    _, axes = map_axes()
    theta, phi = (x.reshape(GRID.shape) for x in GRID.points())
    mesh = plot_map(axes[0, 0], phi.cos() * theta.sin() + 10 * theta.cos(), GRID)  # x + 10 z
    corners = mesh.get_coordinates()
    longitude = 0.25 * (corners[1:, 1:] + corners[:-1, 1:] + corners[1:, :-1] + corners[:-1, :-1])[..., 0]
    latitude = 0.5 * (corners[1:, 0, 1] + corners[:-1, 0, 1])
    longitude[:, 0], longitude[:, -1] = -math.pi, math.pi  # the date line is drawn on both sides
    values = np.asarray(mesh.get_array()).reshape(GRID.nlat, GRID.nlon + 1)
    expected = np.cos(longitude) * np.sin(GRID.theta.numpy())[:, None] + 10 * np.cos(GRID.theta.numpy())[:, None]
    np.testing.assert_allclose(values, expected, atol=1e-12)
    assert (np.diff(latitude) < 0).all() and corners[0, 0, 1] == pytest.approx(math.pi / 2)
    assert corners[..., 0].min() == pytest.approx(-math.pi) and corners[..., 0].max() == pytest.approx(math.pi)


def test_spectra_and_blocks_show_their_numbers():
    c = gaussian_fields(torch.ones(6, dtype=torch.float64), 20, torch.Generator().manual_seed(0))
    _, (left, right) = plt.subplots(1, 2)
    plot_spectrum(left, c, "data")
    np.testing.assert_allclose(np.asarray(left.lines[0].get_ydata(), dtype=float), power_spectrum(c).mean(0).numpy())
    noise = PixelNoise(SphericalTransform(GRID))
    image = plot_block(right, noise, 2)
    np.testing.assert_allclose(np.asarray(image.get_array()), noise.blocks()[2, 2:, 2:].numpy())
    assert list(image.get_extent()) == [1.5, 5.5, 5.5, 1.5]


def test_a_figure_has_a_map_for_each_field():
    figure = map_figure(torch.randn(5, 36), columns=3, fine=1)
    assert sum(bool(ax.collections) for ax in figure.axes) == 5 and len(figure.axes) == 6


def test_bad_input_is_refused():
    _, axes = map_axes()
    with pytest.raises(ValueError, match=r"field: got float32 of shape \(12, 6\), expected real numbers \(6, 12\)"):
        plot_map(axes[0, 0], torch.zeros(12, 6), GRID)
    with pytest.raises(ValueError, match="ax: got a plot of kind 'rectilinear', expected a map"):
        plot_map(plt.figure().add_subplot(), torch.zeros(6, 12), GRID)
    with pytest.raises(ValueError, match="m: got 6"):
        plot_block(plt.figure().add_subplot(), PixelNoise(SphericalTransform(GRID)), 6)
    with pytest.raises(ValueError, match=r"field: got complex128 of shape \(6, 12\)"):
        plot_map(axes[0, 0], np.zeros((6, 12), complex), GRID)


def test_fields_of_numpy_are_drawn_without_what_is_masked():
    _, axes = map_axes()
    field = np.ma.masked_less(np.arange(72.0).reshape(6, 12), 12)
    found = np.ma.filled(plot_map(axes[0, 0], field, GRID).get_array(), np.nan)
    assert np.isnan(found[0]).all() and not np.isnan(found[1:]).any()
    np.testing.assert_array_equal(found[1:, 6], field[1:, 0])
    np.testing.assert_array_equal(plot_map(axes[0, 0], field.data.tolist(), GRID).get_array()[:, 6], field.data[:, 0])


def test_other_grids_get_advice_that_works():
    grid = LatLonGrid(np.linspace(-80, 80, 9), np.arange(0, 360, 30.0))
    field = np.ones((9, 12))
    with pytest.raises(ValueError, match=r"grid: got LatLonGrid, .* try map_figure\(grid.analysis\(field\)\[None\]\)"):
        plot_map(map_axes()[1][0, 0], field, grid)
    assert len(map_figure(grid.analysis(field)[None], fine=1).axes) == 1


@pytest.mark.parametrize("shape", [(0, 36), (36,), (2, 3, 36)])
def test_a_figure_needs_a_batch_of_fields(shape):
    with pytest.raises(ValueError, match="c: got shape .*expected .*try c"):
        map_figure(torch.zeros(shape))
