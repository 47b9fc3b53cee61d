"""The dashboard in a real browser: it fits, is accessible, and nothing in its plots is cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.history.store import History
from reports.render.dashboard import dashboard
from tests.reports.analysis.test_trend import at
from tests.reports.conftest import Fake, write_fake
from tests.reports.pages import (
    SCHEMES,
    SIZES,
    VIEWS,
    cut_in_print,
    cut_texts,
    errors,
    hidden_texts,
    open_page,
    requests,
    violations,
)

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two presets, twelve days; on the seventh everything became 8% slower. Names are long and hold markup."""
    out = tmp_path_factory.mktemp("history")
    methods = {"full": (20, 480, 1.0, 10.0), "toca(ratio=0.9,interval=3) + <b>solver</b>(unipc)": (10, 240, 0.5, 9.9)}
    run, history = write_fake(out / "run", Fake(methods=methods)), History(out / "history.sqlite")
    for day in range(1, 13):
        late = day >= 7
        history.append(at(run, day, "beef" if late else "abcd", 1.08 if late else 1.0, 1.0, -1.0 if late else 0.0))
    history.append(replace(at(run, 1, "cafe"), spec=dict(run.spec) | {"name": "tiny-class"}))
    file = out / "history.html"
    file.write_text(dashboard(history.runs()))
    return file


@pytest.mark.parametrize(("size", "scheme"), VIEWS)
def test_dashboard_fits_and_is_accessible(browser: Any, page: Path, size: tuple[int, int], scheme: str) -> None:
    open_page(browser, page, size, scheme)
    assert errors(browser) == []
    inner, scroll = browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
    assert inner == size[0] and scroll <= inner
    assert cut_texts(browser, ".plots svg") == [] and hidden_texts(browser, ".scroll") == []
    assert violations(browser) == [] and requests(browser) == []


def test_the_dashboard_is_whole_on_paper(browser: Any, page: Path) -> None:
    open_page(browser, page, SIZES[0], "light")
    assert cut_in_print(browser) == []


def test_dashboard_follows_the_scheme(browser: Any, page: Path) -> None:
    found = set()
    for scheme in SCHEMES:
        open_page(browser, page, SIZES[0], scheme)
        script = "return getComputedStyle(document.querySelector('.run')).fill + getComputedStyle(document.body).backgroundColor"
        found.add(browser.execute_script(script))
    assert len(found) == 2


def test_steps_points_and_their_runs_can_be_read(browser: Any, page: Path) -> None:
    from selenium.webdriver import Keys

    open_page(browser, page, SIZES[0], "light")
    rows = browser.find_elements("css selector", "section[aria-labelledby=moved] tbody tr")
    assert any("▼ worse" in row.text and "beefbeef" in row.text for row in rows)
    script = "return [...document.querySelectorAll('.plots circle.run')].map(c => c.parentNode.textContent)"
    titles = browser.execute_script(script)
    assert len(titles) >= 24 and all("2026-03-" in title for title in titles)
    summary = browser.find_element("css selector", "section[aria-labelledby=preset-2] figure summary")
    summary.send_keys(Keys.ENTER)
    assert len(browser.find_elements("css selector", ".plots figure details[open] tbody tr")) == 12
