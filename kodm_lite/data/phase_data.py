"""What every data set looks like."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kodm_lite.encoding import Encoding, GreyLevels


@dataclass(frozen=True)
class PhaseData:
    """Images as phases, with what is needed to label, show and cite them.

    Args:
        theta: phases (n, C, H, W), or (n, N) for a table of angles, float32, radians.
        labels: class of each image (n,), integers, or None.
        names: the classes' names, indexed by label.
        encoding: what the phases stand for: :class:`kodm_lite.GreyLevels` of images, :class:`kodm_lite.Angles` of
            directions and other data that are angles from the start.  A number is the scale of grey levels.
        source: where the images come from.
        licence: on what terms they can be used.
    """

    theta: Tensor
    labels: Tensor | None
    names: tuple[str, ...]
    encoding: Encoding
    source: str
    licence: str = "not stated"

    def __post_init__(self) -> None:
        if isinstance(self.encoding, float):
            object.__setattr__(self, "encoding", GreyLevels(self.encoding))
        if not isinstance(self.encoding, Encoding) or isinstance(self.encoding, type):  # a class, not yet called
            raise ValueError(
                f"encoding: got {self.encoding!r}, expected what phases stand for; try kodm_lite.GreyLevels(0.5) for "
                "images, kodm_lite.Angles() for angles"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of examples and shape of one."""
        return tuple(self.theta.shape)

    def take(self, index: Tensor) -> Tensor:
        """The phases of these examples (B, ...)."""
        return self.theta[index.to(self.theta.device, non_blocking=True)]

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
