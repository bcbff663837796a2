"""The two laws on the circle that everything is made of: wrapped normal and von Mises.

Both have log-density, score (derivative of the log-density with respect to the angle) and sampling, in the style of
``torch.distributions``.  Chapter 4 of the book derives the formulae and shows how the naive ones fail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kodm_lite.circular import TWO_PI, angle_difference, wrap
from kodm_lite.randomness import Generators, check_one_per_image, normal, uniform

__all__ = ["VonMises", "WrappedNormal"]

# Below this scale the density is a sum over images of the line, above it a Fourier series.  At the switch the first
# neglected image weighs exp(-4 pi^2) = 7e-18 and the first neglected Fourier mode exp(-81/2) = 3e-18.
_SWITCH = 1.0
_MODES = 8


class WrappedNormal:
    r"""A normal law on the line wound round the circle: the exact one-step transition of the forward process.

    .. math:: p(\theta) = \sum_{k \in \mathbb{Z}} N(\theta + 2\pi k;\, \mu, \sigma^2)
              = \frac{1}{2\pi}\Bigl(1 + 2\sum_{n \ge 1} e^{-n^2\sigma^2/2} \cos n(\theta - \mu)\Bigr)

    Args:
        loc: mean direction mu, radians, any real number.
        scale: standard deviation sigma on the line, radians, > 0; accurate from 1e-6 to 1e3.
        validate_args: check the arguments (one device synchronisation); hot paths switch it off.

    Raises:
        ValueError: scale not positive, or NaN in an argument.

    Source: Mardia and Jupp 2000, section 3.5.7.  Book: chapter 4.

    >>> WrappedNormal(0.0, 0.01).score(torch.tensor([0.02, 3.0]))
    tensor([  -200., -30000.])
    """

    def __init__(self, loc: Tensor | float, scale: Tensor | float, validate_args: bool = True):
        self.loc, self.scale, self._dtype = _parameters(loc, scale)
        if validate_args:
            _require_finite(self.loc, "loc")
            _require(self.scale, self.scale > 0, "scale", "a positive number; try 1e-6 for almost none")

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density at angles ``x`` (radians, any real numbers), with respect to arc length."""
        d = angle_difference(x, self.loc)
        narrow, wide = self.scale.clamp(max=_SWITCH).to(d.dtype), self.scale.clamp(min=_SWITCH).to(d.dtype)
        left, right = _neighbour_images(d, narrow)
        from_images = -0.5 * (d / narrow) ** 2 + torch.log1p(left + right) - torch.log(narrow * math.sqrt(TWO_PI))
        from_series = torch.log1p(_fourier_series(d, wide)[0]) - math.log(TWO_PI)
        return torch.where(self.scale < _SWITCH, from_images, from_series)

    def score(self, x: Tensor) -> Tensor:
        """Derivative of the log-density with respect to ``x``: finite everywhere, zero opposite the mean."""
        d = angle_difference(x, self.loc)
        narrow, wide = self.scale.clamp(max=_SWITCH).to(d.dtype), self.scale.clamp(min=_SWITCH).to(d.dtype)
        left, right = _neighbour_images(d, narrow)
        from_images = -(d + TWO_PI * (right - left) / (1 + left + right)) / narrow**2
        series, derivative = _fourier_series(d, wide)
        return torch.where(self.scale < _SWITCH, from_images, derivative / (1 + series))

    def sample(self, shape: tuple[int, ...] = (), generator: Generators = None) -> Tensor:
        """Independent draws in [-pi, pi), of shape ``shape`` followed by the parameters' shape."""
        loc = self.loc.to(self._dtype).expand((*shape, *self.loc.shape))
        return wrap(loc + self.scale.to(self._dtype) * normal(loc, generator))


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
        validate_args: check the arguments (one device synchronisation).

    Raises:
        ValueError: negative concentration, or NaN in an argument.

    Source: Mardia and Jupp 2000, section 3.5.4; sampling as Best and Fisher 1979.  Book: chapters 3 and 4.

    >>> VonMises(0.0, 2.0).score(torch.tensor([torch.pi / 2]))
    tensor([-2.])
    """

    def __init__(self, loc: Tensor | float, concentration: Tensor | float, validate_args: bool = True):
        self.loc, self.concentration, self._dtype = _parameters(loc, concentration)
        if validate_args:
            _require_finite(self.loc, "loc")
            _require(
                self.concentration,
                self.concentration >= 0,
                "concentration",
                "a number >= 0; try loc + pi for a negative one",
            )

    @classmethod
    def from_order_parameter(cls, z: Tensor) -> VonMises:
        """The von Mises law with E exp(i theta) = z: also the maximum-likelihood fit to data of order parameter z.

        Solves I_1(kappa)/I_0(kappa) = abs(z) by Newton's method.

        Args:
            z: complex, abs(z) < 1.

        >>> law = VonMises.from_order_parameter(torch.tensor(0.5j))
        >>> law.loc, law.concentration
        (tensor(1.5708), tensor(1.1593))
        """
        r = z.abs().to(torch.float64)
        _require(r, r < 1, "z", "a modulus below 1; try a mean over several phases")
        kappa = r * (2 - r**2) / (1 - r**2)
        for _ in range(20):
            length = torch.special.i1e(kappa) / torch.special.i0e(kappa)
            slope = 1 - length**2 - torch.where(kappa > 0, length / kappa.clamp(min=1e-300), 0.5)
            kappa = kappa - (length - r) / slope
        return cls(z.angle(), kappa.to(z.real.dtype))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density at angles ``x`` (radians), with respect to arc length."""
        half = torch.sin((x - self.loc) / 2)
        # cos d - 1 = -2 sin^2(d/2) keeps its digits at large concentration; i0e = exp(-kappa) I_0(kappa) does not
        # overflow.
        # A tiny shift, because torch differentiates i0e at 0 as if it had an extremum there.
        kappa = self.concentration + torch.finfo(self.concentration.dtype).tiny
        normaliser = torch.log(torch.special.i0e(kappa)) + math.log(TWO_PI)
        return -2 * self.concentration * half**2 - normaliser

    def score(self, x: Tensor) -> Tensor:
        """Derivative of the log-density with respect to ``x``: -kappa sin(x - mu)."""
        return -self.concentration * torch.sin(x - self.loc)

    def mean_resultant_length(self) -> Tensor:
        """E cos(theta - mu) = I_1(kappa) / I_0(kappa): the order parameter of independent draws."""
        return torch.special.i1e(self.concentration) / torch.special.i0e(self.concentration)

    def sample(self, shape: tuple[int, ...] = (), generator: Generators = None) -> Tensor:
        """Independent draws in [-pi, pi), of shape ``shape`` followed by the parameters' shape.

        Rejection from a wrapped Cauchy law.  At least 65 % of proposals are accepted whatever the concentration, so
        64 rounds leave an unaccepted angle with probability below 1e-29: the loop is bounded and cannot hang.
        """
        loc = self.loc.to(self._dtype).expand((*shape, *self.loc.shape))
        kappa = self.concentration.expand_as(loc).to(torch.float64)
        if isinstance(generator, Sequence):  # per image: the draws of one must not depend on the others
            check_one_per_image(generator, loc)
            rows = [_centred_von_mises(k, g) for k, g in zip(kappa, generator, strict=True)]
            return wrap(loc + torch.stack(rows).to(loc.dtype))
        return wrap(loc + _centred_von_mises(kappa, generator).to(loc.dtype))


