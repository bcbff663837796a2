"""The table of methods, its figures, and the numbers of the paper: what :mod:`kodm_lite.reproduce.run` found.

The numbers of one run come with the package, :func:`shipped`.
"""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PUBLISHED", "PUBLISHED_METHODS", "figure", "gallery", "shipped", "summary", "table"]

#: FID of the paper (arXiv 2509.15328, table 1), by data set, number of steps and method.
PUBLISHED = {
    "SOCOFing": {100: (104.92, 74.41, 67.49), 1000: (23.84, 20.64, 18.75)},
    "Brodatz": {100: (38.33, 20.26, 18.47), 1000: (20.37, 15.42, 14.19)},
    "Terrain": {100: (114.90, 101.65, 92.86), 1000: (33.79, 33.56, 30.62)},
    "CIFAR-10": {100: (38.04, 29.96, 28.17), 300: (25.76, 25.83, 24.86), 1000: (3.17, 11.58, 10.79)},
}
PUBLISHED_METHODS = ("SGM", "KODM global", "KODM local")


def shipped() -> list[dict[str, Any]]:
    """The results of the run that the book quotes, as :func:`kodm_lite.reproduce.run.run` returned them."""
    results: list[dict[str, Any]] = json.loads(Path(__file__).with_name("results.json").read_text(encoding="utf8"))
    return results


def summary(results: list[dict[str, Any]], metric: str = "Fréchet texture distance") -> list[dict[str, Any]]:
    """One line for each data set, method and budget: the mean over seeds, and its error.

    Args:
        results: of :func:`kodm_lite.reproduce.run.run`, or :func:`shipped`.
        metric: name of a row of :func:`kodm_lite.metrics.evaluate.evaluate`.

    Returns:
        Dicts with data, method, title, budget, value, error, floor, seeds and images.  The error is that of the mean
        over seeds, or with one seed the error of its value.

    Raises:
        ValueError: a metric that the results do not have.
    """
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["data"], result["method"], result["budget"]), []).append(result)
    lines = []
    for (data, method, budget), group in groups.items():
        rows = [row for x in group for row in x["evaluation"]["rows"] if row["metric"] == metric]
        if len(rows) < len(group):
            known = [row["metric"] for row in group[0]["evaluation"]["rows"]]
            raise ValueError(f"metric: got {metric!r}, expected one of {known}; try the default")
        values = [row["value"] for row in rows]
        if None in [*values, *(row["floor"] for row in rows), rows[0]["error"]]:
            raise ValueError(f"metric: got {metric!r}, undefined for {data}, expected numbers; try the default")
        several = len(values) > 1
        lines.append(
            {
                "data": data,
                "method": method,
                "title": group[0]["title"],
                "budget": budget,
                "value": statistics.fmean(values),
                "error": statistics.stdev(values) / math.sqrt(len(values)) if several else rows[0]["error"],
                "floor": statistics.fmean(row["floor"] for row in rows),
                "seeds": len(values),
                "images": group[0]["evaluation"]["images"],
            }
        )
    return lines


def table(lines: list[dict[str, Any]]) -> str:
    """The lines of :func:`summary` as text: a block for each data set, a line for each method, a column a budget."""
    blocks = []
    for data in dict.fromkeys(line["data"] for line in lines):
        own = [line for line in lines if line["data"] == data]
        budgets = sorted({line["budget"] for line in own})
        floor = statistics.fmean(line["floor"] for line in own)
        head = f"{data}: floor {floor:.2f}, {own[0]['images']} images"
        rows = [["network evaluations", *(str(budget) for budget in budgets)]]
        for title in dict.fromkeys(line["title"] for line in own):
            of_title = (line for line in own if line["title"] == title)
            cells = {line["budget"]: f"{line['value']:.2f} ± {line['error']:.2f}" for line in of_title}
            rows.append([title, *(cells.get(budget, "") for budget in budgets)])
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        text = [
            "  ".join([row[0].ljust(widths[0]), *(x.rjust(w) for x, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
        blocks.append("\n".join([head, *text]))
    return "\n\n".join(blocks)


def figure(lines: list[dict[str, Any]]) -> Figure:
    """A matplotlib figure of the lines of :func:`summary`: distance against budget, an axis for each data set."""
    import matplotlib.pyplot as plt  # here, because it takes a second
    from matplotlib.ticker import NullFormatter, NullLocator

    names, titles = (list(dict.fromkeys(line[key] for line in lines)) for key in ("data", "title"))
    budgets = sorted({line["budget"] for line in lines})
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    size = (2.9 * columns, 2.4 * rows + 0.8)
    made, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    handles: dict[str, Any] = {}
    for ax, data in zip(axes.flat, names, strict=False):
        own = [line for line in lines if line["data"] == data]
        for k, title in enumerate(titles):  # the same colour and marker in every axis; a style may have too few colours
            points = sorted((x for x in own if x["title"] == title), key=lambda x: x["budget"])
            if points:
                values = [[point[key] for point in points] for key in ("budget", "value", "error")]
                style: dict[str, Any] = {"color": plt.get_cmap("tab10")(k % 10), "marker": "osD^vPX<>"[k % 9]}
                handles[title] = ax.errorbar(*values[:2], yerr=values[2], markersize=4, capsize=2, **style)
        handles["floor"] = ax.axhline(statistics.fmean(x["floor"] for x in own), color="0.5", linestyle=":")
        ax.set(title=data, xlabel="network evaluations", xscale="log", yscale="log")
        ax.set_xticks(budgets, [str(budget) for budget in budgets])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_minor_formatter(NullFormatter())
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for row in axes:
        row[0].set_ylabel("texture distance")
    order = sorted(handles, key=[*titles, "floor"].index)
    made.legend([handles[x] for x in order], order, loc="outside lower center", ncols=2, fontsize="small")
    return made


def gallery(folder: Path, lines: list[dict[str, Any]], budget: int) -> Figure:
    """A matplotlib figure of samples: a column for each data set, a row for each method, half of each picture.

    Args:
        folder: of :func:`kodm_lite.reproduce.run.run`, with the pictures of the cells; a picture that is not there is
            left out.
        lines: of :func:`summary`.
        budget: which samples.
    """
    import matplotlib.pyplot as plt  # here, because it takes a second

    names = list(dict.fromkeys(line["data"] for line in lines))
    titles = dict.fromkeys((line["method"], line["title"]) for line in lines)
    size = (2.0 + 1.9 * len(names), 0.3 + 0.5 * len(titles))
    made, axes = plt.subplots(len(titles), len(names), figsize=size, squeeze=False, layout="constrained")
    for row, (method, title) in zip(axes, titles, strict=True):
        row[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize="small")
        for ax, data in zip(row, names, strict=True):
            ax.set(xticks=[], yticks=[], frame_on=False)
            path = folder / "cells" / f"{data}.{method}.{budget}.0.png"
            if path.is_file():
                picture = plt.imread(path)
                ax.imshow(picture[:, : picture.shape[1] // 2], cmap="gray", interpolation="nearest")
    for ax, data in zip(axes[0], names, strict=True):
        ax.set_title(data, fontsize="medium")
    return made
