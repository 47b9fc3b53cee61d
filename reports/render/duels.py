"""The answers as the page prints them: a matrix of outcomes, and each accelerator's reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.storage.records import Run
from reports.analysis.answers import Answer, Outcome, Ruling, answers, default_unit
from reports.analysis.evidence import BLOCKS, SECONDS
from reports.analysis.select import metric_order
from reports.format import count, interval_text, number
from reports.render.plots import BLOCK_AXIS, SECONDS_AXIS, CostAxis
from reports.render.words import explain, title_of

AXES = {SECONDS: SECONDS_AXIS, BLOCKS: BLOCK_AXIS}


@dataclass(frozen=True)
class Reason:
    """One metric's outcome with what it rests on; every text is empty where it does not apply."""

    key: str
    metric: str
    outcome: str
    advantage: str
    p_value: str
    rival: str
    reason: str


@dataclass(frozen=True)
class Duel:
    """One accelerator's answer, ready to print; ``mark`` says why it is provisional, or is empty."""

    label: str
    headline: str
    mark: str
    cost: str
    sentence: str
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Duels:
    """Every accelerator's answer at equal cost on one axis."""

    axis: CostAxis
    rows: tuple[Duel, ...]


def duels(run: Run) -> list[Duels]:
    """The answers on each cost axis that the run has, the default one first."""
    units = [default_unit(run), BLOCKS]
    return [Duels(AXES[unit], tuple(_duel(run, answer) for answer in answers(run, unit))) for unit in dict.fromkeys(units)]


def _duel(run: Run, answer: Answer) -> Duel:
    if answer.cost is None:
        cost = "not measured"
    else:
        cost = f"{number(answer.cost.value)} s" if answer.unit == SECONDS else f"{count(answer.cost.value)} blocks"
    reasons = tuple(_reason(run, metric, answer.rulings[metric]) for metric in metric_order(run))
    mark = f"provisional: {answer.provisional}" if answer.text != answer.headline else ""
    return Duel(answer.label, answer.headline, mark, cost, explain(run, answer), reasons)


def _reason(run: Run, metric: str, ruling: Ruling) -> Reason:
    found, p = ruling.advantage, ruling.p_adjusted
    advantage = interval_text(found, signed=True) if found is not None and math.isfinite(found.standard_error) else ""
    p_value = "" if p is None else "< 0.0001" if p < 1e-4 else number(p, 2)
    return Reason(metric, title_of(run, metric), ruling.outcome.value, advantage, p_value, _rival(ruling), ruling.reason)


def _rival(ruling: Ruling) -> str:
    """``62% 12 steps + 38% 10 steps``: what the fewer-steps curve offers at the method's cost."""
    parts = [f"{rung.share:.0%} {rung.label}" if len(ruling.rival) > 1 else rung.label for rung in ruling.rival]
    return " + ".join(parts)


def headlines(rows: Sequence[Duel]) -> dict[str, int]:
    """How many accelerators have each headline."""
    return {
        word: sum(row.headline == word for row in rows)
        for word in ("yes", "mixed", *(outcome.value for outcome in tuple(Outcome)[1:]))
    }
