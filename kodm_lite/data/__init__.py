"""Data as phases: every loader returns a :class:`PhaseData`."""

from kodm_lite.data.arrays import DatasetExamples, memory_mapped
from kodm_lite.data.cifar import cifar10
from kodm_lite.data.digits import digits
from kodm_lite.data.fingerprints import fingerprints
from kodm_lite.data.folder import image_folder
from kodm_lite.data.phase_data import PhaseData
from kodm_lite.data.published import SOURCES, Source, brodatz, check, ground_terrain, instructions, socofing
from kodm_lite.data.terrain import aspect, elevation, terrain_aspect
from kodm_lite.data.textures import textures

__all__ = [
    "SOURCES",
    "DatasetExamples",
    "PhaseData",
    "Source",
    "aspect",
    "brodatz",
    "check",
    "cifar10",
    "digits",
    "elevation",
    "fingerprints",
    "ground_terrain",
    "image_folder",
    "instructions",
    "memory_mapped",
    "socofing",
    "terrain_aspect",
    "textures",
]
