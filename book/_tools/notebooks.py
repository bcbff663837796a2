"""Write a notebook for Colab and for the tests from each chapter; the chapters are the only source.

    python book/_tools/notebooks.py            write book/notebooks/*.ipynb
    python book/_tools/notebooks.py --check    exit with an error if one of them is not what its chapter says

Notebook programs know plain Markdown only, so the directives of a chapter become quotations, its equations get their
numbers and its references become text or links. Outputs are stored for the cells tagged ``nbval-check-output`` alone:
they are what the tests compare with, and everything else would change from machine to machine.
"""

from __future__ import annotations

import hashlib
import re
import sys
import textwrap
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import nbformat
from chapters import ROOT, chapters, config, execute, executed, read

NOTEBOOKS = ROOT / "book" / "notebooks"
CHECKED = "nbval-check-output"

INSTALL = """\
# In Colab this installs the package of the book; anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    %pip install --quiet "kodm_lite @ git+{url}@{branch}"
"""

ADMONITIONS = {
    "admonition", "attention", "caution", "danger", "dropdown", "error", "hint", "important", "note", "seealso",
    "tip", "topic", "warning",
}  # fmt: skip
FENCE = re.compile(r"(?P<indent> *)(?P<fence>`{3,}|:{3,}|~{3,})(?:\{(?P<name>[\w:-]+)\}(?P<argument>.*)|[^`]*)$")
OPTION = re.compile(r" *:([\w-]+):(.*)$")
DOLLAR_MATH = re.compile(r"\$\$(?P<body>.+?)\$\$(?:[ \t]*\((?P<label>[\w:.-]+)\))?", re.DOTALL)
ROLE = re.compile(r"\{([a-z][\w:-]*)\}`([^`]+)`")
TARGET = re.compile(r"^\(([\w:.-]+)\)=[ \t]*\n", re.MULTILINE)
LINK = re.compile(r"(!?\[[^\]\n]*\])\((?!\w+:|#)([^)\s]+)\)")
HEADING = re.compile(r"^(#{1,4}) +(.*)$", re.MULTILINE)
# Everything that has a number or can be referred to, in the order of the text.
LABELLED = re.compile(
    r"\$\$[ \t]*\((?P<equation>[\w:.-]+)\)"
    r"|^ *[`:~]{3,}\{(?P<name>[\w:-]+)\}(?P<argument>[^\n]*)\n(?P<options>(?: *:[\w-]+:[^\n]*\n)*)"
    r"|^(?:\((?P<target>[\w:.-]+)\)=\s+)?(?P<level>\#{1,4}) +(?P<heading>.*)$",
    re.MULTILINE,
)


@dataclass
class Label:
    """Something that a role can refer to: its number in words, its title if it has one, its chapter if it is one."""

    number: str
    title: str = ""
    chapter: str = ""


@dataclass
class Numbers:
    """The numbers within one chapter, given in the order of the text as Sphinx gives them."""

    chapter: int
    counts: dict[str, int] = field(default_factory=dict)
    sections: list[int] = field(default_factory=list)

    def next(self, kind: str) -> str:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return f"{self.chapter}.{self.counts[kind]}"

    def next_section(self, level: int) -> str:
        """The number of the next heading; level 1 is the title of the chapter."""
        depth = level - 1
        self.sections = (self.sections + [0] * depth)[:depth]
        if depth:
            self.sections[-1] += 1
        return ".".join(map(str, [self.chapter, *self.sections]))


# --- addresses -------------------------------------------------------------------------------------------------------


def _repository() -> tuple[str, str]:
    return config()["repository"]["url"].rstrip("/"), config()["repository"]["branch"]


def colab_url(name: str) -> str:
    """Where Colab opens the notebook of the chapter called ``name``."""
    url, branch = _repository()
    path = url.removeprefix("https://github.com/")
    return f"{config()['launch_buttons']['colab_url']}/github/{path}/blob/{branch}/book/notebooks/{name}.ipynb"


