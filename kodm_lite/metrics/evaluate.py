"""All cheap metrics of a set of generated images, each with its error and its floor."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from kodm_lite.data.phase_data import PhaseData
from kodm_lite.encoding import Encoding
from kodm_lite.metrics.angles import has_angle
from kodm_lite.metrics.by_kind import metrics_for
from kodm_lite.metrics.resampling import jackknife
from kodm_lite.metrics.validation import check_images, check_one_shape
from kodm_lite.validation import check_count

__all__ = ["Evaluation", "Row", "evaluate", "images_in_each_set"]

_GROUPS = 10  # of the jackknife
_FEWEST = 2 * _GROUPS  # images in each set


class Row(NamedTuple):
    """One metric: its name with the unit, its value of generated against real images, and one standard error.

    The floor is that of real images against other real images, in sets of the same size: what a perfect model would
    have.  ``better`` says whether smaller or larger values are.  A note tells of angles that are undefined: images
    without one are left out, and with fewer than a tenth of a set left the numbers are NaN.
    """

    metric: str
    value: float
    error: float
    floor: float
    better: Literal["lower", "higher"]
    note: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found.

    Args:
        rows: one for each metric.
        images: number of images in each set that was compared, drawn from ``seed``.
        generated, real, train: numbers of images that were given; 0 without.
        source, encoding: where the real images come from, and what the phases stand for.
    """

    rows: tuple[Row, ...]
    images: int
    generated: int
    real: int
    train: int
    source: str
    encoding: Encoding
    seed: int

    def as_table(self) -> str:
        """Lines of text in columns, and a last line that says what was compared."""
        head = ("metric", "value", "error", "floor", "better")
        body = [(row.metric, *(f"{x:.4g}" for x in row[1:4]), row.better) for row in self.rows]
        widths = [max(len(line[k]) for line in (head, *body)) for k in range(len(head))]
        formats = [f"{{:{'<' if k == 0 else '>'}{width}}}" for k, width in enumerate(widths)]
        lines = ["  ".join(formats).format(*line) for line in (head, *body)]
        notes = [f"{row.metric}: {row.note}." for row in self.rows if row.note]
        return "\n".join([*lines, "", *notes, self.what()])

    def what(self) -> str:
        """One sentence on the sets that were compared."""
        train = f", {self.train} training images" if self.train else ""
        return (
            f"Sets of {self.images} images each, drawn from {self.generated} generated and {self.real} real images "
            f"({self.source}){train}, seed {self.seed}.  Error: jackknife.  Floor: real against other real images."
        )

    def to_dict(self) -> dict[str, Any]:
        """Numbers, texts, lists and dicts only, for JSON; None for what is undefined."""
        rows = [{key: x if x == x else None for key, x in row._asdict().items()} for row in self.rows]  # NaN != NaN
        return {**asdict(self), "encoding": self.encoding.to_dict(), "rows": rows}


