r"""Fingerprints made on the spot: arches, loops and whorls.

Twice the angle of the ridges is the argument of a rational function, :math:`\prod_k (z - c_k) / \prod_l (z - d_l)`:
its zeros are the cores, its poles the deltas.  Ridges grow along that field out of noise.  Nobody's finger was used.

Source: Sherlock and Monro 1993 (zeros and poles); Cappelli et al. 2000 (ridges from noise).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from itertools import count, islice
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from kodm_lite.circular import wrap
from kodm_lite.data.options import check_choice, check_whole
from kodm_lite.data.phase_data import PhaseData
from kodm_lite.data.ridges import grow_ridges
from kodm_lite.encoding import HALF_CIRCLE, Angles, GreyLevels
from kodm_lite.orientation import blur

__all__ = ["FINGERPRINTS", "Fingers", "draw_fingers", "fingerprints"]

FINGERPRINTS = ("arch", "left loop", "right loop", "whorl")

Split = Literal["train", "test"]
_TEST_SHARE = 0.1
_MARGIN = 16  # pixels beyond each edge of the image, so that ridges do not feel the opposite one
_CHUNK = 64  # fingers drawn at a time
# Cores and deltas in units of half the image, x to the right, y down, from the middle of the print.
_CORES = {"arch": (), "left loop": (-0.2j,), "right loop": (-0.2j,), "whorl": (-0.3j, 0.15j)}
_DELTAS = {"arch": (), "left loop": (0.5 + 0.55j,), "right loop": (-0.5 + 0.55j,), "whorl": (-0.6 + 0.6j, 0.6 + 0.6j)}


class Fingers(NamedTuple):
    """Prints and what they were made from.

    Args:
        image: grey values (n, 1, H, W) in [-1, 1]; ridges are dark, what did not touch is white.
        doubled: twice the angle of the ridges (n, H, W), radians in [-pi, pi), also where nothing touched.
        coherence: length of the mean of exp(i doubled) over a neighbourhood (n, H, W): near 0 at cores and deltas.
        inside: where the finger touched (n, H, W), booleans.
        labels: index into ``FINGERPRINTS`` (n,).
        cores: row and column in pixels (n, 2, 2), NaN where there is none.
        deltas: the same.
    """

    image: Tensor
    doubled: Tensor
    coherence: Tensor
    inside: Tensor
    labels: Tensor
    cores: Tensor
    deltas: Tensor


def fingerprints(
    size: int = 64,
    split: Split = "train",
    n: int = 512,
    seed: int = 0,
    kind: Literal["ridges", "orientation"] = "ridges",
    period: float = 9.0,
    pores: bool = False,
    noise: float = 0.0,
    scale: float = HALF_CIRCLE.scale,
    progress: bool = True,
) -> PhaseData:
    """Made fingerprints as phases, or their orientations.

    Classes take turns.  Each finger has a number; a hash of it and of ``seed`` says whether the finger is in the
    training or in the test split.

    Args:
        size: side of the image in pixels, which shows the whole print at any size.
        split: "train" or "test".
        n: number of fingers, of which each has one print.
        seed: integer; other fingers.
        kind: "ridges": what an ink print shows; "orientation": twice the angle of the ridges, at every pixel of the
            image.
        period: from ridge to ridge in pixels, at least 3; 9 at 500 dots per inch.
        pores: leave white dots on the ridges.
        noise: standard deviation of noise of the grey values, which lie in [-1, 1].
        scale: of :class:`kodm_lite.GreyLevels`.  Prints are nearly black and white: with 0.5 these are opposite
            angles, with 0.9, as in the paper, neighbours.
        progress: show a progress bar if it takes more than two seconds.

    Returns:
        :class:`PhaseData` with theta (n, 1, size, size).

    Raises:
        ValueError: options out of range.

    >>> data = fingerprints(size=32, n=8, period=5)
    >>> data.theta.shape, data.labels.tolist()
    (torch.Size([8, 1, 32, 32]), [0, 1, 2, 3, 0, 1, 2, 3])
    """
    check_choice("kind", kind, ("ridges", "orientation"))
    encoding = GreyLevels(scale)
    ridges = kind == "ridges"
    theta, labels = [], []
    for few in _drawn(size, split, n, seed, period, pores, noise, ridges, progress):  # all else of them is let go
        theta.append(encoding.encode(few.image) if ridges else few.doubled[:, None])
        labels.append(few.labels)
    made = "fingerprints" if ridges else "orientations of fingerprints"
    return PhaseData(
        theta=torch.cat(theta),
        labels=torch.cat(labels),
        names=FINGERPRINTS,
        encoding=encoding if ridges else Angles(),
        source=f"{made} made by kodm_lite, ridges {period:g} pixels apart",
        licence="none needed: the data are made from random numbers",
    )


def draw_fingers(
    size: int = 64,
    split: Split = "train",
    n: int = 512,
    seed: int = 0,
    period: float = 9.0,
    pores: bool = False,
    noise: float = 0.0,
    ridges: bool = True,
    progress: bool = True,
) -> Fingers:
    """Fingers with their prints, orientations, and places of cores and deltas.

    Args:
        ridges: False leaves the images white, which is faster.
        size, split, n, seed, period, pores, noise, progress: see :func:`fingerprints`.
    """
    drawn = list(_drawn(size, split, n, seed, period, pores, noise, ridges, progress))
    return Fingers(*(torch.cat(parts) for parts in zip(*drawn, strict=True)))


def _drawn(
    size: int, split: Split, n: int, seed: int, period: float, pores: bool, noise: float, ridges: bool, progress: bool
) -> Iterator[Fingers]:
    """Some fingers at a time."""
    size, n = check_whole("size", size, 16, hint=64, unit=" pixels"), check_whole("n", n, 1, hint=512, unit=" fingers")
    check_choice("split", split, ("train", "test"))
    check_whole("seed", seed, 0)
    _check_number("period", period, 3, size / 2, 9, "pixels, at most half the side")
    _check_number("noise", noise, 0, 1, 0.1, "standard deviations")
    keys = [islice(_fingers_of(label, split, seed), (n + 3 - label) // 4) for label in range(4)]
    turns = [(label, next(keys[label])) for label in (k % 4 for k in range(n))]
    chunks = [turns[start : start + _CHUNK] for start in range(0, n, _CHUNK)]
    with tqdm(total=n, desc="fingerprints", unit="print", delay=2, disable=not progress) as bar:
        for chunk in chunks:
            yield _draw(chunk, size, period, pores, noise, ridges)
            bar.update(len(chunk))


def _check_number(name: str, value: Any, least: float, most: float, hint: float, unit: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f"{name}: got {value!r}, expected {least} to {most:g} {unit}; try {name}={hint}")


def _fingers_of(label: int, split: str, seed: int) -> Iterator[int]:
    """The fingers of a class in a split, each as the seed of its generator."""
    for number in count():
        digest = hashlib.sha256(f"{seed}/{label}/{number}".encode()).digest()
        in_test = int.from_bytes(digest[8:16], "big") < _TEST_SHARE * 2**64
        if in_test == (split == "test"):
            yield int.from_bytes(digest[:8], "big") >> 1


def _draw(fingers: list[tuple[int, int]], size: int, period: float, pores: bool, noise: float, ridges: bool) -> Fingers:
    """A chunk of fingers, given by label and seed."""
    generators = [torch.Generator().manual_seed(seed) for _, seed in fingers]
    wide = size + 2 * _MARGIN
    doubled, points, touch, white = [], [], [], []
    for (label, _), generator in zip(fingers, generators, strict=True):
        field, cores, deltas, middle = _orientations(FINGERPRINTS[label], size, generator)
        doubled.append(field)
        points.append(torch.stack([cores, deltas]))
        touch.append(_contact(middle, size, generator))
        if ridges:
            white.append(torch.randn(3, wide, wide, generator=generator))
    field, contact = torch.stack(doubled), torch.stack(touch)
    inner = slice(_MARGIN, _MARGIN + size)
    image = torch.ones(len(fingers), size, size)
    if ridges:
        noises = torch.stack(white)
        height = grow_ridges(noises[:, 0], field, period)[:, inner, inner]
        image = _print(height, contact, noises[:, 1:, inner, inner], period, pores, noise)
    vector = torch.polar(torch.ones_like(field), field)
    coherence = torch.hypot(blur(vector.real, 3.0), blur(vector.imag, 3.0))[:, inner, inner].contiguous()
    return Fingers(
        image[:, None],
        field[:, inner, inner].contiguous(),
        coherence,
        contact > 0.5,
        torch.tensor([label for label, _ in fingers]),
        *torch.stack(points).unbind(1),
    )


def _orientations(kind: str, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, complex]:
    """Doubled angles on the image and its margin, places of cores and deltas (2, 2), middle of the print in pixels."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    half = size / 2
    middle = complex(*((size - 1) / 2 + 0.06 * half * normal(2)).tolist())  # column, row
    turn = 0.15 * float(normal(1))  # radians; fingers are rarely put down straight
    shifts = 0.06 * torch.complex(normal(4), normal(4))
    rotation = complex(math.cos(turn), math.sin(turn))
    cores, deltas = (
        [middle + half * rotation * (place + complex(shift)) for place, shift in zip(places[kind], own, strict=False)]
        for places, own in ((_CORES, shifts[:2].tolist()), (_DELTAS, shifts[2:].tolist()))
    )
    pixel = torch.arange(-_MARGIN, size + _MARGIN, dtype=torch.float32)
    z = torch.complex(*torch.meshgrid(pixel, pixel, indexing="xy"))  # column + i row
    if kind == "arch":
        doubled = _arch((z - middle) / (half * rotation), normal(2)) + 2 * turn
    else:
        zeros, poles = (torch.stack([torch.angle(z - place) for place in places]).sum(0) for places in (cores, deltas))
        doubled = zeros - poles + 2 * turn
    return wrap(doubled), _places(cores), _places(deltas), middle


