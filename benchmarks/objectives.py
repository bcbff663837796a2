"""What the objectives are worth: the closure against simulation, orthogonality, variances, and learning.

    python benchmarks/objectives.py moments orthogonality variance cost learning judge shared_noise

prints tables and writes benchmarks/results/objectives.json, which keeps the parts that are not asked for, and of
learning the arms and seeds that are not; networks go to --weights, where judge finds them.  Its part "collective" is
of an option that did harm and is gone (book: chapter 7).  On one CPU core the first
four take some minutes, learning about three hours, judge some minutes, shared_noise half an hour.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kodm_lite import (
    GlobalCoupling,
    GreyLevels,
    KuramotoProcess,
    LinearSchedule,
    LocalCoupling,
    MeanField,
    Model,
    PeriodicUNet,
    Transition,
    WrappedNormal,
    calibrate,
    checkpoints,
    sample,
    wrap,
)
from kodm_lite.data import textures
from kodm_lite.fluctuation import calibrate_fluctuation, linear_fluctuation, mean_field_score
from kodm_lite.losses import Objective, early_times
from kodm_lite.mean_field import mean_field_law
from kodm_lite.metrics import TextureFeatures, class_shares, frechet_texture_distance
from kodm_lite.objectives import (
    mean_field_score_matching,
    random_times,
    transition_score_matching,
)
from kodm_lite.process import per_image
from kodm_lite.training import TrainingOptions, fit

RESULTS = Path(__file__).parent / "results" / "objectives.json"
COUPLINGS = {
    "global": GlobalCoupling(),
    "radius 1": LocalCoupling(1, "reflect"),
    "radius 2": LocalCoupling(2, "reflect"),
    "radius 4": LocalCoupling(4, "reflect"),
    "radius 5": LocalCoupling(5, "reflect"),
}
Score = Callable[[Tensor, Tensor], Tensor]


def moments(args: argparse.Namespace) -> dict[str, Any]:
    """E exp(i theta) of globally coupled phases, simulated and closed: the difference shrinks like 1/N."""
    rates = (LinearSchedule(0.009, 9.0), LinearSchedule(0.0015, 1.5))  # of couplings: strong, to see the difference
    process, generator = KuramotoProcess(GlobalCoupling(), *rates).scaled(2.0), torch.Generator().manual_seed(0)
    t, row, points = 0.5, {}, []
    for n, millions in ((2, 1), (8, 1), (64, 4), (256, 12), (1024, 24)):
        theta0 = torch.linspace(-2.0, 1.0, n)[None]
        closed = complex(mean_field_law(process, theta0, torch.tensor([t])).first_moment.mean())
        batch, means = 500_000 // n, []
        for _ in range(2 * millions * args.rounds // 8):
            theta = process.simulate(theta0.expand(batch, n), t, 200, generator, method="heun")
            means.append(torch.polar(torch.ones_like(theta), theta).mean(1))
        z = torch.cat(means)
        error = abs(z.mean().item() - closed)
        bar = math.sqrt(float(z.real.var() + z.imag.var()) / len(z))
        row[str(n)] = [error, bar]
        points.append((math.log(n), math.log(error), (error / bar) ** 2))
        print(f"N = {n:4d}: |E z - closure| = {error:.5f} +- {bar:.5f}, times N {error * n:.3f}", flush=True)
    x, y, weight = torch.tensor(points[1:], dtype=torch.float64).T  # two phases are not yet many
    x, y = (v - (weight * v).sum() / weight.sum() for v in (x, y))
    slope, bar = float((weight * x * y).sum() / (weight * x * x).sum()), float((weight * x * x).sum() ** -0.5)
    print(f"slope from N = 8: {slope:.3f} +- {bar:.3f}")
    return {"time": t, "errors": row, "slope": [slope, bar]}


def transition(
    process: KuramotoProcess, theta0: Tensor, t: Any, steps: int, generator: torch.Generator, finer: int = 1
) -> tuple[Tensor, Tensor]:
    """States at time t (one, or one per image), and the score of their last step, of length 1/steps.

    The simulation of what is before takes ``finer`` times as many steps of Heun's method.
    """
    t = torch.as_tensor(t).expand(len(theta0))
    before = (t - 1 / steps).clamp(min=0)
    theta = process.simulate(theta0, before, finer * steps, generator, method="heun")
    scale = per_image((process.clock(t) - process.clock(before)).sqrt(), theta)
    law = WrappedNormal(theta + process.step_drift(theta, before, t), scale)
    theta = law.sample(generator=generator)
    return theta, law.score(theta)


def test_functions(process: KuramotoProcess, law: Any, theta: Tensor, network: Score, t: Tensor, generator: Any):
    """Functions g that an error of the score must be orthogonal to, and their derivatives d g_i / d theta_i."""
    theta = theta.clone().requires_grad_()
    score, random = law.score(theta), network(theta, t) - process.equilibrium_score(theta, t)
    slope = torch.autograd.grad(score.sum(), theta)[0]  # the closure's score of a phase depends on that phase only
    sign = 2.0 * torch.randint(0, 2, theta.shape, generator=generator) - 1  # Hutchinson's estimate of the trace
    random_slope = sign * torch.autograd.grad((sign * random).sum(), theta)[0]
    theta, score = theta.detach(), score.detach()
    side = theta.shape[-1]
    line = process.coupling.average(torch.eye(side)).expand(side, side).diagonal()
    own = line[:, None] * line  # weight of a phase in its own neighbourhood
    turn = torch.polar(torch.ones_like(theta), theta)
    pull = process.coupling.average(turn - law.first_moment) * turn.conj()
    spectrum = torch.fft.fft2(score)
    spectrum[..., 2:-1, :] = 0
    spectrum[..., :, 2:-1] = 0  # wave numbers -1, 0 and 1
    return {
        "score": (score, slope),
        "sin": (theta.sin(), theta.cos()),
        "sin 2": ((2 * theta).sin(), 2 * (2 * theta).cos()),
        "neighbours": (process.coupling.average(theta.sin()).expand_as(theta), own * theta.cos()),
        "network": (random.detach(), random_slope),
        "box mean": (process.coupling.average(score).expand_as(theta), own * slope),
        "fluctuation": (pull.imag, own - pull.real),
        "lowest waves": (torch.fft.ifft2(spectrum).real, 9 / side**2 * slope),
    }


def orthogonality(args: argparse.Namespace) -> dict[str, Any]:
    """E[(s_true - s) g] over E[s_mf g] in units that make 0 right, or 1 if g is a part of s_mf.

    By the identity E[s_true g] = - E[div g], which needs no more than states, here of 100 Heun steps per unit of time.
    (The score of a last Euler step of 1/100 in place of s_true would add the error of that step, up to 0.03.)
    """
    rows: dict[str, Any] = {}
    for name, coupling in COUPLINGS.items():
        # Along the mean of a whole image there is one number per image: many small ones tell more than few large ones.
        size, count = (8, 4096) if name == "global" else (32, 128)
        process = KuramotoProcess.for_shape((1, size, size), coupling=coupling)
        generator = torch.Generator().manual_seed(1)
        theta0 = textures(size, n=count, seed=5, scale=0.9).theta
        torch.manual_seed(0)
        network = PeriodicUNet(1, process, width=8, multipliers=(1, 1), attention=())
        for parameter in network.parameters():
            if not parameter.any():  # a new network has the score of equilibrium
                torch.nn.init.normal_(parameter, std=0.3)
        times = (0.2, 0.4, 0.7, 1.0)
        measured = calibrate_fluctuation(process, theta0, times=times, generator=generator)
        for t in times:
            now, sums = torch.full((len(theta0),), t), []
            ratios = {
                "closure": 0.0,
                "K/D": 1.0,
                "linear": float(linear_fluctuation(process, now)[0]),
                "measured": measured.ratios[times.index(t)],
            }
            equilibrium = process.coupling_strength.at(t) / process.diffusion.at(t)
            for _ in range(args.rounds):
                theta = process.simulate(theta0, t, 100, generator, method="heun")
                law = mean_field_law(process, theta0, now)
                functions = test_functions(process, law, theta, network, now, generator)
                closure, pull = functions["score"][0], functions["fluctuation"][0]
                for_all = {s: closure + ratio * equilibrium * pull for s, ratio in ratios.items()}
                sums.append(
                    {
                        f: {
                            s: torch.stack([(-slope - x * g).flatten(1).mean(1), (x * g).flatten(1).mean(1),
                                            x.square().flatten(1).mean(1), g.square().flatten(1).mean(1)])
                            for s, x in for_all.items()
                        }
                        for f, (g, slope) in functions.items()
                    }
                )  # fmt: skip
            row: dict[str, Any] = {"gamma": [measured.ratios[times.index(t)], measured.errors[times.index(t)]]}
            for f in sums[0]:
                for s in sums[0][f]:
                    defect, product, own, size = torch.cat([part[f][s] for part in sums], 1)
                    if f in ("score", "box mean", "lowest waves"):  # how much of the score is there, 1 is right
                        scale, offset = float(product.mean()), 1.0
                    else:  # a correlation coefficient, 0 is right
                        scale, offset = float((own.mean() * size.mean()).sqrt()), 0.0
                    bar = float(defect.std()) / len(defect) ** 0.5 / abs(scale)
                    row.setdefault(f, {})[s] = [round(offset + float(defect.mean()) / scale, 4), round(bar, 4)]
            rows.setdefault(name, {})[str(t)] = row
            print(f"{name}, t = {t}: gamma D/K {row['gamma'][0]:.2f} +- {row['gamma'][1]:.2f}")
            for f, values in row.items():
                if f != "gamma":
                    print(f"  {f:13s}" + "".join(f" {s} {v:7.3f} +- {b:.3f} " for s, (v, b) in values.items()))
    return rows


def variance(args: argparse.Namespace) -> dict[str, Any]:
    """E s^2 of the transition target and of the mean-field score, for chains of 100 and of 1000 steps."""
    rows: dict[str, Any] = {}
    theta0 = textures(32, n=32, seed=5, scale=0.9).theta
    for name in ("global", "radius 2"):
        process = KuramotoProcess(COUPLINGS[name])  # the published strengths; the book has those that forget
        generator = torch.Generator().manual_seed(2)
        for t in (0.05, 0.1, 0.16, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0):
            now = torch.full((len(theta0),), t)
            sizes = {}
            for steps in (100, 1000):
                theta, target = transition(process, theta0, t, steps, generator)
                sizes[str(steps)] = float(target.square().mean())
            sizes["mean field"] = float(mean_field_score(process, theta0, theta, now).square().mean())
            rows.setdefault(name, {})[str(t)] = sizes
            print(
                f"{name:9s} t = {t:4.2f}: E s^2 mean field {sizes['mean field']:8.3f}, transition "
                f"{sizes['100']:8.1f} (100 steps) {sizes['1000']:9.1f} (1000 steps), "
                f"ratios {sizes['100'] / sizes['mean field']:.1f} and {sizes['1000'] / sizes['mean field']:.0f}"
            )
    return rows


def cost(args: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds of the targets of 16 images of 32 x 32 pixels, the simulation of their states included.

    A process of 100 steps and one of 1000 have the same mean-field target at the same cost: the law knows no number of
    steps, and the simulation has a grid of its own, 50 Heun steps per unit of time.  The chain of a transition target
    has the steps of its process.
    """
    theta0, t = textures(32, n=16, seed=5, scale=0.9).theta, early_times((torch.arange(16) + 0.5) / 16)
    targets = {
        "mean field": mean_field_score_matching,
        "transition, 100 steps": partial(transition_score_matching, steps=100),
        "transition, 1000 steps": partial(transition_score_matching, steps=1000),
    }
    rows: dict[str, Any] = {}
    for name in ("global", "radius 4"):
        process = KuramotoProcess.for_shape((1, 32, 32), coupling=COUPLINGS[name])
        for target, objective in targets.items():
            seconds = []
            for _ in range(args.rounds):
                began = time.process_time()
                objective(process.equilibrium_score, process, theta0, t=t, generator=torch.Generator().manual_seed(0))
                seconds.append(time.process_time() - began)
            rows.setdefault(name, {})[target] = round(sorted(seconds)[len(seconds) // 2], 3)
        print(f"{name}: " + ", ".join(f"{target} {x} s" for target, x in rows[name].items()))
    return rows


EVALUATIONS = 40  # of the network in a step of training
SCALE = 0.5  # of the images: on the published 0.9 all arms mistake black for white
ARMS: dict[str, Objective] = {
    "mean_field": MeanField(weighting="target"),
    "mean_field, early": MeanField(weighting="early"),
    "transition M=1": Transition(),
    "transition M=5": Transition(draws=5),
    "transition M=1, 1000 steps": Transition(steps=1000),
}


SHAPE = (1, 16, 16)


def small_problem() -> tuple[KuramotoProcess, Any, tuple[Any, ...], TextureFeatures]:
    """Process and training images; held-out images, real ones to compare with and a yardstick; its features."""
    data = textures(16, "train", n=8192, seed=1, scale=SCALE)
    others = tuple(
        textures(16, "train", n=n, seed=seed, scale=SCALE, without=(8192, 1))
        for n, seed in ((512, 99), (512, 1000), (2048, 7))
    )
    return KuramotoProcess.for_shape(SHAPE), data, others, TextureFeatures(others[-1].theta, others[-1].encoding)


def train(arm: str, seed: int, steps: int, process: KuramotoProcess, data: Any, watch: Any = None) -> tuple[Any, Any]:
    """A small network that learned in one of the ways, and its calibration."""
    torch.manual_seed(seed)
    network = PeriodicUNet(1, process, width=16, multipliers=(1, 2, 2), attention=(2,))
    objective = ARMS[arm]
    batch_size = EVALUATIONS // getattr(objective, "draws", 1)  # the same number of network evaluations
    options = TrainingOptions(
        steps=steps, batch_size=batch_size, decay="constant", seed=seed, log_every=steps // 20, validate_every=0
    )
    trained = fit(network, process, data, options, objective=objective, callback=watch, progress=False)
    return trained, calibrate(trained, process, data.theta[:128], generator=torch.Generator().manual_seed(seed))


class Watch:
    """Notes network evaluations, seconds and held-out errors of a network while it learns.

    The seconds are those of this process alone, without the time that the notes take.
    """

    def __init__(self, errors: Callable[[Any], dict[str, float]]):
        self.errors, self.points = errors, []
        self.began, self.aside = time.process_time(), 0.0

    def __call__(self, line: Any, average: Any) -> None:
        now = time.process_time()
        errors = self.errors(average)
        self.points.append([line["step"] * EVALUATIONS, now - self.began - self.aside, *errors.values()])
        self.aside += time.process_time() - now


def learning(args: argparse.Namespace) -> dict[str, Any]:
    """The same small network, data and number of network evaluations with each objective."""
    process, data, (held_out, real, yardstick), features = small_problem()
    t = early_times(random_times(len(held_out), torch.Generator().manual_seed(0)))

    def held_out_errors(network: Any) -> dict[str, float]:
        """Losses with the same noise for every network: their differences are those of the squared score error."""
        with torch.no_grad():
            mean_field, unbiased = (
                objective(network, process, held_out.theta, t=t, generator=torch.Generator().manual_seed(3))
                for objective in (mean_field_score_matching, transition_score_matching)
            )
        weight = torch.expm1(process.clock(t)) / (process.clock(t) - process.clock((t - 0.01).clamp(min=0)))
        return {
            "mean_field": float(mean_field.error[:, 0].mean()),
            "transition": float((weight * (unbiased.error - unbiased.baseline)[:, 0]).mean()),
        }

    arms = args.arms or list(ARMS)
    before = known().get("learning", {}).get("runs", [])
    rows: dict[str, Any] = {
        "floor": frechet_texture_distance(real.theta, yardstick.theta, features),
        "scale": SCALE,
        "steps": args.steps,
        "runs": [run for run in before if run["arm"] not in arms or run["seed"] >= args.seeds],
    }
    for seed in range(args.seeds):
        for arm in arms:
            if seed and "1000" in arm:
                continue  # long, and one is enough to see the point
            watch = Watch(held_out_errors)
            trained, calibration = train(arm, seed, args.steps, process, data, watch)
            model = Model(trained, process, SHAPE, GreyLevels(SCALE), calibration, {"arm": arm, "seed": seed})
            checkpoints.save(network_file(args.weights, arm, seed), model)
            run: dict[str, Any] = {"arm": arm, "seed": seed, "curve": watch.points, "ftd": {}, "shares": {}}
            for steps in args.budgets:
                theta = sample(
                    trained, process, (512, *SHAPE), steps=steps, calibration=calibration,
                    generator=torch.Generator().manual_seed(seed), progress=False,
                )  # fmt: skip
                run["ftd"][steps] = round(frechet_texture_distance(theta, yardstick.theta, features), 3)
                run["shares"][steps] = [round(x, 3) for x in class_shares(theta, yardstick, features).tolist()]
            rows["runs"].append(run)
            save("learning", rows)
            print(
                f"{arm}, seed {seed}: {watch.points[-1][1]:.0f} s, held-out {watch.points[-1][2]:.4f} (mean field) "
                f"{watch.points[-1][3]:.4f} (unbiased), FTD {run['ftd']}, shares {run['shares']}",
                flush=True,
            )
    return rows


def network_file(folder: Path, arm: str, seed: int) -> Path:
    return folder / f"{''.join(c if c.isalnum() else '-' for c in arm)}-{seed}.safetensors"


def judge(args: argparse.Namespace) -> dict[str, Any]:
    r"""By how many nats the networks of learning are further from the true score than that of mean-field matching.

    The error of a score, weighted by dV / 2 and summed over pixels, bounds the divergence of the samples from the data.
    Regression on transitions measures it but for a constant, which is the same for all networks and hence not in their
    differences, pair by pair on the same states; no closure has a part in it.  Regression on mean-field scores, beside
    it, has to give the same differences, with less noise.
    """
    process, batch, rows = KuramotoProcess.for_shape(SHAPE), 512, {}
    data = textures(16, "train", n=args.judges, seed=77, scale=SCALE, without=(8192, 1)).theta
    generator = torch.Generator().manual_seed(11)
    for seed in range(args.seeds):
        files = {arm: network_file(args.weights, arm, seed) for arm in ARMS}
        networks = {arm: checkpoints.load(path).network.eval() for arm, path in files.items() if path.exists()}
        if "mean_field" not in networks:
            continue
        sums: dict[str, dict[str, list[Tensor]]] = {arm: {"transition": [], "mean field": []} for arm in networks}
        for theta0 in data.split(batch):
            u = random_times(len(theta0), generator)
            t = early_times(u)
            theta, last = transition(process, theta0, t, 100, generator, finer=2)
            targets = {"transition": last, "mean field": mean_field_score(process, theta0, theta, t)}
            weight = process.diffusion.at(t) * 2 * u  # dV / 2 = D dt, and t = u^2
            with torch.no_grad():
                scores = {arm: network(theta, t) for arm, network in networks.items()}
            first = scores["mean_field"]
            for arm, score in scores.items():
                for name, target in targets.items():
                    excess = (score - first) * (score + first - 2 * target)
                    sums[arm][name].append(weight * excess.flatten(1).sum(1))
        for arm in networks:
            if arm == "mean_field":
                continue
            row = {}
            for name, parts in sums[arm].items():
                excess = torch.cat(parts)
                row[name] = [round(float(excess.mean()), 3), round(float(excess.std()) / len(excess) ** 0.5, 3)]
            rows.setdefault(arm, {})[str(seed)] = row
            print(f"{arm}, seed {seed}, nats per image more than mean_field: {row}", flush=True)
    return {"images": args.judges, "excess": rows}


@dataclass(frozen=True, eq=False)
class SharedNoise(KuramotoProcess):
    r"""The same drift, but every step's kicks share a part: covariance v (I + (c/N) 1 1^T) in place of v I.

    The mean of all N phases diffuses 1 + c times as fast, and every single one 1 + c/N times.
    """

    c: float = 0.0

    def along_mean(self, x: Tensor, power: float) -> Tensor:
        """(I + (c/N) 1 1^T)^power x."""
        return x + ((1 + self.c) ** power - 1) * x.flatten(1).mean(1)[:, None, None, None]

    def advance_heun(self, theta: Tensor, noise: Tensor, t0: Any, t1: Any) -> Tensor:
        return super().advance_heun(theta, self.along_mean(noise, 0.5), t0, t1)

    def score(self, network: Any, theta: Tensor, t: Tensor) -> Tensor:
        """The network's distance from equilibrium, and that; along the mean more noise has a weaker score."""
        equilibrium = self.equilibrium_score(theta, t)
        return network(theta, t) - equilibrium + self.along_mean(equilibrium, -1.0)


def shared_noise(args: argparse.Namespace) -> dict[str, Any]:
    """Whether noise shared by all pixels makes the common direction easier to learn: transitions, flow and Euler.

    The score of a transition has a closed form also here (on the line; the standard deviation of a step is 0.5 at
    most), and the weight of its error is that of the likelihood, v e^T (I + (c/N) 1 1^T) e.  No Gibbs law is
    stationary: samples start from simulated states.
    """
    base, data, (_, real, yardstick), features = small_problem()
    rows: dict[str, Any] = {"floor": round(frechet_texture_distance(real.theta, yardstick.theta, features), 3)}
    rows |= {"steps": args.steps, "runs": []}
    for seed, c in itertools.product(range(args.seeds), (0.0, 15.0, 255.0)):
        rates = base.coupling_strength, base.reference_strength, base.diffusion
        process = SharedNoise(GlobalCoupling(), *rates, c=c)
        torch.manual_seed(seed)
        network: Any = PeriodicUNet(1, base, width=16, multipliers=(1, 2, 2), attention=(2,))
        average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.998))
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.0)
        for step in range(args.steps):
            theta0 = data.theta[torch.randint(len(data), (EVALUATIONS,))]
            t = random_times(EVALUATIONS)
            before = (t - 0.01).clamp(min=0)
            theta = process.simulate(theta0, before, 50, method="heun")
            variance = (process.clock(t) - process.clock(before))[:, None, None, None]
            noise = torch.randn_like(theta)
            theta = theta + process.step_drift(theta, before, t) + variance.sqrt() * process.along_mean(noise, 0.5)
            error = variance.sqrt() * process.score(network, theta, t) + process.along_mean(noise, -0.5)
            loss = (error * process.along_mean(error, 1.0)).mean()
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * min(1.0, (step + 1) / 100)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            average.update_parameters(network)
        run: dict[str, Any] = {"seed": seed, "c": c}
        for method in ("flow", "euler"):
            torch.manual_seed(seed)
            theta = process.simulate(real.theta, 1.0, 100, method="heun")
            theta = reverse(average.eval(), process, theta, 100 if method == "euler" else 50, method == "euler")
            run[method] = {
                "ftd": round(frechet_texture_distance(theta, yardstick.theta, features), 3),
                "shares": [round(x, 3) for x in class_shares(theta, yardstick, features).tolist()],
            }
        rows["runs"].append(run)
        save("shared_noise", rows)
        print(f"c = {c:3.0f}, seed {seed}: {run}", flush=True)
    return rows


