"""The examples of CONTRIBUTING's chapter "Your own ..." run as they stand, and each is short."""

import math
import re
import runpy
from pathlib import Path

import pytest
import torch

import kodm_lite as kodm
from kodm_lite import registry, sphere
from kodm_lite.fluctuation import conditional_score

CHAPTER = re.search(
    r"^## Your own .*?(?=^## )", (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL
)[0]
EXAMPLES = {
    title.lower().removeprefix("a ").replace(" ", "_"): code
    for title, code in re.findall(r"^### ([^\n]*)\n(?:(?!^###).)*?^```python\n(.*?)^```$", CHAPTER, re.M | re.S)
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run an example in a folder of its own; what it registered is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    for known in (registry.couplings, registry.processes):
        monkeypatch.setattr(known, "_entries", dict(known._entries))
    torch.manual_seed(0)

    def run(name):
        path = tmp_path / f"{name}.py"
        path.write_text(EXAMPLES[name])
        return runpy.run_path(str(path), run_name=name)

    return run


def test_there_is_one_for_every_extension():
    assert list(EXAMPLES) == [
        "forward_process",
        "coupling",
        "sampler",
        "data_set",
        "data_larger_than_memory",
        "network",
    ]
    assert CHAPTER.count("```python") == len(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_they_are_short(name):
    lines = [line for line in EXAMPLES[name].splitlines() if line]
    assert len(lines) <= 30 and max(map(len, lines)) <= 120


def test_a_process_of_ones_own_is_learnt(run):
    made = run("forward_process")
    process, theta = made["process"], made["theta"]
    resultant = kodm.order_parameter(theta).abs()
    assert theta.shape == (64, 2) and float(theta.abs().max()) <= math.pi
    # The data have E cos theta = I_1(4) / I_0(4) = 0.864, the prior none.
    assert float(theta.cos().mean()) > 0.6 and torch.isfinite(resultant).all()
    assert kodm.load("brownian").process == process
    trained = kodm.load("brownian").network
    again = kodm.fit(trained, process, made["data"], kodm.TrainingOptions(steps=2), progress=False)
    assert torch.isfinite(again(theta, torch.ones(64))).all()
    with pytest.raises(ValueError, match=r"objective: got 'noise' for Brownian, expected one of denoising"):
        kodm.fit(trained, process, made["data"], kodm.TrainingOptions(steps=2, objective="noise"), progress=False)
    with pytest.raises(ValueError, match=r"method: got 'ode', expected one of euler for Brownian"):
        kodm.load("brownian").sample(2, method="ode")
    with pytest.raises(ValueError, match=r"data: got torch.int64 of shape \(3, 2\), expected finite .*try"):
        kodm.fit(trained, process, torch.zeros(3, 2).long(), progress=False)
    with pytest.raises(ValueError, match=r"process: got entries \['kind', 'more'\], expected \['kind', 'spread'\]"):
        kodm.kinds.process_from_dict({"kind": "brownian", "more": 1})


def test_a_process_of_ones_own_is_refused_where_it_is_not_known(run):
    run("forward_process")
    del registry.processes._entries["brownian"]
    with pytest.raises(ValueError, match=r"process: got kind 'brownian', expected one of .*kodm_lite.registry"):
        kodm.load("brownian")


def test_a_coupling_of_ones_own_trains_and_comes_back(run):
    made = run("coupling")
    process, weights = made["process"], made["process"].coupling.weights
    torch.testing.assert_close(weights.sum(1), torch.ones(9, dtype=torch.float64))
    assert torch.equal(weights, weights.T) and bool((weights >= 0).all())
    assert float(process.coupling.transfer((9,))[0]) == pytest.approx(1.0)
    assert kodm.load("graph").process == process and made["theta"].shape == (16, 9)
    theta = made["theta"]
    direct = (weights.float() * torch.sin(theta[:, None, :] - theta[:, :, None])).sum(2)
    reference = kodm.KuramotoProcess(coupling=process.coupling, coupling_strength=kodm.LinearSchedule(0.0, 0.0))
    drift = process.drift(theta, 0.5) - reference.drift(theta, 0.5)
    torch.testing.assert_close(drift, process.coupling_strength.at(0.5) * direct, rtol=1e-4, atol=1e-5)
    assert torch.isfinite(conditional_score(process, theta, theta, torch.full((16,), 0.5))).all()


def test_a_sampler_of_ones_own_goes_the_same_way_as_the_flow(run):
    made = run("sampler")
    model, far = kodm.load("digits-16"), []
    assert made["theta"].shape == (4, 1, 16, 16)
    exact = model.sample(4, steps=400, method="ode", label="7")
    for steps in (25, 100):
        theta = model.sample(4, steps=steps, method=made["midpoint"], label="7")
        far.append(float(kodm.angle_difference(theta, exact).abs().mean()))
    assert far[1] < far[0] and far[1] < 0.1


def test_data_of_ones_own_are_learnt_with_their_names_and_contrast(run):
    made = run("data_set")
    card = made["model"].card
    assert made["model"].encoding == kodm.GreyLevels(0.5) and made["images"].shape == (4, 1, 8, 8)
    assert card["classes"] == ["upright", "lying"] and card["licence"] == "CC0"


def test_a_network_of_ones_own_is_loaded_where_its_class_is_given(run):
    made = run("network")
    assert made["theta"].shape == (16, 2)
    with pytest.raises(ValueError, match=r"one of the class network:Own, .* network=Own"):
        kodm.load("own")


def test_a_coupling_on_the_sphere_trains_goes_on_and_comes_back(tmp_path):
    transform = sphere.SphericalTransform(sphere.make_grid("equiangular", 4, nlon=8), torch.float32)
    process = kodm.KuramotoProcess(coupling=sphere.SphericalCoupling(transform, sphere.cap_kernel(0.6)))
    data = kodm.VonMises(torch.zeros(16, 1, *transform.grid.shape), 4.0).sample()
    network = kodm.PeriodicUNet(1, process, width=16, multipliers=(1,), blocks=1, patch=1, attention=())
    for steps in (2, 4):
        options = kodm.TrainingOptions(steps=steps, batch_size=4, decay="constant", ema=0.5)
        kodm.fit(network, process, data, options, encoding=kodm.Angles(), out=tmp_path, progress=False)
    model = kodm.load(tmp_path)
    assert model.card["step"] == 4 and model.process == process
    kodm.save(tmp_path / "again.safetensors", model)
    assert kodm.load(tmp_path / "again.safetensors").process == process
    assert model.sample(2, steps=3).shape == (2, 1, *transform.grid.shape)
