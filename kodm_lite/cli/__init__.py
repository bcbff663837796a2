"""The command ``kodm-lite``: train a model, draw samples, measure them, look into a model's file.

Each command is a dataclass, and each of its fields an option; the texts under ``Args`` are the help.
"""

from __future__ import annotations

import difflib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Union

import torch
import tyro

from kodm_lite import __version__
from kodm_lite.cli.common import as_options, with_home
from kodm_lite.cli.data_sets import Data
from kodm_lite.cli.evaluation import Evaluate
from kodm_lite.cli.information import Info
from kodm_lite.cli.reproduce import Reproduce
from kodm_lite.cli.sampling import Sample
from kodm_lite.cli.training import TRAININGS, Train
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

What a command can do: kodm-lite train textures-32 --help, kodm-lite sample --help.
Which version this is: kodm-lite --version.
Completion of words: kodm-lite --tyro-write-completion bash FILE, or zsh, tcsh;
then source FILE.

GPUs are used through CUDA or ROCm; those of Apple are not."""

COMMANDS = {"train": Train, "sample": Sample, "evaluate": Evaluate, "info": Info, "data": Data, "reproduce": Reproduce}
if TYPE_CHECKING:
    Commands = Train | Sample | Evaluate | Info | Data | Reproduce
else:
    Commands = Union[*(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in COMMANDS.items())]


@dataclass(frozen=True)
class Program:
    """All commands.

    Args:
        command: what to do.
    """

    command: Commands


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
    words = [with_home(word) for word in (sys.argv[1:] if args is None else args)]
    try:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _note
                _run(words)
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


def _run(words: Sequence[str]) -> None:
    if words == ["--version"]:
        print(f"kodm-lite {__version__}")
        return
    markers = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.DisallowNone)
    try:
        program = tyro.cli(Program, prog="kodm-lite", description=DESCRIPTION, args=words, config=markers)
    except SystemExit as left:
        if left.code == 2:
            print(f"kodm-lite: {_advice(words)}", file=sys.stderr)
        raise
    program.command.run()


def _advice(words: Sequence[str]) -> str:
    """What helps after words that cannot be understood: the command that was meant, or the help of the one at hand."""
    right, known = ["kodm-lite"], list(COMMANDS)
    for word in words:
        meant = difflib.get_close_matches(word, known, 1)
        if not meant:
            break
        if meant != [word]:
            return f"did you mean {' '.join([*right, *meant])}?"
        right.append(word)
        known = list(TRAININGS) if right[1:] == ["train"] else []
    return f"see {' '.join(right)} --help"


def _note(message: Warning | str, *_: object, **__: object) -> None:
    """Say what there is a warning of, without the line of code that comes with it in Python."""
    print(f"kodm-lite: note: {message}", file=sys.stderr)


def _fail(message: str) -> int:
    print(f"kodm-lite: {as_options(message)}", file=sys.stderr)
    return 1
