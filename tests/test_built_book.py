"""The built pages, opened in a real browser that can reach nothing but this machine.

Skipped, with a reason, where the book is not built or Chromium is not installed; with KODM_REQUIRE_PAGES set that is an
error instead.
"""

import functools
import http.server
import json
import os
import re
import shutil
import threading
from pathlib import Path

import notebooks
import pytest
from bs4 import BeautifulSoup
from chapters import ROOT, chapters
from helpers import PATIENCE

HTML = ROOT / "_build" / "html"
PAGES = sorted(path.relative_to(HTML).as_posix() for path in HTML.glob("book/*.html"))
PAGES += [name for name in ("genindex.html", "search.html") if (HTML / name).exists()]
CHAPTERS = [chapter.stem for chapter in chapters()]

ANIMATION_BYTES = 400_000
PAGE_BYTES = 3_000_000
PICTURE_BYTES = 3_000_000


def missing() -> str | None:
    """Why the pages cannot be tested."""
    index = HTML / "book" / "index.html"
    if not index.exists():
        return "the book is not built: make book"
    sources = [*ROOT.glob("_*.yml"), *(ROOT / "book").glob("*.*"), *(ROOT / "kodm_lite").rglob("*.py")]
    if max(source.stat().st_mtime for source in sources) > index.stat().st_mtime:
        return "the built book is older than its sources: make book"
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return None


if (REASON := missing()) and os.environ.get("KODM_REQUIRE_PAGES"):
    pytest.fail(REASON, pytrace=False)
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def address():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=HTML))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--window-size=1400,1000",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_page_load_timeout(PATIENCE)
    driver.set_script_timeout(PATIENCE)
    yield driver
    driver.quit()


def open_page(browser, url: str) -> list[str]:
    """Open a page and wait until its maths is set; returns the addresses that were requested."""
    browser.get_log("performance"), browser.get_log("browser")  # forget the page before
    browser.get(url)
    browser.execute_async_script(
        "const done = arguments[0];"
        "const ready = () => window.MathJax?.startup?.promise ? MathJax.startup.promise.then(() => done()) : done();"
        "document.readyState === 'complete' ? ready() : addEventListener('load', ready);"
    )
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


@pytest.mark.parametrize("page", PAGES)
def test_page_in_a_browser(page, browser, address):
    requests = open_page(browser, address + page)
    outside = [url for url in requests if not url.startswith((address, "data:", "blob:"))]
    assert not outside, "requests to other hosts"
    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not errors

    count = functools.partial(browser.execute_script, "return document.querySelectorAll(arguments[0]).length")
    assert count(".math") == count(".math > mjx-container"), "maths that is not rendered"
    wrong = "return [...document.querySelectorAll('mjx-merror')].map(e => e.dataset.mjxError + ': ' + e.textContent)"
    assert browser.execute_script(wrong) == [], "maths that MathJax cannot read"

    pictures = "return [...document.images].map(i => [i.src.slice(0, 80), i.alt, i.complete && i.naturalWidth > 0])"
    for source, text, loaded in browser.execute_script(pictures):
        assert text and text != source, f"no alternative text: {source}"
        assert loaded, f"does not load: {source}"


@pytest.mark.parametrize("page", CHAPTERS)
def test_animations_move_without_a_kernel(page, browser, address):
    open_page(browser, f"{address}book/{page}.html")
    moved = browser.execute_script(
        """
        return [...document.querySelectorAll('.tag_animation .cell_output')].map(output => {
            const slider = output.querySelector('input[type=range]');
            if (!slider) return 'no slider';
            const picture = () => [...output.querySelectorAll('img')].map(i => i.src).join() +
                [...output.querySelectorAll('canvas')].map(c => c.toDataURL()).join();
            const before = picture();
            slider.value = slider.value == slider.max ? slider.min : slider.max;
            for (const name of ['input', 'change']) slider.dispatchEvent(new Event(name, {bubbles: true}));
            return before && picture() !== before ? 'moves' : 'stands still';
        })"""
    )
    assert moved and set(moved) == {"moves"}


