"""From hardly any noise to far too much: whatever is accepted stays finite, and what cannot be resolved is refused."""

import pytest
import torch
from helpers import random_phases, seeded

import kodm_lite as kodm
from kodm_lite.samplers import KURAMOTO_SAMPLERS

CLOCKS = [1e-6, 1e-3, 1.0, 90.0, 1e4]
OBJECTIVES = [kodm.MeanField(steps=20), kodm.MeanField("target", 20), kodm.Transition(steps=20), kodm.Transition(2, 20)]


def process_of(clock, coupled):
    """Noise of variance ``clock`` at t = 1, with or without coupling of the same strength."""
    rate = kodm.LinearSchedule(clock / 2, clock / 2)
    pull = rate.scaled(0.5 if coupled else 0.0)
    return kodm.KuramotoProcess(coupling_strength=pull, reference_strength=pull, diffusion=rate)


def network_of(process):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = kodm.PeriodicMLP(3, process, width=8, depth=1)
        torch.nn.init.normal_(network.last.weight, std=0.1)
    return network


def finite_or_refused(compute):
    """Whether it could be computed."""
    try:
        found = compute()
    except ValueError as error:
        assert "expected" in str(error) and "try" in str(error)
        return False
    assert all(bool(torch.isfinite(torch.as_tensor(x)).all()) for x in found)
    return True


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("clock", CLOCKS)
def test_losses_and_their_gradients(clock, coupled):
    process = process_of(clock, coupled)
    network, theta0, t = network_of(process), random_phases(8, 3).float(), torch.linspace(0.02, 1, 8)
    for objective in OBJECTIVES:

        def compute(objective=objective):
            objective.check(process, theta0[:1])
            loss = objective(network, process, theta0, None, t, seeded(0))
            return [*loss, *torch.autograd.grad(loss.loss, list(network.parameters()))]

        assert finite_or_refused(compute) or (coupled and clock > 20), "refused for its drift, not for its noise"


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("clock", CLOCKS)
def test_calibration_and_every_sampler(clock, coupled):
    process = process_of(clock, coupled)
    network, theta0 = network_of(process), random_phases(8, 3).float()
    measured = []

    def calibrate():
        measured.append(kodm.calibrate(network, process, theta0, points=5, generator=seeded(0)))
        return measured[0].second_moments

    calibrated = finite_or_refused(calibrate)
    assert calibrated or (coupled and clock > 90), "refused for its drift, not for its noise"
    for method in KURAMOTO_SAMPLERS if calibrated else ("ode", "euler"):
        calibration = measured[0] if measured else None
        options = {"steps": 5, "method": method, "calibration": calibration, "seeds": range(4)}
        finite_or_refused(lambda options=options: [kodm.sample(network, process, (4, 3), **options)])
