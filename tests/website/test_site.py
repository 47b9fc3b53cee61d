"""The built site (``make site``): links and fragments lead somewhere, nothing is loaded from elsewhere, people can use it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from harness.paths import ROOT
from tests.reports.conftest import browser  # noqa: F401
from tests.reports.pages import SCHEMES, SIZES, errors, violations
from tests.website.html import SITE, pages, read

pytestmark = pytest.mark.site
MAIN = ("index", "overview", "tutorial", "compare-a-cache", "statistics", "reference/cli", "reference/python", "results/field")
ELSEWHERE = re.compile(r"(?:https?:)?//(?!www\.w3\.org/)[\w.-]+\.[a-z]{2,}", re.IGNORECASE)


class Quiet(SimpleHTTPRequestHandler):
    """The files of the site, without a log."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_every_link_and_fragment_leads_somewhere() -> None:
    broken = []
    for path in pages():
        for link in read(path).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            named = parts.fragment in (
                "",
                "__skip",
                *(read(target).names if target.suffix == ".html" and target.exists() else ()),
            )
            if not target.exists() or not named:
                broken.append(f"{path.relative_to(SITE)}: {link}")
    assert not broken


def test_no_page_or_style_loads_from_elsewhere() -> None:
    loaded = {f"{path.relative_to(SITE)}: {what}" for path in pages() for what in read(path).loaded if ELSEWHERE.match(what)}
    styles = {
        path.name for path in SITE.rglob("*.css") if re.search(r"(?:url\(|@import\s)['\"]?(?:https?:)?//", path.read_text())
    }
    assert not loaded and not styles


def test_every_page_of_docs_is_a_page_of_the_site() -> None:
    names = {path.relative_to(SITE).with_suffix("").as_posix() for path in pages()}
    wanted = {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in (ROOT / "docs").rglob("*.md")} - {"README"}
    assert wanted <= names and {"reference/cli", "reference/python", "reference/configuration", "overview"} <= names


def test_the_reference_of_python_describes_every_public_name() -> None:
    import ilf_bench

    names = read(SITE / "reference" / "python.html").names
    missing = [name for name in ilf_bench.__all__ if not any(one.endswith(f".{name}") for one in names)]
    assert not missing


def open_page(browser: Any, url: str, size: tuple[int, int], scheme: str) -> None:  # noqa: F811
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(url)
    browser.execute_script("localStorage.clear()")  # in which the theme keeps the colours of the page before
    browser.refresh()
    shown = browser.execute_script("return document.body.dataset.mdColorScheme")
    assert shown == {"light": "default", "dark": "slate"}[scheme]


@pytest.mark.browser
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES, ids=["1280", "390"])
def test_the_main_pages_in_a_browser(browser: Any, address: str, size: tuple[int, int], scheme: str) -> None:  # noqa: F811
    """Nothing that axe-core finds grave, no error, no sideways scrolling of the page, no request to anybody else."""
    found = []
    for name in MAIN:
        open_page(browser, f"{address}/{name}.html", size, scheme)
        wide = browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        asked = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
        problems = [*violations(browser, grave=True), *errors(browser), *[url for url in asked if not url.startswith(address)]]
        found += [f"{name}: {problem}" for problem in problems] + [f"{name}: {wide} px too wide"] * (wide > 0)
    assert not found


@pytest.mark.browser
@pytest.mark.parametrize(("words", "page"), [("Hesterberg", "statistics.html"), ("deepcache", "reference/methods.html")])
def test_the_search_finds_pages(browser: Any, address: str, words: str, page: str) -> None:  # noqa: F811
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    open_page(browser, f"{address}/index.html", SIZES[0], SCHEMES[0])
    box = browser.find_element(By.CSS_SELECTOR, "input.md-search__input")
    browser.execute_script("document.getElementById('__search').click()")
    WebDriverWait(browser, 20).until(lambda _: box.is_displayed())
    box.send_keys(words)

    def listed(_: Any) -> list[str]:
        links = browser.find_elements(By.CSS_SELECTOR, "a.md-search-result__link")
        return [str(link.get_attribute("href")) for link in links]

    results = WebDriverWait(browser, 30).until(listed)
    assert any(f"/{page}" in urlsplit(url)._replace(query="").geturl() for url in results), results


def test_the_site_was_built_from_these_pages() -> None:
    """A site that is older than a page would be judged in its place."""
    built = (SITE / "index.html").stat().st_mtime
    late = [path.name for path in Path(ROOT / "docs").rglob("*.md") if path.stat().st_mtime > built]
    assert not late, "run `make site` again"
