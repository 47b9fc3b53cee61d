"""The report's first screen in a real browser: what must be seen without scrolling, at each width, on screen and in print."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from reports.render.build import build_report
from tests.reports.conftest import Fake, write_fake
from tests.reports.pages import SCHEMES, cut_in_print, cut_texts, errors, hidden_texts, open_page, requests, violations

pytestmark = pytest.mark.browser
WIDTHS = [((1280, 900), 900), ((820, 1180), 900), ((390, 844), 1700)]
METHODS = {
    "full": (20, 480, 1.0, 10.0),
    "12 steps": (12, 288, 0.6, 9.0),
    "8 steps": (8, 192, 0.4, 8.0),
    "5 steps": (5, 120, 0.26, 6.0),
    "ilf(steps=10)": (10, 240, 0.5, 9.9),
    "ilf(steps=6)": (6, 150, 0.32, 9.4),
    "deepcache(interval=3)": (20, 240, 0.52, 8.3),
    "fora(interval=2)": (20, 260, 0.56, 8.75),
}


@pytest.fixture(scope="module")
def first_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    write_fake(folder, Fake(methods=METHODS))
    return build_report(folder)


def bottoms(browser: Any) -> dict[str, float]:
    """Where each part of the first screen ends, in pixels from the page's top; of the table, its fourth row."""
    script = """
    const parts = {title: 'h1', sentence: '.sentence', plot: '.lead-plot .plot svg', strip: '.strip table',
                   rows: '.overview > .scroll tbody tr:nth-child(4)'};
    const found = {};
    for (const [name, selector] of Object.entries(parts)) {
      const shown = [...document.querySelectorAll(selector)].filter(e => e.getClientRects().length);
      found[name] = shown[0].getBoundingClientRect().bottom + scrollY;
    }
    return found;"""
    return dict(browser.execute_script(script))


@pytest.mark.parametrize(("size", "most"), WIDTHS)
def test_the_answer_needs_no_scrolling(browser: Any, first_page: Path, size: tuple[int, int], most: int) -> None:
    open_page(browser, first_page, size, "light")
    found = bottoms(browser)
    assert max(found.values()) <= most, found
    assert errors(browser) == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("size", "most"), WIDTHS)
def test_it_is_accessible_and_nothing_is_cut(
    browser: Any, first_page: Path, size: tuple[int, int], most: int, scheme: str
) -> None:
    open_page(browser, first_page, size, scheme)
    assert violations(browser) == []
    assert cut_texts(browser, ".lead-plot svg") == [] and hidden_texts(browser, ".scroll, .contents, pre") == []
    assert requests(browser) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= size[0]


@pytest.mark.parametrize(("size", "most"), WIDTHS)
def test_labels_never_lie_about_their_marker(browser: Any, first_page: Path, size: tuple[int, int], most: int) -> None:
    """A label touches no marker of another method, and without a leader line its own marker is the nearest one."""
    open_page(browser, first_page, size, "light")
    script = """
    const bad = [];
    const svg = [...document.querySelectorAll('.lead-plot svg')].find(s => s.getClientRects().length);
    const box = e => e.getBoundingClientRect();
    const marks = [...svg.querySelectorAll('.pt')].map(g => [g.dataset.m, box(g.querySelector('use'))]);
    const led = new Set([...svg.querySelectorAll('.leader')].map(l => l.dataset.m));
    const apart = (low, high, least, most) => Math.max(0, least - high, low - most);
    const gap = (a, b) => Math.hypot(apart(a.left, a.right, b.left, b.right), apart(a.top, a.bottom, b.top, b.bottom));
    for (const text of svg.querySelectorAll('.lb')) {
      const here = box(text);
      const gaps = marks.map(([m, b]) => [gap(here, b), m]).sort((a, b) => a[0] - b[0]);
      for (const [m, b] of marks)
        if (m !== text.dataset.m && gap(here, b) === 0) bad.push(`${text.textContent} over the marker of ${m}`);
      if (!led.has(text.dataset.m) && gaps[0][1] !== text.dataset.m) bad.push(`${text.textContent} is nearest to ${gaps[0][1]}`);
    }
    return [bad, svg.querySelectorAll('.lb:not(.plain)').length];"""
    bad, named = browser.execute_script(script)
    assert bad == [] and named == 5  # the full run and every accelerator


