"""kodm-lite train"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Union

import tyro

from kodm_lite.recipes import RECIPES, FolderRecipe, PublishedRecipe, Recipe, SphereRecipe, prepare, train

__all__ = ["TRAININGS", "Train"]

#: What each training is: an example of the recipe, or its class if it lacks something, and a line on it.
TRAININGS: dict[str, tuple[Recipe | type[Recipe], str]] = {
    **RECIPES,
    "sphere-16": (SphereRecipe(), "Skewed random fields on the sphere; made, not read."),
    "published": (PublishedRecipe, "A data set of the published experiments, if you have it."),
    "folder": (FolderRecipe, "Your own images."),
}


def _subcommand(name: str, recipe: Recipe | type[Recipe], text: str) -> object:
    if isinstance(recipe, type):
        return Annotated[recipe, tyro.conf.subcommand(name, description=text)]
    return Annotated[type(recipe), tyro.conf.subcommand(name, default=recipe, description=text)]


if TYPE_CHECKING:
    Recipes = Recipe
else:
    Recipes = Union[*(_subcommand(name, *what) for name, what in TRAININGS.items())]


@dataclass(frozen=True)
class Train:
    """Train a model, or go on with a training that was stopped.

    All options: kodm-lite train textures-32 --help.

    The 7,500 steps of a usual training take 40 to 50 minutes on two cores of a CPU for images of 32 x 32 pixels, and
    about 3 hours for 64 x 64. Without a terminal, lines take the place of the progress bar, and after 20 steps one says
    how long all will take. The first picture of samples is drawn at step 50, unless --sample-every is 0.

    The folder --out gets the model, the state to go on from, pictures of samples, and log.jsonl with the errors in ten
    bins of time. It is saved every --save-every steps, every two minutes, and when Ctrl-C, SIGTERM or SIGHUP, which
    closing a terminal sends, stops the training; the same command goes on. Started by "accelerate launch -m kodm_lite
    train" or "torchrun -m kodm_lite train", several GPUs, also of several machines, share the work.

    textures-32 is measured on other crops of the photographs it learns from.

    Args:
        recipe: what to learn.
    """

    recipe: Recipes

    def run(self) -> None:
        prepared = prepare(self.recipe)
        speaks = os.environ.get("RANK", "0") == "0"  # of the processes of torchrun the first one
        if speaks:
            weights, shape = sum(x.numel() for x in prepared.network.parameters()), prepared.data.theta.shape[1:]
            what = "Training" if self.recipe.training.steps else "Completing without a step"
            print(f"{what} {weights:,} weights on {len(prepared.data)} images {' x '.join(map(str, shape))}")
            print(f"in {self.recipe.folder}; Ctrl-C stops, the same command goes on.", flush=True)
        train(prepared)
        if speaks:
            print(f"The model is {prepared.model_file}")
            print(f"Samples: kodm-lite sample {shlex.quote(str(self.recipe.folder))} -n 16 --out samples.png")
