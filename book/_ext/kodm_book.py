"""What this book adds to Sphinx: MathJax of its own, links to notebooks, the pages of all checks and all modules."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.fileutil import copy_asset

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "_tools"))
import api
import chapters
import notebooks

FAULTS = chapters.ROOT / "benchmarks" / "results" / "faults.json"

# The parts of MathJax that tex-chtml.js may ask for: itself, its fonts, and macros that are loaded when first used.
MATHJAX = ("tex-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions")


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Copy MathJax into the built pages, so that they ask no other host for it."""
    if error is None and app.builder.format == "html":
        source = Path(str(distribution("django-static-mathjax").locate_file("mathjax/static/mathjax/es5")))
        for part in MATHJAX:
            target = Path(app.outdir) / "_static" / "mathjax" / part
            copy_asset(str(source / part), str(target.parent if target.suffix else target))


def list_modules(app: Sphinx, page: str, source: list[str]) -> None:
    """Append to the API page a section for each module of the package."""
    if page == "book/api":
        source[0] += "\n" + api.page()


def reread_modules(app: Sphinx, env: Any, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """The API page may change while its file does not."""
    return ["book/api"]


def drop_thebe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Leave out the scripts for running cells on a remote server: unused, and declared twice, which is an error."""
    context["script_files"] = [
        script for script in context["script_files"]
        if "thebe" not in f"{script.filename} {script.attributes.get('body')}".lower()
    ]  # fmt: skip


def link_notebook(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Let a chapter's Colab button open its generated notebook, and say so under the title."""
    if page not in [chapter.relative_to(chapters.ROOT).with_suffix("").as_posix() for chapter in chapters.chapters()]:
        return
    url = notebooks.colab_url(Path(page).name)
    for group in context["header_buttons"]:
        for button in group.get("buttons", []):
            if button.get("text") == "Colab":
                button["url"] = url
    link = f'<p class="kodm-open"><a href="{url}">Open this chapter as a notebook in Colab</a></p>'
    context["body"] = context["body"].replace("</h1>", f"</h1>\n{link}", 1)


class Check(NamedTuple):
    """One line that ``kodm_lite.checks`` printed."""

    what: str
    measured: str
    expected: str
    seconds: float | None


def checks_of(chapter: Path) -> list[Check]:
    """The checks of an executed chapter, in order."""
    if (result := chapters.executed(chapter)) is None:
        return []
    notebook, seconds = result
    found = []
    for number, cell in enumerate(cell for cell in notebook.cells if cell.cell_type == "code"):
        text = "".join(output.text for output in cell.outputs if output.output_type == "stream")
        for line in re.findall(r"^✓ (.*): measured (\S+), (.*)$", text, flags=re.MULTILINE):
            found.append(Check(*line, seconds[number] if number < len(seconds) else None))
    return found


class AllChecks(SphinxDirective):
    """A table of the checks of each chapter."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # the chapters may change while this page does not
        content: list[nodes.Node] = []
        for chapter in chapters.chapters():
            if checks := checks_of(chapter):
                content += [self._heading(chapter, len(checks)), self._table(checks)]
        return content

    def _heading(self, chapter: Path, count: int) -> nodes.Node:
        reference = pending_xref(
            "",
            nodes.inline("", notebooks.title(chapter)),
            refdomain="std",
            reftype="doc",
            refdoc=self.env.docname,
            reftarget=f"/book/{chapter.stem}",
            refexplicit=True,
            refwarn=True,
        )
        text = nodes.Text(f": {count} check{'s' if count > 1 else ''}")
        return nodes.paragraph("", "", nodes.strong("", "", reference), text)

    def _table(self, checks: list[Check]) -> nodes.Node:
        group = nodes.tgroup("", cols=4)
        group += [nodes.colspec("", colwidth=width) for width in (46, 16, 30, 8)]
        group += nodes.thead("", row("check", "measured", "compared with", "time"))
        group += nodes.tbody("", *(row(*check[:3], _time(check.seconds)) for check in checks))
        return nodes.table("", group, classes=["kodm-checks"])


class Faults(SphinxDirective):
    """The table of benchmarks/results/faults.json."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(FAULTS))
        rows = json.loads(FAULTS.read_text(encoding="utf8"))["rows"]
        group = nodes.tgroup("", cols=len(rows[0]))
        group += [nodes.colspec("", colwidth=40 if name == "fault" else 15) for name in rows[0]]
        group += nodes.thead("", row(*rows[0]))
        group += nodes.tbody("", *(row(*map(str, counts.values())) for counts in rows))
        return [nodes.table("", group, classes=["kodm-faults"])]


def row(*texts: str) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", text)) for text in texts))


def _time(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2g} s" if seconds >= 0.1 else "< 0.1 s"


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("all-checks", AllChecks)
    app.add_directive("faults", Faults)
    app.connect("source-read", list_modules)
    app.connect("env-get-outdated", reread_modules)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-page-context", link_notebook, priority=900)
    app.connect("build-finished", copy_mathjax)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
