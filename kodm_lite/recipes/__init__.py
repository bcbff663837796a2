"""Complete trainings by name: data, forward process, network and options that belong together.

A recipe is a dataclass, and each of its fields an option of ``kodm-lite train``; the texts under ``Args`` are the help.
"""

from kodm_lite.recipes.base import Prepared, Recipe, prepare, train
from kodm_lite.recipes.data_sets import (
    RECIPES,
    DigitsRecipe,
    FingerprintRecipe,
    FolderRecipe,
    PublishedRecipe,
    Sources,
    TerrainRecipe,
    TextureRecipe,
    recipe_of,
)
from kodm_lite.recipes.images import ImageRecipe, recommended_options
from kodm_lite.recipes.sphere import SphereRecipe, sphere_spectrum

__all__ = [
    "RECIPES",
    "DigitsRecipe",
    "FingerprintRecipe",
    "FolderRecipe",
    "ImageRecipe",
    "Prepared",
    "PublishedRecipe",
    "Recipe",
    "Sources",
    "SphereRecipe",
    "TerrainRecipe",
    "TextureRecipe",
    "prepare",
    "recipe_of",
    "recommended_options",
    "sphere_spectrum",
    "train",
]
