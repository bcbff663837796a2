"""Euclidean diffusion of images against Gaussian laws that are known, and its network from training to samples."""

import math

import pytest
import torch
from helpers import seeded
from torch import nn

from kodm_lite import checkpoints
from kodm_lite.data import PhaseData
from kodm_lite.encoding import GreyLevels
from kodm_lite.euclidean import (
    VariancePreserving,
    WhiteNoise,
    noise_prediction,
)
from kodm_lite.kinds import process_from_dict
from kodm_lite.model import Model, describe, network_from_dict
from kodm_lite.networks import EuclideanUNet, PeriodicUNet
from kodm_lite.samplers import sample
from kodm_lite.scores import guided
from kodm_lite.training import TrainingOptions, fit

PI = math.pi
TINY = {"width": 8, "multipliers": (1, 2), "blocks": 1, "patch": 1, "attention": ()}
SHAPE = (1, 8, 8)
UNIT = 0.9 * PI
PROCESS = VariancePreserving(WhiteNoise(SHAPE, UNIT))


def unet(classes=None, process=PROCESS) -> EuclideanUNet:
    """A network whose last layers, which start at zero, are random."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = EuclideanUNet(1, process, **TINY, classes=classes)
        for weight in (network.last.weight, network.pooled[-1].weight):
            nn.init.normal_(weight, std=0.1)
        return network


def known(diffusion, place, spread=0.0):
    """E[eps | x_t] of data N(place, spread^2) in every number."""

    def network(x, t):
        alpha, sigma = diffusion.alpha(t)[:, None], diffusion.sigma(t)[:, None]
        unit = diffusion.noise.unit
        return sigma * unit**2 * (x - alpha * place) / ((alpha * spread) ** 2 + (sigma * unit) ** 2)

    return network


@pytest.mark.parametrize("kind", [VariancePreserving])
def test_the_forward_law(kind):
    diffusion = kind(WhiteNoise((5,), 2.0))
    x0, t = torch.full((20000, 5), 1.5, dtype=torch.float64), torch.full((20000,), 0.3, dtype=torch.float64)
    x, eps = diffusion.perturb(x0, t, seeded(0))
    alpha, sigma = float(diffusion.alpha(t[:1])), float(diffusion.sigma(t[:1]))
    assert torch.allclose(x, alpha * x0 + sigma * eps)
    assert float(x.mean()) == pytest.approx(1.5 * alpha, abs=5 * sigma * 2 / math.sqrt(1e5))
    assert float(x.std()) == pytest.approx(2 * sigma, rel=0.01)
    assert torch.allclose(diffusion.score(eps, t), -eps / (4 * sigma))


@pytest.mark.parametrize("kind", [VariancePreserving])
@pytest.mark.parametrize("method", ["ode", "sde", "ancestral"])
def test_samplers_end_in_the_law_of_gaussian_data(kind, method):
    diffusion = kind(WhiteNoise((1,), 1.5))
    x = sample(known(diffusion, 0.7, 0.4), diffusion, (40000, 1), steps=200, method=method, generator=seeded(1))
    left = float(diffusion.alpha(torch.ones(1)) / diffusion.sigma(torch.ones(1)))  # of the data at t = 1: a bias
    assert float(x.mean()) == pytest.approx(0.7, abs=0.01 + left)
    assert float(x.std()) == pytest.approx(0.4, rel=0.08 if method == "ancestral" else 0.02)


def test_an_ancestral_step_is_bayes_rule():
    """Given the data, the product of the densities of the step and of the state before it, in precisions."""
    data, t1, t0, unit = 0.8, 0.5, 0.35, 1.5
    diffusion = VariancePreserving(WhiteNoise((1,), unit))
    x1 = torch.full((50000, 1), -0.3, dtype=torch.float64)
    x = sample(
        known(diffusion, data), diffusion, (50000, 1), method="ancestral", times=[t1, t0], start=x1, generator=seeded(2)
    )
    times = torch.tensor([t0, t1], dtype=torch.float64)
    (alpha0, alpha1), (sigma0, sigma1) = diffusion.alpha(times).tolist(), diffusion.sigma(times).tolist()
    kept = alpha1 / alpha0
    variance0, variance_step = (sigma0 * unit) ** 2, unit**2 * (sigma1**2 - (kept * sigma0) ** 2)
    precision = 1 / variance0 + kept**2 / variance_step
    mean = (alpha0 * data / variance0 + kept * -0.3 / variance_step) / precision
    assert float(x.mean()) == pytest.approx(mean, abs=5 / math.sqrt(precision * 50000))
    assert float(x.var()) == pytest.approx(1 / precision, rel=0.03)


def test_samplers_find_data_that_are_one_point():
    diffusion = VariancePreserving(WhiteNoise((3,)))
    for method in ("ode", "sde", "ancestral"):
        x = sample(known(diffusion, 2.0), diffusion, (4, 3), steps=50, method=method, seeds=range(4))
        assert (x - 2).abs().max() < (0.05 if method != "ancestral" else 1e-4)


def test_training_learns_the_noise_of_images():
    """Of flat images of random brightness; the best prediction is known, and so is its error."""
    generator = seeded(3)
    images = (torch.rand(256, 1, 1, 1, generator=generator) * 2 - 1).expand(-1, *SHAPE) * UNIT
    network = EuclideanUNet(1, PROCESS, **TINY)
    options = TrainingOptions(objective="noise", steps=120, batch_size=32, learning_rate=4e-3, warmup=10, ema=0.9)
    trained = fit(network, PROCESS, images.contiguous(), options, progress=False)
    t = torch.linspace(0.02, 1, 64)
    before, after = (noise_prediction(n, PROCESS, images[:64], t, seeded(4)) for n in (network, trained))
    assert torch.allclose(before.error, before.baseline), "new weights predict nothing"
    assert float(after.error[:, 0].mean()) < 0.3 * float(after.baseline[:, 0].mean())


def test_the_loss_counts_what_all_pixels_share():
    noise = torch.ones(2, *SHAPE) * torch.tensor([1.0, -2.0])[:, None, None, None] * UNIT
    diffusion = VariancePreserving(_Given(SHAPE, noise))
    loss = noise_prediction(lambda x, t: torch.zeros_like(x), diffusion, torch.zeros(2, *SHAPE), torch.ones(2))
    error, collective, order = loss.error.unbind(1)
    assert torch.allclose(error, torch.tensor([1.0, 4.0]))
    assert torch.allclose(collective, 64 * error) and torch.equal(order, collective)
    assert torch.allclose(loss.loss, torch.tensor(2.5))


class _Given(WhiteNoise):
    """Noise that is not random."""

    def __init__(self, shape, noise):
        super().__init__(shape, UNIT)
        self.noise = noise

    def draw(self, like, generator=None):
        return self.noise


def test_the_network_is_the_one_for_phases_but_for_its_ends():
    plain, periodic = EuclideanUNet(1, PROCESS), PeriodicUNet(1)
    sizes = [sum(x.numel() for x in network.parameters()) for network in (plain, periodic)]
    assert abs(sizes[0] / sizes[1] - 1) < 0.01
    shapes = [{name: tuple(x.shape) for name, x in network.state_dict().items()} for network in (plain, periodic)]
    assert shapes[0].keys() == shapes[1].keys()
    different = {name for name in shapes[0] if shapes[0][name] != shapes[1][name]}
    ends = ("first.", "last.", "pooled.2.", "embedding.layers.0.")
    assert different and all(name.startswith(ends) for name in different)
    x = torch.randn(2, 1, 16, 16)
    assert not plain(x, torch.tensor([0.2, 0.9])).any()


def test_the_network_sees_time_labels_and_values():
    network, x = unet(classes=3), torch.randn(2, *SHAPE, generator=seeded(0))
    t, label = torch.tensor([0.3, 0.6]), torch.tensor([0, 2])
    out = network(x, t, label)
    assert out.shape == x.shape and out.dtype == x.dtype
    for other in (network(x, t + 0.1, label), network(x, t, label - 1), network(x + 0.1, t, label)):
        assert (other - out).abs().amax((1, 2, 3)).min() > 1e-4
    assert torch.equal(network(x, t), network(x, t, torch.tensor([-1, -1])))
    with pytest.raises(ValueError, match=r"expected \(B, 1, H, W\)"):
        network(torch.zeros(1, 2, 8, 8), t[:1])


def test_a_checkpoint_gives_model_and_samples_back(tmp_path):
    network = unet(classes=2)
    checkpoints.save(tmp_path / "model.safetensors", Model(network, PROCESS, SHAPE, GreyLevels(0.9), None, {}))
    again = checkpoints.load(tmp_path / "model.safetensors")
    assert type(again.network) is EuclideanUNet and again.process == PROCESS and again.shape == SHAPE
    options = {"steps": 3, "seeds": [1, 2], "label": 1, "method": "ancestral"}
    samples = [model.sample(2, **options) for model in (again._replace(network=network), again)]
    assert torch.equal(*samples)
    assert samples[0].abs().max() <= UNIT + 1e-6, "no number beyond black and white, which would be the other one"


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ({"kind": "white", "shape": [1, 8, 8]}, "expected kind 'white', shape and unit"),
        ({"kind": "white", "shape": [1, 8, 0], "unit": 1.0}, "positive"),
        ({"kind": "white", "shape": "188", "unit": 1.0}, "expected kind 'white', shape and unit"),
        ({"kind": "white", "shape": [1, 8, 8], "unit": "1"}, "got unit"),
        ({"kind": "white", "shape": [1, 8, 8], "unit": math.inf}, "positive"),
    ],
)
def test_descriptions_that_make_no_diffusion_are_refused(noise, message):
    with pytest.raises(ValueError, match=message):
        process_from_dict({"kind": "variance_preserving", "rate": [0.1, 20], "noise": noise})


def test_networks_go_with_their_processes():
    description = describe(unet())
    assert describe(network_from_dict(description, PROCESS)) == description
    with pytest.raises(ValueError, match="process: got"):
        network_from_dict({**description, "kind": "PeriodicUNet"}, PROCESS)


def test_guidance_adds_the_difference_of_two_scores():
    def network(theta, t, label):
        return theta + label[:, None] * t[:, None]

    theta, t = torch.randn(3, 2, generator=seeded(5)), torch.tensor([0.1, 0.5, 0.9])
    for weight in (0.0, 1.0, 2.5, -1.0):
        expected = (1 - weight) * (theta - t[:, None]) + weight * (theta + 4 * t[:, None])
        assert torch.allclose(guided(network, 4, weight)(theta, t), expected, atol=1e-6)
    each = guided(network, torch.tensor([0, 1, 2]), 2.0)(theta, t)
    assert torch.allclose(each, theta + (2 * torch.arange(3) + 1)[:, None] * t[:, None], atol=1e-6)
    with pytest.raises(ValueError, match="weight: got nan"):
        guided(network, 0, math.nan)


def test_samples_are_more_of_their_class_with_guidance():
    """Two classes N(-1, .5^2) and N(1, .5^2): the guided samples of one lie farther from the other."""
    diffusion = VariancePreserving(WhiteNoise((1,)))
    left, right = known(diffusion, -1.0, 0.5), known(diffusion, 1.0, 0.5)

    def network(x, t, label):
        alpha, sigma = diffusion.alpha(t)[:, None], diffusion.sigma(t)[:, None]
        weight = torch.sigmoid(2 * alpha * x / ((alpha * 0.5) ** 2 + sigma**2))  # of the right one, given x
        none = weight * right(x, t) + (1 - weight) * left(x, t)
        return torch.where((label == 1)[:, None], right(x, t), none)

    options = {"steps": 100, "generator": seeded(6)}
    means = [float(sample(guided(network, 1, w), diffusion, (4000, 1), **options).mean()) for w in (1.0, 3.0)]
    assert means[0] == pytest.approx(1.0, abs=0.05)
    assert means[1] > 1.2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: WhiteNoise(()), "positive numbers"),
        (lambda: WhiteNoise((2, 2), 0.0), "positive numbers"),
        (lambda: PROCESS.perturb(torch.zeros(2, 1, 8, 9), torch.ones(2)), r"expected \(B, 1, 8, 8\)"),
        (lambda: PROCESS.perturb(torch.zeros(2, *SHAPE), torch.ones(3)), "one time"),
        (lambda: PROCESS.validate(torch.zeros(0, *SHAPE)), "no samples"),
        (lambda: PROCESS.validate(torch.full((1, *SHAPE), math.nan)), "NaN"),
        (lambda: sample(unet(), PROCESS, (2, 1, 8, 9)), r"expected \(B, 1, 8, 8\)"),
        (lambda: sample(unet(), PROCESS, (2, *SHAPE), method="euler"), "method: got 'euler'"),
        (lambda: sample(lambda x, t: x[:1], PROCESS, (2, *SHAPE), steps=1), "network: got shape"),
        (lambda: noise_prediction(lambda x, t: x[:1], PROCESS, torch.zeros(2, *SHAPE), torch.ones(2)), "got noise of"),
        (lambda: guided(unet(classes=3), 3), "label: got 3, expected a class from 0 to 2"),
        (lambda: guided(unet(classes=3), torch.tensor([0.5])), "label: got"),
        (lambda: guided(unet(classes=3), torch.tensor([0, 1]))(torch.zeros(3, *SHAPE), torch.ones(3)), "for 3 images"),
        (lambda: Model(unet(), PROCESS, SHAPE, GreyLevels(0.9), None, {}).sample(2, guidance=2.0), "guidance: got 2.0"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_data_that_the_prior_cannot_stand_for_are_refused():
    warm = PhaseData(torch.full((4, *SHAPE), 288.0), None, (), 0.9, "degrees Kelvin")
    with pytest.raises(ValueError, match="data: got numbers so large .* try to subtract their mean"):
        fit(unet(), PROCESS, warm, TrainingOptions(objective="noise", steps=1), progress=False)


def test_the_unit_of_the_noise_is_the_unit_of_everything():
    """Twice the numbers and twice the noise: the same network predicts twice the noise, and draws twice the samples."""
    one = VariancePreserving(WhiteNoise(SHAPE, 1.0))
    two = VariancePreserving(WhiteNoise(SHAPE, 2.0))
    small, large = unet(process=one), unet(process=two)
    large.load_state_dict(small.state_dict())
    x, t = torch.randn(3, *SHAPE, generator=seeded(1)), torch.tensor([0.1, 0.5, 0.9])
    assert torch.allclose(large(2 * x, t), 2 * small(x, t), atol=1e-5)
    samples = [sample(n, p, (2, *SHAPE), steps=3, seeds=[1, 2]) for n, p in ((small, one), (large, two))]
    assert torch.allclose(samples[1], 2 * samples[0], atol=1e-4)
    losses = [noise_prediction(n, p, k * x, t, seeded(2)).error for n, p, k in ((small, one, 1), (large, two, 2))]
    assert torch.allclose(*losses, atol=1e-5)
