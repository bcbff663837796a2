r"""How good are generated images: distances between sets of images, nearest images, shares of classes.

The Fréchet texture distance (FTD) is the Fréchet inception distance with texture statistics in place of a network:
each image becomes a few dozen numbers (how strongly oriented waves of several lengths are present, the moments of its
grey values, its gradients), a Gaussian is fitted to those of each set, and the two Gaussians are compared,

.. math:: d^2 = |\mu_a - \mu_b|^2 + \operatorname{tr}\bigl(\Sigma_a + \Sigma_b - 2 (\Sigma_a \Sigma_b)^{1/2}\bigr) .

It needs no download, knows small grey images, and means nothing beyond them: compare values only with values that
were computed with the same reference images and the same number of images.

Sources: Heusel et al. 2017 (the distance); Field 1987 (the filters); Heeger and Bergen 1995, Portilla and Simoncelli
2000 (texture statistics); Kuiper 1960.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kodm_lite.circular import phase_to_image, validate_phases, wrap
from kodm_lite.data.protocol import PhaseData

__all__ = [
    "TextureFeatures",
    "class_shares",
    "classify",
    "frechet_distance",
    "frechet_texture_distance",
    "image_means",
    "kuiper_distance",
    "nearest_distances",
]

_WAVELENGTHS = (3.0, 6.0, 12.0)  # pixels
_ORIENTATIONS = 6
_RADIAL_WIDTH = math.log(1 / 0.65)  # of the Gaussian on log frequency: a bandwidth of 1.5 octaves
_ANGULAR_WIDTH = 0.35  # radians, standard deviation: 20 of the 30 degrees between neighbours
_MARGIN = 16  # pixels of mirror image around each image, about three widths of the longest filter
_FLATTEST = 1 / 256  # grey values of an image that is flatter than half a level of 8 bits have no shape
_CHUNK = 2**20  # complex responses in memory at a time; more do not fit in a cache, and take twice as long
_PAIRS = 2**19  # differences of phases in memory at a time


class TextureFeatures(torch.nn.Module):
    r"""Images as vectors of texture statistics, each in units of its standard deviation over reference images.

    Of the grey values :math:`x` in [-1, 1], the mean over the channels, these are taken in this order:

    - mean and standard deviation over the image of :math:`|g_{sk} * x|`, for log-Gabor filters of 3 wavelengths (3, 6
      and 12 pixels) times 6 orientations (0, 30, ... 150 degrees from the horizontal axis towards the rows below):
      18 means, then 18 deviations, orientations within wavelengths.  Their transfer function is one-sided, so that
      the modulus is the amplitude of the wave and does not oscillate;
    - mean, standard deviation, skewness and kurtosis of the grey values (the last two vanish for a flat image);
    - mean squared difference of horizontal and of vertical neighbours.

    Filters act on the image continued by mirror images, so that its opposite edges never meet.  They are fixed in
    pixels whatever the size of the image.  Features are float64, computed in the precision of the phases.

    It serves as ``feature=`` of torchmetrics' FrechetInceptionDistance.

    Args:
        reference: phases (n, C, H, W) of at least two real images that differ, H and W at least 8, radians.
        scale: the ``scale`` of :func:`kodm_lite.image_to_phase`.

    Attributes:
        num_features: length F of the vectors, 42.
        image_shape: (C, H, W) of the reference, which all images must have.
        scale: as given.

    Raises:
        ValueError: phases of another shape, fewer than two images, or images that are all the same.

    Source: Field 1987 (log-Gabor); statistics after Portilla and Simoncelli 2000.

    >>> from kodm_lite.data import textures
    >>> features = TextureFeatures(textures(n=30).theta)
    >>> features(textures(n=5, seed=1).theta).shape
    torch.Size([5, 42])
    """

    bank: Tensor
    deviation: Tensor

    def __init__(self, reference: Tensor, scale: float = 0.9) -> None:
        super().__init__()
        _check_images(reference, "reference")
        if len(reference) < 2 or min(reference.shape[2:]) < 8:
            raise ValueError(
                f"reference: got shape {tuple(reference.shape)}, expected at least 2 images of at least 8 x 8 pixels; "
                "try kodm_lite.data.textures(n=768).theta"
            )
        self.scale = scale
        self.image_shape = tuple(reference.shape[1:])
        rows, columns = (side + 2 * _MARGIN for side in self.image_shape[1:])
        self.register_buffer("bank", _log_gabor_bank(rows, columns).to(reference.device), persistent=False)
        statistics = self._statistics(reference)
        deviation = statistics.std(0)
        varies = deviation > 1e-6  # what does not vary, such as the waves across perfect stripes, keeps its unit
        if not bool(varies.any()):
            raise ValueError(
                "reference: got images that all have the same statistics, expected images that differ; "
                "try more images of the training set"
            )
        self.register_buffer("deviation", torch.where(varies, deviation, 1.0))
        self.num_features = len(deviation)

    def forward(self, theta: Tensor) -> Tensor:
        """Features (B, F), float64, of phases (B, C, H, W) in radians."""
        _check_images(theta, "theta")
        if theta.shape[1:] != self.image_shape:
            raise ValueError(
                f"theta: got images of shape {tuple(theta.shape[1:])}, expected {self.image_shape} as in the "
                "reference; try features of a reference of this shape"
            )
        return self._statistics(theta) / self.deviation.double()

    @torch.no_grad()
    def _statistics(self, theta: Tensor) -> Tensor:
        """What ``forward`` returns, before the division, with a bounded number of images in memory."""
        images = max(1, _CHUNK // self.bank.numel())
        return torch.cat([self._statistics_of_chunk(chunk.to(self.bank.device)) for chunk in theta.split(images)])

    def _statistics_of_chunk(self, theta: Tensor) -> Tensor:
        grey = phase_to_image(theta, self.scale).mean(1)
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


def frechet_distance(a: Tensor, b: Tensor) -> float:
    r"""Squared Fréchet distance of the Gaussians fitted to two sets of feature vectors.

    :math:`|\mu_a - \mu_b|^2 + \operatorname{tr}(\Sigma_a + \Sigma_b - 2 (\Sigma_a \Sigma_b)^{1/2})`, computed in
    float64 by torchmetrics.  Like every Fréchet distance of finite samples it is not 0 for two samples of one law:
    compare samples of equal size, and report this floor beside it.

    Args:
        a: features (n, F).
        b: features (m, F); n and m at least 2.

    Raises:
        ValueError: sets that are no such matrices, or hold NaN or infinity.

    Source: Dowson and Landau 1982; Heusel et al. 2017.

    >>> a = torch.tensor([[-1.0], [0.0], [1.0]])
    >>> round(frechet_distance(a, 2 * a + 3), 9)  # means 3 apart, deviations 1 and 2
    10.0
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # here, because loading it takes two seconds

    _check_features(a, b)
    a, b = a.detach().double(), b.detach().double()
    origin = b.mean(0)  # near the data, or the squares that torchmetrics sums up would lose their digits
    metric = FrechetInceptionDistance(feature=_Identity(a.shape[1])).set_dtype(torch.float64).to(a.device)
    metric.update(a - origin, real=False)
    metric.update(b - origin, real=True)
    return max(float(metric.compute()), 0.0)  # rounding can make the distance of a set to itself negative


