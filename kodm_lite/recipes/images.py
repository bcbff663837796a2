"""Trainings on images: those that ship or are made on the spot, published ones, and one's own."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tyro.conf import Positional

from kodm_lite import checkpoints
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
from kodm_lite.euclidean import VariancePreserving, WhiteNoise
from kodm_lite.kinds import Process
from kodm_lite.kuramoto import Coupling, GlobalCoupling, LocalCoupling
from kodm_lite.losses import Objective
from kodm_lite.model import describe
from kodm_lite.networks import SIZES, EuclideanUNet, PeriodicUNet
from kodm_lite.process import KuramotoProcess
from kodm_lite.recipes.base import Recipe
from kodm_lite.registry import processes
from kodm_lite.schedules import LinearSchedule
from kodm_lite.training import TrainingOptions

__all__ = [
    "DigitsRecipe",
    "FingerprintRecipe",
    "FolderRecipe",
    "ImageRecipe",
    "PublishedRecipe",
    "TerrainRecipe",
    "TextureRecipe",
    "recommended_options",
]

_NONE = LinearSchedule(0.0, 0.0)
_UNCOUPLED = {"coupling_strength": _NONE, "reference_strength": _NONE}

Split = Literal["train", "test"]

TEXTURE_SIZE, TEXTURE_CROPS = 32, 32768
VALIDATION_IMAGES, VALIDATION_SEED = 512, 99  # of crops to measure on


def recommended_options() -> TrainingOptions:
    """What trains well on small images of textures."""
    return TrainingOptions(
        steps=7500,
        batch_size=32,
        learning_rate=1.5e-3,
        precision="bf16",
        ema=0.999,
        sample_every=500,
    )


@dataclass(frozen=True, kw_only=True)
class ImageRecipe(Recipe):
    """What all trainings on images have in common.

    Args:
        network: size of the network: about 1, 1, 8 or 35 million parameters; coarse, for smooth images from 64 x 64
            pixels, sees four pixels as one.
        diffusion: kuramoto: phases synchronise; euclidean: the baseline, grey values get Gaussian noise.
        weighting: weight of the times: of the mean-field objective early or target, of transitions target, published
            or none; by default the first.
        draws: transitions per simulated image, for the objective of transitions.
        simulation_steps: of the forward process, per unit of time.
        published: the process with the constants of the paper, whose end still knows the mean of large images, instead
            of one that is as strong as the images need.
        radius: pixels feel the box of this half width around them; by default the whole image.
        coupled: pixels pull on each other, and the reference on all of them; without, phases only diffuse.
        classes: learn the classes too, so that kodm-lite sample --class NAME can ask for one.
        start: begin with the weights of this model, a shipped name, a file or the folder of a training, instead of
            random ones; of several models, with the mean of their weights, which makes sense for trainings that began
            with the same ones.
        training: how the weights are found.
    """

    network: Literal["small", "coarse", "medium", "large"] = "small"
    diffusion: Literal["kuramoto", "euclidean"] = "kuramoto"
    weighting: Literal["early", "target", "published", "none"] | None = None
    draws: int | None = None
    simulation_steps: int | None = None
    published: bool = False
    radius: int | None = None
    coupled: bool = True
    classes: bool = False
    start: tuple[str, ...] | None = None
    training: TrainingOptions = field(default_factory=recommended_options)

    @property
    def coupling(self) -> Coupling:
        """Who feels whom in the forward process."""
        return GlobalCoupling() if self.radius is None else LocalCoupling(self.radius, "reflect")

    @property
    def objective(self) -> Objective:
        """What is minimised, with the options of the recipe.

        Raises:
            ValueError: an objective or an option that the process or the objective does not have.
        """
        known = processes["kuramoto" if self.diffusion == "kuramoto" else "variance_preserving"].objectives
        name = self.training.objective or next(iter(known))
        if name not in known:
            raise ValueError(f"objective: got {name!r}, expected one of {', '.join(known)} for {self.diffusion}")
        given = {"weighting": self.weighting, "draws": self.draws, "steps": self.simulation_steps}
        given = {option: value for option, value in given.items() if value is not None}
        try:
            made: Objective = known[name](**given)
        except TypeError as error:
            raise ValueError(
                f"{', '.join(given)}: got a value, expected none that the objective {name!r} does not have; "
                "try to leave it out"
            ) from error
        return made

    @property
    @abstractmethod
    def side(self) -> int:
        """Of the images, in pixels."""

    @abstractmethod
    def images(self, split: Split, n: int | None = None) -> PhaseData:
        """Images to learn from ("train") or others ("test"), ``n`` of them where they are made or cut out."""

    def data(self) -> tuple[PhaseData, PhaseData | None]:
        return self.images("train"), self.images("test")

    def check(self) -> None:
        if isinstance(self.start, str):  # a tuple of letters otherwise
            raise ValueError(f"start: got the string {self.start!r}, expected a tuple; try start=({self.start!r},)")
        _ = self.objective
        if self.start == ():
            raise ValueError("start: got no model, expected at least one after it; try --start textures-32")
        if self.diffusion == "euclidean":
            if self.radius is not None:
                raise ValueError("radius: got one, expected none for the baseline, whose pixels do not feel each other")
            if not self.coupled:
                raise ValueError("coupled: got False, expected nothing for the baseline, which has no coupling anyway")
            if self.published:
                raise ValueError("published: got True, expected nothing for the baseline, which has other constants")
        elif self.radius is not None and not self.coupled:
            raise ValueError("radius: got one, expected none for pixels that do not feel each other; try coupled=True")
        process = KuramotoProcess()
        with torch.device("meta"):  # no memory and no random numbers
            stride = PeriodicUNet(1, process, **SIZES[self.network]).stride
        if self.side % stride or self.side < stride:
            multiple = max(1, round(self.side / stride)) * stride
            raise ValueError(f"size: got {self.side}, expected a multiple of {stride}; try size={multiple}")

    def build(self, data: PhaseData) -> tuple[nn.Module, Process]:
        if self.classes and data.labels is None:
            raise ValueError("classes: got images without classes, expected a sub-folder for each; try classes=False")
        shape, classes = tuple(data.theta.shape[1:]), len(data.names) if self.classes else None
        process: Process
        network: PeriodicUNet | EuclideanUNet
        if self.diffusion == "kuramoto":
            make = KuramotoProcess if self.published else partial(KuramotoProcess.for_shape, shape)
            options: dict[str, Any] = {"coupling": self.coupling, **({} if self.coupled else _UNCOUPLED)}
            process = make(**options)
            network = PeriodicUNet(shape[0], process, **SIZES[self.network], classes=classes)
        else:
            unit = math.pi * getattr(data.encoding, "scale", 1.0)  # of grey values: 1
            process = VariancePreserving(WhiteNoise(shape, unit))
            network = EuclideanUNet(shape[0], process, **SIZES[self.network], classes=classes)
        if self.start:
            _copy_weights(self.start, network)
        return network, process

    def facts(self, data: PhaseData) -> dict[str, Any]:
        return {**super().facts(data), "start": ", ".join(self.start or ["random weights"])}


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

    @property
    def side(self) -> int:
        return TEXTURE_SIZE

    def images(self, split: Split, n: int | None = None) -> PhaseData:
        """Test images are other crops of the same photographs."""
        if split == "train":
            return _first(textures(TEXTURE_SIZE, "train", n=TEXTURE_CROPS, seed=1, scale=self.scale), n)
        own, seen = n or VALIDATION_IMAGES, (TEXTURE_CROPS, 1)
        return textures(TEXTURE_SIZE, "train", n=own, seed=VALIDATION_SEED, scale=self.scale, without=seen)


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
    network: Literal["small", "coarse", "medium", "large"] = "coarse"
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
        n = n or (self.prints if split == "train" else min(VALIDATION_IMAGES, self.prints))
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

    @property
    def side(self) -> int:
        return 32

    def images(self, split: Split, n: int | None = None) -> PhaseData:
        """Test images are other pieces of the same part of the map."""
        if split == "train":
            return _first(terrain_aspect(32, "train", n=self.crops, seed=1), n)
        own = n or VALIDATION_IMAGES
        return terrain_aspect(32, "train", n=own, seed=VALIDATION_SEED, without=(self.crops, 1))


@dataclass(frozen=True, kw_only=True)
class PublishedRecipe(ImageRecipe):
    """A data set of the published experiments; kodm-lite data NAME says where to get it.

    Args:
        source: which one.
        path: where it is.
    """

    source: Positional[Literal["brodatz", "cifar10", "ground_terrain", "socofing"]]
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
    scale: float = 0.5
    test_share: float = 0.1
    skip_broken: bool = False
    cache: bool = False
    workers: int = 0

    @property
    def name(self) -> str:
        return self.path.expanduser().resolve().name

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
            cache=self.folder / f"images-{split}.f32" if self.cache else None,
            workers=self.workers,
        )

    def check(self) -> None:
        super().check()
        images, out = self.path.expanduser().resolve(), self.folder.resolve()
        if images == out or images in out.parents:
            raise ValueError(
                f"out: got {self.folder}, in the folder of the images, expected another place, as pictures of samples "
                "would be learned; try --out with a folder beside it"
            )
        if self.workers < 0:
            raise ValueError(f"workers: got {self.workers}, expected a number from 0; try workers=0")

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


def _first(data: PhaseData, n: int | None) -> PhaseData:
    """The first images: where other crops would be cut if fewer were asked for, these are still trained on."""
    return replace(data, theta=data.theta[:n], labels=None if data.labels is None else data.labels[:n])


def _copy_weights(names_or_paths: tuple[str, ...], network: PeriodicUNet | EuclideanUNet) -> None:
    """Give a network the weights of a model, or the mean of several.

    The mean of fine-tuned weights is often better than each of them: Wortsman et al. 2022 (arXiv 2203.05482).
    """
    mean: dict[str, Tensor] = {name: torch.zeros_like(weight) for name, weight in network.state_dict().items()}
    for name_or_path in names_or_paths:
        other = checkpoints.load(name_or_path).network
        if describe(other) != describe(network):
            raise ValueError(
                f"start: got a network {describe(other)}, expected {describe(network)}; try the same size, channels "
                "and classes as that model has"
            )
        for name, weight in other.state_dict().items():
            mean[name] += weight / len(names_or_paths)
    network.load_state_dict(mean)
