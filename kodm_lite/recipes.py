"""Complete trainings by name: data, forward process, network and options that belong together.

A recipe is a dataclass, and each of its fields an option of ``kodm-lite train``; the texts under ``Args`` are the help.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from tyro.conf import Positional

from kodm_lite import checkpoints
from kodm_lite.data import PhaseData, image_folder, textures
from kodm_lite.euclidean import EuclideanDiffusion, VariancePreserving
from kodm_lite.kuramoto import Coupling, GlobalCoupling, LocalCoupling
from kodm_lite.networks import SIZES, PeriodicUNet, describe
from kodm_lite.process import KuramotoProcess
from kodm_lite.samplers import Calibration, calibrate
from kodm_lite.sphere import (
    IsotropicNoise,
    PixelNoise,
    SphericalNet,
    SphericalTransform,
    lognormal_fields,
    make_grid,
    power_spectrum,
)
from kodm_lite.training import TrainingInterrupted, TrainingOptions, fit

__all__ = ["FolderRecipe", "Prepared", "Recipe", "SphereRecipe", "TextureRecipe", "prepare", "sphere_spectrum", "train"]

TEXTURE_SIZE, TEXTURE_CROPS, TEXTURE_VALIDATION_CROPS = 32, 32768, 512
CALIBRATION_IMAGES = 64  # times thousands of pixels: the second moment of a score to within a percent


def recommended_options() -> TrainingOptions:
    """What trains well on small images of textures."""
    return TrainingOptions(
        objective="mean_field", steps=7500, batch_size=32, learning_rate=1.5e-3, precision="bf16", ema=0.999
    )


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """What all trainings have in common.

    Args:
        network: size of the network: about 1, 8 or 35 million parameters.
        radius: pixels feel the box of this half width around them; by default the whole image.
        classes: learn the classes too, so that kodm-lite sample --class NAME can ask for one.
        start: begin with the weights of this model, a shipped name or a file, instead of random ones.
        resume: go on from the state in the folder if there is one; otherwise replace what is there.
        training: how the weights are found.
    """

    network: Literal["small", "medium", "large"] = "small"
    radius: int | None = None
    classes: bool = False
    start: str | None = None
    resume: bool = True
    training: TrainingOptions = field(default_factory=recommended_options)

    @property
    def coupling(self) -> Coupling:
        """Who feels whom in the forward process."""
        return GlobalCoupling() if self.radius is None else LocalCoupling(self.radius, "reflect")

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where the model, the state, the log and the pictures of the training lie."""

    @abstractmethod
    def data(self) -> tuple[PhaseData, PhaseData | None]:
        """Images to learn from, and images to measure on."""


@dataclass(frozen=True, kw_only=True)
class TextureRecipe(Recipe):
    """Brick, grass and gravel, 32 x 32, grey.

    Args:
        out: folder for the model, the state, the log and pictures.
    """

    out: Path = Path("runs/textures-32")

    @property
    def folder(self) -> Path:
        return self.out

    def data(self) -> tuple[PhaseData, PhaseData | None]:
        """Other crops of the same photographs to measure on."""
        return (
            textures(TEXTURE_SIZE, "train", n=TEXTURE_CROPS, seed=1),
            textures(TEXTURE_SIZE, "train", n=TEXTURE_VALIDATION_CROPS, seed=99),
        )


@dataclass(frozen=True, kw_only=True)
class FolderRecipe(Recipe):
    """One's own images.

    Args:
        path: folder with images, or with one sub-folder of images for each class.
        size: side of the images in pixels, a multiple of 8.
        channels: 1: grey; 3: red, green and blue.
        crops: cut this many squares at random places out of each image; by default each is resized.
        test_share: share of the images to measure on and not to learn from; 0: none.
        skip_broken: leave out files that cannot be read, which otherwise end the command.
        out: folder for the model, the state, the log and pictures; by default runs/ and the name of the images' folder.
    """

    path: Positional[Path]
    size: int = 32
    channels: Literal[1, 3] = 1
    crops: int | None = None
    test_share: float = 0.1
    skip_broken: bool = False
    out: Path | None = None

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / self.path.expanduser().absolute().name

    def data(self) -> tuple[PhaseData, PhaseData | None]:
        def images(split: Literal["train", "test", "all"], share: float) -> PhaseData:
            return image_folder(
                self.path,
                self.size,
                split,
                self.channels,
                self.crops,
                seed=self.training.seed,
                test_share=share,
                skip_broken=self.skip_broken,
            )

        if self.test_share == 0:
            return images("all", 0.1), None
        train_images = images("train", self.test_share)
        try:
            return train_images, images("test", self.test_share)
        except ValueError as error:
            if str(error).startswith("split:"):  # one photograph is enough to learn from its crops
                raise ValueError("test_share: got one image, expected at least 2; try test_share=0") from error
            raise


