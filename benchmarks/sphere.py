"""How long transforms on the sphere take, beside torch-harmonics where it imports.

    python benchmarks/sphere.py

prints a table of milliseconds for 8 fields in float32 and writes benchmarks/results/sphere.json.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kodm_lite.sphere import PixelNoise, SphericalTransform, make_grid

RESULTS = Path(__file__).parent / "results" / "sphere.json"
FIELDS = 8


def fastest(calls: dict[str, Callable[[], Any]], rounds: int = 9) -> dict[str, float]:
    """Milliseconds of the fastest of some calls of each, taken in turn, so that all see the same machine."""
    times: dict[str, float] = {}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name] = min(times.get(name, float("inf")), 1000 * (time.perf_counter() - start))
    return {name: round(value, 3) for name, value in times.items()}


def theirs(L: int, x: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """The same work by torch-harmonics."""
    try:
        from torch_harmonics import InverseRealSHT, RealSHT
    except (ImportError, OSError):
        return {}
    options = {"lmax": L, "mmax": L, "grid": "legendre-gauss"}
    forward, backward = (kind(L, 2 * L, **options).float() for kind in (RealSHT, InverseRealSHT))
    a = forward(x)
    return {"analysis, torch-harmonics": lambda: forward(x), "synthesis, torch-harmonics": lambda: backward(a)}


def main() -> None:
    rows = []
    for L in (64, 128, 256):
        start = time.perf_counter()
        transform = SphericalTransform(make_grid("gauss", L), torch.float32)
        build = time.perf_counter() - start
        c = torch.randn(FIELDS, L * L)
        x = transform.synthesis(c)
        calls = {
            "analysis": lambda t=transform, x=x: t.analysis(x),
            "synthesis": lambda t=transform, c=c: t.synthesis(c),
        }
        if L <= 128:
            noise = PixelNoise(transform)
            calls["solve"] = lambda n=noise, c=c: n.solve(c)
        with torch.no_grad():
            row = {"L": L, "build_seconds": round(build, 2), "milliseconds": fastest({**calls, **theirs(L, x)})}
        row["error"] = float((transform.analysis(x) - c).abs().max())
        rows.append(row)
        print(
            f"L = {L:3d}: build {build:.2f} s, " + ", ".join(f"{k} {v} ms" for k, v in row["milliseconds"].items()),
            flush=True,
        )
    result = {
        "device": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "fields": FIELDS,
        "transforms": rows,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
