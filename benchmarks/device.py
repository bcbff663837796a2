"""Speeds on a GPU: training steps of the three sizes with their share of the card's peak, and samplers; as JSON.

Run by ``benchmarks/device.sh``.  The targets' share of a step is what simulation and mean-field law take of it, the
rest being the network, the optimiser and the running average.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from kodm_lite import KuramotoProcess, PeriodicUNet, calibrate, sample
from kodm_lite.data import textures
from kodm_lite.networks import SIZES
from kodm_lite.objectives import MeanField
from kodm_lite.training import TrainingOptions
from kodm_lite.training.batches import Batches, check_data
from kodm_lite.training.learner import Learner
from kodm_lite.training.run import accelerator

METHODS = ("euler", "adams", "ode", "hybrid", "ancestral", "pc")
TINY = {"width": 8, "multipliers": (1, 2), "blocks": 1, "patch": 4, "attention": ()}
#: TFLOP/s in bf16, dense, of the data sheets.
PEAKS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L4": 121.0, "T4": 65.0, "4090": 165.0}


def seconds(call: Callable[[], Any], device: torch.device, rounds: int) -> float:
    """Of the fastest of some calls, after two that warm up."""
    times = []
    for _ in range(rounds + 2):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[2:])


def training(sizes: dict[str, Any], side: int, batch: int, device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """Rows of what a step with mean-field targets costs, in bf16 and compiled where there is a GPU."""
    process, data, rows = KuramotoProcess.for_shape((1, side, side)), textures(side, n=4 * batch), []
    options = TrainingOptions(batch_size=batch, precision="bf16", compile=device.type == "cuda")
    for size, shape in sizes.items():
        network: Any = PeriodicUNet(1, process, **shape)
        with FlopCounterMode(display=False) as counter:
            network(data.theta[:1], torch.ones(1)).sum().backward()
        examples = check_data("data", data, network, process)
        learner = Learner(network, process, MeanField(), options, accelerator("bf16"))
        batches, steps = Batches(examples, options, device), itertools.count()
        whole = seconds(lambda b=batches, k=steps, x=learner: x.update(i := next(k), [b.shard(i, 0)]), device, rounds)
        given = batches.shard(0, 0)

        def targets(given: Any = given) -> None:
            """The whole objective of a network that costs nothing."""
            MeanField()(nothing, process, given.theta0, None, MeanField().times(given.u), given.generator)

        part = seconds(targets, device, rounds)
        row = {
            "size": size,
            "batch": batch,
            "parameters": sum(p.numel() for p in network.parameters()),
            "seconds": whole,
            "images_per_second": batch / whole,
            "targets_share": part / whole,
            "network_tflops": counter.get_total_flops() * batch / whole / 1e12,
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def nothing(theta: Tensor, t: Tensor, **others: Any) -> Tensor:
    return torch.zeros_like(theta)


def sampling(shape: dict[str, Any], side: int, n: int, device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """Rows of samples per second with 25 steps of every method; the network is new, which costs the same."""
    process, rows = KuramotoProcess.for_shape((1, side, side)), []
    network = PeriodicUNet(1, process, **shape).to(device).eval()
    data = textures(side, n=n).theta.to(device)
    start = process.simulate(data, 1.0, 50, torch.Generator(device).manual_seed(0))
    calibration = calibrate(network, process, data, points=2)
    for method in METHODS:
        options = {"steps": 25, "method": method, "calibration": calibration, "start": start}
        took = seconds(lambda o=options: sample(network, process, tuple(start.shape), **o), device, rounds)
        rows.append({"method": method, "images": n, "steps": 25, "images_per_second": n / took})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry", action="store_true", help="tiny, on any machine")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/device.json"))
    parser.add_argument("--peak", type=float, help="TFLOP/s of the GPU in bf16")
    arguments = parser.parse_args()
    if not (arguments.dry or torch.cuda.is_available()):
        raise SystemExit("no GPU here; try --dry")
    device = torch.device("cpu" if arguments.dry else "cuda")
    if arguments.dry:
        sizes, side, batch, rounds = {"tiny": TINY}, 16, 4, 1
    else:
        sizes, side, batch, rounds = {name: SIZES[name] for name in ("small", "medium", "large")}, 32, 256, 10
    name = platform.machine() if arguments.dry else torch.cuda.get_device_name()
    peak = arguments.peak or next((value for key, value in PEAKS.items() if key in name), None)
    rows = training(sizes, side, batch, device, rounds)
    for row in rows if peak else []:
        row["share_of_peak"] = row["network_tflops"] / peak
    result = {
        "device": name,
        "dry": arguments.dry,
        "torch": torch.__version__,
        "peak_tflops": peak,
        "training": rows,
        "sampling": sampling(next(iter(sizes.values())), side, batch, device, rounds),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
