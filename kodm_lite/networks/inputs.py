"""What networks accept, refused by name before any work.

Values are looked at only where they are at hand: on the CPU, outside torch.compile and torch.func.  On a GPU that would
mean to wait for it in every step; a class that does not exist then ends the CUDA context, so check labels before.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from kodm_lite.validation import check_count

__all__ = [
    "check_counts",
    "check_labels",
    "check_numbers",
    "check_process",
    "check_times",
    "is_transformed",
]


def is_transformed(x: Tensor) -> bool:
    """Whether x belongs to torch.func or to forward derivatives, where layouts and fused kernels do not work."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.is_functorch_wrapped_tensor(x) or forward_ad.unpack_dual(x).tangent is not None


def check_numbers(x: Tensor, name: str, weight: Tensor) -> None:
    """Refuse what is no tensor of float32 or float64, or lies elsewhere than the weights of the network."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name}: got {type(x).__name__}, expected a tensor; try torch.as_tensor({name})")
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name}: got dtype {x.dtype}, expected float32 or float64; try {name}.float()")
    if x.device != weight.device:
        raise ValueError(
            f"network: got weights on {weight.device} for {name} on {x.device}, expected one device; "
            f"try network.to({name}.device)"
        )


def check_times(t: Tensor, x: Tensor) -> None:
    """Refuse what is not one time in (0, 1] for each image of a batch."""
    count = len(x)
    if not isinstance(t, Tensor) or t.shape != (count,) or not t.is_floating_point():
        got = f"{t.dtype} of shape {tuple(t.shape)}" if isinstance(t, Tensor) else repr(t)
        raise ValueError(
            f"t: got {got}, expected floating times, one per image, of shape ({count},); "
            f"try torch.full(({count},), 0.5)"
        )
    if t.device != x.device:
        raise ValueError(f"t: got times on {t.device}, expected {x.device}, as the images; try t.to(theta.device)")
    if count == 0 or not _at_hand(t):
        return
    low, high = (float(x) for x in t.detach().aminmax())
    if not (low > 0 and high <= 1):  # written so that NaN fails
        raise ValueError(
            f"t: got times from {low:g} to {high:g}, expected 0 < t <= 1; data is at 0, where there is no noise, the "
            "prior at 1"
        )


def check_labels(label: Tensor, x: Tensor, classes: int | None) -> None:
    """Refuse what is not one class, or -1 for none, for each image of a batch."""
    if not classes:
        raise ValueError("label: got labels, expected none, as the network has no classes; try classes=...")
    shape = (len(x),)
    if not isinstance(label, Tensor):
        advice = f"torch.full({shape}, {label})" if isinstance(label, Integral) else "torch.as_tensor(label)"
        raise ValueError(f"label: got {type(label).__name__}, expected a tensor of shape {shape}; try {advice}")
    whole = not (label.is_floating_point() or label.is_complex() or label.dtype == torch.bool)
    if label.shape != shape or not whole:
        advice = "label.long()"
        if label.shape != shape:
            advice = "label.argmax(1)" if label.ndim == 2 and label.shape[1] > 1 else "label.flatten()"
        raise ValueError(
            f"label: got {label.dtype} of shape {tuple(label.shape)}, expected whole numbers of shape {shape}; "
            f"try {advice}"
        )
    if label.device != x.device:
        raise ValueError(f"label: got labels on {label.device}, expected {x.device}; try label.to(theta.device)")
    if not _at_hand(label):
        return
    low, high = min(label.tolist(), default=0), max(label.tolist(), default=0)
    if low < -1 or high >= classes:
        raise ValueError(
            f"label: got numbers from {low} to {high}, expected 0 to {classes - 1}, or -1 for "
            "no class; try label - 1 if they begin at 1"
        )


def check_process(process: Any, *methods: str) -> None:
    """Refuse a process that lacks what the network asks of it."""
    if not all(callable(getattr(process, method, None)) for method in methods):
        raise ValueError(
            f"process: got {type(process).__name__}, expected one with {' and '.join(methods)}; "
            "try KuramotoProcess() for phases, VariancePreserving(...) for the baseline"
        )


def check_counts(name: str, values: Any, least: int = 1) -> list[int]:
    """A sequence of whole numbers."""
    try:
        entries = list(values)
    except TypeError:
        raise ValueError(f"{name}: got {values!r}, expected a sequence of integers; try ({least},)") from None
    return [check_count(name, value, least) for value in entries]


def _at_hand(x: Tensor) -> bool:
    """Whether values can be looked at, without waiting for a device or disturbing those who trace or transform."""
    if torch.compiler.is_compiling() or type(x) is not Tensor:
        return False
    transforming = torch._C._functorch.peek_interpreter_stack() is not None  # also where x itself is left alone
    return x.device.type == "cpu" and not transforming and not is_transformed(x)
