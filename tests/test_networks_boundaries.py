"""Edges, periodic side by side, against loops over neighbours; sides that no stride divides, against numpy."""

import json
import math

import numpy as np
import pytest
import torch

from kodm_lite import KuramotoProcess, LocalCoupling
from kodm_lite.euclidean import VariancePreserving, WhiteNoise
from kodm_lite.model import describe, network_from_dict
from kodm_lite.networks import EuclideanUNet, PeriodicUNet
from kodm_lite.networks.unet import Convolution

LAYERS = {"width": 8, "multipliers": (1, 2), "patch": 2, "attention": (1,)}
SIDES = [(False, False), (False, True), (True, False), (True, True)]
TIMES = torch.tensor([0.2, 0.9], dtype=torch.float64)


def awake(network):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.15 * torch.randn(p.shape, generator=generator))
    return network.double()


def unet(periodic_boundary=False, coupling=None, **options):
    process = KuramotoProcess(coupling) if coupling else None
    return awake(PeriodicUNet(1, process, periodic_boundary=periodic_boundary, **{**LAYERS, **options}))


def phases(*shape):
    return 2 * math.pi * torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("periodic", SIDES)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_is_a_sum_over_neighbours(periodic, stride):
    layer, x = Convolution(2, 3, periodic, stride).double(), phases(1, 2, 6, 8)
    weight, bias = (p.detach().numpy() for p in layer.parameters())
    expected = np.zeros((3, 6 // stride, 8 // stride)) + bias[:, None, None]
    for (_, i, j), _ in np.ndenumerate(expected[:1]):
        for di, dj in np.ndindex(3, 3):
            a, b = stride * i + di - 1, stride * j + dj - 1
            if (periodic[0] or 0 <= a < 6) and (periodic[1] or 0 <= b < 8):
                expected[:, i, j] += weight[:, :, di, dj] @ x[0, :, a % 6, b % 8].numpy()
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), expected, atol=1e-13)


@pytest.mark.parametrize("periodic", SIDES)
@pytest.mark.parametrize("local", [True, False])
def test_the_score_moves_with_the_image_along_periodic_sides_alone(periodic, local):
    coupling = LocalCoupling(2, tuple("periodic" if side else "reflect" for side in periodic)) if local else None
    network, theta = unet(periodic, coupling), phases(2, 1, 16, 12)
    score = network(theta, TIMES)
    for dim, side in zip((2, 3), periodic, strict=True):
        moved = network(theta.roll(4, dim), TIMES) - score.roll(4, dim)
        assert (float(moved.detach().abs().max()) < 1e-10) == side


def test_both_sides_are_one_flag_and_descriptions_are_plain():
    flags = {True: True, False: False, (True, True): True, (False, False): False}
    for given, kept in [*flags.items(), (np.bool_(True), True), ((np.bool_(False), True), [False, True])]:
        description = describe(PeriodicUNet(1, periodic_boundary=given, **LAYERS))
        assert repr(description["periodic_boundary"]) == repr(kept)
        again = describe(network_from_dict(json.loads(json.dumps(description)), KuramotoProcess()))
        assert again == description
    assert describe(PeriodicUNet(1, periodic_boundary=[True, False], **LAYERS))["periodic_boundary"] == [True, False]


@pytest.mark.parametrize(
    "value",
    [
        1,
        0,
        1.0,
        "x",
        "periodic",
        None,
        (1, 0),
        (True,),
        (True, False, True),
        (True, "x"),
        {True, False},
        np.ones(2) > 0,
    ],
)
def test_other_boundaries_are_refused(value):
    with pytest.raises(ValueError, match="periodic_boundary: got .* expected True, False or a pair .* try"):
        PeriodicUNet(1, periodic_boundary=value, **LAYERS)


SHAPES = [(13, 16), (16, 9), (13, 7), (3, 8), (2, 1), (1, 1), (5, 30)]


def filled(image, stride, periodic):
    """The image goes on beyond its edges, by numpy; and where the image is in it."""
    missing = [-n % stride for n in image.shape]
    for axis, (m, side) in enumerate(zip(missing, periodic, strict=True)):
        width = [(0, 0), (0, 0)]
        width[axis] = (m // 2, m - m // 2)
        image = np.pad(image, width, mode="wrap" if side else "symmetric")
    own = tuple(slice(m // 2, m // 2 + n - m) for m, n in zip(missing, image.shape, strict=True))
    return image, own


@pytest.mark.parametrize("periodic", SIDES)
@pytest.mark.parametrize("shape", SHAPES)
def test_images_of_other_sides_are_filled_up_inside_and_cut_out_again(shape, periodic):
    network, theta = unet(periodic), phases(2, 1, *shape)
    larger = [filled(image.numpy(), network.stride, periodic) for image in theta[:, 0]]
    images, own = torch.tensor(np.stack([image for image, _ in larger]))[:, None], larger[0][1]
    assert not any(n % network.stride for n in images.shape[2:])
    embedding = network.embedding(theta, TIMES, None)  # of the image, not of the larger one
    maps = network.run(torch.cat([images.cos(), images.sin()], 1), embedding)
    expected = network.head(theta, TIMES, *maps[(..., *own)].chunk(2, 1))
    torch.testing.assert_close(network(theta, TIMES), expected, rtol=1e-12, atol=1e-12)


def test_the_baseline_takes_images_of_other_sides_too():
    network = awake(EuclideanUNet(1, VariancePreserving(WhiteNoise((1, 13, 7), 2.0)), **LAYERS))
    x = phases(2, 1, 13, 7)
    images = torch.tensor(np.stack([filled(image.numpy() / 2, 4, (False, False))[0] for image in x[:, 0]]))[:, None]
    maps = network.run(images, network.embedding(x / 2, TIMES, None))
    torch.testing.assert_close(network(x, TIMES), 2 * maps[:, :, 1:14, :7], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(13, 7), (2, 2)])
def test_images_of_other_sides_train(shape):
    network, theta = PeriodicUNet(1, **LAYERS), phases(8, 1, *shape).float()
    t = torch.linspace(0.3, 1, 8)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        loss = (network(theta, t) - theta.sin()).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_a_network_with_one_periodic_side_compiles_into_one_graph_for_any_sides():
    coupling = LocalCoupling(1, ("reflect", "periodic"))
    network, theta = unet((False, True), coupling), phases(2, 1, 13, 7)
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(theta, TIMES), network(theta, TIMES), rtol=1e-9, atol=1e-9)
    torch._dynamo.reset()
