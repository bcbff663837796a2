"""The table of the paper, run again: methods by budgets, data sets and seeds; every number is kept as it is found.

A folder holds all there is: models in ``models/DATA/METHOD/seed-K``, and in ``cells`` one JSON file for each cell of
the table with a picture of a few samples beside it.  What is there is not computed again, so that a run can be stopped
at any time.  :mod:`kodm_lite.reproduce.table` makes a table of the numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from kodm_lite import checkpoints
from kodm_lite.files import write_atomically
from kodm_lite.metrics import evaluate
from kodm_lite.model import Model
from kodm_lite.pictures.files import write_grid
from kodm_lite.process import KuramotoProcess
from kodm_lite.recipes import ImageRecipe, prepare, train
from kodm_lite.reproduce.methods import METHODS, Method

__all__ = ["Cell", "Plan", "run"]

FEWEST = 20  # images of a set that can be measured
SHOWN = 8  # samples on the picture of a cell


@dataclass(frozen=True)
class Cell:
    """One number of the table.

    Args:
        data: name of the data set.
        method: key of ``METHODS``.
        budget: evaluations of the network for one sample.
        seed: of training and sampling.
    """

    data: str
    method: str
    budget: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.data}.{self.method}.{self.budget}.{self.seed}"


@dataclass(frozen=True)
class Plan:
    """What to run.

    Args:
        folder: where everything is kept.
        recipes: for the images, by name of the data set.
        methods: keys of ``METHODS``.
        budgets: evaluations of the network for one sample.
        seeds: numbers of trainings.
        training: options of the training that all methods have in common.
        images: samples to measure.
        chunk: samples at once.
    """

    folder: Path
    recipes: dict[str, ImageRecipe]
    methods: tuple[str, ...]
    budgets: tuple[int, ...]
    seeds: tuple[int, ...]
    training: dict[str, Any]
    images: int = 512
    chunk: int = 128

    def cells(self) -> Iterator[Cell]:
        """All numbers, so ordered that every model is used as soon as it is there."""
        for seed in self.seeds:
            for data in self.recipes:
                for method in self.methods:
                    for budget in self.budgets:
                        yield Cell(data, method, budget, seed)


def run(plan: Plan, progress: bool = True) -> list[dict[str, Any]]:
    """Compute what is missing.

    Args:
        plan: what to run.
        progress: show progress bars.

    Returns:
        One dict for each cell, see ``cells/*.json``: the cell, what :func:`kodm_lite.metrics.evaluate.evaluate` found,
        and what it was found with.

    Raises:
        ValueError: an unknown method, a folder with cells of another plan.
        TrainingInterrupted: after Ctrl-C, with everything kept.
    """
    _check(plan)
    conditions = {"training": plan.training, "images": plan.images}
    results: list[dict[str, Any]] = []
    real: dict[str, _Images] = {}
    cells = list(plan.cells())
    for cell in tqdm(cells, unit="cell", disable=not progress):
        path = plan.folder / "cells" / f"{cell.name}.json"
        if not path.is_file():
            if cell.data not in real:
                real = {cell.data: _Images(plan.recipes[cell.data], plan.images)}  # those of one data set at a time
            found = _measure(plan, cell, real[cell.data], progress)
            write_atomically(path, (json.dumps({**asdict(cell), **conditions, **found}, indent=1) + "\n").encode())
        result = _read(path)
        found_with = {key: result.get(key) for key in conditions}
        if found_with != json.loads(json.dumps(conditions)):
            raise ValueError(f"folder: got {path} with {found_with}, expected {conditions}; try another folder")
        results.append(result)
    return results


def _check(plan: Plan) -> None:
    """Refuse what would fail after hours."""
    unknown = [name for name in plan.methods if name not in METHODS]
    if unknown or not plan.methods:
        raise ValueError(f"methods: got {unknown or 'none'}, expected some of {', '.join(METHODS)}")
    if not plan.recipes:
        raise ValueError("data: got none, expected the name of a data set; try textures-32")
    if plan.images < FEWEST:
        raise ValueError(f"images: got {plan.images}, expected at least {FEWEST}")
    fewest, needed = min(plan.budgets, default=0), max(METHODS[name].evaluations for name in plan.methods)
    if fewest < needed:
        raise ValueError(f"budgets: got {plan.budgets}, expected numbers from {needed}, for one step of every method")
    if any(METHODS[name].own_steps for name in plan.methods):
        try:
            KuramotoProcess().check_steps(fewest)
        except ValueError as error:
            raise ValueError(f"budgets: got {fewest}, which are the published methods' {error}") from error


def _read(path: Path) -> dict[str, Any]:
    """A cell that is there."""
    try:
        result = json.loads(path.read_text(encoding="utf8"))
        if isinstance(result, dict) and isinstance(result["evaluation"]["rows"], list):
            return result
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"folder: got {path}, which is no cell of a table, expected one; try to delete it")


class _Images:
    """Images to learn from, among which copies are looked for, and to compare with, twice as many as samples if so."""

    def __init__(self, recipe: ImageRecipe, images: int):
        self.data, self.validation = recipe.data()
        self.real = recipe.images("test", 2 * images)
        if len(self.real) < 2 * FEWEST:
            raise ValueError(f"data: got {len(self.real)} images to compare with, expected at least {2 * FEWEST}")


def _measure(plan: Plan, cell: Cell, images: _Images, progress: bool) -> dict[str, Any]:
    method = METHODS[cell.method]
    model = checkpoints.load(_trained(plan, cell, method, images, progress), _device())
    samples = _samples(method, model, cell, plan)
    write_grid(plan.folder / "cells" / f"{cell.name}.png", samples[:SHOWN], model.encoding, columns=SHOWN)
    found = evaluate(samples, images.real, images.data, seed=cell.seed)
    return {"evaluation": found.to_dict(), "title": method.title, "minutes": model.card.get("minutes")}


def _trained(plan: Plan, cell: Cell, method: Method, images: _Images, progress: bool) -> Path:
    """The file of the model of a cell, trained now if it is not there."""
    # Methods that train alike share a model, under the name of the first of them.
    alike = [key for key, x in METHODS.items() if (x.change, x.objective) == (method.change, method.objective)]
    own = f"-{cell.budget}" if method.own_steps else ""
    folder = plan.folder / "models" / cell.data / f"{alike[0]}{own}" / f"seed-{cell.seed}"
    options = {**plan.training, "seed": cell.seed}
    recipe = method.recipe(plan.recipes[cell.data], cell.budget, folder, **options)
    model, finished, what = folder / checkpoints.MODEL_FILE, folder / "finished", repr(recipe)
    if not (finished.is_file() and model.is_file()):
        train(prepare(recipe, (images.data, images.validation)), progress)
        write_atomically(finished, what.encode())
    elif finished.read_text(encoding="utf8") != what:
        raise ValueError(f"folder: got a model of another training in {folder}, expected {what}; try another folder")
    return model


def _samples(method: Method, model: Model, cell: Cell, plan: Plan) -> Tensor:
    first = plan.images * cell.seed  # no two trainings share starting noise
    seeds, options = range(first, first + plan.images), method.sampling(model, cell.budget)
    with torch.autocast(_device(), torch.bfloat16, enabled=plan.training.get("precision") == "bf16"):
        return model.sample(plan.images, seeds=seeds, chunk=plan.chunk, **options).cpu()


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
