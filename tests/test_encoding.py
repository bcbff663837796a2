"""Encodings: values come back, numbers beyond the range go to its ends, and files tell them apart."""

import math

import pytest
import torch
from helpers import HELPFUL, random_phases, seeded

from kodm_lite import Angles, GreyLevels, PhaseData
from kodm_lite.encoding import HALF_CIRCLE, PUBLISHED, Encoding, Numbers
from kodm_lite.registry import encodings

PI = math.pi


@pytest.mark.parametrize("scale", [0.1, 0.5, 0.9])
def test_grey_values_come_back_and_bytes_are_rounded(scale):
    x = torch.rand(4, 1, 8, 8, generator=seeded(0), dtype=torch.float64) * 2 - 1
    encoding = GreyLevels(scale)
    theta = encoding.encode(x)
    torch.testing.assert_close(theta, x * scale * PI)
    torch.testing.assert_close(encoding.decode(theta), x)
    levels = torch.arange(256.0).reshape(1, 1, 16, 16)
    assert torch.equal(encoding.to_uint8(encoding.encode(levels / 127.5 - 1)).float(), levels)


def test_numbers_beyond_black_and_white_are_black_and_white():
    x = torch.tensor([-9.0, -1.0, 0.3, 1.5, 1.6, 7.0])
    ends = torch.tensor([-PI / 2, -1.0, 0.3, 1.5, PI / 2, PI / 2])
    torch.testing.assert_close(HALF_CIRCLE.project(x), ends)
    assert float(HALF_CIRCLE.decode(HALF_CIRCLE.project(x)).abs().max()) <= 1 + 1e-6
    beyond = Angles().project(torch.tensor([-9.0, 0.3, 9.0]))
    assert float(beyond.abs().max()) <= PI + 1e-6 and float(beyond[1]) == pytest.approx(0.3)
    assert torch.equal(Numbers().project(x), x)


def test_angles_lose_whole_turns_only():
    theta = random_phases(5, 3)
    torch.testing.assert_close(Angles().encode(theta + 2 * PI), theta)
    assert torch.equal(Angles().decode(theta), theta)
    with pytest.raises(ValueError, match=r"(?s)x: got angles up to .*deg2rad"):
        Angles().encode(torch.tensor([[180.0, 90.0]]))


@pytest.mark.parametrize("encoding", [HALF_CIRCLE, PUBLISHED, Angles(), Numbers()])
def test_a_description_makes_the_same_encoding(encoding):
    data = encoding.to_dict()
    assert isinstance(encoding, Encoding) and encodings.of(data)(data) == encoding
    with pytest.raises(ValueError, match="expected entries"):
        encodings.of(data)({**data, "more": 1})


@pytest.mark.parametrize("scale", [0.0, 1.0, -0.5, 1.5, math.nan, True, "0.5", None])
def test_a_scale_is_above_zero_and_below_one(scale):
    with pytest.raises(ValueError, match=HELPFUL):
        GreyLevels(scale)


def test_data_say_what_their_phases_stand_for():
    theta = torch.zeros(2, 1, 4, 4)
    assert PhaseData(theta, None, (), 0.5, "mine").encoding == GreyLevels(0.5)
    for wrong in (None, 1.0, "grey", GreyLevels):
        with pytest.raises(ValueError, match=HELPFUL):
            PhaseData(theta, None, (), wrong, "mine")
