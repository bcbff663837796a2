"""The table of the paper, run again: methods by budgets, data sets and seeds; every number is kept as it is found.

A folder holds all there is: models in ``models/DATA/METHOD/seed-K``, one JSON file for each cell of the table in
``cells``, and the table itself.  What is there is not computed again, so that a run can be stopped at any time.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from kodm_lite import checkpoints
from kodm_lite.baselines import METHODS, Method
from kodm_lite.files import write_atomically
from kodm_lite.generation import draw_in_chunks
from kodm_lite.metrics import evaluate
from kodm_lite.recipes import ImageRecipe, prepare, train

__all__ = ["PUBLISHED", "Cell", "Plan", "figure", "run", "summary", "table"]

FEWEST = 20  # images of a set that can be measured
COMPARED = 4096  # training images among which copies are looked for

#: FID of the paper (arXiv 2509.15328, table 1), by data set, number of steps and method.
PUBLISHED = {
    "SOCOFing": {100: (104.92, 74.41, 67.49), 1000: (23.84, 20.64, 18.75)},
    "Brodatz": {100: (38.33, 20.26, 18.47), 1000: (20.37, 15.42, 14.19)},
    "Terrain": {100: (114.90, 101.65, 92.86), 1000: (33.79, 33.56, 30.62)},
    "CIFAR-10": {100: (38.04, 29.96, 28.17), 300: (25.76, 25.83, 24.86), 1000: (3.17, 11.58, 10.79)},
}
PUBLISHED_METHODS = ("SGM", "KODM global", "KODM local")


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
        if {key: result.get(key) for key in conditions} != json.loads(json.dumps(conditions)):
            raise ValueError(
                f"folder: got {path} with { ({key: result.get(key) for key in conditions}) }, expected {conditions}; "
                "try another folder"
            )
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
    needed = max(METHODS[name].evaluations for name in plan.methods)
    if min(plan.budgets, default=0) < needed:
        raise ValueError(f"budgets: got {plan.budgets}, expected numbers from {needed}, for one step of every method")


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
    """Images to learn from, to compare with (twice as many as samples, where there are), and to look for copies in."""

    def __init__(self, recipe: ImageRecipe, images: int):
        self.data, self.validation = recipe.data()
        self.real, self.seen = recipe.images("test", 2 * images), recipe.images("train", COMPARED)
        if len(self.real) < 2 * FEWEST:
            raise ValueError(f"data: got {len(self.real)} images to compare with, expected at least {2 * FEWEST}")


def _measure(plan: Plan, cell: Cell, images: _Images, progress: bool) -> dict[str, Any]:
    method = METHODS[cell.method]
    model = checkpoints.load(_trained(plan, cell, method, images, progress), _device())
    samples = _samples(method, model, cell, plan)
    found = evaluate(samples, images.real, images.seen, seed=cell.seed)
    return {"evaluation": found.to_dict(), "title": method.title, "minutes": model.card.get("minutes")}


def _trained(plan: Plan, cell: Cell, method: Method, images: _Images, progress: bool) -> Path:
    """The file of the model of a cell, trained now if it is not there."""
    # Methods that train alike share a model, under the name of the first of them.
    alike = [key for key, x in METHODS.items() if (x.change, x.objective) == (method.change, method.objective)]
    own = f"-{cell.budget}" if method.own_steps else ""
    folder = plan.folder / "models" / cell.data / f"{alike[0]}{own}" / f"seed-{cell.seed}"
    options = {**plan.training, "seed": cell.seed}
    recipe = method.recipe(plan.recipes[cell.data], cell.budget, folder, **options)
    model, finished, what = folder / "model.safetensors", folder / "finished", repr(recipe)
    if not (finished.is_file() and model.is_file()):
        train(prepare(recipe, (images.data, images.validation)), progress)
        write_atomically(finished, what.encode())
    elif finished.read_text(encoding="utf8") != what:
        raise ValueError(f"folder: got a model of another training in {folder}, expected {what}; try another folder")
    return model


def _samples(method: Method, model: checkpoints.Model, cell: Cell, plan: Plan) -> Tensor:
    first = plan.images * cell.seed  # no two trainings share starting noise
    sampler = partial(method.sample, model, budget=cell.budget, device=_device())
    with torch.autocast(_device(), torch.bfloat16, enabled=plan.training.get("precision") == "bf16"):
        return torch.cat(list(draw_in_chunks(sampler, model.shape, range(first, first + plan.images), plan.chunk)))


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def summary(results: list[dict[str, Any]], metric: str = "Fréchet texture distance") -> list[dict[str, Any]]:
    """One line for each data set, method and budget: the mean over seeds, and its error.

    Args:
        results: of :func:`run`.
        metric: name of a row of :func:`kodm_lite.metrics.evaluate.evaluate`.

    Returns:
        Dicts with data, method, title, budget, value, error, floor, seeds and images.  The error is that of the mean
        over seeds, or with one seed the error of its value.
    """
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["data"], result["method"], result["budget"]), []).append(result)
    lines = []
    for (data, method, budget), group in groups.items():
        rows = [next(row for row in x["evaluation"]["rows"] if row["metric"] == metric) for x in group]
        values = [row["value"] for row in rows]
        several = len(values) > 1
        lines.append(
            {
                "data": data,
                "method": method,
                "title": group[0]["title"],
                "budget": budget,
                "value": statistics.fmean(values),
                "error": statistics.stdev(values) / math.sqrt(len(values)) if several else rows[0]["error"],
                "floor": statistics.fmean(row["floor"] for row in rows),
                "seeds": len(values),
                "images": group[0]["evaluation"]["images"],
            }
        )
    return lines


def table(lines: list[dict[str, Any]]) -> str:
    """The lines of :func:`summary` as text: a block for each data set, a line for each method, a column a budget."""
    blocks = []
    for data in dict.fromkeys(line["data"] for line in lines):
        own = [line for line in lines if line["data"] == data]
        budgets = sorted({line["budget"] for line in own})
        floor = statistics.fmean(line["floor"] for line in own)
        head = f"{data} (floor {floor:.2f}, {own[0]['images']} images)"
        rows = [[head, *(f"{budget} evaluations" for budget in budgets)]]
        for title in dict.fromkeys(line["title"] for line in own):
            of_title = (line for line in own if line["title"] == title)
            cells = {line["budget"]: f"{line['value']:.2f} ± {line['error']:.2f}" for line in of_title}
            rows.append([title, *(cells.get(budget, "") for budget in budgets)])
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        blocks.append(
            "\n".join(
                "  ".join([row[0].ljust(widths[0]), *(x.rjust(w) for x, w in zip(row[1:], widths[1:], strict=True))])
                for row in rows
            )
        )
    return "\n\n".join(blocks)


def figure(lines: list[dict[str, Any]]) -> Any:
    """A matplotlib figure of the lines of :func:`summary`: distance against budget, an axis for each data set."""
    import matplotlib.pyplot as plt  # here, because it takes a second

    names = list(dict.fromkeys(line["data"] for line in lines))
    made, axes = plt.subplots(1, len(names), figsize=(3.2 * len(names), 3.0), squeeze=False, layout="constrained")
    for ax, data in zip(axes[0], names, strict=True):
        own = [line for line in lines if line["data"] == data]
        for title in dict.fromkeys(line["title"] for line in own):
            points = sorted((x for x in own if x["title"] == title), key=lambda x: x["budget"])
            columns = [[point[key] for point in points] for key in ("budget", "value", "error")]
            ax.errorbar(columns[0], columns[1], yerr=columns[2], marker="o", markersize=4, capsize=2, label=title)
        ax.axhline(statistics.fmean(line["floor"] for line in own), color="0.5", linestyle=":", label="floor")
        ax.set(title=data, xlabel="network evaluations", xscale="log", yscale="log")
    axes[0, 0].set_ylabel("Fréchet texture distance")
    made.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    return made
