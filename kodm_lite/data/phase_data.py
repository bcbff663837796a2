"""What every data set looks like."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


def check_grey_scale(scale: float) -> None:
    """Refuse a scale that is none of grey values: with 1 the phases of an image would be taken for angles."""
    if not 0 < scale < 1:
        raise ValueError(f"scale: got {scale}, expected a number above 0 and below 1; try scale=0.5")


@dataclass(frozen=True)
class PhaseData:
    """Images as phases, with what is needed to label, show and cite them.

    Args:
        theta: phases (n, C, H, W), float32, radians.
        labels: class of each image (n,), integers, or None.
        names: the classes' names, indexed by label.
        scale: the ``scale`` of :func:`kodm_lite.image_to_phase`, to turn phases back into images; 1 for phases that are
            angles from the start, such as directions, which use the whole circle and are drawn in cyclic colours.
        source: where the images come from.
        licence: on what terms they can be used.
    """

    theta: Tensor
    labels: Tensor | None
    names: tuple[str, ...]
    scale: float
    source: str
    licence: str = "not stated"

    def __len__(self) -> int:
        return len(self.theta)

    def of_class(self, name: str) -> Tensor:
        """The phases of one class.

        Raises:
            ValueError: a name that is no class of this data set.
        """
        if self.labels is None or name not in self.names:
            raise ValueError(f"class: got {name!r}, expected one of {self.names}; try data.names to see them")
        return self.theta[self.labels == self.names.index(name)]
