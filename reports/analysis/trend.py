"""The history as series: one for each preset, method and check, of runs that may be compared, with the change points in it.

Runs of different experiments, scores of different fingerprints and times of different machines are different series: never one
line. Times are calibrated: a method's time over that of the fixed workload in the same run, times the workload's median over
the series, so that the unit is still seconds per image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.history.store import HistoryEntry, StoredScore
from harness.results import A_A, REFERENCE
from reports.analysis.change_points import ChangePoint, find_change_points
from reports.analysis.changes import MEMORY, SPEED, Call, LogTime, experiment_of, has_clock, time_of, timed_calls

EXACT = 0.05  # scores repeat exactly with the same seed: a move of less than this share of their standard error is none


@dataclass(frozen=True)
class Point:
    """One run in a series. ``low`` and ``high`` bound its own 95% interval, None where it has none."""

    run_id: str
    created: str
    commit: str
    dirty: bool
    tags: tuple[str, ...]
    value: float
    low: float | None
    high: float | None

    @property
    def commit_text(self) -> str:
        """Eight digits, with a plus where there were uncommitted changes."""
        return (self.commit[:8] or "no commit") + ("+" if self.dirty else "")


@dataclass(frozen=True)
class Group:
    """What all runs of a series share. ``note`` says which machine or fingerprint, and whether times are calibrated."""

    preset: str
    method: str
    check: str
    note: str
    experiment: tuple[str, ...]


@dataclass(frozen=True)
class Series:
    """``direction`` is higher or lower, or empty where an old record does not say."""

    group: Group
    title: str
    unit: str
    direction: str
    points: tuple[Point, ...]
    change_points: tuple[ChangePoint, ...]

    def is_worse(self, change: ChangePoint) -> bool | None:
        """Whether a change went the wrong way; None where that is unknown."""
        return None if not self.direction else (change.after > change.before) == (self.direction == "lower")


@dataclass(frozen=True)
class Measured:
    """A value on its way into a series: ``scale`` is the logarithm of the workload's seconds where it is a calibrated time."""

    title: str
    unit: str
    direction: str
    point: Point
    scale: float | None = None


def trends(entries: Sequence[HistoryEntry]) -> list[Series]:
    """Every series of complete runs, presets by name, then in the order in which methods and checks first appeared."""
    found: dict[Group, list[Measured]] = {}
    for entry in entries:
        if entry.complete:
            for group, measured in _measurements(entry):
                found.setdefault(group, []).append(measured)
    order = {(g.preset, g.method): i for i, g in reversed(list(enumerate(found)))}
    ranked = sorted(found.items(), key=lambda item: (item[0].preset, order[item[0].preset, item[0].method]))
    return [_series(group, measured) for group, measured in ranked]


def _measurements(entry: HistoryEntry) -> Iterator[tuple[Group, Measured]]:
    experiment = experiment_of(entry.spec) if entry.spec else (f"specification {entry.spec_digest}",)
    calls = timed_calls(entry.timings)
    for method in (m for m in entry.methods if m not in (A_A, REFERENCE)):
        own = calls.get(method, [])
        if own and has_clock(own, "latency_s"):
            for check, measured, note in (*_time(entry, own), *_memory(entry, own)):
                batch = f"batch {own[0].sample.batch}"
                yield Group(entry.preset, method, check, f"machine {entry.machine_key}, {batch}{note}", experiment), measured
        for score in entry.scores:
            if score.method == method and score.metric and score.value is not None:
                note = ", ".join(f"{key} {value}" for key, value in sorted(score.fingerprint.items()))
                yield Group(entry.preset, method, score.metric, note, experiment), _score(entry, score)


def _point(entry: HistoryEntry, value: float, low: float | None, high: float | None) -> Point:
    return Point(entry.run_id, entry.created, entry.commit, entry.dirty, entry.tags, value, low, high)


def _time(entry: HistoryEntry, calls: Sequence[Call]) -> Iterator[tuple[str, Measured, str]]:
    """The logarithm of the time, on the clock that a gate would take."""
    clock = "cpu_s" if has_clock(calls, "cpu_s") else "latency_s"
    relative = all(call.around for call in calls)
    time: LogTime = time_of(calls, clock, relative)
    value = time.value - float(np.log(calls[0].sample.batch))
    half = 2.0 * time.error if np.isfinite(time.error) else None
    point = _point(entry, value, None if half is None else value - half, None if half is None else value + half)
    workload = [getattr(t, clock) for call in calls for t in call.around]
    note = (", calibrated" if relative else ", not calibrated") + (", processor time" if clock == "cpu_s" else ", wall clock")
    yield SPEED, Measured("Time", "s/image", "lower", point, float(np.log(np.median(workload))) if relative else 0.0), note


def _memory(entry: HistoryEntry, calls: Sequence[Call]) -> Iterator[tuple[str, Measured, str]]:
    peak = max(call.sample.peak_memory_bytes for call in calls)
    if peak > 0:
        yield MEMORY, Measured("Peak memory", "MB", "lower", _point(entry, peak / 1e6, None, None)), ""


def _score(entry: HistoryEntry, score: StoredScore) -> Measured:
    assert score.value is not None
    point = _point(entry, score.value, score.low, score.high)
    return Measured(score.title or score.metric, score.unit, score.direction, point)


def _series(group: Group, measured: Sequence[Measured]) -> Series:
    points, last = [m.point for m in measured], measured[-1]
    values = np.array([point.value for point in points])
    errors = [(p.high - p.low) / 4 for p in points if p.low is not None and p.high is not None]
    floor = float(np.median(errors)) if errors else 0.0
    change_points = find_change_points(values, floor if group.check == SPEED else EXACT * floor)
    if group.check == SPEED:
        scale = float(np.median([m.scale for m in measured]))
        points = [_exponential(point, scale) for point in points]
        change_points = [
            replace(s, before=float(np.exp(s.before + scale)), after=float(np.exp(s.after + scale))) for s in change_points
        ]
    return Series(group, last.title, last.unit, last.direction, tuple(points), tuple(change_points))


def _exponential(point: Point, scale: float) -> Point:
    value, low, high = (None if v is None else float(np.exp(v + scale)) for v in (point.value, point.low, point.high))
    assert value is not None
    return replace(point, value=value, low=low, high=high)
