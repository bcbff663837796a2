"""What learning and sampling cost: images per second, the share of time outside the network, start-up.

    python benchmarks/learning.py

prints a table and writes benchmarks/results/learning.json.  On a GPU it measures in bf16, compiled, and adds the share
of the card's peak that the network's arithmetic reaches (give the peak with --peak, in TFLOP/s).
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from kodm_lite import GlobalCoupling, KuramotoProcess, LocalCoupling, PeriodicUNet
from kodm_lite.data import textures
from kodm_lite.losses import Objective
from kodm_lite.networks import SIZES
from kodm_lite.objectives import MeanField, Transition, random_times
from kodm_lite.training import TrainingOptions
from kodm_lite.training.batches import Batches, check_data
from kodm_lite.training.learner import Learner
from kodm_lite.training.run import accelerator

RESULTS = Path(__file__).parent / "results" / "learning.json"


def fastest(call: Callable[[], Any], device: torch.device, rounds: int) -> float:
    """Seconds of the fastest of some calls: what it takes when nothing else disturbs it."""
    times = []
    for _ in range(rounds + 2):  # two to warm up
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[2:])


def step_and_network(learner: Learner, batches: Batches, device: torch.device, rounds: int) -> tuple[float, float]:
    """Seconds of a training step, with all that belongs to it, and of the network's forward and backward pass."""
    steps, theta = itertools.count(), batches.shard(0, 0).theta0
    t = random_times(len(theta)).to(device)

    def step() -> None:
        k = next(steps)
        learner.update(k, [batches.shard(k, 0)])

    def network() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            score = learner.model(theta, t)
        score.square().mean().backward()

    # In turns, so that what else the machine does in the meantime meets both.
    times = [(fastest(step, device, 3), fastest(network, device, 3)) for _ in range(rounds)]
    return min(whole for whole, _ in times), min(part for _, part in times)


def training(size: str, batch: int, device: torch.device, rounds: int, coupling: Any) -> dict[str, Any]:
    """What a training step costs with each objective, at 100 simulation steps, and the network's part of it."""
    process = KuramotoProcess.for_shape((1, 32, 32), coupling=coupling)
    network: Any = PeriodicUNet(1, process, **SIZES[size])
    data = check_data("data", textures(32, n=8 * batch, scale=0.9), network, process)
    options = TrainingOptions(batch_size=batch, precision="bf16", compile=device.type == "cuda")
    objectives: dict[str, Objective] = {"mean_field": MeanField(), "transition": Transition()}
    whole, part = {}, {}
    for name, objective in objectives.items():
        learner = Learner(network, process, objective, options, accelerator("bf16"))
        whole[name], part[name] = step_and_network(learner, Batches(data, options, device), device, rounds)
    bare = min(part.values())
    with FlopCounterMode(display=False) as counter:
        network(data.theta[:1], torch.ones(1)).sum().backward()
    row: dict[str, Any] = {
        "size": size,
        "coupling": type(coupling).__name__,
        "batch": batch,
        "parameters": sum(p.numel() for p in network.parameters()),
        "gflop_per_image": round(counter.get_total_flops() / 1e9, 3),
        "seconds": {key: round(value, 4) for key, value in {"network": bare, **whole}.items()},
        "images_per_second": {name: round(batch / value, 1) for name, value in whole.items()},
        "outside_the_network": {name: round(1 - part[name] / whole[name], 3) for name in whole},
        "network_tflops": round(counter.get_total_flops() * batch / bare / 1e12, 3),
    }
    if device.type == "cuda":
        row["memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return row


def command(*arguments: str) -> float:
    """Seconds of a cold Python process, the fastest of three."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--sizes", nargs="+", default=["small"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--peak", type=float, help="TFLOP/s of the GPU in bf16")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for size in args.sizes:
        for coupling in (GlobalCoupling(), LocalCoupling(4, "reflect")):
            rows.append(training(size, args.batch, device, args.rounds, coupling))
            if args.peak:
                rows[-1]["share_of_peak"] = round(rows[-1]["network_tflops"] / args.peak, 3)
            print(json.dumps(rows[-1]), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder) / "grid.png")
        sampling = command("-m", "kodm_lite", "sample", "textures-32", "-n", "16", "--steps", "25", "--out", target,
                           "--overwrite")  # fmt: skip
    imports = {name: command("-c", f"import {name}") for name in ("torch", "kodm_lite")}
    result = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "training": rows,
        "sampling_16_images_25_steps_seconds": round(sampling, 2),
        "import_over_import_torch": round(imports["kodm_lite"] / imports["torch"], 3),
    }
    print(json.dumps({key: value for key, value in result.items() if key != "training"}, indent=1))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