def frechet_texture_distance(generated: Tensor, real: Tensor, features: TextureFeatures) -> float:
    """Fréchet texture distance (FTD) between two sets of images: smaller is better.

    Args:
        generated: phases (n, C, H, W), radians.
        real: phases (m, C, H, W), radians; as many as generated ones, and a thousand or more, make values comparable.
        features: made from real training images.

    Raises:
        ValueError: phases that do not fit the features.

    >>> from kodm_lite.data import textures
    >>> real, other = textures(n=90), textures(n=90, seed=1)
    >>> features = TextureFeatures(real.theta)
    >>> near = frechet_texture_distance(other.theta, real.theta, features)
    >>> near < frechet_texture_distance(other.of_class("brick"), real.theta, features)
    True
    """
    return frechet_distance(features(generated), features(real))


def classify(theta: Tensor, data: PhaseData, features: TextureFeatures) -> Tensor:
    """The class whose mean feature vector is nearest to each image's.

    Args:
        theta: phases (B, C, H, W), radians.
        data: labelled images of every class.
        features: what measures the distances.

    Returns:
        Labels (B,), integers that index ``data.names``.

    Raises:
        ValueError: data without labels, with a class of which there is no image, or with another scale.
    """
    labels = data.labels
    if labels is None or set(labels.tolist()) != set(range(len(data.names))):
        got = "no labels" if labels is None else f"labels {sorted(set(labels.tolist()))} for classes {data.names}"
        raise ValueError(f"data: got {got}, expected images of every class; try kodm_lite.data.textures()")
    if data.scale != features.scale:
        raise ValueError(
            f"data: got scale {data.scale}, expected {features.scale} as in the features; "
            f"try TextureFeatures(..., scale={data.scale})"
        )
    of_data = features(data.theta)
    centroids = torch.stack([of_data[labels.to(of_data.device) == k].mean(0) for k in range(len(data.names))])
    return torch.cdist(features(theta), centroids).argmin(1)


