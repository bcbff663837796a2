"""Score networks: U-Nets and multilayer perceptrons, periodic ones for phases and Euclidean ones for the baseline."""

from kodm_lite.networks.euclidean import EuclideanUNet
from kodm_lite.networks.periodic import PeriodicMLP, PeriodicUNet, ScoreHead, TimeEmbedding
from kodm_lite.networks.unet import SIZES

__all__ = ["SIZES", "EuclideanUNet", "PeriodicMLP", "PeriodicUNet", "ScoreHead", "TimeEmbedding"]
