r"""Which way the lines of an image run: orientation, coherence, singular points, ridge frequency.

An orientation is a direction without arrow: :math:`\varphi` and :math:`\varphi + \pi` are the same.  Twice the angle is
a phase like any other, and a field of doubled angles is data for everything in this package.  Angles go from the
horizontal axis towards the rows below, as in :class:`kodm_lite.metrics.texture.TextureFeatures`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from kodm_lite.circular import TWO_PI, validate_phases, wrap
from kodm_lite.validation import check_number, told

__all__ = ["OrientationField", "blur", "orientation_field", "ridge_frequency", "singular_points", "winding_numbers"]


class OrientationField(NamedTuple):
    """Twice the angle of the direction along the lines (..., H, W), radians in [-pi, pi), and how sure it is.

    The coherence (..., H, W) is 1 where all gradients of the neighbourhood lie on one line, 0 where no direction is
    preferred or nothing is to be seen.
    """

    doubled: Tensor
    coherence: Tensor


def orientation_field(image: Tensor, gradient_sigma: float = 1.0, window_sigma: float = 3.0) -> OrientationField:
    r"""Local orientations of an image, by its structure tensor.

    Gradients across a line point to either side of it.  Their squares as complex numbers, :math:`(g_x + i g_y)^2`,
    agree, and can be averaged over a neighbourhood; the argument of the mean is twice the angle of the gradients, and
    its modulus over the mean of :math:`|g|^2` the coherence.

    Args:
        image: any numbers (..., H, W), such as phases that stand for grey values; a field of angles has no gradients.
        gradient_sigma: standard deviation in pixels of the Gaussian whose derivative is taken.
        window_sigma: that of the Gaussian over which is averaged.

    Raises:
        ValueError: no floating image of at least 3 x 3 pixels, NaN, widths that are not positive.

    Source: Bigün and Granlund 1987; Kass and Witkin 1987.  Book: fingerprints.

    >>> rows = torch.arange(32.0)[:, None].expand(32, 32)
    >>> field = orientation_field(torch.sin(rows))  # horizontal lines
    >>> bool(field.doubled.abs().max() < 1e-3), bool(field.coherence.min() > 0.999)
    (True, True)
    """
    _check_image(image)
    image = _scaled(image)
    down, right = _gradient(image, gradient_sigma, "gradient_sigma")
    parts = right.square() - down.square(), 2 * right * down, right.square() + down.square()
    real, imaginary, size = (_blur(part, window_sigma, "window_sigma") for part in parts)
    # Rounding alone is no direction: of gradients that small nothing is known.
    limits = torch.finfo(image.dtype)
    seen = size > limits.eps * image.square().amax((-2, -1), keepdim=True).clamp(min=limits.tiny)
    along = torch.atan2(-imaginary, -real)  # lines lie across the gradients: half a turn of the double angle
    coherence = (torch.hypot(real, imaginary) / size.clamp(min=limits.tiny)).clamp(max=1.0)
    return OrientationField(wrap(torch.where(seen, along, 0.0)), torch.where(seen, coherence, 0.0))


def winding_numbers(doubled: Tensor) -> Tensor:
    """How often the doubled angle turns around each square of four pixels: 1 at a core, -1 at a delta, else 0.

    Half of it is the Poincaré index.  On the border of any region the turns of the squares inside add up.  Phases
    (..., H, W), radians, give integers (..., H - 1, W - 1).

    Source: Kawagoe and Tojo 1984.  Book: fingerprints.

    >>> y, x = torch.meshgrid(torch.arange(4.0) - 1.5, torch.arange(4.0) - 1.5, indexing="ij")
    >>> winding_numbers(torch.atan2(y, x))
    tensor([[0, 0, 0],
            [0, 1, 0],
            [0, 0, 0]])
    """
    validate_phases(doubled, "doubled")
    if doubled.ndim < 2:
        raise ValueError(f"doubled: got shape {tuple(doubled.shape)}, expected (..., H, W); try doubled.reshape(H, W)")
    corners = [doubled[..., :-1, :-1], doubled[..., :-1, 1:], doubled[..., 1:, 1:], doubled[..., 1:, :-1]]
    turn = sum(wrap(then - now) for now, then in zip(corners, corners[1:] + corners[:1], strict=True))
    assert isinstance(turn, Tensor)
    return torch.round(turn / TWO_PI).long()


def singular_points(doubled: Tensor, where: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Places (k, 2) of the cores and (l, 2) of the deltas of one field: row and column, between pixels.

    Args:
        doubled: phases (H, W), radians.
        where: mask (H, W) of the pixels that count; a point counts if its four pixels do.

    Raises:
        ValueError: no phases (H, W), a mask of another shape.
    """
    validate_phases(doubled, "doubled")
    if doubled.ndim != 2:
        raise ValueError(f"doubled: got shape {tuple(doubled.shape)}, expected one field (H, W); try doubled[0]")
    winding = winding_numbers(doubled)
    if where is not None:
        if not isinstance(where, Tensor) or where.dtype != torch.bool or where.shape != doubled.shape:
            raise ValueError(f"where: got {told(where)}, expected booleans {tuple(doubled.shape)}; try where > 0.5")
        winding = winding * (where[:-1, :-1] & where[1:, :-1] & where[:-1, 1:] & where[1:, 1:])
    cores, deltas = ((winding * sign > 0).nonzero().to(doubled.dtype) + 0.5 for sign in (1, -1))
    return cores, deltas


