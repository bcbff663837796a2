"""Real handwritten digits, which come with scikit-learn: no download."""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np
import torch

from kodm_lite.data.folder import interpolated
from kodm_lite.data.options import check_choice
from kodm_lite.data.phase_data import PhaseData
from kodm_lite.encoding import HALF_CIRCLE, GreyLevels

__all__ = ["digits"]

_TEST_SHARE = 1 / 6
_WHITE = 16  # number of the 4 x 4 ink dots that one pixel counts


def digits(
    split: Literal["train", "test"] = "train", size: Literal[8, 16] = 8, scale: float = HALF_CIRCLE.scale
) -> PhaseData:
    """Handwritten digits 0 to 9, as phases: ink is ``scale`` pi, paper -``scale`` pi.

    The 1797 images of 8 x 8 pixels, each a number of dots from 0 to 16, were written by 13 people.  Size 16 enlarges
    them as :func:`image_folder` does.  An image is in the test split if a hash of its pixels says so, which is one in
    six: equal images are never in both.  The hands of the same people are in both, since nothing says who wrote what.
    Needs scikit-learn, ``kodm-lite[data]``.

    Args:
        split: "train" or "test".
        size: side of an image in pixels, 8 or 16.
        scale: of :class:`kodm_lite.GreyLevels`.  Nearly all pixels are ink or paper, which are opposite
            angles for 0.5, and neighbours for the published 0.9.

    Returns:
        :class:`PhaseData` with theta (n, 1, size, size), n = 1515 (test: 282), in the order of scikit-learn.

    Raises:
        ValueError: an unknown split or size, a scale that is not between 0 and 1.
        ImportError: scikit-learn is not installed.

    Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI machine learning repository.

    >>> data = digits(split="test")
    >>> data.theta.shape, data.names[data.labels[0]]
    (torch.Size([282, 1, 8, 8]), '0')
    """
    check_choice("split", split, ("train", "test"))
    check_choice("size", size, (8, 16), " pixels")
    encoding = GreyLevels(scale)
    try:
        from sklearn.datasets import load_digits  # here, because nobody else needs it
    except ImportError as error:
        raise ImportError(
            "digits: got no scikit-learn, expected it to be installed, since the images come with it; "
            "try pip install scikit-learn"
        ) from error
    loaded = load_digits()
    pixels = loaded.images.astype(np.uint8)
    chosen = np.array([(_position(image) < _TEST_SHARE) == (split == "test") for image in pixels])
    images = torch.from_numpy(pixels[chosen]).float()[:, None] / _WHITE
    if size == 16:
        images = torch.stack([interpolated(image, (size, size)) for image in images])
    return PhaseData(
        theta=encoding.encode(images * 2 - 1),
        labels=torch.from_numpy(loaded.target[chosen]).long(),
        names=tuple("0123456789"),
        encoding=encoding,
        source="handwritten digits of scikit-learn (Alpaydin and Kaynak 1998, UCI machine learning repository)",
        licence="CC BY 4.0",
    )


def _position(image: np.ndarray) -> float:
    """Place of an image (8, 8) of bytes between 0 and 1, which depends on its pixels only."""
    return int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:8], "big") / 2**64
