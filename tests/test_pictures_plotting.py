"""Pictures of angles: what is drawn, and HTML that works without a kernel, without a network, several to a page."""

import base64
import io
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from helpers import HELPFUL, PATIENCE
from PIL import Image

import kodm_lite as kodm
from kodm_lite.pictures import plotting

matplotlib.use("Agg")
PI = math.pi
VOID = {"img", "input", "br"}


class Page(HTMLParser):
    """Collects tags with their attributes and checks that they are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.script = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.script += data

    def first(self, tag):
        return next(attributes for name, attributes in self.tags if name == tag)


def figure(shade: float):
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.imshow([[shade]], cmap="gray", vmin=0, vmax=1)
    return fig


def slider(shades=(0.0, 0.5, 1.0), labels=None, alt="a square that brightens"):
    labels = [f"t = {s:.2f}" for s in shades] if labels is None else labels
    return plotting.frame_slider([figure(s) for s in shades], labels, alt)


@pytest.fixture(autouse=True)
def no_figure_left():
    yield
    plt.close("all")


def test_a_slider_is_valid_html_with_alt_text_and_every_frame():
    page = Page(slider()._repr_html_())
    assert page.first("img")["alt"] == "a square that brightens"
    assert (page.first("input")["min"], page.first("input")["max"]) == ("0", "2")
    assert page.first("button")["aria-label"] and page.first("input")["aria-label"]
    frames = re.findall(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", slider()._repr_html_())
    images = [Image.open(io.BytesIO(base64.b64decode(f))) for f in frames]
    assert len(images) == 3 and len({image.size for image in images}) == 1
    brightness = [np.asarray(image.convert("L")).mean() for image in images]
    assert brightness == sorted(brightness) and brightness[0] < brightness[2]


def test_a_slider_asks_no_other_host_and_is_small():
    made = slider()
    text = made._repr_html_()
    assert not re.search(r"https?:|//\w|@import|\bsrc=\"(?!data:)", re.sub(r"base64,[^\"]+", "", text))
    assert len(text.encode("utf-8")) < 20_000


def test_making_a_slider_closes_its_figures_and_is_reproducible():
    first = slider()._repr_html_()
    assert plt.get_fignums() == []
    assert slider()._repr_html_() == first


@pytest.mark.parametrize("text", ['"quoted"', r"$\theta$ \n", "</script><b>", "a < b & c", "θ = π", "it's"])
def test_no_text_breaks_out_of_its_place(text):
    page = Page(slider(labels=[text] * 3, alt=text)._repr_html_())
    assert page.first("img")["alt"] == text
    assert [tag for tag, _ in page.tags] == ["div", "img", "div", "button", "input", "span", "script"]


def test_two_sliders_on_a_page_do_not_share_a_name():
    keys = {
        Page(made._repr_html_()).first("div")["data-frames"]
        for made in (slider(), slider((1.0, 0.5, 0.0)), slider(labels=list("abc")), slider(alt="other"), slider((0.0,)))
    }
    assert len(keys) == 5


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs the Debian package chromium")
def test_sliders_run_in_a_browser_even_the_same_one_twice(tmp_path):
    made = [slider(labels=[r"\theta </script> <b>0", "1", "2"]), slider((0.3, 0.6)), slider((0.3, 0.6)), slider((0.5,))]
    move = """<script>const inputs=document.querySelectorAll("input");
    inputs[2].value=1;inputs[2].oninput();</script>"""
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><body>" + "\n".join(m._repr_html_() for m in made) + move, encoding="utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--user-data-dir={tmp_path}/u"]
    dom = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
    labels = re.findall(r"<span[^>]*>(.*?)</span>", dom)
    assert labels == [r"\theta &lt;/script&gt; &lt;b&gt;0", "t = 0.30", "t = 0.60", "t = 0.50"]


@pytest.mark.parametrize(("figures", "labels"), [(0, 0), (1, 2), (2, 1)])
def test_a_slider_needs_one_label_per_figure(figures, labels):
    with pytest.raises(ValueError, match=HELPFUL):
        plotting.frame_slider([figure(0.5) for _ in range(figures)], ["x"] * labels, "nothing")


def test_phases_are_shown_in_a_cyclic_colour_map_over_the_whole_circle():
    _, ax = plt.subplots()
    theta = torch.tensor([[0.0, 1.0], [2 * PI, -3.0]], requires_grad=True)
    picture = plotting.show_phases(ax, theta[None], title="phases")
    assert picture.get_clim() == (-PI, PI) and picture.cmap.name == "twilight"
    assert np.allclose(picture.get_array(), [[0, 1], [0, -3]], atol=1e-6)
    low, high = picture.cmap(0.0), picture.cmap(1.0)
    assert np.allclose(low, high, atol=0.02), "minus pi and pi look the same"
    assert ax.get_title() == "phases"


def test_images_are_shown_in_grey():
    _, ax = plt.subplots()
    picture = plotting.show_images(ax, torch.tensor([[0.9 * PI, -0.9 * PI, 0.45 * PI]]), encoding=kodm.GreyLevels(0.9))
    assert np.allclose(picture.get_array(), [[1, -1, 0.5]], atol=1e-6)
    assert picture.get_clim() == (-1, 1)


@pytest.mark.parametrize(("batch", "columns", "shape"), [(5, 3, (9, 17)), (2, 8, (4, 47)), (8, 8, (4, 47))])
def test_a_grid_holds_every_image_in_reading_order(batch, columns, shape):
    theta = torch.rand(batch, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    grid = plotting.image_grid(theta, columns)
    assert grid.shape == shape
    for k in range(batch):
        i, j = 5 * (k // columns), 6 * (k % columns)
        assert torch.equal(grid[i : i + 4, j : j + 5], theta[k, 0])
    assert float(grid[:, 5].max()) == pytest.approx(-0.9 * PI), "black between them"


def test_a_histogram_is_a_density_over_the_circle():
    _, ax = plt.subplots()
    plotting.histogram(ax, torch.randn(500, generator=torch.Generator().manual_seed(0)) * 4, bins=36)
    areas = [bar.get_height() * bar.get_width() for bar in ax.patches]
    assert len(areas) == 36 and sum(areas) == pytest.approx(1, abs=1e-6)
    assert ax.get_xlim() == (-PI, PI)
    assert len(ax.get_xticks()) == 5


def test_the_circle_shows_phases_and_their_mean():
    _, ax = plt.subplots()
    plotting.circle(ax, torch.tensor([[0.0, PI / 2]]))
    points = ax.collections[0].get_offsets()
    assert np.allclose(points, [[1, 0], [0, 1]], atol=1e-6)
    (arrow,) = ax.texts
    assert np.allclose(arrow.xy, (0.5, 0.5), atol=1e-6)


def test_the_colour_key_can_be_drawn():
    _, ax = plt.subplots(subplot_kw={"projection": "polar"})
    plotting.phase_wheel(ax)
    ax.figure.savefig(io.BytesIO(), format="png")


def test_the_style_is_local_unless_asked_otherwise():
    before = plt.rcParams["legend.frameon"]
    with plotting.style():
        assert plt.rcParams["legend.frameon"] is False
    assert plt.rcParams["legend.frameon"] is before
    with plt.rc_context():
        plotting.use_style()
        assert plt.rcParams["legend.frameon"] is False
