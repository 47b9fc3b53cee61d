"""How much repeated runs of the same code differ: the A/A spread of everything a gate checks, from the history itself.

Runs of one clean commit, on one machine and of one experiment are A/A. Speed, wall clock and memory are compared as
:mod:`reports.analysis.changes` compares them; scores are compared between different seeds, since equal seeds give equal images.
The standard deviation is pooled over all commits, each about its own mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.history.packing import run_id
from harness.history.store import HistoryEntry
from harness.storage.records import Run
from reports.analysis.changes import MEMORY, MIN_ROUNDS, SPEED, WALL, Call, experiment_of, has_clock, time_of, timed_calls
from reports.analysis.select import method_order, metric_order

LEAST_FREEDOM = 4  # with fewer repeated runs their spread is itself unknown
Measure = Callable[[Sequence[Call]], float | None]


@dataclass(frozen=True)
class Siblings:
    """The runs of one commit that a time or memory is the mean of: how many, at least 1, and their mean less the run itself."""

    runs: int = 1
    offset: float = 0.0


@dataclass(frozen=True)
class Spread:
    """A standard deviation between repeated runs, in the unit of :attr:`reports.analysis.changes.Change.value`.

    ``now`` and ``then`` are the runs of the current run's commit and of the baseline's, so that a gate can hold all against all.
    """

    deviation: float
    freedom: int
    now: Siblings = Siblings()
    then: Siblings = Siblings()


@dataclass(frozen=True)
class Spreads:
    """The spread of each (method, check) of one experiment on one machine."""

    found: Mapping[tuple[str, str], Spread] = field(default_factory=dict)

    def of(self, method: str, check: str) -> Spread | None:
        """None where fewer than :data:`LEAST_FREEDOM` degrees of freedom were seen."""
        spread = self.found.get((method, check))
        return spread if spread is not None and spread.freedom >= LEAST_FREEDOM else None


def repeated_spreads(entries: Iterable[HistoryEntry], baseline: Run, current: Run) -> Spreads:
    """Spreads of the runs that may be compared with ``baseline``: same experiment, and for times and memory the same machine."""
    groups: dict[tuple[str, str], list[HistoryEntry]] = {}
    for entry in entries:
        clean = entry.spec and entry.commit and not entry.dirty and entry.complete
        if clean and experiment_of(entry.spec) == experiment_of(baseline.spec):
            groups.setdefault((entry.commit, entry.machine_key), []).append(entry)
    key = str(baseline.environment.get("machine_key"))
    here = {commit: group for (commit, machine), group in groups.items() if machine == key}
    calls = {entry.run_id: timed_calls(entry.timings) for group in here.values() for entry in group}
    calls |= {run_id(run): timed_calls(run.timings) for run in (baseline, current)}
    then = _ids(baseline, current, here.get(_commit(baseline), []))
    now = _ids(current, baseline, here.get(_commit(current), []) if _commit(current) != _commit(baseline) else [])
    found: dict[tuple[str, str], Spread] = {}
    for method in method_order(baseline):
        for check, measure in _COSTS.items():
            values = {identity: measure(some.get(method, [])) for identity, some in calls.items()}
            spread = _pooled([[values[entry.run_id] for entry in group] for group in here.values()])
            found[method, check] = Spread(*spread, *(_mean([values[one] for one in some]) for some in (now, then)))
        for metric in metric_order(baseline):
            found[method, metric] = Spread(*_pooled([_by_seed(group, method, metric) for group in groups.values()]))
    return Spreads(found)


def _commit(run: Run) -> str:
    """Empty where the code of a run is not known by its commit."""
    return "" if run.environment.get("dirty") else str(run.environment.get("commit") or "")


def _ids(run: Run, without: Run, group: Sequence[HistoryEntry]) -> list[str]:
    """Those of a run, which comes first, and of the other runs of its commit."""
    own, other = run_id(run), run_id(without)
    return [own, *(entry.run_id for entry in group if entry.run_id not in (own, other))]


def _mean(values: Sequence[float | None]) -> Siblings:
    """Of a run's own value, which comes first, and its siblings'."""
    itself, found = values[0], [value for value in values if value is not None]
    return Siblings() if itself is None else Siblings(len(found), float(np.mean(found)) - itself)


def _pooled(groups: Sequence[Sequence[float | None]]) -> tuple[float, int]:
    """Standard deviation about the groups' own means, and its degrees of freedom."""
    squares, freedom = 0.0, 0
    for group in groups:
        values = np.array([value for value in group if value is not None and np.isfinite(value)])
        if len(values) > 1:
            squares += float(np.sum((values - values.mean()) ** 2))
            freedom += len(values) - 1
    return float(np.sqrt(squares / freedom)) if freedom else np.nan, freedom


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


_COSTS: dict[str, Measure] = {SPEED: _speed, WALL: _wall, MEMORY: _memory}
