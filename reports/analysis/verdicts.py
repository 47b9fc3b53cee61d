"""Is a method as good as the full run? Non-inferiority and superiority with stated margins, corrected for how many are asked.

The margin of a metric is a share (10%) of the drop between the full run and five steps of the plain pipeline, so that it means
the same for every metric: a method passes if it keeps 90% of what five steps lose. The drop is measured on the same images, so
both are tested as one contrast, method - 0.9 full - 0.1 five steps, as in trials with a third arm (Pigeot et al., "Assessing
non-inferiority of a new treatment in a three-arm clinical trial including a placebo", 2003). A metric that cannot even tell
five steps from the full run by that margin is INSENSITIVE: whatever passes on it has shown nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from harness.results import BASELINE, Failure, Score
from harness.statistics import Estimate, holm
from harness.storage.records import Run
from reports.analysis.compare import refusal
from reports.analysis.evidence import Evidence, Panel, evidence_of
from reports.analysis.select import metric_order, plain_pipeline, score_of

ANCHOR_STEPS, SHARE, LEVEL = 5, 0.10, 0.05


class Standing(Enum):
    """Where a method stands beside the full run on one metric."""

    SUPERIOR = "better than full"
    NON_INFERIOR = "not inferior"
    INFERIOR = "inferior"
    INCONCLUSIVE = "inconclusive"
    INSENSITIVE = "insensitive"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Sensitivity:
    """What a metric can see: how much worse ``drop`` five steps are than the full run, and the margin that follows.

    ``margin`` is positive, in the metric's unit. ``insensitive``: five steps would not be rejected; ``missing`` why nothing
    is known.
    """

    metric: str
    drop: Estimate | None = None
    margin: float | None = None
    insensitive: bool = False
    missing: str = ""


@dataclass(frozen=True)
class Trial:
    """One method on one metric. ``gain`` is positive where it is better than the full run.

    ``excess`` is the gain plus the margin: above zero the method is not inferior. Its uncertainty contains the margin's. The
    p-values are one-sided, each corrected (Holm) over all methods and metrics of the table; ``p_worse`` is of any loss at all.
    """

    method: str
    metric: str
    standing: Standing
    gain: Estimate | None = None
    excess: Estimate | None = None
    p_not_inferior: float | None = None
    p_superior: float | None = None
    p_worse: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Trials:
    """Every method but the full run and five steps, on every metric."""

    share: float
    sensitivity: Mapping[str, Sensitivity]
    rows: tuple[Trial, ...]


def trials(run: Run, share: float = SHARE, margins: Mapping[str, float] | None = None) -> Trials:
    """All tests of a run. ``margins`` replaces a metric's margin by a number in its own unit."""
    evidence, given = evidence_of(run), dict(margins or {})
    anchor = anchor_of(run)
    seen = {metric: _sensitivity(evidence, metric, anchor, share, given.get(metric)) for metric in metric_order(run)}
    methods = [record.label for record in run.methods if record.label not in (BASELINE, anchor)]
    rows = [_trial(evidence, method, seen[metric], anchor, share, metric in given) for method in methods for metric in seen]
    return Trials(share, seen, tuple(_corrected(rows, seen)))


def anchor_of(run: Run) -> str | None:
    """The method that is five steps of the plain pipeline with the preset's solver; None where the run has none."""
    full = plain_pipeline(run, BASELINE)
    plain = ((record.label, plain_pipeline(run, record.label)) for record in run.methods if record.label != BASELINE)
    return next((label for label, p in plain if p and full and p.solver == full.solver and p.steps == ANCHOR_STEPS), None)


