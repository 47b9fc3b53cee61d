"""The report in a real browser: no errors, no overflow, accessible, and every control does what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.reports.pages import SCHEMES, SIZES, VIEWS, cut_texts, errors, hidden_texts, open_page, requests, violations

pytestmark = pytest.mark.browser
ROWS = "return document.querySelectorAll('{}').length"


def shown(browser: Any, selector: str) -> int:
    """How many elements of a selector have a place on the page."""
    script = "return [...document.querySelectorAll(arguments[0])].filter(e => e.getClientRects().length).length"
    return int(browser.execute_script(script, selector))


@pytest.mark.parametrize(("size", "scheme"), VIEWS)
def test_page_fits_and_is_accessible(browser: Any, report_folder: Path, size: tuple[int, int], scheme: str) -> None:
    open_page(browser, report_folder / "index.html", size, scheme)
    assert errors(browser) == []
    inner, scroll = browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
    assert inner == size[0] and scroll <= inner
    widths = browser.execute_script("return [...document.images].map(i => i.complete ? i.naturalWidth : 0)")
    assert len(widths) == 4 * 4 + 3 * 2 and all(w > 0 for w in widths)
    assert cut_texts(browser, ".plot svg") == [] and hidden_texts(browser, ".scroll, .contents, pre") == []
    assert requests(browser) == []
    assert violations(browser) == []


def test_colours_follow_the_scheme(browser: Any, report_folder: Path) -> None:
    ink = "return getComputedStyle(document.querySelector('.pt use')).fill + getComputedStyle(document.body).backgroundColor"
    found = set()
    for scheme in SCHEMES:
        open_page(browser, report_folder / "index.html", SIZES[0], scheme)
        found.add(browser.execute_script(ink))
    assert len(found) == 2


def test_wide_tables_scroll_inside_their_own_container(browser: Any, report_folder: Path) -> None:
    open_page(browser, report_folder / "index.html", (390, 844), "light")
    wide = "return [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length"
    assert browser.execute_script(wide) >= 3
    outside = "return [...document.querySelectorAll('table')].filter(e => !e.closest('.scroll')).map(e => e.tagName)"
    assert browser.execute_script(outside) == []


def test_a_method_can_be_hidden_everywhere_and_brought_back(browser: Any, report_folder: Path) -> None:
    open_page(browser, report_folder / "index.html", SIZES[0], "light")
    box = browser.find_element("xpath", "//label[span='12 steps']/input")
    number = box.get_attribute("data-method")
    before = shown(browser, f"[data-m='{number}']")
    assert before > 4
    box.click()
    assert shown(browser, f"[data-m='{number}']") == 0
    box.click()
    assert shown(browser, f"[data-m='{number}']") == before


def test_a_family_can_be_hidden_with_one_button(browser: Any, report_folder: Path) -> None:
    open_page(browser, report_folder / "index.html", SIZES[0], "light")
    points = shown(browser, "figure[data-k=far] .pt")
    button = browser.find_element("css selector", "button[data-family]")
    button.click()
    assert shown(browser, "figure[data-k=far] .pt") == points - 2 and button.text == "show all"
    button.click()
    assert shown(browser, "figure[data-k=far] .pt") == points and button.text == "hide all"


def test_metrics_and_cost_axis_can_be_chosen(browser: Any, report_folder: Path) -> None:
    open_page(browser, report_folder / "index.html", SIZES[0], "light")
    assert shown(browser, "figure[data-k]") == 2
    browser.find_element("css selector", "input[value=block_evaluations]").click()
    assert shown(browser, "details[data-cost=latency_s]") == 0 and shown(browser, "details[data-cost=block_evaluations]") == 2
    assert shown(browser, "figure[data-k]") == 2
    browser.find_element("css selector", "input[data-metric=good]").click()
    assert shown(browser, "[data-k=good]") == 0 and shown(browser, "[data-k=far]") > 0


def test_points_are_read_by_pointer_and_by_arrow_keys(browser: Any, report_folder: Path) -> None:
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.support.ui import WebDriverWait

    open_page(browser, report_folder / "index.html", SIZES[0], "light")
    point = browser.find_element("css selector", "figure[data-k=far] .pt use")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)

    def pointed_at(_: Any) -> str:
        ActionChains(browser).move_to_element(point).perform()
        return str(browser.find_element("id", "tip").text)

    text = WebDriverWait(browser, 10).until(pointed_at)  # on a busy machine the page may still be scrolling
    assert text.startswith("full\nFar score")
    plot = browser.find_element("css selector", "figure[data-k=far] .plot")
    browser.execute_script("arguments[0].focus()", plot)
    labels = []
    for _ in range(2):
        ActionChains(browser).send_keys(Keys.ARROW_LEFT).perform()
        labels.append(browser.find_element("id", "tip").text.split("\n")[0])
    assert labels == ["12 steps", "ilf(steps=10)"]  # from the pointer's point, dearest first
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert shown(browser, "#tip") == 0


def test_everything_is_there_without_a_script(browser: Any, report_folder: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        open_page(browser, report_folder / "index.html", SIZES[0], "light")
        source = browser.page_source
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert '<html lang="en">' in source  # no class js
    assert shown(browser, "figure[data-k]") >= 2 and shown(browser, "[data-needs-script]") == 0
    assert shown(browser, "tbody tr") > 10
