"""Networks against formulas written out here: periodic, in equilibrium when new, scaled by the noise that is left."""

import itertools
import math

import numpy as np
import pytest
import torch
from helpers import random_phases, seeded
from torch import nn

from kodm_lite import GlobalCoupling, KuramotoProcess, LinearSchedule, LocalCoupling
from kodm_lite.model import describe, network_from_dict
from kodm_lite.networks import PeriodicMLP, PeriodicUNet, TimeEmbedding
from kodm_lite.networks.unet import SIZES, Attention

PI = math.pi
TINY = {"width": 8, "multipliers": (1, 2), "blocks": 1, "patch": 2, "attention": (1,)}


def gap(a, b):
    return float((a - b).detach().abs().max())


def awake(network, size=0.15, seed=1):
    """The network with all weights moved, those that start at zero as well: nothing in it is switched off."""
    generator = seeded(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(size * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p))
    return network


def unet(channels=1, process=None, seed=1, **options):
    return awake(PeriodicUNet(channels, process, **{**TINY, **options}), seed=seed)


def mlp(n=6, process=None, **options):
    return awake(PeriodicMLP(n, process, width=16, depth=2, **options))


CASES = {
    "U-Net": lambda **options: (unet(2, **options), (3, 2, 8, 12)),
    "MLP": lambda **options: (mlp(6, **options), (3, 6)),
}
TIMES = (0.05, 0.4, 1.0)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_a_network_is_periodic_in_every_phase(case, dtype, tolerance):
    network, shape = CASES[case]()
    network, theta, t = network.to(dtype), random_phases(*shape, dtype=dtype), torch.tensor(TIMES, dtype=dtype)
    plain = network(theta, t)
    turns = torch.randint(-1, 2, shape, generator=seeded(2)).to(dtype)
    for turned in (theta + 2 * PI * turns, theta + 2 * PI, torch.where(turns == 1, theta - 2 * PI, theta)):
        assert gap(network(turned, t), plain) < tolerance * gap(plain, torch.zeros(()))
    assert gap(network(theta + PI / 2, t), plain) > 0.1  # but it is no constant


def neighbours(coupling, shape):
    """Weights w_ij of one image, counted pixel by pixel."""
    channels, height, width = shape
    sites = list(itertools.product(range(channels), range(height), range(width)))
    if isinstance(coupling, GlobalCoupling):
        return torch.full((len(sites),) * 2, 1 / len(sites), dtype=torch.float64)
    weights = torch.zeros(len(sites), len(sites), dtype=torch.float64)
    box, r = range(-coupling.radius, coupling.radius + 1), coupling.radius
    for i, (c, y, x) in enumerate(sites):
        for dy, dx in itertools.product(box, box):
            if coupling.boundary == "periodic":
                a, b = (y + dy) % height, (x + dx) % width
            else:
                a, b = (
                    np.pad(np.arange(n), r, mode="symmetric")[k + d + r]
                    for n, k, d in ((height, y, dy), (width, x, dx))
                )
            weights[i, sites.index((c, a, b))] += 1 / (2 * r + 1) ** 2
    return weights


@pytest.mark.parametrize("phase", [0.8, random_phases(2, 4, 8, seed=5)], ids=["number", "field"])
@pytest.mark.parametrize("coupling", [GlobalCoupling(), LocalCoupling(1), LocalCoupling(2, "reflect")])
def test_a_new_network_is_the_score_of_the_gibbs_law(coupling, phase):
    process = KuramotoProcess(coupling, LinearSchedule(0.5, 3.0), LinearSchedule(2.0, 1.0), reference_phase=phase)
    t = torch.tensor(TIMES, dtype=torch.float64)
    k, k_ref, d = ((a + (b - a) * t)[:, None] for a, b in ((0.5, 3.0), (2.0, 1.0), (0.005, 5.0)))
    theta = random_phases(3, 2, 4, 8).requires_grad_()
    flat, target = theta.flatten(1), torch.as_tensor(phase, dtype=torch.float64).expand(2, 4, 8).flatten()
    pairs = neighbours(coupling, (2, 4, 8)) * torch.cos(flat[:, :, None] - flat[:, None, :])
    energy = -k / 2 * pairs.sum((1, 2))[:, None] - k_ref * torch.cos(flat - target).sum(1, keepdim=True)
    (expected,) = torch.autograd.grad((-energy / d).sum(), theta)
    score = PeriodicUNet(2, process, **TINY).double()(theta.detach(), t)
    torch.testing.assert_close(score, expected, rtol=1e-11, atol=1e-11)


