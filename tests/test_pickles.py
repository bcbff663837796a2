"""Whatever one holds in one's hands can be sent to another process and copied: the same again, and independent."""

import copy
import importlib
import inspect
import pickle

import pytest
import torch

import kodm_lite as kodm
from kodm_lite import checkpoints, data, euclidean, fluctuation, losses, mean_field, networks, registry
from kodm_lite.calibration import Calibration
from kodm_lite.encoding import HALF_CIRCLE, PUBLISHED, Numbers
from kodm_lite.samplers import Run, step_of

PLAIN = [kodm.GlobalCoupling(), kodm.LocalCoupling(2), kodm.LocalCoupling(1, ("reflect", "periodic"))]
FIELD = torch.linspace(-3, 3, 16).reshape(1, 4, 4)
THETA, TIMES = FIELD.expand(2, 1, 4, 4) * 0.3, torch.tensor([0.02, 0.5])
PROCESS = kodm.KuramotoProcess(kodm.LocalCoupling(1), reference_phase=FIELD)
DIFFUSION = euclidean.VariancePreserving(euclidean.WhiteNoise((1, 4, 4), 2.0))
SIZES = {"width": 8, "multipliers": (1,), "blocks": 1, "patch": 1, "attention": ()}
NETWORK = kodm.PeriodicUNet(1, PROCESS, classes=2, **SIZES)
CALIBRATION = Calibration((0.5, 1.0), (1.0, 2.0), 0.1)
PAIR = kodm.FokkerPlanck2D(kodm.KuramotoProcess(), lambda x, y: (1 + 0 * x * y) / 39.47841760435743, 8)
ONE = kodm.FokkerPlanck1D(kodm.KuramotoProcess(), lambda x: kodm.VonMises(0.0, 2.0).log_prob(x).exp(), 20)
MEMORY = kodm.terminal_memory(kodm.KuramotoProcess(), torch.cat([THETA, -THETA]), 2)
LOSS = losses.squared_error(THETA, 0 * THETA, TIMES)
CARD = {"classes": ["a", "b"]}

HELD = [
    *PLAIN, PROCESS, kodm.KuramotoProcess(), kodm.LinearSchedule(0.1, 2.0), PROCESS.coefficients(0.0, 0.5),
    kodm.VonMises(FIELD, 2.0), kodm.WrappedNormal(0.3, 0.5), kodm.GibbsPrior(kodm.KuramotoProcess()),
    kodm.OrderParameterPrior(torch.tensor([0.3j, 0.5])), kodm.GreyLevels(0.3), kodm.Angles(), Numbers(), HALF_CIRCLE,
    PUBLISHED, kodm.MeanField(), kodm.Transition(2), euclidean.Noise(), LOSS, kodm.TrainingOptions(steps=3),
    CALIBRATION,
    kodm.PhaseData(THETA, torch.tensor([0, 1]), ("a", "b"), kodm.GreyLevels(0.5), "nowhere"), DIFFUSION,
    DIFFUSION.noise, NETWORK, kodm.PeriodicMLP(3), networks.EuclideanUNet(1, DIFFUSION, **SIZES),
    kodm.Model(NETWORK, PROCESS, (1, 4, 4), kodm.GreyLevels(0.5), CALIBRATION, CARD), kodm.load("digits-16"),
    Run(NETWORK, PROCESS, CALIBRATION, None), mean_field.mean_field_law(PROCESS, THETA, TIMES),
    networks.ScoreHead(PROCESS), networks.TimeEmbedding(PROCESS, 8), MEMORY,
    ONE, PAIR, kodm.ExactScore(ONE), kodm.ImageSetScore(kodm.KuramotoProcess(), THETA),
    data.DatasetExamples([(FIELD, 0), (FIELD, 1)], kodm.Angles()),
    fluctuation.Fluctuation((0.5,), (0.7,), (0.0,)), step_of(PROCESS, None), registry.processes["kuramoto"],
    checkpoints.CheckpointError("file: got nothing"), kodm.training.TrainingInterrupted("stopped"),
]  # fmt: skip

#: Classes of the core that are no things to hold: protocols, and what only raises.
ABSTRACT = {"Coupling", "Encoding", "Objective", "Process", "GaussianNoise", "Prior"}
CORE = (
    "kodm_lite checkpoints circular randomness kernels schedules kuramoto memory process priors fokker_planck "
    "mean_field fluctuation objectives losses samplers calibration euclidean encoding model networks training kinds"
).split()


def classes():
    for name in CORE:
        module = importlib.import_module(name if name == "kodm_lite" else f"kodm_lite.{name}")
        for public in module.__all__:
            value = getattr(module, public)
            if inspect.isclass(value) and value.__module__.startswith("kodm_lite"):
                yield value


def copies(one):
    return pickle.loads(pickle.dumps(one)), copy.deepcopy(one)


def content(x):
    """What an object consists of, comparable."""
    if isinstance(x, torch.Tensor):
        return str(x.dtype), tuple(x.shape), x.tolist()
    if isinstance(x, torch.nn.Module):
        return type(x), str(x), content(dict(x.state_dict()))
    if isinstance(x, dict):
        return {key: content(value) for key, value in x.items()}
    if isinstance(x, tuple | list):
        return type(x), [content(value) for value in x]
    if hasattr(x, "__dict__") and not inspect.isroutine(x) and not isinstance(x, BaseException):
        return type(x), content(vars(x))
    return repr(x) if isinstance(x, BaseException) else x


def tensors(x):
    if isinstance(x, torch.Tensor):
        yield x
    elif isinstance(x, torch.nn.Module):
        yield from x.state_dict().values()
    elif isinstance(x, dict | tuple | list):
        for value in x.values() if isinstance(x, dict) else x:
            yield from tensors(value)
    elif hasattr(x, "__dict__") and not inspect.isroutine(x):
        yield from tensors(vars(x))


@pytest.mark.parametrize("one", HELD, ids=lambda x: type(x).__name__)
def test_copies_are_the_same_and_share_nothing(one):
    for other in copies(one):
        assert type(other) is type(one) and content(other) == content(one)
        own = {x.data_ptr() for x in tensors(one)}
        assert not own & {x.data_ptr() for x in tensors(other)}


def test_nothing_is_forgotten():
    held = {cls for one in HELD for cls in type(one).__mro__}
    assert {cls.__name__ for cls in classes() if cls not in held} <= ABSTRACT
