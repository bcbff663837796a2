"""What every training is made of, and how it runs."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from kodm_lite import checkpoints
from kodm_lite.data import PhaseData
from kodm_lite.files import place
from kodm_lite.kinds import Process
from kodm_lite.losses import Objective
from kodm_lite.training import TrainingOptions, fit

__all__ = ["Prepared", "Recipe", "prepare", "train"]


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """What all trainings have in common.

    Args:
        out: folder for the model, the state, the log and pictures; by default runs/ and a name.
        resume: go on from the state in the folder if there is one; otherwise replace what is there.
        training: how the weights are found.
    """

    out: Path | None = None
    resume: bool = True
    training: TrainingOptions = field(default_factory=TrainingOptions)

    @property
    @abstractmethod
    def name(self) -> str:
        """What the folder is called by default."""

    @property
    def folder(self) -> Path:
        """Where the model, the state, the log and the pictures of the training lie."""
        return place(self.out or Path("runs") / self.name)

    @property
    def objective(self) -> Objective | None:
        """What is minimised; None for what the process and the options say."""
        return None

    @abstractmethod
    def check(self) -> None:
        """Refuse options that do not fit together, before data are read, which may take minutes.

        Raises:
            ValueError: says which.
        """

    @abstractmethod
    def data(self) -> tuple[PhaseData, PhaseData | None]:
        """What to learn from, and what to measure on."""

    @abstractmethod
    def build(self, data: PhaseData) -> tuple[nn.Module, Process]:
        """A network to start from, whose random numbers are torch's global ones, and the process."""

    def facts(self, data: PhaseData) -> dict[str, Any]:
        """What the card of the model tells of its recipe."""
        own = {"name": self.folder.name, "start": "random weights"}
        return {**own, "seed": self.training.seed, "cores": os.cpu_count()}


class Prepared(NamedTuple):
    """A training that can begin: everything in it fits together.

    Args:
        recipe: where it comes from.
        network: where to start, with weights from the recipe's seed.
        process: its forward process.
        data: what to learn from.
        validation: what to measure on, or None.
    """

    recipe: Recipe
    network: nn.Module
    process: Process
    data: PhaseData
    validation: PhaseData | None

    @property
    def model_file(self) -> Path:
        return self.recipe.folder / checkpoints.MODEL_FILE


def prepare(recipe: Recipe, given: tuple[PhaseData, PhaseData | None] | None = None) -> Prepared:
    """Read or make the data of a recipe, and make a network for them.

    Args:
        recipe: what to prepare.
        given: its data, if they are there already.

    Raises:
        ValueError: options or images that do not fit together.
    """
    recipe.check()
    data, validation = given or recipe.data()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        network, process = recipe.build(data)
    return Prepared(recipe, network, process, data, validation)


def train(prepared: Prepared, progress: bool = True) -> None:
    """Train, or go on where a training was left.

    Args:
        prepared: by :func:`prepare`.
        progress: show a progress bar, or lines where there is no terminal.

    Raises:
        ValueError: options that do not fit what is in the folder; before any work.
        TrainingInterrupted: after Ctrl-C, with everything saved.
        FloatingPointError, OSError: see :func:`kodm_lite.training.fit`.
    """
    recipe, network, process, data, validation = prepared
    keep: dict[str, Any] = {"out": recipe.folder, "resume": recipe.resume, "facts": recipe.facts(data)}
    how: dict[str, Any] = {"objective": recipe.objective, "validation": validation, "progress": progress}
    fit(network, process, data, recipe.training, **how, **keep)
