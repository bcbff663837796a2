"""Recipes on images by name, as the command line knows them."""

from __future__ import annotations

from pathlib import Path

from kodm_lite.recipes.images import (
    DigitsRecipe,
    FingerprintRecipe,
    FolderRecipe,
    ImageRecipe,
    TerrainRecipe,
    TextureRecipe,
)

__all__ = ["RECIPES", "recipe_of"]

#: Recipes that need nothing but this package and what it depends on, with a line on each.
RECIPES: dict[str, tuple[ImageRecipe, str]] = {
    "textures-32": (TextureRecipe(), "Brick, grass and gravel; every pixel feels the whole image."),
    "textures-32-local": (
        TextureRecipe(radius=4),
        "The same; every pixel feels the 9 x 9 box around it.",
    ),
    "textures-32-wide": (
        TextureRecipe(scale=0.9),
        "The same as textures-32 on nearly the whole circle, as published: black and white are neighbours.",
    ),
    "fingerprints": (FingerprintRecipe(), "Arches, loops and whorls, with classes; made, not read."),
    "fingerprints-32": (
        FingerprintRecipe(size=32, period=5.0, network="small"),
        "The same, smaller and coarser.",
    ),
    "orientations": (
        FingerprintRecipe(kind="orientation", size=32, network="small"),
        "The double angles of fingerprints' ridges; made, not read.",
    ),
    "digits-16": (DigitsRecipe(), "Handwritten digits, with their classes."),
    "terrain-32": (TerrainRecipe(), "Directions in which a landscape falls."),
}


def recipe_of(
    name_or_folder: str, size: int = 32, channels: int = 1, crops: int | None = None, scale: float = 0.5
) -> ImageRecipe:
    """The recipe of a name, or one for a folder of images.

    Args:
        name_or_folder: a key of ``RECIPES``, or a folder.
        size: side of the images of a folder.
        channels: of the images of a folder.
        crops: of each image of a folder.
        scale: of the images of a folder.

    Raises:
        ValueError: neither.
    """
    if name_or_folder in RECIPES:
        return RECIPES[name_or_folder][0]
    if Path(name_or_folder).expanduser().is_dir():
        return FolderRecipe(
            path=Path(name_or_folder), size=size, channels=3 if channels == 3 else 1, crops=crops, scale=scale
        )
    raise ValueError(f"data: got {name_or_folder!r}, expected a folder of images or one of {', '.join(RECIPES)}")
