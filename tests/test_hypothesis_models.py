"""Any argument of what encodes, samples, trains and stores: finite numbers, or an error of the house."""

import math
from contextlib import suppress
from dataclasses import replace
from functools import partial

import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from test_hypothesis_core import answers_or_explains, anything, finite, phases

import kodm_lite as kodm
from kodm_lite import calibration, checkpoints, euclidean, kinds, objectives, registry, samplers
from kodm_lite.encoding import Numbers
from kodm_lite.losses import early_times, squared_error
from kodm_lite.model import describe, network_from_dict
from kodm_lite.scores import guided

options = {"deadline": None, "derandomize": True, "database": None, "phases": [Phase.explicit, Phase.generate]}
several = settings(max_examples=30, **options)
few = settings(max_examples=8, **options)

SIZES = {"width": 8, "multipliers": (1,), "blocks": 1, "patch": 1, "attention": ()}
SHAPE = (2, 1, 4, 4)
THETA = torch.linspace(-3, 3, 32).reshape(SHAPE)
DIFFUSION = euclidean.VariancePreserving(euclidean.WhiteNoise(SHAPE[1:]))
CALIBRATION = calibration.Calibration((0.5, 1.0), (1.0, 2.0), 0.1)
GREY = kodm.GreyLevels(0.5)
ENCODINGS = [GREY, kodm.GreyLevels(0.9), kodm.GreyLevels(1e-3), kodm.Angles(), Numbers()]


def unet(process, **options):
    torch.manual_seed(0)
    make = kodm.networks.EuclideanUNet if process is DIFFUSION else kodm.PeriodicUNet
    return make(1, process=process, **{**SIZES, **options})


@st.composite
def processes(draw):
    coupling = draw(st.sampled_from([kodm.GlobalCoupling(), kodm.LocalCoupling(1), kodm.LocalCoupling(2, "reflect")]))
    strength = draw(st.sampled_from([1e-4, 0.1, 1.0, 5.0]))
    return kodm.KuramotoProcess(coupling, reference_phase=draw(st.floats(-3, 3))).scaled(strength)


def calls(*functions):
    for call in functions:
        with suppress(FloatingPointError):  # of a sampler, which names the step
            answers_or_explains(call)


# Encodings and what is known by name


@several
@given(st.sampled_from(ENCODINGS), phases(SHAPE), phases(SHAPE, 100.0), anything, anything)
def test_encodings(encoding, theta, far, x, y):
    values = encoding.decode(theta)
    again = encoding.encode(values)
    assert finite(values) and finite(again) and values.dtype == again.dtype == theta.dtype
    torch.testing.assert_close(encoding.decode(again), values, rtol=1e-4, atol=1e-4)
    assert finite(encoding.project(far)) and registry.encodings.of(encoding.to_dict())(encoding.to_dict()) == encoding
    calls(lambda: kodm.GreyLevels(x), lambda: type(encoding).from_dict(x))
    calls(lambda: registry.encodings.of(x), lambda: type(encoding).from_dict({**encoding.to_dict(), "scale": y}))
    if encoding != Numbers():
        calls(lambda: encoding.encode(x), lambda: encoding.decode(x), lambda: encoding.project(x))
    calls(lambda: GREY.to_uint8(x))


@several
@given(anything, anything, anything)
def test_registries_and_kinds(x, y, z):
    for known in (registry.couplings, registry.encodings, registry.noises, registry.networks, registry.processes):
        calls(lambda known=known: known.of(x), lambda known=known: known[x], lambda known=known: known.of({"kind": y}))
        fresh = registry.Registry("thing", {"old": "kodm_lite.encoding:Angles"})
        calls(lambda fresh=fresh: fresh.register(x, 1), lambda fresh=fresh: fresh.register("old", y))
    calls(lambda: kinds.time_grid(x), lambda: kinds.process_from_dict(x), lambda: kodm.register(x, None))
    for process in (DIFFUSION, kodm.KuramotoProcess()):
        data = process.to_dict()
        assert kinds.process_from_dict(data) == process
        for entry in data:
            calls(lambda data=data, entry=entry: kinds.process_from_dict({**data, entry: z}))


# Objectives


