"""The history as terminal tables: one for each preset, newest run last, and one of trends with the change points in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from harness.history.store import HistoryEntry, StoredScore
from harness.results import A_A, BASELINE, REFERENCE
from harness.statistics import time_ratio
from harness.terminal import terminal_text
from harness.text import one_line
from reports.analysis.trend import Series
from reports.format import number, plus_minus
from reports.render.dashboard import change_style, describe_change


def history_tables(entries: Sequence[HistoryEntry], preset: str | None = None) -> list[Table]:
    """A table for each preset (or for the one named), grouped by method, newest last in each group."""
    presets = sorted({entry.preset for entry in entries if preset in (None, entry.preset)})
    return [_table(name, [entry for entry in entries if entry.preset == name]) for name in presets]


def _table(preset: str, entries: list[HistoryEntry]) -> Table:
    """Narrow enough for a terminal: the half-width below its value, and reasons of failures as notes below the table."""
    metrics = list(dict.fromkeys(score.metric for entry in entries for score in entry.scores if score.metric))
    methods = list(dict.fromkeys(label for entry in entries for label in entry.methods if label not in (A_A, REFERENCE)))
    table = Table(
        title=terminal_text(f"{preset}: newest last"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
    )
    for name, least in (("method", 14), ("run", 9), ("date, commit", 10)):
        table.add_column(name, min_width=least, no_wrap=name != "method", overflow="fold")
    for name in ("s/image", "speed-up", *metrics):
        table.add_column(terminal_text(name), justify="right", min_width=7, overflow="fold")
    notes: dict[str, int] = {}
    for method in methods:
        for entry in entries:
            if method in entry.methods:
                table.add_row(*_row(entry, method, metrics, notes))
        table.add_section()
    lines = [one_line(f"({mark}) {reason}") for reason, mark in notes.items()]
    table.caption = Text("\n".join(["± is half of the 95% interval; – was not measured", *lines]))
    return table


def _row(entry: HistoryEntry, method: str, metrics: list[str], notes: dict[str, int]) -> list[Text]:
    """Cells as Text, so that brackets in labels and reasons are no markup."""
    commit = one_line(entry.commit[:8] or "no commit") + ("+" if entry.dirty else "")
    run = one_line(entry.run_id[:8]) + ("" if entry.complete else "\n(partial)")
    scores = {score.metric: score for score in entry.scores if score.method == method}
    seconds = _score(scores[""], notes) if "" in scores else _seconds(entry, method)
    cells = [one_line(method), run, f"{one_line(entry.created[:10])}\n{commit}", seconds, _speed_up(entry, method)]
    return [Text(cell) for cell in [*cells, *(_score(scores.get(name), notes) for name in metrics)]]


def _rounds(entry: HistoryEntry, method: str) -> dict[int, float]:
    return {t.round: t.latency_s / t.batch for t in entry.timings if t.method == method}


def _seconds(entry: HistoryEntry, method: str) -> str:
    rounds = _rounds(entry, method)
    return number(float(np.median(list(rounds.values())))) if rounds else "–"


def _speed_up(entry: HistoryEntry, method: str) -> str:
    full, mine = _rounds(entry, BASELINE), _rounds(entry, method)
    shared = sorted(full.keys() & mine.keys())
    if not shared:
        return "–"
    ratio = time_ratio(np.array([full[r] for r in shared]), np.array([mine[r] for r in shared]))
    return "1" if method == BASELINE else plus_minus(ratio.value, (ratio.high - ratio.low) / 2).replace(" ± ", "\n±")


def _score(score: StoredScore | None, notes: dict[str, int]) -> str:
    if score is None:
        return "–"
    if score.value is None:
        return f"failed ({notes.setdefault(score.failure, len(notes) + 1)})"
    return number(score.value) if score.high is None else plus_minus(score.value, score.high - score.value).replace(" ± ", "\n±")


SPARKS = "▁▂▃▄▅▆▇█"
TREND = 3  # runs that a trend needs
WORDS = {"bad": "worse", "good": "better", "even": "moved"}


def trend_table(series: Sequence[Series]) -> Table:
    """A line for each series: a sparkline of its newest runs, the newest value, and every change with its commit."""
    table = Table(
        "preset",
        "method",
        "what",
        "runs",
        "trend",
        "newest",
        "change points",
        title="Trends, oldest run left",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
    )
    for one in series:
        values = [point.value for point in one.points]
        change_points = [f"{WORDS[change_style(one, change)]}: {describe_change(one, change)}" for change in one.change_points]
        unit = f" {one.unit}" if one.unit else ""
        cells = [
            one.group.preset,
            one.group.method,
            one.title,
            str(len(values)),
            sparkline(values) if len(values) >= TREND else "–",
            number(values[-1]) + unit,
        ]
        table.add_row(*map(terminal_text, cells), Text("\n".join(map(one_line, change_points)) or "none"))
    return table


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """The newest values as blocks of eight heights, lowest to highest of those shown; all equal is a low line."""
    shown = np.asarray(values[-width:], np.float64)
    low, span = shown.min(), np.ptp(shown)
    return "".join(SPARKS[int(7 * (v - low) / span) if span else 0] for v in shown)
