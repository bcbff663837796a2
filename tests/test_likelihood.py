"""Likelihoods against exact densities: one and two oscillators, sets of images, Gaussian data; estimates and errors."""

import math

import pytest
import torch
from helpers import HELPFUL, random_phases, seeded
from torch import nn

from kodm_lite import (
    ExactScore,
    FokkerPlanck1D,
    FokkerPlanck2D,
    GibbsPrior,
    GlobalCoupling,
    GreyLevels,
    ImageSetScore,
    KuramotoProcess,
    LinearSchedule,
    LocalCoupling,
    Model,
    PeriodicMLP,
    PeriodicUNet,
    VonMises,
    WrappedNormal,
    bits_per_dimension,
    log_likelihood,
)
from kodm_lite.encoding import Angles
from kodm_lite.euclidean import VariancePreserving, WhiteNoise
from kodm_lite.networks.euclidean import EuclideanUNet
from kodm_lite.scores import guided

PI = math.pi
NOTHING = LinearSchedule(0.0, 0.0)
FORGETFUL = KuramotoProcess().scaled(4.0)  # what is left of the data at t = 1 moves the density there by 6e-5


def grid(size, dims):
    axis = -PI + 2 * PI * torch.arange(size, dtype=torch.float64) / size
    return torch.stack(torch.meshgrid(*[axis] * dims, indexing="ij"), -1).reshape(-1, dims)


def two_hills(a, b):
    """A density on the torus with a correlation, not normalised."""
    return torch.exp(2 * torch.cos(a - 1) + 1.5 * torch.cos(a - b)) + torch.exp(
        4 * torch.cos(a + 1.5) + 4 * torch.cos(b)
    )


@pytest.fixture(scope="module")
def pair():
    """The exact score of two oscillators, and the density of their data."""
    theta = grid(200, 2)
    total = float(two_hills(*theta.T).sum()) * (2 * PI / 200) ** 2
    solution = FokkerPlanck2D(FORGETFUL, lambda a, b: two_hills(a, b) / total, modes=32)
    return ExactScore(solution), lambda theta: (two_hills(*theta.T) / total).log()


@pytest.fixture(scope="module")
def learner():
    """A network that has learnt nothing, but says something."""
    torch.manual_seed(0)
    process = KuramotoProcess().scaled(2.0)
    network = PeriodicMLP(3, process, width=16, depth=1, classes=2)
    nn.init.normal_(network.last.weight, std=0.1)
    return network, process


@pytest.mark.parametrize("earliest", [1e-3, 1e-5])
def test_one_oscillator_has_its_exact_density(earliest):
    process = KuramotoProcess(coupling_strength=NOTHING).scaled(4.0)

    def density(theta):
        return 0.7 * VonMises(1.0, 3.0).log_prob(theta).exp() + 0.3 * VonMises(-1.5, 6.0).log_prob(theta).exp()

    theta = grid(40, 1)
    found = log_likelihood(
        ExactScore(FokkerPlanck1D(process, density, modes=96)), process, theta, steps=30, earliest=earliest
    )
    assert float((found.log_prob - density(theta)[:, 0].log()).abs().max()) < (1e-3 if earliest == 1e-3 else 2e-4)
    assert bool((found.standard_error == 0).all())


