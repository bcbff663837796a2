"""The hot paths on the meta device, which has no values: a look at one, or a mixing of devices, is an error there."""

import copy
import pickle

import pytest
import torch

from kodm_lite import (
    GibbsPrior,
    GlobalCoupling,
    KuramotoProcess,
    LocalCoupling,
    OrderParameterPrior,
    VonMises,
    WrappedNormal,
    modes,
    process,
)
from kodm_lite.fluctuation import Fluctuation, conditional_score
from kodm_lite.mean_field import mean_field_law

FIELD = torch.linspace(-3, 3, 64).reshape(1, 8, 8)
TIMES = torch.tensor([0.02, 1.0, 0.4])
META = torch.empty(3, 1, 8, 8, device="meta")
COUPLINGS = [GlobalCoupling(), LocalCoupling(2, "reflect")]


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch):
    """The meta device has no autocast that could be switched off."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: torch.no_grad())


@pytest.fixture(params=COUPLINGS, ids=["global", "local"])
def coupling(request):
    return request.param


@pytest.fixture(params=[0.3, FIELD], ids=["number", "field"])
def model(request, coupling):
    return KuramotoProcess(coupling, reference_phase=request.param)


def is_meta(x, dtype=torch.float32):
    return x.is_meta and x.shape == META.shape and x.dtype == dtype


@pytest.mark.parametrize("method", ["euler", "heun"])
@pytest.mark.parametrize("t", [0.3, TIMES], ids=["number", "per image"])
def test_a_simulation_waits_for_nothing(model, t, method):
    assert is_meta(model.run(META, t, 20, method=method))


def test_a_step_and_the_drift_wait_for_nothing(model):
    for t in (0.5, torch.empty(3, device="meta")):
        assert is_meta(model.drift(META, t)) and is_meta(model.step_drift(META, t, t))
        assert is_meta(model.equilibrium_score(META, t)) and is_meta(model.advance(META, META, 0.1, 0.2))
        assert is_meta(model.project(META))


def test_the_law_given_the_data_and_its_score_wait_for_nothing(model):
    law = mean_field_law(model, META, TIMES)
    assert is_meta(law.score(META)) and is_meta(law.sample())
    for fluctuation in (None, Fluctuation((0.5,), (0.7,), (0.0,))):
        assert is_meta(conditional_score(model, META, META, TIMES, fluctuation))


def test_priors_wait_for_nothing(model):
    assert is_meta(GibbsPrior(model).sample(META.shape, device="meta"))
    assert is_meta(model.draw_prior(META.shape, device="meta"))
    assert is_meta(OrderParameterPrior(torch.tensor([0.3j, 0.5])).sample(META.shape, device="meta"))


@pytest.mark.parametrize("law", [WrappedNormal, VonMises])
def test_laws_on_the_circle_wait_for_nothing(law):
    for parameters in ((META, META), (META, 0.5), (0.5, META)):
        found = law(*parameters, validate_args=False)
        assert all(is_meta(x) for x in (found.log_prob(META), found.score(META), found.sample()))


@pytest.mark.parametrize("t", [0.5, TIMES], ids=["number", "per image"])
def test_values_are_looked_at_once_in_a_simulation(model, t, monkeypatch):
    looks, plain = [], process.validate_phases
    monkeypatch.setattr(process, "validate_phases", lambda *args: looks.append(0) or plain(*args))
    model.simulate(torch.zeros(3, 1, 8, 8), t, 50)
    assert len(looks) == 1
    model.run(torch.zeros(3, 1, 8, 8), t, 50)
    assert len(looks) == 1


def test_a_field_is_copied_once_and_leaves_no_trace_in_the_process(monkeypatch):
    mine, copies = FIELD.clone(), []
    model, plain = KuramotoProcess(reference_phase=mine), modes._cos_sin
    monkeypatch.setattr(modes, "_cos_sin", lambda *args: copies.append(0) or plain(*args))
    for _ in range(3):
        model.run(META, 0.5, 10)
        model.run(META.double(), 0.5, 10)
    assert len(copies) == 2
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again == model and hash(again) == hash(model)
        assert torch.equal(again.drift(FIELD[None], 0.5), model.drift(FIELD[None], 0.5))
    mine += 1
    assert torch.equal(model.reference_phase, FIELD)


def test_the_default_dtype_changes_nothing(model):
    def results():
        theta = FIELD.expand(3, 1, 8, 8)
        law = mean_field_law(model, theta, TIMES)
        seeded = torch.Generator().manual_seed(0)
        yield model.simulate(theta, TIMES, 20, seeded)
        yield from (law.score(theta), law.sample(seeded), law.modes, law.field, law.cumulants.mode(1))
        yield conditional_score(model, theta, theta, TIMES)
        yield GibbsPrior(model).sample((2, 1, 8, 8), seeded)
        yield OrderParameterPrior(torch.tensor([0.3 + 0j, 0.1], dtype=torch.complex64)).sample((2, 9), seeded)
        yield from (WrappedNormal(0.2, 0.5).sample((3,), seeded), VonMises(0.2, 0.5).sample((3,), seeded))
        yield VonMises.from_order_parameter(torch.tensor(0.3 + 0j, dtype=torch.complex64)).concentration

    plain = list(results())
    torch.set_default_dtype(torch.float64)
    try:
        again = list(results())
    finally:
        torch.set_default_dtype(torch.float32)
    for a, b in zip(plain, again, strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)
