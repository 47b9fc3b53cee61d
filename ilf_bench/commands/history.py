"""``ilf-bench history``: recorded runs, trends with their steps, and the dashboard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from harness.errors import UsageError
from ilf_bench.console import console, print_line, print_whole
from ilf_bench.options import DEFAULT_OUT, WRITTEN, Out

SETTING_ASIDE = {"retire": True, "restore": False}

if TYPE_CHECKING:
    from harness.history.store import HistoryEntry


def history(
    preset: Annotated[
        str | None, typer.Argument(help="Show only runs of this preset; or `retire` or `restore`, followed by a run's id.")
    ] = None,
    run: Annotated[
        str | None, typer.Argument(metavar="ID", help="The run to retire or restore; the first characters of its id are enough.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(**WRITTEN, help="Also write the dashboard, one self-contained page, to this file."),
    ] = None,
    add: Annotated[list[Path] | None, typer.Option(help="Add this run folder to the history first; repeatable.")] = None,
    out: Out = DEFAULT_OUT,
) -> None:
    """List every recorded run, newest last, with trends and the commits at which they changed."""
    from harness.storage.files import write_bytes
    from reports.render.dashboard import dashboard

    if preset in SETTING_ASIDE or run is not None:
        set_aside(out, preset, run)
        return
    entries = chosen_entries(out, preset, add or [])
    for part in tables(entries):
        print_whole(console, part)
    if html is not None:
        write_bytes(html, dashboard(entries).encode())
        print_line(f"dashboard: {html}")


def set_aside(out: Path, word: str | None, run: str | None) -> None:
    """Retire a run, readable or not, or take it back. Nothing is deleted."""
    from ilf_bench.lookup import kept_history

    if word not in SETTING_ASIDE or run is None:
        raise UsageError(
            expected="history retire ID or history restore ID",
            got=" ".join(filter(None, (word, run))),
            remedy="ids are those that ilf-bench history shows, or their beginnings",
        )
    identity = kept_history(out).retire(run, is_retired=SETTING_ASIDE[word])
    print_line(f"{word}d: run {identity}; nothing was deleted")


def chosen_entries(out: Path, preset: str | None, add: Sequence[Path]) -> Sequence[HistoryEntry]:
    """The recorded runs of ``preset``, or all, after appending the folders of ``add``."""
    from harness.storage.records import read_run
    from ilf_bench.lookup import kept_history, open_history, recorded

    found = open_history(out) if add else kept_history(out)
    for folder in add:
        found.append(read_run(folder))
    entries = recorded(found)
    chosen = tuple(entry for entry in entries if preset in (None, entry.preset))
    if preset is not None and not chosen:
        known = ", ".join(sorted({entry.preset for entry in entries})) or "none yet"
        raise UsageError(expected=f"a recorded preset ({known})", got=repr(preset), remedy="see ilf-bench history")
    return chosen


def tables(entries: Sequence[HistoryEntry]) -> Iterator[Table | Text]:
    """The runs, and their trends where there are enough."""
    from reports.analysis.trend import trends
    from reports.render.history import history_tables, trend_table

    yield from history_tables(entries)
    if series := trends(entries):
        yield trend_table(series)
