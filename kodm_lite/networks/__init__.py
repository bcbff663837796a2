"""Score networks: U-Nets and multilayer perceptrons, periodic ones for phases and Euclidean ones for the baseline."""

from kodm_lite.networks.periodic import EuclideanUNet, PeriodicMLP, PeriodicUNet, ScoreHead, TimeEmbedding, describe
from kodm_lite.networks.unet import SIZES

__all__ = ["SIZES", "EuclideanUNet", "PeriodicMLP", "PeriodicUNet", "ScoreHead", "TimeEmbedding", "describe"]
