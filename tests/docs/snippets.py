"""The commands and the code that README and docs show."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from harness.paths import ROOT

PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "zoo").glob("*/README.md")]
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^    ((?:\.venv[\w-]*/bin/)?(?:ilf-bench|make|python|pip|accelerate|\.ci/run)\b.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Fence:
    """A fenced block of a page."""

    page: Path
    language: str
    text: str


def fences(page: Path) -> list[Fence]:
    """Of one page, in order."""
    return [Fence(page, language, text) for language, text in FENCE.findall(page.read_text())]


def commands(page: Path) -> list[list[str]]:
    """The shell commands of one page as words, in order, without comments."""
    text = FENCE.sub("", page.read_text()).replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in COMMAND.findall(text)]
