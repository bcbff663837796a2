"""Training a score network: a loop that can be stopped anywhere and goes on from there.

``kodm_lite.training.step`` computes one step, ``kodm_lite.training.state`` writes files; here is what happens when.  On
the CPU a training that was killed and went on ends with the same bits as one that was not, given the same number of
threads.  The loop is built on the package accelerate: started by ``torchrun`` or ``accelerate launch``, several
processes share every batch.  Chapter 8 of the book trains with it.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from kodm_lite import checkpoints
from kodm_lite.data.phase_data import PhaseData
from kodm_lite.generation import draw
from kodm_lite.mean_field import mean_field_law
from kodm_lite.process import KuramotoProcess
from kodm_lite.training.state import (
    COLUMNS,
    Log,
    Statistics,
    fingerprint,
    plain,
    read_log,
    read_state,
    refuse_non_finite,
    summary_writer,
    table,
    write_state,
)
from kodm_lite.training.step import (
    Batches,
    Examples,
    Learner,
    Process,
    TrainingOptions,
    check_examples,
    check_objective,
)

__all__ = ["TrainingInterrupted", "TrainingOptions", "fit", "read_log"]

Network = TypeVar("Network", bound=nn.Module)
Callback = Callable[[dict[str, Any], nn.Module], None]

PICTURES, PICTURE_STEPS = 16, 25  # of samples during the training


class TrainingInterrupted(KeyboardInterrupt):
    """A training was asked to stop, and did so between two steps with its state saved."""


def fit(
    network: Network,
    process: Process,
    data: Tensor | PhaseData,
    options: TrainingOptions | None = None,
    *,
    validation: Tensor | PhaseData | None = None,
    out: str | PathLike[str] | None = None,
    resume: bool = True,
    facts: dict[str, Any] | None = None,
    progress: bool = True,
    callback: Callback | None = None,
) -> Network:
    """Train a network, on the GPU if there is one (never if ACCELERATE_USE_CPU=1 is set).

    With ``out``, SIGINT (Ctrl-C) and SIGTERM let the step finish and save the state before they stop the training, and
    the same call goes on from there; a second Ctrl-C stops at once.

    Args:
        network: where to start; it is not changed.  If it has classes, they are those of the data's labels.
        process: the network's forward process.
        data: phases (n, C, H, W) or (n, N), radians; for a diffusion on the sphere coefficients (n, L^2).
        options: how to train; ``TrainingOptions()`` by default.
        validation: held-out data, on which the average network is measured, always with the same times and noise.
        out: folder for the state, the model, the log and pictures, see :mod:`kodm_lite.training.state`; None keeps
            nothing.
        resume: go on from the state in ``out`` if there is one; False starts anew and replaces what is there.
        facts: what else the cards of saved models tell, JSON, for instance "licence".  "start", where the weights come
            from, must be the same to go on.
        progress: show a progress bar.
        callback: called as ``callback(line, network)`` after every line of the log, with the line and the average
            network, to look at and not to change.

    Returns:
        A network of the same class with the running average of the weights, in evaluation mode and on the device of
        ``network``.

    Raises:
        ValueError: data that are no phases or do not fit the network, options that do not fit the data or the
            processes, a state in ``out`` of another run; all before any work.
        FloatingPointError: a loss, gradient or weight became NaN or infinite; names it and the step.
        OSError: ``out`` cannot be written; what was saved is kept.
        TrainingInterrupted: after a signal, with the state saved.

    Book: chapter 8.
    """
    options, folder = options or TrainingOptions(), None if out is None else Path(out)
    check_objective(options, process)
    train = check_examples("data", data, network, process)
    held_out = None if validation is None else check_examples("validation", validation, network, process)
    if options.sample_every and (folder is None or train.theta.ndim != 4 or train.theta.shape[1] not in (1, 3)):
        raise ValueError(
            "sample_every: got pictures to draw, expected a folder for them, and data that are images, grey or in "
            "colours; try sample_every=0"
        )
    if isinstance(process, KuramotoProcess) and options.objective == "mean_field":
        mean_field_law(process, train.theta[:1], torch.ones(1))  # refuses fields that are too strong for it
    if options.tensorboard:
        summary_writer()  # is there one?
    run = _Run(network, process, train, held_out, options, folder, facts or {}, callback)
    run.start(resume)
    stop = False
    with run.progress_bar(progress) as bar, _signals_noted(folder is not None) as noted:
        while run.step < options.steps and not stop:
            run.take_step()
            if run.looks_every_step:
                run.look()
            stop = run.stops(bool(noted))
            if run.due(options.log_every):
                run.log()
            if run.due(options.validate_every):
                run.validate()
            if run.due(options.sample_every):
                run.draw()
            if stop or run.step == options.steps or run.due(options.save_every):
                run.save()
            bar.set_postfix({"step": run.step, "loss": f"{run.loss:.4g}"}, refresh=False)
            bar.update(options.batch_size)
    run.accelerator.wait_for_everyone()  # when a process returns, the files are there
    if stop or noted:
        raise TrainingInterrupted(
            f"stopped after step {run.step}, state saved in {folder}; the same command goes on from there"
        )
    return cast(Network, run.learner.average.to(next(network.parameters()).device))


class _Run:
    """A training between two steps: what has been learnt and counted so far, and where it is written."""

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        train: Examples,
        held_out: Examples | None,
        options: TrainingOptions,
        folder: Path | None,
        facts: dict[str, Any],
        callback: Callback | None,
    ):
        self.accelerator = accelerator(options.precision)
        self.device, processes = self.accelerator.device, self.accelerator.num_processes
        self.options = options = options.for_processes(processes)
        self.own_shards = range(options.shards)[self.accelerator.process_index :: processes]
        self.process, self.data, self.folder, self.facts, self.callback = process, train, folder, facts, callback
        self.learner = Learner(network, process, options, self.accelerator, train)
        self.batches = Batches(train, options, self.device)
        self.held_out = held_out and Batches(held_out, options, self.device)
        self.step = 0
        self.pending: list[tuple[Tensor, Tensor]] = []  # what the steps since the last look returned
        self.statistics, self.loss = Statistics(), math.nan
        self.validations: list[dict[str, Any]] = []
        self.minutes_before, self.started = 0.0, time.monotonic()
        self.last_line = self.step, self.started
        self.log_file: Log | None = None
        self.identity = {
            "network": {"kind": type(network).__name__, **getattr(network, "config", {})},
            "process": process.to_dict(),
            "data": fingerprint(train.theta, train.labels) if folder else {},
            "options": asdict(options),
            "start": {"weights": facts.get("start")},
        }

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.accelerator.is_main_process)

    @property
    def looks_every_step(self) -> bool:
        """Not on a GPU, where to look at a number is to wait for it."""
        return bool(self.device.type == "cpu")

    def due(self, every: int) -> bool:
        """Whether it is time for something, as it is after the last step; 0 stands for never."""
        return every > 0 and (self.step % every == 0 or self.step == self.options.steps)

    def progress_bar(self, shown: bool) -> tqdm[Any]:
        total, done = (steps * self.options.batch_size for steps in (self.options.steps, self.step))
        return tqdm(total=total, initial=done, unit="img", unit_scale=True, disable=not (shown and self.is_main))

    def start(self, resume: bool) -> None:
        """Go on from the state on disk, or write a first one: what cannot be written fails before any work."""
        if self.folder is None:
            return
        path = self.folder / "state.safetensors"
        if found := resume and path.exists():
            header = read_state(path, self._tensors(), self.identity)
            self.step, self.validations, self.minutes_before = (header[k] for k in ("step", "validations", "minutes"))
            self.last_line = self.step, self.started
        self.accelerator.wait_for_everyone()  # until all have read
        if not found or (self.is_main and not self._has_model()):
            self.save()
        if self.is_main:
            self.log_file = Log(self.folder, self.step, self.options.tensorboard)

    def _has_model(self) -> bool:
        """Whether the model's file is there and whole; if not, the state has all that it takes to write it again."""
        assert self.folder is not None
        try:
            checkpoints.load(self.folder / checkpoints.MODEL_FILE)
        except (OSError, ValueError):
            return False
        return True

    def take_step(self) -> None:
        shards = [self.batches.shard(self.step, shard) for shard in self.own_shards]
        self.pending.append(self.learner.update(self.step, shards))
        self.step += 1

    def look(self) -> None:
        """Fetch the numbers of the steps since the last look, and count them.

        Raises:
            FloatingPointError: one of them is NaN or infinite.
        """
        if not self.pending:
            return
        tables, norms = zip(*self.pending, strict=True)
        images = self.accelerator.gather(torch.stack(tables, 1)).cpu().numpy()
        first = self.step - len(tables) + 1
        refuse_non_finite(first, images, torch.stack(norms).cpu().numpy(), self.learner.names)
        self.statistics.add(images.reshape(-1, images.shape[-1]))
        self.loss = self.statistics.loss
        self.pending.clear()

    def stops(self, asked: bool) -> bool:
        """Whether to stop here, as all processes do if one of them was asked to."""
        if self.accelerator.num_processes == 1:
            return asked
        if not (self.looks_every_step or self.due(self.options.log_every) or self.due(self.options.save_every)):
            return False  # to agree is to wait
        return bool(self.accelerator.reduce(torch.tensor(float(asked), device=self.device)) > 0)

    def log(self) -> None:
        """Write a line about the steps since the last one."""
        self.look()
        (step, then), now = self.last_line, time.monotonic()
        self.last_line = self.step, now
        images = (self.step - step) * self.options.batch_size
        line = {
            "step": self.step,
            **self.statistics.take(),
            "learning_rate": plain(self.options.learning_rate_at(self.step - 1)),
            "images_per_second": plain(images / max(now - then, 1e-9)),
        }
        self._write(line)

    def validate(self) -> None:
        """Measure how much better than no network the average network is on the held-out data."""
        if self.held_out is None or not self.is_main:
            return
        with torch.no_grad():
            rows = torch.cat([table(self.learner.loss(self.learner.average, batch)) for batch in self.held_out.whole()])
        means = dict(zip(COLUMNS, rows.double().mean(0).tolist(), strict=True))
        loss = means["loss"]
        gains = {
            "gain": plain(means["baseline"] - means["error"]),
            "collective_gain": plain(means["collective_baseline"] - means["collective"]),
            "order_gain": plain(means["order_baseline"] - means["order"]),
        }
        self.validations.append({"step": self.step, "loss": plain(loss), **gains})
        self._write({"step": self.step, "validation": {"loss": plain(loss), **gains}})

    def draw(self) -> None:
        """Write a picture of samples of the average network, from the same seeds every time."""
        if self.folder is None or not self.is_main:
            return
        from kodm_lite.pictures.files import write_grid  # here, because it takes a second

        shape, seeds = (PICTURES, *self.data.theta.shape[1:]), range(PICTURES)
        options = {"scale": self.data.scale, "steps": PICTURE_STEPS, "seeds": seeds, "device": self.device}
        theta = draw(self.learner.average, self.process, shape, **options)
        write_grid(self.folder / "samples" / f"step_{self.step:06d}.png", theta, self.data.scale)

    def save(self) -> None:
        """Write model and state.

        Raises:
            FloatingPointError: there is NaN or infinity in them, and nothing was written.
        """
        self.look()
        tensors = self._tensors()
        for name, tensor in tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise FloatingPointError(
                    f"{name} became NaN or infinite by step {self.step}; what was saved before is kept; "
                    "try a smaller learning_rate"
                )
        if self.folder is None or not self.is_main:
            return
        card, shape = self._card(), tuple(self.data.theta.shape[1:])
        average = cast(Any, self.learner.average)
        model = checkpoints.Model(average, self.process, shape, self.data.scale, None, card)
        checkpoints.save(self.folder / checkpoints.MODEL_FILE, model)
        if self.options.keep_models:
            checkpoints.save(self.folder / "models" / f"step_{self.step:06d}.safetensors", model)
        header = {"run": self.identity, **{key: card[key] for key in ("step", "minutes", "validations")}}
        write_state(self.folder / "state.safetensors", tensors, header)

    def _tensors(self) -> dict[str, Tensor]:
        return {**self.learner.tensors(), "statistics": torch.from_numpy(self.statistics.sums)}

    def _card(self) -> dict[str, Any]:
        import kodm_lite  # here, because that module may import this one

        device = self.device
        return {
            **self.facts,
            "data": self.data.source,
            "images": len(self.data.theta),
            "step": self.step,
            "minutes": self.minutes_before + (time.monotonic() - self.started) / 60,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "processes": self.accelerator.num_processes,
            "versions": {"kodm_lite": kodm_lite.__version__, "torch": torch.__version__, "numpy": np.__version__},
            "validations": self.validations,
            "options": {**asdict(self.options), "weighting": self.options.resolved_weighting},
        }

    def _write(self, line: dict[str, Any]) -> None:
        if self.log_file is not None:
            self.log_file.write(line)
        if self.callback is not None and self.is_main:
            self.callback(line, self.learner.average)


def accelerator(precision: str) -> Any:
    """What knows the device, the other processes and the precision of a training."""
    from accelerate import Accelerator  # type: ignore[import-untyped]  # here, because it takes a second
    from accelerate.state import AcceleratorState  # type: ignore[import-untyped]

    AcceleratorState._reset_state()  # a second training in this Python may have another precision
    return Accelerator(
        mixed_precision="no" if precision == "float32" else precision,
        cpu=not torch.cuda.is_available(),  # else the processes of torchrun would not find each other
    )


@contextmanager
def _signals_noted(active: bool) -> Iterator[list[int]]:
    """Put SIGINT and SIGTERM on the list that this yields, and go on; only the second SIGINT interrupts."""
    noted: list[int] = []
    if not active or threading.current_thread() is not threading.main_thread():  # no other thread can have handlers
        yield noted
        return

    def note(number: int, frame: Any) -> None:
        if noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
