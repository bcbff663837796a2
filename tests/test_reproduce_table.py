"""The table of methods: what ships is what the command writes, and pictures leave out what is not there."""

import json

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from kodm_lite.reproduce import table as report
from kodm_lite.reproduce.methods import METHODS


def result(data="d", method="sgm", budget=25, seed=0, value=1.0, error=0.3):
    row = {"metric": "Fréchet texture distance", "value": value, "error": error, "floor": 0.1}
    cell = {"data": data, "method": method, "budget": budget, "seed": seed, "title": METHODS[method].title}
    return {**cell, "evaluation": {"rows": [row], "images": 20}}


def test_the_shipped_results_are_cells_of_one_plan():
    results = report.shipped()
    assert len({(x["data"], x["method"], x["budget"], x["seed"]) for x in results}) == len(results) >= 30
    assert len({json.dumps([x["training"], x["images"]]) for x in results}) == 1, "one budget for all"
    for x in results:
        assert x["title"] == METHODS[x["method"]].title
        assert all(np.isfinite([row["value"], row["error"], row["floor"]]).all() for row in x["evaluation"]["rows"])


def test_every_shipped_number_is_in_the_text():
    lines = report.summary(report.shipped())
    text = report.table(lines)
    for line in lines:
        assert f"{line['value']:.2f} ± {line['error']:.2f}" in text


def test_any_metric_can_be_summed_up():
    lines = report.summary(report.shipped(), "recall (texture)")
    assert len(lines) == len(report.shipped()) and all(0 <= line["value"] <= 1 for line in lines)


def test_a_cell_that_is_missing_is_left_empty():
    lines = report.summary([result(), result(method="mean-field"), result(method="mean-field", budget=100, value=2.0)])
    sgm, ours = report.table(lines).splitlines()[2:]
    assert sgm.count("±") == 1 and ours.count("±") == 2


def test_the_figure_has_an_axis_for_each_data_set_and_a_line_for_each_method():
    lines = report.summary([result(data, method, n) for data in "ab" for method in METHODS for n in (25, 100)])
    made = report.figure(lines)
    assert [ax.get_title() for ax in made.axes] == ["a", "b"]
    assert all(len(ax.containers) == len(METHODS) for ax in made.axes)
    colours = [[container.lines[0].get_color() for container in ax.containers] for ax in made.axes]
    assert colours[0] == colours[1]


def test_a_method_has_its_colour_where_others_are_missing():
    lines = report.summary([result("a", "sgm"), result("a", "mean-field"), result("b", "mean-field")])
    made = report.figure(lines)
    first, second = ([x.lines[0].get_color() for x in ax.containers] for ax in made.axes)
    assert second == first[1:] and first[0] != first[1]
    plt.close(made)


def test_the_gallery_shows_the_pictures_that_are_there(tmp_path):
    (tmp_path / "cells").mkdir()
    Image.fromarray(np.zeros((4, 8), np.uint8)).save(tmp_path / "cells" / "a.sgm.25.0.png")
    lines = report.summary([result("a"), result("b"), result("a", "mean-field")])
    made = report.gallery(tmp_path, lines, 25)
    assert [len(ax.images) for ax in made.axes] == [1, 0, 0, 0]
    plt.close(made)


def test_the_published_table_is_that_of_the_paper():
    assert report.PUBLISHED["CIFAR-10"] == {
        100: (38.04, 29.96, 28.17),
        300: (25.76, 25.83, 24.86),
        1000: (3.17, 11.58, 10.79),
    }
    assert report.PUBLISHED["SOCOFing"][100][report.PUBLISHED_METHODS.index("KODM local")] == 67.49


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match=r"metric: got 'beauty', expected .*texture.*try"):
        report.summary(report.shipped(), "beauty")