def test_a_new_mlp_is_the_score_of_the_gibbs_law():
    theta, t = random_phases(3, 5).requires_grad_(), torch.tensor(TIMES, dtype=torch.float64)
    k, d = ((a + (b - a) * t)[:, None] for a, b in ((0.003, 3.0), (0.005, 5.0)))
    pairs = torch.cos(theta[:, :, None] - theta[:, None, :]).sum((1, 2))[:, None] / 5
    energy = -k / 2 * pairs - 1.5 * k * theta.cos().sum(1, keepdim=True)
    (expected,) = torch.autograd.grad((-energy / d).sum(), theta)
    torch.testing.assert_close(PeriodicMLP(5).double()(theta.detach(), t), expected, rtol=1e-11, atol=1e-11)


def published_clock(t):
    return 0.01 * t + 4.995 * t**2  # the integral of 2 D(s) = 0.01 + 9.99 s


@pytest.mark.parametrize("part", ["every pixel", "whole image"])
def test_the_head_turns_a_vector_into_a_tangent_of_the_size_of_the_noise(part):
    """With constant vectors (a, b) the distance from equilibrium is (b cos - a sin) / sqrt(exp(V) - 1)."""
    a, b = torch.tensor([0.3, -1.2]), torch.tensor([0.9, 0.4])  # two channels
    network, new = (PeriodicUNet(2, **TINY).double() for _ in range(2))
    with torch.no_grad():
        if part == "whole image":
            network.pooled[-1].bias.copy_(torch.cat([a, b]))
        else:
            network.last.bias.copy_(torch.cat([a, b]).repeat_interleave(4))
    theta, t = random_phases(3, 2, 8, 8), torch.tensor([1e-3, 0.3, 1.0], dtype=torch.float64)
    scale = torch.expm1(published_clock(t)).sqrt()[:, None, None, None]
    tangent = b.double()[:, None, None] * theta.cos() - a.double()[:, None, None] * theta.sin()
    torch.testing.assert_close(network(theta, t) - new(theta, t), tangent / scale, rtol=1e-9, atol=1e-9)


def test_the_head_of_an_mlp_does_the_same():
    a, b = torch.tensor([0.3, -1.2, 0.5]).double(), torch.tensor([0.9, 0.4, -0.7]).double()
    network, new = (PeriodicMLP(3, width=8).double() for _ in range(2))
    with torch.no_grad():
        network.last.bias.copy_(torch.cat([a, b]))
    theta, t = random_phases(3, 3), torch.tensor([1e-3, 0.3, 1.0], dtype=torch.float64)
    scale = torch.expm1(published_clock(t)).sqrt()[:, None]
    expected = (b * theta.cos() - a * theta.sin()) / scale
    torch.testing.assert_close(network(theta, t) - new(theta, t), expected, rtol=1e-9, atol=1e-9)


