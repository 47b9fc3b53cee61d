"""Every fault that docs/gpu.md lists has the test that it names."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEAST = 31  # rows


def test_each_fault_names_a_test_that_exists() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text()
    named = re.findall(r"^\| [^|]+ \| `(tests/[\w/]+\.py)::(test_\w+)` \|$", page, re.MULTILINE)
    assert len(named) >= LEAST
    for file, name in named:
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file} has no {name}"
