"""Which class a generated image belongs to, and how often each class is generated."""

from __future__ import annotations

import torch
from torch import Tensor

from kodm_lite.data.phase_data import PhaseData
from kodm_lite.metrics.texture import TextureFeatures

__all__ = ["class_shares", "classify"]


def classify(theta: Tensor, data: PhaseData, features: TextureFeatures) -> Tensor:
    """Labels (B,) of the classes of ``data.names`` whose mean feature vectors are nearest to each image's.

    Args:
        theta: phases (B, C, H, W), radians.
        data: labelled images of every class.
        features: what measures the distances.

    Raises:
        ValueError: data without labels, with a class of which there is no image, or with another encoding.
    """
    if not isinstance(data, PhaseData) or not isinstance(features, TextureFeatures):
        got = f"{type(data).__name__} and {type(features).__name__}"
        raise ValueError(f"data, features: got {got}, expected PhaseData and TextureFeatures; try data.textures()")
    if not has_every_class(data):
        labels = "no labels" if data.labels is None else f"labels {sorted(set(data.labels.tolist()))}"
        raise ValueError(f"data: got {labels}, expected images of every class of {data.names}; try data.textures()")
    if data.encoding != features.encoding:
        expected = f"{features.encoding} as in the features"
        raise ValueError(f"data: got {data.encoding}, expected {expected}; try TextureFeatures of these data")
    return nearest_class(features(theta), features(data.theta), data)


def class_shares(theta: Tensor, data: PhaseData, features: TextureFeatures) -> Tensor:
    """Share of images that :func:`classify` assigns to each class: a missing class shows as 0.

    Arguments and errors are those of :func:`classify`; shares (classes,), float64, which sum to 1.

    >>> from kodm_lite.data import textures
    >>> data = textures(n=300)
    >>> class_shares(data.of_class("grass"), data, TextureFeatures(data.theta, data.encoding))[1] > 0.9
    tensor(True)
    """
    counts = torch.bincount(classify(theta, data, features), minlength=len(data.names))
    return counts.double() / len(theta)


def has_every_class(data: PhaseData) -> bool:
    """Whether there are images of every class."""
    return data.labels is not None and set(data.labels.tolist()) == set(range(len(data.names)))


def nearest_class(vectors: Tensor, of_data: Tensor, data: PhaseData) -> Tensor:
    """As :func:`classify`, of features (B, F) and (n, F) that are already known."""
    assert data.labels is not None
    labels = data.labels.to(of_data.device)
    centroids = torch.stack([of_data[labels == k].mean(0) for k in range(len(data.names))])
    return torch.cdist(vectors, centroids).argmin(1)
