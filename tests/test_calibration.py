"""What goes forward and comes back: the energy of bonds, and the damping that it asks for."""

import math
from dataclasses import replace

import pytest
import torch

from kodm_lite import ExactScore, FokkerPlanck1D, KuramotoProcess, LinearSchedule, VonMises, sample
from kodm_lite.calibration import Calibration, bond_energy, calibrate_all, calibrate_damping, there_and_back

NONE = LinearSchedule(0.0, 0.0)
#: Pixels without coupling, whose exact score is that of one phase.
ALONE = KuramotoProcess(coupling_strength=NONE, reference_strength=LinearSchedule(0.0045, 4.5))
LAW = VonMises(torch.tensor(0.9, dtype=torch.float64), 8.0)
NOTHING_KNOWN = Calibration((1.0,), (1.0,))


@pytest.fixture(scope="module")
def exact():
    return ExactScore(FokkerPlanck1D(ALONE, lambda x: LAW.log_prob(x).exp()))


@pytest.fixture(scope="module")
def images():
    return LAW.sample((64, 1, 16, 16), torch.Generator().manual_seed(4)).float()


def too_long(score, process, factor):
    """A network whose distance from equilibrium is too long everywhere."""

    def network(theta, t):
        equilibrium = process.equilibrium_score(theta, t)
        return equilibrium + factor * (score(theta, t) - equilibrium)

    return network


def test_bond_energy_is_the_mean_over_all_pairs_of_neighbours():
    theta = 8 * torch.rand(3, 2, 4, 5, generator=torch.Generator().manual_seed(0)) - 4
    for image, energy in zip(theta, bond_energy(theta), strict=True):
        bonds = []
        for channel in image.tolist():
            for i in range(4):
                for j in range(5):
                    bonds += [1 - math.cos(channel[i][j] - channel[i + 1][j])] if i < 3 else []
                    bonds += [1 - math.cos(channel[i][j] - channel[i][j + 1])] if j < 4 else []
        assert len(bonds) == 2 * (3 * 5 + 4 * 4)
        assert float(energy) == pytest.approx(sum(bonds) / len(bonds), abs=1e-6)


def test_bond_energy_knows_no_origin_and_is_one_without_order():
    theta = 2 * math.pi * torch.rand(1, 1, 200, 200, generator=torch.Generator().manual_seed(1)) - math.pi
    assert bond_energy(theta + 2.5) == pytest.approx(bond_energy(theta), abs=1e-5)
    assert float(bond_energy(theta)) == pytest.approx(1.0, abs=4 / 200)  # 80000 bonds, each with a variance of 1/2


@pytest.mark.parametrize("shape", [(3, 4), (1, 1, 1, 8), (1, 1, 8, 1)])
def test_what_has_no_neighbours_is_refused(shape):
    with pytest.raises(ValueError, match="theta: got .*shape"):
        bond_energy(torch.zeros(shape))


def test_with_the_exact_score_an_image_returns_with_its_law_and_keeps_its_pixels_after_a_short_trip(exact, images):
    generator = torch.Generator().manual_seed(5)
    far = there_and_back(exact, ALONE, images, 3.0, steps=50, generator=generator)
    near = there_and_back(exact, ALONE, images, 0.05, steps=10, generator=generator)
    wanted, error = float(bond_energy(images).mean()), float(bond_energy(images).std()) / 8
    assert float(bond_energy(far).mean()) == pytest.approx(wanted, abs=4 * error)
    kept = [float((back - images).cos().mean()) for back in (near, far)]
    assert kept[0] > 0.97
    assert kept[1] < 0.9


def test_the_trip_ends_where_the_clock_says(exact, images):
    seen = []
    there_and_back(exact, ALONE, images[:2], 1.3, steps=3, callback=lambda t, theta: seen.append(t))
    assert ALONE.clock(seen[0]) == pytest.approx(1.3, abs=2e-3)
    assert seen[-1] == 0
    assert len(seen) == 4


def test_a_clock_beyond_the_end_means_the_end(exact, images):
    seen = []
    there_and_back(exact, ALONE, images[:2], 99.0, steps=1, callback=lambda t, theta: seen.append(t))
    assert seen == [1.0, 0.0]


@pytest.mark.parametrize("option", [{"seeds": [0, 1]}, {"start": torch.zeros(2, 1, 16, 16)}, {"times": [1.0, 0.0]}])
def test_the_way_back_begins_where_the_way_forward_ended(exact, images, option):
    with pytest.raises(ValueError, match=f"{next(iter(option))}: got one, expected none"):
        there_and_back(exact, ALONE, images[:2], 3.0, **option)


def test_without_steps_there_is_no_way_back(exact, images):
    with pytest.raises(ValueError, match="steps: got 0"):
        there_and_back(exact, ALONE, images[:2], 3.0, steps=0)


