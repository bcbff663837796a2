"""Complete trainings by name: data, forward process, network and options that belong together.

A recipe is a dataclass, and each of its fields an option of ``kodm-lite train``; the texts under ``Args`` are the help.
"""

from kodm_lite.recipes.base import Prepared, Recipe, prepare, train
from kodm_lite.recipes.images import (
    CifarRecipe,
    DigitsRecipe,
    FingerprintRecipe,
    FolderRecipe,
    ImageRecipe,
    TerrainRecipe,
    TextureRecipe,
    recommended_options,
)
from kodm_lite.recipes.sphere import SphereRecipe, sphere_spectrum

__all__ = [
    "CifarRecipe",
    "DigitsRecipe",
    "FingerprintRecipe",
    "FolderRecipe",
    "ImageRecipe",
    "Prepared",
    "Recipe",
    "SphereRecipe",
    "TerrainRecipe",
    "TextureRecipe",
    "prepare",
    "recommended_options",
    "sphere_spectrum",
    "train",
]
