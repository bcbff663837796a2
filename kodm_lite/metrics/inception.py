"""The Fréchet and the kernel inception distance (FID, KID), for values that others can be compared with.

Published values come from one network with one set of weights, Inception v3 as the authors of the FID converted it,
and from bytes in three channels.  That network is in the package torch-fidelity, ``pip install ".[fid]"`` in a clone,
which fetches its weights (90 MB) on first use; this module downloads nothing itself.  Any other network gives a
distance too, of its own scale.

A FID is too large by a bias that falls with the number of images, most of all below the 2048 features: 50 000 images
are usual.  KID has no such bias.
"""

from __future__ import annotations

import importlib
import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from kodm_lite.circular import to_uint8
from kodm_lite.metrics.frechet import PrecomputedFeatures, frechet_distance
from kodm_lite.metrics.validation import check_images

__all__ = ["InceptionDistances", "inception_distances", "inception_network"]

_INCEPTION_FEATURES = 2048  # of the last pooling layer, which published values use
_LARGEST_SUBSET = 1000  # of KID, as in its paper


class InceptionDistances(NamedTuple):
    """Distances with all that must be known to compare them.

    Args:
        fid: squared Fréchet distance of the features.
        kid: squared kernel distance of the features, averaged over the subsets; it can be slightly negative.
        kid_deviation: standard deviation of KID between subsets.  These overlap: it is no error of the average.
        generated: number of generated images.
        real: number of real images.
        split: which real images these are.
        subsets: number of subsets of KID.
        subset_size: images in each subset.
        feature: which network made the features.
        num_features: length of its vectors.
    """

    fid: float
    kid: float
    kid_deviation: float
    generated: int
    real: int
    split: str
    subsets: int
    subset_size: int
    feature: str
    num_features: int


def inception_distances(
    generated: Tensor,
    real: Tensor,
    split: str,
    scale: float = 0.9,
    feature: torch.nn.Module | None = None,
    subsets: int = 100,
    subset_size: int | None = None,
    batch: int = 64,
    seed: int = 0,
) -> InceptionDistances:
    """FID and KID of generated images: smaller is better.

    Phases become bytes by :func:`kodm_lite.to_uint8`; one grey channel is repeated to three.

    Args:
        generated: phases (n, C, H, W) in radians, or bytes, with 1 or 3 channels.
        real: phases or bytes (m, C, H, W).
        split: the name of the split that ``real`` is, for the record, such as "test".
        scale: the ``scale`` of :func:`kodm_lite.image_to_phase`.
        feature: maps bytes (B, 3, H, W) to features (B, F); by default Inception v3 with the weights that
            published values use.
        subsets: number of random subsets that KID is averaged over.
        subset_size: images in each; by default half of the smaller set, at most 1000.
        batch: images that pass the network at a time.
        seed: integer from which the subsets are drawn.

    Raises:
        ValueError: no such images, images of two shapes, a subset larger than the sets, neither ``feature`` nor
            torch-fidelity with its weights.

    Source: Heusel et al. 2017; Bińkowski et al. 2018.
    """
    images = [_bytes(generated, "generated", scale), _bytes(real, "real", scale)]
    if images[0].shape[1:] != images[1].shape[1:]:
        raise ValueError(
            f"generated, real: got images of shape {tuple(generated.shape[1:])} and {tuple(real.shape[1:])}, "
            "expected the same; try images of one size"
        )
    smaller = min(len(generated), len(real))
    size = min(_LARGEST_SUBSET, smaller // 2) if subset_size is None else subset_size
    if not 2 <= size <= smaller or subsets < 1:
        raise ValueError(
            f"subsets, subset_size: got {subsets} of {size}, expected at least 1 of 2 to {smaller}, the size of the "
            "smaller set; try more images"
        )
    name = "Inception v3 of torch-fidelity" if feature is None else type(feature).__name__
    network = inception_network() if feature is None else feature
    of_generated, of_real = (_features(network, x, batch) for x in images)
    kid, deviation = _kernel_distance(of_generated, of_real, subsets, size, seed)
    return InceptionDistances(
        fid=frechet_distance(of_generated, of_real),
        kid=kid,
        kid_deviation=deviation,
        generated=len(generated),
        real=len(real),
        split=split,
        subsets=subsets,
        subset_size=size,
        feature=name,
        num_features=of_real.shape[1],
    )


def _bytes(images: Tensor, name: str, scale: float) -> Tensor:
    """Bytes (B, 3, H, W) of phases or bytes."""
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        check_images(images, name)
        if 0 <= float(images.min()) and float(images.max()) <= 1:
            raise ValueError(
                f"{name}: got values from {float(images.min()):.4g} to {float(images.max()):.4g}, which look like grey "
                f"values, expected phases in radians or bytes; try kodm_lite.image_to_phase(2 * {name} - 1)"
            )
        images = to_uint8(images.detach(), scale)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) < 2:
        raise ValueError(
            f"{name}: got shape {tuple(images.shape)}, expected at least 2 images (B, C, H, W) with 1 or 3 channels; "
            f"try {name}[:, None] for (B, H, W)"
        )
    return images.expand(-1, 3, -1, -1)


def inception_network() -> torch.nn.Module:
    """The network of the FID, with its weights.

    Raises:
        ValueError: torch-fidelity is not installed or does not work, or its weights cannot be fetched.
    """
    try:
        importlib.import_module("torch_fidelity")  # here, because it is optional
        from torchmetrics.image.fid import FrechetInceptionDistance

        network = FrechetInceptionDistance(feature=_INCEPTION_FEATURES).inception
    except Exception as error:  # a package that does not fit torch raises what it likes, and so does a failed download
        raise ValueError(
            f"feature: got None without a torch-fidelity that works ({type(error).__name__}: {error}), expected it "
            'installed; try pip install ".[fid]" in a clone, or a feature network of your own'
        ) from error
    assert isinstance(network, torch.nn.Module)
    return network


@torch.no_grad()
def _features(network: torch.nn.Module, images: Tensor, batch: int) -> Tensor:
    """Features (B, F) of bytes, by the network as it is used, not as it is trained."""
    training = network.training
    network.eval()
    try:
        return torch.cat([network(chunk).flatten(1).double() for chunk in images.split(batch)])
    finally:
        network.train(training)


def _kernel_distance(generated: Tensor, real: Tensor, subsets: int, size: int, seed: int) -> tuple[float, float]:
    """Mean and standard deviation of KID over random subsets."""
    from torchmetrics.image.kid import KernelInceptionDistance  # here, because loading it takes two seconds

    feature = PrecomputedFeatures(real.shape[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save all")  # they fit
        metric = KernelInceptionDistance(feature=feature, subsets=subsets, subset_size=size).to(real.device)
    metric.update(real, real=True)
    metric.update(generated, real=False)
    with torch.random.fork_rng(devices=[]):  # torchmetrics draws the subsets from the generator of everybody
        torch.default_generator.manual_seed(seed)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)