@torch.no_grad()  # the derivative of a rejection sampler is not that of the law
def _centred_von_mises(kappa: Tensor, generator: Generators, rounds: int = 64) -> Tensor:
    """Draws of VonMises(0, kappa), one per entry of ``kappa``.

    The proposal 2 arctan(sqrt(b) tan(pi u)) is wrapped Cauchy; with b = 1 / (2 kappa + sqrt(4 kappa^2 + 1)) the ratio
    of densities is largest at cos = x0 = (1 - b)/(1 + b), which gives the acceptance rule.
    """
    b = 1 / (2 * kappa + torch.sqrt(4 * kappa**2 + 1))
    x0 = (1 - b) / (1 + b)
    bound = kappa * x0 + torch.log1p(-(x0**2))
    theta = torch.zeros_like(kappa)
    pending = torch.ones_like(kappa, dtype=torch.bool)
    for _ in range(rounds):
        u, v = uniform(kappa, generator), uniform(kappa, generator)
        proposal = 2 * torch.atan(torch.sqrt(b) * torch.tan(math.pi * (u - 0.5)))
        cos = torch.cos(proposal)
        accepted = kappa * cos + torch.log1p(-x0 * cos) - bound >= torch.log(v)
        theta = torch.where(pending, proposal, theta)
        pending = pending & ~accepted
        if not pending.any():
            break
    return theta


def _parameters(loc: Tensor | float, other: Tensor | float) -> tuple[Tensor, Tensor, torch.dtype]:
    """Both as floating tensors of one dtype and device, loc with the shape of both, and the dtype of samples.

    Tensors are promoted, a plain number follows the tensor beside it.  Two plain numbers stay float64 scalars, which
    lose no digits and, having no dimensions, do not promote a float32 argument; their samples have torch's default
    dtype.
    """
    numbers = not isinstance(loc, Tensor) and not isinstance(other, Tensor)
    try:
        both = torch.as_tensor(loc + other, dtype=torch.float64 if numbers else None)  # promotes and broadcasts
    except RuntimeError as error:
        raise ValueError(
            f"parameters: got {error}, expected shapes that broadcast; try adding dimensions of length 1"
        ) from error
    if not both.is_floating_point():
        raise ValueError(f"parameters: got dtype {both.dtype}, expected float32 or float64; try .float()")
    first, second = (torch.as_tensor(p, dtype=both.dtype, device=both.device) for p in (loc, other))
    return first.expand(both.shape), second, torch.get_default_dtype() if numbers else both.dtype


def _require_finite(value: Tensor, name: str) -> None:
    _require(value, torch.isfinite(value), name, "finite numbers; try torch.isfinite to find the others")


def _require(value: Tensor, condition: Tensor, name: str, expected: str) -> None:
    valid = condition & torch.isfinite(value)
    if not bool(valid.all()):
        raise ValueError(f"{name}: got {value[~valid].flatten()[:3].tolist()}, expected {expected}")
