"""FID and KID with small networks of known features, against scipy and the definition of the kernel distance."""

import sys

import numpy as np
import pytest
import scipy.linalg
import torch
from helpers import HELPFUL

from kodm_lite import Angles, GreyLevels, image_to_phase, to_uint8
from kodm_lite.data import textures
from kodm_lite.metrics import inception_distances

GREY = GreyLevels(0.9)


class Blocks(torch.nn.Module):
    """Mean of each quarter of each channel, in units of 32 bytes; keeps what it saw."""

    num_features = 12

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []
        self.drop = torch.nn.Dropout(0.9)

    def forward(self, images):
        self.seen.append(images)
        quarters = torch.nn.functional.adaptive_avg_pool2d(images.double() / 32, 2).flatten(1)
        return self.drop(quarters)


def colours(n: int, seed: int = 0, contrast: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return image_to_phase(contrast * (2 * torch.rand(n, 3, 6, 6, generator=generator) - 1), 0.9)


def features(theta: torch.Tensor) -> np.ndarray:
    """Those of :class:`Blocks`, from grey values, by loops over the quarters."""
    grey = np.rint((theta.double().numpy() / (0.9 * np.pi) + 1) * 127.5) / 32
    grey = np.repeat(grey, 3, 1) if grey.shape[1] == 1 else grey
    half = grey.shape[2] // 2
    parts = [slice(0, half), slice(half, None)]
    return np.stack([[x[c, i, j].mean() for c in range(3) for i in parts for j in parts] for x in grey])


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared distance with the kernel (x y / F + 1)^3, by its definition."""
    n = len(a)
    kernels = [(x @ y.T / a.shape[1] + 1) ** 3 for x, y in ((a, a), (b, b), (a, b))]
    same = [(k.sum() - np.trace(k)) / (n * (n - 1)) for k in kernels[:2]]
    return sum(same) - 2 * kernels[2].mean()


@pytest.mark.parametrize("channels", [1, 3])
def test_distances_are_those_of_the_definition(channels):
    generated, real = colours(40, 1, 0.7)[:, :channels], colours(40)[:, :channels]
    found = inception_distances(generated, real, "train", GREY, feature=Blocks(), subsets=3, subset_size=40)
    a, b = features(generated), features(real)
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    fid = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert found.fid == pytest.approx(fid, abs=1e-5)
    assert found.kid == pytest.approx(kernel_distance(a, b), rel=1e-6)
    assert found.kid_deviation < 1e-9, "all subsets are the whole sets"


def test_the_record_says_what_was_compared():
    found = inception_distances(colours(30), colours(25, 1), "validation", GREY, feature=Blocks(), subsets=4)
    assert found[3:] == (30, 25, "validation", 4, 12, "Blocks", 12)
    assert (
        inception_distances(colours(9), colours(9, 1), "test", GREY, feature=Blocks(), subset_size=5).subset_size == 5
    )


def test_torchmetrics_gets_the_same_from_bytes():
    from torchmetrics.image.fid import FrechetInceptionDistance

    generated, real = textures(n=60, seed=1, scale=0.9).theta, textures(n=60, scale=0.9).theta
    metric = FrechetInceptionDistance(feature=Blocks().eval()).set_dtype(torch.float64)
    metric.update(to_uint8(generated, 0.9).repeat(1, 3, 1, 1), real=False)
    metric.update(to_uint8(real, 0.9).repeat(1, 3, 1, 1), real=True)
    found = inception_distances(generated, real, "train", GREY, feature=Blocks())
    assert found.fid == pytest.approx(float(metric.compute()), abs=1e-6)


@pytest.mark.parametrize("scale", [0.9, 0.5])
def test_the_network_sees_bytes_in_three_channels_a_few_at_a_time(scale):
    network = Blocks()
    grey = torch.linspace(-1, 1, 7 * 16).reshape(7, 1, 4, 4)
    theta = image_to_phase(grey, scale)
    found = inception_distances(theta, theta.flip(0), "train", GreyLevels(scale), feature=network, batch=3)
    assert [len(x) for x in network.seen] == [3, 3, 1] * 2
    seen = torch.cat(network.seen[:3])
    assert seen.dtype == torch.uint8 and seen.shape == (7, 3, 4, 4)
    for channel in range(3):
        np.testing.assert_array_equal(seen[:, channel], np.rint((grey[:, 0].double().numpy() + 1) * 127.5))
    again = inception_distances(to_uint8(theta, scale), to_uint8(theta.flip(0), scale), "train", GREY, feature=Blocks())
    assert again == found


def test_networks_are_used_in_evaluation_mode_and_left_as_they_were():
    network = Blocks().train()
    first, second = (inception_distances(colours(20), colours(20, 1), "train", GREY, feature=network) for _ in range(2))
    assert first == second and network.training and network.drop.training


def test_subsets_come_from_the_seed_and_no_generator_moves():
    state = torch.get_rng_state()
    one, same, other = (
        inception_distances(colours(40), colours(40, 1), "train", GREY, feature=Blocks(), subsets=5, seed=s)
        for s in (0, 0, 1)
    )
    assert one == same != other and torch.equal(state, torch.get_rng_state())
    assert one.fid == other.fid and one.kid_deviation > 0


def test_both_distances_order_what_the_eye_orders():
    data, other = textures(n=300, scale=0.9), textures(n=300, seed=1, scale=0.9)

    class Differences(torch.nn.Module):
        """Roughness and contrast, as a network would see them."""

        def forward(self, images):
            grey = images[:, 0].double() / 128 - 1
            parts = [grey.diff(dim=1).abs(), grey.diff(dim=2).abs(), (grey - grey.mean((1, 2), keepdim=True)).abs()]
            return torch.stack([p.mean((1, 2)) for p in parts], 1)

    def found(theta):
        return inception_distances(theta, data.theta, "train", GREY, feature=Differences())

    noisy = other.theta + 0.5 * torch.randn(other.theta.shape, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(other.theta, 3, 1, 1)
    floor, copies = found(other.theta), found(data.theta)
    assert copies.fid < 1e-9 and copies.fid < floor.fid < 1e-3, "copies are not seen"
    assert abs(floor.kid) < 3 * floor.kid_deviation
    for wrong in (noisy, blurred, other.of_class("grass")):
        assert found(wrong).fid > 20 * floor.fid and found(wrong).kid > 10 * abs(floor.kid)


@pytest.mark.parametrize("broken", [None, RuntimeError("operator torchvision::nms does not exist")])
def test_without_torch_fidelity_the_error_says_what_to_install(monkeypatch, broken):
    if broken is None:
        monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    else:

        def fail(name):
            raise broken

        monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(ValueError, match=HELPFUL + r'pip install ".\[fid\]"'):
        inception_distances(colours(4), colours(4), "train", GREY)


@pytest.mark.parametrize(
    "refused",
    [
        lambda: inception_distances(colours(4) * 100, colours(4), "train", GREY, feature=Blocks()),
        lambda: inception_distances(colours(4), colours(4).double() * torch.nan, "train", GREY, feature=Blocks()),
        lambda: inception_distances(colours(4), torch.rand(4, 3, 6, 6), "train", GREY, feature=Blocks()),
        lambda: inception_distances(torch.rand(4, 3, 6, 6), colours(4), "train", GREY, feature=Blocks()),
        lambda: inception_distances(255 * torch.rand(4, 3, 6, 6), colours(4), "train", GREY, feature=Blocks()),
        lambda: inception_distances(torch.ones(4, 3, 6, 6).int(), colours(4), "train", GREY, feature=Blocks()),
        lambda: inception_distances(colours(4)[:, :2], colours(4)[:, :2], "train", GREY, feature=Blocks()),
        lambda: inception_distances(colours(4)[:, 0], colours(4)[:, 0], "train", GREY, feature=Blocks()),
        lambda: inception_distances(to_uint8(colours(4), 0.9)[0], colours(4), "train", GREY, feature=Blocks()),
        lambda: inception_distances(colours(4), colours(4)[:, :, :5], "train", GREY, feature=Blocks()),
        lambda: inception_distances(colours(4), colours(1), "train", GREY, feature=Blocks()),
        lambda: inception_distances(colours(4), colours(5), "train", GREY, feature=Blocks(), subset_size=5),
        lambda: inception_distances(colours(4), colours(5), "train", GREY, feature=Blocks(), subsets=0),
        lambda: inception_distances(colours(4), colours(5), "train", encoding=Angles(), feature=Blocks()),
    ],
)
def test_what_cannot_be_measured_is_refused_with_a_hint(refused):
    with pytest.raises(ValueError, match=HELPFUL):
        refused()
