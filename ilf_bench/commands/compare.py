"""``ilf-bench compare``: what changed between two runs."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from ilf_bench.commands.lookup import find_run, open_history
from reports.analysis.spread import repeated_spreads
from reports.render.versus import versus, versus_table


def compare_runs(out: Path, first: str, second: str) -> Table:
    """A table of every check, from the first run to the second."""
    history = open_history(out)
    a, b = find_run(history, first), find_run(history, second)
    return versus_table(a, b, versus(a, b, repeated_spreads(history.runs(), a, b)))
