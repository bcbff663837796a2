r"""Fill in what is missing of an image, given the rest.  Book: fingerprints.

The known phases are put where the forward process takes them, and the missing ones follow the reverse process around
them.  That alone is wrong: reverse steps move both parts together, and do not know that one of them will be put back.
But for given phases :math:`\theta_K` at a time t, the score of the missing ones is a part of the score that the network
knows,

.. math:: \nabla_{\theta_U} \log p_t(\theta_U \mid \theta_K) = \nabla_{\theta_U} \log p_t(\theta_U, \theta_K) ,

so that Langevin steps of :math:`\theta_U` alone have the right conditional law.  A few of them after every reverse step
bring the missing part to the law at t given the known part at t, and at t = 0 that is the law that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from tqdm.auto import tqdm

from kodm_lite.calibration import Calibration
from kodm_lite.circular import wrap
from kodm_lite.priors import GibbsPrior
from kodm_lite.process import KuramotoProcess
from kodm_lite.randomness import Generators, normal, one_generator_per_seed
from kodm_lite.samplers import Score, sample, time_grid
from kodm_lite.validation import check_choice, check_count, check_number, told

__all__ = ["inpaint"]


@torch.no_grad()
def inpaint(  # arguments as of sample, of which it is a variant
    network: Score,
    process: KuramotoProcess,
    known: Tensor,
    missing: Tensor,
    *,
    steps: int = 50,
    corrections: int = 4,
    size: float = 0.2,
    method: Literal["ode", "ancestral", "euler"] = "ode",
    calibration: Calibration | None = None,
    generator: Generators = None,
    seeds: Sequence[int] | None = None,
    callback: Callable[[float, Tensor], None] | None = None,
    progress: bool = False,
) -> Tensor:
    """Draw what is missing from its law given what is known.

    Args:
        network, process: the score, called as ``network(theta, t)``, and the forward process.
        known: phases (B, ...), radians; what stands where they are missing does not matter.
        missing: where they are missing: booleans of the same shape, or of a shape that broadcasts to it.
        steps: reverse steps, evenly spaced from t = 1 to 0.
        corrections: Langevin steps after each of them; 0 is fast and wrong, many are slow and right.
        size: of a Langevin step, in units of the variance of the noise; small ones have less bias.
        method: of the reverse steps, see :func:`kodm_lite.sample`; each begins anew, so that "ode" is of first order.
        calibration: for the methods that need one.
        generator, seeds: None, one, or one per image; or one integer per image instead.
        callback: called with (t, theta) at the start and after every reverse step with its corrections.
        progress: show a progress bar.

    Returns:
        Phases (B, ...) in [-pi, pi), equal to ``known`` where that is known.

    Raises:
        ValueError: phases or a mask that do not fit, an image of which nothing is known, options out of range.
        FloatingPointError: see :func:`kodm_lite.sample`.

    Source: Song et al. 2021, section 5 (imputation); Besag 1994 (Langevin steps).
    """
    check_choice("method", method, ("ode", "ancestral", "euler"))
    if not isinstance(process, KuramotoProcess):
        raise ValueError(f"process: got {told(process)}, expected a KuramotoProcess; try that of the model")
    missing = _check(known, missing, corrections, size)
    known = known.masked_fill(missing, 0.0)
    process.validate(known, "known")
    generator = one_generator_per_seed(seeds, len(known), generator, known.device)
    grid = time_grid(steps)
    path = process.trajectory(_filled(known, missing, generator), grid[::-1], generator=generator).flip(0)
    start = GibbsPrior(process).sample(tuple(known.shape), generator)
    theta = torch.where(missing, start.to(known), path[0])
    if callback is not None:
        callback(1.0, theta)
    for k in tqdm(range(1, len(grid)), disable=not progress, unit="step"):
        t1, t0 = grid[k - 1], grid[k]
        options = {"times": [t1, t0], "start": theta, "generator": generator, "calibration": calibration}
        theta = sample(network, process, tuple(known.shape), method=method, **options)  # type: ignore[arg-type]
        theta = torch.where(missing, theta, path[k])
        if t0 > 0:
            now = torch.full((len(theta),), t0, dtype=theta.dtype, device=theta.device)
            h = size * (1 - float(torch.exp(-process.clock(now[:1]))))
            for _ in range(corrections):
                moved = theta + h * network(theta, now) + (2 * h) ** 0.5 * normal(theta, generator)
                theta = torch.where(missing, wrap(moved), theta)
        if callback is not None:
            callback(t0, theta)
    return torch.where(missing, theta, wrap(known))


def _filled(known: Tensor, missing: Tensor, generator: Generators) -> Tensor:
    """The image with phases of its known part, drawn at random, where it is missing.

    The known phases feel all others on their way, and these give them about the field that they would have felt.
    """
    order = normal(known, generator).masked_fill(missing, float("inf")).flatten(1).argsort(1)  # known ones first
    count = (~missing).flatten(1).sum(1, keepdim=True)
    place = torch.arange(order.shape[1], device=known.device) % count
    drawn = known.flatten(1).gather(1, order.gather(1, place)).reshape(known.shape)
    return torch.where(missing, drawn, known)


def _check(known: Tensor, missing: Tensor, corrections: int, size: float) -> Tensor:
    """The mask in the shape of the phases."""
    if not isinstance(known, Tensor):
        raise ValueError(f"known: got {told(known)}, expected a torch tensor; try torch.as_tensor(known)")
    if not isinstance(missing, Tensor) or missing.dtype != torch.bool:
        raise ValueError(f"missing: got {told(missing)}, expected booleans; try missing > 0.5")
    try:
        missing = missing.to(known.device).expand(known.shape)
    except RuntimeError as error:
        got, expected = tuple(missing.shape), f"one that broadcasts to {tuple(known.shape)}, that of known"
        raise ValueError(f"missing: got shape {got}, expected {expected}; try missing[:, None]") from error
    if bool(missing.flatten(1).all(1).any()):
        raise ValueError("missing: got an image of which nothing is known, expected one phase at least; try sample")
    check_count("corrections", corrections, 0)
    check_number("size", size, 0, 1, 0.2, open_low=True)
    return missing
