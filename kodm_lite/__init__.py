"""kodm_lite: Kuramoto Orientation Diffusion Models, small enough to read and complete enough to use.

>>> import torch, kodm_lite as kodm
>>> process = kodm.KuramotoProcess()
>>> theta0 = kodm.image_to_phase(torch.zeros(4, 1, 8, 8))
>>> process.simulate(theta0, t=1.0).shape
torch.Size([4, 1, 8, 8])
"""

from kodm_lite.circular import angle_difference, image_to_phase, order_parameter, phase_to_image, to_uint8, wrap
from kodm_lite.fokker_planck import ExactScore, FokkerPlanck1D, FokkerPlanck2D, ImageSetScore
from kodm_lite.kernels import VonMises, WrappedNormal
from kodm_lite.kuramoto import GlobalCoupling, LocalCoupling, kuramoto_drift
from kodm_lite.memory import terminal_memory
from kodm_lite.networks import PeriodicMLP, PeriodicUNet
from kodm_lite.priors import GibbsPrior, OrderParameterPrior
from kodm_lite.process import KuramotoProcess
from kodm_lite.samplers import calibrate, sample
from kodm_lite.schedules import LinearSchedule

__version__ = "0.1.0"

__all__ = [
    "ExactScore",
    "FokkerPlanck1D",
    "FokkerPlanck2D",
    "GibbsPrior",
    "GlobalCoupling",
    "ImageSetScore",
    "KuramotoProcess",
    "LinearSchedule",
    "LocalCoupling",
    "OrderParameterPrior",
    "PeriodicMLP",
    "PeriodicUNet",
    "VonMises",
    "WrappedNormal",
    "angle_difference",
    "calibrate",
    "image_to_phase",
    "kuramoto_drift",
    "order_parameter",
    "phase_to_image",
    "sample",
    "terminal_memory",
    "to_uint8",
    "wrap",
]
