"""The spherical network: equivariance, training by fit, checkpoints, and what it samples."""

import math

import numpy as np
import pytest
import torch
from helpers import seeded
from scipy.spatial.transform import Rotation

from kodm_lite import KuramotoProcess, LinearSchedule, checkpoints
from kodm_lite.checkpoints import CheckpointError, Model
from kodm_lite.cli import main
from kodm_lite.encoding import Numbers
from kodm_lite.euclidean import VariancePreserving, noise_prediction
from kodm_lite.kinds import process_from_dict
from kodm_lite.networks import PeriodicMLP
from kodm_lite.recipes import SphereRecipe
from kodm_lite.samplers import sample
from kodm_lite.sphere import (
    IsotropicNoise,
    PerDegreeDenoiser,
    PixelNoise,
    SphericalNet,
    SphericalTransform,
    gaussian_fields,
    lognormal_fields,
    make_grid,
    power_spectrum,
    random_fields,
)
from kodm_lite.training import TrainingOptions, fit

L = 6
SPECTRUM = (1 + torch.arange(L) / 3.0) ** -2.0
DIFFUSION = VariancePreserving(IsotropicNoise(L))


def network(process=DIFFUSION, trained=True, **options):
    torch.manual_seed(0)
    net = SphericalNet(process, SPECTRUM, **{"channels": 8, "blocks": 2, **options})
    if trained:  # as if: a new one is the Gaussian predictor
        with torch.no_grad():
            net.read.copy_(torch.randn(net.read.shape, generator=seeded(1)))
    return net


def test_a_new_network_is_the_best_one_for_gaussian_fields():
    c, t = gaussian_fields(SPECTRUM, 5, seeded(0)), torch.linspace(0.05, 1, 5)
    torch.testing.assert_close(network(trained=False)(c, t), PerDegreeDenoiser(DIFFUSION, SPECTRUM)(c, t))


@pytest.mark.parametrize(("oversampling", "worst"), [(1.0, 0.2), (2.0, 0.02), (4.0, 0.002)])
def test_it_turns_with_the_sphere_up_to_aliasing(oversampling, worst):
    net = network(oversampling=oversampling)
    transform = SphericalTransform(make_grid("gauss", L))
    rotation = torch.tensor(Rotation.from_euler("zyz", [0.4, 1.2, 0.3]).as_matrix())
    c, t = gaussian_fields(SPECTRUM.double(), 20, seeded(2)), torch.linspace(0.05, 1, 20)
    turned = transform.rotate(c, rotation).float()
    with torch.no_grad():
        difference = net(turned, t) - transform.rotate(net(c.float(), t).double(), rotation).float()
        extra = net(c.float(), t) - PerDegreeDenoiser(DIFFUSION, SPECTRUM)(c.float(), t)
    assert float(difference.norm() / extra.norm()) < worst


def test_fit_learns_what_is_not_gaussian():
    spectrum = 1.5 * SPECTRUM.double()
    data, held_out = (lognormal_fields(spectrum, n, seeded(n)).float() for n in (600, 256))
    net = SphericalNet(DIFFUSION, power_spectrum(data).mean(0), channels=8, blocks=2)
    options = TrainingOptions(objective="noise", steps=150, batch_size=32, learning_rate=5e-3, ema=0.9, warmup=10)
    trained = fit(net, DIFFUSION, data, options, validation=held_out, progress=False)
    t = torch.linspace(0.02, 0.5, 256)
    with torch.no_grad():
        before, after = (noise_prediction(n, DIFFUSION, held_out, t, seeded(5)).error[:, 0] for n in (net, trained))
    assert float(after.mean() / before.mean()) < 0.85


