"""The earlier address of :mod:`kodm_lite.data.phase_data`."""

from kodm_lite.data.phase_data import PhaseData

__all__ = ["PhaseData"]
