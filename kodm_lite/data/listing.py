"""Which files of a folder are images, of which classes, and what is left out for which reason."""

from __future__ import annotations

import os
import re
from collections import defaultdict, deque
from pathlib import Path

from kodm_lite.data.images import SUFFIXES, readable_suffixes
from kodm_lite.data.options import listed

__all__ = ["classes_of", "list_images", "own_split"]

_LITTER = re.compile(r"\._.*|\.ds_store|__macosx|thumbs\.db|desktop\.ini|\.directory|@eadir", re.IGNORECASE)
_SPLIT = re.compile(
    r"((?P<train>train(ing)?)|(?P<val>val(id(ation)?)?|dev)|(?P<test>test(ing)?|eval))"
    r"([-_ ]?(set|split|data|images|\d+))?",
    re.IGNORECASE,
)


def list_images(folder: Path) -> tuple[list[str], list[str]]:
    """Names of all images relative to the folder, sorted, with slashes; and in words, what is left out.

    Links are followed; a folder to which several ways lead is read once.  What systems strew about is not mentioned.

    Raises:
        ValueError: no folder, or no images in it.
    """
    if folder.is_file():
        raise ValueError(f"path: got the file {folder}, expected a folder; try {folder.parent}")
    if not folder.is_dir():
        raise ValueError(f"path: got {folder}, which does not exist, expected a folder; try {folder.absolute().parent}")
    files, left = _walk(folder)
    images = [name for name in files if _ending(name) in readable_suffixes()]
    others = [name for name in files if _ending(name) not in readable_suffixes()]
    endings = sorted({_ending(name) or Path(name).name for name in others})
    unread = " (Pillow needs a plug-in for these: try pip install pillow-heif)" if set(endings) & set(SUFFIXES) else ""
    out = [f"{len(others)} files ending in {listed(endings, 6)}{unread}"] if others else []
    out += [f"{len(names)} {reason}: {listed(names)}" for reason, names in sorted(left.items())]
    if not images:
        raise ValueError(
            f"path: got {folder} with {'; '.join(out) or 'no files'}, expected images "
            f"{', '.join(readable_suffixes())}; try another folder, or convert the images to PNG"
        )
    return sorted(images), out


def _ending(name: str) -> str:
    return Path(name).suffix.lower()


def _walk(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Names of all files, and what cannot be reached, by the reason; links to folders come last."""
    files: list[str] = []
    left: dict[str, list[str]] = defaultdict(list)
    seen: set[Path] = set()
    waiting = deque([""])
    while waiting:
        inner = waiting.popleft()
        try:
            real = (folder / inner).resolve()
            if real in seen or (inner and folder.resolve().is_relative_to(real)):
                left["links to folders that are read anyway"].append(inner)
                continue
            entries = sorted(os.scandir(real), key=lambda entry: entry.name)
        except OSError:
            left["folders that cannot be opened"].append(inner or ".")
            continue
        seen.add(real)
        for entry in entries:
            name = f"{inner}/{entry.name}" if inner else entry.name
            if _LITTER.fullmatch(entry.name):
                continue
            if entry.name.startswith("."):
                if entry.is_dir() or _ending(name) in SUFFIXES:
                    left["hidden images or folders"].append(name)
            elif entry.is_dir():
                waiting.append(name) if entry.is_symlink() else waiting.appendleft(name)
            elif entry.is_file():
                files.append(name)
            else:
                left["links that lead nowhere, or no files"].append(name)
    return files, left


def classes_of(folder: Path, files: list[str]) -> list[str]:
    """Names of the sub-folders that hold images, sorted; none if all images lie beside each other.

    Raises:
        ValueError: images beside sub-folders, or sub-folders that are the splits of a data set and not its classes.
    """
    beside = [name for name in files if "/" not in name]
    if beside and len(beside) < len(files):
        raise ValueError(
            f"path: got {folder} with images beside sub-folders ({listed(beside)}), expected all images in "
            "sub-folders (classes) or none; try a sub-folder for these too, or the path of one sub-folder"
        )
    places = [name.split("/")[:-1] for name in files]
    for depth in range(max(map(len, places))):
        there = sorted({place[depth] for place in places if len(place) > depth})
        splits = {name: _kind(name) for name in there if _kind(name)}
        if len({kind == "train" for kind in splits.values()}) == 2 or (depth == 0 and [*splits] == there):
            raise ValueError(
                f"path: got {folder} with sub-folders {listed([*splits])}, which look like splits, expected one for "
                f"each class; try {folder / next(iter(splits))} with split='all', or label= to say what the classes are"
            )
    return [] if beside else sorted({place[0] for place in places})


def own_split(files: list[str], split: str) -> str | None:
    """The sub-folder of a split, if the sub-folders are train and test, perhaps with val, and nothing else."""
    kinds = {name.split("/")[0]: _kind(name.split("/")[0]) for name in files if "/" in name}
    folders = {kind: name for name, kind in sorted(kinds.items())}
    if "train" not in folders or len(folders) < 2 or len(folders) < len(kinds) or None in folders:
        return None
    if any("/" not in name for name in files):
        return None
    return folders.get(split, folders.get("val") if split == "test" else None)


def _kind(name: str) -> str | None:
    found = _SPLIT.fullmatch(name)
    return None if found is None else next(kind for kind, text in found.groupdict().items() if text)
