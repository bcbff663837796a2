"""kodm-lite evaluate"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from tqdm.auto import tqdm

import kodm_lite as kodm
from kodm_lite import checkpoints
from kodm_lite.cli.common import Method, Model, require_new, require_writable, usual_device
from kodm_lite.data import PhaseData
from kodm_lite.encoding import PUBLISHED
from kodm_lite.files import write_atomically
from kodm_lite.metrics import evaluate, inception_distances
from kodm_lite.metrics.evaluate import images_in_each_set
from kodm_lite.metrics.inception import inception_network
from kodm_lite.recipes import recipe_of
from kodm_lite.validation import check_count

__all__ = ["Evaluate"]


@dataclass(frozen=True)
class Evaluate:
    """Measure samples of a model against real images.

    Every number comes with its error, and with its floor, what real images measure against other real images.

    Args:
        model: a model's file, the folder of a training, or the name of a shipped model.
        data: what to compare with: the name of a data set, see kodm-lite data, or a folder of images.
        n: number of samples; about as many real images are used, twice.
        steps: of the sampler.
        method: of sampling, see kodm-lite sample.
        seed: of the first sample.
        crops: of each image of a folder, as in the training; by default each is resized.
        inception: also measure the inception distances FID and KID of other papers, which are of little use below some
            thousand samples; needs pip install ".[fid]" in a clone.
        out: write the numbers to this file too, as JSON.
        chunk: samples at once; fewer need less memory.
        device: cpu, cuda, cuda:1 and so on; by default the GPU if there is one, but none of Apple.
        overwrite: replace a file that exists, which otherwise is refused.
    """

    model: Model
    data: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")]
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 512
    steps: int = 50
    method: Method = "ode"
    seed: int = 0
    crops: int | None = None
    inception: bool = False
    out: Path | None = None
    chunk: int = 256
    device: str | None = None
    overwrite: bool = False

    def run(self) -> None:
        self._check()
        model = checkpoints.load(self.model, usual_device(self.device))
        real, train = self._images(model)
        learned = model.card.get("data", real.source)
        if learned != real.source:  # other crops, another period: allowed, and seldom meant
            print(f"Note: the model has learned from {learned}; it is measured against {real.source}.")
        samples = self._samples(model)
        result = evaluate(samples, real, train, seed=self.seed)
        print(result.as_table())
        content = result.to_dict()
        if self.inception:
            found = inception_distances(samples, real.theta, "test", real.encoding, seed=self.seed)
            print(f"FID {found.fid:.3f}, KID {found.kid:.5f}: {found.generated} samples, {found.real} real images")
            content["inception"] = found._asdict()
        if self.out is not None:
            content["model"] = checkpoints.read_header(checkpoints.find(self.model))["weights_sha256"]
            content |= {"data": self.data, "steps": self.steps, "method": self.method}
            write_atomically(self.out, (json.dumps(content, indent=1) + "\n").encode())
            print(f"Wrote {self.out}")

    def _check(self) -> None:
        for option, number in {"n": self.n, "steps": self.steps, "chunk": self.chunk}.items():
            check_count(option, number)
        if self.out is not None:
            require_new("out", self.out, self.overwrite)
            require_writable(self.out)
        if self.inception:
            inception_network()  # what is missing is said before the samples are drawn

    def _images(self, model: kodm.Model) -> tuple[PhaseData, PhaseData]:
        """Real images to compare with, and all that were learned from, among which copies are looked for."""
        if len(model.shape) != 3:
            raise ValueError(f"model: got one of samples of shape {model.shape}, expected one of images (C, H, W)")
        if self.inception and model.encoding.cyclic:
            expected = "grey levels, as only they make bytes; try without"
            raise ValueError(f"inception: got a model of angles, expected {expected}")
        scale = getattr(model.encoding, "scale", PUBLISHED.scale)  # of a folder's images, which have grey values
        recipe = recipe_of(self.data, model.shape[-1], model.shape[0], self.crops, scale)
        real = recipe.images("test", 2 * self.n)
        shape = tuple(real.theta.shape[1:])
        if shape != tuple(model.shape):
            raise ValueError(f"data: got images of shape {shape}, expected {model.shape}, that of the samples")
        if real.encoding != model.encoding:
            expected = f"{model.encoding}, that of the model; try the data that it was trained on"
            raise ValueError(f"data: got images with {real.encoding}, expected {expected}")
        images_in_each_set(self.n, len(real))  # before samples are drawn
        return real, recipe.images("train")

    def _samples(self, model: kodm.Model) -> torch.Tensor:
        seeds = range(self.seed, self.seed + self.n)
        states = (self.steps + 1) * -(-self.n // self.chunk)
        with tqdm(total=states, unit="step", disable=None) as bar:
            options: dict[str, Any] = {"steps": self.steps, "method": self.method, "chunk": self.chunk}
            return model.sample(self.n, seeds=seeds, callback=lambda t, theta: bar.update(), **options).cpu()
