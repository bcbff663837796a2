"""The evaluation: its rows against the public metrics, what moves under which defect, and how it is printed."""

import json
import math
import pickle
from dataclasses import replace
from functools import cache

import pytest
import torch
from helpers import HELPFUL, seeded

from kodm_lite import Angles, GreyLevels, image_to_phase, phase_to_image
from kodm_lite.data import PhaseData, textures
from kodm_lite.metrics import (
    Evaluation,
    TextureFeatures,
    circular_wasserstein,
    class_shares,
    evaluate,
    frechet_distance,
    frechet_texture_distance,
    image_means,
    jackknife,
    kuiper_distance,
    memorisation,
    order_statistics,
    peak_frequencies,
    precision_recall,
    radial_spectrum,
    wasserstein_distance,
)
from kodm_lite.metrics.evaluate import images_in_each_set
from kodm_lite.orientation import OrientationField, orientation_field

PI = math.pi


def of_lines(a: OrientationField, b: OrientationField) -> tuple[float, float, float]:
    """The distances of two fields of orientations, weighted by coherence."""
    weights = {"a_weights": a.coherence, "b_weights": b.coherence}
    distances = [distance(a.doubled, b.doubled, **weights) for distance in (circular_wasserstein, kuiper_distance)]
    return *distances, wasserstein_distance(a.coherence, b.coherence)


@cache
def data() -> tuple[PhaseData, torch.Tensor, PhaseData]:
    """Real images, good samples and training images: crops of one region."""
    return (
        textures(n=300, size=24, scale=0.9),
        textures(n=150, size=24, seed=1, scale=0.9).theta,
        textures(n=100, size=24, seed=2, scale=0.9),
    )


@cache
def evaluation(defect: str = "none") -> dict[str, tuple]:
    real, good, train = data()
    bad = {
        "none": lambda: good,
        "blur": lambda: torch.nn.functional.avg_pool2d(good, 3, 1, 1),
        "noise": lambda: good + 0.7 * torch.randn(good.shape, generator=seeded()),
        "one class": lambda: textures(n=150, size=24, seed=1, names=["brick"], scale=0.9).theta,
        "copies": lambda: train.theta.repeat(2, 1, 1, 1)[:150] + 0.01,
        "brighter": lambda: good + 0.5,
        "turned": lambda: good.mT,
    }[defect]()
    return {row.metric: row for row in evaluate(bad, real, train).rows}


def row(name: str, defect: str = "none"):
    return next(r for r in evaluation(defect).values() if r.metric.startswith(name))


def ratio(name: str, defect: str) -> float:
    """How many times the floor the value is; of shares that should be large, of what is missing."""
    found = row(name, defect)
    value, floor = (1 - x if found.better == "higher" else x for x in (found.value, found.floor))
    return value / floor


def test_rows_are_those_of_the_public_metrics():
    real, good, train = data()
    order = torch.randperm(len(real), generator=(generator := seeded(3)))
    first, second = real.theta[order[:100]], real.theta[order[100:200]]
    drawn = good[:100][torch.randperm(100, generator=generator)]
    found = evaluate(good[:100], real, train, seed=3)
    features = TextureFeatures(real.theta, real.encoding)

    def expected(theta):
        coverage = precision_recall(features(theta), features(first))
        (modulus, angle), (moduli, angles) = order_statistics(theta), order_statistics(first)
        have, others = angle.isfinite(), angles.isfinite()
        spectra = [radial_spectrum(phase_to_image(x, 0.9)) for x in (theta, first)]
        shares = [class_shares(x, real, features) for x in (theta, first)]
        return {
            "Fréchet texture distance": frechet_texture_distance(theta, first, features),
            "precision": coverage.precision,
            "recall": coverage.recall,
            "radial spectrum": wasserstein_distance(
                *(s.wave_number for s in spectra), *(s.power.mean((0, 1)) for s in spectra)
            ),
            "peak frequency": wasserstein_distance(peak_frequencies(theta), peak_frequencies(first)),
            "order parameter, modulus": wasserstein_distance(modulus, moduli),
            "order parameter, direction": circular_wasserstein(
                angle[have], angles[others], a_weights=modulus[have], b_weights=moduli[others]
            ),
            "mean phase": kuiper_distance(image_means(theta), image_means(first)),
            "class shares": float((shares[0] - shares[1]).clamp(min=0).sum()),
            "memorised": memorisation(theta, train.theta, first).share,
        }

    for column, theta in (("value", drawn), ("floor", second)):
        for name, number in expected(theta).items():
            match = [r for r in found.rows if r.metric.startswith(name)]
            assert len(match) == 1 and getattr(match[0], column) == pytest.approx(number, rel=1e-5, abs=1e-7), name
        fields = [orientation_field(x) for x in (theta, first)]
        lines = of_lines(*fields)
        parts = [getattr(r, column) for r in found.rows if r.metric.startswith(("doubled", "coherence"))]
        assert parts == pytest.approx(tuple(lines), rel=0.35, abs=0.02), "of one pixel in four"
    assert len(found.rows) == 13
    error = jackknife(kuiper_distance, image_means(drawn), image_means(first), 10, seeded(3)).error
    assert next(r for r in found.rows if r.metric.startswith("mean phase")).error == pytest.approx(error)