OBJECTIVES = [kodm.MeanField(), kodm.MeanField("target", 20), kodm.Transition(), kodm.Transition(2, 30, "published")]


@few
@given(processes(), st.sampled_from(OBJECTIVES), phases(SHAPE), st.floats(1e-3, 1), st.integers(0, 99))
def test_losses_and_gradients_of_valid_phases_are_finite(process, objective, theta, t, seed):
    network, generator = unet(process), torch.Generator().manual_seed(seed)
    loss = objective(network, process, theta.float(), None, torch.tensor([t, 1.0]), generator)
    loss.loss.backward()
    assert all(map(finite, loss)) and all(finite(w.grad) for w in network.parameters())


@several
@given(phases(SHAPE), st.floats(1e-6, 1), st.sampled_from([1e-3, 1.0, 100.0]))
def test_the_loss_of_noise_is_finite(x, t, size):
    loss = euclidean.noise_prediction(unet(DIFFUSION), DIFFUSION, size * x.float(), torch.tensor([t, 1.0]))
    assert all(map(finite, loss))


@several
@given(anything, anything, anything, anything)
def test_objectives_refuse_what_they_cannot_use(x, y, z, w):
    process, t = kodm.KuramotoProcess(), torch.tensor([0.5, 1.0])

    def zero(theta, t):
        return torch.zeros_like(theta)

    calls(lambda: kodm.MeanField(x), lambda: kodm.MeanField("early", y), lambda: kodm.Transition(x))
    calls(lambda: kodm.Transition(1, y), lambda: kodm.Transition(1, 100, z))
    for match in (objectives.mean_field_score_matching, objectives.transition_score_matching):
        calls(
            lambda match=match: match(zero, process, x), lambda match=match: match(zero, process, THETA, t=y),
            lambda match=match: match(zero, process, THETA, steps=z), lambda match=match: match(zero, process, x, w),
            lambda match=match: match(zero, process, THETA, weighting=x),
            lambda match=match: match(zero, process, THETA, generator=y), lambda match=match: match(zero, z, THETA),
            lambda match=match: match(lambda theta, t: w, process, THETA),
        )  # fmt: skip
    for objective in (*OBJECTIVES, euclidean.Noise()):
        calls(lambda objective=objective: objective.check(x, THETA))
    calls(
        lambda: euclidean.noise_prediction(zero, DIFFUSION, x, t), lambda: squared_error(THETA, y, t),
        lambda: euclidean.noise_prediction(zero, DIFFUSION, THETA, y), lambda: early_times(z),
        lambda: euclidean.noise_prediction(lambda x, t: w, DIFFUSION, THETA, t), lambda: squared_error(x, THETA, t),
    )  # fmt: skip


# The Euclidean diffusion


@several
@given(anything, anything, anything)
def test_diffusions_refuse_what_they_cannot_use(x, y, z):
    noise = DIFFUSION.noise
    calls(
        lambda: euclidean.WhiteNoise(x), lambda: euclidean.WhiteNoise((2,), y),
        lambda: euclidean.WhiteNoise.from_dict(x), lambda: DIFFUSION.perturb(x, torch.ones(2)),
        lambda: DIFFUSION.perturb(THETA, y), lambda: DIFFUSION.perturb(THETA, torch.ones(2), z),
        lambda: DIFFUSION.advance(THETA, x, y), lambda: DIFFUSION.advance(z, 0.1, 0.2), lambda: DIFFUSION.validate(x),
        lambda: DIFFUSION.draw_prior(x), lambda: DIFFUSION.draw_prior(SHAPE, y), lambda: DIFFUSION.simulate(THETA, z),
        lambda: DIFFUSION.draw_prior(SHAPE, None, y), lambda: DIFFUSION.check_forgotten(x),
        lambda: euclidean.square_grid(x), lambda: DIFFUSION.from_dict(x),
        lambda: euclidean.VariancePreserving(x), lambda: euclidean.VariancePreserving(noise, y),
    )  # fmt: skip


# Samplers


