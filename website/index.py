"""The navigation of the site is the index of the documentation, docs/README.md: its sections, and the links of their tables."""

from __future__ import annotations

import re
from typing import Any

from website.links import PAGES

SECTION = re.compile(r"^## (.+)\n((?:(?!^## ).*\n?)*)", re.MULTILINE)
ROW = re.compile(r"^\| \[([^\]]+)\]\(([^)#]+)\) \|", re.MULTILINE)
REFERENCE = "Reference"


def sections(index: str) -> dict[str, dict[str, str]]:
    """By section, the pages of its table: their names by their titles."""
    return {title: dict(ROW.findall(body)) for title, body in SECTION.findall(index)}


def navigation(index: str, generated: list[str]) -> list[dict[str, Any]]:
    """mkdocs' navigation; ``generated`` pages come first in the reference. A section of one page is that page."""
    nav: list[dict[str, Any]] = [{"Home": [{"All pages": "README.md"}, {"Overview": "overview.md"}]}]
    for title, rows in sections(index).items():
        pages: list[Any] = [{name: PAGES.get(path.removeprefix("../"), path)} for name, path in rows.items()]
        pages = [*generated, *pages] if title == REFERENCE else pages
        nav.append({title: pages if len(pages) > 1 else next(iter(pages[0].values()))})
    return nav
