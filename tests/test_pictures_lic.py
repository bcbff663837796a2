"""Line-integral convolution: smooth along the lines, rough across, whatever the field; and drawings of orientations."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from helpers import HELPFUL, seeded

from kodm_lite.encoding import Angles, GreyLevels
from kodm_lite.orientation import orientation_field
from kodm_lite.pictures import plotting
from kodm_lite.pictures.lic import line_integral_convolution


@pytest.mark.parametrize("degrees", [0, 30, 90, 135])
def test_lines_run_along_the_field(degrees):
    doubled = torch.full((16, 20), 2 * math.radians(degrees)) - 2 * math.pi * (degrees > 90)
    picture = line_integral_convolution(doubled, generator=seeded())
    assert picture.shape == (96, 120)
    measured = orientation_field(picture, gradient_sigma=0.8, window_sigma=12.0)
    mean = torch.polar(measured.coherence, measured.doubled).mean()
    assert math.degrees(abs(math.remainder(float(mean.angle()) - 2 * math.radians(degrees), 2 * math.pi))) < 6
    assert mean.abs() > 0.7


def test_lines_close_around_the_middle_of_a_vortex():
    pixel = torch.arange(24.0) - 11.5
    z = torch.complex(*torch.meshgrid(pixel, pixel, indexing="xy"))
    doubled = torch.angle(-(z**2))  # circles
    picture = line_integral_convolution(doubled, magnify=4, generator=seeded())
    place = (torch.arange(96.0) + 0.5) / 4 - 12
    radius = torch.hypot(place[:, None], place).numpy()
    ring = [picture.numpy()[(radius >= r) & (radius < r + 0.25)].mean() for r in np.arange(2, 10, 0.5)]
    assert np.std(ring) > 3 * picture.numpy().std() / math.sqrt(2 * math.pi * 6 * 4), "rings differ more than at random"


def test_grey_values_are_spread_evenly_and_the_seed_decides():
    doubled = torch.zeros(8, 8)
    one, same, other = (line_integral_convolution(doubled, 3, generator=seeded(k)) for k in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.allclose(one.flatten().sort().values, torch.linspace(0, 1, one.numel()), atol=1e-6)


@pytest.mark.parametrize(
    "bad", [{"doubled": torch.zeros(2, 8, 8)}, {"magnify": 0}, {"length": 0.0}, {"length": math.nan}]
)
def test_bad_input_ends_in_a_helpful_message(bad):
    with pytest.raises(ValueError, match=HELPFUL):
        line_integral_convolution(**{"doubled": torch.zeros(8, 8), **bad})


def test_drawings_of_orientations():
    _, ax = plt.subplots()
    doubled = torch.full((12, 16), math.pi / 2)  # 45 degrees: to the right and down
    picture = plotting.show_orientations(ax, doubled, magnify=2)
    assert picture.get_array().shape == (24, 32, 3)
    plotting.sticks(ax, doubled, torch.full((12, 16), 0.5), every=4)
    (lines,) = ax.collections
    segments = np.array(lines.get_segments())
    assert segments.shape == (12, 2, 2)
    along = segments[:, 1] - segments[:, 0]
    assert np.allclose(along[:, 0], along[:, 1]) and np.allclose(np.hypot(*along.T), 0.9 * 4 * 0.5)
    assert np.allclose(segments.mean(1)[0], [2, 2]) and np.allclose(segments.mean(1)[-1], [14, 10])
    with pytest.raises(ValueError, match=HELPFUL):
        plotting.show_orientations(ax, doubled[None])
    plt.close("all")


def test_angles_are_drawn_in_cyclic_colours():
    from kodm_lite.pictures.files import grid

    theta = torch.tensor([-math.pi, 0.0, math.pi - 1e-4]).reshape(3, 1, 1, 1).expand(3, 1, 4, 4).contiguous()
    pixels = np.asarray(grid(theta, Angles(), columns=3))
    assert pixels.shape == (4, 14, 3)
    assert np.abs(pixels[0, 0].astype(int) - pixels[0, -1]).max() <= 2, "both ends of the turn look alike"
    assert np.abs(pixels[0, 0].astype(int) - pixels[0, 6]).max() > 50
    assert np.asarray(grid(theta, GreyLevels(0.9), columns=3)).shape == (4, 14), "grey values stay grey"


def test_the_average_reaches_to_both_sides():
    """Along straight lines two pixels have noise in common up to twice the length."""
    picture = line_integral_convolution(torch.zeros(40, 40), magnify=4, length=3.0, generator=seeded()) - 0.5

    def correlation(distance):
        return float((picture[:, distance:] * picture[:, :-distance]).mean() / picture.square().mean())

    assert correlation(12) == pytest.approx(0.5, abs=0.1)
    assert abs(correlation(30)) < 0.1
