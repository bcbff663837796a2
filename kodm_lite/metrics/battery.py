"""Which metrics an evaluation measures, each split in two: one entry per image, and a number of two sets of entries.

Entries are computed once; the error of a metric then costs no second look at the images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kodm_lite.circular import image_to_phase, phase_to_image
from kodm_lite.data.phase_data import PhaseData
from kodm_lite.metrics.classes import nearest_class
from kodm_lite.metrics.coverage import precision_recall
from kodm_lite.metrics.distributions import circular_wasserstein, kuiper_distance, wasserstein_distance
from kodm_lite.metrics.frechet import frechet_distance
from kodm_lite.metrics.nearest import compare_nearest, nearest_distances
from kodm_lite.metrics.order import image_means, order_statistics
from kodm_lite.metrics.spectrum import peak_frequencies, radial_spectrum
from kodm_lite.metrics.texture import TextureFeatures
from kodm_lite.orientation import orientation_field, winding_numbers

__all__ = ["Metric", "metrics_for"]

_QUANTILE = 0.05  # of memorisation
_CHUNK = 256  # images at a time


class Metric(NamedTuple):
    """One row of an evaluation.

    Args:
        name: with the unit.
        entries: makes entries (n, ...) of phases (n, C, H, W).
        distance: makes a number of two sets of entries.
        better: whether smaller or larger numbers are better.
    """

    name: str
    entries: Callable[[Tensor], Tensor]
    distance: Callable[[Tensor, Tensor], float]
    better: Literal["lower", "higher"] = "lower"


def metrics_for(real: PhaseData, train: PhaseData | None) -> list[Metric]:
    """All metrics that apply to these data, cheap ones.

    Args:
        real: phases that are angles from the start (scale 1) have other metrics; with labels there are class shares.
        train: what the model was trained on, for memorisation.
    """
    angles = real.scale == 1
    texture = _texture(real)
    waves, spectra = _waves(real.scale), _spectra(real.scale)
    metrics = [
        Metric("Fréchet texture distance", texture, frechet_distance),
        Metric("precision (texture)", texture, lambda a, b: precision_recall(a, b).precision, "higher"),
        Metric("recall (texture)", texture, lambda a, b: precision_recall(a, b).recall, "higher"),
        Metric("radial spectrum (cycles/pixel)", spectra, _between_spectra),
        Metric("peak frequency (cycles/pixel)", waves, wasserstein_distance),
        Metric("order parameter, modulus", _order, lambda a, b: wasserstein_distance(a[:, 0], b[:, 0])),
        Metric("order parameter, direction (rad)", _order, _between_directions),
    ]
    if angles:
        metrics += [
            Metric("phases, Wasserstein (rad)", _phases, circular_wasserstein),
            Metric("phases, Kuiper", _phases, kuiper_distance),
            Metric("vortices (per 1000 squares)", _vortices, wasserstein_distance),
        ]
    else:
        fields = _fields(real.scale)
        metrics += [
            Metric("mean phase, Kuiper", image_means, kuiper_distance),
            Metric("doubled orientation, Wasserstein (rad)", fields, _between_orientations),
            Metric("doubled orientation, Kuiper", fields, _kuiper_of_orientations),
            Metric("coherence, Wasserstein", fields, _between_coherences),
        ]
    if real.labels is not None and set(real.labels.tolist()) == set(range(len(real.names))):
        metrics.append(Metric("class shares, total variation", texture, _between_shares(real, texture)))
    if train is not None:
        metrics.append(Metric(f"memorised (real: {_QUANTILE:g})", _to_train(train.theta), _memorised))
    return metrics


def _grey_or_arrows(theta: Tensor, scale: float) -> Tensor:
    """What has a spectrum: grey values, or unit complex numbers for phases that are angles from the start."""
    return torch.polar(torch.ones_like(theta), theta) if scale == 1 else phase_to_image(theta, scale)


def _texture(real: PhaseData) -> Callable[[Tensor], Tensor]:
    if real.scale != 1:
        return TextureFeatures(real.theta, real.scale)
    parts = [(part, TextureFeatures(image_to_phase(part(real.theta), 0.9))) for part in (torch.cos, torch.sin)]
    return lambda theta: torch.cat([features(image_to_phase(part(theta), 0.9)) for part, features in parts], 1)


def _between_shares(real: PhaseData, texture: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], float]:
    assert real.labels is not None
    labels, number, of_real = real.labels, len(real.names), texture(real.theta)

    def distance(a: Tensor, b: Tensor) -> float:
        """Share of images that would have to change their class."""
        counts = (torch.bincount(nearest_class(x, of_real, labels, number), minlength=number) for x in (a, b))
        a_shares, b_shares = (count / count.sum() for count in counts)
        return float((a_shares - b_shares).abs().sum()) / 2

    return distance


def _spectra(scale: float) -> Callable[[Tensor], Tensor]:
    def spectra(theta: Tensor) -> Tensor:
        """Wave numbers and power (n, 2, R)."""
        wave_number, power = radial_spectrum(_grey_or_arrows(theta, scale))
        power = power.mean(1)
        return torch.stack([wave_number.expand_as(power), power], 1)

    return spectra


def _between_spectra(a: Tensor, b: Tensor) -> float:
    return wasserstein_distance(a[0, 0], b[0, 0], a[:, 1].mean(0), b[:, 1].mean(0))


def _waves(scale: float) -> Callable[[Tensor], Tensor]:
    return lambda theta: peak_frequencies(_grey_or_arrows(theta, scale))


def _order(theta: Tensor) -> Tensor:
    """Modulus and direction (n, 2)."""
    return torch.stack(order_statistics(theta), 1)


def _between_directions(a: Tensor, b: Tensor) -> float:
    return circular_wasserstein(a[:, 1], b[:, 1], a_weights=a[:, 0], b_weights=b[:, 0])


def _phases(theta: Tensor) -> Tensor:
    return torch.remainder(theta.double(), 2 * torch.pi)


def _vortices(theta: Tensor) -> Tensor:
    """Numbers (n,) of points around which the phase turns once, either way, in a thousand squares of four pixels."""
    return 1000 * winding_numbers(theta).abs().double().mean((1, 2, 3))


def _fields(scale: float) -> Callable[[Tensor], Tensor]:
    """Doubled angles and coherences (n, 2, C, H', W') of images at every second row and column.

    Each is a mean over a neighbourhood of several pixels: those between say nothing new, and sorting them takes time.
    """

    def fields(theta: Tensor) -> Tensor:
        parts = (torch.stack(orientation_field(phase_to_image(part, scale)), 1) for part in theta.split(_CHUNK))
        return torch.cat([part[..., ::2, ::2].clone() for part in parts])

    return fields


def _between_orientations(a: Tensor, b: Tensor) -> float:
    return circular_wasserstein(a[:, 0], b[:, 0], a_weights=a[:, 1], b_weights=b[:, 1])


def _kuiper_of_orientations(a: Tensor, b: Tensor) -> float:
    return kuiper_distance(a[:, 0], b[:, 0], a_weights=a[:, 1], b_weights=b[:, 1])


def _between_coherences(a: Tensor, b: Tensor) -> float:
    return wasserstein_distance(a[:, 1], b[:, 1])


def _to_train(train: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda theta: nearest_distances(theta, train)


def _memorised(a: Tensor, b: Tensor) -> float:
    return compare_nearest(a, b, _QUANTILE).share
