"""The command ``kodm-lite``: train a model, draw samples, look into a model's file.

Each command is a dataclass, and each of its fields an option; the texts under ``Args`` are the help.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor
from tqdm.auto import tqdm

from kodm_lite import checkpoints, pictures
from kodm_lite.euclidean import Method as EuclideanMethod
from kodm_lite.files import write_atomically
from kodm_lite.generation import draw
from kodm_lite.networks import describe
from kodm_lite.process import KuramotoProcess
from kodm_lite.recipes import (
    CifarRecipe,
    DigitsRecipe,
    FingerprintRecipe,
    FolderRecipe,
    SphereRecipe,
    TerrainRecipe,
    TextureRecipe,
    prepare,
    train,
)
from kodm_lite.samplers import Method
from kodm_lite.sphere.network import SphericalNet
from kodm_lite.training import TrainingInterrupted

__all__ = ["Info", "Program", "Sample", "Train", "main"]

DESCRIPTION = """Diffusion models on angles: train them, draw samples, look into them.

Examples:
  kodm-lite train textures-32
      Train on photographs of brick, grass and gravel. Ctrl-C stops,
      the same command goes on. Then it says how to draw samples.
  kodm-lite train folder my-photos --size 32 --channels 3
      Train on your own images.
  kodm-lite sample runs/textures-32 -n 16 --out grid.png
      Draw 16 images with the model of the first example.

