"""Methods of the table: none gets more evaluations of its network than the others, nor fewer than it could have."""

import pytest

from kodm_lite import KuramotoProcess, PeriodicUNet
from kodm_lite.encoding import GreyLevels
from kodm_lite.euclidean import VariancePreserving, WhiteNoise
from kodm_lite.model import Model
from kodm_lite.networks import EuclideanUNet
from kodm_lite.reproduce.methods import METHODS

SHAPE, SMALL = (1, 8, 8), {"width": 8, "multipliers": (1, 1), "blocks": 1, "attention": ()}


def model_of(method):
    euclidean = method.change.get("diffusion") == "euclidean"
    process = VariancePreserving(WhiteNoise(SHAPE, 2.0)) if euclidean else KuramotoProcess()
    network = (EuclideanUNet if euclidean else PeriodicUNet)(1, process, **SMALL)
    return Model(network, process, SHAPE, GreyLevels(0.5), None, {})


@pytest.mark.parametrize("budget", [6, 11])
@pytest.mark.parametrize("name", METHODS)
def test_a_sample_costs_its_budget(name, budget):
    method = METHODS[name]
    model, calls = model_of(method), []
    model.network.register_forward_hook(lambda *_: calls.append(1))
    samples = model.sample(2, chunk=2, **method.sampling(model, budget))
    assert samples.shape == (2, *SHAPE)
    assert budget - method.evaluations <= len(calls) <= budget


def test_a_budget_without_a_step_is_refused():
    with pytest.raises(ValueError, match="budget: got 1, expected at least 2 evaluations for SGM, probability flow"):
        METHODS["sgm-flow"].sampling(model_of(METHODS["sgm-flow"]), 1)
