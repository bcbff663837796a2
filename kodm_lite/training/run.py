"""What happens when in a training: steps, looks at numbers, lines of the log, pictures, saves.  Book: chapter 8."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from kodm_lite import checkpoints
from kodm_lite.data.arrays import PhaseSource
from kodm_lite.kinds import Process
from kodm_lite.losses import Objective
from kodm_lite.model import Model, describe
from kodm_lite.registry import processes
from kodm_lite.training.batches import Batches
from kodm_lite.training.interruption import signals_noted
from kodm_lite.training.learner import Learner
from kodm_lite.training.options import TrainingOptions
from kodm_lite.training.state import (
    COLUMNS,
    Log,
    Statistics,
    fingerprint,
    plain,
    read_state,
    refuse_non_finite,
    table,
    write_state,
)
from kodm_lite.version import __version__

__all__ = ["Training"]

Callback = Callable[[dict[str, Any], nn.Module], None]

PICTURES, PICTURE_STEPS = 16, 25  # of samples during the training
FIRST_PICTURE = 50  # step: soon enough to see that something goes wrong
SAVE_SECONDS = 120.0  # a crash loses no more than this
ESTIMATE = 20  # steps that tell how long all of them will take
CALIBRATED = 256  # examples


class Training:
    """A training between two steps: what has been learnt and counted so far, and where it is written."""

    def __init__(  # all of what fit() has checked
        self,
        network: nn.Module,
        process: Process,
        objective: Objective,
        train: PhaseSource,
        held_out: PhaseSource | None,
        options: TrainingOptions,
        folder: Path | None,
        facts: dict[str, Any],
        callback: Callback | None,
    ):
        self.accelerator = accelerator(options.precision)
        self.device, processes = self.accelerator.device, self.accelerator.num_processes
        self.options = options = options.for_processes(processes)
        self.own_shards = range(options.shards)[self.accelerator.process_index :: processes]
        self.process, self.objective, self.data, self.folder = process, objective, train, folder
        self.facts, self.callback = facts, callback
        self.learner = Learner(network, process, objective, options, self.accelerator)
        self.batches = Batches(train, options, self.device)
        self.held_out = None if held_out is None else Batches(held_out, options, self.device)
        self.step = 0
        self.pending: list[tuple[Tensor, Tensor]] = []  # what the steps since the last look returned
        self.statistics, self.loss = Statistics(), math.nan
        self.validations: list[dict[str, Any]] = []
        self.minutes_before, self.started = 0.0, time.monotonic()
        self.last_line = self.step, self.started
        self.last_save = self.started
        self.log_file: Log | None = None
        self.lines = False  # of progress, where no bar can be shown
        self.identity = {} if folder is None else self._identity(network)

    def _identity(self, network: nn.Module) -> dict[str, Any]:
        """What must be the same for a training to go on.

        Raises:
            ValueError: a network, process or objective that cannot be described, and so not be stored.
        """
        return {
            "network": describe(network),
            "process": self.process.to_dict(),
            "objective": description(self.objective),
            "data": fingerprint(self.data),
            "options": asdict(self.options),
            "start": {"weights": self.facts.get("start")},
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

    def to_the_end(self, progress: bool) -> bool:
        """Take the steps that are left; returns whether a signal stopped them."""
        stop = False
        with self._progress_bar(progress) as bar, signals_noted(self.folder is not None) as noted:
            while self.step < self.options.steps and not stop:
                self.take_step()
                if self.looks_every_step:
                    self.look()
                stop = self.stops(bool(noted))
                if self.due(self.options.log_every):
                    self.log()
                if self.due(self.options.validate_every):
                    self.validate()
                if self.due(self.options.sample_every) or (self.options.sample_every and self.step == FIRST_PICTURE):
                    self.draw()
                if stop or self.due(self.options.save_every) or self.step == self.options.steps or self._save_is_late():
                    self.save()
                bar.set_postfix({"step": self.step, "loss": f"{self.loss:.4g}"}, refresh=False)
                bar.update(self.options.batch_size)
        return stop or bool(noted)

    def _progress_bar(self, shown: bool) -> tqdm[Any]:
        """A bar in a terminal or a notebook; elsewhere lines, see :meth:`log`."""
        shown = shown and self.is_main
        has_bar = sys.stderr.isatty() or _in_notebook()
        self.lines = shown and not has_bar
        total, done = (steps * self.options.batch_size for steps in (self.options.steps, self.step))
        return tqdm(total=total, initial=done, unit="img", unit_scale=True, disable=not (shown and has_bar))

    def _save_is_late(self) -> bool:
        """Of several processes each has its own clock, and all have to save together: there only steps count."""
        late = time.monotonic() - self.last_save > SAVE_SECONDS
        return late and self.options.save_every > 0 and self.accelerator.num_processes == 1 and self.folder is not None

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
            self.log_file = Log(self.folder, self.step)

    def _has_model(self) -> bool:
        """Whether the model's file is there and whole; if not, the state has all that it takes to write it again."""
        assert self.folder is not None
        try:
            checkpoints.load(self.folder / checkpoints.MODEL_FILE, network=_own_class(self.learner.average))
        except (OSError, ValueError):
            return False
        return True

    def take_step(self) -> None:
        shards = [self.batches.shard(self.step, shard) for shard in self.own_shards]
        self.pending.append(self.learner.update(self.step, shards))
        self.step += 1
        if self.lines and self.step == ESTIMATE < self.options.steps:
            seconds = (time.monotonic() - self.started) / ESTIMATE
            print(f"{seconds:.2g} s a step, {seconds * self.options.steps / 60:.2g} minutes for all", file=sys.stderr)

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
        if self.lines:
            speed = line["images_per_second"]
            print(f"step {self.step} of {self.options.steps}, loss {self.loss:.4g}, {speed} img/s", file=sys.stderr)

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

        theta = self._model().sample(PICTURES, steps=PICTURE_STEPS, chunk=None)
        write_grid(self.folder / "samples" / f"step_{self.step:06d}.png", theta, self.data.encoding)

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
        model = self._model()
        checkpoints.save(self.folder / checkpoints.MODEL_FILE, model)
        if self.options.keep_models:
            checkpoints.save(self.folder / "models" / f"step_{self.step:06d}.safetensors", model)
        header = {"run": self.identity, **{key: model.card[key] for key in ("step", "minutes", "validations")}}
        write_state(self.folder / "state.safetensors", tensors, header)
        self.last_save = time.monotonic()

    def calibrate(self, progress: bool) -> None:
        """Complete the model's file with what its samplers need to know of the network, if it is not there yet."""
        measure = processes[self.process.kind].calibrate if self.process.kind in processes else None
        if self.folder is None or not self.is_main or measure is None:
            return
        path, network = self.folder / checkpoints.MODEL_FILE, self.learner.average
        model = checkpoints.load(path, network=_own_class(network))
        if model.calibration is None:
            examples = self.data.take(torch.arange(min(CALIBRATED, self.data.shape[0]))).to(self.device)
            options = {"seed": self.options.seed, "chunk": self.options.batch_size, "progress": progress}
            found = measure(network, self.process, examples, **options)
            checkpoints.save(path, model._replace(calibration=found))

    def _model(self) -> Model:
        shape = self.data.shape[1:]
        return Model(self.learner.average, self.process, shape, self.data.encoding, None, self._card())

    def _tensors(self) -> dict[str, Tensor]:
        return {**self.learner.tensors(), "statistics": torch.from_numpy(self.statistics.sums)}

    def _card(self) -> dict[str, Any]:
        device = self.device
        classes = getattr(self.learner.average, "config", {}).get("classes")
        return {
            "licence": getattr(self.data, "licence", "not stated"),
            "classes": list(self.data.names) if classes else [],
            **self.facts,
            "data": self.data.source,
            "images": self.data.shape[0],
            "step": self.step,
            "minutes": self.minutes_before + (time.monotonic() - self.started) / 60,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "processes": self.accelerator.num_processes,
            "versions": {"kodm_lite": __version__, "torch": torch.__version__, "numpy": np.__version__},
            "validations": self.validations,
            "options": asdict(self.options),
            "objective": description(self.objective),
        }

    def _write(self, line: dict[str, Any]) -> None:
        if self.log_file is not None:
            self.log_file.write(line)
        if self.callback is not None and self.is_main:
            self.callback(line, self.learner.average)


def description(objective: Objective) -> dict[str, Any]:
    """Name and fields of an objective.

    Raises:
        ValueError: it is no dataclass, so that nobody could tell later what was minimised.
    """
    if not is_dataclass(objective) or isinstance(objective, type):
        raise ValueError(f"objective: got {objective!r}, expected an instance of a dataclass; try MeanField()")
    return {"kind": type(objective).__name__, **asdict(objective)}


def _own_class(network: nn.Module) -> type[nn.Module] | None:
    """The class of a network that is none of the package: here it is known, and may be loaded."""
    return type(network) if ":" in describe(network)["kind"] else None


def _in_notebook() -> bool:
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")


def accelerator(precision: str) -> Any:
    """What knows the device, the other processes and the precision of a training."""
    from accelerate import Accelerator  # type: ignore[import-untyped]  # here, because it takes a second
    from accelerate.state import AcceleratorState  # type: ignore[import-untyped]

    AcceleratorState._reset_state()  # a second training in this Python may have another precision
    return Accelerator(
        mixed_precision="no" if precision == "float32" else precision,
        cpu=not torch.cuda.is_available(),  # else the processes of torchrun would not find each other
    )
