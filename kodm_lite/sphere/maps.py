"""Maps of fields on the sphere, spectra, and the blocks of a covariance, with matplotlib alone.  Book: The sphere."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from kodm_lite.files import write_atomically
from kodm_lite.pictures.plotting import CYCLIC
from kodm_lite.sphere.grids import SphereGrid, make_grid
from kodm_lite.sphere.harmonics import power_spectrum
from kodm_lite.sphere.inputs import band_limit
from kodm_lite.sphere.noise import IsotropicNoise, PixelNoise
from kodm_lite.sphere.transform import SphericalTransform

__all__ = ["map_axes", "map_figure", "plot_block", "plot_map", "plot_spectrum", "write_maps"]


def map_axes(rows: int = 1, columns: int = 1, width: float = 7.4) -> tuple[Figure, np.ndarray]:
    """A figure of equal-area maps (Mollweide) and its axes (rows, columns)."""
    size = (width, 0.6 * width / columns * rows + 0.1)
    return plt.subplots(rows, columns, figsize=size, subplot_kw={"projection": "mollweide"}, squeeze=False)


def plot_map(ax: Axes, field: Tensor | np.ndarray, grid: SphereGrid, title: str = "", **options: Any) -> QuadMesh:
    """A real field (nlat, nlon) on a grid as a map; north is up, longitude 0 in the middle.

    Args:
        ax, title: an axis of :func:`map_axes`, and its title.
        field, grid: the values and where they are.
        options: for pcolormesh, for instance vmin, vmax and cmap; ``cyclic=True`` for phases in radians.

    Raises:
        ValueError: a field of another shape, another kind of grid, axes that are no map.
    """
    if not isinstance(grid, SphereGrid):
        hint = "map_figure(grid.analysis(field)[None])"
        raise ValueError(f"grid: got {type(grid).__name__}, expected a SphereGrid; try {hint}")
    x = np.ma.asarray(field.detach().cpu().numpy() if isinstance(field, Tensor) else field)
    if x.shape != grid.shape or np.iscomplexobj(x):
        raise ValueError(f"field: got {x.dtype} of shape {x.shape}, expected real numbers {grid.shape}")
    if ax.name != "mollweide":
        raise ValueError(f"ax: got a plot of kind {ax.name!r}, expected a map; try figure, axes = map_axes()")
    if options.pop("cyclic", False):
        options = {"cmap": CYCLIC, "vmin": -math.pi, "vmax": math.pi, **options}
    theta = grid.theta.numpy()
    borders = np.concatenate([[0.0], 0.5 * (theta[1:] + theta[:-1]), [math.pi]])
    half, step = grid.nlon // 2, 2 * math.pi / grid.nlon  # longitudes beyond 180 degrees belong to the left
    longitude = (np.arange(grid.nlon + 1) - half - 0.5) * step
    values = np.roll(np.ma.filled(x.astype(float), np.nan), half, axis=1)  # masked values are not drawn
    if grid.nlon % 2 == 0:  # the points on the date line are half here and half there
        longitude = np.concatenate([[-math.pi], longitude[1:], [math.pi]])
        values = np.concatenate([values, values[:, :1]], axis=1)
    mesh = ax.pcolormesh(longitude, math.pi / 2 - borders, values, rasterized=True, **{"cmap": "viridis", **options})
    ax.set(xticks=[], yticks=[], title=title)
    ax.grid(False)
    return mesh


def map_figure(c: Tensor, columns: int = 4, fine: int = 3) -> Figure:
    """Maps of fields (n, L^2), n >= 1, in the same colours, on a grid ``fine`` times finer than needed."""
    L = band_limit(c)
    if c.ndim != 2 or not len(c):
        raise ValueError(f"c: got shape {tuple(c.shape)}, expected (n, L^2) with n from 1 on; try c[None] for one")
    grid = make_grid("equiangular", L, nlat=2 * fine * L, nlon=4 * fine * L)
    fields = SphericalTransform(grid).synthesis(c.detach().cpu().double())
    columns = min(columns, len(c))
    figure, axes = map_axes(math.ceil(len(c) / columns), columns)
    low, high = (float(x) for x in torch.quantile(fields.flatten()[:1_000_000], torch.tensor([0.005, 0.995]).double()))
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, field in zip(axes.flat, fields, strict=False):
        plot_map(ax, field, grid, vmin=low, vmax=high)
    return figure


def write_maps(path: Path, c: Tensor) -> None:
    """Maps of fields with coefficients (n, L^2) as one PNG; OSError leaves an older one as it was."""
    buffer = io.BytesIO()
    map_figure(c).savefig(buffer, format="png", dpi=150)
    write_atomically(path, buffer.getvalue())


def plot_spectrum(ax: Axes, c: Tensor, label: str = "", **options: Any) -> None:
    """Mean power spectrum of fields (n, L^2) with its standard error, on logarithmic axes."""
    spectra = power_spectrum(c.detach().cpu().double().reshape(-1, c.shape[-1]))
    bar = spectra.std(0) / len(spectra) ** 0.5 if len(spectra) > 1 else None
    ax.errorbar(range(spectra.shape[-1]), spectra.mean(0), bar, label=label or None, **{"marker": ".", **options})
    ax.set_yscale("log")
    ax.set(xlabel="degree $l$", ylabel="$C_l$")
    ax.locator_params(axis="x", integer=True)


def plot_block(ax: Axes, noise: IsotropicNoise | PixelNoise, m: int, title: str = "") -> AxesImage:
    """The covariance of noise at order m < L, degrees l and l' from m on."""
    if not 0 <= m < noise.L:
        raise ValueError(f"m: got {m}, expected an order from 0 to {noise.L - 1}")
    block = noise.blocks()[m, m:, m:].detach().cpu().numpy()
    edges = (m - 0.5, noise.L - 0.5, noise.L - 0.5, m - 0.5)
    image = ax.imshow(block, cmap="RdBu_r", vmin=-1.3, vmax=1.3, extent=edges, interpolation="nearest")
    ax.set(xlabel="degree $l'$", ylabel="degree $l$", title=title or f"$m = {m}$")
    return image
