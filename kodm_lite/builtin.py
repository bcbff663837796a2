"""The kinds of processes that come with the package, each with its objectives and its samplers."""

from kodm_lite.calibration import calibrate_all
from kodm_lite.euclidean import EUCLIDEAN_SAMPLERS, Noise, VariancePreserving, square_grid
from kodm_lite.kinds import ProcessKind
from kodm_lite.objectives import MeanField, Transition
from kodm_lite.process import KuramotoProcess
from kodm_lite.samplers import KURAMOTO_SAMPLERS

__all__ = ["KURAMOTO", "VARIANCE_PRESERVING"]

KURAMOTO = ProcessKind(
    KuramotoProcess.from_dict,
    objectives={"mean_field": MeanField, "transition": Transition},
    samplers=KURAMOTO_SAMPLERS,
    calibrate=calibrate_all,
)

VARIANCE_PRESERVING = ProcessKind(
    VariancePreserving.from_dict,
    objectives={"noise": Noise},
    samplers=EUCLIDEAN_SAMPLERS,
    grid=square_grid,
)