def class_shares(theta: Tensor, data: PhaseData, features: TextureFeatures) -> Tensor:
    """Share of images that :func:`classify` assigns to each class: a missing class shows as 0.

    Args:
        theta: phases (B, C, H, W), radians.
        data: labelled images of every class.
        features: what measures the distances.

    Returns:
        Shares (classes,), float64, which sum to 1.

    >>> from kodm_lite.data import textures
    >>> data = textures(n=300)
    >>> class_shares(data.of_class("grass"), data, TextureFeatures(data.theta))[1] > 0.9
    tensor(True)
    """
    counts = torch.bincount(classify(theta, data, features), minlength=len(data.names))
    return counts.double() / len(theta)


def kuiper_distance(a: Tensor, b: Tensor) -> float:
    r"""Kuiper's distance of two sets of numbers or angles, :math:`V = \max(F_a - F_b) + \max(F_b - F_a)`.

    F are the empirical distribution functions.  V lies between 0 and 1 (the sets lie on separate arcs).  On the circle
    it does not depend on where the angles start, unlike the distance of Kolmogorov and Smirnov; all angles must lie on
    the same turn, such as [-pi, pi).

    Args:
        a: numbers, or angles in radians, of any shape.
        b: numbers, or angles in radians, of any shape.

    Raises:
        ValueError: an empty set, NaN.

    Source: Kuiper 1960; Mardia and Jupp 2000, section 8.3.

    >>> kuiper_distance(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 2.0]))
    0.5
    """
    for name, numbers in (("a", a), ("b", b)):
        if numbers.numel() == 0 or not bool((numbers == numbers).all()):
            raise ValueError(
                f"{name}: got no numbers or NaN, expected one number at least; try torch.isnan({name}) to find them"
            )
    a, b = (numbers.detach().to(a.device).double().flatten().sort().values for numbers in (a, b))
    values = torch.cat([a, b])
    at_most_a, at_most_b = (
        torch.searchsorted(numbers, values, right=True).double() / len(numbers) for numbers in (a, b)
    )
    excess = at_most_a - at_most_b
    return float(excess.max() - excess.min())  # both distribution functions are 1 at the end: max >= 0 >= min


def image_means(theta: Tensor) -> Tensor:
    """Mean phase of each image, in radians: its mean brightness times ``scale`` pi.

    It is the arithmetic mean, not the mean direction, because brightness has an order and ends.

    Args:
        theta: phases (B, C, H, W), radians.

    Returns:
        Means (B,), float64.
    """
    _check_images(theta, "theta")
    return theta.detach().double().mean((1, 2, 3))


@torch.no_grad()
def nearest_distances(theta: Tensor, reference: Tensor) -> Tensor:
    """Distance of each image to the nearest of the reference images: 0 for a copy.

    The distance of two images is the root mean square of the wrapped differences of their phases.

    Args:
        theta: phases (B, C, H, W), radians.
        reference: phases (n, C, H, W), radians, such as all training images.

    Returns:
        Distances (B,), float64, in radians, from 0 to pi.

    Raises:
        ValueError: images of two shapes.

    >>> nearest_distances(torch.full((1, 1, 8, 8), 3.0), torch.full((1, 1, 8, 8), -3.0))
    tensor([0.2832], dtype=torch.float64)
    """
    _check_images(theta, "theta")
    _check_images(reference, "reference")
    if theta.shape[1:] != reference.shape[1:]:
        raise ValueError(
            f"theta, reference: got images of shape {tuple(theta.shape[1:])} and {tuple(reference.shape[1:])}, "
            "expected the same; try crops of one size"
        )
    images, others = wrap(theta).flatten(1), wrap(reference.to(theta)).flatten(1)
    chunks = others.split(max(1, _PAIRS // others.shape[1]))
    nearest = [torch.stack([_rms_difference(chunk, image).min() for chunk in chunks]).min() for image in images]
    return torch.stack(nearest).double()


class _Identity(torch.nn.Module):
    """Hands features that are already computed to torchmetrics."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _rms_difference(angles: Tensor, angle: Tensor) -> Tensor:
    """Root mean square over the last dimension of wrapped differences of angles that lie in [-pi, pi)."""
    difference = (angles - angle).abs_()
    shorter_way = difference.sub_(math.pi).abs_().neg_().add_(math.pi)  # pi - | |a - b| - pi |
    return torch.linalg.vector_norm(shorter_way, dim=-1) / shorter_way.shape[-1] ** 0.5


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


def _check_images(theta: Tensor, name: str) -> None:
    validate_phases(theta, name)
    if theta.ndim != 4:
        raise ValueError(
            f"{name}: got shape {tuple(theta.shape)}, expected images (B, C, H, W); try {name}[:, None] for (B, H, W)"
        )


def _check_features(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"features: got shapes {tuple(a.shape)} and {tuple(b.shape)}, expected (n, F) and (m, F) with n and m at "
            "least 2; try the features of more images"
        )
    if not (bool(torch.isfinite(a).all()) and bool(torch.isfinite(b).all())):
        raise ValueError("features: got NaN or infinity, expected numbers; try torch.isfinite to find them")
