"""Training a score network, so that it can be stopped anywhere and goes on from there.

``kodm_lite.training.learner`` computes one step, ``kodm_lite.training.state`` writes files, and
``kodm_lite.training.run`` says what happens when.  On the CPU a training that was killed and went on ends with the same
bits as one that was not, given the same number of threads.  Started by ``torchrun`` or ``accelerate launch``, several
processes share every batch.
Chapter 8 of the book trains with it.
"""

from __future__ import annotations

from os import PathLike
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from kodm_lite.data.arrays import PhaseSource
from kodm_lite.encoding import Encoding
from kodm_lite.files import owned, place
from kodm_lite.kinds import Process
from kodm_lite.losses import Objective
from kodm_lite.registry import processes
from kodm_lite.training.batches import as_data, check_data
from kodm_lite.training.interruption import TrainingInterrupted
from kodm_lite.training.options import TrainingOptions
from kodm_lite.training.run import Callback, Training
from kodm_lite.validation import check_methods, told

__all__ = ["fit", "objective_of"]

Network = TypeVar("Network", bound=nn.Module)

CHECKED = 128  # examples


@torch.inference_mode(False)
@torch.enable_grad()
def fit(  # all that a training can be given; only the first three have no default
    network: Network,
    process: Process,
    data: Tensor | PhaseSource,
    options: TrainingOptions | None = None,
    *,
    objective: Objective | None = None,
    encoding: Encoding | None = None,
    validation: Tensor | PhaseSource | None = None,
    out: str | PathLike[str] | None = None,
    resume: bool = True,
    facts: dict[str, Any] | None = None,
    progress: bool = True,
    callback: Callback | None = None,
) -> Network:
    """Train a network, on the GPU if there is one (never if ACCELERATE_USE_CPU=1 is set).

    With ``out``, SIGINT (Ctrl-C), SIGTERM and SIGHUP let the step finish and save the state before they stop the
    training, and the same call goes on from there; a second Ctrl-C stops at once.

    Args:
        network: where to start; it is not changed.  Any ``torch.nn.Module`` called as ``network(x, t)``, or as
            ``network(x, t, label)`` if its ``config`` has "classes", which are those of the data's labels.
        process: the network's forward process.
        data: phases (n, C, H, W) or (n, N), radians; for a diffusion on the sphere coefficients (n, L^2).  A tensor,
            :class:`kodm_lite.PhaseData`, or what need not fit into memory, see :mod:`kodm_lite.data.arrays`.
        options: how to train; ``TrainingOptions()`` by default.
        objective: what to minimise, for instance ``MeanField(weighting="target")``; by default the process's own, with
            the name in the options.
        encoding: what the phases of a bare tensor stand for; PhaseData know it themselves.
        validation: held-out data, on which the average network is measured, always with the same times and noise.
        out: folder for the state, the model, the log and pictures, see :mod:`kodm_lite.training.state`; None keeps
            nothing.
        resume: go on from the state in ``out`` if there is one, also with other options, for instance more steps or
            another learning rate, which is said in a warning; False starts anew and replaces what is there.
        facts: what else the cards of saved models tell, JSON, for instance "licence".  "start", where the weights come
            from, must be the same to go on.
        progress: show a progress bar, or lines where there is no terminal.
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
    options = TrainingOptions() if options is None else options
    _check_kinds(network, process, options, objective, facts, callback)
    folder = None if out is None else place(out)
    objective = objective_of(process, options.objective) if objective is None else objective
    given = as_data("data", data, encoding, process, stored=folder is not None)
    train = check_data("data", given, network, process)
    held_out = validation
    if held_out is not None:
        held_out = check_data("validation", as_data("validation", held_out, None, process, False), network, process)
    if options.sample_every and (folder is None or len(train.shape) != 4 or train.shape[1] not in (1, 3)):
        raise ValueError(
            "sample_every: got pictures to draw, expected a folder for them, and data that are images, grey or in "
            "colours; try sample_every=0"
        )
    objective.check(process, train.take(torch.arange(min(CHECKED, train.shape[0]))))
    run = Training(network, process, objective, train, held_out, options, folder, facts or {}, callback)
    with owned(folder if run.is_main else None):
        run.start(resume)
        stopped = run.to_the_end(progress)
        run.accelerator.wait_for_everyone()  # when a process returns, the files are there
        if stopped:
            raise TrainingInterrupted(
                f"stopped after step {run.step}, state saved in {folder}; the same command goes on from there"
            )
        run.calibrate(progress)
        run.accelerator.wait_for_everyone()
    return cast(Network, run.learner.average.to(next(network.parameters()).device))


def _check_kinds(network: Any, process: Any, options: Any, objective: Any, facts: Any, callback: Any) -> None:
    """Refuse what is something else than it should be."""
    if not isinstance(network, nn.Module):
        raise ValueError(f"network: got {told(network)}, expected a torch.nn.Module; try kodm_lite.PeriodicUNet(1)")
    check_methods("process", process, "validate", "project", "draw_prior")
    if not isinstance(options, TrainingOptions):
        raise ValueError(f"options: got {told(options)}, expected TrainingOptions; try TrainingOptions(steps=3000)")
    if objective is not None:
        check_methods("objective", objective, "times", "check", "__call__")
    if not isinstance(facts, dict | None):
        raise ValueError(f"facts: got {told(facts)}, expected a dictionary; try facts={{'licence': 'CC0'}}")
    if callback is not None:
        check_methods("callback", callback, "__call__")


def objective_of(process: Process, name: str | None) -> Objective:
    """An objective of a process by its name, with its default options; the first one by default.

    Raises:
        ValueError: there is none of this name; lists those there are.
    """
    known = processes[process.kind].objectives
    if name is None and known:
        name = next(iter(known))
    if name not in known:
        raise ValueError(
            f"objective: got {name!r} for {type(process).__name__}, expected one of {', '.join(known) or 'no name'}; "
            "try fit(..., objective=...) with an object"
        )
    made: Objective = known[name]()
    return made
