"""Methods against metrics, a word and a number in each cell: standing beside the full run, and the Pareto front."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from harness.statistics import Estimate
from harness.storage.records import Run
from reports.analysis.evidence import BLOCKS, SECONDS
from reports.analysis.pareto import survey_front
from reports.analysis.select import method_order, metric_order
from reports.analysis.verdicts import Sensitivity, Trial, trials
from reports.format import interval_text, number
from reports.render.plots import BLOCK_AXIS, COST_AXES, SECONDS_AXIS, CostAxis
from reports.render.words import title_of

UNITS = {SECONDS_AXIS: SECONDS, BLOCK_AXIS: BLOCKS}


@dataclass(frozen=True)
class Entry:
    """One cell: a word that stands out, a number, and why where that needs a reason. Each may be empty."""

    word: str = ""
    text: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Head:
    """One column: a metric, and what must be known to read it."""

    key: str
    title: str
    note: str = ""
    warning: str = ""


@dataclass(frozen=True)
class Line:
    """One method's cells, in the order of the columns."""

    label: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Matrix:
    """A table of methods (or what ``rows_are``) and metrics. ``note`` is a warning for every metric alike, or empty."""

    caption: str
    note: str
    heads: tuple[Head, ...]
    lines: tuple[Line, ...]
    rows_are: str = "Method"


def standing_matrix(run: Run) -> Matrix | None:
    """Is each method as good as the full run, with margins, corrected for their number? None without a method or a metric."""
    found = trials(run)
    if not found.rows:
        return None
    rows: dict[str, list[Entry]] = {}
    for row in found.rows:
        rows.setdefault(row.method, []).append(_standing(row))
    caption = (
        f"Gain over the full run with its 95% interval, positive is better. The margin is {found.share:.0%} of what five plain "
        "steps lose; words are corrected (Holm) for all methods and metrics"
    )
    heads = tuple(_head(run, seen) for seen in found.sensitivity.values())
    warnings = {head.warning for head in heads}
    note = warnings.pop() if len(heads) > 1 and len(warnings) == 1 else ""
    heads = tuple(replace(head, warning="") for head in heads) if note else heads
    return Matrix(caption, note, heads, tuple(Line(label, tuple(entries)) for label, entries in rows.items()))


def _standing(row: Trial) -> Entry:
    return Entry(row.standing.value, _interval(row.gain), row.reason)


def _interval(found: Estimate | None) -> str:
    return interval_text(found, signed=True) if found is not None and math.isfinite(found.standard_error) else ""


def _head(run: Run, seen: Sensitivity) -> Head:
    note = "" if seen.margin is None else f"margin {number(seen.margin, 2)}"
    warning = "insensitive: five steps would pass as well" if seen.insensitive else seen.missing
    return Head(seen.metric, title_of(run, seen.metric), note, warning)


def front_matrices(run: Run) -> dict[CostAxis, Matrix]:
    """On each cost axis: the probability of every method to be on each metric's front, and the fronts' hypervolume."""
    return {axis: matrix for axis in COST_AXES if (matrix := _fronts(run, axis)) is not None}


def _fronts(run: Run, axis: CostAxis) -> Matrix | None:
    surveys = {m: survey for m in metric_order(run) if (survey := survey_front(run, m, UNITS[axis])) is not None}
    if not surveys:
        return None
    heads = tuple(
        Head(m, title_of(run, m), f"hypervolume {interval_text(s.volume)}; accelerators add {interval_text(s.gain)}")
        for m, s in surveys.items()
    )
    lines = []
    for label in method_order(run):
        shares = [survey.probability.get(label) for survey in surveys.values()]
        if any(share is not None for share in shares):
            lines.append(Line(label, tuple(Entry(text="" if share is None else _percent(share)) for share in shares)))
    caption = (
        f"Probability of being on the Pareto front against {axis.short}, over bootstrap draws of images and rounds. Hypervolume: "
        "the dominated share of the box between the most expensive and worst and the cheapest and best"
    )
    return Matrix(caption, "", heads, tuple(lines))


def _percent(share: float) -> str:
    return "> 99%" if 0.99 < share < 1 else "< 1%" if 0 < share < 0.01 else f"{share:.0%}"