@few
@given(processes(), st.integers(0, 99), st.integers(1, 3))
def test_every_sampler_gives_phases(process, seed, steps):
    network = unet(process)
    for method in samplers.KURAMOTO_SAMPLERS:
        theta = kodm.sample(
            network, process, SHAPE, steps=steps, method=method, calibration=CALIBRATION, seeds=(seed, 1)
        )
        assert finite(theta) and float(theta.abs().max()) <= math.pi + 1e-6
    for method in euclidean.EUCLIDEAN_SAMPLERS:
        assert finite(kodm.sample(unet(DIFFUSION), DIFFUSION, SHAPE, steps=steps, method=method, seeds=[seed, 1]))


ARGUMENTS = ["steps", "method", "calibration", "prior", "start", "times", "generator", "seeds", "device", "dtype",
             "callback", "chunk"]  # fmt: skip


@several
@given(st.sampled_from(ARGUMENTS), anything)
def test_sample_refuses_what_it_cannot_use(name, x):
    process = kodm.KuramotoProcess()
    for kind in (process, DIFFUSION):
        sample = partial(kodm.sample, unet(kind), kind, SHAPE, **{"steps": 1, name: x})
        result = answers_or_explains(sample)
        assert result is None or finite(result)
    network = unet(process)
    calls(
        lambda: kodm.sample(network, x, SHAPE, steps=1), lambda: kodm.sample(x, process, SHAPE, steps=1),
        lambda: kodm.sample(network, process, x, steps=1), lambda: samplers.step_of(process, x),
        lambda: samplers.check_grid(x), lambda: samplers.evaluate(lambda theta, t: x, THETA, 0.5),
    )  # fmt: skip


@several
@given(anything, anything)
def test_models_refuse_what_they_cannot_use(x, y):
    process = kodm.KuramotoProcess()
    model = kodm.Model(unet(process, classes=3), process, SHAPE[1:], GREY, None, {"classes": ["a", "b", "c"]})
    calls(
        lambda: model.sample(x, steps=1), lambda: model.sample(1, steps=y), lambda: model.sample(1, steps=1, label=x),
        lambda: model.sample(1, steps=1, label=0, guidance=y), lambda: model.sample(1, steps=1, seeds=x),
        lambda: model.sample(1, steps=1, chunk=y), lambda: model.sample(1, steps=1, start=x),
        lambda: model.label_of(x), lambda: model.to(y), lambda: guided(model.network, x, 2.0),
        lambda: guided(model.network, 0, y), lambda: describe(model.network), lambda: network_from_dict(x, process),
        lambda: network_from_dict({"kind": "PeriodicMLP", "dim": x}, process),
        lambda: network_from_dict({"kind": y}, process),
        lambda: network_from_dict({"kind": "PeriodicMLP", "dim": 2}, x),
    )  # fmt: skip


# Calibration


@few
@given(processes(), phases(SHAPE), st.integers(1, 4))
def test_calibrations_are_finite(process, theta, points):
    found = kodm.calibrate(unet(process), process, theta.float(), points)
    assert all(map(math.isfinite, found.second_moments)) and math.isfinite(found.at(0.3))


@several
@given(anything, anything, anything)
def test_calibrations_refuse_what_they_cannot_use(x, y, z):
    process = kodm.KuramotoProcess()
    network = unet(process)
    calls(
        lambda: calibration.Calibration(x, y), lambda: calibration.Calibration((0.5,), (1.0,), z),
        lambda: calibration.Calibration((0.5,), x), lambda: CALIBRATION.damped(y), lambda: CALIBRATION.at(x),
        lambda: kodm.calibrate(network, process, x, 2), lambda: kodm.calibrate(network, process, THETA, y),
        lambda: kodm.calibrate(network, process, THETA, 2, z), lambda: calibration.bond_energy(x),
        lambda: calibration.there_and_back(network, process, THETA, x, steps=1),
        lambda: calibration.there_and_back(network, process, y, 1.0, steps=1),
        lambda: calibration.there_and_back(network, process, THETA, 1.0, steps=z),
        lambda: calibration.calibrate_damping(network, process, x, CALIBRATION, steps=1),
        lambda: calibration.calibrate_damping(network, process, THETA, CALIBRATION, steps=y),
        lambda: kodm.calibrate(network, z, THETA, 2),
    )  # fmt: skip


