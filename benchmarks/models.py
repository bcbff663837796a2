"""Measure trained models of textures: Frechet texture distance, class shares, image means, for samplers and budgets.

    python benchmarks/models.py kodm_lite/pretrained/textures-32.safetensors --write-card

prints a table, writes benchmarks/results/models-NAME.json, and with --write-card puts the numbers into the card,
from which the book takes them.  With --comparison the numbers go to a place of their own in both, for the comparison
of samplers, for which fewer images and several seeds will do:

    python benchmarks/models.py kodm_lite/pretrained/textures-32.safetensors --write-card --bf16 --comparison \
        --images 256 --seeds 3 --runs $(for k in 10 25 50; do echo {ode,hybrid,ancestral,adams,euler,pc}:$k; done)

On one CPU core a hundred evaluations of the network for 2048 images take eight minutes.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from kodm_lite import checkpoints, sample
from kodm_lite.calibration import calibrate_all
from kodm_lite.data import PhaseData, textures
from kodm_lite.metrics import (
    TextureFeatures,
    class_shares,
    frechet_texture_distance,
    image_means,
    kuiper_distance,
    nearest_distances,
)
from kodm_lite.recipes.data_sets import TEXTURE_CROPS

RESULTS = Path(__file__).parent / "results"
PLAN = ("ode:25", "ode:100", "ode:10", "hybrid:25", "euler:25")
LIMITS = "32 x 32 pixels, three photographs; rare crops of them, such as one bright blade of grass, are missing"


class Yardstick:
    """Real crops to compare with, and how far apart two sets of them are."""

    def __init__(self, size: int, images: int, scale: float):
        self.size, self.images, self.scale = size, images, scale
        self.data = self.crops(7)
        self.features = TextureFeatures(self.data.theta, self.data.encoding)

    def crops(self, seed: int) -> PhaseData:
        """Of the photographs that the models learned from, but none of the crops."""
        learned = (TEXTURE_CROPS, 1)
        return textures(self.size, "train", n=self.images, seed=seed, scale=self.scale, without=learned)

    def learned(self) -> torch.Tensor:
        return textures(self.size, "train", n=TEXTURE_CROPS, seed=1, scale=self.scale).theta[:4096]

    def test_region(self, n: int) -> torch.Tensor:
        return textures(self.size, "test", n=n, scale=self.scale).theta

    def measure(self, theta: torch.Tensor) -> dict[str, Any]:
        means = image_means(theta)
        return {
            "ftd": round(frechet_texture_distance(theta, self.data.theta, self.features), 3),
            "shares": [round(x, 4) for x in class_shares(theta, self.data, self.features).tolist()],
            "kuiper": round(kuiper_distance(means, image_means(self.data.theta)), 4),
            "mean": round(float(means.mean()), 4),
        }

    def floor(self, seeds: range) -> list[float]:
        others = (self.crops(1000 + seed).theta for seed in seeds)
        return [round(frechet_texture_distance(x, self.data.theta, self.features), 3) for x in others]


def measure(path: Path, args: argparse.Namespace, stick: Yardstick) -> dict[str, Any]:
    """All that is asked for of one model."""
    model = checkpoints.load(path)
    network, process = model.network, model.process
    calibration = model.calibration
    if calibration is None:  # a checkpoint on the way; the end of a training does the same
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            calibration = calibrate_all(network, process, stick.learned(), chunk=128)
    metrics: dict[str, Any] = {
        "images": args.images,
        "precision": "bf16" if args.bf16 else "float32",
        "damping": round(calibration.damping, 4),
        "floor": stick.floor(range(3)),
        "test_region": stick.measure(stick.test_region(args.images))["ftd"],
        "samplers": {},
    }
    known = model.card.get("metrics", {})
    if args.comparison:
        known = known.get("comparison", {})
    same = ("images", "precision", "damping")
    if all(known.get(name) == metrics[name] for name in same):  # measured before on the same model: kept
        metrics = {**known, **metrics, "samplers": known["samplers"]}
    print(
        f"{path}: damping {metrics['damping']}, floor {metrics['floor']}, test region {metrics['test_region']}",
        flush=True,
    )

    def run(name: str, method: str, steps: int, seed: int, **options: Any) -> dict[str, Any]:
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            theta = sample(
                network,
                process,
                (args.images, *model.shape),
                method=method,  # type: ignore[arg-type]
                steps=steps,
                generator=torch.Generator().manual_seed(seed),
                chunk=128,
                **{"calibration": calibration, **options},
            )
        result = {**stick.measure(theta), "seconds": round(time.perf_counter() - began, 1)}
        if name == args.runs[0] and not args.comparison:
            learned = stick.learned()
            metrics["nearest"] = {
                "samples": quantiles(nearest_distances(theta[:256], learned)),
                "test_region": quantiles(nearest_distances(stick.test_region(256), learned)),
            }
        print(f"{name:14s} seed {seed} {result}", flush=True)
        return result

    if calibration.damping and args.undamped and not args.comparison:
        method, steps = args.undamped.split(":")
        row = run("undamped", method, int(steps), 0, calibration=calibration.damped(0.0))
        metrics["undamped"] = {"run": args.undamped, **{key: [value] for key, value in row.items()}}
    for name in args.runs:
        method, steps = name.split(":")
        results = [run(name, method, int(steps), seed) for seed in range(args.seeds)]
        metrics["samplers"].setdefault(method, {})[steps] = {key: [r[key] for r in results] for key in results[0]}
    if args.true_start:
        method, steps = args.runs[0].split(":")
        start = process.simulate(stick.crops(8).theta, 1.0, method="heun")
        true = run("true start", method, int(steps), 0, start=start)
        metrics["true_start"] = {key: [value] for key, value in true.items()}
        metrics["true_start_steps"] = int(steps)
    if args.comparison:
        metrics = {**model.card.get("metrics", {}), "comparison": metrics}
    if args.write_card:
        card = {**model.card, "limits": LIMITS, "metrics": metrics}
        checkpoints.save(path, model._replace(card=card, calibration=calibration))
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--runs", nargs="+", default=PLAN, help="method:steps; the first one is the reference")
    parser.add_argument("--seeds", type=int, default=1, help="sampling seeds per run")
    parser.add_argument("--true-start", action="store_true", help="also start from simulated terminal states")
    parser.add_argument("--undamped", default="ode:25", help="a run without the model's damping, or nothing")
    parser.add_argument("--comparison", action="store_true", help="a comparison of samplers, beside the other numbers")
    parser.add_argument("--bf16", action="store_true", help="compute the network in 16 bits")
    parser.add_argument("--write-card", action="store_true")
    parser.add_argument("--trainings", type=Path, help="a model whose card gets the runs of the others")
    parser.add_argument("--name", help="of the file of results; by default that of the model")
    args = parser.parse_args()
    first = checkpoints.load(args.models[0])
    stick = Yardstick(first.shape[-1], args.images, first.encoding.scale)
    results: dict[str, Any] = {}
    for path in args.models:
        results["/".join(path.with_suffix("").parts[-3:])] = measure(path, args, stick)
        save(args.name or path.stem, results if args.name else next(reversed(results.values())))
    if args.trainings:
        model = checkpoints.load(args.trainings)
        metrics = dict(model.card.get("metrics", {}))
        rows = {key_of(row): row for row in metrics.get("trainings", [])}
        for path, found in zip(args.models, results.values(), strict=True):
            rows |= {key_of(row): row for row in (training(path, found, run) for run in args.runs)}
        metrics["trainings"] = [rows[key] for key in sorted(rows)]
        checkpoints.save(args.trainings, model._replace(card={**model.card, "metrics": metrics}))


def training(path: Path, metrics: dict[str, Any], run: str) -> dict[str, Any]:
    """A row on one checkpoint of a training."""
    card = checkpoints.load(path).card
    method, steps = run.split(":")
    row = {key: values[0] for key, values in metrics["samplers"][method][steps].items()}
    return {"seed": card["options"]["seed"], "step": card["step"], "images": metrics["images"], "run": run, **row}


def key_of(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["run"], row["seed"], row["step"]


def quantiles(x: torch.Tensor) -> list[float]:
    """Minimum, quartiles and maximum."""
    return [round(q, 4) for q in torch.quantile(x.float(), torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])).tolist()]


def save(name: str, metrics: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"models-{name}.json").write_text(json.dumps(metrics, indent=1) + "\n")


if __name__ == "__main__":
    main()
