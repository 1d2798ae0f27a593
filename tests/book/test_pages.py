"""The built pages, opened in a headless Chromium: at two widths, in light and in dark.

The book is built once, from a copy of the tree, with warnings as errors.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("_config.yml", "_toc.yml", "pyproject.toml", "attn", "book", "notebooks", "results")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
# Without the package that holds MathJax, formulas come from here, and a machine may be without a network.
CDN = "" if importlib.util.find_spec("sphinx-mathjax-offline") else "https://cdn.jsdelivr.net/npm/mathjax"
CONTRAST = 4.5  # WCAG 2.1, level AA, for text of normal size


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """Folder of the built pages."""
    tree = tmp_path_factory.mktemp("tree")
    for name in COPIED:
        source, skip = ROOT / name, shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=skip)
        else:
            shutil.copy(source, tree / name)
    build = "from jupyter_book.cli.main import main; main()"
    options = ["build", "-W", "-n", "--keep-going", "."]
    environment = {name: value for name, value in os.environ.items() if name != "ATTN_RESULTS"}
    environment |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    before = {path for path in tree.rglob("*") if path.is_file()}
    done = subprocess.run(
        [sys.executable, "-c", build, *options], cwd=tree, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    left = {path.relative_to(tree) for path in tree.rglob("*") if path.is_file() and path not in before}
    assert {path.parts[0] for path in left} == {"_build"}
    return tree / "_build/html"


@pytest.fixture(scope="module")
def pages(html):
    """Every page as a path relative to the folder."""
    found = sorted(path.relative_to(html).as_posix() for path in html.rglob("*.html"))
    found = [page for page in found if not page.startswith("_static/")]
    assert {"index.html", "book/index.html", "book/scoreboard.html", "search.html"} <= set(found)
    return found


@pytest.fixture(scope="module")
def address(html):
    """Where the pages are served."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=html))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip(f"no Chromium on this machine: none of {', '.join(BROWSERS)} is on the path")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


class Parts(HTMLParser):
    """Links, ids and pictures of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.pictures = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids |= {value for name, value in attributes.items() if name in ("id", "name") and value}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if tag == "img":
            self.pictures.append(attributes)


@pytest.fixture(scope="module")
def parts(html, pages):
    return {page: Parts((html / page).read_text("utf-8")) for page in pages}


# --- without a browser ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_internal_link_leads_somewhere(html, parts):
    broken, followed = [], 0
    for page, found in parts.items():
        for link in found.links:
            if urlsplit(link).scheme or link.startswith("//") or link == "#":
                continue
            target, anchor = urldefrag(urljoin(page, link))
            target = unquote(target)
            followed += 1
            if not (html / target).is_file():
                broken.append(f"{page}: {link}")
            elif anchor and target in parts and unquote(anchor) not in parts[target].ids:
                broken.append(f"{page}: {link} (no such anchor)")
    assert broken == []
    assert followed > 200


@pytest.mark.slow
def test_every_picture_says_what_it_shows(parts):
    """A file name is no description, and it is what a notebook's figure gets where none was written."""
    pictures = [(page, picture) for page, found in parts.items() for picture in found.pictures]
    mute = [
        f"{page}: {picture.get('src')}"
        for page, picture in pictures
        if not (picture.get("alt") or "").strip() or picture["alt"].endswith((".png", ".svg", ".jpg", ".gif"))
    ]
    assert mute == []
    assert any("Neural Turing Machine" in picture["alt"] for _, picture in pictures)


@pytest.mark.slow
def test_search_index_holds_every_page(html, pages):
    index = (html / "searchindex.js").read_text("utf-8")
    written = [page for page in pages if page.startswith(("book/", "notebooks/"))]
    assert len(written) > 8
    assert all(f'"{page.removesuffix(".html")}"' in index for page in written)


# --- with a browser ---------------------------------------------------------------------------------------

OPEN_ALL = "() => document.querySelectorAll('details').forEach(each => { each.open = true })"
FORMULAS = "() => window.MathJax?.startup?.promise?.then(() => true) ?? true"
BAD_IMAGES = """() => [...document.images].filter(each => !(each.complete && each.naturalWidth > 0))
    .map(each => each.currentSrc || each.src)"""
