"""Training a score network: a loop that can be stopped anywhere and goes on from there.  Book: chapter 8."""

from kodm_lite.training.interruption import TrainingInterrupted
from kodm_lite.training.loop import fit
from kodm_lite.training.options import TrainingOptions
from kodm_lite.training.state import read_log

__all__ = ["TrainingInterrupted", "TrainingOptions", "fit", "read_log"]
