"""The regression gate: is the current run as fast, as small and as good as the baseline run? Nothing unknown ever passes.

Speed: ratio of median seconds per image, current over baseline, with a bootstrap interval that resamples the two runs
independently (they were not interleaved with each other). It passes where the whole interval is at most 1 + tolerance and
fails where the whole interval is above the larger of the tolerance and the A/A spread of both runs. So a noisy machine can
excuse a failure but never buys a pass. Fewer than 4 rounds are inconclusive.

Quality: the change in the harmful direction, paired where both runs scored the same samples, with its 95% interval, against a
margin. It passes where the interval lies below the margin and fails where it lies above. The margin is absolute, in the
metric's unit: a quarter of the baseline's per-image standard deviation where higher is better (a small effect, for scores
that may lie near zero), and a tenth of the baseline's value where lower is better (distances have a true zero, and the spread
of their pseudo-values grows with N).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from harness.contracts import A_A, BASELINE, Failure, FloatArray, Score
from harness.records import Run
from harness.statistics import RESAMPLES, Interval, mean_interval, paired_difference
from reports.format import interval_text, number
from reports.select import (
    failure_of,
    method_order,
    metric_order,
    noise_spread,
    peak_memory,
    record_of,
    samples_of,
    score_of,
    seconds_per_image,
)

MIN_ROUNDS = 4
SAME_EXPERIMENT = ("task", "pipeline", "solver", "steps", "guidance", "precision")
SAME_SAMPLES = ("seed", "samples", "prompts")


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


@dataclass(frozen=True)
class GateRow:
    """One check. A row that is not ``counted`` has no bearing on the whole; its reason says why."""

    method: str
    check: str
    verdict: GateVerdict
    text: str
    counted: bool = True


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
        found = {row.verdict for row in self.rows if row.counted}
        return next((verdict for verdict in PRECEDENCE if verdict in found), GateVerdict.NOT_MEASURED)

    @property
    def exit_code(self) -> int:
        """The exit code of the whole."""
        return self.verdict.exit_code


def gate(current: Run, baseline: Run, limits: Limits | None = None) -> GateResult:
    """Check every method and metric that the baseline lists. What cannot be checked is NOT-MEASURED, with the reason."""
    limits = limits or Limits()
    methods, metrics = [m for m in method_order(baseline) if m != A_A], metric_order(baseline)
    partial = [name for name, run in (("current", current), ("baseline", baseline)) if not run.complete]
    rows = [GateRow("(run)", name, GateVerdict.NOT_MEASURED, "the run is not complete") for name in partial]
    different = _differing(current, baseline, SAME_EXPERIMENT)
    for method in methods:
        checks = ["speed", "memory", *metrics]
        if different:
            reason = f"the runs are different experiments: {different}"
            rows += [GateRow(method, check, GateVerdict.NOT_MEASURED, reason) for check in checks]
            continue
        rows += [_speed(current, baseline, method, limits), _memory(current, baseline, method, limits)]
        rows += [_quality(current, baseline, method, metric, limits) for metric in metrics]
    new = [
        f"{label} is new: the baseline has nothing to hold it against" for label in method_order(current) if label not in methods
    ]
    new += [
        f"metric {name} is new: the baseline has nothing to hold it against"
        for name in metric_order(current)
        if name not in metrics
    ]
    return GateResult(str(current.path), str(baseline.path), tuple(rows), tuple(new))


def judge(harm: Interval, passes: float, fails: float) -> GateVerdict:
    """PASS where the whole interval is at most ``passes``, FAIL where all of it is above ``fails``, else INCONCLUSIVE."""
    if not np.isfinite([harm.low, harm.value, harm.high]).all():
        return GateVerdict.INCONCLUSIVE
    if harm.high <= passes:
        return GateVerdict.PASS
    return GateVerdict.FAIL if harm.low > fails else GateVerdict.INCONCLUSIVE


def independent_ratio(numerator: FloatArray, denominator: FloatArray, seed: int = 0) -> Interval:
    """median(numerator [R]) / median(denominator [S]) with a 95% bootstrap interval that resamples each by itself."""
    rng = np.random.default_rng(seed)
    medians = [np.median(v[rng.integers(len(v), size=(RESAMPLES, len(v)))], axis=1) for v in (numerator, denominator)]
    low, high = np.quantile(medians[0] / medians[1], [0.025, 0.975])
    return Interval(float(np.median(numerator) / np.median(denominator)), float(low), float(high))


def _differing(current: Run, baseline: Run, keys: tuple[str, ...]) -> str:
    pairs: list[tuple[str, Any, Any]] = [(key, current.spec.get(key), baseline.spec.get(key)) for key in keys]
    return ", ".join(f"{key} {now!r} against {then!r}" for key, now, then in pairs if now != then)


def _incomparable_cost(current: Run, baseline: Run, method: str) -> str:
    for name, run in (("current", current), ("baseline", baseline)):
        if record_of(run, method) is None:
            return f"{name}: {failure_of(run, method)}"
        if not len(seconds_per_image(run, method)):
            return f"{name}: not timed"
    keys = [run.environment.get("machine_key") for run in (current, baseline)]
    if None in keys:
        return "the machine was not recorded in both runs"
    if keys[0] != keys[1]:
        return f"different machines: {keys[0]} and {keys[1]}"
    batches = [{t.batch for t in run.timings if t.method == method} for run in (current, baseline)]
    return "" if batches[0] == batches[1] else f"different timing batches: {sorted(batches[0])} and {sorted(batches[1])}"


def _speed(current: Run, baseline: Run, method: str, limits: Limits) -> GateRow:
    if reason := _incomparable_cost(current, baseline, method):
        return GateRow(method, "speed", GateVerdict.NOT_MEASURED, reason)
    now, then = seconds_per_image(current, method), seconds_per_image(baseline, method)
    if min(now.min(), then.min()) <= 0:
        return GateRow(method, "speed", GateVerdict.NOT_MEASURED, "a recorded time is not positive")
    ratio = independent_ratio(now, then)
    spreads = [spread for run in (current, baseline) if (spread := noise_spread(run)) is not None]
    floor = max([limits.speed, *spreads])
    text = f"{interval_text(ratio)} times the baseline's seconds per image; tolerance {limits.speed:.1%}"
    if floor > limits.speed:
        text += f", failing only above {floor:.1%} because of the A/A spread"
    if min(len(now), len(then)) < MIN_ROUNDS:
        return GateRow(method, "speed", GateVerdict.INCONCLUSIVE, f"{text}; fewer than {MIN_ROUNDS} rounds")
    return GateRow(method, "speed", judge(ratio, 1 + limits.speed, 1 + floor), text)


def _memory(current: Run, baseline: Run, method: str, limits: Limits) -> GateRow:
    reason = _incomparable_cost(current, baseline, method)
    now, then = peak_memory(current, method), peak_memory(baseline, method)
    if reason or now is None or then is None:
        return GateRow(method, "memory", GateVerdict.NOT_MEASURED, reason or "peak memory was not recorded in both runs")
    ratio = now / then
    verdict = GateVerdict.PASS if ratio <= 1 + limits.memory else GateVerdict.FAIL
    return GateRow(method, "memory", verdict, f"{number(ratio)} times the baseline's peak memory; tolerance {limits.memory:.1%}")


def _quality(current: Run, baseline: Run, method: str, metric: str, limits: Limits) -> GateRow:
    now, then = score_of(current, method, metric), score_of(baseline, method, metric)
    if isinstance(now, Failure) or isinstance(then, Failure):
        return _failed_score(method, metric, now, then)
    if dict(now.fingerprint) != dict(then.fingerprint):
        return GateRow(
            method, metric, GateVerdict.NOT_MEASURED, f"refused: fingerprints differ in {_fingerprint_keys(now, then)}"
        )
    change, pairing = _change(current, baseline, method, now, then)
    sign = -1.0 if now.direction == "higher" else 1.0
    harm = Interval(sign * change.value, *sorted((sign * change.low, sign * change.high)))
    margin = limits.margins.get(metric, _margin(then, limits))
    unit = f" {now.unit}" if now.unit else ""
    text = (
        f"changed by {interval_text(change, signed=True)}{unit} ({now.direction} is better; {pairing}); margin {number(margin)}"
    )
    return GateRow(method, metric, judge(harm, margin, margin), text)


def _failed_score(method: str, metric: str, now: Score | Failure, then: Score | Failure) -> GateRow:
    reasons = [f"{name}: {one.reason}" for name, one in (("current", now), ("baseline", then)) if isinstance(one, Failure)]
    same = isinstance(now, Failure) and isinstance(then, Failure) and now.reason == then.reason
    if same and method == BASELINE:  # a distance of the full run to itself has no value in any run
        text = f"not counted, full has no value in either run; {'; '.join(reasons)}"
        return GateRow(method, metric, GateVerdict.NOT_MEASURED, text, counted=False)
    return GateRow(method, metric, GateVerdict.NOT_MEASURED, "; ".join(reasons))


def _fingerprint_keys(now: Score, then: Score) -> str:
    keys = sorted({*now.fingerprint, *then.fingerprint})
    return ", ".join(key for key in keys if now.fingerprint.get(key) != then.fingerprint.get(key))


def _margin(then: Score, limits: Limits) -> float:
    """See the head of this file; 0 for a single image, so that only an exact match passes."""
    if then.direction == "lower":
        return limits.relative * abs(then.value)
    return limits.deviations * float(np.std(then.per_image, ddof=1)) if then.n > 1 else 0.0


def _change(current: Run, baseline: Run, method: str, now: Score, then: Score) -> tuple[Interval, str]:
    a, b = np.asarray(now.per_image, np.float64), np.asarray(then.per_image, np.float64)
    if now.n == then.n and _same_samples(current, baseline, method):
        return paired_difference(a, b), "paired"
    first, second = mean_interval(a), mean_interval(b)
    half = float(np.hypot(first.high - first.value, second.high - second.value))
    value = first.value - second.value
    return Interval(value, value - half, value + half), "unpaired"


def _same_samples(current: Run, baseline: Run, method: str) -> bool:
    if _differing(current, baseline, SAME_SAMPLES):
        return False
    listed = [[(s.index, s.prompt) for s in samples_of(run, method)] for run in (current, baseline)]
    return listed[0] == listed[1]


def gate_markdown(result: GateResult) -> str:
    """The verdict, a table of every check, and the notes."""
    lines = [f"## Gate: {result.verdict.value}", "", f"`{result.current}` against `{result.baseline}`", ""]
    lines += ["| Method | Check | Verdict | Why |", "| --- | --- | --- | --- |"]
    lines += [f"| {_cell(r.method)} | {_cell(r.check)} | {r.verdict.value} | {_cell(r.text)} |" for r in result.rows]
    return "\n".join([*lines, "", *(f"- {_cell(note)}" for note in result.notes)]).rstrip() + "\n"


def gate_text(result: GateResult) -> str:
    """The same for a terminal: one line a check, then the verdict."""
    width = max((len(f"{r.method}  {r.check}") for r in result.rows), default=0)
    lines = [f"{r.verdict.value:<12}  {f'{r.method}  {r.check}':<{width}}  {r.text}" for r in result.rows]
    return "\n".join([*lines, *result.notes, f"gate: {result.verdict.value} (exit code {result.exit_code})"]) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
