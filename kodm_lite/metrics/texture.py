"""Images as vectors of texture statistics: what the Fréchet texture distance compares."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kodm_lite.circular import wrap
from kodm_lite.encoding import Encoding
from kodm_lite.metrics.validation import check_encoding, check_images

__all__ = ["TextureFeatures"]

_WAVELENGTHS = (3.0, 6.0, 12.0)  # pixels
_ORIENTATIONS = 6
_RADIAL_WIDTH = math.log(1 / 0.65)  # of the Gaussian on log frequency: a bandwidth of 1.5 octaves
_ANGULAR_WIDTH = 0.35  # radians, standard deviation: 20 of the 30 degrees between neighbours
_MARGIN = 16  # pixels of mirror image around each image, about three widths of the longest filter
_FLATTEST = 1 / 256  # grey values of an image that is flatter than half a level of 8 bits have no shape
_CHUNK = 2**20  # complex responses in memory at a time; more do not fit in a cache, and take twice as long


class TextureFeatures(torch.nn.Module):
    """Images as vectors of texture statistics, each in units of its standard deviation over reference images.

    Of the grey values :math:`x` in [-1, 1], the mean over the channels, these are taken in this order:

    - mean and standard deviation over the image of :math:`|g_{sk} * x|`, for log-Gabor filters of 3 wavelengths (3, 6
      and 12 pixels) times 6 orientations (0, 30, ... 150 degrees from the horizontal axis towards the rows below):
      18 means, then 18 deviations, orientations within wavelengths.  Their transfer function is one-sided, so that
      the modulus is the amplitude of the wave and does not oscillate;
    - mean, standard deviation, skewness and kurtosis of the grey values (the last two vanish for a flat image);
    - mean squared difference of horizontal and of vertical neighbours.

    Filters act on the image continued by mirror images, so that its opposite edges never meet.  They are fixed in
    pixels whatever the size of the image.  Features are float64, computed in the precision of the phases.  Of phases
    that are angles from the start they are those of the cosine, then those of the sine: 84 in place of 42.

    Args:
        reference: phases (n, C, H, W), radians, of at least two real images that differ, H and W at least 8, else
            ValueError; all images must have their shape.
        encoding: what the phases stand for.

    Source: Field 1987 (log-Gabor); statistics after Portilla and Simoncelli 2000.

    >>> from kodm_lite.data import textures
    >>> features = TextureFeatures(textures(n=30).theta, textures(n=30).encoding)
    >>> features(textures(n=5, seed=1).theta).shape
    torch.Size([5, 42])
    """

    bank: Tensor
    deviation: Tensor

    def __init__(self, reference: Tensor, encoding: Encoding) -> None:
        super().__init__()
        check_images(reference, "reference")
        check_encoding(encoding)
        if len(reference) < 2 or min(reference.shape[2:]) < 8:
            shape, hint = tuple(reference.shape), "kodm_lite.data.textures(n=768).theta"
            raise ValueError(f"reference: got shape {shape}, expected 2 images or more from 8 x 8 pixels; try {hint}")
        self.encoding = encoding
        self.image_shape = tuple(reference.shape[1:])
        rows, columns = (side + 2 * _MARGIN for side in self.image_shape[1:])
        self.register_buffer("bank", _log_gabor_bank(rows, columns).to(reference.device), persistent=False)
        statistics = self._statistics(reference)
        deviation = statistics.std(0)
        varies = deviation > 1e-6  # what does not vary, such as the waves across perfect stripes, keeps its unit
        if not bool(varies.any()):
            raise ValueError("reference: got images of equal statistics, expected others; try more images")
        self.register_buffer("deviation", torch.where(varies, deviation, 1.0))
        self.num_features = len(deviation)

    def forward(self, theta: Tensor) -> Tensor:
        """Features (B, F), float64, of phases (B, C, H, W) in radians."""
        check_images(theta, "theta")
        if theta.shape[1:] != self.image_shape:
            got, expected = tuple(theta.shape[1:]), f"{self.image_shape} as in the reference"
            raise ValueError(f"theta: got images of shape {got}, expected {expected}; try another reference")
        return self._statistics(theta) / self.deviation.double()

    @torch.no_grad()
    def _statistics(self, theta: Tensor) -> Tensor:
        """What ``forward`` returns, before the division, with a bounded number of images in memory."""
        images = max(1, _CHUNK // self.bank.numel())
        return torch.cat([self._statistics_of_chunk(chunk.to(self.bank.device)) for chunk in theta.split(images)])

    def _statistics_of_chunk(self, theta: Tensor) -> Tensor:
        values = [theta.cos(), theta.sin()] if self.encoding.cyclic else [self.encoding.decode(theta)]
        return torch.cat([self._statistics_of_grey(x.mean(1)) for x in values], 1)

    def _statistics_of_grey(self, grey: Tensor) -> Tensor:
        amplitude = self._amplitudes(grey)
        grey = grey.double()
        steps = [grey.diff(dim=2), grey.diff(dim=1)]
        energies = torch.stack([step.square().mean((1, 2)) for step in steps], 1)
        return torch.cat([amplitude.mean((2, 3)), amplitude.std((2, 3), correction=0), _moments(grey), energies], 1)

    def _amplitudes(self, grey: Tensor) -> Tensor:
        """Modulus (B, 18, H, W), float64, of the filters' responses to grey values (B, H, W)."""
        height, width = grey.shape[1:]
        rows, columns = (_mirrored(side).to(grey.device) for side in (height, width))
        spectrum = torch.fft.fft2(grey[:, rows][:, :, columns])
        response = torch.fft.ifft2(spectrum[:, None] * self.bank.to(grey.dtype))
        inside = slice(_MARGIN, _MARGIN + height), slice(_MARGIN, _MARGIN + width)
        return response[:, :, *inside].abs().double()


