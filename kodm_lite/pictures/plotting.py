"""Pictures of angles: one style, one cyclic colour map, and animations that need no kernel.

Angles are shown with ``twilight``, a cyclic and perceptually uniform map: -pi and pi have the same colour, and equal
steps of angle look like equal steps of colour.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor
from torch.nn import functional

from kodm_lite.circular import wrap
from kodm_lite.encoding import Encoding
from kodm_lite.pictures.lic import line_integral_convolution
from kodm_lite.pictures.mosaic import CYCLIC, image_grid

__all__ = [
    "COLOURS",
    "CYCLIC",
    "FrameSlider",
    "circle",
    "frame_slider",
    "histogram",
    "image_grid",
    "phase_axis",
    "phase_wheel",
    "show_images",
    "show_orientations",
    "show_phases",
    "sticks",
    "style",
    "use_style",
]

COLOURS = ("#3b6fb6", "#d1603d", "#2f8f6b", "#8a5aa8", "#b08a2e", "#5f6b7a")

_STYLE: dict[Any, Any] = {
    "figure.figsize": (6.4, 3.2),
    "figure.dpi": 110,
    "figure.max_open_warning": 0,  # frames of an animation are open together
    "figure.constrained_layout.use": True,
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "font.size": 9.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "image.cmap": "gray",
}


def style() -> AbstractContextManager[None]:
    """The book's figure style, as a context: ``with style(): ...``; :func:`use_style` sets it for a whole notebook."""
    return plt.rc_context(_STYLE)


def use_style() -> None:
    """Set the book's figure style for the rest of the session."""
    plt.rcParams.update(_STYLE)


def show_phases(ax: Axes, theta: Tensor, title: str = "") -> AxesImage:
    """An image of phases (H, W) or (1, H, W), radians, in cyclic colours; returns the matplotlib image."""
    picture = ax.imshow(_plane(wrap(theta)), cmap=CYCLIC, vmin=-math.pi, vmax=math.pi, interpolation="nearest")
    _bare(ax, title)
    return picture


