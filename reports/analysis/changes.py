"""What changed from one run to another, method by method: speed, memory, and each metric, each with its uncertainty.

Speed: each run is first held against its own calibration, the fixed workload timed before and after each method in every round
(:mod:`harness.timing.reference_workload`), so that a busier or slower machine cancels; the change is the difference of the two
log ratios. Where
one thread of a CPU did the work, its processor time is compared, which other programs disturb least, and ``wall clock`` is a
check of its own. A busy machine slows a method more than the workload, so of many calls only the calmer half counts. Rounds near
in time are alike, so the error of a run comes from up to eight blocks of consecutive rounds.

Quality: the difference of the scores, prompt by prompt on the images that both runs have, where their prompts are the same; else
of the two means. What has no value of a single image (FID) is compared at one N only, since it depends on N.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.results import A_A, BASELINE, REFERENCE, Failure, FloatArray, Score, TimingSample
from harness.statistics.rounds import trimmed_mean
from harness.storage.records import Run
from harness.timing.machine import differing_facts
from reports.analysis.select import failure_of, method_order, metric_order, record_of, score_of

SAME_EXPERIMENT = ("task", "pipeline", "solver", "steps", "guidance", "precision", "dtype")
DEFAULTS = {"dtype": "float32"}
MIN_ROUNDS = 4
BLOCKS = 8
CALMEST = 8
SPEED, WALL, MEMORY = "speed", "wall clock", "memory"
Names = tuple[str, str]
NAMES = ("current", "baseline")
METHOD = "method"  # the check of a method that one of the runs does not have
PAIRED_BY_NOISE = "paired by noise"


@dataclass(frozen=True)
class Change:
    """Current less baseline, positive where it went up: a log ratio for costs, else in the metric's unit.

    ``error`` is one standard error with ``freedom`` degrees of freedom; it is infinite where there is too little to tell.
    ``images``: how many a score was compared on.
    """

    method: str
    check: str
    value: float
    error: float
    freedom: float
    how: str
    now: float
    then: float
    unit: str = ""
    higher_is_better: bool = False
    counted: bool = True
    images: int = 0

    @property
    def is_ratio(self) -> bool:
        """Whether ``value`` is the logarithm of a ratio."""
        return self.check in (SPEED, WALL, MEMORY)

    @property
    def harm(self) -> float:
        """The change in the direction that nobody wants."""
        return -self.value if self.higher_is_better else self.value


@dataclass(frozen=True)
class Missing:
    """A check without a number, and why. One that is not ``counted`` has no bearing on a verdict."""

    method: str
    check: str
    reason: str
    counted: bool = True


@dataclass(frozen=True)
class Call:
    """One timed call, and the fixed workload's samples next to it: two, fewer or none in records without it."""

    sample: TimingSample
    around: tuple[TimingSample, ...]


@dataclass(frozen=True)
class LogTime:
    """A logarithm of time with one standard error."""

    value: float
    error: float
    freedom: float