@pytest.mark.parametrize(
    "noise",
    [IsotropicNoise(L), PixelNoise(SphericalTransform(make_grid("equiangular", L), torch.float32), normalise=False)],
)
@pytest.mark.parametrize("kind", [VariancePreserving])
def test_checkpoints_give_the_same_network_back(tmp_path, noise, kind):
    process = kind(noise, LinearSchedule(0.5, 30.0))
    net = network(process)
    checkpoints.save(tmp_path / "model.safetensors", Model(net, process, (L * L,), Numbers(), None, {"name": "test"}))
    loaded = checkpoints.load(tmp_path / "model.safetensors")
    assert loaded.process == process and type(loaded.process) is kind and loaded.shape == (L * L,)
    c, t = gaussian_fields(SPECTRUM, 3, seeded(0)), torch.tensor([0.1, 0.5, 1.0])
    torch.testing.assert_close(loaded.network(c, t), net(c, t), rtol=0, atol=0)
    first, second = (sample(n, p, (2, L * L), steps=3, seeds=[1, 2]) for n, p in ((net, process), loaded[:2]))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "PeriodicMLP"}, "got options"),
        ({"spectrum": [1.0]}, "spectrum"),
        ({"spectrum": [1.0] * 5 + [-1.0]}, "spectrum"),
        ({"channels": 10**9}, "channels"),
        ({"oversampling": 1e9}, "oversampling"),
    ],
)
def test_descriptions_that_make_no_network_are_refused(change, message):
    description = {"kind": "SphericalNet", **network().config, **change}
    with pytest.raises(ValueError, match=message):
        checkpoints._network(description, DIFFUSION, "meta", None)


@pytest.mark.parametrize(
    "data",
    [
        {"kind": "variance_preserving"},
        {"kind": "Other", "rate": [0, 1], "noise": {"kind": "isotropic", "L": 3}},
        {"kind": "variance_preserving", "rate": [0], "noise": {"kind": "isotropic", "L": 3}},
        {"kind": "variance_preserving", "rate": [0, -1], "noise": {"kind": "isotropic", "L": 3}},
        {"kind": "variance_preserving", "rate": [0, 1], "noise": {"kind": "isotropic", "L": 10**6}},
        {"kind": "variance_preserving", "rate": [0, 1], "noise": {"kind": ["isotropic"], "L": 3}},
        {"kind": ["variance_preserving"], "rate": [0, 1], "noise": {"kind": "isotropic", "L": 3}},
        {"kind": "variance_preserving", "rate": [0, 1], "noise": {"kind": "pixel", "L": 3}},
        {
            "kind": "variance_preserving",
            "rate": [0, 1],
            "noise": {"kind": "pixel", "grid": "gauss", "L": 3, "nlat": 2, "nlon": 6, "dtype": "float32",
                      "normalise": True},
        },
    ],
)  # fmt: skip
def test_descriptions_that_make_no_diffusion_are_refused(data):
    with pytest.raises(ValueError, match=r"process|noise|nlat|schedule"):
        process_from_dict(data)


