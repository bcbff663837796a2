"""Score networks: U-Nets and multilayer perceptrons, periodic ones for phases and Euclidean ones for the baseline."""

from typing import Any

from torch import nn

from kodm_lite.networks.euclidean import EuclideanUNet
from kodm_lite.networks.periodic import PeriodicMLP, PeriodicUNet, ScoreHead, TimeEmbedding
from kodm_lite.networks.unet import SIZES

__all__ = ["SIZES", "EuclideanUNet", "PeriodicMLP", "PeriodicUNet", "ScoreHead", "TimeEmbedding", "describe"]


def describe(network: nn.Module) -> dict[str, Any]:
    """Kind and configuration: with the process and the weights all that :mod:`kodm_lite.models` needs to build it."""
    return {"kind": type(network).__name__, **network.config}  # type: ignore[dict-item]