def page_url(name: str) -> str:
    """A page of the book as seen from a notebook: a notebook again if it is a chapter, or a file of the repository."""
    if name in {chapter.stem for chapter in chapters()}:
        return colab_url(name)
    url, branch = _repository()
    return f"{url}/blob/{branch}/book/{name}.md"


def file_url(path: str) -> str:
    """A file below ``book/``, such as a picture."""
    url, branch = _repository()
    return f"{url}/raw/{branch}/book/{path}"


@cache
def title(page: Path) -> str:
    """The title of a page: its first heading."""
    found = HEADING.search(page.read_text(encoding="utf8"))
    assert found, f"{page} has no title"
    return found[2].strip()


# --- what can be referred to -----------------------------------------------------------------------------------------


@cache
def labels() -> dict[str, Label]:
    """Every label of every chapter."""
    found: dict[str, Label] = {}
    for number, chapter in enumerate(chapters(), start=1):
        numbers = Numbers(number)
        for cell in read(chapter).cells:
            new = _labels_of_figure(cell, numbers) if cell.cell_type == "code" else _labels_of_text(cell, numbers)
            if twice := found.keys() & new.keys():
                raise SystemExit(f"{chapter.name}: the label {min(twice)} is used twice")
            found |= new
        for label in found.values():
            if label.number == f"Section {number}":  # the title itself
                label.number, label.chapter = f"Chapter {number}", chapter.stem
    return found


def _labels_of_figure(cell: nbformat.NotebookNode, numbers: Numbers) -> dict[str, Label]:
    figure = cell.metadata.get("mystnb", {}).get("figure", {})
    if "caption" not in figure:
        return {}
    if "name" not in figure:
        raise SystemExit(f"a figure needs a name to be numbered: {figure['caption'][:60]!r}")
    return {figure["name"]: Label(f"Figure {numbers.next('figure')}")}


def _labels_of_text(cell: nbformat.NotebookNode, numbers: Numbers) -> dict[str, Label]:
    found = {}
    for match in LABELLED.finditer(cell.source + "\n"):
        if match["level"]:
            number = numbers.next_section(len(match["level"]))
            if match["target"]:
                found[match["target"]] = Label(f"Section {number}", match["heading"].strip())
        elif match["equation"]:
            found[match["equation"]] = Label(f"({numbers.next('equation')})")
        else:
            options = _options(match["options"].splitlines())[0]
            name, label = match["name"], options.get("label", options.get("name", ""))
            if name == "math" and label:
                found[label] = Label(f"({numbers.next('equation')})")
            elif (name.startswith("prf:") and name != "prf:proof") or name in ("exercise", "exercise-start"):
                kind = name.removeprefix("prf:").removesuffix("-start")
                number = numbers.next(kind)  # counted with or without a label
                if label:
                    found[label] = Label(f"{kind.capitalize()} {number}")
            elif name in ("figure", "table") and label:
                found[label] = Label(f"{name.capitalize()} {numbers.next(name)}")
    return found


def _options(lines: list[str]) -> tuple[dict[str, str], list[str]]:
    """The ``:key: value`` lines at the top of a directive, and the lines below them."""
    options = {}
    while lines and (match := OPTION.match(lines[0])):
        options[match[1]] = match[2].strip()
        lines = lines[1:]
    return options, lines


@cache
def _bibliography() -> dict[str, Any]:
    from pybtex.database import parse_file

    return dict(parse_file(str(ROOT / config()["bibtex_bibfiles"][0]), "bibtex").entries)


def _citation(key: str, textual: bool) -> str:
    entry = _bibliography()[key]
    names = [" ".join(person.prelast_names + person.last_names).strip("{}") for person in entry.persons["author"]]
    who = names[0] if len(names) == 1 else " and ".join(names) if len(names) == 2 else f"{names[0]} et al."
    text = f"{who} ({entry.fields['year']})" if textual else f"{who}, {entry.fields['year']}"
    if "doi" in entry.fields:
        return f"[{text}](https://doi.org/{entry.fields['doi']})"
    if "eprint" in entry.fields:
        return f"[{text}](https://arxiv.org/abs/{entry.fields['eprint']})"
    return text


