"""The comparison for a terminal."""

from __future__ import annotations

from rich.table import Table as RichTable
from rich.text import Text

from harness.records import Run
from reports.markdown import heading
from reports.tables import comparison_table

SHOWN = ("block_evaluations", "latency_s", "speed_up")


def terminal_table(run: Run) -> RichTable:
    """Cost, time and speed-up of each method, then every metric; failures are named below the table by the caller."""
    table = comparison_table(run)
    columns = [c for c in table.columns if c.key in SHOWN] + list(table.metrics)
    shown = RichTable("method", *(heading(column) for column in columns))
    for row in table.rows:
        cells = [row.cells[c.key] for c in columns if c.key in row.cells]
        shown.add_row(Text(row.label), *(Text(c.text if not c.failure else "not measured") for c in cells))
    return shown
