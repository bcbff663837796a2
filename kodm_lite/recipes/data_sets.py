"""The data sets that can be trained on by name, and one's own images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from kodm_lite.data import (
    PhaseData,
    brodatz,
    cifar10,
    digits,
    fingerprints,
    ground_terrain,
    image_folder,
    socofing,
    terrain_aspect,
    textures,
)
from kodm_lite.files import place
from kodm_lite.recipes.images import ImageRecipe, Size, Split
from kodm_lite.validation import check_count

__all__ = [
    "RECIPES",
    "DigitsRecipe",
    "FingerprintRecipe",
    "FolderRecipe",
    "PublishedRecipe",
    "TerrainRecipe",
    "TextureRecipe",
    "recipe_of",
]

Sources = Literal["brodatz", "cifar10", "ground_terrain", "socofing"]  # of published data
TEXTURE_CROPS = 32768
VALIDATION_IMAGES, VALIDATION_SEED = 512, 99  # of crops to measure on


@dataclass(frozen=True, kw_only=True)
class TextureRecipe(ImageRecipe):
    """Brick, grass and gravel, 32 x 32, grey.

    Args:
        scale: share of the half circle between grey and white; 0.5 makes black and white opposite angles, the
            published 0.9 neighbours.
    """

    scale: float = 0.5

    @property
    def name(self) -> str:
        scale = {0.5: "", 0.9: "-wide"}.get(self.scale, f"-{self.scale:g}")
        return f"textures-32{'' if self.radius is None else '-local'}{scale}"

    def images(self, split: Split, n: int | None = None) -> PhaseData:
        """Test images are other crops of the same photographs."""
        if split == "train":
            return textures(32, "train", n=TEXTURE_CROPS, seed=1, scale=self.scale)
        own, seen = n or VALIDATION_IMAGES, (TEXTURE_CROPS, 1)
        return textures(32, "train", n=own, seed=VALIDATION_SEED, scale=self.scale, without=seen)


@dataclass(frozen=True, kw_only=True)
class FingerprintRecipe(ImageRecipe):
    """Fingerprints made on the spot: arches, loops and whorls.

    Args:
        size: side of the images in pixels, a multiple of 8.
        period: from ridge to ridge in pixels.
        scale: share of the half circle between grey and white; 0.5 makes black and white opposite angles.
        kind: ridges: as ink shows them; orientation: twice the angle of the ridges, at every pixel.
        prints: number of fingers to learn from.
    """

    size: int = 64
    period: float = 9.0
    scale: float = 0.5
    network: Size = "coarse"
    kind: Literal["ridges", "orientation"] = "ridges"
    prints: int = 8192
    classes: bool = True

    @property
    def name(self) -> str:
        return f"{'fingerprints' if self.kind == 'ridges' else 'orientations'}-{self.size}"

    @property
    def side(self) -> int:
        return self.size

    def images(self, split: Split, n: int | None = None) -> PhaseData:
        """Test images are prints of other fingers."""
        n = self.prints if split == "train" else n or min(VALIDATION_IMAGES, self.prints)
        return fingerprints(self.size, split, n, kind=self.kind, period=self.period, scale=self.scale)


@dataclass(frozen=True, kw_only=True)
class DigitsRecipe(ImageRecipe):
    """Handwritten digits of scikit-learn, 16 x 16, grey.

    Args:
        scale: share of the half circle between grey and ink; 0.5 makes ink and paper opposite angles.
    """

    scale: float = 0.5
    classes: bool = True

    @property
    def name(self) -> str:
        return "digits-16"

    @property
    def side(self) -> int:
        return 16

    def images(self, split: Split, n: int | None = None) -> PhaseData:
        return digits(split, 16, self.scale)


@dataclass(frozen=True, kw_only=True)
class TerrainRecipe(ImageRecipe):
    """Directions in which the ground falls, of a real map, 32 x 32: angles from the start.

    Args:
        crops: number of pieces of the map to learn from.
    """

    crops: int = 32768

    @property
    def name(self) -> str:
        return "terrain-32"

    def images(self, split: Split, n: int | None = None) -> PhaseData:
        """Test images are other pieces of the same part of the map."""
        if split == "train":
            return terrain_aspect(32, "train", n=self.crops, seed=1)
        own = n or VALIDATION_IMAGES
        return terrain_aspect(32, "train", n=own, seed=VALIDATION_SEED, without=(self.crops, 1))


@dataclass(frozen=True, kw_only=True)
class PublishedRecipe(ImageRecipe):
    """A data set of the published experiments; kodm-lite data NAME says where to get it.

    Args:
        source: which one.
        path: where it is.
    """

    source: Positional[Sources]
    path: Positional[Path]

    @property
    def name(self) -> str:
        return self.source

    @property
    def side(self) -> int:
        return 64 if self.source == "socofing" else 32

    def images(self, split: Split, n: int | None = None) -> PhaseData:
        if self.source == "cifar10":
            return cifar10(self.path, split)
        if self.source == "brodatz":
            return brodatz(self.path, 32, split)
        return socofing(self.path, 64, split) if self.source == "socofing" else ground_terrain(self.path, 32, split)


@dataclass(frozen=True, kw_only=True)
class FolderRecipe(ImageRecipe):
    """One's own images.

    Args:
        path: folder with images, or with one sub-folder of images for each class.
        size: side of the images in pixels, a multiple of 8.
        channels: 1: grey; 3: red, green and blue.
        crops: cut this many squares at random places out of each image; by default each is resized.
        flips: learn the mirror image of every square too.
        scale: share of the half circle between grey and white; 0.5 makes black and white opposite angles, the
            published 0.9 neighbours.
        test_share: share of the images to measure on and not to learn from; 0: none.
        skip_broken: leave out files that cannot be read, which otherwise end the command.
        cache: keep the images in a file in the folder of the training, for more of them than fit into memory.
        workers: processes that read files at the same time.
    """

    path: Positional[Path]
    size: int = 32
    channels: Literal[1, 3] = 1
    crops: int | None = None
    flips: bool = False
    scale: float = 0.5
    test_share: float = 0.1
    skip_broken: bool = False
    cache: bool = False
    workers: int = 0

    @property
    def name(self) -> str:
        return place(self.path).resolve().name

    @property
    def side(self) -> int:
        return self.size

    def images(self, split: Split | Literal["all"], n: int | None = None) -> PhaseData:
        return image_folder(
            self.path,
            self.size,
            split,
            self.channels,
            self.crops,
            self.scale,
            seed=self.training.seed,
            test_share=self.test_share or 0.1,
            skip_broken=self.skip_broken,
            flips=self.flips and split != "test",
            cache=self.folder / f"images-{split}.f32" if self.cache else None,
            workers=self.workers,
        )

    def check(self) -> None:
        super().check()
        images, out = place(self.path).resolve(), self.folder.resolve()
        if images == out or images in out.parents:
            beside = "another place, as pictures of samples would be learned; try --out with a folder beside it"
            raise ValueError(f"out: got {self.folder}, in the folder of the images, expected {beside}")
        check_count("workers", self.workers, 0)

    def data(self) -> tuple[PhaseData, PhaseData | None]:
        if self.cache and not self.resume:
            for file in self.folder.glob("images-*.f32*"):
                file.unlink()
        if self.test_share == 0:
            return self.images("all"), None
        train_images = self.images("train")
        try:
            return train_images, self.images("test")
        except ValueError as error:
            if str(error).startswith("split:"):  # one photograph is enough to learn from its crops
                raise ValueError("test_share: got one image, expected at least 2; try test_share=0") from error
            raise


#: Recipes that need nothing but this package and what it depends on, with a line on each.
RECIPES: dict[str, tuple[ImageRecipe, str]] = {
    "textures-32": (TextureRecipe(), "Brick, grass and gravel; every pixel feels the whole image."),
    "textures-32-local": (TextureRecipe(radius=4), "The same; every pixel feels the 9 x 9 box around it."),
    "textures-32-wide": (
        TextureRecipe(scale=0.9),
        "The same as textures-32 on nearly the whole circle, as published: black and white are neighbours.",
    ),
    "fingerprints": (FingerprintRecipe(), "Arches, loops and whorls, with classes; made, not read."),
    "fingerprints-32": (FingerprintRecipe(size=32, period=5.0, network="small"), "The same, smaller and coarser."),
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
    folder, colours = place(name_or_folder), channels == 3
    if folder.is_dir():
        return FolderRecipe(path=folder, size=size, channels=3 if colours else 1, crops=crops, scale=scale)
    raise ValueError(f"data: got {name_or_folder!r}, expected a folder of images or one of {', '.join(RECIPES)}")
