"""``ilf-bench gate``: which runs, then the verdict of reports.gate."""

from __future__ import annotations

from pathlib import Path

from harness.errors import UsageError
from harness.places import history_path, place
from harness.records import read_run
from harness.store import History
from reports.gate import GateResult
from reports.gate import gate as judge


def gate_runs(out: Path, run: str | None, against: str) -> GateResult:
    """The verdict on a run (the newest where none is named) against a baseline."""
    history = History(history_path(out))

    def find(name: str) -> Path:
        return place(name) if (place(name) / "spec.json").exists() else history.find(name).path

    runs = history.runs()
    if run is None and not runs:
        raise UsageError(expected=f"a recorded run in {out}", got="an empty history", remedy="ilf-bench run")
    current = find(run) if run is not None else runs[-1].path
    return judge(read_run(current), read_run(find(against)))
