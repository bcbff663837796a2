"""Which metrics an evaluation measures, by kind of data: entries of images, and a number of two sets of entries.

Entries are computed once; the error of a metric then costs no second look at the images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kodm_lite.circular import wrap
from kodm_lite.data.phase_data import PhaseData
from kodm_lite.metrics.angles import directions, image_means, of_angles, of_weights, orientations
from kodm_lite.metrics.classes import has_every_class, nearest_class
from kodm_lite.metrics.coverage import precision_recall
from kodm_lite.metrics.distributions import circular_wasserstein, kuiper_distance, wasserstein_distance
from kodm_lite.metrics.frechet import frechet_distance
from kodm_lite.metrics.nearest import compare_nearest, nearest_distances
from kodm_lite.metrics.spectrum import between_spectra, peak_frequencies, spectra
from kodm_lite.metrics.texture import TextureFeatures
from kodm_lite.orientation import winding_numbers

__all__ = ["Metric", "metrics_for"]

_QUANTILE = 0.05  # of memorisation


class Metric(NamedTuple):
    """One row of an evaluation: its name with the unit, and whether smaller or larger numbers are better.

    ``entries`` makes entries (n, ...) of phases (n, C, H, W), and ``distance`` a number of two sets of them.  Where
    these have an angle that can be undefined, ``angle`` says what an image needs to have one.
    """

    name: str
    entries: Callable[[Tensor], Tensor]
    distance: Callable[[Tensor, Tensor], float]
    better: Literal["lower", "higher"] = "lower"
    angle: str = ""


def metrics_for(real: PhaseData, train: PhaseData | None) -> list[Metric]:
    """All cheap metrics that apply to these data.

    Phases that are angles from the start have other metrics; with labels there are class shares, with ``train``, what
    the model was trained on, there is memorisation.
    """
    angles = real.encoding.cyclic
    texture = TextureFeatures(real.theta, real.encoding)

    def values(theta: Tensor) -> Tensor:
        """What has a spectrum: grey values, or unit complex numbers for phases that are angles from the start."""
        return torch.polar(torch.ones_like(theta), theta) if angles else real.encoding.decode(theta)

    def waves(theta: Tensor) -> Tensor:
        return spectra(values(theta))

    def lines(theta: Tensor) -> Tensor:
        return orientations(values(theta))

    turned, parted = partial(of_angles, circular_wasserstein), partial(of_angles, kuiper_distance)
    apart = partial(of_weights, wasserstein_distance)
    metrics = [
        Metric("Fréchet texture distance", texture, frechet_distance),
        Metric("precision (texture)", texture, lambda a, b: precision_recall(a, b).precision, "higher"),
        Metric("recall (texture)", texture, lambda a, b: precision_recall(a, b).recall, "higher"),
        Metric("radial spectrum (cycles/pixel)", waves, between_spectra),
        Metric("peak frequency (cycles/pixel)", lambda theta: peak_frequencies(values(theta)), wasserstein_distance),
        Metric("order parameter, modulus", directions, apart),
        Metric("order parameter, direction (rad)", directions, turned, angle="an order beyond its error"),
    ]
    if angles:
        metrics += [
            Metric("phases, Wasserstein (rad)", wrap, circular_wasserstein),
            Metric("phases, Kuiper", wrap, kuiper_distance),
            Metric("vortices (per 1000 squares)", _vortices, wasserstein_distance),
        ]
    else:
        metrics += [
            Metric("mean phase, Kuiper", image_means, kuiper_distance),
            Metric("doubled orientation, Wasserstein (rad)", lines, turned, angle="lines that are no noise"),
            Metric("doubled orientation, Kuiper", lines, parted, angle="lines that are no noise"),
            Metric("coherence, Wasserstein", lines, apart),
        ]
    if has_every_class(real):
        metrics.append(Metric("class shares, total variation", texture, _between_shares(real, texture(real.theta))))
    if train is not None:
        to_train = partial(nearest_distances, reference=train.theta)
        metrics.append(Metric(f"memorised (real: {_QUANTILE:g})", to_train, _memorised))
    return metrics


def _vortices(theta: Tensor) -> Tensor:
    """Numbers (n,) of points around which the phase turns once, either way, in a thousand squares of four pixels."""
    return 1000 * winding_numbers(theta).abs().double().mean((1, 2, 3))


def _between_shares(real: PhaseData, of_real: Tensor) -> Callable[[Tensor, Tensor], float]:
    def distance(a: Tensor, b: Tensor) -> float:
        """Share of images that would have to change their class."""
        counts = [torch.bincount(nearest_class(x, of_real, real), minlength=len(real.names)).double() for x in (a, b)]
        return float((counts[0] / len(a) - counts[1] / len(b)).abs().sum()) / 2

    return distance


def _memorised(a: Tensor, b: Tensor) -> float:
    return compare_nearest(a, b, _QUANTILE).share
