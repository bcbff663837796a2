"""Read the chapters and execute those that changed, several at a time, into the cache that the book is built from.

    python book/_tools/chapters.py            execute what changed
    python book/_tools/chapters.py NAME ...   only these, for example 01-phases

The cache is the one in which Jupyter Book looks before it executes a chapter itself. It is keyed by the code of a
chapter alone, so it is dropped here when the package, the interpreter or the numerical libraries have changed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
import yaml
from myst_nb.core.read import is_myst_markdown_notebook, read_myst_markdown_notebook
from myst_parser.config.main import MdParserConfig

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "_build"
CACHE = BUILD / ".jupyter_cache"


@cache
def config() -> dict[str, Any]:
    """The book's configuration, ``_config.yml``."""
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf8"))


@cache
def chapters() -> list[Path]:
    """The chapters in the order of the table of contents: its numbered pages."""
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf8"))["parts"]
    return [ROOT / f"{page['file']}.md" for part in parts if part.get("numbered") for page in part["chapters"]]


def read(chapter: Path) -> nbformat.NotebookNode:
    """A chapter as a notebook without outputs, cut into cells exactly as the book cuts it."""
    text = chapter.read_text(encoding="utf8")
    if not is_myst_markdown_notebook(text):
        raise SystemExit(f"{chapter.name} does not start with the header of a chapter, see CONTRIBUTING.md")
    extensions = set(config()["parse"]["myst_enable_extensions"])
    return read_myst_markdown_notebook(text, MdParserConfig(enable_extensions=extensions), path=chapter)


def executed(chapter: Path) -> tuple[nbformat.NotebookNode, list[float]] | None:
    """The chapter with its outputs and the seconds that each code cell took, or None if the cache does not have it."""
    from jupyter_cache import get_cache  # slow to import, and not needed to read a chapter

    store = get_cache(CACHE)
    try:
        key, notebook = store.merge_match_into_notebook(read(chapter))
    except KeyError:
        return None
    return notebook, store.get_cache_record(key).data.get("cell_seconds", [])


def execute(wanted: list[Path]) -> list[str]:
    """Execute the chapters that are not in the cache; returns one message for each that failed."""
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn

    drop_stale_cache()
    missing = [chapter for chapter in wanted if executed(chapter) is None]
    if not missing:
        return []
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # there is a kernel on each core already
    failures = []
    with ProcessPoolExecutor(max_workers=min(len(missing), os.cpu_count() or 1)) as pool:
        for chapter, (notebook, seconds, failure) in zip(missing, pool.map(_run, missing), strict=True):
            if failure:
                failures.append(f"{chapter.relative_to(ROOT)}: {failure}")
                continue
            print(f"executed {chapter.relative_to(ROOT)} in {sum(seconds):.0f} s", flush=True)
            data = {"execution_seconds": sum(seconds), "cell_seconds": seconds}
            bundle = CacheBundleIn(notebook, str(chapter), data=data)
            get_cache(CACHE).cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    return failures


def drop_stale_cache() -> None:
    """Forget every executed chapter if what the chapters import is no longer what they were executed with."""
    stamp = BUILD / ".executed-with"
    if not stamp.exists() or stamp.read_text() != _fingerprint():
        shutil.rmtree(CACHE, ignore_errors=True)
        shutil.rmtree(BUILD / ".doctrees", ignore_errors=True)
        BUILD.mkdir(exist_ok=True)
        stamp.write_text(_fingerprint())


def _fingerprint() -> str:
    digest = hashlib.sha256(sys.version.encode())
    for library in ("torch", "numpy", "scipy", "matplotlib", "scikit-image"):
        digest.update(version(library).encode())
    for path in sorted((ROOT / "kodm_lite").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _run(chapter: Path) -> tuple[nbformat.NotebookNode, list[float], str | None]:
    """Execute one chapter in its folder: the notebook with outputs, seconds per code cell, and what went wrong."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    notebook, failure = read(chapter), None
    quiet = ["--log-level=ERROR"]  # a kernel warns that it talks over a local port; warnings of Python are not affected
    client = NotebookClient(notebook, timeout=config()["execute"]["timeout"], record_timing=True, extra_arguments=quiet)
    try:
        client.execute(cwd=str(chapter.parent))
    except (CellExecutionError, CellTimeoutError, RuntimeError) as error:  # the last one if the kernel dies
        failure = re.sub(r"\x1b\[[\d;]*m", "", str(error))  # without terminal colours
    # The times are taken out again: the cache is keyed by source and metadata of the cells.
    times = [cell.metadata.pop("execution", {}) for cell in notebook.cells if cell.cell_type == "code"]
    return notebook, [_seconds(time) for time in times], failure


def _seconds(timing: dict[str, str]) -> float:
    start, end = timing.get("iopub.execute_input"), timing.get("shell.execute_reply")
    if start is None or end is None:  # a cell that is not executed
        return 0.0
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def main() -> None:
    names = sys.argv[1:]
    wanted = [chapter for chapter in chapters() if not names or chapter.stem in names]
    if unknown := set(names) - {chapter.stem for chapter in wanted}:
        raise SystemExit(f"no such chapter: {', '.join(sorted(unknown))}")
    if failures := execute(wanted):
        raise SystemExit("\n\n".join(["", *failures, f"{len(failures)} of {len(wanted)} chapters failed"]))


if __name__ == "__main__":
    main()