# --- from the Markdown of the book to plain Markdown -----------------------------------------------------------------


class Plain:
    """Rewrites the text of one chapter, cell after cell, as plain Markdown."""

    def __init__(self, chapter: Path, number: int) -> None:
        self.chapter = chapter
        self.numbers = Numbers(number)

    def text(self, source: str) -> str:
        """The text of one cell."""
        blocks: list[str] = []
        lines, prose = source.splitlines(), []
        while lines:
            opening = FENCE.match(lines[0])
            if opening is None:
                prose.append(lines.pop(0))
                continue
            inside, lines = _fenced(lines, opening["fence"])
            blocks += [self._prose("\n".join(prose)), self._fence(opening, inside)]
            prose = []
        blocks.append(self._prose("\n".join(prose)))
        return re.sub(r"\n{3,}", "\n\n", "\n\n".join(block for block in blocks if block.strip())).strip()

    def caption(self, cell: nbformat.NotebookNode) -> str | None:
        """What stands below the figure that a code cell draws."""
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        if "caption" not in figure:
            return None
        return f"**Figure {self.numbers.next('figure')}.** {self._prose(figure['caption'].strip())}"

    def _prose(self, text: str) -> str:
        """Text without directives."""
        text = TARGET.sub("", text)
        text = re.sub(r"^%.*\n?", "", text, flags=re.MULTILINE)
        text = HEADING.sub(lambda m: f"{m[1]} {self.numbers.next_section(len(m[1]))}. {m[2]}", text)
        text = DOLLAR_MATH.sub(lambda m: self._math(m["body"], m["label"]), text)
        text = ROLE.sub(lambda m: self._role(m[1], m[2]), text)
        text = LINK.sub(self._link, text)
        return re.sub(r"(?<=[\]`])\{[.#][^}\n]*\}", "", text)  # {.class} and {#id} behind a span

    def _fence(self, opening: re.Match[str], inside: list[str]) -> str:
        name, argument = opening["name"], (opening["argument"] or "").strip()
        if name is None:  # a listing
            return "\n".join([opening[0], *inside, opening["indent"] + opening["fence"]])
        inside = textwrap.dedent("\n".join(inside)).split("\n")
        if name in ("code", "code-block"):
            return "\n".join([f"```{argument}", *_options(inside)[1], "```"])
        options, body = _options(inside)
        # An argument in the first line belongs to the body of the directives that have no title.
        if name == "margin" or name in ADMONITIONS - {"admonition", "dropdown", "topic"}:
            body, argument = [argument, *body], "" if name == "margin" else name.capitalize()
        text = "\n".join(body)
        if name == "math":
            return self._math(f"{argument}\n{text}", options.get("label"))
        if name == "margin":
            return _quote(self.text(text))
        if name in ADMONITIONS:
            return _quote(f"**{self._prose(argument)}**\n\n{self.text(text)}")
        if name.startswith("prf:") or name in ("exercise", "exercise-start"):
            kind = name.removeprefix("prf:").removesuffix("-start")
            number = "" if kind == "proof" else f" {self.numbers.next(kind)}"
            heading = f"**{kind.capitalize()}{number}{self._prose(f' ({argument})') if argument else ''}.**"
            # What stands between -start and -end may hold code cells, so it cannot be quoted.
            return heading if name.endswith("-start") else _quote(f"{heading}\n\n{self.text(text)}")
        if name in ("solution", "solution-start"):
            heading = f"**Solution to {self._label(argument).number}.**"
            return heading if name.endswith("-start") else _quote(f"{heading}\n\n{self.text(text)}")
        if name in ("exercise-end", "solution-end"):
            return ""
        if name == "figure":
            caption = f"**Figure {self.numbers.next('figure')}.** {self.text(text)}"
            return f"![{options.get('alt', '')}]({file_url(argument)})\n\n{caption}"
        if name == "table":
            return f"**Table {self.numbers.next('table')}.** {self._prose(argument)}\n\n{self.text(text)}"
        self._fail(f"the directive {{{name}}} has no form in a notebook")

    def _math(self, body: str, label: str | None) -> str:
        body = body.strip()
        if r"\\" in body and r"\begin{" not in body:  # Sphinx does the same
            body = f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}"
        tag = f" \\tag{{{self.numbers.next('equation')}}}" if label else ""
        return f"$$\n{body}{tag}\n$$"

    def _role(self, name: str, content: str) -> str:
        explicit = re.fullmatch(r"(.*?)\s*<(.+)>", content, re.DOTALL)
        text, target = (explicit[1], explicit[2]) if explicit else ("", content.strip())
        if name == "math":
            return f"${content}$"
        if name in ("cite", "cite:p", "cite:t"):
            try:
                citations = [_citation(key.strip(), name == "cite:t") for key in content.split(",")]
            except KeyError as error:
                self._fail(f"no entry {error} in the bibliography")
            return ", ".join(citations) if name == "cite:t" else f"[{'; '.join(citations)}]"
        if name in ("eq", "numref", "ref", "prf:ref"):
            label = self._label(target)
            if name == "numref":
                number = label.number.split()[-1]
                text = text.replace("%s", number).replace("{number}", number) or label.number
            text = text or label.title or label.number
            return f"[{text}]({colab_url(label.chapter)})" if label.chapter else text
        if name == "doc":
            page = Path(target).name
            return f"[{text or title(self.chapter.with_name(f'{page}.md'))}]({page_url(page)})"
        if name.removeprefix("py:") in ("attr", "class", "data", "func", "meth", "mod", "obj"):
            return f"`{text or target.rpartition('.')[2] if target.startswith('~') else text or target}`"
        self._fail(f"the role {{{name}}} has no form in a notebook")

    def _link(self, match: re.Match[str]) -> str:
        path = match[2].partition("#")[0]
        if path.endswith(".md"):
            return f"{match[1]}({page_url(path.removesuffix('.md'))})"
        return f"{match[1]}({file_url(path)})"

    def _label(self, label: str) -> Label:
        if label not in labels():
            self._fail(f"nothing is labelled {label!r}")
        return labels()[label]

    def _fail(self, problem: str) -> NoReturn:
        raise SystemExit(f"{self.chapter.relative_to(ROOT)}: {problem}")


