"""Links of the pages: docs/*.md are written for a reader of the repository, and lead to its files."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

LINK = re.compile(r"(\]\()([^)#\s:]+)((?:#[^)\s]*)?\))")
FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
PAGES = {"README.md": "overview.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages of the repository's root, and their names on the site."""


def prose(text: str) -> Iterator[tuple[str, bool]]:
    """The parts of a page, and whether they are prose: links in fenced code are none."""
    for part in FENCED.split(text):
        yield part, not part.startswith("```")


def replaced(text: str, change: Callable[[str], str]) -> str:
    """A page with the target of every relative link changed; fragments are kept."""

    def one(found: re.Match[str]) -> str:
        return found[1] + change(found[2]) + found[3]

    return "".join(LINK.sub(one, part) if is_prose else part for part, is_prose in prose(text))


def targets(text: str, folder: str) -> list[str]:
    """Files and folders of the repository that a page in ``folder`` (relative to the root, "" for itself) links to."""
    found = [link[2] for part, is_prose in prose(text) if is_prose for link in LINK.finditer(part)]
    return [posixpath.normpath(posixpath.join(folder, target)) for target in found]


def site_name(root: Path, target: str) -> str:
    """The page or file of the site that stands for one of the repository: a page of docs/, of the root, or a source."""
    if target in PAGES:
        return PAGES[target]
    if target == "docs":
        return "README.md"
    if (root / target).suffix in (".md", ".png", ".svg"):
        return target.removeprefix("docs/")
    return f"source/{target}/index.md" if (root / target).is_dir() else f"source/{target}.md"
