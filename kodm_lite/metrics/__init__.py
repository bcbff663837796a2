r"""How good are generated images: distances between sets of images, nearest images, shares of classes.

:func:`evaluate` measures all that is cheap, each with its error and with its floor, the value that two sets of real
images have.

The Fréchet texture distance (FTD) is the Fréchet inception distance with texture statistics in place of a network:
each image becomes a few dozen numbers (how strongly oriented waves of several lengths are present, the moments of its
grey values, its gradients), a Gaussian is fitted to those of each set, and the two Gaussians are compared,

.. math:: d^2 = |\mu_a - \mu_b|^2 + \operatorname{tr}\bigl(\Sigma_a + \Sigma_b - 2 (\Sigma_a \Sigma_b)^{1/2}\bigr) .

It needs no download, knows small grey images, and means nothing beyond them: compare values only with values that
were computed with the same reference images and the same number of images.

Sources: Heusel et al. 2017 (the distance); Field 1987 (the filters); Heeger and Bergen 1995, Portilla and Simoncelli
2000 (texture statistics); Kuiper 1960.  The other metrics name theirs.
"""

from kodm_lite.metrics.angles import OrderStatistics, image_means, order_statistics
from kodm_lite.metrics.classes import class_shares, classify
from kodm_lite.metrics.coverage import PrecisionRecall, precision_recall
from kodm_lite.metrics.distributions import circular_wasserstein, kuiper_distance, wasserstein_distance
from kodm_lite.metrics.evaluate import Evaluation, Row, evaluate
from kodm_lite.metrics.frechet import frechet_distance, frechet_texture_distance
from kodm_lite.metrics.inception import InceptionDistances, inception_distances
from kodm_lite.metrics.nearest import Memorisation, memorisation, nearest_distances
from kodm_lite.metrics.resampling import Estimate, jackknife
from kodm_lite.metrics.spectrum import RadialSpectrum, peak_frequencies, radial_spectrum
from kodm_lite.metrics.texture import TextureFeatures

__all__ = [
    "Estimate",
    "Evaluation",
    "InceptionDistances",
    "Memorisation",
    "OrderStatistics",
    "PrecisionRecall",
    "RadialSpectrum",
    "Row",
    "TextureFeatures",
    "circular_wasserstein",
    "class_shares",
    "classify",
    "evaluate",
    "frechet_distance",
    "frechet_texture_distance",
    "image_means",
    "inception_distances",
    "jackknife",
    "kuiper_distance",
    "memorisation",
    "nearest_distances",
    "order_statistics",
    "peak_frequencies",
    "precision_recall",
    "radial_spectrum",
    "wasserstein_distance",
]
