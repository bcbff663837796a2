"""Any argument at all: valid ones give finite numbers, others an error of the house that says what to do."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kodm_lite
from kodm_lite import (
    GibbsPrior,
    GlobalCoupling,
    KuramotoProcess,
    LinearSchedule,
    LocalCoupling,
    OrderParameterPrior,
    VonMises,
    WrappedNormal,
    angle_difference,
    kuramoto_drift,
    order_parameter,
    terminal_memory,
    wrap,
)
from kodm_lite.memory import flat_image_memory

PACKAGE = str(Path(kodm_lite.__file__).parent)
PI = math.pi
SHAPES = [(2, 3), (1, 1), (3, 1, 3, 4), (2, 2, 5, 3)]

several = settings(max_examples=40, deadline=None, derandomize=True, database=None)
few = settings(max_examples=15, deadline=None, derandomize=True, database=None)


def finite(x):
    return not isinstance(x, torch.Tensor) or bool(torch.isfinite(torch.view_as_real(x) if x.is_complex() else x).all())


def answers_or_explains(call):
    """The value of a call, or None where the package itself refused."""
    try:
        return call()
    except (ValueError, TypeError) as error:
        frame = error.__traceback__
        while frame.tb_next:
            frame = frame.tb_next
        own = frame.tb_frame.f_code.co_filename.startswith(PACKAGE)
        signature = isinstance(error, TypeError) and "argument" in str(error)
        assert signature or (own and "got " in str(error) and "expected" in str(error)), repr(error)
        return None


@st.composite
def phases(draw, shape=None, reach=PI):
    shape = draw(st.sampled_from(SHAPES)) if shape is None else shape
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    spread = draw(st.sampled_from([0.0, 1e-6, 1.0])) * reach
    return (torch.rand(shape, generator=generator, dtype=dtype) * 2 - 1) * spread


WRONG = [
    None, True, "a", b"b", 1j, math.nan, math.inf, -1, 0, 3, 0.5, 1e300, [], [0.1, 0.2], (2, 3), {}, object(),
    np.zeros(2), np.float32(0.5), np.int64(2), torch.zeros(()), torch.zeros(0, 4),
    torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3, dtype=torch.bool),
    torch.zeros(2, 3, dtype=torch.complex64), torch.zeros(2, 3).half(),
    torch.zeros(7), torch.zeros(2, 3, 4), torch.full((2, 3), math.nan), torch.full((2, 3), 90.0), lambda x: x,
]  # fmt: skip
anything = st.sampled_from(WRONG)
rates = st.floats(0, 8, allow_subnormal=False)


@st.composite
def processes(draw, field=False):
    couplings = [GlobalCoupling(), LocalCoupling(1), LocalCoupling(2, "reflect")]
    schedules = [LinearSchedule(draw(rates), draw(rates)) for _ in range(2)]
    noise = LinearSchedule(draw(rates), draw(st.floats(0.1, 8)))
    phase = draw(phases((3, 4))) if field else draw(st.floats(-PI, PI))
    return KuramotoProcess(draw(st.sampled_from(couplings)), *schedules, noise, phase)


@several
@given(phases(reach=50.0), phases((1, 1)))
def test_angles_are_wrapped_to_angles(theta, other):
    for y in (wrap(theta), angle_difference(theta, other), wrap(theta.half())):
        assert finite(y) and float(y.double().abs().max()) < PI + 1e-6
    assert finite(order_parameter(theta)) and float(order_parameter(theta).abs()) < 1 + 1e-6


@several
@given(anything, anything)
def test_whatever_is_no_angle_is_refused(x, y):
    for call in (lambda: wrap(x), lambda: angle_difference(x, y), lambda: angle_difference(torch.zeros(2, 3), y)):
        answers_or_explains(call)
    answers_or_explains(lambda: order_parameter(x, y))
    answers_or_explains(lambda: order_parameter(torch.zeros(2, 3), y, True))


@several
@given(phases(reach=100.0), st.floats(-100, 100), st.floats(1e-6, 1e300), st.integers(0, 9))
def test_laws_are_finite_everywhere(x, loc, size, seed):
    for law in (WrappedNormal(loc, size), WrappedNormal(x, min(size, 1e30)), VonMises(loc, min(size, 1e300))):
        assert all(map(finite, (law.log_prob(x), law.score(x)))) or size > 1e30  # beyond, the score itself overflows
        assert finite(law.sample((2,), torch.Generator().manual_seed(seed)))


@several
@given(st.floats(0, 1, exclude_max=True), st.floats(-PI, PI))
def test_every_order_parameter_has_a_von_mises_law(r, direction):
    law = VonMises.from_order_parameter(torch.polar(*torch.tensor([r, direction], dtype=torch.float64)))
    assert finite(law.concentration) and finite(law.loc) and float(law.concentration) >= -1e-12
    assert all(map(finite, (law.loc, law.mean_resultant_length())))


@several
@given(anything, anything, anything)
def test_whatever_is_no_law_is_refused(a, b, x):
    for make in (WrappedNormal, VonMises):
        law = answers_or_explains(lambda make=make: make(a, b))
        for call in (law or make(0.0, 1.0),):
            answers_or_explains(lambda call=call: call.log_prob(x))
            answers_or_explains(lambda call=call: call.score(x))
            answers_or_explains(lambda call=call: call.sample(x))
            answers_or_explains(lambda call=call: call.sample((2,), x))
    answers_or_explains(lambda: VonMises.from_order_parameter(x))


@several
@given(rates, rates, st.floats(0, 1), anything, anything)
def test_schedules(start, end, t, x, y):
    schedule = LinearSchedule(start, end)
    assert math.isfinite(schedule.at(t)) and schedule.at(t) >= -1e-12 and schedule.integral(0.0, t) >= -1e-12
    for call in (
        lambda: LinearSchedule(x, y), lambda: schedule.at(x), lambda: schedule.integral(x, 1.0),
        lambda: schedule.integral(x, y), lambda: schedule.scaled(x),
    ):  # fmt: skip
        answers_or_explains(call)


@several
@given(phases((2, 1, 5, 6)), anything, anything)
def test_couplings(theta, x, y):
    for coupling in (GlobalCoupling(), LocalCoupling(2), LocalCoupling(1, "reflect")):
        field = coupling.mean_field(theta)
        assert finite(field) and finite(kuramoto_drift(theta, field, 1.0, 2.0))
    answers_or_explains(lambda: LocalCoupling(x))
    answers_or_explains(lambda: LocalCoupling(1, str(y)))


@several
@given(processes(), phases((2, 1, 3, 4)), st.floats(0, 1), st.sampled_from(["euler", "heun"]), st.integers(0, 99))
def test_what_is_valid_is_simulated(process, theta, t, method, seed):
    steps = max(1, math.ceil(16 * max(t, 0.1)))
    generator = torch.Generator().manual_seed(seed)
    for time in (t, torch.tensor([t, 0.0])):
        end = process.simulate(theta, time, max(steps, 16), generator, method)
        assert end.shape == theta.shape and end.dtype == theta.dtype and finite(end)
    assert finite(process.drift(theta, t)) and finite(process.forward_step(theta, 0.0, t, generator))
    assert process == process and isinstance(hash(process), int)
    assert KuramotoProcess.from_dict(process.to_dict()) == process


@several
@given(processes(), anything, anything, anything, anything)
def test_whatever_cannot_be_simulated_is_refused(process, x, y, z, w):
    theta = torch.zeros(2, 1, 3, 4)
    for call in (
        lambda: process.simulate(x, 1.0), lambda: process.simulate(theta, y), lambda: process.simulate(theta, 0.5, z),
        lambda: process.simulate(theta, 0.5, 20, w), lambda: process.simulate(theta, 0.5, 20, None, x),
        lambda: process.drift(x, 0.5), lambda: process.drift(theta, y), lambda: process.step_drift(x, y, z),
        lambda: process.equilibrium_score(theta, y), lambda: process.forward_step(theta, y, z),
        lambda: process.trajectory(theta, x), lambda: process.trajectory(theta, [0.5], y), lambda: process.validate(x),
        lambda: process.time_of(x), lambda: process.clock(x), lambda: process.coefficients(x, y),
        lambda: process.scaled(x), lambda: process.prior(x), lambda: process.project(x),
        lambda: KuramotoProcess.from_dict(x), lambda: process.draw_prior(x), lambda: process.draw_prior((2, 9), y),
        lambda: process.draw_prior((2, 9), None, z), lambda: process.check_steps(x, 1.0),
    ):  # fmt: skip
        answers_or_explains(call)


@several
@given(anything, anything, anything)
def test_whatever_is_no_process_is_refused(x, y, z):
    for options in ({"coupling": x}, {"diffusion": y}, {"coupling_strength": z}, {"reference_phase": x}):
        answers_or_explains(lambda options=options: KuramotoProcess(**options))
    data = KuramotoProcess().to_dict()
    for entry in data:
        answers_or_explains(lambda entry=entry: KuramotoProcess.from_dict({**data, entry: x}))
    for coupling in ({"kind": x}, {"kind": "local", "radius": y}, {"kind": "local", "radius": 1, "boundary": z}):
        answers_or_explains(lambda coupling=coupling: KuramotoProcess.from_dict({**data, "coupling": coupling}))


@few
@given(processes(field=True), st.sampled_from([(1, 2, 3, 4), (3, 1, 3, 4)]), st.integers(0, 9))
def test_priors_of_fields_are_finite(process, shape, seed):
    assert finite(process.draw_prior(shape, torch.Generator().manual_seed(seed)))


@few
@given(processes(), anything, anything, anything)
def test_priors(process, x, y, z):
    assert finite(process.draw_prior((2, 9), torch.Generator().manual_seed(0)))
    answers_or_explains(lambda: GibbsPrior(process, x, y))
    prior = answers_or_explains(lambda: OrderParameterPrior(z))
    prior = prior or OrderParameterPrior(torch.tensor([0.5j, 0.0, -0.999]))
    assert finite(prior.sample((3, 7), torch.Generator().manual_seed(1)))
    answers_or_explains(lambda: prior.sample(x, y, z))
    answers_or_explains(lambda: OrderParameterPrior.from_data(process, x))


@few
@given(anything, anything, anything)
def test_memory_refuses_what_it_cannot_use(x, y, z):
    process = KuramotoProcess()
    for call in (
        lambda: terminal_memory(process, x), lambda: terminal_memory(process, torch.zeros(4, 3), y),
        lambda: terminal_memory(process, torch.zeros(4, 3), 2, z), lambda: flat_image_memory(process, x),
        lambda: flat_image_memory(process, (8,), y), lambda: KuramotoProcess.for_shape(x, memory=9.0),
        lambda: KuramotoProcess.for_shape((8,), memory=z), lambda: KuramotoProcess.for_shape((8,), 9.0, y),
    ):  # fmt: skip
        answers_or_explains(call)


@pytest.mark.parametrize("strength", [0.0002, 1.0])
def test_a_weak_process_is_finite_too(strength):
    process = KuramotoProcess().scaled(strength)
    assert finite(process.simulate(torch.zeros(2, 5), 1.0, 20)) and finite(process.draw_prior((2, 5)))
