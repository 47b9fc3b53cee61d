"""``ilf-bench history``: recorded runs, trends with their steps, and the dashboard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from harness.errors import UsageError
from harness.storage.records import read_run, write_bytes
from ilf_bench.commands.lookup import kept_history, open_history
from reports.analysis.trend import trends
from reports.render.dashboard import dashboard
from reports.render.history import history_tables, trend_table


def show_history(out: Path, preset: str | None, html: Path | None, add: Sequence[Path]) -> Iterator[Table | Text]:
    """What to print, after appending the folders of ``add`` and writing the page."""
    history = open_history(out) if add else kept_history(out)
    for folder in add:
        history.append(read_run(folder))
    entries = history.runs()
    chosen = tuple(entry for entry in entries if preset in (None, entry.preset))
    if preset is not None and not chosen:
        known = ", ".join(sorted({entry.preset for entry in entries})) or "none yet"
        raise UsageError(expected=f"a recorded preset ({known})", got=repr(preset), remedy="see ilf-bench history")
    yield from history_tables(chosen)
    if series := trends(chosen):
        yield trend_table(series)
    if html is not None:
        write_bytes(html, dashboard(chosen).encode())
        yield Text(f"dashboard: {html}")