def test_what_does_not_fit_together_is_refused(tmp_path):
    net, data = network(), gaussian_fields(SPECTRUM, 8, seeded(0))
    other = VariancePreserving(IsotropicNoise(L), LinearSchedule(0.1, 9.0))
    for process, x, options, message in (
        (
            DIFFUSION,
            data,
            {"objective": "mean_field"},
            "objective: got 'mean_field' for VariancePreserving, expected one of noise",
        ),
        (KuramotoProcess(), data, {"objective": "noise"}, "objective: got 'noise' for KuramotoProcess"),
        (other, data, {"objective": "noise"}, "process: got another one"),
        (DIFFUSION, data[:, :25], {"objective": "noise"}, r"data: got shape \(8, 25\), expected \(B, 36\)"),
        (DIFFUSION, data * math.nan, {"objective": "noise"}, "data: got .*NaN"),
        (DIFFUSION, data, {"objective": "noise", "sample_every": 5}, "sample_every"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(net, process, x, TrainingOptions(steps=1, batch_size=4, **options), progress=False)
    with pytest.raises(ValueError, match="spectrum: got 6 values, expected 5"):
        SphericalNet(VariancePreserving(IsotropicNoise(5)), SPECTRUM)
    with pytest.raises(ValueError, match="shape"):
        checkpoints.save(tmp_path / "x.safetensors", Model(net, DIFFUSION, (25,), Numbers(), None, {}))
    with pytest.raises((ValueError, CheckpointError), match="network"):
        checkpoints.save(tmp_path / "x.safetensors", Model(PeriodicMLP(36), DIFFUSION, (36,), Numbers(), None, {}))


@pytest.mark.parametrize(("value", "shown"), [(0.0, "0"), (-2.0, "-2"), (math.nan, "nan"), (math.inf, "inf")])
def test_the_offending_value_of_a_spectrum_is_named(value, shown):
    with pytest.raises(ValueError, match=rf"(?s)spectrum: got C_3 = {shown}, expected .*try "):
        SphericalNet(DIFFUSION, [1.0, 1.0, 1.0, value, 1.0, 1.0])


def test_lognormal_fields_are_made_in_pieces(monkeypatch):
    """As many numbers on the grid at a time as are allowed, and the same fields as at once."""
    sizes, synthesis = [], SphericalTransform.synthesis
    monkeypatch.setattr(SphericalTransform, "synthesis", lambda self, c: sizes.append(len(c)) or synthesis(self, c))
    at_once = lognormal_fields(SPECTRUM, 10, seeded(0))
    monkeypatch.setattr(random_fields, "_PIECE", 4 * (2 * L) * (4 * L))
    torch.testing.assert_close(lognormal_fields(SPECTRUM, 10, seeded(0)), at_once)
    assert sizes == [10, 4, 4, 2] and lognormal_fields(SPECTRUM, 0).shape == (0, L * L)


def test_lognormal_fields_of_the_shipped_models_are_made_at_once():
    """Then they are the same to the last bit, whatever the arithmetic does with another batch."""
    recipe = SphereRecipe()
    assert recipe.fields * 8 * recipe.L**2 <= random_fields._PIECE


def test_lognormal_fields_are_skewed_and_centred():
    spectrum = 0.4 * SPECTRUM.double()
    c = lognormal_fields(spectrum, 3000, seeded(0))
    x = SphericalTransform(make_grid("gauss", L)).synthesis(c)
    assert abs(float(x.mean())) < 0.05
    skewness = float(((x - x.mean()) ** 3).mean() / x.var() ** 1.5)
    assert skewness > 0.8
    assert 0.9 < float((c[:, 1:4].var(0) / c[:, 1:4].var(0).mean()).min())  # alike for every order


def test_the_commands_train_and_sample(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    folder = str(tmp_path / "run")
    train = ["train", "sphere-16", "--L", "4", "--channels", "4", "--blocks", "1", "--fields", "64", "--steps", "3"]
    for noise in ("isotropic", "pixel"):
        main([*train, "--noise", noise, "--batch-size", "8", "--out", folder, "--no-resume"])
        assert "64 images 16" in capsys.readouterr().out
        assert checkpoints.load(tmp_path / "run" / "model.safetensors").card["step"] == 3
    main(["sample", folder, "-n", "3", "--steps", "2", "--out", str(tmp_path / "maps.png"), "--chunk", "2"])
    main(["sample", folder, "-n", "3", "--steps", "2", "--out", str(tmp_path / "fields.npz")])
    archive = np.load(tmp_path / "fields.npz", allow_pickle=False)
    assert archive["coefficients"].shape == (3, 16) and (tmp_path / "maps.png").stat().st_size > 10_000
    assert main(["sample", folder, "--out", str(tmp_path / "folder")]) != 0
    assert "expected --out NAME.png for maps" in capsys.readouterr().err
    main(["info", folder])
    assert "SphericalNet" in capsys.readouterr().out
