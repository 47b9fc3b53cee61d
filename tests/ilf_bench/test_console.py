"""Tables of the terminal: no digit is cut off."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from ilf_bench.console import print_whole


@pytest.mark.parametrize("width", [20, 60, 400])
def test_a_narrow_terminal_cuts_no_number(width: int) -> None:
    table = Table(*(f"metric-{i}" for i in range(15)))
    table.add_row(*(f"0.88{i:02d}" for i in range(15)))
    out = io.StringIO()
    print_whole(Console(file=out, width=width), table)
    assert all(f"0.88{i:02d}" in out.getvalue() and f"metric-{i}" in out.getvalue() for i in range(15))
