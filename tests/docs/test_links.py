"""Pages: every link leads somewhere, every named file exists, and the index lists every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "zoo").glob("*/README.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FILE = re.compile(
    r"`((?:\.\./)?(?:docs|harness|ilf|ilf_bench|baselines|metrics|reports|zoo|studies|benchmarks|presets|tests)/[\w./-]+\.\w+)`"
)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "lab-log.md"], ids=name)
def test_named_source_files_exist(page: Path) -> None:
    """But in the log, which tells how things were."""
    named = [file for file in FILE.findall(page.read_text()) if "NAME" not in file]
    assert [file for file in named if not (ROOT / file).exists() and not (page.parent / file).exists()] == []


def test_the_index_lists_every_page() -> None:
    docs = ROOT / "docs"
    listed = {(docs / link).resolve() for link in LINK.findall((docs / "README.md").read_text())}
    assert {page for page in docs.rglob("*.md") if page.name != "README.md"} <= listed
