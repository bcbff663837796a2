"""What several commands need: options, the usual device, files that can be written."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import torch
import tyro

from kodm_lite.builtin import KURAMOTO, VARIANCE_PRESERVING
from kodm_lite.files import place

__all__ = ["Class", "Method", "Model", "OptionalModel", "require_writable", "usual_device"]

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