def test_two_coupled_oscillators_have_their_exact_density(pair):
    score, expected = pair
    theta = random_phases(40, 2)
    found = log_likelihood(score, FORGETFUL, theta, steps=30).log_prob
    assert float((found - expected(theta)).abs().max()) < 1e-3
    turned = theta + 2 * PI * torch.tensor([1.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(log_likelihood(score, FORGETFUL, turned, steps=30).log_prob, found, atol=1e-9, rtol=0)


def test_a_density_on_the_torus_integrates_to_one(pair):
    torch.manual_seed(2)
    process = KuramotoProcess()
    network = PeriodicMLP(2, process, width=16, depth=1)
    nn.init.normal_(network.last.weight, std=0.15)
    for score, own, size in ((pair[0], FORGETFUL, 24), (network, process, 40)):
        density = log_likelihood(score, own, grid(size, 2), steps=30).log_prob.exp()
        assert float(density.sum()) * (2 * PI / size) ** 2 == pytest.approx(1, abs=1e-3)
        assert float(density.max() / density.min()) > 3, "not that of the prior"


def test_sharp_data_have_their_exact_density():
    """Steps get shorter where states that began together spread."""
    process = KuramotoProcess(coupling_strength=NOTHING).scaled(4.0)
    law = WrappedNormal(torch.tensor([-1.0, 0.5], dtype=torch.float64), torch.tensor(0.05, dtype=torch.float64))

    def log_density(theta):
        return law.log_prob(theta[..., None]).logsumexp(-1) - math.log(2)

    solution = FokkerPlanck1D(process, lambda theta: log_density(theta).exp(), modes=130)
    # Two deviations to both sides: states of the third end so near to those of the other hill that 30 steps err by .04.
    theta = torch.linspace(-1.1, -0.9, 9, dtype=torch.float64)[:, None]
    found = log_likelihood(ExactScore(solution), process, theta, steps=30, earliest=1e-5).log_prob
    assert float((found - log_density(theta)[:, 0]).abs().max()) < 1e-3


def test_a_set_of_images_is_a_mixture():
    process = KuramotoProcess(coupling_strength=NOTHING).scaled(4.0)  # without coupling the mean-field limit is exact
    images = random_phases(2, 1, 2, 2, seed=1) * 0.8
    score = ImageSetScore(process, images, blur=0.4)
    theta = images[[0, 1, 1]] + 0.4 * random_phases(3, 1, 2, 2, seed=2) / PI
    law = WrappedNormal(images, torch.tensor(0.4, dtype=torch.float64))
    expected = torch.stack([law.log_prob(x).flatten(1).sum(1).logsumexp(0) - math.log(2) for x in theta[:, None]])
    found = log_likelihood(score, process, theta, steps=40, earliest=1e-5)
    assert float((found.log_prob - expected).abs().max()) < 1e-3


@pytest.mark.parametrize("coupling", [GlobalCoupling(), LocalCoupling(1)])
@pytest.mark.parametrize("phase", [0.3, torch.linspace(-1, 2, 9).reshape(1, 3, 3)])
def test_equilibrium_keeps_the_density_of_the_prior(coupling, phase):
    process = KuramotoProcess(coupling, reference_phase=phase)
    prior = GibbsPrior(KuramotoProcess(reference_phase=phase))  # has a density, whatever the coupling
    theta = random_phases(3, 1, 3, 3)
    for divergence in ("exact", "hutchinson"):
        found = log_likelihood(process.equilibrium_score, process, theta, steps=2, divergence=divergence, prior=prior)
        torch.testing.assert_close(found.log_prob, prior.log_prob(theta), atol=1e-9, rtol=0)


def test_hutchinson_is_unbiased_and_knows_its_error(learner):
    network, process = learner
    theta = random_phases(1, 3).expand(600, 3)
    exact = log_likelihood(network, process, theta[:1], steps=5).log_prob
    for probes in (2, 4):
        found = log_likelihood(
            network, process, theta, steps=5, divergence="hutchinson", probes=probes, generator=seeded(probes)
        )
        wrong = found.log_prob - exact
        spread = float(wrong.std())
        assert spread > 1e-3 and abs(float(wrong.mean())) < 4 * spread / 600**0.5
        assert float(found.standard_error.square().mean()) ** 0.5 == pytest.approx(spread, rel=0.15)


def test_samples_depend_on_their_own_seeds_and_labels(learner):
    network, process = learner
    theta, options = random_phases(3, 3), {"steps": 2, "divergence": "hutchinson"}
    whole = log_likelihood(network, process, theta, seeds=[4, 5, 6], label=torch.tensor([0, 1, 1]), **options)
    parts = log_likelihood(network, process, theta, seeds=[4, 5, 6], label=torch.tensor([0, 1, 1]), chunk=2, **options)
    torch.testing.assert_close(whole, parts, atol=1e-6, rtol=0)
    one = log_likelihood(network, process, theta[1:2], seeds=[5], label=1, **options)
    torch.testing.assert_close(one.log_prob, whole.log_prob[1:2], atol=1e-6, rtol=0)
    other = log_likelihood(network, process, theta[1:2], seeds=[5], label=0, **options)
    assert float((other.log_prob - one.log_prob).abs()) > 1e-6
    assert torch.equal(
        log_likelihood(guided(network, 1), process, theta, steps=2).log_prob,
        log_likelihood(network, process, theta, steps=2, label=1).log_prob,
    )


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_gaussian_data_under_the_euclidean_diffusion(divergence):
    process = VariancePreserving(WhiteNoise((3,), unit=0.7))
    deviation = torch.tensor([0.3, 0.7, 1.5], dtype=torch.float64)

    def noise(x, t):  # E[eps | x] = sigma unit^2 x / var x
        alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
        return sigma * 0.49 * x / (alpha**2 * deviation**2 + sigma**2 * 0.49)

    x = deviation * torch.randn((20, 3), generator=seeded(), dtype=torch.float64)
    found = log_likelihood(noise, process, x, steps=50, divergence=divergence, earliest=1e-6)
    # A diagonal Jacobian leaves random signs nothing to get wrong.
    expected = torch.distributions.Normal(torch.zeros(3, dtype=torch.float64), deviation).log_prob(x).sum(1)
    left = float(process.alpha(torch.tensor(1.0)) ** 2) * 4  # of the data at t = 1
    assert float((found.log_prob - expected).abs().max()) < 1e-4 + 10 * left and bool(
        (found.standard_error < 1e-12).all()
    )


def test_networks_of_images_have_likelihoods():
    process = KuramotoProcess()
    theta = random_phases(2, 1, 8, 8, dtype=torch.float32)
    euclidean = VariancePreserving(WhiteNoise((1, 8, 8)))
    options = {"width": 8, "multipliers": (1, 1), "attention": (1,)}
    for network, own in (
        (PeriodicUNet(1, process, **options), process),
        (EuclideanUNet(1, euclidean, **options), euclidean),
    ):
        found = log_likelihood(network, own, theta, steps=2, seeds=[1, 2])
        assert found.log_prob.dtype == torch.float64 and bool(torch.isfinite(found.log_prob).all())


def test_bits_per_dimension_of_uniform_phases_count_grey_levels():
    """A prior that is uniform gives each of the levels, of width 2 pi scale / 255, its share of the circle."""
    process = KuramotoProcess(coupling_strength=NOTHING, reference_strength=NOTHING)
    network = PeriodicUNet(1, process, width=8, multipliers=(1,), attention=())
    images = torch.rand((3, 1, 4, 4), generator=seeded()) * 2 - 1
    for scale in (0.5, 0.9):
        model = Model(network, process, (1, 4, 4), GreyLevels(scale), None, {})
        found = bits_per_dimension(model, images, steps=2)
        torch.testing.assert_close(found.bits, torch.full((3,), math.log2(255 / scale), dtype=torch.float64))
        assert torch.equal(found.bits, bits_per_dimension(model, images, steps=2, seeds=range(3)).bits)
    with pytest.raises(ValueError, match=HELPFUL):
        bits_per_dimension(model._replace(encoding=Angles()), images)


def test_the_noise_of_dequantisation_is_centred():
    """Independent phases of a network in equilibrium: the mean over noise is that of their law over one level."""
    process = KuramotoProcess(coupling_strength=NOTHING, reference_phase=-1.0)
    model = Model(
        PeriodicUNet(1, process, width=8, multipliers=(1,), attention=()), process, (1, 8, 8), GreyLevels(0.5), None, {}
    )
    found = bits_per_dimension(model, torch.full((20, 1, 8, 8), 1 / 255), steps=1)
    width = PI / 255
    theta = width * (0.5 + torch.linspace(-0.5, 0.5, 101, dtype=torch.float64))
    law = process.prior()
    log_prob = VonMises(law.loc, law.concentration).log_prob(theta)
    error = float(log_prob.std()) / (20 * 64) ** 0.5 / math.log(2)
    assert abs(float(found.bits.mean()) + float(log_prob.mean() + math.log(width)) / math.log(2)) < 4 * error


def test_bits_are_those_of_bytes():
    """Images that a file would not tell apart have the same bits, whatever the model."""
    torch.manual_seed(1)
    process = KuramotoProcess()
    network = PeriodicUNet(1, process, width=8, multipliers=(1,), attention=())
    nn.init.normal_(network.last.weight, std=0.1)
    model = Model(network, process, (1, 4, 4), GreyLevels(0.5), None, {})
    levels = torch.randint(0, 256, (2, 1, 4, 4), generator=seeded()) / 127.5 - 1
    blurred = (levels + 0.3 / 127.5 * torch.sin(torch.arange(16.0)).reshape(4, 4)).clamp(-1, 1)
    a, b = (bits_per_dimension(model, x, steps=3) for x in (levels, blurred))
    torch.testing.assert_close(a.bits, b.bits, atol=1e-6, rtol=0)


class Plain:
    """A prior that only draws."""

    def sample(self, shape, generator=None):
        return torch.zeros(shape)


class Rotation:
    """A process of another kind."""

    kind = "rotation"


def test_what_has_no_likelihood_is_refused(learner):
    network, process = learner
    theta = random_phases(2, 3)
    for arguments, options in (
        ((guided(network, 0, 2.0), process, theta), {}),
        ((network, process, theta * 100), {}),
        ((network, process, theta), {"prior": Plain()}),
        ((network, process, theta), {"divergence": "guess"}),
        ((network, process, theta), {"divergence": "hutchinson", "probes": 1}),
        ((network, process, theta), {"steps": 0}),
        ((network, process, theta), {"earliest": 0.0}),
        ((network, process, theta), {"label": 7}),
        ((network, Rotation(), theta), {}),
        ((torch.no_grad()(network), process, theta), {}),
        ((network, KuramotoProcess(LocalCoupling(1)), theta), {}),
    ):
        with pytest.raises(ValueError, match=HELPFUL):
            log_likelihood(*arguments, **options)
