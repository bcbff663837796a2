"""Losses, sampling and calibration on the meta device: a look at a value, or a mixing of devices, is an error there."""

import pytest
import torch

from kodm_lite import GlobalCoupling, KuramotoProcess, LocalCoupling, MeanField, PeriodicMLP, PeriodicUNet, Transition
from kodm_lite.calibration import Calibration, calibrate
from kodm_lite.euclidean import EUCLIDEAN_SAMPLERS, Noise, VariancePreserving, WhiteNoise, noise_prediction
from kodm_lite.networks import EuclideanUNet
from kodm_lite.samplers import KURAMOTO_SAMPLERS, Run, sample, take_steps
from kodm_lite.scores import guided

SIZES = {"width": 8, "multipliers": (1,), "blocks": 1, "patch": 1, "attention": ()}
META = torch.empty(3, 1, 8, 8, device="meta")
TIMES = torch.tensor([0.02, 1.0, 0.4])
CALIBRATION = Calibration((0.5, 1.0), (1.0, 2.0), damping=0.1)
DIFFUSION = VariancePreserving(WhiteNoise((1, 8, 8)))
OBJECTIVES = [MeanField(), MeanField("target", 20), Transition(), Transition(2, 20, "published")]


@pytest.fixture(params=[GlobalCoupling(), LocalCoupling(2, "reflect")], ids=["global", "local"])
def process(request):
    return KuramotoProcess(request.param)


def network_of(process, **options):
    make = EuclideanUNet if process is DIFFUSION else PeriodicUNet
    return make(1, process=process, **{**SIZES, **options}).to("meta")


def is_meta(x):
    return x.is_meta and x.shape == META.shape and x.dtype == torch.float32


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
@pytest.mark.parametrize("classes", [None, 3])
def test_losses_of_phases_and_their_gradients_wait_for_nothing(process, objective, classes):
    network = network_of(process, classes=classes)
    label = None if classes is None else torch.empty(3, dtype=torch.long, device="meta")
    loss = objective(network, process, META, label, objective.times(TIMES), None)
    loss.loss.backward()
    assert loss.error.is_meta and loss.baseline.is_meta and all(w.grad.is_meta for w in network.parameters())


def test_the_loss_of_oscillators_waits_for_nothing():
    process, theta = KuramotoProcess(), torch.empty(3, 5, device="meta")
    for objective in OBJECTIVES:
        assert objective(PeriodicMLP(5, process).to("meta"), process, theta, None, TIMES, None).loss.is_meta


@pytest.mark.parametrize("where", ["cpu", "meta"])
def test_the_loss_of_noise_prediction_waits_for_nothing(where):
    network, t = network_of(DIFFUSION), Noise().times(TIMES).to(where)
    for loss in (noise_prediction(network, DIFFUSION, META, t), Noise()(network, DIFFUSION, META, None, t, None)):
        loss.loss.backward()
        assert loss.error.is_meta and all(w.grad.is_meta for w in network.parameters())


def steps_of(process):
    return EUCLIDEAN_SAMPLERS if process is DIFFUSION else KURAMOTO_SAMPLERS


@pytest.mark.parametrize("name", KURAMOTO_SAMPLERS)
def test_steps_of_every_sampler_wait_for_nothing(process, name):
    run = Run(network_of(process), process, CALIBRATION, None)
    x, memory = META, None
    for t1, t0 in ((1.0, 0.6), (0.6, 0.2), (0.2, 0.0)):
        x, memory = KURAMOTO_SAMPLERS[name](run, x, t1, t0, memory)
        assert is_meta(x) and is_meta(process.project(x))


@pytest.mark.parametrize("name", EUCLIDEAN_SAMPLERS)
def test_steps_of_every_euclidean_sampler_wait_for_nothing(name):
    x, run = META, Run(network_of(DIFFUSION), DIFFUSION, None, None)
    for t1, t0 in ((1.0, 0.6), (0.6, 0.2), (0.2, 0.0)):
        x, _ = EUCLIDEAN_SAMPLERS[name](run, x, t1, t0, None)
        assert is_meta(x)
    assert is_meta(DIFFUSION.advance(META, 0.1, 0.2)) and is_meta(DIFFUSION.score(META, TIMES.to("meta")))


def test_a_step_looks_at_nothing_in_between():
    """Whether a state is finite is asked once, at the end, which the meta device does not have."""
    assert is_meta(take_steps(lambda x, t1, t0: 0.5 * x, META, [1.0, 0.5, 0.0]))


@pytest.mark.parametrize("kind", [KuramotoProcess(), KuramotoProcess(LocalCoupling(1)), DIFFUSION], ids=repr)
def test_sampling_goes_from_the_prior_to_the_end(kind):
    for method in steps_of(kind):
        calibration = None if kind is DIFFUSION else CALIBRATION
        options = {"steps": 3, "method": method, "calibration": calibration}
        network = network_of(kind)
        assert is_meta(sample(network, kind, META.shape, device="meta", **options))
        assert is_meta(sample(network, kind, META.shape, start=META, chunk=2, **options))
        classes = network_of(kind, classes=3)
        assert is_meta(sample(guided(classes, 1, 2.0), kind, META.shape, device="meta", **options))


def test_a_calibration_looks_at_its_numbers_at_the_end_only(process, monkeypatch):
    looks = []
    monkeypatch.setattr(torch.Tensor, "tolist", lambda x: looks.append(x.device.type) or [1.0] * len(x))
    assert calibrate(network_of(process), process, META, points=4).second_moments == (1.0,) * 4
    assert looks == ["meta"]
