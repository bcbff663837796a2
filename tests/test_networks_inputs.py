"""What comes into networks: refused by name, in any dtype, under torch.func, on the meta device."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacrev, jvp, vjp, vmap

from kodm_lite import KuramotoProcess, LinearSchedule, LocalCoupling
from kodm_lite.euclidean import VariancePreserving, WhiteNoise
from kodm_lite.model import describe
from kodm_lite.networks import EuclideanUNet, PeriodicMLP, PeriodicUNet, ScoreHead, TimeEmbedding

LAYERS = {"width": 8, "multipliers": (1, 2), "attention": (1,)}
LOCAL = KuramotoProcess(LocalCoupling(1, ("reflect", "periodic")), reference_phase=0.4)
BASELINE = VariancePreserving(WhiteNoise((2, 6, 7), 2.0))
KINDS = {
    "U-Net": (lambda: PeriodicUNet(2, LOCAL, periodic_boundary=(False, True), classes=3, **LAYERS), (3, 2, 6, 7)),
    "MLP": (lambda: PeriodicMLP(5, width=8, classes=3), (3, 5)),
    "baseline": (lambda: EuclideanUNet(2, BASELINE, classes=3, **LAYERS), (3, 2, 6, 7)),
}


def make(kind, dtype=torch.float32):
    """A network all of whose weights do something, images, times and labels."""
    build, shape = KINDS[kind]
    network, generator = build(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    x = 2 * torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    return network.to(dtype), x, torch.tensor([0.1, 0.5, 1.0], dtype=dtype), torch.tensor([0, -1, 2])


every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, t, l: (x.long(), t, l), "got dtype torch.int64, expected float32 or float64"),
        (lambda x, t, l: (x.half(), t, l), "got dtype torch.float16, expected float32"),
        (lambda x, t, l: (x.numpy(), t, l), "got ndarray, expected a tensor; try torch.as_tensor"),
        (lambda x, t, l: (x.to("meta"), t, l), "network: got weights on cpu for .* on meta"),
        (lambda x, t, l: (x, 0.5, l), r"t: got 0.5, expected .* of shape \(3,\); try torch.full"),
        (lambda x, t, l: (x, t[:2], l), r"t: got torch.float32 of shape \(2,\)"),
        (lambda x, t, l: (x, t[:, None], l), r"t: got torch.float32 of shape \(3, 1\)"),
        (lambda x, t, l: (x, t.round().long(), l), "t: got torch.int64"),
        (lambda x, t, l: (x, t.to("meta"), l), "t: got times on meta, expected cpu"),
        (lambda x, t, l: (x, t - 0.1, l), "t: got times from 0 to 0.9, expected 0 < t <= 1"),
        (lambda x, t, l: (x, 2 * t, l), "t: got times from 0.2 to 2"),
        (lambda x, t, l: (x, t * math.nan, l), "t: got times from nan"),
        (lambda x, t, l: (x, t, 2), r"label: got int, .* try torch.full\(\(3,\), 2\)"),
        (lambda x, t, l: (x, t, [0, 1, 2]), r"label: got list, .* try torch.as_tensor"),
        (lambda x, t, l: (x, t, np.array([0, 1, 2])), r"label: got ndarray, .* try torch.as_tensor"),
        (lambda x, t, l: (x, t, l.float()), r"label: got torch.float32 of shape \(3,\), .* try label.long"),
        (lambda x, t, l: (x, t, l > 0), "label: got torch.bool"),
        (lambda x, t, l: (x, t, l[:2]), r"label: got torch.int64 of shape \(2,\)"),
        (lambda x, t, l: (x, t, l[:, None]), r"try label.flatten\(\)"),
        (lambda x, t, l: (x, t, torch.eye(3).long()), r"try label.argmax\(1\)"),
        (lambda x, t, l: (x, t, l.to("meta")), "label: got labels on meta, expected cpu"),
        (lambda x, t, l: (x, t, l + 1), "label: got numbers from 0 to 3, expected 0 to 2, or -1 .* try label - 1"),
        (lambda x, t, l: (x, t, l - 1), "label: got numbers from -2 to 1"),
        (lambda x, t, l: (x, t, torch.tensor([0, 1, 255], dtype=torch.uint8)), "label: got numbers from 0 to 255"),
    ],
)
def test_what_is_none_is_refused(kind, change, message):
    network, *inputs = make(kind)
    with pytest.raises(ValueError, match=message):
        network(*change(*inputs))


@every_kind
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_labels_of_any_whole_numbers_are_the_same(kind, dtype):
    network, x, t, _ = make(kind)
    label = torch.tensor([2, 0, 1])
    assert torch.equal(network(x, t, label.to(dtype)), network(x, t, label))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PeriodicUNet(True), "channels: got True"),
        (lambda: PeriodicUNet(1, multipliers=(1, 1.5)), "multipliers: got 1.5"),
        (lambda: PeriodicUNet(1, multipliers=2), "multipliers: got 2, expected a sequence"),
        (lambda: PeriodicUNet(1, attention=(-1,)), "attention: got -1"),
        (lambda: PeriodicUNet(1, classes=2.0), "classes: got 2.0"),
        (lambda: PeriodicMLP(2, classes=-1), "classes: got -1"),
        (lambda: PeriodicMLP(2, BASELINE), "process: got VariancePreserving"),
        (lambda: PeriodicUNet(2, BASELINE), "process: got VariancePreserving"),
        (lambda: ScoreHead(3), "process: got int"),
        (lambda: EuclideanUNet(2, LOCAL), "process: got KuramotoProcess"),
    ],
)
def test_networks_that_are_none_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_sizes_may_be_numbers_of_numpy():
    four = np.int64(4)
    for numpys, plain in [
        (PeriodicMLP(four, width=np.int32(8), depth=np.uint8(1)), PeriodicMLP(4, width=8, depth=1)),
        (
            PeriodicUNet(four, width=np.int64(8), multipliers=np.array([1, 2]), attention=np.arange(2), classes=four),
            PeriodicUNet(4, width=8, multipliers=(1, 2), attention=(0, 1), classes=4),
        ),
    ]:
        assert describe(numpys) == describe(plain) and repr(describe(numpys)) == repr(describe(plain))


@every_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_of_another_dtype_answers_in_the_dtype_of_its_input(kind, dtype):
    network, x, t, label = make(kind)
    expected = network(x, t, label)
    got = copy.deepcopy(network).to(dtype)(x, t, label)
    assert got.dtype == torch.float32
    tolerance = {torch.float16: 0.02, torch.bfloat16: 0.1, torch.float64: 1e-5}[dtype]
    assert float(((got - expected).norm() / expected.norm()).detach()) < tolerance
    double = network(x.double(), t, label)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["U-Net", "MLP"])
def test_angles_keep_the_digits_of_their_dtype_in_a_network_of_single_precision(kind):
    """The score of equilibrium follows a turn of 1e-12, which no float32 angle shows."""
    network, x, t, _ = make(kind)
    network, turn = type(network)(x.shape[1], LOCAL if kind == "U-Net" else None), 1e-12
    change = network(x.double() + turn, t) - network(x.double(), t)
    slope = jvp(lambda x: network(x, t), (x.double(),), (torch.ones_like(x).double(),))[1]
    assert float(((change / turn - slope).norm() / slope.norm()).detach()) < 1e-2


@every_kind
def test_the_default_dtype_changes_nothing(kind):
    network, x, t, label = make(kind)
    expected = network(x, t, label)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        assert torch.equal(network(x, t, label), expected)
        fresh = KINDS[kind][0]()
    finally:
        torch.set_default_dtype(before)
    assert fresh(x, t, label).dtype == torch.float32


@every_kind
def test_forward_and_reverse_derivatives_agree(kind):
    network, x, t, label = make(kind, torch.float64)
    u, v = torch.randn(2, *x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    value, forward = jvp(lambda x: network(x, t, label), (x,), (v,))
    (reverse,) = vjp(lambda x: network(x, t, label), x)[1](u)
    torch.testing.assert_close(value, network(x, t, label), rtol=1e-10, atol=1e-10)
    assert float((u * forward).sum().detach()) == pytest.approx(float((reverse * v).sum().detach()), rel=1e-10)
    h = 1e-5
    difference = (network(x + h * v, t, label) - network(x - h * v, t, label)) / (2 * h)
    torch.testing.assert_close(forward, difference, rtol=1e-5, atol=1e-5)
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(network(forward_ad.make_dual(x, v), t, label))
    torch.testing.assert_close(dual.tangent, forward, rtol=1e-10, atol=1e-10)


@every_kind
def test_images_may_be_mapped_and_gradients_taken_one_by_one(kind):
    network, x, t, label = make(kind, torch.float64)
    own = dict(network.named_parameters())

    def one(weights, x, t, label):
        return functional_call(network, weights, (x[None], t[None], label[None]))[0]

    mapped = vmap(one, (None, 0, 0, 0))(own, x, t, label)
    torch.testing.assert_close(mapped, network(x, t, label), rtol=1e-10, atol=1e-10)
    gradients = vmap(grad(lambda *inputs: one(*inputs).square().sum()), (None, 0, 0, 0))(own, x, t, label)
    network(x, t, label).square().sum().backward()
    for name, p in own.items():
        torch.testing.assert_close(gradients[name].sum(0), p.grad, rtol=1e-9, atol=1e-9)
    ensemble = vmap(lambda weights: functional_call(network, weights, (x, t, label)))(
        {name: torch.stack([p, 0.9 * p]) for name, p in own.items()}
    )
    torch.testing.assert_close(ensemble[0], network(x, t, label), rtol=1e-10, atol=1e-10)


def test_the_divergence_is_the_trace_of_the_jacobian():
    network, x, t, _ = make("U-Net", torch.float64)
    jacobian = jacrev(lambda x: network(x[None], t[:1])[0])(x[0]).reshape(x[0].numel(), -1)
    directions = torch.eye(x[0].numel(), dtype=torch.float64).reshape(-1, *x[0].shape)
    columns = vmap(lambda v: jvp(lambda x: network(x[None], t[:1])[0], (x[0],), (v,))[1])(directions)
    trace = sum(float((v * column).sum().detach()) for v, column in zip(directions, columns, strict=True))
    assert trace == pytest.approx(float(jacobian.trace().detach()), rel=1e-9)


def test_maps_lie_in_memory_as_convolutions_like_it():
    network, x, t, _ = make("U-Net")
    seen = []
    network.down[0][0].conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(x, t)
    assert seen[0].is_contiguous(memory_format=torch.channels_last) and not seen[0].is_contiguous()


@every_kind
@pytest.mark.parametrize("with_labels", [True, False])
def test_networks_run_on_the_meta_device(kind, with_labels):
    """Nothing there has a value: to look at one, or to mix devices, is an error."""
    network, x, t, label = make(kind)
    network, x, t = network.to("meta"), x.to("meta").requires_grad_(), t.to("meta")
    score = network(x, t, label.to("meta") if with_labels else None)
    score.square().mean().backward()
    assert score.device.type == "meta" and score.shape == x.shape and x.grad is not None
    assert all(p.grad is not None for p in network.parameters())


VARIANCES = (1e-6, 1e-3, 1.0, 50.0, 88.0, 100.0, 200.0, 1e3, 1e4)


@pytest.mark.parametrize("kind", ["U-Net", "MLP"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_are_finite_however_much_noise_there_is(kind, dtype):
    """The head is 1/sqrt(e^V - 1), and the embedding sees log(e^V - 1), up to V = 80; then both stay."""
    _, x, t, _ = make(kind, dtype)
    for variance in VARIANCES:
        process = KuramotoProcess(diffusion=LinearSchedule(variance / 2, variance / 2))
        network = {"U-Net": PeriodicUNet(2, process, **LAYERS), "MLP": PeriodicMLP(5, process, width=8)}[kind].to(dtype)
        seen = []
        network.embedding.layers[0].register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        score = network(x, torch.ones_like(t))
        assert torch.isfinite(score).all() and torch.isfinite(seen[0]).all()
        unit = network.head(x, torch.ones_like(t), -x.sin(), x.cos()) - process.equilibrium_score(x, torch.ones_like(t))
        log_noise = math.log(math.expm1(min(variance, 80)))
        large = 2 * float(process.equilibrium_score(x, torch.ones_like(t)).abs().max()) * torch.finfo(dtype).eps
        torch.testing.assert_close(
            unit, torch.full_like(unit, math.exp(-log_noise / 2)), rtol=8 * torch.finfo(dtype).eps, atol=large
        )
        wave = float(torch.sin(torch.tensor(log_noise, dtype=dtype) / 8))  # the slowest one
        assert float(seen[0][0, 0]) == pytest.approx(wave, abs=50 * max(1, variance) * torch.finfo(dtype).eps)


@every_kind
@pytest.mark.parametrize("time", [1e-38, 1e-20, 1e-6])
def test_scores_are_finite_however_early_it_is(kind, time):
    """Also where V(t) is too small for a number of single precision."""
    network, x, t, _ = make(kind)
    assert torch.isfinite(network(x, torch.full_like(t, time))).all()
    rates = {"reference_strength": LinearSchedule(0, 4), "diffusion": LinearSchedule(0, 5)}
    process = KuramotoProcess(coupling_strength=LinearSchedule(0, 3), **rates)
    for part in network.modules():
        if isinstance(getattr(part, "process", None), KuramotoProcess):
            part.process = process
    assert torch.isfinite(network(x, torch.full_like(t, time))).all()


@pytest.mark.parametrize("variance", VARIANCES)
def test_predicted_noise_is_finite_however_much_noise_there_is(variance):
    process = VariancePreserving(WhiteNoise((2, 6, 7)), LinearSchedule(variance, variance))
    network = EuclideanUNet(2, process, **LAYERS)
    with torch.no_grad():
        network.pooled[-1].weight.normal_()
    assert torch.isfinite(network(torch.randn(2, 2, 6, 7), torch.ones(2))).all()


@every_kind
def test_networks_are_copied_and_pickled(kind):
    network, x, t, label = make(kind)
    for again in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(again(x, t, label), network(x, t, label)) and describe(again) == describe(network)
        assert again != network and len({again, network}) == 2


def test_parts_are_copied_and_pickled():
    for part in (ScoreHead(LOCAL), TimeEmbedding(LOCAL, 8, 2)):
        assert pickle.loads(pickle.dumps(part)).process == copy.deepcopy(part).process == LOCAL
