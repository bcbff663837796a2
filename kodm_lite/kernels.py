"""The two laws on the circle that everything is made of: wrapped normal and von Mises.

Both have log-density, score (derivative of the log-density with respect to the angle) and sampling, in the style of
``torch.distributions``.  Chapter 4 of the book derives the formulae and shows how the naive ones fail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from kodm_lite.circular import TWO_PI, angle_difference, check_broadcast, check_precision, is_integer, wrap
from kodm_lite.randomness import Generators, check_one_per_image, normal, uniform
from kodm_lite.validation import told

__all__ = ["VonMises", "WrappedNormal"]

# Below this scale the density is a sum over images of the line, above it a Fourier series.  At the switch the first
# neglected image weighs exp(-4 pi^2) = 7e-18 and the first neglected Fourier mode exp(-81/2) = 3e-18.
_SWITCH = 1.0
_MODES = 8

# A wider law is uniform to all digits; a narrower one, or a mean beyond, overflows single precision.
_WIDEST, _NARROWEST, _FARTHEST = 1e3, 1e-18, 1e30

# Rounds of rejection sampling, of which each accepts 65 % or more: 0.35^28 = 2e-13 is left.
_ROUNDS = 28


class WrappedNormal:
    r"""A normal law on the line wound round the circle: the exact one-step transition of the forward process.

    .. math:: p(\theta) = \sum_{k \in \mathbb{Z}} N(\theta + 2\pi k;\, \mu, \sigma^2)
              = \frac{1}{2\pi}\Bigl(1 + 2\sum_{n \ge 1} e^{-n^2\sigma^2/2} \cos n(\theta - \mu)\Bigr)

    Args:
        loc: mean direction mu, radians, any real number.
        scale: standard deviation sigma on the line, radians, at least 1e-18; accurate from 1e-6 up.
        validate_args: look at the values (one device synchronisation); hot paths switch it off.

    Raises:
        ValueError: scale not positive, NaN in an argument, a mean beyond 1e30.

    Source: Mardia and Jupp 2000, section 3.5.7.  Book: chapter 4.

    >>> WrappedNormal(0.0, 0.01).score(torch.tensor([0.02, 3.0]))
    tensor([  -200., -30000.])
    """

    def __init__(self, loc: Tensor | float, scale: Tensor | float, validate_args: bool = True):
        self.loc, self.scale, self._dtype = _parameters(loc, scale)
        if validate_args:
            _require_mean(self.loc)
            _require(self.scale, self.scale >= _NARROWEST, "scale", "a positive number; try 1e-6 for almost none")

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density at angles ``x`` (radians, any real numbers), with respect to arc length."""
        d, narrow, wide = self._distance(x)
        left, right = _neighbour_images(d, narrow)
        from_images = -0.5 * (d / narrow) ** 2 + torch.log1p(left + right) - torch.log(narrow * math.sqrt(TWO_PI))
        from_series = torch.log1p(_fourier_series(d, wide)[0]) - math.log(TWO_PI)
        return torch.where(self.scale < _SWITCH, from_images, from_series)

    def score(self, x: Tensor) -> Tensor:
        """Derivative of the log-density with respect to ``x``: finite everywhere, zero opposite the mean."""
        d, narrow, wide = self._distance(x)
        left, right = _neighbour_images(d, narrow)
        from_images = -(d + TWO_PI * (right - left) / (1 + left + right)) / narrow**2
        series, derivative = _fourier_series(d, wide)
        return torch.where(self.scale < _SWITCH, from_images, derivative / (1 + series))

    def sample(self, shape: tuple[int, ...] = (), generator: Generators = None) -> Tensor:
        """Independent draws in [-pi, pi), of shape ``shape`` followed by the parameters' shape."""
        _check_shape(shape)
        loc = self.loc.to(self._dtype).expand((*shape, *self.loc.shape))
        return wrap(loc + self.scale.clamp(max=_WIDEST).to(self._dtype) * normal(loc, generator))

    def _distance(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The angle from the mean to x, and the scales of the two sums, each where it converges."""
        check_precision(x, "x")
        d = angle_difference(x, self.loc)
        return d, self.scale.clamp(max=_SWITCH).to(d.dtype), self.scale.clamp(_SWITCH, _WIDEST).to(d.dtype)


def _neighbour_images(d: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the images d - 2 pi and d + 2 pi relative to that of d: at most 1, since abs(d) <= pi."""
    rate = TWO_PI / sigma**2
    return torch.exp(rate * (d - math.pi)), torch.exp(-rate * (d + math.pi))


def _fourier_series(d: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """2 sum_n q_n cos(n d) and its derivative, with q_n = exp(-n^2 sigma^2 / 2), by Clenshaw's recurrence."""
    sin, cos = d.sin(), d.cos()
    even = even_next = odd = odd_next = torch.zeros_like(d)
    for n in range(_MODES, 0, -1):
        q = 2 * torch.exp(-0.5 * (n * sigma) ** 2)
        even, even_next = q + 2 * cos * even - even_next, even
        odd, odd_next = n * q + 2 * cos * odd - odd_next, odd
    return cos * even - even_next, -sin * odd


class VonMises:
    r"""The von Mises law :math:`p(\theta) \propto e^{\kappa\cos(\theta-\mu)}`: where the forward process ends.

    Args:
        loc: mean direction mu, radians.
        concentration: kappa, dimensionless, from 0 (uniform) to 1e4 and beyond.
        validate_args: look at the values (one device synchronisation).

    Raises:
        ValueError: negative concentration, NaN in an argument, a mean beyond 1e30.

    Source: Mardia and Jupp 2000, section 3.5.4; sampling as Best and Fisher 1979.  Book: chapters 3 and 4.

    >>> VonMises(0.0, 2.0).score(torch.tensor([torch.pi / 2]))
    tensor([-2.])
    """

    def __init__(self, loc: Tensor | float, concentration: Tensor | float, validate_args: bool = True):
        self.loc, self.concentration, self._dtype = _parameters(loc, concentration)
        if validate_args:
            _require_mean(self.loc)
            expected = "a number >= 0; try loc + pi for a negative one"
            _require(self.concentration, self.concentration >= 0, "concentration", expected)

    @classmethod
    def from_order_parameter(cls, z: Tensor, validate_args: bool = True) -> VonMises:
        """The von Mises law with E exp(i theta) = z: also the maximum-likelihood fit to data of order parameter z.

        Solves I_1(kappa)/I_0(kappa) = abs(z) by Newton's method, for complex z with abs(z) < 1, else ValueError;
        ``validate_args`` is that of the class.

        >>> law = VonMises.from_order_parameter(torch.tensor(0.5j))
        >>> law.loc, law.concentration
        (tensor(1.5708), tensor(1.1593))
        """
        if not isinstance(z, Tensor) or z.dtype not in (torch.complex64, torch.complex128):
            raise ValueError(f"z: got {told(z)}, expected a complex tensor; try kodm_lite.order_parameter(theta)")
        r = z.abs().to(torch.float64)
        if validate_args:
            _require(r, r < 1, "z", "a modulus below 1; try a mean over several phases")
        kappa = r * (2 - r**2) / (1 - r**2)
        for _ in range(20):
            length = torch.special.i1e(kappa) / torch.special.i0e(kappa)
            slope = 1 - length**2 - torch.where(kappa > 0, length / kappa.clamp(min=1e-300), 0.5)
            kappa = kappa - (length - r) / slope
        sharp = 0.5 / (1 - r) + 0.25  # where the slope has no digits left
        return cls(z.angle(), torch.where(r > 1 - 1e-6, sharp, kappa).to(z.real.dtype), validate_args)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density at angles ``x`` (radians), with respect to arc length."""
        self._check(x)
        half = torch.sin((x - self.loc) / 2)
        # cos d - 1 = -2 sin^2(d/2) keeps its digits at large concentration; i0e = exp(-kappa) I_0(kappa) does not
        # overflow.
        # A tiny shift, because torch differentiates i0e at 0 as if it had an extremum there.
        kappa = self.concentration + torch.finfo(self.concentration.dtype).tiny
        normaliser = torch.log(torch.special.i0e(kappa)) + math.log(TWO_PI)
        return -2 * self.concentration * half**2 - normaliser

    def score(self, x: Tensor) -> Tensor:
        """Derivative of the log-density with respect to ``x``: -kappa sin(x - mu)."""
        self._check(x)
        return -self.concentration * torch.sin(x - self.loc)

    @property
    def mean(self) -> Tensor:
        """The mean direction, radians."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The circular variance 1 - E cos(theta - mu), from 0 to 1."""
        return 1 - self.mean_resultant_length()

    def entropy(self) -> Tensor:
        """- E log p, with respect to arc length."""
        kappa = self.concentration.to(torch.float64)  # the variance is a small difference at large concentrations
        i0e = torch.special.i0e(kappa)
        entropy = math.log(TWO_PI) + torch.log(i0e) + kappa * (1 - torch.special.i1e(kappa) / i0e)
        return entropy.to(self.concentration.dtype)

    def mean_resultant_length(self) -> Tensor:
        """E cos(theta - mu) = I_1(kappa) / I_0(kappa): the order parameter of independent draws."""
        return torch.special.i1e(self.concentration) / torch.special.i0e(self.concentration)

    def sample(self, shape: tuple[int, ...] = (), generator: Generators = None) -> Tensor:
        """Independent draws in [-pi, pi), of shape ``shape`` followed by the parameters' shape.

        Rejection from a wrapped Cauchy law.  At least 65 % of proposals are accepted whatever the concentration, so 28
        rounds leave an unaccepted angle with probability 2e-13: the loop is bounded and cannot hang.
        """
        _check_shape(shape)
        loc = self.loc.to(self._dtype).expand((*shape, *self.loc.shape))
        kappa = self.concentration.expand_as(loc).to(torch.float64)
        if isinstance(generator, Sequence):  # per image: the draws of one must not depend on the others
            check_one_per_image(generator, loc)
            rows = [_centred_von_mises(k, g) for k, g in zip(kappa, generator, strict=True)]
            return wrap(loc + torch.stack(rows).to(loc.dtype))
        return wrap(loc + _centred_von_mises(kappa, generator).to(loc.dtype))

    def _check(self, x: Tensor) -> None:
        check_precision(x, "x")
        check_broadcast(x, self.loc, "x")


@torch.no_grad()  # the derivative of a rejection sampler is not that of the law
def _centred_von_mises(kappa: Tensor, generator: Generators) -> Tensor:
    """Draws of VonMises(0, kappa), one per entry of ``kappa``.

    The proposal 2 arctan(sqrt(b) tan(pi u)) is wrapped Cauchy; with b = 1 / (2 kappa + sqrt(4 kappa^2 + 1)) the ratio
    of densities is largest at cos = (1 - b)/(1 + b), which gives the acceptance rule: with s = sin(theta / 2)^2,
    ln v <= kappa (2 b / (1 + b) - 2 s) + ln(1 + (1 - b) s / b) + ln((1 + b) / 2).
    """
    b = 1 / (2 * kappa + torch.hypot(2 * kappa, torch.ones_like(kappa)))
    steep, offset = (1 - b) / b, torch.log((1 + b) / 2) + 2 * kappa * b / (1 + b)
    theta = torch.zeros_like(kappa)
    pending = torch.ones_like(kappa, dtype=torch.bool)
    for _ in range(_ROUNDS):
        u, v = uniform(kappa, generator), uniform(kappa, generator)
        proposal = 2 * torch.atan(torch.sqrt(b) * torch.tan(math.pi * (u - 0.5)))
        s = torch.sin(proposal / 2).square()
        gain = offset - 2 * kappa * s + torch.log1p(steep * s)
        theta = torch.where(pending, proposal, theta)
        pending = pending & (gain < torch.log(v))
        if kappa.device.type == "cpu" and not pending.any():  # no other device should be waited for
            break
    return theta


def _parameters(loc: Tensor | float, other: Tensor | float) -> tuple[Tensor, Tensor, torch.dtype]:
    """Both as floating tensors of one dtype and device, loc with the shape of both, and the dtype of samples.

    Tensors are promoted, a plain number follows the tensor beside it.  Two plain numbers stay float64 scalars, which
    lose no digits and, having no dimensions, do not promote a float32 argument; their samples are float32.
    """
    for p in (loc, other):
        if isinstance(p, bool) or not isinstance(p, (Tensor, float, int, Real)):
            raise ValueError(f"parameters: got {type(p).__name__}, expected a number or a tensor; try torch.as_tensor")
    tensors = [p for p in (loc, other) if isinstance(p, Tensor)]
    if not tensors:
        both = torch.zeros((), dtype=torch.float64)
    elif len({p.device for p in tensors}) > 1:
        raise ValueError(f"parameters: got devices {[str(p.device) for p in tensors]}, expected one; try .to(device)")
    else:
        check_broadcast(tensors[0], tensors[-1], "parameters")
        both = torch.as_tensor(loc + other)  # promotes and broadcasts
        check_precision(both, "parameters")
    first, second = (
        p.to(both.dtype) if isinstance(p, Tensor) else torch.full((), float(p), dtype=both.dtype, device=both.device)
        for p in (loc, other)
    )
    return first.expand(both.shape), second, both.dtype if tensors else torch.float32


def _check_shape(shape: Any) -> None:
    if not isinstance(shape, Sequence) or not all(is_integer(n, 0) for n in shape):
        raise ValueError(f"shape: got {shape!r}, expected a tuple of integers >= 0; try (5,)")


def _require_mean(loc: Tensor) -> None:
    _require(loc, loc.abs() <= _FARTHEST, "loc", f"angles up to {_FARTHEST:g}; try torch.isfinite to find the others")


def _require(value: Tensor, condition: Tensor, name: str, expected: str) -> None:
    valid = condition & torch.isfinite(value)
    if not bool(valid.all()):
        raise ValueError(f"{name}: got {value[~valid].flatten()[:3].tolist()}, expected {expected}")