@pytest.mark.parametrize("clock", [0.0, -1.0, math.nan])
def test_a_clock_that_has_not_started_is_refused(exact, images, clock):
    with pytest.raises(ValueError, match="clock: got"):
        there_and_back(exact, ALONE, images, clock)


def test_an_exact_score_needs_no_damping(exact, images):
    assert calibrate_damping(exact, ALONE, images, NOTHING_KNOWN, steps=40).damping < 0.02


@pytest.mark.parametrize("damping", [0.04, 0.1])
def test_the_damping_that_undoes_a_score_that_is_too_long_is_found(exact, images, damping):
    network = too_long(exact, ALONE, 1 / (1 - damping))
    found = calibrate_damping(network, ALONE, images, NOTHING_KNOWN, steps=40, seed=3)
    assert found.damping == pytest.approx(damping, abs=0.02)
    assert replace(found, damping=0.0) == NOTHING_KNOWN


def test_a_score_that_is_too_short_is_not_made_longer(exact, images):
    assert calibrate_damping(too_long(exact, ALONE, 0.8), ALONE, images, NOTHING_KNOWN).damping == 0


def test_a_network_that_knows_nothing_gets_no_damping(images):
    equilibrium = KuramotoProcess()
    assert calibrate_damping(equilibrium.equilibrium_score, equilibrium, images, NOTHING_KNOWN).damping == 0


def test_flat_images_need_no_damping(exact):
    assert calibrate_damping(exact, ALONE, torch.zeros(3, 1, 4, 4), NOTHING_KNOWN, steps=2).damping == 0


def test_more_damping_than_is_sensible_is_not_used_and_said(exact, images):
    with pytest.warns(UserWarning, match="details: .* are missing"):
        found = calibrate_damping(too_long(exact, ALONE, 1.6), ALONE, images, NOTHING_KNOWN)
    assert found.damping == 0.2


def test_the_damping_does_not_depend_on_chunks_and_the_bar_counts_to_the_end(exact, images, capsys):
    network, options = too_long(exact, ALONE, 1.1), {"steps": 30, "progress": True}
    whole = calibrate_damping(network, ALONE, images[:10], NOTHING_KNOWN, **options).damping
    assert " 62/62 " in capsys.readouterr().err
    parts = calibrate_damping(network, ALONE, images[:10], NOTHING_KNOWN, chunk=4, **options).damping
    assert " 186/186 " in capsys.readouterr().err
    assert parts == pytest.approx(whole, abs=1e-4)
    assert 0.02 < whole < 0.2


def test_channels_are_images_of_their_own(exact, images):
    network, colours = too_long(exact, ALONE, 1.1), images.reshape(16, 4, 16, 16)
    grey = calibrate_damping(network, ALONE, images, NOTHING_KNOWN, steps=30).damping
    assert calibrate_damping(network, ALONE, colours, NOTHING_KNOWN, steps=30).damping == pytest.approx(grey, abs=1e-4)


def test_images_get_both_calibrations_and_oscillators_only_the_first(exact, images):
    network = too_long(exact, ALONE, 1.1)
    both, one = (calibrate_all(network, ALONE, theta) for theta in (images, images.flatten(1)))
    assert both.times == one.times and both.second_moments == pytest.approx(one.second_moments, rel=1e-4)
    assert both.damping > 0.05 and one.damping == 0


@pytest.mark.parametrize("method", ["ode", "hybrid"])
def test_the_flow_with_damping_is_the_flow_of_the_shorter_score(exact, method):
    calibration = Calibration((1.0,), (0.0,))  # ancestral steps, which are not damped, with the forward variance
    options = {"steps": 12, "method": method}
    damped = sample(exact, ALONE, (3, 1, 4, 4), calibration=calibration.damped(0.1), seeds=range(3), **options)
    short = too_long(exact, ALONE, 0.9)

    def network(theta, t):
        flows = method == "ode" or ALONE.clock(float(t[0])) > 1
        return (short if flows else exact)(theta, t)

    expected = sample(network, ALONE, (3, 1, 4, 4), calibration=calibration, seeds=range(3), **options)
    assert torch.allclose(damped, expected, atol=1e-5)
    plain = sample(exact, ALONE, (3, 1, 4, 4), calibration=calibration, seeds=range(3), **options)
    assert not torch.allclose(damped, plain, atol=1e-3)


@pytest.mark.parametrize("method", ["ancestral", "euler", "adams", "pc"])
def test_methods_with_noise_at_all_times_are_not_damped(exact, method):
    options = {"steps": 5, "method": method, "seeds": range(2)}
    known = Calibration((1.0,), (0.1,))
    plain, damped = (sample(exact, ALONE, (2, 1, 4, 4), calibration=c, **options) for c in (known, known.damped(0.3)))
    assert torch.equal(plain, damped)


@pytest.mark.parametrize("damping", [-0.01, 1.0, math.nan, math.inf])
def test_what_is_no_damping_is_refused(damping):
    with pytest.raises(ValueError, match="damping: got"):
        NOTHING_KNOWN.damped(damping)