def evaluate(generated: Tensor, real: PhaseData, train: PhaseData | None = None, seed: int = 0) -> Evaluation:
    """Measure generated images against real ones.

    The real images are parted into two random sets, and as many generated images drawn as each of them has; sets that
    are larger than the generated one are cut to its size.  Values compare generated images with the first real set,
    floors the second real set with the first.

    Texture features are in units of their deviation over ``real``.  Phases that are angles from the start have no
    brightness and no lines: there, texture features and spectra are those of their cosine and sine, and the
    distribution of the phases takes the place of mean brightness and orientations.

    Args:
        generated: phases (n, C, H, W), radians, at least 20 images.
        real: at least 40 real images, which the model has not seen if ``train`` is given.  Labels add class shares.
        train: what the model was trained on; adds a row on memorisation, which takes time proportional to its size.
        seed: integer from which the sets are drawn.

    Raises:
        ValueError: too few images, images of different shapes or scales, flat images, real images that are in train.

    >>> from kodm_lite.data import textures
    >>> found = evaluate(textures(n=60).theta, textures(n=120, split="test"))
    >>> found.images, found.rows[0].metric, found.rows[0].better
    (60, 'Fréchet texture distance', 'lower')
    """
    images = _check(generated, real, train, seed)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(real), generator=generator)
    first, second = real.theta[order[:images]], real.theta[order[images : 2 * images]]
    drawn = generated.detach()[torch.randperm(len(generated), generator=generator)[:images]].to(first)
    for name, theta in (("generated", drawn), ("real", first), ("real", second)):
        _check_not_flat(name, theta)
    rows: list[Row] = []
    known: dict[Callable[[Tensor], Tensor], list[Tensor]] = {}
    for metric in metrics_for(real, train):
        if metric.entries not in known:  # several metrics have the same entries
            known[metric.entries] = [metric.entries(theta) for theta in (drawn, first, second)]
        of_drawn, of_first, of_second = known[metric.entries]
        estimate = jackknife(metric.distance, of_drawn, of_first, _GROUPS, torch.Generator().manual_seed(seed))
        floor = metric.distance(of_second, of_first)
        note = _note(metric.angle, estimate.value, of_drawn, torch.cat([of_first, of_second]))
        rows.append(Row(metric.name, estimate.value, estimate.error, floor, metric.better, note))
    counts = images, len(generated), len(real), 0 if train is None else len(train)
    return Evaluation(tuple(rows), *counts, real.source, real.encoding, seed)


def images_in_each_set(generated: int, real: int) -> int:
    """How many images of each kind :func:`evaluate` compares; ValueError for too few."""
    images = min(generated, real // 2)
    if images < _FEWEST:
        hints = [f"-n {_FEWEST} or more samples"] if generated < _FEWEST else []
        hints += ["more images, a larger test share, several crops of each (--crops)"] if real < 2 * _FEWEST else []
        raise ValueError(
            f"generated, real: got {generated} generated images and {real} real ones (of a folder only the test share),"
            f" expected at least {_FEWEST} and {2 * _FEWEST}, as real ones are halved; try {', '.join(hints)}"
        )
    return images


def _note(angle: str, value: float, generated: Tensor, real: Tensor) -> str:
    """Which images have no such angle, if the entries are angles and weights."""
    if not angle:
        return ""
    have = [has_angle(x) for x in (generated, real)]
    if all(bool(x.all()) for x in have):
        return ""
    kinds = zip(have, ("generated", "real"), strict=True)
    counts = " and ".join(f"{int(x.sum())} of {len(x)} {kind}" for x, kind in kinds)
    return f"{'undefined' if math.isnan(value) else 'of some images only'}, as {counts} images have {angle}"


def _check(generated: Tensor, real: PhaseData, train: PhaseData | None, seed: int) -> int:
    """Refuse what cannot be compared, before any work; the number of images in each set."""
    check_count("seed", seed, 0)
    check_images(generated, "generated")
    for name, data in (("real", real), ("train", train))[: 1 if train is None else 2]:
        if not isinstance(data, PhaseData):
            raise ValueError(f"{name}: got {type(data).__name__}, expected PhaseData; try kodm_lite.data.PhaseData")
        check_images(data.theta, name)
        check_one_shape(generated, data.theta, f"generated, {name}")
    if train is not None and train.encoding != real.encoding:
        raise ValueError(f"train: got {train.encoding}, expected {real.encoding} as in real; try two splits of a set")
    return images_in_each_set(len(generated), len(real))


def _check_not_flat(name: str, theta: Tensor) -> None:
    """Refuse sets of which the jackknife could leave out all images that are not flat."""
    shown = int((theta.flatten(1).std(1) >= 1e-6).sum())
    if shown <= -(-len(theta) // _GROUPS):
        got = f"{len(theta) - shown} flat images among {len(theta)}"
        raise ValueError(f"{name}: got {got}, expected images that show something; try to train longer")
