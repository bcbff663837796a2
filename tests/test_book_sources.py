"""What every chapter must have, and that the tables of the back matter agree with the package."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import api
import nbformat
import pytest
import yaml
from chapters import ROOT, chapters, config, read
from pybtex.database import parse_file

CHAPTERS = chapters()
PAGES = sorted((ROOT / "book").glob("*.md"))


@pytest.fixture(params=CHAPTERS, ids=lambda chapter: chapter.stem)
def chapter(request) -> Path:
    return request.param


def code_cells(chapter: Path, tag: str | None = None) -> list[nbformat.NotebookNode]:
    cells = [cell for cell in read(chapter).cells if cell.cell_type == "code"]
    return [cell for cell in cells if tag is None or tag in cell.metadata.get("tags", [])]


def directives(chapter: Path, *names: str) -> list[tuple[str, str, str]]:
    """(name, argument, label) of the directives with one of these names, in order."""
    pattern = r"^[`:]{3,}\{([\w:-]+)\}[ ]*(.*)\n(?::label:[ ]*(\S+))?"
    found = re.findall(pattern, chapter.read_text(encoding="utf8"), flags=re.MULTILINE)
    return [directive for directive in found if directive[0] in names]


def test_exercises_have_solutions(chapter):
    exercises = [label for _, _, label in directives(chapter, "exercise", "exercise-start")]
    solved = [argument for _, argument, _ in directives(chapter, "solution", "solution-start")]
    assert len(exercises) >= 5
    assert all(exercises) and exercises == solved
    text = chapter.read_text(encoding="utf8")
    assert text.count(":class: dropdown") >= len(solved), "solutions are folded"


def test_gates_are_closed(chapter):
    text = chapter.read_text(encoding="utf8")
    for kind in ("exercise", "solution"):
        assert text.count(f"{{{kind}-start}}") == text.count(f"{{{kind}-end}}")


def test_figures_have_names_captions_and_alternative_texts(chapter):
    figures = 0
    for cell in code_cells(chapter):
        options = cell.metadata.get("mystnb", {})
        live = "live-widget" in cell.metadata.get("tags", [])
        if live or ("plt.show()" not in cell.source and "figure" not in options):
            continue
        figures += 1
        assert options.get("figure", {}).get("name"), f"no name: {cell.source[:80]}"
        assert len(options["figure"].get("caption", "")) > 20, f"no caption: {cell.source[:80]}"
        assert len(options.get("image", {}).get("alt", "")) > 20, f"no alternative text: {cell.source[:80]}"
    assert figures >= 2


def test_checks_animation_and_live_widget(chapter):
    calls = sum(len(re.findall(r"\bcheck(?:_below)?\(", cell.source)) for cell in code_cells(chapter))
    assert calls >= 8
    assert code_cells(chapter, "animation")
    for cell in (live := code_cells(chapter, "live-widget")):
        assert {"skip-execution", "remove-cell"} <= set(cell.metadata.tags) and "ipywidgets" in cell.source
    assert live


def test_every_chapter_says_what_it_needs_and_where_it_departs(chapter):
    text = chapter.read_text(encoding="utf8").lower()
    for words in ("in this chapter", "goes wrong", "summary", "further reading", "minutes"):
        assert words in text, f"nothing says {words!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_citations_and_links(page):
    text = page.read_text(encoding="utf8")
    known = parse_file(str(ROOT / config()["bibtex_bibfiles"][0]), "bibtex").entries
    for keys in re.findall(r"\{cite(?::[tp])?\}`([^`]+)`", text):
        assert {key.strip() for key in keys.split(",")} <= set(known)
    for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", text):
        assert (page.parent / target).exists(), f"a link to {target}"


def test_contents():
    """Every page of the folder is in the table of contents, and the other way round."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf8"))
    listed = {toc["root"]} | {page["file"] for part in toc["parts"] for page in part["chapters"]}
    assert listed == {f"book/{page.stem}" for page in PAGES}


def test_the_names_on_the_notation_page_exist():
    """The last column of its tables holds dotted paths in backticks, or a dash."""
    rows = [
        line for line in (ROOT / "book" / "notation.md").read_text(encoding="utf8").splitlines() if line.startswith("|")
    ]
    paths = [path for row in rows for path in re.findall(r"`(kodm_lite\.[\w.]+)`", row)]
    assert len(paths) >= 20
    for path in paths:
        assert exists(path), f"{path} does not exist"


def exists(path: str) -> bool:
    """Whether a dotted path leads to a module, an attribute, an argument of a callable or a field of a dataclass."""
    names = path.split(".")
    for cut in range(len(names), 0, -1):
        try:
            found = importlib.import_module(".".join(names[:cut]))
        except ModuleNotFoundError:
            continue
        for position, name in enumerate(names[cut:], start=cut + 1):
            if hasattr(found, name):
                found = getattr(found, name)
                continue
            fields = getattr(found, "__dataclass_fields__", {})
            arguments = inspect.signature(found).parameters if callable(found) else {}
            return position == len(names) and (name in fields or name in arguments)
        return True
    return False


def test_exists_is_strict():
    assert exists("kodm_lite.circular.wrap") and exists("kodm_lite.checks.check.tolerance")
    assert not exists("kodm_lite.circular.nothing") and not exists("kodm_lite.checks.check.nothing")


def test_the_api_page_lists_every_module_after_those_that_it_imports():
    parts = api.modules()
    listed = [name for inside in parts.values() for name in inside]
    files = [path for path in (ROOT / "kodm_lite").rglob("*.py") if path.stem != "__main__"]
    assert len(listed) == len(set(listed)) == len(files) - 1, "all but the package itself"
    places = {name: k for k, name in enumerate(listed)}
    for name in listed:
        tree = ast.parse(Path(importlib.import_module(name).__file__).read_text(encoding="utf8"))
        for statement in tree.body:
            if isinstance(statement, ast.ImportFrom) and statement.module in places:
                assert places[statement.module] < places[name], f"{name} imports from {statement.module}, below it"
    page = api.page()
    for name in listed:
        assert f" `{name}`\n" in page and f"automodule:: {name}\n" in page


def test_the_address_of_the_repository_is_written_once():
    url = config()["repository"]["url"]
    kinds = {".py", ".md", ".toml", ".yml", ".cff", ".bib"}
    for path in [*ROOT.glob("*.*"), *(ROOT / "book").rglob("*.*"), *(ROOT / "kodm_lite").rglob("*.py")]:
        if path.is_file() and path.suffix in kinds and path.name != "_config.yml":
            assert url not in path.read_text(encoding="utf8"), f"{path.relative_to(ROOT)} repeats the address"