def soup(page: str) -> BeautifulSoup:
    return BeautifulSoup((HTML / page).read_text(encoding="utf8"), "html.parser")


@pytest.mark.parametrize("page", PAGES)
def test_sizes(page):
    text = (HTML / page).read_text(encoding="utf8")
    assert len(text.encode()) <= PAGE_BYTES
    content = BeautifulSoup(text, "html.parser")
    files = {(HTML / page).parent / image["src"] for image in content.find_all("img") if ":" not in image["src"][:10]}
    assert sum(file.stat().st_size for file in files) <= PICTURE_BYTES
    for animation in content.select(".tag_animation .cell_output"):
        assert len(str(animation).encode()) <= ANIMATION_BYTES


@pytest.mark.parametrize("page", PAGES)
def test_links_within_the_book(page):
    for link in soup(page).find_all("a", href=True):
        path, _, fragment = link["href"].partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = ((HTML / page).parent / path).resolve() if path else HTML / page
        assert target.exists(), f"a link to {link['href']}"
        if fragment and target.suffix == ".html":
            assert _has_anchor(target, fragment), f"a link to {link['href']}"


@functools.cache
def _anchors(target: Path) -> set[str]:
    content = BeautifulSoup(target.read_text(encoding="utf8"), "html.parser")
    return {element["id"] for element in content.find_all(id=True)} | {"", "top"}


def _has_anchor(target: Path, fragment: str) -> bool:
    return fragment in _anchors(target)


@pytest.mark.parametrize("page", CHAPTERS)
def test_numbers_agree_with_the_notebook(page):
    """Equations, figures, theorems and exercises have the same numbers in the page and in the notebook."""
    content = soup(f"book/{page}.html")
    text = (notebooks.NOTEBOOKS / f"{page}.ipynb").read_text(encoding="utf8")
    equations = [number.text.strip("()#¶") for number in content.select(".eqno")]
    assert [re.match(r"[\d.]+", number)[0] for number in equations] == re.findall(r"\\\\tag\{([\d.]+)\}", text)
    words = [number.text.split() for number in content.select(".caption-number")]
    for kind in ("Figure", "Theorem", "Definition", "Lemma", "Proposition", "Exercise"):
        numbers = [number for word, number in (pair for pair in words if len(pair) == 2) if word == kind]
        assert numbers == re.findall(rf"\*\*{kind} ([\d.]+\d)", text), kind


@pytest.mark.parametrize("page", CHAPTERS)
def test_chapters_open_their_notebook_in_colab(page):
    links = [link["href"] for link in soup(f"book/{page}.html").find_all("a", href=re.compile("colab"))]
    assert links.count(notebooks.colab_url(page)) >= 2, "a button above and a link under the title"
    assert all("/book/notebooks/" in link and link.endswith(".ipynb") for link in links)


def test_the_page_of_all_checks_lists_them_all():
    rows = [row for row in soup("book/checks.html").select("table.kodm-checks tbody tr")]
    printed = [
        line
        for page in CHAPTERS
        for output in soup(f"book/{page}.html").select(".cell_output .stream pre")
        for line in output.text.splitlines()
        if line.startswith("✓ ")
    ]
    assert len(rows) == len(printed) > 0
    for row, line in zip(rows, printed, strict=True):
        what, measured, *_ = (cell.text.strip() for cell in row.find_all("td"))
        for typographic, plain in (("’", "'"), ("‘", "'"), ("…", "..."), ("–", "--")):
            what = what.replace(typographic, plain)
        assert line.startswith(f"✓ {what}: measured {measured},")


def test_nothing_in_the_styles_comes_from_elsewhere():
    for style in HTML.rglob("*.css"):
        found = re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)\"']+", style.read_text(encoding="utf8"))
        assert not found, f"{style.relative_to(HTML)}: {found}"