WIDTHS = "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
THEME = "() => document.documentElement.dataset.theme"
# Text of our own pieces whose contrast with what lies behind it is too low. Behind it is the nearest ground
# that is not see-through; no piece uses half-transparent grounds.
FAINT = """(least) => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number)
  const luminance = colour => {
    const [r, g, b] = numbers(colour).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor
      if ((numbers(colour)[3] ?? 1) > 0) return colour
    }
    return 'rgb(255, 255, 255)'
  }
  const faint = new Set()
  let looked = 0
  for (const piece of document.querySelectorAll('.attn-scroll, .attn-note, .attn-fold, .attn-overview, li:has(> .attn-small)')) {
    const walker = document.createTreeWalker(piece, NodeFilter.SHOW_TEXT)
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement
      if (!walker.currentNode.data.trim()) continue
      looked += 1
      const pair = [getComputedStyle(element).color, ground(element)].map(luminance)
      const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05)
      if (ratio < least) faint.add(`${element.className || element.tagName}: ${ratio.toFixed(2)}`)
    }
  }
  return [looked, [...faint]]
}"""


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["desktop", "phone"])
def test_pages_show_without_fault(browser, address, pages, size, theme):
    context = browser.new_context(
        viewport=dict(zip(("width", "height"), size, strict=True)), color_scheme=theme
    )
    # The address that only leads on to the first page names no icon, so the browser asks for one by itself.
    context.route("**/favicon.ico", lambda route: route.fulfill(status=204))
    page, faults, texts = context.new_page(), [], 0
    page.on("console", lambda message: message.type == "error" and faults.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    # A request is given up when the test goes on to the next page; what is missing answers with an error.
    page.on(
        "requestfailed",
        lambda request: request.failure == "net::ERR_ABORTED" or faults.append(f"not loaded: {request.url}"),
    )
    page.on(
        "request", lambda request: request.url.startswith(address) or faults.append(f"outside: {request.url}")
    )
    page.on("response", lambda response: response.status < 400 or faults.append(f"missing: {response.url}"))
    for name in pages:
        before = len(faults)
        page.goto(address + name, wait_until="load")
        page.wait_for_load_state("networkidle")
        if not CDN:
            page.evaluate(FORMULAS)
        page.evaluate(OPEN_ALL)
        faults += [f"no picture: {source}" for source in page.evaluate(BAD_IMAGES)]
        content, window = page.evaluate(WIDTHS)
        if content > window:
            faults.append(f"the page scrolls sideways: {content} in {window} pixels")
        if page.evaluate(THEME) != theme:
            faults.append(f"theme is {page.evaluate(THEME)}")
        looked, faint = page.evaluate(FAINT, CONTRAST)
        texts += looked
        faults += [f"contrast: {text}" for text in faint]
        faults[before:] = [
            f"{name}: {fault}" for fault in faults[before:] if not (CDN and _of_the_cdn(fault))
        ]
    context.close()
    assert faults == []
    assert texts > 500


def _of_the_cdn(fault):
    """A request that went to MathJax's CDN, or the console's unnamed echo of its failure."""
    return CDN in fault or "net::ERR" in fault


@pytest.mark.browser
@pytest.mark.slow
def test_formulas_are_set(browser, address):
    if CDN:
        pytest.skip("formulas come from a CDN here: sphinx-mathjax-offline is not installed")
    page = browser.new_page()
    page.goto(address + "book/notation.html", wait_until="networkidle")
    page.evaluate(FORMULAS)
    assert page.locator("mjx-container").count() > 15
    page.close()


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_one_picture_of_the_front_page_shows(browser, address, theme):
    page = browser.new_page(color_scheme=theme)
    page.goto(address + "index.html", wait_until="networkidle")
    page.wait_for_url("**/book/index.html")
    shown = page.locator("figure.attn-overview img:visible")
    assert shown.count() == 1
    assert shown.get_attribute("src").endswith(f"overview-{theme}.svg")
    page.close()


@pytest.mark.browser
@pytest.mark.slow
def test_search_finds_a_chapter(browser, address):
    page = browser.new_page()
    page.goto(address + "search.html?q=sharpening", wait_until="networkidle")
    page.wait_for_selector("#search-results li a")
    assert page.locator("#search-results li a").count() > 0
    page.close()


@pytest.mark.browser
@pytest.mark.slow
def test_a_wide_table_is_reached_with_the_keyboard(browser, address):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(address + "book/scoreboard.html", wait_until="networkidle")
    table = page.locator(".attn-scroll").first
    table.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('.attn-scroll').scrollLeft > 0")
    page.close()