def _moments(x: Tensor) -> Tensor:
    """Mean, standard deviation, skewness and kurtosis (B, 4) of images (B, H, W)."""
    mean = x.mean((1, 2))
    centred = x - mean[:, None, None]
    deviation = centred.square().mean((1, 2)).sqrt()
    unit = centred / deviation.clamp(min=_FLATTEST)[:, None, None]
    return torch.stack([mean, deviation, unit.pow(3).mean((1, 2)), unit.pow(4).mean((1, 2))], 1)


def _mirrored(length: int) -> Tensor:
    """Indices that continue a line of pixels by its mirror images, ``_MARGIN`` pixels on both sides."""
    index = torch.arange(-_MARGIN, length + _MARGIN) % (2 * length)
    return torch.minimum(index, 2 * length - 1 - index)


def _log_gabor_bank(rows: int, columns: int) -> Tensor:
    """Transfer functions (18, rows, columns), 2 at their peaks: a wave of amplitude 1 has a response of modulus 1."""
    down, right = torch.fft.fftfreq(rows, dtype=torch.float64)[:, None], torch.fft.fftfreq(columns, dtype=torch.float64)
    frequency = torch.hypot(down, right.expand(rows, columns))
    octaves = torch.where(frequency > 0, frequency, 1e-30).log()  # the mean has no share in any response
    # Frequencies in the corners, which horizontal and vertical waves do not reach, fade out, and those of exactly two
    # pixels vanish: they have no direction, so that no mirror image would give mirrored responses.
    corners = torch.where(frequency < 0.5, 1 / (1 + (frequency / 0.45) ** 30), 0.0)
    radial = [torch.exp(-((octaves - math.log(1 / w)) ** 2) / (2 * _RADIAL_WIDTH**2)) for w in _WAVELENGTHS]
    directions = torch.arange(_ORIENTATIONS, dtype=torch.float64) * math.pi / _ORIENTATIONS
    offset = wrap(torch.atan2(down, right) - directions[:, None, None])
    angular = torch.exp(-(offset**2) / (2 * _ANGULAR_WIDTH**2))
    return 2 * (torch.stack(radial)[:, None] * corners * angular).flatten(0, 1)
