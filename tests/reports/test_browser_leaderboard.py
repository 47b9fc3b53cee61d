"""The leaderboard in a real browser: widths, schemes, filters, accessibility, and no request to anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reports.analysis.leaderboard import boards, entries, source_of
from reports.render.leaderboard import leaderboard_page
from tests.reports.analysis.test_leaderboard import one
from tests.reports.pages import SIZES, VIEWS, cut_in_print, errors, hidden_texts, open_page, violations

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs on two devices, one of whose names could do harm."""
    folder = tmp_path_factory.mktemp("leaderboard")
    runs = [one(folder), one(folder, {"seed": 7}), one(folder, device_name="<b>A GPU</b> 'of' \"ours\"", machine_key="m2")]
    named = [(run, source_of(run, f"{n:0<64}", f"bundles/{n:0<64}.zip", str(n))) for n, run in enumerate(runs, 1)]
    found = boards([entry for run, source in named for entry in entries(run, source)])
    (folder / "index.html").write_text(leaderboard_page(found, [source for _, source in named], ["evil.zip: <script>"]))
    return folder / "index.html"


def shown(browser: Any, selector: str) -> int:
    """How many elements of that kind are visible."""
    script = "return [...document.querySelectorAll(arguments[0])].filter(e => e.offsetParent !== null).length"
    return int(browser.execute_script(script, selector))


def choose(browser: Any, name: str, value: str) -> None:
    """As a reader does."""
    script = """
    const select = document.getElementById(arguments[0]);
    select.value = arguments[1];
    if (select.value !== arguments[1]) throw new Error('no such option');
    select.dispatchEvent(new Event('change', {bubbles: true}));"""
    browser.execute_script(script, name, value)


@pytest.mark.parametrize(("size", "scheme"), VIEWS)
def test_it_fits_and_is_accessible(browser: Any, page: Path, size: tuple[int, int], scheme: str) -> None:
    open_page(browser, page, size, scheme)
    choose(browser, "metric", "")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= size[0]
    assert violations(browser) == [] and errors(browser) == []
    wide = "return [...document.querySelectorAll('h1,h2,h3,p,dd,li,select,label')].filter(e =>"
    wide += " e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline').map(e => e.outerHTML.slice(0, 80))"
    assert browser.execute_script(wide) == []
    assert browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []
    assert hidden_texts(browser, ".scroll") == []


def test_it_is_whole_on_paper(browser: Any, page: Path) -> None:
    open_page(browser, page, SIZES[0], "light")
    assert cut_in_print(browser) == []


def test_filters_show_what_is_asked_for(browser: Any, page: Path) -> None:
    open_page(browser, page, SIZES[0], "light")
    assert shown(browser, ".ranking") == 2 == shown(browser, ".board") and shown(browser, "tbody tr") == 12 + 6
    choose(browser, "metric", "clip_score")
    assert shown(browser, ".ranking[data-metric=clip_score]") == 2 == shown(browser, ".ranking")
    choose(browser, "device", "One")
    assert shown(browser, ".board") == 1 and shown(browser, "tbody tr") == 12
    choose(browser, "family", "steps")
    assert shown(browser, "tbody tr") == 10
    assert browser.execute_script("return document.getElementById('shown').textContent").startswith("10 rows")
    choose(browser, "device", "<b>A GPU</b> 'of' \"ours\"")
    assert shown(browser, "tbody tr") == 5
    link = "return document.querySelector('.board:not([hidden]) tr[data-family=steps] td a').hash.slice(1)"
    assert browser.execute_script(f"return document.getElementById((() => {{ {link} }})()).className") == "bundle"
