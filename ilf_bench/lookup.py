"""Runs by whatever a user may call them: a folder, a run id, a commit or a tag."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.history.store import History, HistoryEntry
from harness.storage.layout import Layout
from harness.storage.locations import history_path, is_local, place
from harness.storage.records import Run, read_run
from harness.text import without_credentials
from ilf_bench.console import errors, print_line

if TYPE_CHECKING:
    from reports.tracking.base import Tracker


def open_history(out: Path) -> History:
    """The history beside the runs in ``out``."""
    return History(history_path(out))


def kept_history(out: Path) -> History:
    """The history of runs in ``out``, which must be there. Raises :class:`UsageError`."""
    if not history_path(out).exists():
        raise UsageError(
            expected=f"a history of runs in {out}",
            got="none",
            remedy="run ilf-bench run first, or name the folder of the runs with --out",
        )
    return open_history(out)


def recorded(history: History) -> tuple[HistoryEntry, ...]:
    """The runs of a history; those that cannot be read are named on standard error and passed over."""
    listing = history.listing()
    for identity, why in listing.unreadable.items():
        print_line(f"passed over: run {identity[:12]} of {history.path}: {why}", errors)
    return listing.entries


def folder_on_disk(entry: HistoryEntry, out: Path) -> Path | None:
    """The run's folder, where it lies in ``out`` as its record says; a path that a record holds is compared, and not followed."""
    folder = out / entry.path.name
    named = without_credentials(str(folder.resolve() if is_local(folder) else folder))
    return folder if named == str(entry.path) and Layout(folder).spec.exists() else None


def find_run(history: History, name: str) -> Run:
    """A run folder is read as it lies there; anything else is looked up in the history, which needs no folder."""
    if Layout(place(name)).spec.exists():
        return read_run(place(name))
    return history.load(history.find(name).run_id)


def newest_run(history: History) -> Run:
    """The newest recorded run. Raises :class:`UsageError` where there is none."""
    entries = recorded(history)
    if not entries:
        raise UsageError(expected=f"a recorded run in {history.path}", got="an empty history", remedy="ilf-bench run")
    return history.load(entries[-1].run_id)


def track(out: Path, tracker: Tracker) -> str:
    """Log the runs in ``out`` that a tracker lacks, with the images and reports that lie there; returns a sentence."""
    from reports.tracking.base import log_history

    history = kept_history(out)
    found = {entry.run_id: folder_on_disk(entry, out) for entry in history.runs()}
    new, all_runs = log_history(history, tracker, {identity: folder for identity, folder in found.items() if folder})
    return f"{new} of {all_runs} runs were new to {tracker.where}"
