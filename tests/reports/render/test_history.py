"""The history as terminal tables."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from harness.history.store import History
from harness.storage.records import Run
from reports.analysis.trend import trends
from reports.render.history import history_tables, trend_table


def test_rows_are_grouped_by_method_with_the_newest_last(make_run: Callable[..., Run], tmp_path: Path) -> None:
    history = History(tmp_path / "history.sqlite")
    old = make_run("old", noise=0.0, missing=(("8 steps", "good"),))
    new = make_run("new", noise=0.0, slowdown=2.0)
    new = replace(new, environment=dict(new.environment) | {"created": "2026-12-01T00:00:00+00:00", "commit": "def5678"})
    history.append(new)
    history.append(old)
    (table,) = history_tables(history.runs())
    console = Console(width=220, file=io.StringIO())
    console.print(table)
    lines = [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    full = [line for line in lines if line[:1] == ["full"]]
    assert [line[2:4] for line in full] == [["2026-11-22", "1.00"], ["2026-12-01", "2.00"]]
    commits = [line[0] for line in lines if line[:1] in (["abc1234"], ["def5678"])]
    assert commits[:2] == ["abc1234", "def5678"]
    eight = [" ".join(line) for line in lines if line[:2] == ["8", "steps"]]
    assert "ran out of memory" in " ".join(" ".join(line) for line in lines) and "2.50" in eight[1]
    assert history_tables(history.runs(), preset="another") == []


def test_a_trend_is_drawn_from_three_runs_on(make_run: Callable[..., Run], tmp_path: Path) -> None:
    history = History(tmp_path / "history.sqlite")
    for count in (1, 2, 3):
        run = make_run(f"run-{count}", timing_seed=count)
        dated = {"created": f"2026-12-0{count}T00:00:00+00:00", "commit": f"abc{count}"}
        history.append(replace(run, environment=dict(run.environment) | dated))
        table = trend_table(trends(history.runs()))
        drawn = [str(cell) for cell in table.columns[4].cells]
        assert all((cell == "–") == (count < 3) for cell in drawn) and len(drawn) > 4
    assert [column.header for column in table.columns][-1] == "change points"
