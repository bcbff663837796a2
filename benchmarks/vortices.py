"""Where on the way back do samples of directions get the vortices that are too many?

    kodm-lite reproduce --data terrain-32 --methods sgm mean-field-early --out runs/table
    python benchmarks/vortices.py runs/table/models/terrain-32

Held-out pieces of the terrain go forward to some time and come back by the sampler of the method.  If the vortices of
what comes back are too many from one time on, they are made there.  For the Euclidean model the times are those at
which it has kept the same share exp(-V / 2) of the data.  Then samples from the prior, by several samplers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from kodm_lite import Model, checkpoints, sample
from kodm_lite.calibration import there_and_back
from kodm_lite.orientation import winding_numbers
from kodm_lite.process import KuramotoProcess
from kodm_lite.recipes import recipe_of

LOST = (0.03, 0.13, 0.5, 1.1, 2.0, 3.1, 4.5, 8.0)  # V
SAMPLERS = (("ode", 25), ("ode", 200), ("hybrid", 100), ("euler", 400))
RESULTS = Path(__file__).parent / "results" / "vortices.json"


def vortices(theta: Tensor) -> Tensor:
    """Their number (n,) in each image."""
    return winding_numbers(theta).abs().sum((1, 2, 3)).double()


def returned(model: Model, theta: Tensor, v: float, steps: int) -> Tensor:
    """Images that lost exp(-v / 2) of their arrows, or values, and came back."""
    generator, process = torch.Generator().manual_seed(0), model.process
    if isinstance(process, KuramotoProcess):
        return there_and_back(model.network, process, theta, v, steps=steps, generator=generator)
    grid = torch.linspace(0, 1, 100_001)
    t = float(grid[(-2 * process.alpha(grid).log() - v).abs().argmin()])
    start, _ = process.perturb(theta, torch.full((len(theta),), t), generator)
    times = [t * (1 - k / steps) ** 2 for k in range(steps + 1)]
    return model.sample(len(theta), times=times, start=start, method="ancestral", generator=generator)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="folder with the trained models of terrain-32")
    parser.add_argument("-n", type=int, default=64, help="images")
    parser.add_argument("--steps", type=int, default=25, help="network evaluations on the way back")
    args = parser.parse_args()
    real = recipe_of("terrain-32").images("test", args.n).theta
    found = {"images": args.n, "steps": args.steps, "V": LOST, "real": _mean(vortices(real))}
    print(f"{'V':20s} " + "".join(f"{v:12g}" for v in LOST))
    print(f"{'real':20s} {found['real'][0]:12.1f}")
    for method in ("sgm", "mean-field-early"):
        model = checkpoints.load(args.models / method / "seed-0" / "model.safetensors")
        found[method] = [_mean(vortices(returned(model, real, v, args.steps))) for v in LOST]
        print(f"{method:20s} " + "".join(f"{mean:7.1f}±{error:4.1f}" for mean, error in found[method]), flush=True)
    found["samplers"] = {}
    for sampler, steps in SAMPLERS:
        theta = sample(
            model.network,
            model.process,
            (args.n, *model.shape),
            steps=steps,
            method=sampler,
            calibration=model.calibration if sampler == "hybrid" else None,
            seeds=range(args.n),
        )
        found["samplers"][f"{sampler}:{steps}"] = mean, error = _mean(vortices(theta))
        print(f"{sampler} in {steps} steps: {mean:.1f} ± {error:.1f}", flush=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf8")


def _mean(numbers: Tensor) -> tuple[float, float]:
    """And its error."""
    return round(float(numbers.mean()), 2), round(float(numbers.std() / len(numbers) ** 0.5), 2)


if __name__ == "__main__":
    main()
