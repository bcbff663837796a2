"""What happens to a training when processes are killed, bits flip, disks fill up, and files are not what they seem?

    python benchmarks/faults.py

counts for each kind of fault how often it was tried and how it ended: with the same bits as without the fault, with an
error that says what is wrong, or badly, which is anything else: other numbers, a bare error, a file lost.  Prints a
table and writes benchmarks/results/faults.json, from which the book makes a page.  POSIX only, for it forks.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import pickle
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import kodm_lite
from kodm_lite import KuramotoProcess, checkpoints
from kodm_lite.encoding import Angles
from kodm_lite.networks import PeriodicMLP
from kodm_lite.training import TrainingOptions, fit, read_log

STATE, MODEL, LOG = "state.safetensors", "model.safetensors", "log.jsonl"
RESULTS = Path(__file__).parent / "results" / "faults.json"
ENDINGS = SAME, CLEAR, BAD = "same", "clear error", "bad"
WAIT = 120  # seconds after which a process counts as one that hangs

PROCESS = KuramotoProcess()


def train(folder: Path, steps: int = 20, callback: Any = None) -> None:
    """The small training that everything happens to."""
    torch.manual_seed(0)
    network = PeriodicMLP(2, PROCESS, width=4, depth=1)
    options = TrainingOptions(steps=steps, batch_size=4, warmup=2, log_every=2, save_every=4, validate_every=0)
    theta = torch.linspace(-3, 3, 16).reshape(8, 2)
    fit(network, PROCESS, theta, options, encoding=Angles(), out=folder, progress=False, callback=callback)


def result(folder: Path) -> Any:
    """Bits of the weights, and the log but for its speed."""
    weights = checkpoints.load(folder / MODEL).network.state_dict()
    lines = [{name: x for name, x in line.items() if name != "images_per_second"} for line in read_log(folder)]
    return {name: x.numpy().tobytes() for name, x in weights.items()}, lines


def ending(work: Callable[[], Any], expected: Any) -> str:
    """How some work ends: with what is expected, with an error of the house, or badly."""
    try:
        return SAME if work() == expected else BAD
    except (ValueError, OSError, FloatingPointError) as error:
        says = str(error)
        return (
            CLEAR if any(word in says for word in ("try ", "expected", "cannot be written", "cannot be read")) else BAD
        )
    except Exception:
        return BAD


def forked(work: Callable[[], None]) -> int:
    """Do something in another process; returns its number."""
    if (process := os.fork()) == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return process


def ended(process: int, within: float = WAIT) -> bool:
    """Whether a process ends in time; it is killed if not."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if os.waitpid(process, os.WNOHANG)[0]:
            return True
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return False


def kills(n: int, seconds: float, expected: Any, folder: Path) -> Iterator[str]:
    """SIGKILL at random moments; then the same training again, which must end with the bits of one left alone."""
    for k in range(n):
        out = folder / f"kill-{k}"
        ended(forked(lambda out=out: train(out)), random.uniform(0, seconds))

        def again(out: Path = out) -> Any:
            train(out)
            parts = [path.name for path in out.iterdir() if path.name not in (STATE, MODEL, LOG)]
            return parts or result(out)

        yield ending(again, expected)


def flips(path: Path, places: list[int], work: Callable[[], Any], expected: Any) -> Iterator[str]:
    """One bit of a file after the other."""
    content = path.read_bytes()
    for place in places:
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        yield ending(work, expected)
    path.write_bytes(content)


def bits(first: int, last: int, n: int | None) -> list[int]:
    """Places of bits in a range of bytes: all, or n of them."""
    every = range(8 * first, 8 * last)
    return list(every) if n is None or n >= len(every) else random.sample(every, n)