def _fenced(lines: list[str], fence: str) -> tuple[list[str], list[str]]:
    """The lines inside the block that the first line opens, and those after it."""
    for end, line in enumerate(lines[1:], start=1):
        mark = line.strip()
        if len(mark) >= len(fence) and set(mark) == {fence[0]}:
            return lines[1:end], lines[end + 1 :]
    return lines[1:], []


def _quote(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.strip().splitlines())


# --- notebooks -------------------------------------------------------------------------------------------------------


def notebook(chapter: Path, number: int, outputs: list[list[nbformat.NotebookNode]] | None) -> str:
    """The file of a chapter's notebook; ``outputs`` holds those of each code cell of the chapter."""
    plain, cells = Plain(chapter, number), []
    url, branch = _repository()
    install = INSTALL.format(url=url, branch=branch).strip()
    cells.append(nbformat.v4.new_code_cell(install, metadata={"tags": ["nbval-skip"]}))
    position = 0
    for cell in read(chapter).cells:
        if cell.cell_type != "code":
            if text := plain.text(cell.source):
                cells.append(nbformat.v4.new_markdown_cell(text))
            continue
        tags = list(cell.metadata.get("tags", []))
        code = nbformat.v4.new_code_cell(cell.source, metadata={"tags": tags} if tags else {})
        if "hide-input" in tags or "hide-cell" in tags:
            code.metadata["jupyter"] = {"source_hidden": True}
        if CHECKED in tags and outputs is not None:
            code.outputs = outputs[position]
        position += 1
        cells.append(code)
        if caption := plain.caption(cell):
            cells.append(nbformat.v4.new_markdown_cell(caption))
    _identify(cells)
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata=metadata), version=4).rstrip("\n") + "\n"


