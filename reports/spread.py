"""How much repeated runs of the same code differ: the A/A spread of everything a gate checks, from the history itself.

Runs of one clean commit, on one machine and of one experiment are A/A. Speed, wall clock and memory are compared as
:mod:`reports.changes` compares them; scores are compared between different seeds, since equal seeds give equal images. The
standard deviation is pooled over all commits, each about its own mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from harness.records import Run
from harness.store import HistoryEntry
from reports.changes import MEMORY, MIN_ROUNDS, SPEED, WALL, Call, experiment_of, has_clock, time_of, timed_calls
from reports.select import method_order, metric_order

LEAST_FREEDOM = 4  # with fewer repeated runs their spread is itself unknown
Key = tuple[str, ...]


@dataclass(frozen=True)
class Spread:
    """A standard deviation between repeated runs, in the unit of :attr:`reports.changes.Change.value`.

    ``runs`` is how many runs of the baseline's own commit there are, at least 1; ``offset`` their mean less the baseline run,
    so that a gate can hold a run against all of them.
    """

    deviation: float
    freedom: int
    offset: float = 0.0
    runs: int = 1


@dataclass(frozen=True)
class Spreads:
    """The spread of each (method, check) of one experiment on one machine."""

    found: Mapping[tuple[str, str], Spread] = field(default_factory=dict)

    def of(self, method: str, check: str) -> Spread | None:
        """None where fewer than :data:`LEAST_FREEDOM` degrees of freedom were seen."""
        spread = self.found.get((method, check))
        return spread if spread is not None and spread.freedom >= LEAST_FREEDOM else None


def repeated_spreads(entries: Iterable[HistoryEntry], baseline: Run) -> Spreads:
    """Spreads of the runs that may be compared with ``baseline``: same experiment, and for times and memory the same machine."""
    groups: dict[Key, list[HistoryEntry]] = {}
    for entry in entries:
        clean = entry.spec and entry.commit and not entry.dirty and entry.complete
        if clean and experiment_of(entry.spec) == experiment_of(baseline.spec):
            groups.setdefault((entry.commit, entry.machine_key), []).append(entry)
    found: dict[tuple[str, str], Spread] = {}
    key = baseline.environment.get("machine_key")
    own = {
        commit: [timed_calls(entry.timings) for entry in group] for (commit, machine), group in groups.items() if machine == key
    }
    its_commit = "" if baseline.environment.get("dirty") else str(baseline.environment.get("commit") or "")
    its_calls = timed_calls(baseline.timings)
    for method in method_order(baseline):
        for check, measure in _COSTS.items():
            values = {commit: [measure(calls.get(method, [])) for calls in group] for commit, group in own.items()}
            spread, itself = _pooled(list(values.values())), measure(its_calls.get(method, []))
            siblings = [value for value in values.get(its_commit, []) if value is not None]
            if itself is not None and siblings:
                spread = replace(spread, offset=float(np.mean(siblings)) - itself, runs=len(siblings))
            found[method, check] = spread
        for metric in metric_order(baseline):
            seeds = [_by_seed(group, method, metric) for group in groups.values()]
            found[method, metric] = _pooled(seeds)
    return Spreads(found)


def _pooled(groups: Sequence[Sequence[float | None]]) -> Spread:
    squares, freedom = 0.0, 0
    for group in groups:
        values = np.array([value for value in group if value is not None and np.isfinite(value)])
        if len(values) > 1:
            squares += float(np.sum((values - values.mean()) ** 2))
            freedom += len(values) - 1
    return Spread(float(np.sqrt(squares / freedom)) if freedom else np.nan, freedom)


def _speed(calls: Sequence[Call]) -> float | None:
    """On the clock that a comparison would take."""
    return _on_clock(calls, "cpu_s") or _on_clock(calls, "latency_s")


def _wall(calls: Sequence[Call]) -> float | None:
    return _on_clock(calls, "latency_s")


def _on_clock(calls: Sequence[Call], clock: str) -> float | None:
    calibrated = len(calls) >= MIN_ROUNDS and has_clock(calls, clock) and all(call.around for call in calls)
    return time_of(calls, clock, relative=True).value if calibrated else None


def _memory(calls: Sequence[Call]) -> float | None:
    peak = max((call.sample.peak_memory_bytes for call in calls), default=0)
    return float(np.log(peak)) if peak > 0 else None


def _by_seed(group: Sequence[HistoryEntry], method: str, metric: str) -> list[float | None]:
    """One score a seed: the newest run's."""
    values: dict[object, float | None] = {}
    for entry in group:
        for score in entry.scores:
            if (score.method, score.metric) == (method, metric):
                values[entry.spec.get("seed")] = score.value
    return list(values.values())


_COSTS: dict[str, Callable[[Sequence[Call]], float | None]] = {SPEED: _speed, WALL: _wall, MEMORY: _memory}
