"""The command ``kodm-lite``: train a model, draw samples, measure them, look into a model's file.

Each command is a dataclass, and each of its fields an option; the texts under ``Args`` are the help.
"""

from __future__ import annotations

import io
import os
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import tyro

from kodm_lite.cli.data_sets import Data
from kodm_lite.cli.evaluation import Evaluate
from kodm_lite.cli.information import Info
from kodm_lite.cli.reproduce import Reproduce
from kodm_lite.cli.sampling import Sample
from kodm_lite.cli.training import Train
from kodm_lite.training import TrainingInterrupted

__all__ = ["Data", "Evaluate", "Info", "Program", "Reproduce", "Sample", "Train", "main"]

DESCRIPTION = """Diffusion models on angles: train them, draw samples, look into them.

Examples:
  kodm-lite train textures-32
      Train on photographs of brick, grass and gravel. Ctrl-C stops,
      the same command goes on. Then it says how to draw samples.
  kodm-lite train folder my-photos --size 32 --channels 3
      Train on your own images.
  kodm-lite sample runs/textures-32 -n 16 --out grid.png
      Draw 16 images with the model of the first example.
  kodm-lite evaluate runs/textures-32 --data textures-32
      Measure how far they are from real ones.

What a command can do: kodm-lite train textures-32 --help, kodm-lite sample --help."""


@dataclass(frozen=True)
class Program:
    """All commands.

    Args:
        command: what to do.
    """

    command: (
        Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Sample, tyro.conf.subcommand("sample")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Info, tyro.conf.subcommand("info")]
        | Annotated[Data, tyro.conf.subcommand("data")]
        | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
    )


def main(args: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        args: its words, by default those of the command line.

    Returns:
        The exit status: 0, 1 after an error, 130 after Ctrl-C, 141 if nobody reads the output any more.

    Raises:
        SystemExit: after a help text, with status 0, and after a command that cannot be understood, with status 2.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that it cannot show is no reason to fail
    markers = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.DisallowNone)
    try:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _note
                tyro.cli(Program, prog="kodm-lite", description=DESCRIPTION, args=args, config=markers).command.run()
        finally:
            sys.stdout.flush()  # here, where an error of it is caught
    except TrainingInterrupted as stopped:
        print(stopped, file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
        return 141
    except torch.cuda.OutOfMemoryError as error:
        return _fail(f"{error}; try a smaller --chunk, or to train with a smaller --batch-size")
    except OSError as error:
        return _fail(": ".join(str(part) for part in (error.filename, error.strerror or error) if part))
    except (ValueError, FloatingPointError, ImportError, MemoryError) as error:
        return _fail(str(error) or type(error).__name__)
    except RuntimeError as error:
        if "allocate memory" in str(error):
            return _fail("not enough memory; try a smaller --chunk, or to train with a smaller --batch-size")
        if type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
            return _fail(f"{str(error).splitlines()[0]}; try without --compile")
        raise
    return 0


def _note(message: Warning | str, *_: object, **__: object) -> None:
    """Say what there is a warning of, without the line of code that comes with it in Python."""
    print(f"kodm-lite: note: {message}", file=sys.stderr)


def _fail(message: str) -> int:
    """Say what is wrong, with the advice "try resume=False" of the library as an option of the command."""

    def option(match: re.Match[str]) -> str:
        before, name, value = match.groups()
        name = name.replace("_", "-")
        return f"{before} " + {"True": f"--{name}", "False": f"--no-{name}"}.get(value, f"--{name} {value}")

    message = re.sub(r"\b(try|or) (\w+)=(True|False|\d[\d.e-]*)", option, message)
    print(f"kodm-lite: {message}", file=sys.stderr)
    return 1