What a command can do: kodm-lite train textures-32 --help, kodm-lite sample --help."""

FILM_IMAGES, FILM_PIXELS = 4, 2**17  # in one frame
FILM_FRAMES = 50
SHOWN = 300  # characters of one entry of a header

Model = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="MODEL")]]
OptionalModel = tyro.conf.Positional[Annotated[str | None, tyro.conf.arg(metavar="MODEL")]]
Class = Annotated[str | None, tyro.conf.arg(name="class")]
Recipes = (
    Annotated[
        TextureRecipe,
        tyro.conf.subcommand("textures-32", description="Brick, grass and gravel; every pixel feels the whole image."),
    ]
    | Annotated[
        TextureRecipe,
        tyro.conf.subcommand(
            "textures-32-local",
            default=TextureRecipe(radius=4, out=Path("runs/textures-32-local")),
            description="The same; every pixel feels the 9 x 9 box around it.",
        ),
    ]
    | Annotated[
        FingerprintRecipe,
        tyro.conf.subcommand("fingerprints", description="Arches, loops and whorls, with classes; made, not read."),
    ]
    | Annotated[
        FingerprintRecipe,
        tyro.conf.subcommand(
            "orientations",
            default=FingerprintRecipe(kind="orientation", size=32, network="small"),
            description="The double angles of fingerprints' ridges; made, not read.",
        ),
    ]
    | Annotated[
        DigitsRecipe, tyro.conf.subcommand("digits-16", description="Handwritten digits, with their classes.")
    ]
    | Annotated[
        TerrainRecipe, tyro.conf.subcommand("terrain-32", description="Directions in which a landscape falls.")
    ]
    | Annotated[
        CifarRecipe, tyro.conf.subcommand("cifar10", description="Small photographs of ten things, if you have them.")
    ]
    | Annotated[
        SphereRecipe,
        tyro.conf.subcommand("sphere-16", description="Skewed random fields on the sphere; made, not read."),
    ]
    | Annotated[FolderRecipe, tyro.conf.subcommand("folder", description="Your own images.")]
)


@dataclass(frozen=True)
class Train:
    """Train a model, or go on with a training that was stopped.

    All options: kodm-lite train textures-32 --help.

    The folder --out gets the model, the state to go on from, and log.jsonl.

    textures-32 is measured on other crops of the photographs it learns from.
    """

    recipe: Recipes

    def run(self) -> None:
        prepared = prepare(self.recipe)
        speaks = os.environ.get("RANK", "0") == "0"  # of the processes of torchrun the first one
        if speaks:
            weights, shape = sum(x.numel() for x in prepared.network.parameters()), prepared.data.theta.shape[1:]
            print(f"Training {weights:,} weights on {len(prepared.data)} images {' x '.join(map(str, shape))}")
            print(f"in {self.recipe.folder}; Ctrl-C stops, the same command goes on.", flush=True)
        train(prepared, progress=sys.stderr.isatty())
        if speaks:
            print(f"The model is {prepared.model_file}")
            print(f"Samples: kodm-lite sample {shlex.quote(str(self.recipe.folder))} -n 16 --out samples.png")


@dataclass(frozen=True)
class Sample:
    """Draw samples of a model.

    Image k of a model depends on the seed + k, not on -n and not on --chunk.

    Args:
        model: a model's file, the folder of a training, or the name of a shipped model (see kodm-lite info).
        n: number of images.
        steps: of the sampler; fewer are faster, more are better.
        method: of sampling; ode is the probability flow; ancestral and hybrid, which add noise, need a calibrated
            model, as a finished training leaves it; of a Euclidean model: ode, sde or ancestral.
        seed: of the first image; the next one has the next seed.
        out: NAME.png: one picture of all images; NAME.npz: arrays phases (float32, radians) or, of a model on the
            sphere, coefficients, and seeds and header (JSON); a name without ending: a folder with 00000.png and so on.
        trajectory: also write NAME.gif, which shows how the first images come about.
        chunk: images at once; fewer need less memory, and round in other places.
        class_: draw images of this class only, by its name or number.
        guidance: how much to insist on the class; 1 asks for it, 2 is a usual exaggeration.
        device: cpu, cuda, cuda:1 and so on; by default the GPU if there is one.
        overwrite: replace files that exist, which otherwise is refused; others in a folder stay.
    """

    model: Model
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 16
    steps: int = 50
    method: Method | EuclideanMethod = "ode"
    seed: int = 0
    out: Path = Path("samples.png")
    trajectory: Path | None = None
    chunk: int = 256
    class_: Class = None
    guidance: float = 1.0
    device: str | None = None
    overwrite: bool = False

    def run(self) -> None:
        path = _model_file(self.model)
        self._check()
        model = checkpoints.load(path, self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        spherical = isinstance(model.network, SphericalNet)
        if spherical:
            self._check_sphere()
        elif self._is_drawn or self.trajectory:
            pictures.check_drawable(model.shape)
        needs = isinstance(model.process, KuramotoProcess) and self.method in ("ancestral", "hybrid")
        if needs and model.calibration is None:
            raise ValueError(f"method: got {self.method}, expected another for a model without calibration; try ode")
        label = None if self.class_ is None else _label(self.class_, model)
        for file in filter(None, (self._probe, self.trajectory)):
            _require_writable(file)
        film: list[Tensor] = []
        chunks = self._chunks(model, label, film)
        if self.out.suffix == ".png" and spherical:
            from kodm_lite.sphere.maps import write_maps  # here, because it takes a second

            write_maps(self.out, torch.cat(list(chunks)))
        elif self.out.suffix == ".png":
            pictures.write_grid(self.out, torch.cat(list(chunks)), model.scale)
        elif self.out.suffix == ".npz":
            write_atomically(self.out, self._archive(torch.cat(list(chunks)), model, path))
        else:
            for k, theta in enumerate(image for chunk in chunks for image in chunk):
                pictures.write_image(self.out / f"{k:05d}.png", theta, model.scale)
        print(f"Wrote {self.out}")
        if self.trajectory:
            pictures.write_film(self.trajectory, film, model.scale)
            print(f"Wrote {self.trajectory}")

    def _check_sphere(self) -> None:
        if self.out.suffix not in (".png", ".npz") or self.trajectory or self.class_ is not None:
            raise ValueError(
                "model: got one of fields on the sphere, expected --out NAME.png for maps or NAME.npz for coefficients "
                "and no trajectory or class; try --out maps.png"
            )

    @property
    def _is_drawn(self) -> bool:
        return self.out.suffix != ".npz"

    @property
    def _probe(self) -> Path:
        """A file that will be written, or lies beside those that will be."""
        return self.out if self.out.suffix else self.out / "00000.png"

    def _check(self) -> None:
        for option, number in {"n": self.n, "steps": self.steps, "chunk": self.chunk}.items():
            if number < 1:
                raise ValueError(f"{option}: got {number}, expected at least 1; try leaving the option out")
        if not 0 <= self.seed <= 2**63 - self.n:
            raise ValueError(f"seed: got {self.seed}, expected 0 to 2^63 - n; try 0")
        if self.out.suffix not in ("", ".png", ".npz"):
            raise ValueError(f"out: got {self.out}, expected NAME.png, NAME.npz or a folder; try {self.out.stem}.png")
        if self.trajectory and self.trajectory.suffix != ".gif":
            raise ValueError(f"trajectory: got {self.trajectory}, expected NAME.gif; try {self.trajectory.stem}.gif")
        for name, path in {"out": self.out, "trajectory": self.trajectory}.items():
            if path is None:
                continue
            if path.exists() and path.is_dir() == bool(path.suffix):
                got, expected = ("folder", "file") if path.suffix else ("file", "folder")
                raise ValueError(f"{name}: got the {got} {path}, expected a {expected}; try another name")
            if not self.overwrite and path.exists() and not _is_empty_folder(path):
                raise ValueError(f"{name}: got {path}, which exists, expected a new name; try --overwrite")

    def _chunks(self, model: checkpoints.Model, label: int | None, film: list[Tensor]) -> Iterator[Tensor]:
        """All images (chunk, ...) on the CPU, and the states of the first ones on the way into ``film``."""
        device = next(model.network.parameters()).device
        starts = range(0, self.n, self.chunk)
        filmed = max(1, min(FILM_IMAGES, FILM_PIXELS // math.prod(model.shape[-2:])))
        every, states = max(1, self.steps // FILM_FRAMES), count()
        with tqdm(total=len(starts) * (self.steps + 1), unit="step", disable=None) as bar:

            def note(t: float, theta: Tensor) -> None:
                k = next(states)
                if self.trajectory and k <= self.steps and (k % every == 0 or k == self.steps):
                    film.append(theta[:filmed].cpu())
                bar.update()

            for start in starts:
                size = min(self.chunk, self.n - start)
                yield draw(
                    model.network,
                    model.process,
                    (size, *model.shape),
                    scale=model.scale,
                    calibration=model.calibration,
                    label=label,
                    guidance=self.guidance,
                    steps=self.steps,
                    method=self.method,
                    seeds=range(self.seed + start, self.seed + start + size),
                    device=device,
                    callback=note,
                ).cpu()

    def _archive(self, theta: Tensor, model: checkpoints.Model, path: Path) -> bytes:
        stored = checkpoints.read_header(path)
        header = {key: stored[key] for key in ("network", "process", "shape", "scale", "weights_sha256", "card")}
        header |= {"model": path.name, "method": self.method, "steps": self.steps}
        header |= {"class": self.class_, "guidance": self.guidance}
        buffer = io.BytesIO()
        seeds = np.arange(self.seed, self.seed + self.n, dtype=np.int64)
        name = "coefficients" if isinstance(model.network, SphericalNet) else "phases"
        arrays: dict[str, Any] = {name: theta.float().numpy(), "seeds": seeds, "header": np.array(json.dumps(header))}
        np.savez(buffer, **arrays)
        return buffer.getvalue()


@dataclass(frozen=True)
class Info:
    """What a model is and how it was made, or without a model: which ones are shipped.

    Args:
        model: a model's file, the folder of a training, or the name of a shipped model.
    """

    model: OptionalModel = None

    def run(self) -> None:
        if self.model is None:
            names = checkpoints.pretrained_names()
            print("shipped models:", ", ".join(names) if names else "none; kodm-lite train makes one")
            return
        path = _model_file(self.model)
        header = checkpoints.read_header(path)
        card = header.pop("card")
        header["calibration"] = header["calibration"] is not None  # of its numbers nothing is to be seen
        print(f"{'file':<18}{path}, {path.stat().st_size / 1e6:.3g} MB")
        _print_entries({**header, **{f"card.{key}": value for key, value in card.items()}})


@dataclass(frozen=True)
class Program:
    """All commands.

    Args:
        command: what to do.
    """

    command: (
        Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Sample, tyro.conf.subcommand("sample")]
        | Annotated[Info, tyro.conf.subcommand("info")]
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
    markers = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.DisallowNone)
    try:
        try:
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
    except (ValueError, FloatingPointError, MemoryError) as error:
        return _fail(str(error) or type(error).__name__)
    return 0


def _fail(message: str) -> int:
    """Say what is wrong, with the advice "try resume=False" of the library as an option of the command."""

    def option(match: re.Match[str]) -> str:
        before, name, value = match.groups()
        name = name.replace("_", "-")
        return f"{before} " + {"True": f"--{name}", "False": f"--no-{name}"}.get(value, f"--{name} {value}")

    message = re.sub(r"\b(try|or) (\w+)=(True|False|\d[\d.e-]*)", option, message)
    print(f"kodm-lite: {message}", file=sys.stderr)
    return 1


def _model_file(name: str) -> Path:
    path = checkpoints.find(name)
    return path / "model.safetensors" if path.is_dir() else path


def _label(name: str, model: checkpoints.Model) -> int:
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


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _require_writable(path: Path) -> None:
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


def _print_entries(entries: dict[str, Any]) -> None:
    """Print what a file says of itself; it may come from anywhere, so no text in it reaches the terminal unescaped."""
    for key, value in entries.items():
        text = repr(value)
        more = f" ... ({len(text)} characters)" if len(text) > SHOWN else ""
        shown_key = key if key.isprintable() else repr(key)
        print(f"{shown_key[:SHOWN]:<17} {text[:SHOWN]}{more}")
