"""Samples of any model, whatever it is a model of: phases, images as numbers, coefficients on the sphere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from kodm_lite.checkpoints import Model
from kodm_lite.circular import wrap
from kodm_lite.euclidean import WhiteNoise, sample_euclidean
from kodm_lite.models import Process
from kodm_lite.process import KuramotoProcess
from kodm_lite.samplers import Calibration, sample
from kodm_lite.scores import guided

__all__ = ["draw", "draw_in_chunks"]


def draw(
    network: Any,
    process: Process,
    shape: tuple[int, ...],
    *,
    scale: float = 0.9,
    calibration: Calibration | None = None,
    label: int | None = None,
    guidance: float = 1.0,
    **options: Any,
) -> Tensor:
    """Samples of a network by the sampler of its process.

    Args:
        network: the score of a Kuramoto process, or the noise that a Euclidean diffusion predicts.
        process: the forward process.
        shape: (B, ...).
        scale: of :func:`kodm_lite.image_to_phase`: images of a Euclidean diffusion end at black and white.
        calibration: for those samplers of a Kuramoto process that need one.
        label: class of the samples; None for all classes.
        guidance: weight of :func:`kodm_lite.scores.guided`, with a label.
        options: steps, method, seeds and so on, of :func:`kodm_lite.sample` or
            :func:`kodm_lite.euclidean.sample_euclidean`.

    Returns:
        Phases of the given shape, radians in [-pi, pi), or coefficients on the sphere.

    Raises:
        ValueError, FloatingPointError: see the samplers.
    """
    if label is None and guidance != 1:
        raise ValueError(f"guidance: got {guidance} without a label, expected a class to insist on; try label=0")
    field = network if label is None else guided(network, label, guidance)
    if isinstance(process, KuramotoProcess):
        return sample(field, process, shape, calibration=calibration, **options)
    x = sample_euclidean(field, process, shape, **options)
    if not isinstance(process.noise, WhiteNoise):  # coefficients, which are no angles
        return x
    return wrap(x.clamp(-scale * math.pi, scale * math.pi))


def draw_in_chunks(model: Model, seeds: Sequence[int], chunk: int, **options: Any) -> Iterator[Tensor]:
    """Any number of samples of a model, so many at a time that they fit the memory.

    Args:
        model: from :func:`kodm_lite.checkpoints.load`, on any device.
        seeds: one integer for each sample, which depends on nothing else.
        chunk: samples at once.
        options: of :func:`draw`.

    Yields:
        Samples (B, ...) on the CPU.
    """
    device = next(model.network.parameters()).device
    for start in range(0, len(seeds), chunk):
        own = seeds[start : start + chunk]
        yield draw(
            model.network,
            model.process,
            (len(own), *model.shape),
            scale=model.scale,
            calibration=model.calibration,
            seeds=own,
            device=device,
            **options,
        ).cpu()
