"""kodm-lite data"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from kodm_lite.data import SOURCES, check, instructions
from kodm_lite.recipes import RECIPES

__all__ = ["Data"]


@dataclass(frozen=True)
class Data:
    """Which data sets there are, where to get published ones, and whether they arrived whole.

    Nothing is ever downloaded.

    Args:
        name: of a published data set; without one, a list of all.
        path: where the data set lies now; checks it.
    """

    name: tyro.conf.Positional[Annotated[str | None, tyro.conf.arg(metavar="NAME")]] = None
    path: tyro.conf.Positional[Annotated[Path | None, tyro.conf.arg(metavar="PATH")]] = None

    def run(self) -> None:
        if self.name is None:
            print("there already:")
            for name, (_, text) in RECIPES.items():
                print(f"  {name:<19}{text}")
            print("to be fetched by you, see kodm-lite data NAME:")
            for name, source in SOURCES.items():
                print(f"  {name:<19}{source.title}")
        elif self.path is None:
            print(instructions(self.name))
        else:
            print(check(self.name, self.path))
