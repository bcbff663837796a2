"""On a GPU: the same numbers as on the CPU, and no waiting inside a training step.  Run by ``benchmarks/device.sh``."""

import copy
from contextlib import contextmanager

import pytest
import torch
from helpers import random_phases, seeded

from kodm_lite import GlobalCoupling, KuramotoProcess, LocalCoupling, angle_difference, calibrate, randomness, sample
from kodm_lite.data import PhaseData
from kodm_lite.encoding import GreyLevels
from kodm_lite.networks import PeriodicMLP, PeriodicUNet
from kodm_lite.objectives import MeanField, Transition
from kodm_lite.training import TrainingOptions
from kodm_lite.training.batches import Batches
from kodm_lite.training.learner import Learner
from kodm_lite.training.run import accelerator

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
TINY = {"width": 8, "multipliers": (1, 2), "blocks": 1, "patch": 2, "attention": (1,)}
COUPLINGS = [GlobalCoupling(), LocalCoupling(2, "reflect")]
METHODS = ["euler", "adams", "ode", "hybrid", "ancestral", "pc"]


@pytest.fixture(autouse=True)
def exact():
    """Convolutions in full single precision, as products are by default, so that devices can be compared."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@pytest.fixture
def same_noise(monkeypatch):
    """Random numbers come from the CPU wherever they go, so that both devices get the same."""
    real = randomness._draw
    monkeypatch.setattr(randomness, "_draw", lambda draw, like, g: real(draw, like.cpu(), g).to(like.device))


@contextmanager
def no_waiting():
    """Whatever makes the host wait for the GPU is an error."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def unet(process):
    """A network whose last layers, which start at zero, are random."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PeriodicUNet(1, process, **TINY).eval()
        for weight in (network.last.weight, network.pooled[-1].weight):
            torch.nn.init.normal_(weight, std=0.1)
    return network


def phases(*shape, seed=0):
    return random_phases(*shape, seed=seed, dtype=torch.float32)


@pytest.mark.parametrize("coupling", COUPLINGS, ids=str)
def test_networks(coupling):
    theta, t = phases(6, 1, 16, 16), torch.linspace(0.05, 1, 6)
    network = unet(KuramotoProcess(coupling))
    with torch.no_grad():
        expected, found = network(theta, t), copy.deepcopy(network).cuda()(theta.cuda(), t.cuda())
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_oscillators():
    theta, t = phases(6, 5), torch.linspace(0.05, 1, 6)
    network = PeriodicMLP(5, KuramotoProcess(), width=16, depth=2)
    with torch.no_grad():
        expected, found = network(theta, t), copy.deepcopy(network).cuda()(theta.cuda(), t.cuda())
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("coupling", COUPLINGS, ids=str)
def test_steps_with_the_same_noise(coupling):
    process, theta, noise = (
        KuramotoProcess(coupling),
        phases(4, 1, 16, 16),
        torch.randn(4, 1, 16, 16, generator=seeded(1)),
    )
    for k in range(10):
        t0, t1 = 0.5 + 0.01 * k, 0.51 + 0.01 * k
        expected = process.advance(theta, noise, t0, t1)
        found = process.advance(theta.cuda(), noise.cuda(), t0, t1).cpu()
        assert float(angle_difference(found, expected).abs().max()) < 1e-5
        theta = expected


@pytest.mark.parametrize("coupling", COUPLINGS, ids=str)
@pytest.mark.parametrize("method", ["euler", "heun"])
def test_simulations_with_the_same_noise(coupling, method, same_noise):
    process, theta0 = KuramotoProcess(coupling), phases(4, 1, 16, 16)
    expected, found = (process.simulate(x, 0.6, 20, seeded(0), method=method).cpu() for x in (theta0, theta0.cuda()))
    assert float(angle_difference(found, expected).abs().max()) < 1e-4


@pytest.mark.parametrize("coupling", COUPLINGS, ids=str)
@pytest.mark.parametrize("objective", [MeanField(), Transition()], ids=["mean field", "transition"])
def test_losses_with_the_same_noise(coupling, objective, same_noise):
    process = KuramotoProcess(coupling)
    network, theta0, t = unet(process), phases(16, 1, 16, 16) * 0.5, objective.times((torch.arange(16) + 0.5) / 16)
    expected = float(objective(network, process, theta0, None, t, seeded(0)).loss)
    found = float(objective(copy.deepcopy(network).cuda(), process, theta0.cuda(), None, t, seeded(0)).loss)
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_samplers_with_the_same_noise(method, same_noise):
    process = KuramotoProcess()
    network, start = unet(process), phases(4, 1, 16, 16)
    calibration = calibrate(network, process, phases(32, 1, 16, 16), points=2, generator=seeded(1))
    options = {"steps": 10, "method": method, "calibration": calibration}
    expected, found = (
        sample(model, process, (4, 1, 16, 16), start=x, generator=seeded(0), **options).cpu()
        for model, x in ((network, start), (copy.deepcopy(network).cuda(), start.cuda()))
    )
    assert float(angle_difference(found, expected).abs().max()) < 1e-3


@pytest.mark.parametrize("coupling", COUPLINGS, ids=str)
@pytest.mark.parametrize("objective", [MeanField(), Transition()], ids=["mean field", "transition"])
def test_a_training_step_waits_for_nothing(coupling, objective):
    process = KuramotoProcess(coupling)
    data = PhaseData(phases(32, 1, 16, 16), None, (), GreyLevels(0.9), "noise")
    options = TrainingOptions(steps=10, batch_size=16)
    learner = Learner(unet(process), process, objective, options, accelerator("float32"))
    batches = Batches(data, options, learner.accelerator.device)
    for step in range(3):  # what is computed once and kept
        learner.update(step, [batches.shard(step, 0)])
    with no_waiting():
        learner.update(3, [batches.shard(3, 0)])


@pytest.mark.parametrize("method", METHODS)
def test_a_sampling_step_waits_for_nothing(method):
    process = KuramotoProcess()
    network, theta = unet(process).cuda(), phases(4, 1, 16, 16).cuda()
    calibration = calibrate(network, process, theta, points=2)
    generator = torch.Generator("cuda").manual_seed(0)
    options = {"method": method, "calibration": calibration, "generator": generator, "start": theta}
    sample(network, process, tuple(theta.shape), steps=3, **options)
    with no_waiting():
        sample(network, process, tuple(theta.shape), steps=3, **options)