def experiment_of(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """What must agree before two runs are the same experiment, whatever their seed, methods and metrics."""
    return tuple(f"{key} {spec.get(key, DEFAULTS.get(key))!r}" for key in SAME_EXPERIMENT)


def changes(current: Run, baseline: Run, names: Names = NAMES) -> list[Change | Missing]:
    """A row for each check of each method that the baseline lists, in its order; one for a method that either run lacks.

    ``names``: what reasons call the current run and the baseline.
    """
    pairs = zip(experiment_of(current.spec), experiment_of(baseline.spec), strict=True)
    different = ", ".join(f"{now} against {then.split(' ', 1)[1]}" for now, then in pairs if now != then)
    rows: list[Change | Missing] = []
    now, then = timed_calls(current.timings), timed_calls(baseline.timings)
    for method in (m for m in method_order(baseline) if m != A_A):
        if different:
            rows.append(Missing(method, METHOD, f"the runs are different experiments: {different}"))
            continue
        if missing := _missing_method(method, (current, baseline), names):
            rows.append(missing)
            continue
        rows += _costs(method, (current, baseline), names, (now.get(method, []), then.get(method, [])))
        rows += [_quality((current, baseline), names, method, metric) for metric in metric_order(baseline)]
    return rows


def _missing_method(method: str, runs: tuple[Run, Run], names: Names) -> Missing | None:
    found = zip(names, runs, strict=True)
    reasons = [f"{name}: {failure_of(run, method)}" for name, run in found if record_of(run, method) is None]
    return Missing(method, METHOD, "; ".join(reasons)) if reasons else None


def timed_calls(timings: Sequence[TimingSample]) -> dict[str, list[Call]]:
    """The calls of each method in the order they were made, with the workload's samples just before and just after."""
    found: dict[str, list[Call]] = {}
    for i, sample in enumerate(timings):
        near = timings[max(i - 1, 0) : i + 2]
        around = tuple(t for t in near if t.method == REFERENCE and t.round == sample.round)
        found.setdefault(sample.method, []).append(Call(sample, around))
    return found


def _costs(method: str, runs: tuple[Run, Run], names: Names, calls: tuple[list[Call], list[Call]]) -> list[Change | Missing]:
    if reason := _incomparable(runs, names, calls):
        return [Missing(method, SPEED, reason), Missing(method, MEMORY, reason)]
    processor = all(has_clock(some, "cpu_s") for some in calls)
    rows: list[Change | Missing] = [_speed(method, calls, "cpu_s" if processor else "latency_s")]
    if processor:
        rows.append(_speed(method, calls, "latency_s", WALL))
    now, then = (max(call.sample.peak_memory_bytes for call in some) for some in calls)
    if min(now, then) <= 0:
        rows.append(Missing(method, MEMORY, "peak memory was not recorded in both runs"))
    else:
        rows.append(Change(method, MEMORY, float(np.log(now / then)), 0.0, np.inf, "peak of all rounds", now, then, "bytes"))
    return rows


def _incomparable(runs: tuple[Run, Run], names: Names, calls: tuple[list[Call], list[Call]]) -> str:
    for name, some in zip(names, calls, strict=True):
        if not some:
            return f"{name}: not timed"
        if not has_clock(some, "latency_s"):
            return f"{name}: a recorded time is not a positive number"
    current, baseline = runs
    if None in [run.environment.get("machine_key") for run in runs]:
        return "the machine was not recorded in both runs"
    if differing := differing_facts(baseline.environment, current.environment):
        return f"different machines: {differing}"
    batches = [{call.sample.batch for call in some} for some in calls]
    then, now = (", ".join(map(str, sorted(sizes))) for sizes in reversed(batches))
    return "" if then == now else f"different timing batches: {then} -> {now}"


def has_clock(calls: Sequence[Call], clock: str) -> bool:
    """Whether every call, and the workload around it, has a finite time above 0 on that clock."""
    times = [getattr(sample, clock) for call in calls for sample in (call.sample, *call.around)]
    return all(time is not None and 0 < time < np.inf for time in times)


def _speed(method: str, calls: tuple[list[Call], list[Call]], clock: str, check: str = SPEED) -> Change:
    words = "processor time" if clock == "cpu_s" else "wall clock"
    relative = all(call.around for some in calls for call in some)
    first, second = (time_of(some, clock, relative) for some in calls)
    how = f"{words}, {'relative to the fixed workload' if relative else 'not calibrated: no fixed workload in both runs'}"
    now, then = (float(np.median([getattr(c.sample, clock) / c.sample.batch for c in some])) for some in calls)
    error, counted = float(np.hypot(first.error, second.error)), check == SPEED
    freedom = _welch(first, second)
    return Change(method, check, first.value - second.value, error, freedom, how, now, then, "s/image", counted=counted)


def time_of(calls: Sequence[Call], clock: str, relative: bool) -> LogTime:
    """Logarithm of a method's time per batch; ``relative``: over the mean of the workload's times just before and just after.

    Then only the calmer half of the calls counts, at least CALMEST of them: those beside which the workload ran fastest.
    """
    times = np.array([getattr(call.sample, clock) for call in calls])
    if relative:
        beside = np.array([np.mean([getattr(sample, clock) for sample in call.around]) for call in calls])
        kept = np.sort(np.argsort(beside, kind="stable")[: max(CALMEST, len(beside) // 2)])
        times = times[kept] / beside[kept]
    return blocked(np.log(times))


def blocked(values: FloatArray) -> LogTime:
    """Mean of the trimmed means of up to eight blocks of consecutive rounds [R], with its error; none below four rounds."""
    if len(values) < MIN_ROUNDS:
        return LogTime(float(np.median(values)), np.inf, 1.0)
    means = [trimmed_mean(block).value for block in np.array_split(values, min(BLOCKS, len(values)))]
    return LogTime(float(np.mean(means)), float(np.std(means, ddof=1) / np.sqrt(len(means))), len(means) - 1.0)


def _welch(first: LogTime, second: LogTime) -> float:
    """Degrees of freedom of a difference with unequal errors (Welch 1947)."""
    parts = [(one.error**2, one.freedom) for one in (first, second)]
    total = sum(square for square, _ in parts)
    if not np.isfinite(total) or total == 0:
        return min(first.freedom, second.freedom)
    return float(total**2 / sum(square**2 / freedom for square, freedom in parts))


def _quality(runs: tuple[Run, Run], names: Names, method: str, metric: str) -> Change | Missing:
    current, baseline = runs
    now, then = score_of(current, method, metric), score_of(baseline, method, metric)
    if isinstance(now, Failure) or isinstance(then, Failure):
        return _failed(method, metric, names, (now, then))
    if dict(now.fingerprint) != dict(then.fingerprint):
        return Missing(method, metric, f"refused: fingerprints differ in {_differing_keys(now, then)}")
    if now.n != then.n and (now.per_image is None or then.per_image is None):
        return Missing(method, metric, f"its value depends on the number of images, which was {then.n} and is {now.n}")
    a, b, paired = _shared(current, baseline, now, then)
    if paired:
        same_noise = current.spec.get("seed") == baseline.spec.get("seed")
        errors, how = [_standard_error(a - b)], PAIRED_BY_NOISE if same_noise else "paired by prompt, other noise"
    else:
        errors, how = [_standard_error(a), _standard_error(b)], "unpaired"
    images, error = min(len(a), len(b)), float(np.hypot.reduce(errors))
    values = float(a.mean()), float(b.mean())
    return Change(
        method,
        metric,
        values[0] - values[1],
        error,
        max(1.0, images - 1.0),
        how,
        *values,
        unit=now.unit,
        higher_is_better=now.direction == "higher",
        images=images,
    )


def _shared(current: Run, baseline: Run, now: Score, then: Score) -> tuple[FloatArray, FloatArray, bool]:
    """The values of either run on the first images, which both have where their prompts are the same; else all of each."""
    a, b = np.asarray(now.influence, np.float64), np.asarray(then.influence, np.float64)
    if _prompts(current) != _prompts(baseline):
        return a, b, False
    if now.n == then.n:
        return a, b, True
    if not all(np.array_equal(score.influence, np.asarray(score.per_image)) for score in (now, then)):
        return a, b, False  # a part of them has another value than their mean (PSNR)
    shared = min(now.n, then.n)
    return a[:shared], b[:shared], True


def _failed(method: str, metric: str, names: Names, scores: tuple[Score | Failure, Score | Failure]) -> Missing:
    now, then = scores
    reasons = [f"{name}: {one.reason}" for name, one in zip(names, scores, strict=True) if isinstance(one, Failure)]
    same = isinstance(now, Failure) and isinstance(then, Failure) and now.reason == then.reason
    if same and method == BASELINE:  # a distance of the full run to itself has no value in any run
        return Missing(method, metric, f"not counted, full has no value in either run; {'; '.join(reasons)}", counted=False)
    return Missing(method, metric, "; ".join(reasons))


def _differing_keys(now: Score, then: Score) -> str:
    keys = sorted({*now.fingerprint, *then.fingerprint})
    return ", ".join(key for key in keys if now.fingerprint.get(key) != then.fingerprint.get(key))


def _prompts(run: Run) -> object:
    """What decides which prompt each sample index has: the list's digest, or its name where an older run kept none."""
    record = run.environment.get("prompts") or {}
    return record.get("digest") or run.spec.get("prompts")


def _standard_error(values: FloatArray) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.inf
