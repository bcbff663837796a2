"""The code in README runs as it stands there, but for the number of steps of its training."""

import re

import pytest
import torch
from chapters import ROOT

import kodm_lite as kodm
from kodm_lite.registry import processes


def blocks(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(encoding="utf8"), flags=re.DOTALL)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Files go to a temporary folder, random numbers are the same, and what is registered is forgotten again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "_entries", dict(processes._entries))
    torch.manual_seed(0)


def test_ten_lines():
    space: dict = {}
    exec(blocks("README.md")[0], space)
    assert space["images"].shape == (16, 1, 32, 32) and space["images"].abs().max() <= 1
    assert kodm.order_parameter(space["theta1"]).abs() > 0.3


def test_a_table_of_angles(monkeypatch):
    fit, few = kodm.fit, kodm.TrainingOptions(steps=10, batch_size=16)
    monkeypatch.setattr(kodm, "fit", lambda *args, **rest: fit(*args, few, **rest, progress=False))
    space = {"torch": torch, "kodm": kodm, "angles": torch.randn(100, 5) * 0.3}
    exec(blocks("README.md")[1], space)
    assert space["samples"].shape == (1000, 5) and space["samples"].abs().max() <= torch.pi
