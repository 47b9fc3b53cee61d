"""The page in a real browser: no errors, no overflow, every image loaded. Needs Debian's chromium and chromium-driver."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
SIZES = [(1280, 900), (390, 844)]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium; skipped where it is missing, unless ILF_BENCH_REQUIRE_BROWSER=1."""
    required = os.environ.get("ILF_BENCH_REQUIRE_BROWSER") == "1"
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    missing += ["selenium"] * (importlib.util.find_spec("selenium") is None)
    if missing:
        message = f"no {', '.join(missing)}: install Debian's chromium and chromium-driver, and selenium"
        pytest.fail(message) if required else pytest.skip(message)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
    yield driver
    driver.quit()


@pytest.mark.browser
@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page(browser: Any, report_folder: Path, width: int, height: int, scheme: str) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get((report_folder / "index.html").as_uri())
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []
    inner, scroll = browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
    assert inner == width and scroll <= inner
    widths = browser.execute_script("return [...document.images].map(i => i.complete ? i.naturalWidth : 0)")
    assert len(widths) == 4 and all(w > 0 for w in widths)
    dark = browser.execute_script(
        "return [...document.images].filter(i => i.parentNode.tagName == 'PICTURE').map(i => i.currentSrc)"
    )
    light = browser.execute_script("return [...document.querySelectorAll('picture img')].map(i => i.getAttribute('src'))")
    assert (dark == light) == (scheme == "light")


@pytest.mark.browser
def test_wide_tables_scroll_inside_their_own_container(browser: Any, report_folder: Path) -> None:
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get((report_folder / "index.html").as_uri())
    wide = "return [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length"
    assert browser.execute_script(wide) >= 3
    outside = "return [...document.querySelectorAll('table, img')].filter(e => !e.closest('.scroll')).map(e => e.tagName)"
    assert browser.execute_script(outside) == []
