"""What a file can name: kinds of processes, couplings, noises and encodings, each with a function that makes one.

A description is a JSON object with a ``kind``; everything that can be stored has ``to_dict()``, and its kind is looked
up here when a file is read.  Only what is registered is ever made, and nothing is imported because a file says so.  The
built-in kinds are imported when they are first asked for; one of your own takes one line before it is loaded::

    registry.couplings.register("graph", GraphCoupling.from_dict)
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

__all__ = ["Registry", "couplings", "encodings", "networks", "noises", "processes"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Entries by the name of a kind.

    Args:
        what: an entry in messages, such as "coupling".
        built_in: where the entries of the package are, "module:attribute", by kind.
    """

    def __init__(self, what: str, built_in: Mapping[str, str]):
        self.what, self._built_in, self._entries = what, dict(built_in), dict[str, T]()

    def register(self, kind: str, entry: T) -> None:
        """Add an entry, for instance a function that makes an object from its description.

        Raises:
            ValueError: a kind that is no name, or is one of the package; one of your own is replaced.
        """
        if not isinstance(kind, str) or not kind:
            raise ValueError(f"kind: got {kind!r}, expected a name of this {self.what}; try a short word")
        if kind in self._built_in:
            raise ValueError(f"kind: got {kind!r}, which is a {self.what} of the package, expected another name")
        self._entries[kind] = entry

    def __getitem__(self, kind: Any) -> T:
        """The entry of a kind.

        Raises:
            ValueError: an unknown kind; lists those there are.
        """
        if not isinstance(kind, str) or kind not in self:
            known = ", ".join(sorted({*self._entries, *self._built_in}))
            raise ValueError(
                f"{self.what}: got kind {str(kind)[:60]!r}, expected one of {known}; "
                f"try kodm_lite.registry to register one of your own"
            )
        if kind not in self._entries:
            module, _, attributes = self._built_in[kind].partition(":")
            entry: Any = importlib.import_module(module)
            for attribute in attributes.split("."):
                entry = getattr(entry, attribute)
            self._entries[kind] = entry
        return self._entries[kind]

    def __contains__(self, kind: str) -> bool:
        return kind in self._entries or kind in self._built_in

    def of(self, description: Any) -> T:
        """The entry that a description names.

        Raises:
            ValueError: no object with a known kind.
        """
        if not isinstance(description, dict) or "kind" not in description:
            raise ValueError(f"{self.what}: got {str(description)[:60]}, expected an object with a kind")
        return self[description["kind"]]


Maker = Callable[[dict[str, Any]], Any]

encodings: Registry[Maker] = Registry(
    "encoding",
    {
        "grey_levels": "kodm_lite.encoding:GreyLevels.from_dict",
        "angles": "kodm_lite.encoding:Angles.from_dict",
        "numbers": "kodm_lite.encoding:Numbers.from_dict",
    },
)

couplings: Registry[Maker] = Registry(
    "coupling",
    {
        "global": "kodm_lite.kuramoto:GlobalCoupling.from_dict",
        "local": "kodm_lite.kuramoto:LocalCoupling.from_dict",
        "spherical": "kodm_lite.sphere.coupling:SphericalCoupling.from_dict",
    },
)

noises: Registry[Maker] = Registry(
    "noise",
    {
        "white": "kodm_lite.noise:WhiteNoise.from_dict",
        "isotropic": "kodm_lite.sphere.noise:noise_from_dict",
        "pixel": "kodm_lite.sphere.noise:noise_from_dict",
    },
)

#: Classes of networks, which are called with the process and with what their ``config`` says.
networks: Registry[Callable[..., Any]] = Registry(
    "network",
    {
        "PeriodicUNet": "kodm_lite.networks:PeriodicUNet",
        "PeriodicMLP": "kodm_lite.networks:PeriodicMLP",
        "EuclideanUNet": "kodm_lite.networks:EuclideanUNet",
        "SphericalNet": "kodm_lite.sphere.network:SphericalNet",
    },
)

#: Entries are a :class:`kodm_lite.kinds.ProcessKind`: how to make a process, and what there is to train and sample it.
processes: Registry[Any] = Registry(
    "process",
    {
        "kuramoto": "kodm_lite.builtin:KURAMOTO",
        "variance_preserving": "kodm_lite.builtin:VARIANCE_PRESERVING",
    },
)
