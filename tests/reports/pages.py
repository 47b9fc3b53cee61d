"""What the browser tests share: opening a page in a size and a colour scheme, its errors, and the accessibility checker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SIZES = [(1280, 900), (390, 844)]
SCHEMES = ["light", "dark"]
VIEWS = [*((size, scheme) for scheme in SCHEMES for size in SIZES), ((820, 1180), "dark")]  # of every page


def open_page(browser: Any, path: Path, size: tuple[int, int], scheme: str, fragment: str = "") -> None:
    """Load a file again; errors of earlier pages are forgotten."""
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get(path.as_uri() + fragment)


def errors(browser: Any) -> list[str]:
    """Everything that the console holds as an error, refusals of the Content-Security-Policy among them."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def violations(browser: Any, *, grave: bool = False) -> list[str]:
    """What axe-core finds, of any impact or of serious or critical impact alone, as ``rule: element``."""
    from axe_core_python.selenium import Axe

    found = [rule for rule in Axe().run(browser)["violations"] if not grave or rule["impact"] in ("serious", "critical")]
    return [f"{rule['id']}: {node['html'][:200]}" for rule in found for node in rule["nodes"]]


def requests(browser: Any) -> list[str]:
    """Everything that the page loaded from beyond itself and the files beside it."""
    script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    return [name for name in browser.execute_script(script) if not name.startswith(("data:", "file:"))]


def hidden_texts(browser: Any, scrollers: str) -> list[str]:
    """Texts that reach beyond the page or an ancestor that hides what overflows; in ``scrollers`` one may scroll to the rest."""
    script = """
    const bad = new Set(), texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const node = texts.currentNode, parent = node.parentElement;
      if (!node.textContent.trim() || !parent.getClientRects().length || parent.closest('.quiet, script, style')) continue;
      const scroller = arguments[0] && parent.closest(arguments[0]), range = document.createRange();
      range.selectNodeContents(node);
      for (const box of range.getClientRects()) {
        let frames = scroller ? [] : [{left: 0, right: innerWidth}];
        for (let outer = parent; outer && outer !== document.body && outer !== scroller; outer = outer.parentElement)
          if (['hidden', 'clip'].includes(getComputedStyle(outer).overflowX)) frames.push(outer.getBoundingClientRect());
        if (frames.some(frame => box.right > frame.right + 1 || box.left < frame.left - 1)) bad.add(node.textContent.trim());
      }
    }
    return [...bad];"""
    return [str(found) for found in browser.execute_script(script, scrollers)]


def cut_in_print(browser: Any) -> list[str]:
    """What reaches beyond its place on paper (A4, landscape, less its margins): tables, texts, figures higher than a page.

    On paper no container may hide a part that nobody can scroll to. The page is left in the print medium.
    """
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    paper = {"width": 1047, "height": 740, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", paper)
    script = """
    const end = e => e ? e.getBoundingClientRect().right : innerWidth;
    const wide = [...document.querySelectorAll('table')]
      .filter(t => t.getClientRects().length && end(t) > Math.min(innerWidth, end(t.closest('.scroll'))) + 1);
    const high = [...document.querySelectorAll('figure')].filter(f => f.offsetHeight > innerHeight);
    return [...wide.map(t => `wide: ${t.textContent.trim().slice(0, 60)}`), ...high.map(f => `high: ${f.className}`)];"""
    return [str(found) for found in browser.execute_script(script)] + hidden_texts(browser, "")


def cut_texts(browser: Any, figures: str) -> list[str]:
    """Texts of the shown SVG figures that reach beyond their drawing, or over another text of it."""
    script = """
    const bad = [];
    for (const svg of document.querySelectorAll(arguments[0])) {
      const frame = svg.getBoundingClientRect();
      if (!frame.width) continue;
      const all = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
      const texts = all.filter(([, b]) => b.width);
      texts.forEach(([name, b], i) => {
        if (b.left < frame.left - 1 || b.right > frame.right + 1 || b.top < frame.top - 1 || b.bottom > frame.bottom + 1)
          bad.push(`cut: ${name}`);
        for (const [other, o] of texts.slice(i + 1)) {
          const wide = Math.min(b.right, o.right) - Math.max(b.left, o.left);
          const high = Math.min(b.bottom, o.bottom) - Math.max(b.top, o.top);
          if (wide > 1 && high > 3) bad.push(`over each other: ${name} / ${other}`);
        }
      });
    }
    return bad;"""
    return [str(found) for found in browser.execute_script(script, figures)]
