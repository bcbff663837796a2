"""What trainings on images have in common: process, network, and how it begins."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kodm_lite import checkpoints
from kodm_lite.data import PhaseData
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
from kodm_lite.simulation import STEPS
from kodm_lite.training import TrainingOptions

__all__ = ["ImageRecipe", "recommended_options"]

_NONE = LinearSchedule(0.0, 0.0)
_UNCOUPLED = {"coupling_strength": _NONE, "reference_strength": _NONE}

Split = Literal["train", "test"]
Size = Literal["small", "coarse", "medium", "large"]  # of a network


def recommended_options() -> TrainingOptions:
    """What trains well on small images of textures."""
    options = TrainingOptions(steps=7500, batch_size=32, learning_rate=1.5e-3, ema=0.999)
    return replace(options, precision="bf16", sample_every=500)


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

    network: Size = "small"
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
            expected = f"none that the objective {name!r} does not have; try to leave it out"
            raise ValueError(f"{', '.join(given)}: got a value, expected {expected}") from error
        return made

    @property
    def side(self) -> int:
        """Of the images, in pixels."""
        return 32

    @abstractmethod
    def images(self, split: Split, n: int | None = None) -> PhaseData:
        """Images to learn from ("train"), or others ("test"), ``n`` of them where they are made or cut out."""

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
            self._check_simulation(process)
            network = PeriodicUNet(shape[0], process, **SIZES[self.network], classes=classes)
        else:
            unit = math.pi * getattr(data.encoding, "scale", 1.0)  # of grey values: 1
            process = VariancePreserving(WhiteNoise(shape, unit))
            network = EuclideanUNet(shape[0], process, **SIZES[self.network], classes=classes)
        if self.start:
            _copy_weights(self.start, network)
        return network, process

    def _check_simulation(self, process: KuramotoProcess) -> None:
        """Refuse too few steps under the name that they have here."""
        try:
            process.check_steps(self.simulation_steps or STEPS)
        except ValueError as error:
            raise ValueError(f"simulation_{error}".replace("try steps=", "try simulation_steps=")) from error

    def facts(self, data: PhaseData) -> dict[str, Any]:
        return {**super().facts(data), "start": ", ".join(self.start or ["random weights"])}


def _copy_weights(names_or_paths: tuple[str, ...], network: PeriodicUNet | EuclideanUNet) -> None:
    """Give a network the weights of a model, or the mean of several.

    The mean of fine-tuned weights is often better than each of them: Wortsman et al. 2022 (arXiv 2203.05482).
    """
    mean: dict[str, Tensor] = {name: torch.zeros_like(weight) for name, weight in network.state_dict().items()}
    for name_or_path in names_or_paths:
        other = checkpoints.load(name_or_path).network
        if describe(other) != describe(network):
            expected = f"{describe(network)}; try the same size, channels and classes as that model has"
            raise ValueError(f"start: got a network {describe(other)}, expected {expected}")
        for name, weight in other.state_dict().items():
            mean[name] += weight / len(names_or_paths)
    network.load_state_dict(mean)