def test_good_samples_are_near_the_floor_and_errors_are_of_that_size():
    for found in evaluation().values():
        if not found.metric.startswith("memorised"):
            assert abs(found.value - found.floor) < 4 * found.error + 0.03, found
        assert 0 < found.error < 1.5 and found.better == ("higher" if found.metric[:2] in ("pr", "re") else "lower")


@pytest.mark.parametrize(
    ("defect", "moved"),
    [
        ("blur", ["Fréchet", "precision", "recall", "radial", "order parameter, modulus"]),
        ("noise", ["Fréchet", "precision", "recall", "radial", "order parameter, modulus"]),
        ("one class", ["Fréchet", "recall", "mean phase", "class shares", "doubled orientation, W", "peak"]),
        ("brighter", ["mean phase", "order parameter, direction"]),
        ("turned", ["Fréchet", "precision", "doubled orientation, W", "doubled orientation, K"]),
        ("copies", ["memorised"]),
    ],
)
def test_each_defect_moves_the_metrics_that_should_see_it(defect, moved):
    for name in moved:
        assert ratio(name, defect) > 2 * max(1, ratio(name, "none")), name
        found = row(name, defect)
        assert abs(found.value - found.floor) > 3 * found.error, name


def test_turned_images_have_the_same_waves_and_copies_look_real():
    for name in ("radial spectrum", "order parameter, modulus", "mean phase"):
        assert row(name, "turned").value == pytest.approx(row(name).value, rel=1e-4, abs=1e-6)
    assert row("precision", "copies").value > 0.85 and row("memorised", "copies").value == 1


def test_sets_are_of_one_size_and_counted():
    real, good, _ = data()
    small = replace(real, theta=real.theta[:50], labels=None)
    for theta, reference, images in ((good[:30], small, 25), (good[:22], small, 22), (good[:24], real, 24)):
        found = evaluate(theta, reference)
        assert (found.images, found.generated, found.real, found.train) == (images, len(theta), len(reference), 0)
        assert f"Sets of {images} images" in found.as_table()
    assert not any(r.metric.startswith(("class", "memorised")) for r in evaluate(good[:30], small).rows)


def test_the_seed_draws_the_sets_and_no_generator_moves():
    real, good, _ = data()
    state, before = torch.get_rng_state(), good.clone()
    one, same, other = (evaluate(good[:40], real, seed=seed) for seed in (0, 0, 1))
    assert one == same and one.rows != other.rows
    assert torch.equal(state, torch.get_rng_state()) and torch.equal(good, before)


