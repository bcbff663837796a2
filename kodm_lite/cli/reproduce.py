"""kodm-lite reproduce"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

import tyro

from kodm_lite.data import instructions
from kodm_lite.files import place, write_atomically
from kodm_lite.recipes import ImageRecipe, PublishedRecipe, Sources, recipe_of
from kodm_lite.reproduce.methods import METHODS
from kodm_lite.reproduce.run import Plan, run
from kodm_lite.reproduce.table import PUBLISHED, PUBLISHED_METHODS, figure, gallery, summary, table
from kodm_lite.validation import check_count

__all__ = ["Reproduce"]


@dataclass(frozen=True)
class Reproduce:
    """Train all methods on the same images under one budget, and print a table like the paper's.

    Ctrl-C stops, the same command goes on; what is in the folder is not computed again. The table is that of the
    Fréchet texture distance; all other numbers are in the folder too.

    Args:
        data: names of data sets, see kodm-lite data, or folders of images.
        methods: rows of the table.
        budgets: columns: evaluations of the network for one sample.
        seeds: number of trainings of each method.
        train_steps: optimiser steps of each training.
        batch_size: images per optimiser step.
        images: samples to measure.
        out: folder for models, numbers, table and figure.
        brodatz: where this data set lies; without it, its rows are left out, and the output says how to get it.
        cifar10: the same.
        ground_terrain: the same.
        socofing: the same.
    """

    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME|FOLDER ...")] = (
        "textures-32",
        "fingerprints-32",
        "terrain-32",
        "digits-16",
    )
    methods: Annotated[tuple[str, ...], tyro.conf.arg(metavar="METHOD ...")] = tuple(METHODS)
    budgets: tuple[int, ...] = (25, 100)
    seeds: int = 1
    train_steps: int = 2000
    batch_size: int = 32
    images: int = 512
    out: Path = Path("runs/reproduction")
    brodatz: Path | None = None
    cifar10: Path | None = None
    ground_terrain: Path | None = None
    socofing: Path | None = None

    def run(self) -> None:
        check_count("seeds", self.seeds)
        recipes: dict[str, ImageRecipe] = {}
        for name_or_folder in self.data:
            name = Path(name_or_folder).name  # of a folder: not where it is
            if name in recipes:
                raise ValueError(f"data: got two data sets of the name {name}, expected other names")
            recipes[name] = recipe_of(name_or_folder, scale=0.9)  # of a folder as published
        paths = {source: getattr(self, source) for source in get_args(Sources)}
        given = {source: path for source, path in paths.items() if path is not None}
        recipes |= {source: PublishedRecipe(source=source, path=path) for source, path in given.items()}
        training = {"steps": self.train_steps, "batch_size": self.batch_size, "precision": "bf16"}
        seeds = tuple(range(self.seeds))
        plan = Plan(place(self.out), recipes, self.methods, self.budgets, seeds, training, self.images)
        results = run(plan, progress=sys.stderr.isatty())
        lines = summary(results)
        text = f"Fréchet texture distance, {self.train_steps} training steps\n\n{table(lines)}"
        write_atomically(self.out / "results.json", (json.dumps(results) + "\n").encode())
        write_atomically(self.out / "table.txt", f"{text}\n".encode())
        figure(lines).savefig(place(self.out) / "table.png", dpi=150)
        gallery(place(self.out), lines, min(self.budgets)).savefig(place(self.out) / "samples.png", dpi=150)
        print(text)
        print("\nThe paper's table is in another unit, the Fréchet inception distance (arXiv 2509.15328):")
        for title, rows in PUBLISHED.items():
            for steps, values in rows.items():
                found = ", ".join(f"{m} {x:g}" for m, x in zip(PUBLISHED_METHODS, values, strict=True))
                print(f"  {title}, {steps} steps: {found}")
        for absent in (source for source in paths if source not in given):
            print(f"\nNot run: {absent}. With --{absent.replace('_', '-')} PATH it is.\n{instructions(absent)}")
        print(f"\nWrote {self.out / 'results.json'}, table.txt, table.png and samples.png")
