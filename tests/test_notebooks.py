"""The generated notebooks: current, valid, readable without the book's own Markdown, and really executed by nbval."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import notebooks
import pytest
from chapters import ROOT, chapters, read
from helpers import PATIENCE

PATHS = [notebooks.NOTEBOOKS / f"{chapter.stem}.ipynb" for chapter in chapters()]

SAMPLE = r"""
(section-sample)=
## A section

By {eq}`eq-a` and {eq}`eq-b`, {numref}`section-sample`, {ref}`ex-a`; {cite:t}`kuramoto1984chemical`.

$$ a = b $$ (eq-a)

````{prf:theorem} Name
:label: thm-a
Text with {math}`x`.

```{math}
:label: eq-b
c &= d \\
e &= f
```
````

:::{tip}
A hint.
:::

:::{dropdown} More
```python
raw = "{eq}`x`"
```
:::

```{exercise-start} Easy
:label: ex-a
```
Do it.
```{exercise-end}
```

```{solution-start} ex-a
:class: dropdown
```
Done.
```{solution-end}
```
"""

PLAIN = r"""## 7.1. A section

By (7.1) and (7.2), Section 7.1, Exercise 7.1; [Kuramoto (1984)](https://doi.org/10.1007/978-3-642-69689-3).

$$
a = b \tag{7.1}
$$

> **Theorem 7.1 (Name).**
>
> Text with $x$.
>
> $$
> \begin{aligned}
> c &= d \\
> e &= f
> \end{aligned} \tag{7.2}
> $$

> **Tip**
>
> A hint.

> **More**
>
> ```python
> raw = "{eq}`x`"
> ```

**Exercise 7.1 (Easy).**

Do it.

**Solution to Exercise 7.1.**

Done."""


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


@pytest.fixture
def sample_labels(monkeypatch):
    cell = nbformat.v4.new_markdown_cell(SAMPLE)
    labels = notebooks._labels_of_text(cell, notebooks.Numbers(7))
    monkeypatch.setattr(notebooks, "labels", lambda: labels)


def test_current(monkeypatch):
    """Comparing executes nothing, and reads each chapter a few times at most."""
    reads = []
    monkeypatch.setattr(notebooks, "execute", lambda wanted: pytest.fail("a chapter was executed"))
    monkeypatch.setattr(notebooks, "read", lambda chapter: reads.append(chapter) or read(chapter))
    assert notebooks.outdated() == []
    assert len(reads) <= 5 * len(PATHS)


def test_valid(notebook):
    nbformat.validate(notebook)
    identities = [cell.id for cell in notebook.cells]
    assert len(identities) == len(set(identities))


def test_first_cell_installs_only_in_colab(notebook):
    first = notebook.cells[0]
    url = notebooks.config()["repository"]["url"]
    assert first.cell_type == "code" and "nbval-skip" in first.metadata.tags
    assert '"google.colab" in sys.modules' in first.source and f"git+{url}@" in first.source


def test_every_code_cell_counts_as_executed(notebook):
    """nbval compares no output of a cell without execution count."""
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_outputs_are_stored_where_they_are_compared(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert bool(cell.outputs) == (notebooks.CHECKED in cell.metadata.get("tags", []))


def test_text_is_plain_markdown(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"```.*?```", "", cell.source, flags=re.DOTALL)
            left = re.search(r"[`:~]{3,}\{|\{[a-z][\w:-]*\}`|^\([\w:.-]+\)=|^\+\+\+", text, flags=re.MULTILINE)
            assert left is None, text[left.start() :]


def test_conversion(sample_labels):
    assert notebooks.Plain(ROOT / "book" / "sample.md", 7).text(SAMPLE) == PLAIN


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{glue}`x`", "the role {glue}"),
        ("```{mermaid}\n```", "the directive {mermaid}"),
        ("{eq}`eq-missing`", "nothing is labelled 'eq-missing'"),
        ("{cite}`missing2000`", "no entry 'missing2000'"),
    ],
)
def test_what_has_no_plain_form_is_an_error(text, message, sample_labels):
    with pytest.raises(SystemExit, match=re.escape(message)):
        notebooks.Plain(ROOT / "book" / "sample.md", 7).text(text)


@pytest.mark.parametrize("change", ["text", "output", "extra"])
def test_a_difference_is_found(change, tmp_path, monkeypatch):
    for path in PATHS:
        (tmp_path / path.name).write_text(path.read_text(encoding="utf8"), encoding="utf8")
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path)
    changed = tmp_path / PATHS[0].name
    content = nbformat.read(changed, as_version=4)
    if change == "extra":
        changed = tmp_path / "99-extra.ipynb"
    elif change == "text":
        next(cell for cell in content.cells if cell.cell_type == "markdown").source += " edited"
    else:
        content.cells[0].outputs = [nbformat.v4.new_output("stream", text="edited")]
    nbformat.write(content, changed)
    assert [problem.split()[0] for problem in notebooks.outdated()] == [changed.name]


@pytest.mark.parametrize(
    ("source", "tags", "output", "passes"),
    [
        ("x = 1", [], None, True),
        ("assert False", [], None, False),
        ("from kodm_lite.checks import check; check('wrong', 1.0, 2.0, tolerance=0.1)", [], None, False),
        ("print(0.123)", [notebooks.CHECKED], "0.123\n", True),
        ("print(0.124)", [notebooks.CHECKED], "0.123\n", False),
    ],
)
def test_nbval_runs_cells_and_compares_outputs(source, tags, output, passes, tmp_path):
    """A failing cell fails although nothing is stored for it, and so does a stored output that has changed."""
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": tags}, execution_count=1)
    if output:
        cell.outputs = [nbformat.v4.new_output("stream", text=output)]
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "planted.ipynb")
    options = ["-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env", f"--nbval-cell-timeout={PATIENCE}"]
    command = [sys.executable, "-m", "pytest", *options, f"--rootdir={tmp_path}", "-c", "/dev/null", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == (0 if passes else 1), result.stdout


def test_urls_point_at_files_that_exist():
    for path in PATHS:
        for relative in re.findall(r"/(?:blob|raw)/\w+/([\w./-]+)", path.read_text(encoding="utf8")):
            assert (ROOT / Path(relative)).exists(), f"{path.name} links to {relative}"
