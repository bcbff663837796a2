"""kodm_lite: Kuramoto Orientation Diffusion Models, small enough to read and complete enough to use.

>>> import kodm_lite as kodm
>>> model = kodm.load("digits-16")
>>> theta = model.sample(4, steps=5, label="7")
>>> model.decode(theta).shape
torch.Size([4, 1, 16, 16])
"""

from kodm_lite.calibration import calibrate
from kodm_lite.checkpoints import load, save
from kodm_lite.circular import angle_difference, image_to_phase, order_parameter, phase_to_image, to_uint8, wrap
from kodm_lite.data.phase_data import PhaseData
from kodm_lite.encoding import Angles, Encoding, GreyLevels
from kodm_lite.fokker_planck import ExactScore, FokkerPlanck1D, FokkerPlanck2D, ImageSetScore
from kodm_lite.kernels import VonMises, WrappedNormal
from kodm_lite.kinds import Process, register
from kodm_lite.kuramoto import Coupling, GlobalCoupling, LocalCoupling, kuramoto_drift
from kodm_lite.likelihood import bits_per_dimension, log_likelihood
from kodm_lite.losses import Objective, squared_error
from kodm_lite.memory import terminal_memory
from kodm_lite.model import Model
from kodm_lite.networks import PeriodicMLP, PeriodicUNet
from kodm_lite.objectives import MeanField, Transition
from kodm_lite.priors import GibbsPrior, OrderParameterPrior
from kodm_lite.process import KuramotoProcess
from kodm_lite.samplers import sample
from kodm_lite.schedules import LinearSchedule
from kodm_lite.training import TrainingOptions, fit
from kodm_lite.version import __version__ as __version__

__all__ = [
    "Angles",
    "Coupling",
    "Encoding",
    "ExactScore",
    "FokkerPlanck1D",
    "FokkerPlanck2D",
    "GibbsPrior",
    "GlobalCoupling",
    "GreyLevels",
    "ImageSetScore",
    "KuramotoProcess",
    "LinearSchedule",
    "LocalCoupling",
    "MeanField",
    "Model",
    "Objective",
    "OrderParameterPrior",
    "PeriodicMLP",
    "PeriodicUNet",
    "PhaseData",
    "Process",
    "TrainingOptions",
    "Transition",
    "VonMises",
    "WrappedNormal",
    "angle_difference",
    "bits_per_dimension",
    "calibrate",
    "fit",
    "image_to_phase",
    "kuramoto_drift",
    "load",
    "log_likelihood",
    "order_parameter",
    "phase_to_image",
    "register",
    "sample",
    "save",
    "squared_error",
    "terminal_memory",
    "to_uint8",
    "wrap",
]
