"""Fields on the sphere: harmonic transforms, diffusion of coefficients, phases on the globe.  Book: The sphere."""

from kodm_lite.sphere.coupling import SphericalCoupling, cap_kernel, heat_kernel
from kodm_lite.sphere.files import from_xarray, to_xarray
from kodm_lite.sphere.grids import SphereGrid, icosahedron_points, make_grid
from kodm_lite.sphere.harmonics import degree_order, power_spectrum, real_harmonics
from kodm_lite.sphere.latlon import LatLonGrid
from kodm_lite.sphere.losses import pixel_score_matching, spectral_score_matching
from kodm_lite.sphere.network import SphericalNet
from kodm_lite.sphere.noise import IsotropicNoise, PixelNoise
from kodm_lite.sphere.random_fields import ExactDenoiser, PerDegreeDenoiser, gaussian_fields, lognormal_fields
from kodm_lite.sphere.transform import PointTransform, SphericalTransform, point_transform

__all__ = [
    "ExactDenoiser",
    "IsotropicNoise",
    "LatLonGrid",
    "PerDegreeDenoiser",
    "PixelNoise",
    "PointTransform",
    "SphereGrid",
    "SphericalCoupling",
    "SphericalNet",
    "SphericalTransform",
    "cap_kernel",
    "degree_order",
    "from_xarray",
    "gaussian_fields",
    "heat_kernel",
    "icosahedron_points",
    "lognormal_fields",
    "make_grid",
    "pixel_score_matching",
    "point_transform",
    "power_spectrum",
    "real_harmonics",
    "spectral_score_matching",
    "to_xarray",
]
