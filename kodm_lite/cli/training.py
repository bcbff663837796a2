"""kodm-lite train"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Union

import tyro

from kodm_lite.recipes import RECIPES, FolderRecipe, PublishedRecipe, SphereRecipe, prepare, train

__all__ = ["Train"]

if TYPE_CHECKING:
    from kodm_lite.recipes import Recipe as Recipes
else:
    Recipes = Union[  # a list of them that is made, not written
        *(
            Annotated[type(recipe), tyro.conf.subcommand(name, default=recipe, description=text)]
            for name, (recipe, text) in RECIPES.items()
        ),
        Annotated[
            SphereRecipe,
            tyro.conf.subcommand("sphere-16", description="Skewed random fields on the sphere; made, not read."),
        ],
        Annotated[
            PublishedRecipe,
            tyro.conf.subcommand("published", description="A data set of the published experiments, if you have it."),
        ],
        Annotated[FolderRecipe, tyro.conf.subcommand("folder", description="Your own images.")],
    ]


@dataclass(frozen=True)
class Train:
    """Train a model, or go on with a training that was stopped.

    All options: kodm-lite train textures-32 --help.

    The folder --out gets the model, the state to go on from, pictures of samples, and log.jsonl with the errors in ten
    bins of time. Started by "accelerate launch -m kodm_lite train" or "torchrun -m kodm_lite train", several GPUs, also
    of several machines, share the work.

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
