"""Processes and networks by name: what a file says of a model becomes the model."""

from __future__ import annotations

from typing import Any

from kodm_lite.euclidean import EuclideanDiffusion, VarianceExploding, VariancePreserving, WhiteNoise
from kodm_lite.networks import EuclideanUNet, PeriodicMLP, PeriodicUNet
from kodm_lite.process import KuramotoProcess
from kodm_lite.schedules import LinearSchedule
from kodm_lite.sphere.network import SphericalNet
from kodm_lite.sphere.noise import noise_from_dict

__all__ = ["Network", "Process", "network_from_dict", "process_from_dict"]

Process = KuramotoProcess | EuclideanDiffusion
Network = PeriodicUNet | PeriodicMLP | EuclideanUNet | SphericalNet

_DIFFUSIONS = {"VariancePreserving": VariancePreserving, "VarianceExploding": VarianceExploding}
_ON_PHASES = {"PeriodicUNet": PeriodicUNet, "PeriodicMLP": PeriodicMLP}
_ON_IMAGES = {"EuclideanUNet": EuclideanUNet}
_ON_COEFFICIENTS = {"SphericalNet": SphericalNet}


def process_from_dict(data: dict[str, Any]) -> Process:
    """Inverse of ``to_dict`` of a process.

    Raises:
        ValueError: missing or unknown entries, or values that make no process.
    """
    if "kind" not in data:
        return KuramotoProcess.from_dict(data)
    if set(data) != {"kind", "rate", "noise"} or data["kind"] not in list(_DIFFUSIONS):
        raise ValueError(f"process: got {data!r}, expected kind ({' or '.join(_DIFFUSIONS)}), rate and noise")
    noise = _white(data["noise"]) or noise_from_dict(data["noise"])
    try:
        return _DIFFUSIONS[data["kind"]](noise, LinearSchedule(*data["rate"]))
    except TypeError as error:
        raise ValueError(f"process: got rate {data['rate']!r}, expected two numbers") from error


def _white(data: Any) -> WhiteNoise | None:
    """White noise of a description, or None for another kind."""
    if not isinstance(data, dict) or data.get("kind") != "white":
        return None
    if set(data) != {"kind", "shape", "unit"} or not isinstance(data["shape"], list):
        raise ValueError(f"noise: got {data!r}, expected kind 'white', shape and unit")
    if type(data["unit"]) not in (int, float):
        raise ValueError(f"noise: got unit {data['unit']!r}, expected a number")
    return WhiteNoise(data["shape"], data["unit"])


def network_from_dict(description: dict[str, Any], process: Process) -> Network:
    """The untrained network of a description, see :func:`kodm_lite.networks.describe`.

    Raises:
        ValueError: a kind that does not go with the process, or options that it does not have.
    """
    if isinstance(process, KuramotoProcess):
        kinds: dict[str, Any] = _ON_PHASES
    else:
        kinds = _ON_IMAGES if isinstance(process.noise, WhiteNoise) else _ON_COEFFICIENTS
    options = dict(description)
    kind = options.pop("kind", None)
    if kind not in list(kinds):
        raise ValueError(f"network: got kind {kind!r}, expected one of {sorted(kinds)} for this process")
    try:
        return kinds[kind](process=process, **options)
    except TypeError as error:
        raise ValueError(f"network: got options {options}, expected those of {kind} ({error})") from error
