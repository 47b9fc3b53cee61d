"""Is one method better than another? Paired differences over the same images, and the plain-words answer built on them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from harness.contracts import BASELINE, Failure, Score
from harness.records import Run
from harness.statistics import Interval, paired_difference
from reports.select import (
    accelerators,
    failure_of,
    is_fewer_steps,
    method_order,
    metric_order,
    record_of,
    score_of,
    seconds_per_image,
)

SECONDS, BLOCKS = "seconds per image", "block evaluations per image"


class Verdict(Enum):
    """What a 95% interval of a difference says about the first method."""

    BETTER = "better"
    WORSE = "worse"
    INDISTINGUISHABLE = "indistinguishable"
    NOT_COMPARABLE = "not comparable"


@dataclass(frozen=True)
class Difference:
    """First method less second, in the metric's unit; ``interval`` is None and ``reason`` says why where there is none."""

    verdict: Verdict
    interval: Interval | None = None
    reason: str = ""


def compare(score: Score | Failure, other: Score | Failure) -> Difference:
    """Paired difference of two scores of one metric over the same images, judged by its 95% interval.

    Not comparable where either failed, where fingerprints or image counts differ, and where the metric measures the
    distance to the second method itself (a constant that no method can beat).
    """
    for one in (score, other):
        if isinstance(one, Failure):
            return Difference(Verdict.NOT_COMPARABLE, reason=f"{one.method}: {one.reason}")
    assert isinstance(score, Score) and isinstance(other, Score)
    if dict(score.fingerprint) != dict(other.fingerprint):
        return Difference(Verdict.NOT_COMPARABLE, reason="the two scores have different fingerprints")
    if score.n != other.n:
        return Difference(Verdict.NOT_COMPARABLE, reason=f"scored on {score.n} and {other.n} images, which cannot be paired")
    if score.n > 1 and np.ptp(other.per_image) == 0 and np.ptp(score.per_image) > 0:
        return Difference(
            Verdict.NOT_COMPARABLE,
            reason=f"every image of {other.method} has the same value: it is what this metric compares with",
        )
    interval = paired_difference(np.asarray(score.per_image, np.float64), np.asarray(other.per_image, np.float64))
    if not interval.excludes_zero:
        return Difference(Verdict.INDISTINGUISHABLE, interval)
    gained = (interval.value > 0) == (score.direction == "higher")
    return Difference(Verdict.BETTER if gained else Verdict.WORSE, interval)


@dataclass(frozen=True)
class Opponent:
    """A fewer-steps row (or the full run) that an accelerator is held against, with a difference for each metric."""

    label: str
    cost: float
    differences: dict[str, Difference]

    def metrics(self, verdict: Verdict) -> list[str]:
        """The metrics with that verdict, in report order."""
        return [metric for metric, difference in self.differences.items() if difference.verdict is verdict]


@dataclass(frozen=True)
class Answer:
    """Whether one accelerator is better than fewer steps at its cost.

    ``dearer`` is the fewer-steps row of next higher or equal cost: being better than it settles the matter in favour of the
    accelerator. ``cheaper`` is the next lower one: being worse than it settles it against. Either may be None.
    """

    label: str
    unit: str
    cost: float | None
    dearer: Opponent | None
    cheaper: Opponent | None
    failure: str = ""

    def outcome(self, metric: str) -> str:
        """``yes`` where it beats the dearer row, ``no`` where a cheaper row beats it, else ``can't tell``, or ``not measured``.

        Worse than the dearer row but better than the cheaper one is ``can't tell``: no fewer-steps row has just its cost. An
        accelerator dearer than every row must at least be better than the last of them.
        """
        dearer = self.dearer.differences[metric].verdict if self.dearer else None
        cheaper = self.cheaper.differences[metric].verdict if self.cheaper else None
        if {dearer, cheaper} <= {None, Verdict.NOT_COMPARABLE}:
            return "not measured"
        if dearer is Verdict.BETTER:
            return "yes"
        if cheaper is Verdict.WORSE or (dearer is None and cheaper is not Verdict.BETTER):
            return "no"
        return "can't tell"

    @property
    def headline(self) -> str:
        """``yes`` or ``no`` where no metric says the opposite, ``mixed`` where one does, else the verdict in between."""
        some = self.dearer or self.cheaper
        found = {self.outcome(metric) for metric in some.differences} if some else set()
        if {"yes", "no"} <= found:
            return "mixed"
        return next((word for word in ("yes", "no", "can't tell") if word in found), "not measured")


def costs(run: Run) -> tuple[str, dict[str, float]]:
    """Measured cost of each method: median seconds per image where the full run was timed, else counted block evaluations."""
    timed = {label: float(np.median(seconds)) for label in method_order(run) if len(seconds := seconds_per_image(run, label))}
    if BASELINE in timed:
        return SECONDS, timed
    records = {label: record_of(run, label) for label in method_order(run)}
    return BLOCKS, {label: r.block_evaluations for label, r in records.items() if r and r.block_evaluations is not None}


def answers(run: Run) -> list[Answer]:
    """An :class:`Answer` for every accelerator of a run, in table order."""
    unit, cost = costs(run)
    rungs = [label for label in cost if label == BASELINE or is_fewer_steps(run, label)]
    return [_answer(run, label, unit, cost, rungs) for label in accelerators(run)]


def _answer(run: Run, label: str, unit: str, cost: dict[str, float], rungs: list[str]) -> Answer:
    if label not in cost:
        why = f"its {unit} were not measured" if record_of(run, label) else failure_of(run, label)
        return Answer(label, unit, None, None, None, why)
    dearer = min((rung for rung in rungs if cost[rung] >= cost[label]), key=lambda rung: cost[rung], default=None)
    cheaper = max((rung for rung in rungs if cost[rung] < cost[label]), key=lambda rung: cost[rung], default=None)
    return Answer(label, unit, cost[label], _opponent(run, label, dearer, cost), _opponent(run, label, cheaper, cost))


def _opponent(run: Run, label: str, other: str | None, cost: dict[str, float]) -> Opponent | None:
    if other is None:
        return None
    metrics = metric_order(run)
    return Opponent(other, cost[other], {m: compare(score_of(run, label, m), score_of(run, other, m)) for m in metrics})
