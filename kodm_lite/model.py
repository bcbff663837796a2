"""A trained network with all that it takes to use it, and its description in words and numbers."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kodm_lite.calibration import Calibration
from kodm_lite.encoding import Encoding
from kodm_lite.registry import networks
from kodm_lite.samplers import Step, sample
from kodm_lite.scores import guided
from kodm_lite.validation import check_count, check_device, told

__all__ = ["Model", "describe", "network_from_dict", "unwrapped"]


class Model(NamedTuple):
    """A trained network and what it takes to use it; ``network, process, *_ = kodm_lite.load(name)``.

    Args:
        network: the score, called as ``network(theta, t)``, or for a Euclidean diffusion the predicted noise.
        process: the forward process that it was trained for.
        shape: of one sample (C, H, W), or (N,), or (L^2,) for coefficients on the sphere.
        encoding: what the phases stand for.
        calibration: for the samplers, or None.
        card: JSON-able facts: name, data, licence, classes, metrics, seed, versions.
    """

    network: Any
    process: Any
    shape: tuple[int, ...]
    encoding: Encoding
    calibration: Calibration | None
    card: dict[str, Any]

    def sample(
        self,
        n: int = 16,
        *,
        steps: int = 50,
        method: str | Step | None = None,
        label: int | str | Tensor | None = None,
        guidance: float = 1.0,
        seeds: Sequence[int] | None = None,
        chunk: int | None = 256,
        start: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Draw samples; ``decode`` turns them into what they stand for.

        Args:
            n: number of samples.
            steps: of the sampler; fewer are faster, more are better.
            method: see :func:`kodm_lite.sample`.
            label: class of the samples, by its number or name; None for all classes.
            guidance: how much to insist on the class; 1 asks for it, 2 is a usual exaggeration.
            seeds: one integer for each sample, which depends on nothing else; ``range(n)`` by default.
            chunk: samples at once; fewer need less memory.
            start: states to start from, instead of the prior.
            options: others of :func:`kodm_lite.sample`: times, prior, generator, callback, progress.

        Returns:
            Phases (n, ...), radians in [-pi, pi), or whatever the encoding stands for, on the network's device.

        Raises:
            ValueError: an unknown class, guidance without one, and whatever the sampler refuses.

        >>> import kodm_lite as kodm
        >>> model = kodm.load("digits-16")
        >>> model.decode(model.sample(2, steps=2, label="7")).shape
        torch.Size([2, 1, 16, 16])
        """
        check_count("n", n)
        if label is None and guidance != 1:
            raise ValueError(f"guidance: got {guidance} without a label, expected a class to insist on; try label=0")
        if seeds is None and "generator" not in options:
            seeds = range(n)
        x = sample(
            self.network if label is None else guided(self.network, self.label_of(label), guidance),
            self.process,
            (n, *self.shape),
            steps=steps,
            method=method,
            calibration=self.calibration,
            seeds=seeds,
            chunk=chunk,
            start=start,
            device=self.device,
            **options,
        )
        as_phases = getattr(self.process, "as_phases", None)
        return x if as_phases is None else as_phases(x, self.encoding)

    def decode(self, theta: Tensor) -> Tensor:
        """What phases stand for: grey values in [-1, 1], or angles, see :mod:`kodm_lite.encoding`."""
        return self.encoding.decode(theta)

    def label_of(self, name: int | str | Tensor) -> int | Tensor:
        """The number of a class; numbers, and tensors with one per sample, are returned as they are.

        Raises:
            ValueError: there is none of this name or number; lists those there are.
        """
        if isinstance(name, Tensor):
            return name
        classes = getattr(self.network, "config", {}).get("classes") or 0
        names = self.card.get("classes")
        known = names if isinstance(names, list) and len(names) == classes else []
        labels = {str(k): k for k in range(classes)} | {str(own): k for k, own in enumerate(known)}
        if isinstance(name, bool) or str(name) not in labels:
            expected = f"one of {known or list(range(classes))}" if classes else "none, as the model has no classes"
            raise ValueError(f"label: got {name!r}, expected {expected}; try kodm-lite info to see them")
        return labels[str(name)]

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def to(self, device: torch.device | str) -> Model:
        """The same model with its network on another device."""
        return self._replace(network=self.network.to(check_device(device)))


def describe(network: nn.Module) -> dict[str, Any]:
    """Kind and configuration of a network: with the process and the weights all that it takes to build it again.

    The kind of a network of the package is its class's name, of any other its module and name, "my_code:MyNet"; its
    configuration, the attribute ``config``, holds the arguments of its constructor but for ``process``.

    Raises:
        ValueError: a configuration that is no JSON object.
    """
    network = unwrapped(network)
    cls, config = type(network), getattr(network, "config", {})
    own = cls.__name__ in networks and networks[cls.__name__] is cls
    try:
        plain = json.loads(json.dumps(config, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"network: got a config that is no JSON ({error}), expected plain numbers, words and lists"
        ) from error
    if not isinstance(plain, dict):
        raise ValueError(f"network: got config {config!r}, expected a dictionary of the constructor's arguments")
    return {"kind": cls.__name__ if own else f"{cls.__module__}:{cls.__qualname__}", **plain}


def unwrapped(network: nn.Module) -> nn.Module:
    """The module that torch.compile wraps."""
    return getattr(network, "_orig_mod", network)


def network_from_dict(description: dict[str, Any], process: Any, build: Callable[..., nn.Module] | None = None) -> Any:
    """The untrained network of a description.

    Args:
        description: of :func:`describe`.
        process: the forward process, handed to constructors that take a ``process``.
        build: the class of a network that is none of the package.  Nothing is imported because a description says so.

    Raises:
        ValueError: a kind that does not go with the process or with ``build``, or options that it does not have.
    """
    if not isinstance(description, dict):
        raise ValueError(f"network: got {told(description)}, expected an object with its kind; try describe(network)")
    options = {key: value for key, value in description.items() if key != "kind"}
    kind = description.get("kind")
    if build is None and isinstance(kind, str) and ":" in kind:
        raise ValueError(
            f"network: got one of the class {kind}, which is none of kodm_lite, expected that class to be given; "
            f"try load(path, network={kind.rpartition(':')[2]})"
        )
    make = build or networks[kind]
    if build is not None and (named := f"{build.__module__}:{build.__qualname__}") != kind:
        raise ValueError(f"network: got the class {named}, expected {kind}, as the file says")
    try:
        if "process" in inspect.signature(make).parameters:
            return make(process=process, **options)
        return make(**options)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"network: got options {options}, expected those of {kind} ({error})") from error
