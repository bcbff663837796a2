"""What several commands need: models by name, classes by name, files that can be written."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, get_args

import tyro

from kodm_lite import checkpoints, euclidean, samplers
from kodm_lite.networks import describe

__all__ = ["Class", "Method", "Model", "OptionalModel", "label_of", "require_writable"]

_METHODS = dict.fromkeys(get_args(samplers.Method) + get_args(euclidean.Method))  # each once

Model = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="MODEL")]]
OptionalModel = tyro.conf.Positional[Annotated[str | None, tyro.conf.arg(metavar="MODEL")]]
Method = Annotated[samplers.Method | euclidean.Method, tyro.conf.arg(metavar="{" + ",".join(_METHODS) + "}")]
Class = Annotated[str | None, tyro.conf.arg(name="class")]


def label_of(name: str, model: checkpoints.Model) -> int:
    """The number of a class.

    Raises:
        ValueError: there is none of this name or number; lists those there are.
    """
    classes = describe(model.network)["classes"] or 0
    names = model.card.get("classes")
    known = names if isinstance(names, list) and len(names) == classes else []
    labels = {str(k): k for k in range(classes)} | {str(known_name): k for k, known_name in enumerate(known)}
    if name not in labels:
        expected = f"one of {known or list(range(classes))}" if classes else "none, as the model has no classes"
        raise ValueError(f"class: got {name!r}, expected {expected}; try kodm-lite info")
    return labels[name]


def require_writable(path: Path) -> None:
    """Make the folder of a file and write into it, so that what is impossible fails before the work and not after.

    Raises:
        OSError: names the folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(error.errno, f"{path.parent} cannot be written ({error.strerror}); try another folder") from error
