"""The comparison for a terminal."""

from __future__ import annotations

from dataclasses import replace

from rich.table import Column as RichColumn
from rich.table import Table as RichTable

from harness.storage.records import Run
from harness.terminal import terminal_text
from reports.analysis.select import has_tiny_scorers
from reports.render.cells import Cell, Column
from reports.render.markdown import heading
from reports.render.tables import comparison_table

SHOWN = ("block_evaluations", "latency_s", "speed_up")
SHORT = {"block_evaluations": "blocks", "latency_s": "s/image", "speed_up": "× full", "feature_distance": "distance"}


def terminal_table(run: Run) -> RichTable:
    """Cost, time and speed-up of each method, then every metric; failures are named below the table by the caller."""
    table = comparison_table(run)
    columns = [c for c in table.columns if c.key in SHOWN] + list(table.metrics)
    title = f"{run.spec['name']}: N = {run.spec['samples']}" + (" - TINY scorers" if has_tiny_scorers(run) else "")
    headings = [RichColumn(header=terminal_text(name)) for name in ("method", *map(_heading, columns))]
    shown = RichTable(*headings, title=terminal_text(title), padding=(0, 0), show_lines=False)
    for row in table.rows:
        shown.add_row(terminal_text(row.label), *(terminal_text(_short(row.cells.get(column.key))) for column in columns))
    return shown


def _heading(column: Column) -> str:
    """A short title; the table's own title says that the scorers are tiny."""
    short = SHORT.get(column.key, column.title.replace(" (tiny)", "").replace(" to the full run", ""))
    return heading(replace(column, title=short))


def _short(cell: Cell | None) -> str:
    """The bare number: the page has its interval, its N, or the reason why there is none."""
    if cell is None:
        return "–"
    return "none" if cell.failure else cell.text.split(" ")[0]