def _identify(cells: list[nbformat.NotebookNode]) -> None:
    """Give cells an id made from their content, and code cells the count without which nbval compares nothing."""
    count, seen = 0, set()
    for cell in cells:
        digest = hashlib.sha256(cell.source.encode()).hexdigest()[:12]
        repetition = 0
        while (identity := f"{digest}-{repetition}") in seen:
            repetition += 1
        seen.add(identity)
        cell["id"] = identity
        if cell.cell_type == "code":
            cell["execution_count"] = count = count + 1
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output["execution_count"] = count


def _code_cells(chapter: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(chapter).cells if cell.cell_type == "code"]


def _is_checked(cell: nbformat.NotebookNode) -> bool:
    return CHECKED in cell.metadata.get("tags", [])


def _outputs(chapter: Path) -> list[list[nbformat.NotebookNode]] | None:
    """The outputs of every code cell, from the cache of executed chapters; None if none of them is stored."""
    if not any(map(_is_checked, _code_cells(chapter))):
        return None
    result = executed(chapter)
    assert result is not None
    return [[_without_noise(output) for output in cell.outputs] for cell in result[0].cells if cell.cell_type == "code"]


def _without_noise(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    return nbformat.from_dict({key: {} if key == "metadata" else value for key, value in output.items()})


def _stored_outputs(path: Path) -> list[list[nbformat.NotebookNode]]:
    """The outputs in a notebook that was written earlier, without those of the cell that installs the package."""
    cells = nbformat.read(path, as_version=4).cells
    return [cell.outputs for cell in cells if cell.cell_type == "code"][1:]


def outdated() -> list[str]:
    """The notebooks that are not what their chapters say, and why; executes nothing."""
    expected = {NOTEBOOKS / f"{chapter.stem}.ipynb": chapter for chapter in chapters()}
    strays = sorted(set(NOTEBOOKS.glob("*.ipynb")) - expected.keys())
    problems = [f"{path.name} belongs to no chapter" for path in strays]
    for number, (path, chapter) in enumerate(expected.items(), start=1):
        if not path.exists():
            problems.append(f"{path.name} is missing")
            continue
        outputs = _stored_outputs(path)
        if len(outputs) != len(_code_cells(chapter)):
            problems.append(f"{path.name} has not the code cells of its chapter")
        elif path.read_text(encoding="utf8") != notebook(chapter, number, outputs):
            problems.append(f"{path.name} differs from its chapter")
        elif any(_is_checked(cell) and not out for cell, out in zip(_code_cells(chapter), outputs, strict=True)):
            problems.append(f"{path.name} has a cell to be compared, without the output to compare with")
    return problems


def write() -> list[str]:
    """Write the notebooks that are not current; returns their names. Executes the chapters whose outputs are stored."""
    if failures := execute([chapter for chapter in chapters() if any(map(_is_checked, _code_cells(chapter)))]):
        raise SystemExit("\n\n".join(failures))
    NOTEBOOKS.mkdir(exist_ok=True)
    texts = {
        NOTEBOOKS / f"{chapter.stem}.ipynb": notebook(chapter, number, _outputs(chapter))
        for number, chapter in enumerate(chapters(), start=1)
    }
    for path in NOTEBOOKS.glob("*.ipynb"):
        if path not in texts:
            path.unlink()
    changed = [path for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf8") != text]
    for path in changed:
        path.write_text(texts[path], encoding="utf8")
    return [path.name for path in changed]


def main() -> None:
    if "--check" in sys.argv[1:]:
        if problems := outdated():
            raise SystemExit("\n".join([*problems, "write them with: make notebooks"]))
    else:
        for name in write():
            print(f"wrote book/notebooks/{name}")


if __name__ == "__main__":
    main()
