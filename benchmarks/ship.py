"""Put a trained model into the package, with what it measures in its card.

    python benchmarks/ship.py runs/fingerprints-64 fingerprints-64 --data fingerprints -n 512

draws samples, measures them against real images like kodm-lite evaluate, and writes the model with its card into
kodm_lite/pretrained.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from kodm_lite import checkpoints
from kodm_lite.calibration import calibrate
from kodm_lite.metrics import evaluate
from kodm_lite.recipes import recipe_of

PRETRAINED = Path(checkpoints.__file__).parent / "pretrained"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="its file, or the folder of the training")
    parser.add_argument("name")
    parser.add_argument("--data", required=True)
    parser.add_argument("-n", type=int, default=512)
    parser.add_argument("--steps", type=int, nargs="+", default=[25])
    args = parser.parse_args()
    model = checkpoints.load(checkpoints.find(args.model))
    recipe = recipe_of(args.data, model.shape[-1], model.shape[0], scale=model.encoding.scale)
    real, seen = recipe.images("test", 2 * args.n), recipe.images("train")
    calibration = model.calibration or calibrate(
        model.network, model.process, seen.theta[:64], generator=torch.Generator().manual_seed(0)
    )
    metrics = {}
    for steps in args.steps:
        with torch.autocast("cpu", torch.bfloat16):
            samples = model.sample(args.n, steps=steps, chunk=64).float()
        found = evaluate(samples, real, seen)
        print(f"{steps} steps\n{found.as_table()}\n", flush=True)
        metrics[str(steps)] = found.to_dict()
    names = {"classes": list(real.names)} if real.labels is not None else {}
    card = {**model.card, "name": args.name, "licence": real.licence, **names, "evaluations": metrics}
    checkpoints.save(PRETRAINED / f"{args.name}.safetensors", model._replace(calibration=calibration, card=card))
    print(f"wrote {PRETRAINED / args.name}.safetensors")


if __name__ == "__main__":
    main()
