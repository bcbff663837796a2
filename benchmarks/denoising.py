"""How much of weak noise on held-out phases do the networks of the table find, after the same training?

    kodm-lite reproduce --data fingerprints-32 textures-32-wide --methods sgm mean-field-early --out runs/table
    python benchmarks/denoising.py runs/table/models

prints the mean square of what is left of the noise, over that of the noise; writes benchmarks/results/denoising.json.
The noise is so weak that coupling, reference and the decay of a variance-preserving diffusion do not matter.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from kodm_lite import Model, checkpoints, wrap
from kodm_lite.process import KuramotoProcess
from kodm_lite.recipes import recipe_of

NOISES = (0.05, 0.1, 0.2)  # radians
DATA, METHODS = ("textures-32-wide", "fingerprints-32", "terrain-32"), ("sgm", "mean-field-early")
RESULTS = Path(__file__).parent / "results" / "denoising.json"


@torch.no_grad()
def left_over(model: Model, theta: Tensor, noise: Tensor, size: float) -> Tensor:
    """Mean square (B,) of what the network does not find of the noise."""
    process, grid = model.process, torch.linspace(0, 1, 200_001)
    if isinstance(process, KuramotoProcess):
        t = grid[(process.clock(grid) - size**2).abs().argmin()].expand(len(theta))
        found = -size * model.network(wrap(theta + size * noise), t)
    else:
        sizes = process.sigma(grid) / process.alpha(grid) * process.noise.unit
        t = grid[(sizes - size).abs().argmin()].expand(len(theta))
        kept = process.alpha(t).reshape(-1, 1, 1, 1)
        found = model.network(kept * (theta + size * noise), t) / process.noise.unit
    return (found - noise).square().mean((1, 2, 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="folder with the trained models")
    parser.add_argument("-n", type=int, default=128, help="images")
    args = parser.parse_args()
    results: dict[str, dict[str, list[tuple[float, float]]]] = {}
    print(f"{'noise (radians)':36s}" + "".join(f"{size:16g}" for size in NOISES))
    for data in DATA:
        theta = recipe_of(data).images("test", args.n).theta[: args.n]
        noise = torch.randn(theta.shape, generator=torch.Generator().manual_seed(0))
        for method in METHODS:
            model = checkpoints.load(args.models / data / method / "seed-0" / "model.safetensors")
            found = [left_over(model, theta, noise, size) for size in NOISES]
            row = [(round(float(x.mean()), 4), round(float(x.std() / len(x) ** 0.5), 4)) for x in found]
            results.setdefault(data, {})[method] = row
            print(f"{data:18s}{method:18s}" + "".join(f"{a:9.3f} ±{b:.3f}" for a, b in row), flush=True)
    RESULTS.write_text(json.dumps({"noises": NOISES, "images": args.n, **results}, indent=1) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