def ridge_frequency(image: Tensor, smoothing: float = 1.5, window_sigma: float = 5.0) -> Tensor:
    r"""Local frequency (..., H, W) of parallel lines, in cycles per pixel; 0 where the image is flat.

    A wave of wave vector k has :math:`\langle |\nabla x|^2 \rangle = |k|^2 \langle x^2 \rangle`; both means are over
    a Gaussian neighbourhood, after a blur that leaves of every wave its first harmonic only.

    Args:
        image: any numbers (..., H, W).
        smoothing: standard deviation of the blur in pixels, about a sixth of the period.
        window_sigma: that of the neighbourhood, about half a period at least.

    Raises:
        ValueError: see :func:`orientation_field`.
    """
    _check_image(image)
    image = _scaled(image)
    wide = 1.5 * _check_sigma(window_sigma, "window_sigma")
    wave = image - _blur(image, wide, "window_sigma")  # grey values have a mean, waves have none
    square = _blur(_blur(wave, smoothing, "smoothing").square(), window_sigma, "window_sigma")
    limits = torch.finfo(image.dtype)
    down, right = _gradient(wave, smoothing, "smoothing")
    slope = _blur(down.square() + right.square(), window_sigma, "window_sigma")
    seen = square > limits.eps * image.square().amax((-2, -1), keepdim=True)
    return torch.where(seen, (slope / square.clamp(min=limits.tiny)).sqrt() / TWO_PI, 0.0)


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian mean of width sigma >= 0.3 pixels over the neighbourhood of each pixel (..., H, W), edges continued.

    Raises:
        ValueError: no floating numbers (..., H, W), NaN, a width that is none.
    """
    _check_image(x, "x", 1)
    return _blur(x, sigma, "sigma")


def _blur(x: Tensor, sigma: float, name: str) -> Tensor:
    weights, _ = _gaussian(sigma, x, name)
    return _filtered(x, weights, weights)


def _gradient(x: Tensor, sigma: float, name: str) -> tuple[Tensor, Tensor]:
    """Slopes of the blurred numbers towards the rows below and towards the columns to the right."""
    weights, slopes = _gaussian(sigma, x, name)
    return _filtered(x, slopes, weights), _filtered(x, weights, slopes)


def _gaussian(sigma: float, like: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """A Gaussian and its derivative, as weights of neighbours: their sum is 1, the other has slope 1 on a ramp."""
    _check_sigma(sigma, name)
    reach = math.ceil(4 * sigma)
    place = torch.arange(-reach, reach + 1, dtype=like.dtype, device=like.device)
    weights = torch.exp(-0.5 * (place / sigma).square())
    slopes = place * weights
    return weights / weights.sum(), slopes / (place * slopes).sum()


def _filtered(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Neighbours of each pixel (..., H, W) weighted by ``down`` in its column and ``right`` in its row."""
    height, width, reach = *x.shape[-2:], len(down) // 2
    flat = functional.pad(x.reshape(-1, 1, height, width), (reach, reach, reach, reach), mode="replicate")
    flat = functional.conv2d(functional.conv2d(flat, down[None, None, :, None]), right[None, None, None, :])
    return flat.reshape(x.shape)


def _scaled(image: Tensor) -> Tensor:
    """Each image times the power of two that makes its largest number about one: exact, and squares do not overflow."""
    largest = image.detach().abs().amax((-2, -1), keepdim=True)
    limit = 126 if image.dtype == torch.float32 else 1022
    exponent = torch.frexp(largest).exponent.clamp(-limit, limit).to(image.dtype)
    return image * torch.exp2(-exponent)


def _check_sigma(sigma: float, name: str) -> float:
    """Refuse widths without neighbours to take slopes from, and those beyond any image."""
    return check_number(name, sigma, 0.3, 1000, 3.0, what="a width in pixels")


def _check_image(image: Tensor, name: str = "image", least: int = 3) -> None:
    """Refuse what is no image; values are looked at where they are at hand: not on a GPU, nor under torch.func."""
    kinds = (torch.float32, torch.float64)
    fine = isinstance(image, Tensor) and image.dtype in kinds and image.ndim >= 2
    if not fine or image.numel() == 0 or min(image.shape[-2:]) < least:
        expected = f"float32 or float64 (..., H, W) from {least} x {least}"
        raise ValueError(f"{name}: got {told(image)}, expected {expected}; try {name}.float()")
    at_hand = image.device.type == "cpu" and not torch._C._functorch.is_functorch_wrapped_tensor(image)
    if at_hand and not torch.compiler.is_compiling() and not bool(torch.isfinite(image).all()):
        raise ValueError(f"{name}: got NaN or infinity, expected numbers; try torch.isfinite to find them")
