r"""What samplers need to know of a trained network: how large its scores are, and how far to trust them.

On states of the forward process a trained network is right on average: no multiple of its distance from equilibrium has
a smaller error.  On the states of a sampler, which contain the network's own errors, it need not be ("exposure bias").
It shows in images that go forward to a time and come back: they return too smooth.  The remedy is to shorten the
distance a little,

.. math:: s \to \frac fD + (1 - \epsilon) \Bigl(s - \frac fD\Bigr) ,

by as much as it takes for the energy of the bonds between neighbours to return.  Chapter 9 of the book measures both.

Source: Bao et al. 2022 for the second moments; Ning et al. 2024 (arXiv 2308.15321), who scale the predicted noise; on
the circle, and with the energy of bonds to choose the scale, this project.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from kodm_lite.circular import wrap
from kodm_lite.process import KuramotoProcess
from kodm_lite.randomness import Generators, check_kind
from kodm_lite.samplers import Score, evaluate, sample, time_grid
from kodm_lite.validation import check_count, check_methods, check_number, told

__all__ = ["Calibration", "bond_energy", "calibrate", "calibrate_all", "calibrate_damping", "there_and_back"]

FORTH = 3.0  # the clock V = int 2D at which the way back begins: the kind of image is known, its details are not
TRIAL = 0.05  # damping of the second trip, of the size of what is found
MOST = 0.2
_STATES = 2**22  # phases at all times, that are in memory at once
IMAGES = 64  # times thousands of pixels: the second moment of a score to within a percent
IMAGES_THERE_AND_BACK = 256  # the damping to within 0.01


@dataclass(frozen=True)
class Calibration:
    """What samplers need to know of a score: E[score^2] per phase, and how far to trust it.

    Args:
        times: increasing times in [0, 1].
        second_moments: E[score^2] at those times, >= 0: for the best reverse variance of ancestral steps.
        damping: share by which the flow, also that of "hybrid", shortens the distance of the score from equilibrium;
            0 for an exact score, see :mod:`kodm_lite.calibration`.

    Raises:
        ValueError: not increasing times in [0, 1], each with a finite number >= 0; a damping that is no share.
    """

    times: tuple[float, ...]
    second_moments: tuple[float, ...]
    damping: float = 0.0

    def __post_init__(self) -> None:
        for name in ("times", "second_moments"):
            numbers = getattr(self, name)
            if not isinstance(numbers, tuple | list) or not all(isinstance(x, int | float) for x in numbers):
                raise ValueError(f"calibration: got {name} {told(numbers)}, expected numbers; try a tuple of floats")
            object.__setattr__(self, name, tuple(numbers))
        increasing = all(a < b for a, b in pairwise((0.0 - 1e-9, *self.times, 1.0 + 1e-9)))
        if not (self.times and increasing and len(self.times) == len(self.second_moments)):
            raise ValueError(
                f"calibration: got times {self.times[:5]} and {len(self.second_moments)} moments, expected increasing "
                "times in [0, 1] and one moment each; try calibrate(network, process, data)"
            )
        if not all(0 <= m < math.inf for m in self.second_moments):
            raise ValueError(f"calibration: got E[score^2] = {self.second_moments[:5]}, expected finite numbers >= 0")
        check_number("damping", self.damping, 0.0, 1.0 - 1e-9, "0 for none")

    def damped(self, damping: float) -> Calibration:
        """The same with another damping."""
        return replace(self, damping=damping)

    def at(self, t: float) -> float:
        """E[score^2] at time t, log-linear between the calibrated times and constant outside."""
        check_number("t", t, 0.0, 1.0, "0.5")
        if t <= self.times[0]:
            return self.second_moments[0]
        for (t0, m0), (t1, m1) in pairwise(self._points):
            if t <= t1:
                u = (t - t0) / (t1 - t0)
                return m0 ** (1 - u) * m1**u
        return self.second_moments[-1]

    @property
    def _points(self) -> list[tuple[float, float]]:
        return list(zip(self.times, self.second_moments, strict=True))


@torch.no_grad()
def calibrate(
    network: Score, process: KuramotoProcess, theta0: Tensor, points: int = 50, generator: Generators = None
) -> Calibration:
    """Measure E[score^2] along the forward process, once per network.

    Args:
        network: score, called as ``network(theta, t)`` with t of shape (B,).
        process: the forward process.
        theta0: data (B, ...), radians; the mean runs over all images and phases.
        points: number of times, evenly spaced in (0, 1].
        generator: None, one, or one per image.

    Source: Bao et al. 2022 (Analytic-DPM), on the circle.  Book: chapter 5.
    """
    check_count("points", points)
    check_methods("process", process, "validate", "trajectory")
    process.validate(theta0, "theta0")
    check_kind(generator)
    times = [k / points for k in range(1, points + 1)]
    parts = theta0.split(max(1, _STATES // (points * theta0[0].numel())))
    moments = torch.zeros(points, dtype=torch.float64, device=theta0.device)
    for k, part in enumerate(parts):
        own = generator[k * len(parts[0]) :][: len(part)] if isinstance(generator, Sequence) else generator
        states = process.trajectory(part, times, generator=own)
        squares = [evaluate(network, x, t).double().square().mean() for t, x in zip(times, states, strict=True)]
        moments = moments + torch.stack(squares) * (len(part) / len(theta0))
    return Calibration(tuple(times), tuple(moments.tolist()))


def bond_energy(theta: Tensor) -> Tensor:
    """Mean of 1 - cos over all pairs of neighbours in a row or column: (B,) from phases (B, C, H, W).

    0 for a flat image, 1 for phases without order: the energy of the XY model per bond.

    >>> bond_energy(torch.zeros(2, 1, 4, 4))
    tensor([0., 0.])
    """
    if not isinstance(theta, Tensor) or not theta.is_floating_point() or theta.ndim != 4 or min(theta.shape[2:]) < 2:
        raise ValueError(f"theta: got {told(theta)}, expected images (B, C, H, W) of at least 2 x 2")
    bonds = [1 - wrap(theta.diff(dim=dim)).cos() for dim in (2, 3)]
    return torch.cat([bond.flatten(1) for bond in bonds], 1).mean(1)


def there_and_back(
    network: Score,
    process: KuramotoProcess,
    theta0: Tensor,
    clock: float,
    *,
    steps: int = 20,
    generator: Generators = None,
    **options: Any,
) -> Tensor:
    """Images that went forward to the time with V = ``clock``, and came back by a sampler.

    What differs between them and the images is lost between that time and the data, by the score or by the steps.

    Args:
        network: the score.
        process: its forward process.
        theta0: images (B, C, H, W), or oscillators (B, N), radians.
        clock: V = int 2D, the noise on the way; where the process ends if it does not get so far.
        steps: of the sampler, equal in time.
        generator: None, one, or one per image; for the way forward and for a sampler with noise.
        options: method, calibration, chunk and so on, of :func:`kodm_lite.sample`, but no seeds, start or times.

    Returns:
        Phases of the same shape.

    Raises:
        ValueError: a clock that is not positive, no steps, other options, and whatever the sampler refuses.

    Book: chapter 9.
    """
    if unfit := options.keys() & {"seeds", "start", "times"}:
        raise ValueError(
            f"{unfit.pop()}: got one, expected none, as the way back begins where images went; try generator"
        )
    t = process.time_of(clock)
    times = [t * u for u in time_grid(steps)]
    start = process.simulate(theta0, t, generator=generator, method="heun")
    return sample(network, process, tuple(theta0.shape), start=start, times=times, generator=generator, **options)


def calibrate_damping(
    network: Score,
    process: KuramotoProcess,
    theta0: Tensor,
    calibration: Calibration,
    *,
    steps: int = 50,
    seed: int = 0,
    chunk: int | None = None,
    progress: bool = False,
) -> Calibration:
    """Find the damping with which details return: the energy of bonds of images that go to V = 3 and come back.

    Two trips, without damping and with some, and the straight line through what is missing.  The same noise goes into
    both, so that their difference is well known; for how much is missing, 256 images of textures leave an error of
    the damping of about 0.01.  What the steps themselves lose is in it too, so that they are many.

    Args:
        network: the score; one with classes is asked for none.
        process: its forward process.
        theta0: images (B, C, H, W), radians, of the law that samples should have; those that it has learned will do.
        calibration: to which the damping is added.
        steps: of the probability flow on the way back; 50 from V = 3 are as long as a hundred from the prior.
        seed: of the noise.
        chunk: images at a time.
        progress: show a progress bar.

    Returns:
        The calibration with its damping, between 0 and 0.2; 0 where nothing is missing.  A warning says when more than
        0.2 would be needed, or damping does not help: such a network has not learnt details yet.

    Raises:
        ValueError: phases that are no images.

    Book: chapter 9.
    """
    check_count("steps", steps)
    wanted = float(bond_energy(theta0).mean())
    if wanted == 0:  # flat images, which have no details
        return calibration.damped(0.0)
    states = (steps + 1) * math.ceil(len(theta0) / (chunk or len(theta0)))
    with tqdm(total=2 * states, desc="damping", unit="step", disable=not progress) as bar:

        def missing(damping: float) -> float:
            back = there_and_back(
                network,
                process,
                theta0,
                FORTH,
                steps=steps,
                generator=torch.Generator(theta0.device).manual_seed(seed),
                calibration=calibration.damped(damping),
                chunk=chunk,
                callback=lambda t, theta: bar.update(),
            )
            return 1 - float(bond_energy(back).mean()) / wanted

        first, second = missing(0.0), missing(TRIAL)
    return calibration.damped(_damping(first, second))


def _damping(first: float, second: float) -> float:
    """Where the straight line through what is missing without damping and with ``TRIAL`` ends, from 0 to ``MOST``."""
    if first <= 0:
        return 0.0
    gain = (first - second) / TRIAL
    damping = first / gain if gain > 0 else math.inf
    if damping > MOST:
        warnings.warn(
            f"details: {first:.0%} are missing after a trip to V = {FORTH:g} and back, and damping by {TRIAL} leaves "
            f"{second:.0%}; a longer training may help",
            stacklevel=3,
        )
    return min(damping, MOST) if gain > 0 else 0.0


def calibrate_all(
    network: Score,
    process: KuramotoProcess,
    theta0: Tensor,
    *,
    seed: int = 0,
    chunk: int | None = None,
    progress: bool = False,
) -> Calibration:
    """Everything that samplers need to know of a trained network: :func:`calibrate`, and for images the damping.

    Args:
        network: the score.
        process: its forward process.
        theta0: data, of which the first 256 are used.
        seed: of the noise.
        chunk: images at a time.
        progress: show a progress bar.
    """
    generator = torch.Generator(theta0.device).manual_seed(seed)
    calibration = calibrate(network, process, theta0[:IMAGES], generator=generator)
    if theta0.ndim != 4 or min(theta0.shape[2:]) < 2:  # oscillators, which have no neighbours
        return calibration
    examples = theta0[:IMAGES_THERE_AND_BACK]
    return calibrate_damping(network, process, examples, calibration, seed=seed, chunk=chunk, progress=progress)
