"""The modules of the package, in an order in which each imports from modules before it only.

Nothing is listed by hand: files are found, and their order follows from their import statements.  Imports within
functions do not count, as they happen later; two modules that import each other are an error.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

from chapters import ROOT

PACKAGE = ROOT / "kodm_lite"


def modules() -> dict[str, list[str]]:
    """The parts of the package, modules and subpackages, each with the modules in it, all in the order of imports.

    Raises:
        graphlib.CycleError: some import each other; names them.
    """
    files = {_name(path): path for path in sorted(PACKAGE.rglob("*.py")) if path.stem != "__main__"}
    root = files.pop(PACKAGE.name)
    imports = {name: _imports(path, {PACKAGE.name: root, **files}) & files.keys() for name, path in files.items()}
    parts: dict[str, set[str]] = {}
    for name in files:
        parts.setdefault(_part(name), set()).add(name)
    between = {part: {_part(x) for name in inside for x in imports[name]} - {part} for part, inside in parts.items()}
    return {part: _in_order(parts[part], imports) for part in _in_order(parts, between)}


def page() -> str:
    """A section for each module, as Markdown."""
    lines = []
    for part, inside in modules().items():
        for name in sorted(inside, key=lambda name: name != part):  # a package before what is in it
            lines += [f"{'##' if name == part else '###'} `{name}`", "", "```{eval-rst}", f".. automodule:: {name}"]
            lines += [*(["   :members:"] if len(inside) == 1 or name != part else []), "```", ""]
    return "\n".join(lines)


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _part(name: str) -> str:
    return ".".join(name.split(".")[:2])


def _in_order(names: Iterable[str], imports: dict[str, set[str]]) -> list[str]:
    """Sorted by what they import; where that leaves a choice the most used first."""
    chosen = set(names)
    uses = Counter(name for others in imports.values() for name in others)
    sorter = TopologicalSorter({name: imports[name] & chosen for name in chosen})
    sorter.prepare()
    found: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=lambda name: (-uses[name], name))
        found += ready
        sorter.done(*ready)
    return found


def _imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules that a file imports when it is imported itself."""
    found: set[str] = set()
    for statement in ast.parse(path.read_text(encoding="utf8")).body:
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            names = {f"{statement.module}.{alias.name}" for alias in statement.names}
            found |= {name if name in known else statement.module for name in names}
    return found
