"""The statistics are described once: docs/statistics.md has the words of harness/statistics/description.py."""

from __future__ import annotations

import re

import pytest

from harness.paths import ROOT
from harness.statistics.description import STATISTICS


@pytest.mark.parametrize("name", STATISTICS)
def test_the_docs_have_the_same_words(name: str) -> None:
    page = re.sub(r"\s+", " ", (ROOT / "docs" / "statistics.md").read_text())
    assert f"**{name}.** {STATISTICS[name]}" in page