def sphere_options() -> TrainingOptions:
    """What trains well on small fields on the sphere."""
    return TrainingOptions(objective="noise", steps=1000, batch_size=64, learning_rate=4e-3, ema=0.995)


@dataclass(frozen=True, kw_only=True)
class SphereRecipe:
    """Skewed random fields on the sphere, exp(g) of Gaussian fields g of variance 1/2, made on the spot.

    Args:
        L: band limit; degrees are l < L.
        noise: isotropic: white noise of the sphere; pixel: white noise of the points of a Gauss grid.
        channels: fields that the network works on.
        blocks: layers of the network.
        fields: number of fields to learn from.
        out: folder for the model, the state and the log; by default runs/ and a name.
        resume: go on from the state in the folder if there is one; otherwise replace what is there.
        training: how the weights are found.
    """

    L: int = 16
    noise: Literal["isotropic", "pixel"] = "isotropic"
    channels: int = 16
    blocks: int = 3
    fields: int = 16384
    out: Path | None = None
    resume: bool = True
    training: TrainingOptions = field(default_factory=sphere_options)

    @property
    def folder(self) -> Path:
        return self.out or Path(f"runs/sphere-{self.L}{'-pixel' if self.noise == 'pixel' else ''}")

    def data(self) -> tuple[PhaseData, PhaseData]:
        """Coefficients (n, L^2) to learn from, and others to measure on."""
        spectrum = sphere_spectrum(self.L)
        return tuple(  # type: ignore[return-value]
            PhaseData(
                lognormal_fields(spectrum, n, torch.Generator().manual_seed(seed)).float(),
                None,
                (),
                1.0,
                f"{n} lognormal random fields of band limit {self.L}, made by kodm_lite",
                "none needed: the data are random numbers",
            )
            for n, seed in ((self.fields, 1), (1024, 99))
        )


def sphere_spectrum(L: int) -> torch.Tensor:
    """Power spectrum of g: (1 + l/3)^-2.5, scaled to variance 1/2 at every point; float64."""
    shape = (1 + torch.arange(L, dtype=torch.float64) / 3) ** -2.5
    return shape * (2 * math.pi / float((shape * (2 * torch.arange(L) + 1)).sum()))


class Prepared(NamedTuple):
    """A training that can begin: everything in it fits together.

    Args:
        recipe: where it comes from.
        network: where to start, with weights from the recipe's seed.
        process: its forward process.
        data: images to learn from.
        validation: images to measure on, or None.
        facts: for the card of the model, beside what the training writes there.
    """

    recipe: Recipe | SphereRecipe
    network: PeriodicUNet | SphericalNet
    process: KuramotoProcess | EuclideanDiffusion
    data: PhaseData
    validation: PhaseData | None
    facts: dict[str, Any]

    @property
    def model_file(self) -> Path:
        return self.recipe.folder / "model.safetensors"