def test_what_points_away_from_the_circle_is_projected_out():
    network, theta, t = unet().double(), random_phases(3, 1, 8, 8), torch.tensor(TIMES, dtype=torch.float64)
    a, b, outward = (random_phases(3, 1, 8, 8, seed=s) for s in (1, 2, 3))
    plain = network.head(theta, t, a, b)
    torch.testing.assert_close(network.head(theta, t, a + outward * theta.cos(), b + outward * theta.sin()), plain)
    along = network.head(theta, t, a - outward * theta.sin(), b + outward * theta.cos()) - plain
    scale = torch.expm1(published_clock(t)).sqrt()[:, None, None, None]
    torch.testing.assert_close(along, outward / scale, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("coupling", [GlobalCoupling(), LocalCoupling(1)])
@pytest.mark.parametrize("shift", [(4, 0), (0, -4), (8, 12)])
def test_with_periodic_boundary_a_shift_by_the_stride_shifts_the_score(coupling, shift):
    network = unet(1, KuramotoProcess(coupling), periodic_boundary=True).double()
    assert network.stride == 4
    theta, t = random_phases(2, 1, 16, 12), torch.tensor([0.2, 0.9], dtype=torch.float64)
    score = network(theta, t)
    torch.testing.assert_close(network(theta.roll(shift, (2, 3)), t), score.roll(shift, (2, 3)), rtol=1e-9, atol=1e-9)


def test_without_periodic_boundary_the_edge_is_felt():
    network, theta = unet().double(), random_phases(1, 1, 16, 16)
    t = torch.tensor([0.5], dtype=torch.float64)
    shifted = network(theta.roll(4, 2), t)
    assert gap(shifted, network(theta, t).roll(4, 2)) > 1e-3


@pytest.mark.parametrize(("name", "millions"), [("small", 1.249), ("medium", 7.756), ("large", 35.10)])
def test_sizes_are_what_their_names_promise_and_all_of_them_is_trained(name, millions):
    parameters = list(PeriodicUNet(3, **SIZES[name]).parameters())
    assert sum(p.numel() for p in parameters) / 1e6 == pytest.approx(millions, rel=1e-3)
    assert all(p.requires_grad for p in parameters)


@pytest.mark.parametrize("name", SIZES)
def test_every_size_divides_images_of_32_pixels(name):
    assert 32 % PeriodicUNet(1, **SIZES[name]).stride == 0


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (2, 1, 8, 24), (1, 3, 32, 16), (2, 1, 11, 30), (1, 2, 1, 5)])
def test_images_of_any_size(shape):
    network = awake(PeriodicUNet(shape[1], **SIZES["small"]), size=0.02)
    assert network.stride == 8
    score = network(random_phases(*shape, dtype=torch.float32), torch.rand(shape[0]) + 1e-3)
    assert score.shape == shape and score.dtype == torch.float32 and torch.isfinite(score).all()


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (1, 8, 8), (2, 8), (1, 1, 0, 8)])
def test_images_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"theta: got shape .* expected \(B, 1, H, W\)"):
        PeriodicUNet(1, **SIZES["small"])(torch.zeros(shape), torch.ones(shape[0]))