def show_images(ax: Axes, theta: Tensor, title: str = "", *, encoding: Encoding) -> AxesImage:
    """The grey image that phases (H, W) or (1, H, W) stand for; returns the matplotlib image."""
    picture = ax.imshow(_plane(encoding.decode(theta)), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    _bare(ax, title)
    return picture


def show_orientations(ax: Axes, doubled: Tensor, title: str = "", magnify: int = 6) -> AxesImage:
    """A field of doubled angles (H, W) as lines that run along it, coloured by their orientation."""
    lines = line_integral_convolution(_field(doubled), magnify, generator=torch.Generator().manual_seed(0))
    arrows = torch.stack([doubled.cos(), doubled.sin()])[None].float()
    turns = functional.interpolate(arrows, scale_factor=magnify, mode="bilinear")[0]
    colours = colormaps[CYCLIC](torch.atan2(turns[1], turns[0]).numpy() / (2 * math.pi) + 0.5)[..., :3]
    extent = (-0.5, doubled.shape[1] - 0.5, doubled.shape[0] - 0.5, -0.5)
    picture = ax.imshow(colours * (0.35 + 0.65 * lines.numpy()[..., None]), extent=extent)
    _bare(ax, title)
    return picture


def sticks(ax: Axes, doubled: Tensor, coherence: Tensor | None = None, every: int = 4, colour: str = "tab:red") -> None:
    """A field of doubled angles (H, W) as short lines, which are shorter where it is less coherent."""
    field = _field(doubled)[every // 2 :: every, every // 2 :: every] / 2
    length = 0.45 * every * (1 if coherence is None else coherence.cpu()[every // 2 :: every, every // 2 :: every])
    right, down = (length * field.cos()).numpy(), (length * field.sin()).numpy()
    row, column = np.mgrid[0 : field.shape[0], 0 : field.shape[1]] * every + every // 2
    ends = np.stack([np.stack([column - right, row - down], -1), np.stack([column + right, row + down], -1)], -2)
    ax.add_collection(LineCollection(list(ends.reshape(-1, 2, 2)), colors=colour, linewidths=1.2))


def _field(doubled: Tensor) -> Tensor:
    if doubled.ndim != 2:
        raise ValueError(f"doubled: got shape {tuple(doubled.shape)}, expected one field (H, W); try doubled[0]")
    return doubled.detach().cpu().float()


def phase_axis(axis: Axis) -> None:
    """Ticks at multiples of pi / 2 on a matplotlib axis (``ax.xaxis`` or ``ax.yaxis``)."""
    ticks = [k * math.pi / 2 for k in range(-2, 3)]
    axis.set_ticks(ticks, [r"$-\pi$", r"$-\pi/2$", "0", r"$\pi/2$", r"$\pi$"])


def circle(ax: Axes, theta: Tensor, arrow: bool = True, size: float = 18) -> None:
    """Phases as points on the unit circle, coloured by angle, with their order parameter as an arrow."""
    theta = theta.detach().flatten().cpu()
    turn = torch.linspace(0, 2 * math.pi, 181)
    ax.plot(turn.cos(), turn.sin(), color="0.75", linewidth=1, zorder=0)
    look: dict[str, Any] = {"cmap": CYCLIC, "vmin": -math.pi, "vmax": math.pi, "edgecolors": "0.35"}
    ax.scatter(theta.cos(), theta.sin(), size, wrap(theta), linewidths=0.4, **look)
    if arrow:
        tip = float(theta.cos().mean()), float(theta.sin().mean())
        look = {"arrowstyle": "-|>", "color": COLOURS[1], "linewidth": 2, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", tip, (0, 0), arrowprops=look)
    ax.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal")
    ax.axis("off")


def histogram(ax: Axes, theta: Tensor, bins: int = 72, **options: Any) -> None:
    """Histogram of phases as a density over [-pi, pi), comparable with exact densities."""
    options = {"color": "0.78", "edgecolor": "none", **options}
    ax.hist(wrap(theta.detach().flatten().cpu()).numpy(), bins=bins, range=(-math.pi, math.pi), density=True, **options)
    ax.set(xlim=(-math.pi, math.pi))
    phase_axis(ax.xaxis)


def phase_wheel(ax: Axes) -> None:
    """The colour key of phases: a ring that shows which colour is which angle.  ``ax`` must be a polar axis."""
    turn = np.linspace(-math.pi, math.pi, 257)
    ax.pcolormesh(turn, [0.6, 1.0], turn[None, :-1], cmap=CYCLIC, vmin=-math.pi, vmax=math.pi, rasterized=True)
    ax.set(ylim=(0, 1), yticks=[], xticks=[0, math.pi / 2, math.pi, 3 * math.pi / 2])
    ax.set_xticklabels(["0", r"$\pi/2$", r"$\pm\pi$", r"$-\pi/2$"], fontsize=8)
    ax.grid(False)
    ax.spines[:].set_visible(False)


class FrameSlider:
    """Pictures with a slider and a play button, as plain HTML that works offline; made by :func:`frame_slider`."""

    def __init__(self, pictures: Sequence[bytes], labels: Sequence[str], alt: str):
        self.pictures, self.labels, self.alt = list(pictures), list(labels), alt

    def _repr_html_(self) -> str:
        # The script finds its own box by content, the first not yet taken: the same slider may stand on a page twice.
        key = hashlib.sha256(b"".join(self.pictures) + repr((self.labels, self.alt)).encode()).hexdigest()[:16]
        uris = ["data:image/webp;base64," + base64.b64encode(p).decode() for p in self.pictures]
        data = ",".join(f'"{uri}"' for uri in uris[1:])  # the first one is in the page already
        labels = json.dumps(self.labels).replace("<", "\\u003c")  # no label can end the script
        last = len(self.pictures) - 1
        return f"""<div class="frame-slider" data-frames="{key}">
<img class="dark-light" src="{uris[0]}" alt="{html.escape(self.alt, quote=True)}"
style="max-width:100%;background:#fff;border-radius:4px">
<div style="display:flex;gap:.6em;align-items:center;max-width:40em">
<button type="button" aria-label="play or pause" style="width:2.4em">&#9654;</button>
<input type="range" min="0" max="{last}" value="0" aria-label="frame" style="flex:1">
<span style="min-width:8em;font-variant-numeric:tabular-nums"></span></div></div>
<script>(function(){{
const labels={labels},box=document.querySelector('[data-frames="{key}"]:not([data-ready])');
box.dataset.ready="";
const [img,slider,text,button]=["img","input","span","button"].map(s=>box.querySelector(s));
const frames=[img.src,{data}];
let timer=null;
function show(){{img.src=frames[slider.value];text.textContent=labels[slider.value];}}
function stop(){{clearInterval(timer);timer=null;button.innerHTML="&#9654;";}}
slider.oninput=show;
button.onclick=()=>{{if(timer)return stop();button.innerHTML="&#10074;&#10074;";
if(+slider.value>={last})slider.value=-1;
timer=setInterval(()=>{{slider.value=+slider.value+1;show();if(+slider.value>={last})stop();}},120);}};
show();}})();</script>"""


def frame_slider(figures: Sequence[Figure], labels: Sequence[str], alt: str, quality: int = 80) -> FrameSlider:
    """Make a :class:`FrameSlider` of matplotlib figures of one size, and close them.

    Args:
        figures, labels: one per frame; labels are texts beside the slider, for instance "t = 0.25".
        alt: what the animation shows, for readers who do not see it.
        quality: of the WebP compression, 1 to 100.

    Raises:
        ValueError: no figures, or another number of labels.
    """
    if not figures or len(figures) != len(labels):
        got = f"{len(figures)} and {len(labels)}"
        raise ValueError(f"figures, labels: got {got}, expected the same number, at least 1; try one label per figure")
    pictures = []
    for figure in figures:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="webp", dpi=100, facecolor="white", pil_kwargs={"quality": quality})
        plt.close(figure)
        pictures.append(buffer.getvalue())
    return FrameSlider(pictures, labels, alt)


def _plane(x: Tensor) -> np.ndarray:
    return x.detach().cpu().reshape(x.shape[-2:]).numpy()


def _bare(ax: Axes, title: str) -> None:
    ax.set(xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(False)
