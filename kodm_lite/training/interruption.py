"""Stopping a training between two steps: what Ctrl-C, a closed terminal or a scheduler asks for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["TrainingInterrupted", "signals_noted"]


class TrainingInterrupted(KeyboardInterrupt):
    """A training was asked to stop, and did so between two steps with its state saved."""


@contextmanager
def signals_noted(active: bool) -> Iterator[list[int]]:
    """Put SIGINT, SIGTERM and SIGHUP on the list that this yields, and go on; only the second SIGINT interrupts."""
    noted: list[int] = []
    if not active or threading.current_thread() is not threading.main_thread():  # no other thread can have handlers
        yield noted
        return

    def note(number: int, frame: Any) -> None:
        if noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(number)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # which nohup asked for
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