def test_a_wide_table_fades_where_more_follows_and_keeps_its_first_column(browser: Any, first_page: Path) -> None:
    """Its heading, too, so that no other heading stands over the names of the methods; at the end nothing fades."""
    open_page(browser, first_page, (390, 844), "light")
    script = """
    const box = document.querySelector('.overview > .scroll');
    box.scrollLeft = arguments[0] ? box.scrollWidth : 0;
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    const lefts = ['thead th', 'tbody th'].map(s => Math.round(box.querySelector(s).getBoundingClientRect().left));
    return [getComputedStyle(box).maskImage, ...lefts];"""
    fading, *at_start = browser.execute_script(script, False)
    whole, *at_end = browser.execute_script(script, True)
    assert "linear-gradient" in fading and whole == "none"
    assert at_start == at_end and at_end[0] == at_end[1]


def test_contents_stay_in_sight_and_the_command_can_be_copied(browser: Any, first_page: Path) -> None:
    open_page(browser, first_page, (1280, 900), "light")
    assert (
        browser.execute_script("scrollTo(0, 3000); return document.querySelector('.contents').getBoundingClientRect().top") == 0
    )
    named = "return [...document.querySelectorAll('.contents a')].every(a => document.getElementById(a.hash.slice(1)))"
    assert browser.execute_script(named)
    browser.execute_script("navigator.clipboard.writeText = async text => { window.copied = text; }")
    button = browser.find_element("css selector", "[data-copy]")
    button.click()
    assert browser.execute_script("return window.copied").startswith("ilf-bench run tiny-text") and button.text == "copied"


def test_a_row_opens_its_reasons(browser: Any, first_page: Path) -> None:
    open_page(browser, first_page, (1280, 900), "light")
    first = browser.find_element("css selector", ".why-row")
    assert first.find_element("css selector", ".answer").text == "yes"
    first.find_element("css selector", "summary").click()
    assert "It costs" in first.text and "Against" in first.text
    scores = [item.text for item in first.find_elements("css selector", "li")]
    assert [score.split(":")[0] for score in scores] == ["Good score", "Far score"] and "better, +" in scores[0]
    beyond = "const box = document.querySelector('.overview > .scroll'); return box.scrollWidth - box.clientWidth"
    assert browser.execute_script(beyond) <= 0, "the other columns stay in sight"


def test_a_click_on_an_image_opens_it_in_the_gallery(browser: Any, first_page: Path) -> None:
    """Beside the full run's, at the same sample."""
    open_page(browser, first_page, (1280, 900), "light")
    second = browser.find_elements("css selector", ".strip thead th .strip-name")[2].text.replace("\n", "")
    browser.find_elements("css selector", ".strip tbody tr:nth-child(2) td a")[2].click()
    assert "gallery.html#" in browser.current_url
    from selenium.webdriver.support.select import Select

    chosen = [Select(browser.find_element("id", name)).first_selected_option.text for name in ("first", "second")]
    assert chosen == ["full", second]
    assert browser.find_element("css selector", ".card h2").text == "Sample 0: red apple"


def test_what_the_marks_mean_is_seen_without_a_pointer(browser: Any, first_page: Path) -> None:
    open_page(browser, first_page, (1280, 900), "light")
    marks = browser.find_element("css selector", ".chips").text
    assert "tiny scorers small networks" in marks and "of the full run timed twice" in marks
    assert "both scores: open a row" in browser.find_element("css selector", ".overview > .scroll thead").text


@pytest.mark.parametrize("size", [*(size for size, _ in WIDTHS), (1000, 900), (805, 900)])
def test_the_images_take_the_width_that_they_have(browser: Any, first_page: Path, size: tuple[int, int]) -> None:
    """All of them are seen without scrolling, and no tenth of the strip is left empty beside them."""
    open_page(browser, first_page, size, "light")
    script = """
    const box = document.querySelector('.strip .scroll'), lefts = [...box.querySelectorAll('th[data-m]')];
    const images = [...box.querySelectorAll('img')].map(i => i.getBoundingClientRect());
    const frame = box.getBoundingClientRect();
    return [lefts.length, Math.max(...images.map(b => b.right)), frame.left, frame.right, box.scrollWidth - box.clientWidth];"""
    methods, right, left, end, beyond = browser.execute_script(script)
    assert methods == 6 and beyond <= 0 and right <= end
    assert right - left >= 0.85 * (end - left)


def test_nothing_is_cut_in_print(browser: Any, first_page: Path) -> None:
    """In print every table fits the paper's width: no container hides a part that nobody can scroll to."""
    open_page(browser, first_page, (1280, 900), "light")
    cut = cut_in_print(browser)
    closed = """
    return [...document.querySelectorAll('details:not(.why-row)')].filter(d => d.querySelector('summary').checkVisibility())
      .map(d => d.lastElementChild.checkVisibility({contentVisibilityProperty: true}));"""
    told = browser.execute_script(closed)
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"landscape": True, "printBackground": True})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert cut == [] and all(told) and len(told) > 2, "what is folded on a screen is printed"
    assert not all(browser.execute_script(closed))
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")