def resumed(path: Path) -> Any:
    """What a training would go on from."""
    from kodm_lite.training import run

    found: dict[str, Any] = {}
    real = run.read_state

    def spy(path: Path, tensors: dict[str, Any], run: dict[str, Any]) -> Any:
        header = real(path, tensors, run)
        found.update({name: x.numpy().tobytes() for name, x in tensors.items()}, header=header)
        raise InterruptedError

    with mock.patch.object(run, "read_state", spy):
        try:
            train(path.parent)
        except InterruptedError:
            pass
    return found


def hostile_models(n: int, good: bytes, folder: Path) -> Iterator[str]:
    """Files that are no model: pickles that would run something, random bytes, cut and shuffled models."""
    path, alarm = folder / "hostile.safetensors", folder / "executed"

    class Alarm:
        def __reduce__(self) -> Any:
            return Path.touch, (alarm,)

    for k in range(n):
        content = bytearray(good)
        if k % 4 == 0:
            content = bytearray(pickle.dumps(Alarm()) + random.randbytes(k))
        elif k % 4 == 1:
            content = bytearray(random.randbytes(k * 7))
        elif k % 4 == 2:
            del content[random.randrange(len(content)) :]
        else:
            start = random.randrange(len(content) - 8)
            content[start : start + 8] = random.randbytes(8)
        path.write_bytes(content)
        found = ending(lambda: bool(checkpoints.load(path)) and "a model", "no model")
        yield BAD if alarm.exists() else found


def full_disks(n: int, expected: Any, folder: Path) -> Iterator[str]:
    """No room left at the k-th time that something is written; then there is room again."""
    real = os.fsync
    for k in range(n):
        out, calls = folder / f"full-{k}", iter(range(10**6))

        def full(descriptor: int, k: int = k, calls: Iterator[int] = calls) -> None:
            if next(calls) == k:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(descriptor)

        with mock.patch.object(os, "fsync", full):
            first = ending(lambda out=out: train(out), None)
        yield BAD if first == BAD else ending(lambda out=out: (train(out), result(out))[1], expected)


def odd_files(finished: Path, folder: Path) -> Iterator[str]:
    """Pipes, folders and devices in place of each file of a training, and a file in place of its folder."""
    for name in (STATE, MODEL, LOG, "training.lock"):
        for k, make in enumerate((os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path))):
            out = folder / f"odd-{name}-{k}"
            shutil.copytree(finished, out)
            (out / name).unlink(missing_ok=True)
            make(out / name)
            process = forked(lambda out=out: os._exit(ENDINGS.index(resumed_ending(out, finished))))
            end = time.monotonic() + WAIT
            while not (status := os.waitpid(process, os.WNOHANG))[0] and time.monotonic() < end:
                time.sleep(0.01)
            if not status[0]:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
            yield ENDINGS[os.waitstatus_to_exitcode(status[1])] if status[0] else BAD
    (folder / "file").write_text("")
    yield ending(lambda: train(folder / "file"), "an error")
    yield ending(lambda: train(folder / "file" / "below"), "an error")


def resumed_ending(out: Path, finished: Path) -> str:
    return ending(lambda: (train(out), result(out)[0])[1], result(finished)[0])


def links(expected: Any, folder: Path) -> Iterator[str]:
    """Links to a file of somebody else under the names that a training writes."""
    victim = folder / "victim"
    for name in (STATE, MODEL, LOG, "training.lock", f"{STATE}.part", f"{MODEL}.part", f"{LOG}.part"):
        out = folder / f"link-{name}"
        out.mkdir()
        victim.write_bytes(b"precious")
        (out / name).symlink_to(victim)
        found = ending(lambda out=out: (train(out), result(out))[1], expected)
        yield found if victim.read_bytes() == b"precious" else BAD


def folders_that_vanish(n: int, expected: Any, folder: Path) -> Iterator[str]:
    """The folder is deleted while the training runs; the weights come again, lines of the log need not."""
    for k in range(n):
        out = folder / f"gone-{k}"

        def vanish(line: dict[str, Any], network: Any, out: Path = out, step: int = 2 + 2 * k) -> None:
            if line["step"] == step:
                shutil.rmtree(out)

        first = ending(lambda out=out, vanish=vanish: train(out, callback=vanish), None)
        yield BAD if first == BAD else ending(lambda out=out: (train(out), result(out)[0])[1], expected[0])


