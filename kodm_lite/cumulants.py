r"""The law of a phase while it is narrow: by its mean m, variance V and third and fourth cumulants.

Their equations are those of the moments of x = theta - m in the field H of the neighbours' expected phases,

.. math:: \frac{d}{dt} \mathbb E\,x^k = k\,\mathbb E\bigl[x^{k-1} (\operatorname{Im}(H e^{-i\theta}) - \dot m)\bigr]
          + k (k-1) D\,\mathbb E\,x^{k-2} .

Chapter 7 of the book.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from kodm_lite.circular import angle_difference
from kodm_lite.process import Coefficients, KuramotoProcess
from kodm_lite.schedules import Time, per_image

__all__ = ["Cumulants", "field_of", "narrow_laws"]


class Cumulants(NamedTuple):
    """A narrow law on the circle by its first four cumulants, all of the shape of the phases.

    Args:
        mean: radians.
        variance: of the angle on the line around the mean.
        third, fourth: further cumulants; both zero for a wrapped normal law.
    """

    mean: Tensor
    variance: Tensor
    third: Tensor
    fourth: Tensor

    def mode(self, n: Tensor | int) -> Tensor:
        """E exp(i n theta), for orders n that broadcast."""
        decay = -0.5 * n**2 * self.variance + n**4 * self.fourth / 24
        size, angle = decay.exp(), n * self.mean - n**3 * self.third / 6
        return torch.complex(size * angle.cos(), size * angle.sin())  # a third of the time of torch.polar

    def score(self, theta: Tensor) -> Tensor:
        """Derivative of the log-density, by the Edgeworth series of its logarithm."""
        scale, skewness, excess = self._standardised()
        y = angle_difference(theta, self.mean) / scale
        bend = 0.5 * skewness * (y.square() - 1) + (excess / 6 - 0.5 * skewness.square()) * (y**3 - 3 * y)
        return (bend - (1 + 0.5 * skewness.square()) * y) / scale

    def quantile(self, u: Tensor) -> Tensor:
        """Where the distribution function is u, by the expansion of Cornish and Fisher."""
        scale, skewness, excess = self._standardised()
        w = torch.special.ndtri(u)
        bend = skewness / 6 * (w.square() - 1) + excess / 24 * (w**3 - 3 * w)
        return self.mean + scale * (w + bend - skewness.square() / 36 * (2 * w**3 - 5 * w))

    def _standardised(self) -> tuple[Tensor, Tensor, Tensor]:
        variance = self.variance.clamp(min=1e-12)
        return variance.sqrt(), self.third / variance**1.5, self.fourth / variance.square()


def narrow_laws(process: KuramotoProcess, theta0: Tensor, t: Tensor) -> Cumulants:
    """Cumulants at times t (B,), from points at time 0, by a Runge-Kutta method.

    It is of order 4 where K/D and K_ref/D are constant, and of order 2, with more steps, where they are not: K, K_ref
    and D are their means over a step.
    """
    steps = 1 if _has_constant_ratios(process) else 8
    zero = torch.zeros_like(theta0)
    law = Cumulants(theta0, zero, zero, zero)

    def ahead(law: Cumulants, *rates: tuple[float, Cumulants]) -> Cumulants:
        return Cumulants(*(x + sum(w * r[k] for w, r in rates) for k, x in enumerate(law)))

    for k in range(steps):
        step = process.coefficients(t * k / steps, t * (k + 1) / steps)
        first = _cumulant_rates(process, law, step)
        second = _cumulant_rates(process, ahead(law, (0.5, first)), step)
        third = _cumulant_rates(process, ahead(law, (0.5, second)), step)
        fourth = _cumulant_rates(process, ahead(law, (1.0, third)), step)
        law = ahead(law, (1 / 6, first), (1 / 3, second), (1 / 3, third), (1 / 6, fourth))
    return law


def _cumulant_rates(process: KuramotoProcess, law: Cumulants, step: Coefficients) -> Cumulants:
    """Rates of change of the cumulants times the length of the step, with the means of K, K_ref and D over it.

    The moments of x with the drift are derivatives of the characteristic function exp(g(w)) = E exp(-iwx) at w = 1:
    E[x exp(-ix)] = i g' exp(g), E[x^2 exp(-ix)] = -(g'' + g'^2) exp(g) and so on.
    """
    _, v, k3, k4 = law
    growth = per_image(step.variance, v)
    average = process.coupling.average(law.mode(1))
    pull = field_of(process, average, step.coupling, step.reference) * law.mode(1).conj()  # H E exp(-i theta)
    g1, g2, g3 = torch.complex(k4 / 6 - v, k3 / 2), torch.complex(k4 / 2 - v, k3), torch.complex(k4, k3)
    dm = pull.imag
    dv = growth + 2 * (pull * g1).real
    dk3 = -3 * (pull * (g2 + g1 * g1)).imag - 3 * v * dm
    dk4 = -4 * (pull * (g3 + 3 * g1 * g2 + g1 * g1 * g1)).real - 4 * k3 * dm + 6 * v * (growth - dv)
    return Cumulants(dm, dv, dk3, dk4)


def field_of(process: KuramotoProcess, average: Tensor, coupling: Time, reference: Time) -> Tensor:
    """H from the neighbours' expected exp(i theta), with strengths per image (rates, or integrals over a step)."""
    cos, sin = process.reference_cos_sin(average.real)
    pull = torch.complex(cos, sin) if isinstance(cos, Tensor) else complex(cos, sin)  # type: ignore[arg-type]
    return per_image(coupling, average) * average + per_image(reference, average) * pull


def _has_constant_ratios(process: KuramotoProcess) -> bool:
    noise = process.diffusion
    strengths = (process.coupling_strength, process.reference_strength)
    return all(math.isclose(s.start * noise.end, s.end * noise.start, rel_tol=1e-9) for s in strengths)
