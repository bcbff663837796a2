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
from typing import NamedTuple

import torch
from torch import Tensor

from kodm_lite.encoding import Encoding, GreyLevels
from kodm_lite.metrics.frechet import frechet_distance
from kodm_lite.metrics.validation import check_images, check_one_shape, check_range
from kodm_lite.validation import check_count

__all__ = ["InceptionDistances", "inception_distances", "inception_network"]

_INCEPTION_FEATURES = 2048  # of the last pooling layer, which published values use
_LARGEST_SUBSET = 1000  # of KID, as in its paper


class InceptionDistances(NamedTuple):
    """Distances with all that must be known to compare them.

    Args:
        fid: squared Fréchet distance of the features.
        kid: squared kernel distance of the features, averaged over the subsets; it can be slightly negative.
        kid_deviation: standard deviation of KID between subsets.  These overlap: it is no error of the average.
        generated, real, split: numbers of images, and which real ones these are.
        subsets, subset_size: of KID, and the images in each.
        feature, num_features: which network made the features, and the length of its vectors.
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
    encoding: Encoding | None = None,
    feature: torch.nn.Module | None = None,
    subsets: int = 100,
    subset_size: int | None = None,
    batch: int = 64,
    seed: int = 0,
) -> InceptionDistances:
    """FID and KID of generated images: smaller is better.

    Phases become bytes by their encoding; one grey channel is repeated to three.

    Args:
        generated, real: phases (n, C, H, W) in radians, or bytes, with 1 or 3 channels.
        split: the name of the split that ``real`` is, for the record, such as "test".
        encoding: what phases stand for, :class:`kodm_lite.GreyLevels`; angles make no bytes, and bytes need none.
        feature: maps bytes (B, 3, H, W) to features (B, F); by default Inception v3 as published values use it.
        subsets, subset_size: random subsets that KID is averaged over, and images in each; by default half of the
            smaller set, at most 1000.
        batch: images that pass the network at a time.
        seed: integer from which the subsets are drawn.

    Raises:
        ValueError: no such images, images of two shapes, a subset larger than the sets, neither ``feature`` nor
            torch-fidelity with its weights.

    Source: Heusel et al. 2017; Bińkowski et al. 2018.
    """
    images = [_bytes(generated, "generated", encoding), _bytes(real, "real", encoding)]
    check_one_shape(images[0], images[1], "generated, real")
    smaller = min(len(generated), len(real))
    size = min(_LARGEST_SUBSET, smaller // 2) if subset_size is None else subset_size
    check_range("subset_size", size, 2, smaller)
    check_count("subsets", subsets, 1)
    check_count("batch", batch, 1)
    check_count("seed", seed, 0)
    if feature is not None and not isinstance(feature, torch.nn.Module):
        raise ValueError(f"feature: got {type(feature).__name__}, expected a module; try leaving it out")
    name = "Inception v3 of torch-fidelity" if feature is None else type(feature).__name__
    network = inception_network() if feature is None else feature
    of_generated, of_real = (_features(network, x, batch) for x in images)
    kid, deviation = _kernel_distance(of_generated, of_real, subsets, size, seed)
    sets = len(generated), len(real), split, subsets, size
    return InceptionDistances(frechet_distance(of_generated, of_real), kid, deviation, *sets, name, of_real.shape[1])


def _bytes(images: Tensor, name: str, encoding: Encoding | None) -> Tensor:
    """Bytes (B, 3, H, W) of phases or bytes."""
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        check_images(images, name)
        if 0 <= float(images.min()) and float(images.max()) <= 1:
            got = f"grey values from {float(images.min()):.4g} to {float(images.max()):.4g}"
            raise ValueError(f"{name}: got {got}, expected phases or bytes; try GreyLevels(0.5).encode(2 * {name} - 1)")
        if not isinstance(encoding, GreyLevels):
            raise ValueError(f"encoding: got {encoding!r}, expected grey levels, which make bytes; try data.encoding")
        images = encoding.to_uint8(images.detach())
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) < 2:
        expected = "at least 2 images (B, C, H, W) with 1 or 3 channels"
        raise ValueError(f"{name}: got shape {tuple(images.shape)}, expected {expected}; try {name}[:, None]")
    return images.expand(-1, 3, -1, -1)


def inception_network() -> torch.nn.Module:
    """The network of the FID; ValueError if torch-fidelity does not work, or its weights cannot be fetched."""
    try:
        importlib.import_module("torch_fidelity")  # here, because it is optional
        from torchmetrics.image.fid import FrechetInceptionDistance

        network = FrechetInceptionDistance(feature=_INCEPTION_FEATURES).inception
    except Exception as error:  # a package that does not fit torch raises what it likes, and so does a failed download
        got = f"None without a torch-fidelity that works ({type(error).__name__}: {error})"
        raise ValueError(f'feature: got {got}, expected it installed; try pip install ".[fid]" in a clone') from error
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
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(subsets):
        a, b = (x[torch.randperm(len(x), generator=generator)[:size].to(x.device)] for x in (real, generated))
        same, other, across = ((x @ y.T / x.shape[1] + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
        pairs = size * (size - 1)  # without those of an image with itself, which would be a bias
        found.append((same.sum() - same.trace() + other.sum() - other.trace()) / pairs - 2 * across.mean())
    return float(torch.stack(found).mean()), float(torch.stack(found).std(correction=0))
