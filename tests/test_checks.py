"""The checks that chapters print must fail when they should, and print what the page of all checks reads."""

import math

import kodm_book
import nbformat
import numpy as np
import pytest
import torch

from kodm_lite.checks import check, check_below


def test_prints_one_line_per_check(capsys):
    check("identity", 1.0 + 1e-13, 1.0, tolerance=1e-12)
    check("estimate", 0.503, 0.5, standard_error=0.001)
    check_below("error", torch.tensor([1e-4, 2e-4]), 1e-3)
    assert capsys.readouterr().out.splitlines() == [
        "✓ identity: measured 1, expected 1 (off by 1e-13), within 1e-12",
        "✓ estimate: measured 0.503, expected 0.5 (off by 0.003), within 4 standard errors of 0.001",
        "✓ error: measured 0.0002, at most 0.001",
    ]


@pytest.mark.parametrize(
    ("measured", "expected", "allowed"),
    [
        (1.1, 1.0, {"tolerance": 0.05}),
        (0.5, 0.4, {"standard_error": 0.02}),
        (0.5, 0.49, {"standard_error": 0.01, "sigmas": 0.5}),
        (math.nan, 0.0, {"tolerance": math.inf}),
        (0.0, math.nan, {"tolerance": 1.0}),
        (math.inf, 0.0, {"tolerance": 1.0}),
        ([0.0, 0.2], 0.0, {"tolerance": 0.1}),
        (np.array([0.0, math.nan, 0.0]), 0.0, {"tolerance": 1.0}),
        (torch.tensor([1 + 1j, 1 - 1j]), 1 + 1j, {"tolerance": 1.0}),
    ],
)
def test_fails(measured, expected, allowed):
    with pytest.raises(AssertionError, match="✗ it: measured"):
        check("it", measured, expected, **allowed)


@pytest.mark.parametrize("measured", [0.2, math.nan, [0.0, 0.2], torch.tensor([math.nan, 0.0])])
def test_below_fails(measured):
    with pytest.raises(AssertionError, match="✗ it: measured"):
        check_below("it", measured, 0.1)


def test_reports_the_worst_entry(capsys):
    check("entries", torch.tensor([0.0, -0.3, 0.2]), [0.0, 0.0, 0.1], tolerance=0.5)
    assert "measured -0.3, expected 0," in capsys.readouterr().out


def test_tensor_with_gradient(capsys):
    check("gradient", torch.ones(3, requires_grad=True), 1.0, tolerance=1e-6)


@pytest.mark.parametrize("allowed", [{}, {"tolerance": 1.0, "standard_error": 1.0}, {"tolerance": -1.0}])
def test_wrong_use(allowed):
    with pytest.raises(ValueError, match="got .*, expected .*, try "):
        check("it", 0.0, 0.0, **allowed)


def test_the_page_of_all_checks_reads_every_line(capsys, monkeypatch):
    check("what: with a colon", 1 + 1j, 1 + 1j, tolerance=1e-12)
    check_below("error", 0.1, 0.2)
    cells = [
        nbformat.v4.new_code_cell(
            "", outputs=[nbformat.v4.new_output("stream", text="noise\n" + capsys.readouterr().out)]
        )
    ]
    executed = nbformat.v4.new_notebook(cells=cells), [1.5]
    monkeypatch.setattr(kodm_book.chapters, "executed", lambda chapter: executed)
    assert kodm_book.checks_of(None) == [
        ("what: with a colon", "1+1j", "expected 1+1j (off by 0), within 1e-12", 1.5),
        ("error", "0.1", "at most 0.2", 1.5),
    ]