def _arch(z: Tensor, shape: Tensor) -> Tensor:
    """Doubled angles of ridges that rise and fall like a bell, which is highest below the middle."""
    height, width = 0.6 + 0.1 * float(shape[0]), 0.45 + 0.03 * float(shape[1])
    slope = height * z.real / width**2 * torch.exp(-z.real.square() / (2 * width**2))
    return 2 * torch.atan(slope * torch.exp(-(z.imag - 0.25).square() / (2 * 0.5**2)))


def _places(points: list[complex]) -> Tensor:
    """Row and column (2, 2), NaN where there is no point."""
    rows = [[point.imag, point.real] for point in points]
    return torch.tensor([*rows, *[[math.nan, math.nan]] * (2 - len(rows))])


def _contact(middle: complex, size: int, generator: torch.Generator) -> Tensor:
    """1 where the finger touched, 0 outside, with an edge of a pixel or two (size, size)."""
    pixel = torch.arange(size, dtype=torch.float32)
    z = torch.complex(*torch.meshgrid(pixel, pixel, indexing="xy")) - middle
    waves = torch.arange(1.0, 6.0)
    amplitude = 0.04 * torch.randn(5, generator=generator) / waves.sqrt()
    phase = 2 * math.pi * torch.rand(5, generator=generator)
    angle = torch.angle(z)
    edge = 0.92 + (amplitude * torch.cos(waves * angle[..., None] + phase)).sum(-1)
    stretched = torch.hypot(z.real / 0.85, z.imag / 1.05)  # fingertips are longer than wide
    return torch.sigmoid(2 * (edge * size / 2 - stretched))


def _print(height: Tensor, contact: Tensor, noises: Tensor, period: float, pores: bool, noise: float) -> Tensor:
    """Grey values of ridges pressed on paper, more in some places than in others (n, H, W)."""
    pressure = blur(noises[:, 0], 6.0)
    pressure = pressure / pressure.flatten(1).std(1)[:, None, None]
    ink = (1 + torch.tanh(1.5 * (height + 0.25 * pressure)) / math.tanh(1.5)) / 2
    if pores:
        dots = blur(noises[:, 1], 0.1 * period)
        peak = torch.nn.functional.max_pool2d(dots[:, None], 2 * round(period / 3) + 1, 1, round(period / 3))[:, 0]
        on_ridges = (dots == peak) & (height > 0.8)
        radius = max(0.3, 0.08 * period)  # pixels
        spots = blur(on_ridges.float(), radius) * (2 * math.pi * radius**2)
        ink = ink * (1 - spots.clamp(max=1.0))
    grey = 1 - 2 * ink.clamp(0, 1) * contact
    return (grey + noise * noises[:, 1]).clamp(-1, 1)
