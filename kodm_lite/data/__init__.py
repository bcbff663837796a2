"""Data as phases: every loader returns a :class:`PhaseData`."""

from kodm_lite.data.fingerprints import fingerprints
from kodm_lite.data.folder import image_folder
from kodm_lite.data.protocol import PhaseData
from kodm_lite.data.textures import textures

__all__ = ["PhaseData", "fingerprints", "image_folder", "textures"]