@pytest.mark.parametrize("shape", [(2, 5), (2, 1, 2, 2), (4,)])
def test_an_mlp_refuses_another_number_of_oscillators(shape):
    with pytest.raises(ValueError, match=r"theta: got shape .* expected \(B, 4\)"):
        PeriodicMLP(4)(torch.zeros(shape), torch.ones(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PeriodicUNet(0), "channels: got 0"),
        (lambda: PeriodicUNet(1, width=12), "width: got 12, expected a multiple of 8; try 16"),
        (lambda: PeriodicUNet(1, blocks=0), "blocks: got 0"),
        (lambda: PeriodicUNet(1, patch=0), "patch: got 0"),
        (lambda: PeriodicUNet(1, patch=1.5), "patch: got 1.5"),
        (lambda: PeriodicUNet(1, multipliers=()), "levels: got 0"),
        (lambda: PeriodicMLP(0), "dim: got 0"),
        (lambda: PeriodicMLP(2, width=-1), "width: got -1"),
        (lambda: PeriodicMLP(2, depth=0), "depth: got 0"),
    ],
)
def test_sizes_that_are_none_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("case", CASES)
def test_the_null_token_is_no_label(case):
    network, shape = CASES[case](classes=4)
    theta, t = random_phases(*shape, dtype=torch.float32), torch.tensor(TIMES)
    none, null = network(theta, t), network(theta, t, torch.full((3,), -1))
    assert torch.equal(none, null)
    mixed = network(theta, t, torch.tensor([-1, 3, 3]))
    torch.testing.assert_close(mixed[0], none[0], rtol=1e-5, atol=1e-5)
    assert all(gap(a, b) > 1e-3 for a, b in zip(mixed[1:], none[1:], strict=True))
    other = network(theta, t, torch.tensor([0, 1, 2]))
    assert all(gap(a, b) > 1e-3 for a, b in zip(other, mixed, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_new_network_learns_to_tell_classes_apart(case):
    network = {"U-Net": PeriodicUNet(1, classes=2, **TINY), "MLP": PeriodicMLP(6, width=16, classes=2)}[case]
    theta = random_phases(4, 1, 8, 8, dtype=torch.float32) if case == "U-Net" else random_phases(4, 6).float()
    t, label = torch.full((4,), 0.6), torch.tensor([0, 1, 0, 1])
    sign = (2.0 * label - 1).reshape(-1, *[1] * (theta.ndim - 1))
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        loss = (network(theta, t, label) - sign * theta.cos()).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    gradient = network.embedding.label.weight.grad
    assert (
        float(gradient[1:].abs().sum(1).min()) > 0 and float(gradient[0].abs().sum()) == 0
    )  # no image without a label
    assert gap(network(theta, t, label), network(theta, t, 1 - label)) > 1e-3


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("coupling", [GlobalCoupling(), LocalCoupling(2)])
def test_mixed_precision_rounds_neither_angles_nor_equilibrium(case, coupling):
    """A turn of 1e-4 is far below bfloat16's resolution; the equilibrium score must still follow it."""
    process = KuramotoProcess(coupling)
    network = PeriodicUNet(2, process, **TINY) if case == "U-Net" else PeriodicMLP(6, process)
    _, shape = CASES[case]()
    theta, t = random_phases(*shape), torch.tensor(TIMES)
    turned = theta + 1e-4 * random_phases(*shape, seed=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low, low_turned = (network(x.float(), t) for x in (theta, turned))
    assert low.dtype == torch.float32
    high, high_turned = (network.double()(x, t.double()) for x in (theta, turned))
    torch.testing.assert_close(low.double(), high, rtol=1e-5, atol=1e-5)
    change, expected = (low_turned - low).double(), high_turned - high
    assert float(((change - expected).norm() / expected.norm()).detach()) < 0.02
    assert gap(high_turned, high) < 1e-3


@pytest.mark.parametrize("case", CASES)
def test_mixed_precision_is_close_to_single_precision(case):
    network, shape = CASES[case]()
    theta, t = random_phases(*shape, dtype=torch.float32), torch.tensor([0.2, 0.6, 1.0])
    high = network(theta, t)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = network(theta, t)
    assert low.dtype == torch.float32 and not torch.equal(low, high)
    assert float(((low - high).norm() / high.norm()).detach()) < 0.03


@pytest.mark.parametrize("case", CASES)
def test_networks_compile_into_one_graph(case):
    network, shape = CASES[case](process=KuramotoProcess(LocalCoupling(1), reference_phase=0.4), classes=2)
    theta, t, label = random_phases(*shape, dtype=torch.float32), torch.tensor(TIMES), torch.tensor([0, 1, -1])
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(theta, t, label), network(theta, t, label), rtol=1e-4, atol=1e-4)
    torch._dynamo.reset()


@pytest.mark.parametrize("case", CASES)
def test_scores_and_gradients_are_finite_at_the_ends_and_far_outside_the_circle(case):
    network, shape = CASES[case]()
    for dtype, t in itertools.product((torch.float32, torch.float64), (1e-3, 1.0)):
        network = network.to(dtype)
        network.zero_grad()
        theta = (1e3 * random_phases(*shape, dtype=dtype)).requires_grad_()
        score = network(theta, torch.full((3,), t, dtype=dtype))
        score.square().mean().backward()
        assert torch.isfinite(score).all() and torch.isfinite(theta.grad).all()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("case", CASES)
def test_every_weight_gets_a_gradient(case):
    network, shape = CASES[case](classes=3)
    theta = random_phases(*shape, dtype=torch.float32)
    network(theta, torch.tensor(TIMES), torch.tensor([0, 1, 2])).square().sum().backward()
    assert all(float(p.grad.abs().max()) > 0 for p in network.parameters())


@pytest.mark.parametrize("shape", [(3, 2, 4, 6), (3, 5)])
def test_the_embedding_sees_the_clock_and_the_order_parameter_of_the_whole_image(shape):
    embedding, seen = TimeEmbedding(KuramotoProcess(), 8).double(), []
    embedding.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    theta, t = random_phases(*shape), torch.tensor(TIMES, dtype=torch.float64)
    embedding(theta, t, None)
    phases = theta.numpy().reshape(3, -1)
    z = [np.exp(1j * n * phases).mean(1) for n in (1, 2)]
    moments = np.stack([4 * part for m in z for part in (m.real, m.imag)], 1)
    clock = np.log(np.expm1(published_clock(np.array(TIMES))))[:, None] * 2.0 ** np.arange(-3, 4)
    np.testing.assert_allclose(seen[0].detach().numpy(), np.hstack([np.sin(clock), np.cos(clock), moments]), atol=1e-11)


@pytest.mark.parametrize("case", CASES)
def test_an_image_does_not_depend_on_the_others_of_its_batch(case):
    network, shape = CASES[case](classes=3)
    network, label = network.double(), torch.tensor([0, 2, -1])
    theta, t = random_phases(*shape), torch.tensor(TIMES, dtype=torch.float64)
    together = network(theta, t, label)
    for k in range(3):
        alone = network(theta[k : k + 1], t[k : k + 1], label[k : k + 1])
        torch.testing.assert_close(alone[0], together[k], rtol=1e-10, atol=1e-10)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(network(theta[order], t[order], label[order]), together[order], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "network",
    [PeriodicUNet(2, classes=3, periodic_boundary=True, **{**TINY, "patch": 1}), PeriodicMLP(5, width=24, depth=1)],
    ids=["U-Net", "MLP"],
)
def test_a_network_is_built_again_from_its_description(network):
    process = KuramotoProcess(LocalCoupling(1))
    again = network_from_dict(describe(network), process)
    assert type(again) is type(network) and describe(again) == describe(network)
    again.load_state_dict(awake(network).state_dict())
    assert all(getattr(part, "process", process) is process for part in again.modules())
    reference = network_from_dict(describe(network), KuramotoProcess())
    reference.load_state_dict(network.state_dict())
    theta = random_phases(2, 2, 8, 8).float() if isinstance(network, PeriodicUNet) else random_phases(2, 5).float()
    t = torch.tensor([0.3, 0.8])
    assert torch.equal(reference(theta, t), network(theta, t)) and not torch.equal(again(theta, t), network(theta, t))


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"kind": "Transformer"}, "network: got kind 'Transformer', expected one of"),
        ({"dim": 3}, "network: got kind 'None'"),
        ({"kind": "PeriodicMLP", "dim": 3, "heads": 4}, "network: got options .* expected those of PeriodicMLP"),
        ({"kind": "PeriodicMLP"}, "network: got options"),
        ({"kind": "PeriodicUNet", "channels": 1, "width": 9}, "width: got 9"),
    ],
)
def test_descriptions_of_nothing_known_are_refused(description, message):
    kept = dict(description)
    with pytest.raises(ValueError, match=message):
        network_from_dict(description, KuramotoProcess())
    assert description == kept