# Files


@st.composite
def cards(draw):
    leaf = st.one_of(
        st.none(), st.booleans(), st.integers(-(10**15), 10**15), st.floats(-1e9, 1e9), st.text(max_size=9)
    )
    return draw(st.dictionaries(st.text(max_size=9), st.one_of(leaf, st.lists(leaf, max_size=3)), max_size=4))


@few
@given(processes(), st.sampled_from(ENCODINGS), cards(), st.sampled_from([None, CALIBRATION]))
def test_models_come_back_as_they_were(tmp_path_factory, process, encoding, card, measured):
    path = tmp_path_factory.mktemp("models") / "model.safetensors"
    for kind in (process, DIFFUSION):
        model = kodm.Model(unet(kind, classes=2), kind, SHAPE[1:], encoding, measured, card)
        if answers_or_explains(lambda model=model: kodm.save(path, model) or True):
            again = kodm.load(path)
            assert again[1:] == model[1:] and describe(again.network) == describe(model.network)
            assert all(map(torch.equal, again.network.state_dict().values(), model.network.state_dict().values()))


@several
@given(anything, st.sampled_from(kodm.Model._fields))
def test_models_that_are_none_are_not_stored(tmp_path_factory, x, field):
    path = tmp_path_factory.mktemp("models") / "model.safetensors"
    process = kodm.KuramotoProcess()
    model = kodm.Model(kodm.PeriodicMLP(3, process), process, (3,), kodm.Angles(), None, {})
    stored = answers_or_explains(lambda: kodm.save(path, model._replace(**{field: x})) or True)
    assert bool(stored) == path.exists() and (not stored or kodm.load(path))
    calls(lambda: kodm.load(x), lambda: checkpoints.find(x), lambda: checkpoints.load_pretrained(x))
    calls(lambda: kodm.load("digits-16", x), lambda: checkpoints.read_header(x), lambda: kodm.save(path, x))
    calls(lambda: kodm.load("digits-16", network=x) if not callable(x) else None)


# Training


OPTIONS = kodm.TrainingOptions(steps=1, batch_size=2, warmup=0)


@several
@given(st.sampled_from(list(kodm.TrainingOptions.__dataclass_fields__)), anything, anything)
def test_options_are_valid_or_refused(name, x, y):
    options = answers_or_explains(lambda: kodm.TrainingOptions(**{name: x}))
    if options is not None:
        assert math.isfinite(options.learning_rate_at(0)) and 0 <= options.ema_at(3) < 1
    calls(lambda: OPTIONS.for_processes(y))


@few
@given(st.sampled_from([phases(SHAPE), phases((3, 5))]).flatmap(lambda x: x), st.sampled_from(OBJECTIVES))
def test_a_step_on_valid_data_is_finite(theta, objective):
    process = kodm.KuramotoProcess()
    network = unet(process) if theta.ndim == 4 else kodm.PeriodicMLP(5, process, 8, 1)
    trained = kodm.fit(network, process, theta, OPTIONS, objective=objective, progress=False)
    assert all(map(finite, trained.state_dict().values()))


FIT = ["network", "process", "data", "options", "objective", "encoding", "validation", "out", "facts", "callback"]


@several
@given(st.sampled_from(FIT), anything, anything)
def test_a_training_refuses_what_it_cannot_use(tmp_path_factory, name, x, labels):
    if (name == "out" and isinstance(x, str)) or (name == "options" and x is None):
        return  # these are valid, and write here or train for long
    process, out = kodm.KuramotoProcess(), tmp_path_factory.mktemp("run")
    given = {"network": unet(process, classes=2), "process": process, "options": OPTIONS, "encoding": None, "out": out,
             "data": kodm.PhaseData(THETA, torch.tensor([0, 1]), ("a", "b"), GREY, "nowhere")}  # fmt: skip
    trained = answers_or_explains(lambda: kodm.fit(**{**given, name: x}, progress=False))
    assert trained is None or all(map(finite, trained.state_dict().values()))
    data = answers_or_explains(lambda: replace(given["data"], labels=labels))
    calls(lambda: kodm.fit(**{**given, "data": data or THETA}, progress=False))
