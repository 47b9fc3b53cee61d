"""What a gate knows of repeated runs: the calm half of a run's calls, and all clean runs of either commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.history.store import History
from harness.results import REFERENCE, TimingSample
from harness.storage.records import Run
from reports.analysis.changes import SPEED, time_of, timed_calls
from reports.analysis.findings import findings
from reports.analysis.gate import gate
from reports.analysis.spread import Siblings, repeated_spreads
from reports.render.gate_pages import gate_text

Make = Callable[..., Run]


def sample(method: str, number: int, seconds: float) -> TimingSample:
    return TimingSample(method, number, 1, seconds, 0, seconds, 0, 10**6)


def rounds(calls: list[tuple[float, float]]) -> tuple[TimingSample, ...]:
    """(workload, method) seconds of each round."""
    return tuple(
        one
        for n, (work, own) in enumerate(calls)
        for one in (sample(REFERENCE, n, work), sample("full", n, own), sample(REFERENCE, n, work))
    )


def test_of_many_calls_the_calmer_half_counts() -> None:
    """A busy machine takes twice as long for the workload and three times as long for the method."""
    calm, busy = (0.02, 0.06), (0.04, 0.18)
    mixed = timed_calls(rounds([calm, busy] * 10))["full"]
    assert np.exp(time_of(mixed, "latency_s", relative=True).value) == pytest.approx(3.0)
    few = timed_calls(rounds([calm, busy] * 4))["full"]  # eight calls are all needed
    assert np.exp(time_of(few, "latency_s", relative=True).value) == pytest.approx(np.sqrt(3 * 4.5))


def run_of(run: Run, commit: str, seconds: float, dirty: bool = False) -> Run:
    environment = dict(run.environment) | {"commit": commit, "dirty": dirty, "created": f"2026-01-01T00:00:{seconds * 100:05.2f}"}
    calls = rounds([(0.02, seconds * (1 + 0.001 * (n % 2))) for n in range(8)])
    return replace(run, environment=environment, timings=calls)


@pytest.fixture
def one(make_run: Make) -> Run:
    return make_run(methods={"full": (20, 480, 1.0, 10.0)})


def history_of(folder: Path, runs: list[Run]) -> History:
    history = History(folder / "history.sqlite")
    for run in runs:
        history.append(run)
    return history


def test_all_clean_runs_of_either_commit_are_compared(one: Run, tmp_path: Path) -> None:
    """Means 0.100 and 0.110 of three and two runs; dirty runs are nobody's siblings."""
    before = [run_of(one, "aaaa", seconds) for seconds in (0.098, 0.1, 0.102)]
    after = [run_of(one, "bbbb", seconds) for seconds in (0.109, 0.111)]
    known = history_of(tmp_path, [*before, *after, run_of(one, "bbbb", 0.5, dirty=True), run_of(one, "cccc", 0.7)])
    spread = repeated_spreads(known.runs(), before[2], after[0]).found["full", SPEED]
    mean = np.mean(np.log([0.109, 0.111]))
    assert spread.now == Siblings(2, pytest.approx(mean - np.log(0.109)))
    assert spread.then.runs == 3 and spread.then.offset == pytest.approx(np.log([0.098, 0.1, 0.102]).mean() - np.log(0.102))
    assert spread.freedom == 3


def test_the_finding_holds_mean_against_mean(one: Run, tmp_path: Path) -> None:
    before = [run_of(one, "aaaa", seconds) for seconds in (0.098, 0.1, 0.102, 0.099, 0.101)]
    after = [run_of(one, "bbbb", seconds) for seconds in (0.109, 0.111, 0.11)]
    spreads = repeated_spreads(history_of(tmp_path, [*before, *after]).runs(), before[2], after[0])
    found = next(f for f in findings(after[0], before[2], spreads) if getattr(f, "change", None) and f.change.check == SPEED)  # type: ignore[union-attr]
    deviation = spreads.found["full", SPEED].deviation
    expected = np.log([0.109, 0.111, 0.11]).mean() - np.log([0.098, 0.1, 0.102, 0.099, 0.101]).mean()
    assert found.change.value == pytest.approx(expected)  # type: ignore[union-attr]
    assert found.change.error == pytest.approx(deviation * np.sqrt(1 / 3 + 1 / 5))  # type: ignore[union-attr]
    text = gate_text(gate(after[0], before[2], spreads=spreads))
    assert "3 runs of the current commit against 5 of the baseline's" in text


def test_a_run_of_the_baselines_own_commit_stands_alone(one: Run, tmp_path: Path) -> None:
    runs = [run_of(one, "aaaa", seconds) for seconds in (0.098, 0.1, 0.102)]
    spread = repeated_spreads(history_of(tmp_path, runs).runs(), runs[0], runs[2]).found["full", SPEED]
    assert spread.now == Siblings() and spread.then.runs == 2


def test_dirty_and_unknown_runs_stand_alone(one: Run, tmp_path: Path) -> None:
    before = [run_of(one, "aaaa", seconds) for seconds in (0.098, 0.1)]
    dirty = [run_of(one, "bbbb", seconds, dirty=True) for seconds in (0.11, 0.12)]
    spread = repeated_spreads(history_of(tmp_path, [*before, *dirty]).runs(), before[0], dirty[0]).found["full", SPEED]
    assert spread.now == Siblings() and spread.then.runs == 2