def test_attention_is_a_softmax_over_all_positions(monkeypatch):
    attention, called = awake(Attention(64)).double(), []
    assert attention.heads == 2
    x = random_phases(2, 64, 2, 3)
    fused = nn.functional.scaled_dot_product_attention

    def spy(*inputs, **options):
        called.append(inputs[0].shape)
        return fused(*inputs, **options)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", spy)
    result = attention(x).detach().numpy()
    assert called == [(2, 2, 6, 32)]
    weights, bias = (p.detach().numpy() for p in attention.query_key_value.parameters())
    for image, before, after in zip(attention.norm(x).detach().numpy(), x.numpy(), result, strict=True):
        qkv = weights[:, :, 0, 0] @ image.reshape(64, 6) + bias[:, None]
        mixed = np.zeros((64, 6))
        for head in range(2):
            query, key, value = (qkv[64 * k + 32 * head :][:32] for k in range(3))
            for i in range(6):
                logits = np.array([query[:, i] @ key[:, j] / math.sqrt(32) for j in range(6)])
                share = np.exp(logits) / np.exp(logits).sum()
                mixed[32 * head : 32 * (head + 1), i] = value @ share
        w, b = (p.detach().numpy() for p in attention.out.parameters())
        expected = before.reshape(64, 6) + w[:, :, 0, 0] @ mixed + b[:, None]
        np.testing.assert_allclose(after.reshape(64, 6), expected, atol=1e-10)


def test_labels_for_a_network_without_classes_are_refused():
    with pytest.raises(ValueError, match="label: got labels, expected none"):
        PeriodicMLP(2)(torch.zeros(3, 2), torch.full((3,), 0.5), torch.zeros(3, dtype=torch.long))