@torch.no_grad()
def reverse(network: Any, process: SharedNoise, theta: Tensor, steps: int, noisy: bool) -> Tensor:
    """Back from t = 1 by Euler steps of the reverse SDE, or by steps of Heun's method of the probability flow."""
    times = [k / steps for k in range(steps, 0, -1)]

    def move(theta: Tensor, t: float, t0: float, t1: float) -> Tensor:
        share = 1.0 if noisy else 0.5
        variance = process.clock(t0) - process.clock(t1)
        score = process.score(network, theta, torch.full((len(theta),), t))
        return share * variance * process.along_mean(score, 1.0) - process.step_drift(theta, t1, t0)

    for t in times:
        end = max(t - 1 / steps, 0.0)
        step = move(theta, t, t, end)
        if noisy:
            variance = process.clock(t) - process.clock(end)
            theta = theta + step + variance**0.5 * process.along_mean(torch.randn_like(theta), 0.5)
        elif end > 0.02:
            theta = theta + 0.5 * (step + move(theta + step, end, t, end))
        else:  # where the score is steep and the network is not asked
            theta = theta + step
    return wrap(theta)


PARTS = {part.__name__: part for part in (moments, orthogonality, variance, cost, learning, judge, shared_noise)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help="of " + ", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=8, help="of simulations, for smaller errors")
    parser.add_argument("--steps", type=int, default=2500, help="of each training")
    parser.add_argument("--seeds", type=int, default=3, help="of each training; the book has two of shared_noise")
    parser.add_argument("--budgets", type=int, nargs="+", default=[25, 100, 1000], help="steps of sampling")
    parser.add_argument("--weights", type=Path, default=Path("_build/objectives"), help="folder of trained networks")
    parser.add_argument("--judges", type=int, default=16384, help="images to judge them by")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), help="what to learn from; by default all")
    args = parser.parse_args()
    for part in args.parts:
        save(part, PARTS[part](args))


def known() -> dict[str, Any]:
    """The results of before."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def save(part: str, result: dict[str, Any]) -> None:
    RESULTS.write_text(json.dumps({**known(), part: result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
