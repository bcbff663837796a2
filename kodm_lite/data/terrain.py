"""Real slopes, as the directions in which they fall: an elevation model that comes with matplotlib, no download."""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kodm_lite.circular import wrap
from kodm_lite.data.crops import random_corners
from kodm_lite.data.options import check_choice
from kodm_lite.data.phase_data import PhaseData
from kodm_lite.encoding import Angles

__all__ = ["aspect", "elevation", "terrain_aspect"]

_FILE = "jacksboro_fault_dem.npz"
_EARTH_RADIUS = 6_371_000.0  # metres
_SMOOTHING = 100.0  # metres, standard deviation of the Gaussian
_TRUNCATE = 4  # standard deviations at which the Gaussian ends
_MARGIN = 6  # cells: how far a direction sees, 5 by the Gaussian (see _TRUNCATE) and 1 by the difference
_TEST_WIDTH = 112  # columns at the eastern edge of the map that only the test split sees


def terrain_aspect(
    size: int = 32,
    split: Literal["train", "test"] = "train",
    n: int = 768,
    seed: int = 0,
    without: tuple[int, int] | None = None,
) -> PhaseData:
    """Square crops of a map of slope directions, true angles on the whole circle: 0 is east, pi / 2 north.

    Theta is the direction of steepest descent of :func:`elevation`, as computed by :func:`aspect`: 0 where the ground
    falls to the east, pi / 2 to the north, -pi to the west, -pi / 2 to the south.  North is at the top of a crop.  The
    map shows hills and a fault in Tennessee, 30 km by 32 km; its cells are 75 m wide and 93 m high and are left so.
    Training crops come from the western 291 columns of the map, test crops from the eastern 112.  Each part is smoothed
    by itself and loses its outermost 6 cells, so that no elevation has an influence on both.

    Args:
        size: side of a crop in cells, 4 to 279 (test: 100).
        split: "train" or "test".
        n: number of crops.
        seed: integer; the same seed gives the same crops.
        without: number and seed of other crops of the same size and split, none of which is to be among these.

    Returns:
        :class:`PhaseData` with theta (n, 1, size, size), no labels, and the encoding of angles.

    Raises:
        ValueError: a size that does not fit, an unknown split, a matplotlib without its sample data.

    >>> data = terrain_aspect(size=16, n=6)
    >>> data.theta.shape, data.encoding
    (torch.Size([6, 1, 16, 16]), Angles())
    """
    check_choice("split", split, ("train", "test"))
    region = _region(split)
    others = [] if without is None else random_corners(region.shape, size, *without, split, "cells")
    corners = random_corners(region.shape, size, n, seed, split, "cells", others)
    crops = [region[i : i + size, j : j + size] for i, j in corners]
    return PhaseData(
        theta=torch.stack(crops)[:, None],
        labels=None,
        names=(),
        encoding=Angles(),
        source=f"slope directions of the elevation model {_FILE} of matplotlib (Shuttle Radar Topography Mission)",
        licence="public domain",
    )


def elevation() -> tuple[np.ndarray, float, float]:
    """The elevation model: metres above the sea, and the width and height of a cell in metres.

    The first row is the northern edge, the first column the western one.  The file states the spacing in degrees; on a
    sphere of 6371 km one degree of latitude has 111.2 km, one of longitude that times the cosine of the latitude, which
    is taken in the middle of the map.  The ellipsoid differs by 0.4 % in the ratio, 0.1 degrees in a direction.

    The latitudes in the file are a mirror image: its ``ymin`` is the larger one.  Its ``ymax``, 36.446, is the northern
    edge, and the southern one lies 344 cells below it: then the highest cell is the top of Cross Mountain, Tennessee,
    to within half a cell of its coordinates 36.1983 N, 84.2306 W.

    Returns:
        Elevations (344, 403) in metres, float64; spacing from west to east and from north to south in metres.

    Raises:
        ValueError: a matplotlib without its sample data.

    Source: Shuttle Radar Topography Mission, 3 arc seconds, in the public domain, according to the change that brought
    it into matplotlib (github.com/matplotlib/matplotlib/pull/3291).

    >>> z, dx, dy = elevation()
    >>> z.shape, round(dx, 1), round(dy, 1)
    ((344, 403), 74.7, 92.7)
    """
    from matplotlib.cbook import get_sample_data  # here, because no module does work at import

    path = get_sample_data(_FILE, asfileobj=False)
    try:
        with np.load(path, allow_pickle=False) as file:
            z, dx, dy, north = (np.asarray(file[name], np.float64) for name in ("elevation", "dx", "dy", "ymax"))
    except OSError as error:
        raise ValueError(
            f"elevation: got no file {_FILE}, expected it among the sample data of matplotlib, which some "
            "distributions leave out; try pip install --force-reinstall matplotlib"
        ) from error
    degree = math.radians(_EARTH_RADIUS)
    latitude = math.radians(float(north) - float(dy) * len(z) / 2)
    return z, float(dx) * degree * math.cos(latitude), float(dy) * degree


def aspect(elevation: np.ndarray, dx: float, dy: float) -> Tensor:
    """Direction of steepest descent, theta = atan2(north, east) of minus the gradient of the smoothed ground.

    Where it is flat there is no direction, and elevations in whole metres make flat places and steps of what is
    neither; so a Gaussian with a standard deviation of 100 m smooths the ground first.  The gradient is that of central
    differences.  The outermost cells see ground repeated from the edge, and one-sided differences.

    Args:
        elevation: elevations (H, W) in metres, at least 2 by 2, rows from north to south, columns from west to east.
        dx: spacing of the columns in metres.
        dy: spacing of the rows in metres.

    Returns:
        Angles (H, W) in [-pi, pi), float32: 0 falls to the east, pi / 2 to the north; 0 also where it is exactly flat.

    Raises:
        ValueError: elevations that are not a map of finite numbers, spacings that are not positive.

    >>> falls_to_the_north = np.arange(5.0)[:, None] * np.ones(5)
    >>> aspect(falls_to_the_north, 100.0, 100.0)[2, 2]
    tensor(1.5708)
    """
    try:
        elevation, (dx, dy) = np.asarray(elevation, np.float64), (float(step) for step in (dx, dy))
    except (TypeError, ValueError) as error:
        raise ValueError(f"elevation, dx, dy: got {error}, expected numbers; try dx=75.0, dy=93.0") from error
    if elevation.ndim != 2 or min(elevation.shape) < 2 or not np.isfinite(elevation).all():
        raise ValueError(
            f"elevation: got shape {elevation.shape}, expected finite numbers (H, W) from 2 by 2; "
            "try np.nan_to_num(elevation)"
        )
    if not (0 < dx < math.inf and 0 < dy < math.inf):
        raise ValueError(f"dx, dy: got {dx}, {dy}, expected positive metres; try dx=75, dy=93")
    from scipy.ndimage import gaussian_filter

    cells = (_SMOOTHING / dy, _SMOOTHING / dx)
    smooth = gaussian_filter(elevation, cells, truncate=_TRUNCATE, mode="nearest")
    southward, eastward = np.gradient(-smooth, dy, dx)  # rows count southwards
    return wrap(torch.from_numpy(np.arctan2(-southward, eastward)).float())


@cache
def _region(split: str) -> Tensor:
    """Directions in one part of the map, without the cells that see beyond its edges."""
    z, dx, dy = elevation()
    part = z[:, :-_TEST_WIDTH] if split == "train" else z[:, -_TEST_WIDTH:]
    return aspect(part, dx, dy)[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