def _sensitivity(evidence: Evidence, metric: str, anchor: str | None, share: float, margin: float | None) -> Sensitivity:
    if anchor is None:
        ask = f"the run has no row of {ANCHOR_STEPS} plain steps: add steps:{ANCHOR_STEPS} to its methods"
        known = f"whether the test is sensitive is not known: {ask}" if margin is not None else f"no margin: {ask}"
        return Sensitivity(metric, None, margin, missing=known)
    full, five = score_of(evidence.run, BASELINE, metric), score_of(evidence.run, anchor, metric)
    if isinstance(full, Failure) or isinstance(five, Failure):
        return Sensitivity(metric, None, margin, missing=refusal(full, five))
    if reason := refusal(full, five):
        return Sensitivity(metric, None, margin, missing=reason)
    panel, sign = evidence.panel(full), _sign(full)
    drop = panel.contrast({BASELINE: sign, anchor: -sign})
    beyond = drop if margin is None else panel.contrast({BASELINE: sign, anchor: -sign}, -margin)
    insensitive = not beyond.low > 0
    return Sensitivity(metric, drop, max(0.0, share * drop.value) if margin is None else margin, insensitive)


def _trial(evidence: Evidence, method: str, seen: Sensitivity, anchor: str | None, share: float, stated: bool) -> Trial:
    run, metric = evidence.run, seen.metric
    score, full = score_of(run, method, metric), score_of(run, BASELINE, metric)
    for one in (score, full):
        if isinstance(one, Failure):
            return Trial(method, metric, Standing.NOT_MEASURED, reason=f"{one.method}: {one.reason}")
    assert isinstance(score, Score) and isinstance(full, Score)
    panel, sign = evidence.panel(score), _sign(score)
    if BASELINE not in panel.columns:
        return Trial(method, metric, Standing.NOT_MEASURED, reason=refusal(score, full))
    gain = panel.contrast({method: sign, BASELINE: -sign})
    excess = _excess(panel, method, seen, anchor, sign, share, stated)
    return Trial(method, metric, Standing.INCONCLUSIVE, gain, excess, reason=seen.missing if excess is None else "")


def _excess(
    panel: Panel, method: str, seen: Sensitivity, anchor: str | None, sign: float, share: float, stated: bool
) -> Estimate | None:
    if stated:
        return panel.contrast({method: sign, BASELINE: -sign}, seen.margin or 0.0)
    if seen.drop is None or anchor is None or anchor not in panel.columns:
        return None
    return panel.contrast({method: sign, BASELINE: -sign * (1 - share), anchor: -sign * share})


def _sign(score: Score) -> float:
    return 1.0 if score.direction == "higher" else -1.0


def _corrected(rows: list[Trial], seen: Mapping[str, Sensitivity]) -> list[Trial]:
    """With p-values over the whole family, and the standing that follows from them."""
    keyed = {(row.method, row.metric): row for row in rows}
    passing = holm({key: (-row.excess).p_below_zero for key, row in keyed.items() if row.excess is not None})
    failing = holm({key: row.excess.p_below_zero for key, row in keyed.items() if row.excess is not None})
    winning = holm({key: (-row.gain).p_below_zero for key, row in keyed.items() if row.gain is not None})
    losing = holm({key: row.gain.p_below_zero for key, row in keyed.items() if row.gain is not None})
    found = [
        replace(row, p_not_inferior=passing.get(key), p_superior=winning.get(key), p_worse=losing.get(key))
        for key, row in keyed.items()
    ]
    return [_stand(row, failing.get((row.method, row.metric)), seen[row.metric]) for row in found]


def _stand(row: Trial, p_inferior: float | None, seen: Sensitivity) -> Trial:
    half = LEVEL / 2
    if row.gain is None or row.p_superior is None:
        return row
    if row.p_superior < half:
        return replace(row, standing=Standing.SUPERIOR)
    if row.p_not_inferior is None or p_inferior is None:
        return replace(row, standing=Standing.NOT_MEASURED)
    if seen.insensitive:
        steps = f"{ANCHOR_STEPS} steps would not be rejected either"
        return replace(row, standing=Standing.INSENSITIVE, reason=f"{steps}: this metric shows nothing at this N")
    if row.p_not_inferior < half:
        return replace(row, standing=Standing.NON_INFERIOR)
    if p_inferior < half:
        return replace(row, standing=Standing.INFERIOR)
    return replace(row, reason="the interval contains the margin: more images would tell")