def prepare(recipe: Recipe | SphereRecipe) -> Prepared:
    """Read or make the data of a recipe, and make a network for them.

    Raises:
        ValueError: options or images that do not fit together.
    """
    if isinstance(recipe, SphereRecipe):
        return _prepare_sphere(recipe)
    published = KuramotoProcess()
    with torch.device("meta"):  # no memory and no random numbers
        stride = PeriodicUNet(1, published, **SIZES[recipe.network]).stride
    if isinstance(recipe, FolderRecipe) and recipe.size % stride:  # before images are read, which may take minutes
        multiple = max(1, round(recipe.size / stride)) * stride
        raise ValueError(f"size: got {recipe.size}, expected a multiple of {stride}; try size={multiple}")
    data, validation = recipe.data()
    if recipe.classes and data.labels is None:
        raise ValueError("classes: got images without classes, expected a sub-folder for each; try classes=False")
    shape, names = tuple(data.theta.shape[1:]), list(data.names) if recipe.classes else []
    process = KuramotoProcess.for_shape(shape, coupling=recipe.coupling)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        network = PeriodicUNet(shape[0], process, **SIZES[recipe.network], classes=len(names) or None)
    if recipe.start is not None:
        _copy_weights(recipe.start, network)
    facts = _facts(recipe, recipe.start or "random weights", data.licence, names)
    return Prepared(recipe, network, process, data, validation, facts)


def _prepare_sphere(recipe: SphereRecipe) -> Prepared:
    if recipe.fields < 1:
        raise ValueError(f"fields: got {recipe.fields}, expected at least 1; try leaving the option out")
    noise: IsotropicNoise | PixelNoise = IsotropicNoise(recipe.L)
    if recipe.noise == "pixel":
        noise = PixelNoise(SphericalTransform(make_grid("gauss", recipe.L), torch.float32))
    process = VariancePreserving(noise)
    data, validation = recipe.data()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        spectrum = power_spectrum(data.theta).mean(0)
        network = SphericalNet(process, spectrum, recipe.channels, recipe.blocks)
    facts = _facts(recipe, "random weights", data.licence, [])
    return Prepared(recipe, network, process, data, validation, facts)


def _facts(recipe: Recipe | SphereRecipe, start: str, licence: str, classes: list[str]) -> dict[str, Any]:
    """What the card of a model tells of its recipe."""
    return {
        "name": recipe.folder.name,
        "start": start,
        "licence": licence,
        "classes": classes,
        "seed": recipe.training.seed,
        "cores": os.cpu_count(),
    }


def _copy_weights(name_or_path: str, network: PeriodicUNet) -> None:
    other = checkpoints.load(checkpoints.find(name_or_path)).network
    if describe(other) != describe(network):
        raise ValueError(
            f"start: got a network {describe(other)}, expected {describe(network)}; try the same size, channels and "
            "classes as that model has"
        )
    network.load_state_dict(other.state_dict())


def train(prepared: Prepared, progress: bool = True) -> None:
    """Train, or go on where a training was left, and complete the model's file for every way of sampling.

    Args:
        prepared: by :func:`prepare`.
        progress: show a progress bar.

    Raises:
        ValueError: options that do not fit what is in the folder; before any work.
        TrainingInterrupted: after Ctrl-C, with everything saved.
        FloatingPointError, OSError: see :func:`kodm_lite.training.fit`.
    """
    recipe, network, process, data, validation, facts = prepared
    try:
        trained = fit(
            network,
            process,
            data,
            recipe.training,
            validation=validation,
            out=recipe.folder,
            resume=recipe.resume,
            progress=progress,
        )
    except TrainingInterrupted:
        if _cluster().is_main_process:
            _complete(prepared.model_file, facts, None)
        raise
    if _cluster().is_main_process:
        calibration = None
        if isinstance(process, KuramotoProcess):  # the other samplers need none
            device = _cluster().device
            examples = data.theta[:CALIBRATION_IMAGES].to(device)
            generator = torch.Generator(device).manual_seed(recipe.training.seed)
            calibration = calibrate(trained.to(device), process, examples, generator=generator)
        _complete(prepared.model_file, facts, calibration)


def _cluster() -> Any:
    """The device of the training that was, and this process among the others."""
    from accelerate import PartialState  # type: ignore[import-untyped]  # here, because it takes a second

    return PartialState()


def _complete(path: Path, facts: dict[str, Any], calibration: Calibration | None) -> None:
    """Add to a model's file what the training does not know of it."""
    model = checkpoints.load(path)
    checkpoints.save(path, model._replace(calibration=calibration, card={**facts, **model.card}))
