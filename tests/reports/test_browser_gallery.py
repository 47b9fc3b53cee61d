"""The gallery in a real browser, from a file: choose, filter, sort, slide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reports.render.build import build_report
from tests.reports.conftest import Fake, write_fake
from tests.reports.pages import SIZES, VIEWS, cut_in_print, errors, hidden_texts, open_page, requests, violations

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def gallery_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a run whose every image has a score."""
    out = tmp_path_factory.mktemp("gallery")
    write_fake(out / "run", Fake(n=4))
    return build_report(out / "run").parent


def headings(browser: Any) -> list[str]:
    return [heading.text for heading in browser.find_elements("css selector", ".card h2")]


def choose(browser: Any, name: str, value: str) -> None:
    from selenium.webdriver.support.select import Select

    Select(browser.find_element("id", name)).select_by_visible_text(value)


@pytest.mark.parametrize(("size", "scheme"), VIEWS)
def test_gallery_fits_and_is_accessible(browser: Any, report_folder: Path, size: tuple[int, int], scheme: str) -> None:
    open_page(browser, report_folder / "gallery.html", size, scheme)
    assert errors(browser) == []
    inner, scroll = browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
    assert inner == size[0] and scroll <= inner
    widths = browser.execute_script(
        "return [...document.images].filter(i => i.src).map(i => (i.loading = 'eager', i.complete ? i.naturalWidth : -1))"
    )
    assert len(widths) == 8 and any(width == 8 for width in widths)
    assert violations(browser) == [] and hidden_texts(browser, "") == [] and requests(browser) == []


def test_the_gallery_is_whole_on_paper(browser: Any, report_folder: Path) -> None:
    open_page(browser, report_folder / "gallery.html", SIZES[0], "light")
    assert cut_in_print(browser) == []


def test_markup_in_prompts_is_text(browser: Any, report_folder: Path) -> None:
    open_page(browser, report_folder / "gallery.html", SIZES[0], "light")
    assert headings(browser) == ["Sample 0: red apple", "Sample 1: <b>x</b>", "Sample 2: cat | face", "Sample 3: hot dog"]


def test_the_slider_moves_the_border_with_keys(browser: Any, report_folder: Path) -> None:
    from selenium.webdriver import Keys

    open_page(browser, report_folder / "gallery.html", SIZES[0], "light")
    slider = browser.find_element("css selector", ".card input[type=range]")
    clip = "return document.querySelector('.card .second').style.clipPath"
    assert "50%" in browser.execute_script(clip)
    slider.send_keys(Keys.END)
    assert "100%" in browser.execute_script(clip)
    slider.send_keys(Keys.HOME)
    assert browser.execute_script(clip) in ("inset(0px)", "inset(0px 0px 0px 0%)")
    browser.execute_script("const e = document.getElementById('every'); e.value = 25; e.dispatchEvent(new Event('input'))")
    found = browser.execute_script("return [...document.querySelectorAll('.card .second')].map(e => e.style.clipPath)")
    assert len(found) == 4 and all("25%" in clip for clip in found)


def test_three_methods_side_by_side_and_a_difference(browser: Any, report_folder: Path) -> None:
    open_page(browser, report_folder / "gallery.html", SIZES[0], "light")
    choose(browser, "third", "8 steps")
    lefts = "return [...document.querySelectorAll('.card:first-child img')].map(i => i.getBoundingClientRect().left)"
    first, second, third = browser.execute_script(lefts)
    assert first < second < third
    tags = browser.execute_script("return [...document.querySelectorAll('.card:first-child .tag')].map(t => t.textContent)")
    assert tags == ["A", "B", "C"] and violations(browser) == []
    view, every = browser.find_element("id", "view"), browser.find_element("id", "every")
    assert not view.is_enabled() and not every.is_enabled(), "three images have no border between two"
    choose(browser, "third", "none")
    assert view.is_enabled() and every.is_enabled()
    choose(browser, "view", "difference × 4")
    assert not every.is_enabled()
    blend = "return getComputedStyle(document.querySelector('.card .second')).mixBlendMode"
    assert browser.execute_script(blend) == "difference"
    assert "view=difference" in browser.execute_script("return location.hash") and errors(browser) == []


def test_a_heading_links_to_one_prompt(browser: Any, report_folder: Path) -> None:
    open_page(browser, report_folder / "gallery.html", SIZES[0], "light")
    browser.find_element("link text", "Sample 2: cat | face").click()
    assert headings(browser) == ["Sample 2: cat | face"] and "sample=2" in browser.execute_script("return location.hash")
    choose(browser, "first", "8 steps")
    assert len(headings(browser)) == 4 and "sample" not in browser.execute_script("return location.hash")


def test_order_by_a_methods_own_values(browser: Any, gallery_folder: Path) -> None:
    fragment = "#first=full&second=ilf(steps%3D10)&metric=good&order=worst"
    open_page(browser, gallery_folder / "gallery.html", SIZES[0], "light", fragment)
    texts = [value.text for value in browser.find_elements("css selector", ".card .values")]
    own = [float(text.split(" and ")[1].split(";")[0].replace("−", "-")) for text in texts]
    assert len(own) == 4 and own == sorted(own)
    choose(browser, "order", "best B first")
    texts = [value.text for value in browser.find_elements("css selector", ".card .values")]
    assert [float(text.split(" and ")[1].split(";")[0].replace("−", "-")) for text in texts] == own[::-1]


def test_filter_and_methods(browser: Any, report_folder: Path) -> None:
    open_page(browser, report_folder / "gallery.html", SIZES[0], "light")
    browser.find_element("id", "filter").send_keys("DOG")
    assert headings(browser) == ["Sample 3: hot dog"]
    choose(browser, "first", "8 steps")
    source = browser.execute_script("return document.querySelector('img.first').src")
    assert "/samples/8-steps-" in source and source.endswith("/000003.png")
    assert ": A 8 steps, B ilf(steps=10)" in browser.find_element("id", "state").text
    browser.find_element("id", "filter").send_keys("zzz")
    assert headings(browser) == [] and browser.find_element("id", "state").text == "No prompt fits."


def test_the_address_chooses_and_worst_comes_first(browser: Any, gallery_folder: Path) -> None:
    fragment = "#first=full&second=ilf(steps%3D10)&metric=good&order=loss"
    open_page(browser, gallery_folder / "gallery.html", SIZES[0], "light", fragment)
    texts = [value.text for value in browser.find_elements("css selector", ".card .values")]
    differences = [float(text.split("difference ")[1].replace("−", "-")) for text in texts]
    assert len(differences) == 4 and differences == sorted(differences)
    choose(browser, "order", "B gains most")
    texts = [value.text for value in browser.find_elements("css selector", ".card .values")]
    gains = [float(text.split("difference ")[1].replace("−", "-")) for text in texts]
    assert gains == differences[::-1]
    assert "order=gain" in browser.current_url
