"""What is compared in the table of methods: the Euclidean baseline, the published method, and the one of this package.

Every method is a way to change a recipe for images, and a way to sample.  All have the same images, the same U-Net but
for its ends, the same optimiser, the same number of network evaluations in training, and the same number of them for a
sample.  The paper draws five transitions after simulating an image; each costs a network evaluation, and one transition
of each of five times as many images is at least as good (chapter 6), so that is what the published rows get here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kodm_lite.model import Model
from kodm_lite.recipes import ImageRecipe

__all__ = ["METHODS", "Method"]

_RADIUS = 4  # of local coupling: boxes of 9 x 9 pixels


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Args:
        title: for people.
        change: what the recipe's fields become.
        objective: options of the training that say what the network learns from.
        sampler: method of sampling.
        evaluations: of the network in a step of the sampler.
        own_steps: whether the model is trained for a number of steps, as the published one is, and not for all.
    """

    title: str
    change: dict[str, Any]
    objective: dict[str, Any]
    sampler: str
    evaluations: int = 1
    own_steps: bool = False

    def recipe(self, recipe: ImageRecipe, simulated: int, folder: Path, **training: Any) -> ImageRecipe:
        """The recipe of this method, without classes.

        Args:
            recipe: for the images.
            simulated: steps of the forward simulation, for a method with ``own_steps``.
            folder: for the model.
            training: options that all methods have in common.
        """
        changes: dict[str, Any] = dict(self.change)
        if self.own_steps:
            changes["simulation_steps"] = simulated
        options = replace(recipe.training, **training)
        return replace(recipe, **changes, classes=False, training=replace(options, **self.objective), out=folder)

    def sampling(self, model: Model, budget: int) -> dict[str, Any]:
        """Options of :meth:`kodm_lite.Model.sample` for at most ``budget`` evaluations of the network a sample."""
        steps = budget // self.evaluations
        if steps < 1:
            raise ValueError(f"budget: got {budget}, expected at least {self.evaluations} evaluations for {self.title}")
        options: dict[str, Any] = {"method": self.sampler, "steps": steps}
        if self.own_steps:
            options["prior"] = model.process.prior()  # as published: no correlations between pixels
        return options


_TARGET: dict[str, Any] = {"weighting": "target"}
_PUBLISHED: dict[str, Any] = {"published": True, "weighting": "published"}
_TRANSITION = {"objective": "transition"}
_EUCLIDEAN: dict[str, Any] = {"diffusion": "euclidean"}

#: By the name that the command line knows.  Methods with equal ``change`` and ``objective`` share their models.
METHODS: dict[str, Method] = {
    "sgm": Method("SGM, ancestral steps", _EUCLIDEAN, {}, "ancestral"),
    "sgm-flow": Method("SGM, probability flow", _EUCLIDEAN, {}, "ode", evaluations=2),
    "kodm-global": Method("KODM global, as published", _PUBLISHED, _TRANSITION, "euler", own_steps=True),
    "kodm-local": Method(
        "KODM local, as published", {**_PUBLISHED, "radius": _RADIUS}, _TRANSITION, "euler", own_steps=True
    ),
    "mean-field": Method("KODM global, mean-field", _TARGET, {}, "ode"),
    "mean-field-early": Method("KODM global, mean-field, early", {}, {}, "ode"),
    "transition": Method("KODM global, published target only", {}, _TRANSITION, "ode"),
    "uncoupled": Method("No coupling, circle only", {**_TARGET, "coupled": False}, {}, "ode"),
    "mean-field-local": Method("KODM local, mean-field", {**_TARGET, "radius": _RADIUS}, {}, "ode"),
}