def test_the_dictionary_is_for_json_and_the_table_for_people():
    real, good, _ = data()
    found = evaluate(good[:40], real)
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [tuple(r.values()) for r in content["rows"]] == [tuple(r) for r in found.rows]
    assert {k: v for k, v in content.items() if k != "rows"} == {
        "images": 40, "generated": 40, "real": 300, "train": 0, "source": real.source, "seed": 0,
        "encoding": {"kind": "grey_levels", "scale": 0.9},
    }  # fmt: skip
    table, end = found.as_table().split("\n\n")
    head, *lines = table.split("\n")
    assert head.split() == ["metric", "value", "error", "floor", "better"]
    assert len(lines) == len(found.rows) and len({len(x) for x in [head, *lines]}) == 1
    for line, r in zip(lines, found.rows, strict=True):
        assert line.startswith(r.metric) and line.endswith(r.better)
        assert [float(x) for x in line[len(r.metric) :].split()[:3]] == pytest.approx(r[1:4], rel=1e-3)
    assert isinstance(found, Evaluation) and "40 generated and 300 real" in end and real.source in end


def fields(n: int, seed: int, spread: float = 0.7, turn: float = 0.0) -> torch.Tensor:
    """Smooth fields of angles around a direction of each image, on the whole circle."""
    generator = seeded(seed)
    mean = PI + 0.5 * torch.randn(n, 1, 1, 1, generator=generator)
    rough = torch.nn.functional.avg_pool2d(torch.randn(n, 1, 16, 16, generator=generator), 5, 1, 2) * 5
    return torch.remainder(mean + spread * rough + turn + PI, 2 * PI) - PI


def test_angles_from_the_start_are_measured_on_the_circle():
    real = PhaseData(fields(240, 0), None, (), Angles(), "made up")

    def found(theta, data=real):
        return {r.metric: r for r in evaluate(theta, data).rows}

    good, wider, turned = found(fields(120, 1)), found(fields(120, 1, 1.2)), found(fields(120, 1, turn=0.8))
    assert not any(name.startswith(("mean phase", "doubled", "coherence")) for name in good)
    for r in good.values():
        assert abs(r.value - r.floor) < 5 * r.error + 0.03, r
    for name in ("phases, Wasserstein (rad)", "Fréchet texture distance", "order parameter, modulus"):
        assert wider[name].value > 2 * good[name].value
    assert abs(turned["phases, Wasserstein (rad)"].value - 0.8) < 0.15
    assert abs(turned["order parameter, direction (rad)"].value - 0.8) < 0.15
    # Where angles start does not matter to what is measured on the circle.
    order = torch.randperm(240, generator=seeded())
    expected = circular_wasserstein(fields(120, 1), real.theta[order[:120]])
    assert good["phases, Wasserstein (rad)"].value == pytest.approx(expected, abs=1e-9)
    parts = [
        (part, TextureFeatures(image_to_phase(part(real.theta), 0.9), GreyLevels(0.9)))
        for part in (torch.cos, torch.sin)
    ]
    a, b = (
        torch.cat([features(image_to_phase(part(x), 0.9)) for part, features in parts], 1)
        for x in (fields(120, 1), real.theta[order[:120]])
    )
    assert good["Fréchet texture distance"].value == pytest.approx(frechet_distance(a, b), rel=1e-6)
    moved = replace(real, theta=fields(240, 0, turn=2.0))
    again = found(fields(120, 1, turn=2.0), moved)
    circular = ("phases, Wasserstein (rad)", "phases, Kuiper", "vortices (per 1000 squares)")
    for name in (*circular, "radial spectrum (cycles/pixel)"):
        assert again[name].value == pytest.approx(good[name].value, rel=0.02, abs=1e-4), name


def test_vortices_are_counted_either_way():
    smooth = PhaseData(fields(80, 0, spread=0.2), None, (), Angles(), "made up")
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    pair = torch.atan2(y - 4.5, x - 3.5) - torch.atan2(y - 9.5, x - 11.5)  # one turns left, one right
    turned = torch.remainder(fields(40, 1, spread=0.2) + pair + PI, 2 * PI) - PI
    rows = {r.metric: r for r in evaluate(turned, smooth).rows}
    found = rows["vortices (per 1000 squares)"]
    assert found.floor == 0 and found.value == pytest.approx(1000 * 2 / 15**2, rel=1e-9)


REAL = PhaseData(fields(60, 0), None, (), 0.9, "made up")


