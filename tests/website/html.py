"""What the tests of the site read in its files: links, targets of links, and what a page loads."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

from harness.paths import ROOT

SITE = ROOT / "build" / "site"
LOADED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}


@dataclass
class Page(HTMLParser):
    """The links (``href`` of ``a``), the names (``id``) and the loaded files of a page."""

    links: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    loaded: list[str] = field(default_factory=list)
    title: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        of = {name: value or "" for name, value in attributes}
        self.names |= {of["id"]} if "id" in of else set()
        if tag == "a" and "href" in of:
            self.links.append(of["href"])
        if tag == "link" and set(of.get("rel", "").split()) & {"stylesheet", "preload", "preconnect", "icon", "modulepreload"}:
            self.loaded.append(of["href"])
        if tag in LOADED and LOADED[tag] in of:
            self.loaded.append(of[LOADED[tag]])


@cache
def read(path: Path) -> Page:
    """A page of the site."""
    page = Page()
    page.feed(path.read_text())
    return page


def pages() -> list[Path]:
    """Every page but the one for missing addresses, whose links are absolute."""
    found = sorted(path for path in SITE.rglob("*.html") if path.name != "404.html")
    assert found, "run `make site` first"
    return found