def read_only(n: int, folder: Path) -> Iterator[str]:
    """Nothing may be made in the folder (the system's answer, for the administrator may write everywhere)."""
    real = os.open
    for k in range(n):
        out, calls = folder / f"read-only-{k}", iter(range(10**6))

        def denied(path: Any, flags: int, *rest: Any, k: int = k, calls: Any = calls, **others: Any) -> int:
            if flags & os.O_CREAT and next(calls) >= k:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return real(path, flags, *rest, **others)

        with mock.patch.object(os, "open", denied):
            yield ending(lambda out=out: train(out), "an error")


def two_trainings(n: int, expected: Any, folder: Path) -> Iterator[str]:
    """A second training in the folder of one that runs is refused, and the first one does not notice."""
    for k in range(n):
        out, found = folder / f"two-{k}", []

        def second(line: dict[str, Any], network: Any, out: Path = out, found: list[str] = found) -> None:
            if not found:
                found.append(ending(lambda: train(out), "an error"))

        first = ending(lambda out=out, second=second: (train(out, callback=second), result(out))[1], expected)
        yield found[0] if first == SAME else BAD


def experiments(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Iterator[str]]]:
    """Name of a fault, and how each trial of it ends."""
    finished = folder / "finished"
    train(finished)
    start = time.monotonic()
    train(folder / "timed")
    seconds, expected = time.monotonic() - start, result(finished)
    yield "killed at a random moment", kills(args.kills, seconds, expected, folder)
    state, model, header = (
        finished / STATE,
        finished / MODEL,
        8 + int.from_bytes((finished / STATE).read_bytes()[:8], "little"),
    )
    going_on = resumed(state)
    size = state.stat().st_size
    for what, places in {
        "one bit of the state's header": bits(0, header, args.flips),
        "one bit of the state's tensors": bits(header, size, args.flips),
    }.items():
        yield what, flips(state, places, lambda: resumed(state), going_on)
    log = finished / LOG

    def with_log() -> Any:
        train(finished)
        return result(finished)[0]

    yield "one bit of the log", flips(log, bits(0, log.stat().st_size, args.flips), with_log, expected[0])
    model_bits = bits(0, model.stat().st_size, 10 * args.flips)
    yield "one bit of the model", flips(model, model_bits, lambda: result(finished), expected)
    yield "a hostile model", hostile_models(10 * args.flips, model.read_bytes(), folder)
    yield "a full disk", full_disks(args.others, expected, folder)
    yield "a read-only folder", read_only(min(args.others, 8), folder)
    yield "a folder deleted", folders_that_vanish(min(args.others, 9), expected, folder)
    yield "a pipe, folder or device for a file", odd_files(finished, folder)
    yield "a link to another file", links(expected, folder)
    yield "two trainings in one folder", two_trainings(args.others, expected, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--flips", type=int, default=100, help="bits of each part; ten times as many of a model")
    parser.add_argument("--others", type=int, default=12, help="trials of the other faults")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where to write JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(0)
    rows = []
    print(f"{'fault':38s}{'tried':>8s}{SAME:>8s}{CLEAR:>14s}{BAD:>6s}")
    with tempfile.TemporaryDirectory() as folder:
        for name, trials in experiments(args, Path(folder)):
            counts = Counter(trials)
            rows.append({"fault": name, "tried": counts.total(), **{key: counts[key] for key in (SAME, CLEAR, BAD)}})
            print(f"{name:38s}{counts.total():8d}{counts[SAME]:8d}{counts[CLEAR]:14d}{counts[BAD]:6d}", flush=True)
    content = {"kodm_lite": kodm_lite.__version__, "torch": torch.__version__, "rows": rows}
    args.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
