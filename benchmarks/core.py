"""What a forward step costs: against image size, coupling and batch, and against a plain copy of the same tensor.

    python benchmarks/core.py

prints two tables and writes them as JSON.  The first gives nanoseconds per oscillator and step, and the ratio to
``tensor.clone()`` measured in the same run.  The second compares the two ways to average over a box, a product with an
averaging matrix and differences of prefix sums, over the length of the line: the reason for the switch between them in
``kodm_lite/kuramoto.py``.  Both run eagerly and under ``torch.compile``, on the GPU where there is one.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import kodm_lite
from kodm_lite import GlobalCoupling, KuramotoProcess, LocalCoupling
from kodm_lite import kuramoto as couplings

BASE = {"side": 64, "batch": 16, "radius": 2}
SIDES = (32, 64, 128, 256)
RADII = ("global", 1, 2, 4, 8, 15)
BATCHES = (1, 4, 16, 64)
LENGTHS = (16, 32, 64, 128, 256, 512, 1024)


def seconds_per_call(call: Callable[[], Any], device: torch.device, budget: float) -> float:
    """The fastest of many rounds of about a millisecond, per call: what it takes when nothing else disturbs it."""

    def timed(repetitions: int) -> float:
        start = time.perf_counter()
        for _ in range(repetitions):
            call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start) / repetitions

    timed(1)  # compiles, fills caches
    repetitions = max(1, int(1e-3 / min(timed(1) for _ in range(5))))
    rounds, end = [timed(repetitions) for _ in range(3)], time.perf_counter() + budget
    while time.perf_counter() < end:
        rounds.append(timed(repetitions))
    return min(rounds)


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function compiled afresh, for one shape."""
    torch.compiler.reset()
    return torch.compile(function, dynamic=False)


def step_costs(device: torch.device, budget: float, modes: list[str]) -> list[dict[str, Any]]:
    """Rows of nanoseconds per oscillator and step; each varies one of size, coupling and batch from the base case."""
    cases = [{**BASE, "side": side, "radius": radius} for radius in ("global", 2) for side in SIDES]
    cases += [{**BASE, "radius": radius} for radius in RADII] + [{**BASE, "batch": batch} for batch in BATCHES]
    rows = []
    for case in [dict(items) for items in dict.fromkeys(tuple(case.items()) for case in cases)]:
        coupling = GlobalCoupling() if case["radius"] == "global" else LocalCoupling(case["radius"])
        process = KuramotoProcess(coupling)
        theta = torch.randn(case["batch"], 1, case["side"], case["side"], device=device)
        noise = torch.randn_like(theta)
        t0, t1 = torch.tensor(0.5, device=device), torch.tensor(0.51, device=device)
        copy = seconds_per_call(theta.clone, device, budget)
        row: dict[str, Any] = {**case, "copy_ns": copy * 1e9 / theta.numel()}
        for mode in modes:
            step = process.advance if mode == "eager" else compiled(process.advance)
            seconds = seconds_per_call(lambda s=step, x=theta, e=noise, a=t0, b=t1: s(x, e, a, b), device, budget)
            row[f"{mode}_ns"] = seconds * 1e9 / theta.numel()
            row[f"{mode}_over_copy"] = seconds / copy
        generator = torch.Generator(device).manual_seed(0)
        whole = seconds_per_call(
            lambda p=process, x=theta, g=generator: p.forward_step(x, 0.5, 0.51, g), device, budget
        )
        row["with_noise_ns"] = whole * 1e9 / theta.numel()
        rows.append(row)
    return rows


def box_mean_costs(device: torch.device, budget: float, modes: list[str]) -> list[dict[str, Any]]:
    """Rows of nanoseconds per entry for both box means, along the last dimension of (2^18 / n) lines of length n."""
    ways = {"matrix": couplings._box_mean_by_matrix, "prefix": couplings._box_mean_by_prefix_sums}
    rows = []
    for n in LENGTHS:
        x = torch.randn(1, 1, 2**18 // n, n, device=device)
        row: dict[str, Any] = {"length": n}
        for mode in modes:
            for name, function in ways.items():
                run = function if mode == "eager" else compiled(function)
                seconds = seconds_per_call(lambda f=run, x=x: f(x, 4, 3, "periodic"), device, budget)
                row[f"{mode}_{name}_ns"] = seconds * 1e9 / x.numel()
        rows.append(row)
    return rows


def crossover(rows: list[dict[str, Any]], mode: str) -> int | None:
    """The longest line up to which the matrix wins without interruption; None if it never does."""
    longest = None
    for row in rows:
        if row[f"{mode}_matrix_ns"] > row[f"{mode}_prefix_ns"]:
            break
        longest = row["length"]
    return longest


def print_table(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{title}")
    names = list(rows[0])
    widths = [max(len(name), 8) for name in names]
    print("  ".join(name.rjust(width) for name, width in zip(names, widths, strict=True)))
    for row in rows:
        cells = [f"{row[name]:.3g}" if isinstance(row[name], float) else str(row[name]) for name in names]
        print("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/core.json"), help="where to write JSON")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--budget", type=float, default=0.1, help="seconds spent on each measured number")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; more than one is noisy where others work")
    parser.add_argument("--no-compile", action="store_true", help="measure eager mode only")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    modes = ["eager"] if arguments.no_compile else ["eager", "compiled"]
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    steps = step_costs(device, arguments.budget, modes)
    boxes = box_mean_costs(device, arguments.budget, modes)
    result = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "torch": torch.__version__,
        "kodm_lite": kodm_lite.__version__,
        "forward_step": steps,
        "box_mean": boxes,
        "matrix_wins_up_to": {mode: crossover(boxes, mode) for mode in modes},
    }
    print(f"{result['device']}, threads: {result['threads']}, torch {result['torch']}")
    print_table("forward step: ns per oscillator and step (noise given), and as a multiple of clone()", steps)
    print_table("box mean along a line: ns per entry", boxes)
    print(f"\nthe matrix wins up to a length of {result['matrix_wins_up_to']}")
    print(f"kuramoto.py switches above {couplings._LONGEST_MATRIX}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written: {arguments.out}")


def processor() -> str:
    """The CPU's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
