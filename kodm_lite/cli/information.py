"""kodm-lite info"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kodm_lite import checkpoints
from kodm_lite.cli.common import OptionalModel

__all__ = ["Info"]

SHOWN = 300  # characters of one entry of a header


@dataclass(frozen=True)
class Info:
    """What a model is and how it was made, or without a model: which ones are shipped.

    Args:
        model: a model's file, the folder of a training, or the name of a shipped model.
    """

    model: OptionalModel = None

    def run(self) -> None:
        if self.model is None:
            names = checkpoints.pretrained_names()
            print("shipped models:", ", ".join(names) if names else "none; kodm-lite train makes one")
            return
        path = checkpoints.find(self.model)
        header = checkpoints.read_header(path)
        card = header.pop("card")
        if header["calibration"] is not None:  # of its long lists nothing is to be seen
            header["calibration"] = {"damping": header["calibration"].get("damping", 0)}
        print(f"{'file':<18}{path}, {path.stat().st_size / 1e6:.3g} MB")
        _print_entries({**header, **{f"card.{key}": value for key, value in card.items()}})


def _print_entries(entries: dict[str, Any]) -> None:
    """Print what a file says of itself; it may come from anywhere, so no text in it reaches the terminal unescaped."""
    for key, value in entries.items():
        text = repr(value)
        more = f" ... ({len(text)} characters)" if len(text) > SHOWN else ""
        shown_key = key if key.isprintable() else repr(key)
        print(f"{shown_key[:SHOWN]:<17} {text[:SHOWN]}{more}")
