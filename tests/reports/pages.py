"""What the browser tests share: opening a page in a size and a colour scheme, its errors, and the accessibility checker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SIZES = [(1280, 900), (390, 844)]
SCHEMES = ["light", "dark"]


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


def violations(browser: Any) -> list[str]:
    """What axe-core finds of serious or critical impact, as ``rule: element``."""
    from axe_core_python.selenium import Axe

    found = Axe().run(browser)["violations"]
    grave = [rule for rule in found if rule["impact"] in ("serious", "critical")]
    return [f"{rule['id']}: {node['html'][:200]}" for rule in grave for node in rule["nodes"]]


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
