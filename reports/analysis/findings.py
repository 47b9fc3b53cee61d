"""The changes from one run to another with all that is known of their noise: what a gate and a comparison judge by.

The error of a change is never smaller than what the history saw between repeated runs of one commit
(:mod:`reports.analysis.spread`):
noise that differs from run to run shows in no number of rounds. Where the history has too few repeated runs, the run's own A/A
pair must do. Where the history holds several clean runs of either commit, time and memory are those of their mean, which is known
better than any one of them. Scores of the same noise are exact repetitions, so there the images alone decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr, stdtrit

from harness.results import A_A, BASELINE
from harness.statistics import Interval, holm
from harness.storage.records import Run
from reports.analysis.changes import (
    MEMORY,
    NAMES,
    PAIRED_BY_NOISE,
    SPEED,
    WALL,
    Change,
    Missing,
    Names,
    changes,
    has_clock,
    time_of,
    timed_calls,
)
from reports.analysis.spread import Spreads

LEVEL = 0.05


@dataclass(frozen=True)
class Finding:
    """A change, where its error comes from, and whether a loss or a gain is significant among all changes of the two runs.

    Both are one-sided tests at 5% with Holm's correction over every check.
    """

    change: Change
    source: str
    is_loss: bool
    is_gain: bool


def findings(current: Run, baseline: Run, spreads: Spreads, names: Names = NAMES) -> list[Finding | Missing]:
    """A row for each check of each method that the baseline lists, in its order; ``names``: what reasons call the two runs."""
    found, pair = changes(current, baseline, names), _a_a_errors((current, baseline))
    widened = {(c.method, c.check): _widened(c, spreads, pair) for c in found if isinstance(c, Change)}
    losses = holm({key: p_value(change) for key, (change, _) in widened.items()})
    gains = holm({key: p_value(replace(change, value=-change.value)) for key, (change, _) in widened.items()})
    rows: list[Finding | Missing] = []
    for one in found:
        key = one.method, one.check
        rows.append(one if isinstance(one, Missing) else Finding(*widened[key], losses[key] <= LEVEL, gains[key] <= LEVEL))
    return rows


def p_value(change: Change) -> float:
    """One-sided: how likely so large a loss is where nothing changed."""
    if not np.isfinite(change.error) or not np.isfinite(change.value):
        return 1.0
    if change.error == 0:
        return float(change.harm <= 0)
    return float(stdtr(change.freedom, -change.harm / change.error))


def upper_bound(change: Change) -> float:
    """The upper end of the loss's one-sided 95% interval."""
    if change.error == 0:
        return change.harm
    return float(change.harm + stdtrit(change.freedom, 1 - LEVEL) * change.error)


def interval_of(change: Change) -> Interval:
    """Two-sided 95%: ratios for costs, differences for scores."""
    half = float(stdtrit(change.freedom, 0.975)) * change.error if change.error else 0.0  # 0 times infinity is no number
    bounds = np.array([change.value, change.value - half, change.value + half])
    return Interval(*map(float, np.exp(bounds) if change.is_ratio else bounds))


def _widened(change: Change, spreads: Spreads, pair: Mapping[str, float]) -> tuple[Change, str]:
    """The change with the error that the history's repeated runs ask for, and where the error comes from."""
    own = {SPEED: "the rounds", WALL: "the rounds", MEMORY: "no repeated run"}.get(change.check, "the images")
    if change.how == PAIRED_BY_NOISE or not np.isfinite(change.error):
        return change, own
    spread = spreads.of(change.method, change.check)
    if spread is None:
        error = pair.get(change.check, 0.0)
        return (replace(change, error=error), "the A/A pair") if error > change.error else (change, own)
    # Of a single run: what its own rounds show (half of the change's variance), or what repeated runs differ by.
    own_deviation, freedom, source = change.error / np.sqrt(2), change.freedom, own
    if spread.deviation > own_deviation:
        own_deviation, freedom, source = spread.deviation, float(spread.freedom), "repeated runs in the history"
    now, then = spread.now, spread.then
    if max(now.runs, then.runs) > 1:
        source += f"; {now.runs} runs of the current commit against {then.runs} of the baseline's"
    error = float(own_deviation * np.sqrt(1 / now.runs + 1 / then.runs))
    return replace(change, value=change.value + now.offset - then.offset, error=error, freedom=freedom), source


def _a_a_errors(runs: tuple[Run, Run]) -> dict[str, float]:
    """How far the full run timed twice differs from itself within a run, as a logarithm, for either clock."""
    found = {SPEED: 0.0, WALL: 0.0}
    for calls in (timed_calls(run.timings) for run in runs):
        twice = [calls.get(label, []) for label in (A_A, BASELINE)]
        if not all(twice) or not all(has_clock(some, "latency_s") for some in twice):
            continue
        clock = "cpu_s" if all(has_clock(some, "cpu_s") for some in twice) else "latency_s"
        for check, name in ((SPEED, clock), (WALL, "latency_s")):
            first, second = (time_of(some, name, relative=False).value for some in twice)
            found[check] = max(found[check], abs(first - second))
    return found