@pytest.mark.parametrize(
    "refused",
    [
        lambda: evaluate(fields(19, 1), REAL),
        lambda: evaluate(fields(30, 1), replace(REAL, theta=REAL.theta[:39])),
        lambda: evaluate(fields(30, 1)[:, :, :12], REAL),
        lambda: evaluate(fields(30, 1)[:, 0], REAL),
        lambda: evaluate(fields(30, 1) * 100, REAL),
        lambda: evaluate(fields(30, 1) * math.nan, REAL),
        lambda: evaluate(torch.zeros(30, 1, 16, 16), REAL),
        lambda: evaluate(fields(30, 1), replace(REAL, theta=torch.ones(60, 1, 16, 16))),
        lambda: evaluate(fields(30, 1), REAL, REAL),
        lambda: evaluate(fields(30, 1), REAL, replace(REAL, encoding=GreyLevels(0.8))),
        lambda: evaluate(fields(30, 1), REAL, replace(REAL, theta=REAL.theta[:, :, :12])),
    ],
)
def test_what_cannot_be_evaluated_is_refused_with_a_hint(refused):
    with pytest.raises(ValueError, match=HELPFUL):
        refused()


def uniform(n: int, seed: int) -> torch.Tensor:
    return (2 * torch.rand(n, 1, 16, 16, generator=seeded(seed)) - 1) * PI


def test_rows_of_undefined_angles_say_so():
    for generated, theta, have in (
        (uniform(40, 0), uniform(80, 1), "0 of 40 generated and 0 of 80 real"),
        (fields(40, 1, 0.3), uniform(80, 1), "40 of 40 generated and 0 of 80 real"),
        (uniform(40, 0), fields(80, 2, 0.3), "0 of 40 generated and 80 of 80 real"),
    ):
        found = evaluate(generated, PhaseData(theta, None, (), Angles(), "made up"))
        rows = {r.metric: r for r in found.rows}
        undefined = rows.pop("order parameter, direction (rad)")
        assert math.isnan(undefined.value) and undefined.note.startswith(f"undefined, as {have} images")
        assert undefined.note in found.as_table()
        assert not any(math.isnan(x) for r in rows.values() for x in r[1:4]), "all other rows are numbers"
        assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["rows"][6]["value"] is None
    grey = {r.metric: r for r in evaluate(uniform(40, 0), replace(REAL, theta=uniform(80, 1))).rows}
    assert all(math.isnan(r.value) and r.note for r in grey.values() if r.metric.startswith("doubled"))


def test_some_images_without_a_direction_are_left_out_and_counted():
    generated = torch.cat([fields(30, 1, 0.3), uniform(10, 0)])
    found = evaluate(generated, PhaseData(fields(80, 2, 0.3), None, (), Angles(), "made up"))
    row = next(r for r in found.rows if r.metric.startswith("order parameter, direction"))
    assert 0 < row.value < 1 and row.note.startswith("of some images only, as 30 of 40 generated and 80 of 80 real")


def test_too_few_images_of_a_folder_are_explained():
    with pytest.raises(ValueError, match="(?s)64 generated .* 22 real .*test share.*--crops"):
        images_in_each_set(64, 22)
    with pytest.raises(ValueError, match="-n 20 or more"):
        images_in_each_set(5, 22)


def test_everything_pickles_and_the_default_dtype_changes_nothing():
    real, good, train = data()
    found = evaluate(good[:40], real, train)
    memory = memorisation(good[:5], train.theta, real.theta[:20])
    kept = [found, found.rows[0], memory, jackknife(kuiper_distance, good[:40, 0, 0, 0], good[:40, 0, 0, 1])]
    kept += [precision_recall(good[:40].flatten(1), good[40:80].flatten(1)), order_statistics(good[:5])]
    for one in kept:
        again = pickle.loads(pickle.dumps(one))
        assert type(again) is type(one) and str(again) == str(one)
    features = pickle.loads(pickle.dumps(TextureFeatures(good, real.encoding)))
    assert torch.equal(features(good), TextureFeatures(good, real.encoding)(good))
    torch.set_default_dtype(torch.float64)
    try:
        assert str(evaluate(good[:40], real, train)) == str(found)
    finally:
        torch.set_default_dtype(torch.float32)
