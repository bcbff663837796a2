"""What several commands need: options, the usual device, files that can be written, and the words of the command."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Annotated

import torch
import tyro

from kodm_lite.builtin import KURAMOTO, VARIANCE_PRESERVING
from kodm_lite.files import place

__all__ = [
    "Class",
    "Method",
    "Model",
    "OptionalModel",
    "as_options",
    "require_new",
    "require_writable",
    "usual_device",
    "with_home",
]

_METHODS = dict.fromkeys((*KURAMOTO.samplers, *VARIANCE_PRESERVING.samplers))  # each once

Model = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="MODEL")]]
OptionalModel = tyro.conf.Positional[Annotated[str | None, tyro.conf.arg(metavar="MODEL")]]
Method = Annotated[str, tyro.conf.arg(metavar="{" + ",".join(_METHODS) + "}")]
Class = Annotated[str | None, tyro.conf.arg(name="class")]


def usual_device(name: str | None) -> str:
    """The device asked for, or the GPU if there is one."""
    return name or ("cuda" if torch.cuda.is_available() else "cpu")


def require_writable(path: Path) -> None:
    """Make the folder of a file and write into it, so that what is impossible fails before the work and not after.

    Raises:
        OSError: names the folder.
    """
    path = place(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(error.errno, f"{path.parent} cannot be written ({error.strerror}); try another folder") from error


def require_new(name: str, path: Path, overwrite: bool) -> None:
    """Refuse to replace what is there, but for an empty folder, unless that is asked for.

    Raises:
        ValueError: names the option.
    """
    is_empty_folder = path.is_dir() and not any(path.iterdir())
    if path.exists() and not is_empty_folder and not overwrite:
        raise ValueError(f"{name}: got {path}, which exists, expected a new name; try --overwrite")


def as_options(message: str) -> str:
    """The advice of the library, "try size=8 or resume=False", as options: "try --size 8 or --no-resume"."""

    def option(match: re.Match[str]) -> str:
        before, name, value = match[1], match[2].replace("_", "-"), match[3]
        return f"{before} " + {"True": f"--{name}", "False": f"--no-{name}"}.get(value, f"--{name} {value}")

    return re.sub(r"\b(try|or) (\w+)=(True|False|\d[\d.e-]*)", option, message)


def with_home(word: str) -> str:
    """A word of the command line with "~" written out, also in "--out=~/a.png", where a shell leaves it."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{os.path.expanduser(value)}"
