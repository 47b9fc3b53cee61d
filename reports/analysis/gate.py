"""The regression gate: is the current run as fast, as small and as good as the baseline run? Nothing unknown ever passes.

For every check of every method there is a change with its standard error (:mod:`reports.analysis.findings`) and a tolerance, the
loss that must be detected: 5% of time, 5% of memory, and for a score its margin.

- FAIL where the loss is significant (one-sided, Holm's correction over all checks, 5% for the whole gate) and at least half the
  tolerance, so that a true loss of the whole tolerance is caught and a loss of no consequence is not an alarm.
- PASS where the upper end of the one-sided 95% interval lies within the tolerance.
- INCONCLUSIVE in between: more rounds or images are needed.
- NOT-MEASURED where there is nothing to compare, with the reason.

A score's margin is absolute, in the metric's unit: a quarter of the baseline's per-image standard deviation where higher is
better (a small effect, for scores that may lie near zero), and a tenth of the baseline's value where lower is better (distances
have a true zero, and the spread of their pseudo-values grows with N).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from harness.history.packing import run_id
from harness.storage.records import Run
from reports.analysis.changes import MEMORY, SPEED, WALL, Change, Missing
from reports.analysis.findings import findings, interval_of, upper_bound
from reports.analysis.select import method_order, metric_order, score_of
from reports.analysis.spread import Spreads
from reports.format import interval_text, number


class GateVerdict(Enum):
    """What the gate concludes; see :attr:`exit_code`."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_MEASURED = "NOT-MEASURED"

    @property
    def exit_code(self) -> int:
        """PASS 0, FAIL 1, INCONCLUSIVE 2, NOT-MEASURED 3."""
        return list(GateVerdict).index(self)


PRECEDENCE = (GateVerdict.FAIL, GateVerdict.NOT_MEASURED, GateVerdict.INCONCLUSIVE, GateVerdict.PASS)


@dataclass(frozen=True)
class Limits:
    """``speed`` and ``memory`` are shares (0.05 is 5%). ``margins`` replaces a metric's margin by one in its own unit."""

    speed: float = 0.05
    memory: float = 0.05
    deviations: float = 0.25
    relative: float = 0.10
    margins: Mapping[str, float] = field(default_factory=dict)


ITSELF = "the current run is the baseline itself: ilf-bench run at other code, or run --again, measures another"


@dataclass(frozen=True)
class GateRow:
    """One check. A row that is not ``counted`` has no bearing on the whole unless it fails; its text says why.

    ``short``: the change alone, for a table: ``×0.957`` or ``−0.3``; empty where nothing was measured.
    """

    method: str
    check: str
    verdict: GateVerdict
    text: str
    counted: bool = True
    short: str = ""


@dataclass(frozen=True)
class GateResult:
    """Every check; the whole is the worst by FAIL > NOT-MEASURED > INCONCLUSIVE > PASS, and NOT-MEASURED without any check."""

    current: str
    baseline: str
    rows: tuple[GateRow, ...]
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> GateVerdict:
        """The worst verdict of the rows that count."""
        found = {row.verdict for row in self.rows if row.counted or row.verdict is GateVerdict.FAIL}
        return next((verdict for verdict in PRECEDENCE if verdict in found), GateVerdict.NOT_MEASURED)

    @property
    def exit_code(self) -> int:
        """The exit code of the whole."""
        return self.verdict.exit_code


def gate(current: Run, baseline: Run, limits: Limits | None = None, spreads: Spreads | None = None) -> GateResult:
    """Check every method and metric that the baseline lists. What cannot be checked is NOT-MEASURED, with the reason."""
    if _is_itself(current, baseline):
        row = GateRow("(run)", "itself", GateVerdict.NOT_MEASURED, ITSELF)
        return GateResult(str(current.path), str(baseline.path), (row,))
    limits, spreads = limits or Limits(), spreads or Spreads()
    partial = [name for name, run in (("current", current), ("baseline", baseline)) if not run.complete]
    rows = [GateRow("(run)", name, GateVerdict.NOT_MEASURED, "the run is not complete") for name in partial]
    for one in findings(current, baseline, spreads):
        if isinstance(one, Missing):
            rows.append(GateRow(one.method, one.check, GateVerdict.NOT_MEASURED, one.reason, one.counted))
            continue
        change, tolerance = one.change, _tolerance(one.change, baseline, limits)
        few = "" if np.isfinite(change.error) else "; too few rounds or images for an interval"
        text = f"{_text(change, tolerance)}; error from {one.source}{few}"
        verdict, short = judge(change, tolerance, one.is_loss), _short(change)
        rows.append(GateRow(change.method, change.check, verdict, text, change.counted, short))
    return GateResult(str(current.path), str(baseline.path), tuple(rows), tuple(_new(current, baseline)))


def _is_itself(current: Run, baseline: Run) -> bool:
    try:
        return run_id(current) == run_id(baseline)
    except ValueError:  # a number that is none: its check says so
        return False


def judge(change: Change, tolerance: float, significant: bool) -> GateVerdict:
    """See the head of this file."""
    if not np.isfinite([change.value, change.error]).all():
        return GateVerdict.INCONCLUSIVE
    if change.error == 0:  # nothing is known of its noise: the tolerance itself decides
        return GateVerdict.PASS if change.harm <= tolerance else GateVerdict.FAIL
    if significant and change.harm > 0 and change.harm >= tolerance / 2:
        return GateVerdict.FAIL
    return GateVerdict.PASS if upper_bound(change) <= tolerance else GateVerdict.INCONCLUSIVE


def _tolerance(change: Change, baseline: Run, limits: Limits) -> float:
    """In the unit of the change; 0 for a single image, so that only an exact match passes."""
    if change.check in (SPEED, WALL):
        return float(np.log1p(limits.speed))
    if change.check == MEMORY:
        return float(np.log1p(limits.memory))
    if change.check in limits.margins:
        return limits.margins[change.check]
    if not change.higher_is_better:
        return limits.relative * abs(change.then)
    values = np.asarray(getattr(score_of(baseline, change.method, change.check), "influence", ()), np.float64)
    return limits.deviations * float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _text(change: Change, tolerance: float) -> str:
    interval = interval_of(change)
    plain = not np.isfinite(change.error) or change.error == 0
    if change.is_ratio:
        what = "peak memory" if change.check == MEMORY else "seconds per image"
        shown = number(interval.value, 4) if plain else interval_text(interval)
        return f"{shown} times the baseline's {what} ({change.how}); tolerance {np.expm1(tolerance):.1%}"
    unit, better = f" {change.unit}" if change.unit else "", "higher" if change.higher_is_better else "lower"
    margin = f"margin {number(tolerance)}"
    shown = number(interval.value) if plain else interval_text(interval, signed=True)
    return f"changed by {shown}{unit} ({better} is better; {change.how}); {margin}"


def _short(change: Change) -> str:
    value = interval_of(change).value
    return f"×{number(value, 4)}" if change.is_ratio else f"{'+' if value > 0 else ''}{number(value)}"


def _new(current: Run, baseline: Run) -> list[str]:
    methods = [f"{label}" for label in method_order(current) if label not in method_order(baseline)]
    metrics = [f"metric {name}" for name in metric_order(current) if name not in metric_order(baseline)]
    new = [*methods, *metrics]
    return [f"new, so that the baseline has nothing to hold against: {', '.join(new)}"] if new else []
