"""kodm-lite sample"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor
from tqdm.auto import tqdm

import kodm_lite as kodm
from kodm_lite import checkpoints
from kodm_lite.cli.common import Class, Method, Model, require_new, require_writable, usual_device
from kodm_lite.encoding import Numbers
from kodm_lite.files import write_atomically
from kodm_lite.pictures import files as pictures
from kodm_lite.samplers import step_of
from kodm_lite.validation import check_count

__all__ = ["Sample"]

FILM_IMAGES, FILM_PIXELS = 4, 2**17  # in one frame
FILM_FRAMES = 50
_ARRAYS = (".npy", ".npz")


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
        out: NAME.png: one picture of all images, magnified if it is small; NAME.npy: their phases (float32, radians)
            or, of a model on the sphere, coefficients; NAME.npz: the same with seeds and header (JSON); a name without
            ending: a folder with 00000.png and so on.
        trajectory: also write NAME.gif, which shows how the first images come about.
        chunk: images at once; fewer need less memory, and round in other places.
        class_: draw images of this class only, by its name or number.
        guidance: how much to insist on the class; 1 asks for it, 2 is a usual exaggeration.
        device: cpu, cuda, cuda:1 and so on; by default the GPU if there is one, but none of Apple.
        overwrite: replace files that exist, which otherwise is refused; others in a folder stay.
    """

    model: Model
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 16
    steps: int = 50
    method: Method = "ode"
    seed: int = 0
    out: Path = Path("samples.png")
    trajectory: Path | None = None
    chunk: int = 256
    class_: Class = None
    guidance: float = 1.0
    device: str | None = None
    overwrite: bool = False

    def run(self) -> None:
        self._check()
        model = checkpoints.load(self.model, usual_device(self.device))
        spherical = isinstance(model.encoding, Numbers)
        if spherical:
            self._check_sphere()
        elif self.out.suffix not in _ARRAYS or self.trajectory:
            pictures.check_drawable(model.shape)
        if model.calibration is None and getattr(step_of(model.process, self.method), "needs_calibration", False):
            raise ValueError(f"method: got {self.method}, expected another for a model without calibration; try ode")
        label = None if self.class_ is None else model.label_of(self.class_)
        if label is None and self.guidance != 1:
            raise ValueError(f"guidance: got {self.guidance} without a class to insist on, expected one; try --class")
        require_writable(self.out if self.out.suffix else self.out / "00000.png")
        if self.trajectory:
            require_writable(self.trajectory)
        film: list[Tensor] = []
        chunks = self._chunks(model, label, film)
        if self.out.suffix == ".png" and spherical:
            from kodm_lite.sphere.maps import write_maps  # here, because it takes a second

            write_maps(self.out, torch.cat(list(chunks)))
        elif self.out.suffix == ".png":
            pictures.write_grid(self.out, torch.cat(list(chunks)), model.encoding)
        elif self.out.suffix in _ARRAYS:
            write_atomically(self.out, self._arrays(torch.cat(list(chunks)).float().numpy(), model))
        else:
            for k, theta in enumerate(image for chunk in chunks for image in chunk):
                pictures.write_image(self.out / f"{k:05d}.png", theta, model.encoding)
        print(f"Wrote {self.out}")
        if self.trajectory:
            pictures.write_film(self.trajectory, film, model.encoding)
            print(f"Wrote {self.trajectory}")

    def _check_sphere(self) -> None:
        if not self.out.suffix or self.trajectory or self.class_ is not None:
            expected = "--out NAME.png for maps or NAME.npz for coefficients and no trajectory or class"
            raise ValueError(f"model: got one of fields on the sphere, expected {expected}; try --out maps.png")

    def _check(self) -> None:
        for option, number in {"n": self.n, "steps": self.steps, "chunk": self.chunk}.items():
            check_count(option, number)
        if not 0 <= self.seed <= 2**63 - self.n:
            raise ValueError(f"seed: got {self.seed}, expected 0 to 2^63 - n; try 0")
        if self.out.suffix not in ("", ".png", *_ARRAYS):
            expected = f"NAME.png, NAME.npy, NAME.npz or a folder; try {self.out.stem}.png"
            raise ValueError(f"out: got {self.out}, expected {expected}")
        if self.trajectory and self.trajectory.suffix != ".gif":
            raise ValueError(f"trajectory: got {self.trajectory}, expected NAME.gif; try {self.trajectory.stem}.gif")
        for name, path in {"out": self.out, "trajectory": self.trajectory}.items():
            if path is None:
                continue
            if path.exists() and path.is_dir() == bool(path.suffix):
                got, expected = ("folder", "file") if path.suffix else ("file", "folder")
                raise ValueError(f"{name}: got the {got} {path}, expected a {expected}; try another name")
            require_new(name, path, self.overwrite)

    def _chunks(self, model: kodm.Model, label: int | Tensor | None, film: list[Tensor]) -> Iterator[Tensor]:
        """All images (chunk, ...) on the CPU, and the states of the first ones on the way into ``film``."""
        starts = range(self.seed, self.seed + self.n, self.chunk)
        filmed = max(1, min(FILM_IMAGES, FILM_PIXELS // math.prod(model.shape[-2:])))
        every, states = max(1, self.steps // FILM_FRAMES), count()
        with tqdm(total=len(starts) * (self.steps + 1), unit="step", disable=None) as bar:

            def note(t: float, theta: Tensor) -> None:
                k = next(states)
                if self.trajectory and k <= self.steps and (k % every == 0 or k == self.steps):
                    film.append(theta[:filmed].cpu())
                bar.update()

            options: dict[str, Any] = {"steps": self.steps, "method": self.method, "callback": note, "label": label}
            for first in starts:
                seeds = range(first, min(first + self.chunk, starts.stop))
                yield model.sample(len(seeds), seeds=seeds, chunk=None, guidance=self.guidance, **options).cpu()

    def _arrays(self, theta: np.ndarray, model: kodm.Model) -> bytes:
        buffer = io.BytesIO()
        if self.out.suffix == ".npy":
            np.save(buffer, theta)
            return buffer.getvalue()
        path = checkpoints.find(self.model)
        stored = checkpoints.read_header(path)
        header = {key: stored[key] for key in ("network", "process", "shape", "encoding", "weights_sha256", "card")}
        header |= {"model": path.name, "method": self.method, "steps": self.steps}
        header |= {"class": self.class_, "guidance": self.guidance}
        seeds = np.arange(self.seed, self.seed + self.n, dtype=np.int64)
        name = "coefficients" if isinstance(model.encoding, Numbers) else "phases"
        arrays: dict[str, Any] = {name: theta, "seeds": seeds, "header": np.array(json.dumps(header))}
        np.savez(buffer, **arrays)
        return buffer.getvalue()
