"""The question of this tool: is an accelerator better than fewer steps at its cost? Answered for each metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import Literal

import numpy as np

from harness.results import Failure, Score
from harness.statistics import Estimate, Interval, holm
from harness.statistics.curves import Cost, advantage, mix
from harness.storage.records import Run
from reports.analysis.compare import is_constant
from reports.analysis.evidence import BLOCKS, SECONDS, Evidence, evidence_of
from reports.analysis.select import accelerators, failure_of, record_of, score_of

Place = Literal["within", "cheaper", "more expensive"]  # of a method's cost on a fewer-steps curve
LEVEL = 0.05  # of the whole family: methods x metrics
FEW_IMAGES, FEW_ROUNDS = 50, 5  # below either every decided answer is provisional


class Outcome(Enum):
    """Better than fewer steps at equal cost?"""

    YES = "yes"
    WORSE = "worse"
    NO_GAIN = "not better, more expensive"
    CANNOT_TELL = "can't tell"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Rung:
    """One row of the fewer-steps curve in the rival's mixture, with its share of the images."""

    label: str
    share: float


@dataclass(frozen=True)
class Ruling:
    """One metric's answer.

    ``advantage`` is the method's mean score less the rival's, turned so that positive is better; its interval stands alone,
    while ``p_adjusted`` is corrected (Holm) for every method and metric of the table, and decides. ``solver`` names the curve
    and ``rival`` the one or two rows mixed to the method's cost. ``reason`` is never empty where the answer is not yes or worse.
    """

    outcome: Outcome
    advantage: Estimate | None = None
    p_adjusted: float | None = None
    solver: str = ""
    rival: tuple[Rung, ...] = ()
    place: Place = "within"
    reason: str = ""


@dataclass(frozen=True)
class Answer:
    """Whether one accelerator is better than fewer steps at its cost in ``unit``, by metric in ``rulings``."""

    label: str
    unit: str
    cost: Interval | None
    rulings: Mapping[str, Ruling]
    failure: str = ""
    provisional: str = ""

    @property
    def headline(self) -> str:
        """The most telling outcome of all metrics; ``mixed`` where one says yes and another that it is worse or no gain."""
        found = {ruling.outcome for ruling in self.rulings.values()}
        if Outcome.YES in found and found & {Outcome.WORSE, Outcome.NO_GAIN}:
            return "mixed"
        order = (Outcome.YES, Outcome.WORSE, Outcome.NO_GAIN, Outcome.CANNOT_TELL)
        return next((outcome for outcome in order if outcome in found), Outcome.NOT_MEASURED).value

    @property
    def text(self) -> str:
        """The headline, marked where few images or rounds make it provisional: ``yes (provisional: N = 8)``."""
        decided = self.headline not in (Outcome.CANNOT_TELL.value, Outcome.NOT_MEASURED.value)
        return f"{self.headline} (provisional: {self.provisional})" if decided and self.provisional else self.headline


def provisional(run: Run, unit: str) -> str:
    """What is too few for a firm answer at equal cost in ``unit``, for example ``N = 8``; empty where nothing is."""
    images = min((score.n for score in run.scores.values() if isinstance(score, Score)), default=FEW_IMAGES)
    rounds = len({sample.round for sample in run.timings}) if unit == SECONDS else FEW_ROUNDS
    found = [f"N = {images}"] if images < FEW_IMAGES else []
    return ", ".join([*found, f"{rounds} timing round{'s' * (rounds != 1)}"] if rounds < FEW_ROUNDS else found)


def default_unit(run: Run) -> str:
    """Seconds where the full run was timed, else block evaluations."""
    return SECONDS if evidence_of(run).times is not None else BLOCKS


@lru_cache(maxsize=4)
def answers(run: Run, unit: str | None = None) -> tuple[Answer, ...]:
    """An :class:`Answer` for every accelerator of a run, in table order, at equal cost in ``unit`` (:func:`default_unit`)."""
    evidence, unit = evidence_of(run), unit or default_unit(run)
    costs = evidence.costs(unit)
    labels = [label for label in accelerators(run) if label in costs]
    open_rulings = {
        (label, metric): _against_curves(evidence, label, metric, costs) for label in labels for metric in evidence.metrics
    }
    adjusted = holm({key: r.advantage.p_value for key, r in open_rulings.items() if r.advantage is not None})
    rulings = {key: _decide(ruling, adjusted.get(key)) for key, ruling in open_rulings.items()}
    return tuple(_answer(evidence, label, unit, costs, rulings) for label in accelerators(run))


def _answer(evidence: Evidence, label: str, unit: str, costs: dict[str, Cost], rulings: dict[tuple[str, str], Ruling]) -> Answer:
    run = evidence.run
    if label not in costs:
        why = f"its {unit} were not measured" if record_of(run, label) else failure_of(run, label)
        silent = {metric: Ruling(Outcome.NOT_MEASURED, reason=why) for metric in evidence.metrics}
        return Answer(label, unit, None, silent, failure=why)
    mine = {metric: rulings[label, metric] for metric in evidence.metrics}
    return Answer(label, unit, evidence.cost_interval(label, unit), mine, provisional=provisional(run, unit))


def _against_curves(evidence: Evidence, label: str, metric: str, costs: dict[str, Cost]) -> Ruling:
    """The ruling against the sternest curve, still to be decided: a method must beat every solver's fewer steps."""
    score = score_of(evidence.run, label, metric)
    if isinstance(score, Failure):
        return Ruling(Outcome.NOT_MEASURED, reason=score.reason)
    curves = curves_of(evidence, score, costs)
    if not curves:
        return Ruling(Outcome.NOT_MEASURED, reason=_why_no_curve(evidence, score, costs))
    found = [_against(evidence, score, costs, solver, rows) for solver, rows in curves.items()]
    return min(found, key=lambda ruling: ruling.advantage.low if ruling.advantage else math.inf)


def curves_of(evidence: Evidence, score: Score, costs: dict[str, Cost]) -> dict[str, list[str]]:
    """Rows of each solver's fewer-steps curve that can be held against ``score``, cheapest first."""
    curves: dict[str, list[str]] = {}
    panel, flat = evidence.panel(score), score.n == 1 or is_constant(score)
    for label in sorted(costs.keys() & evidence.plain.keys() & panel.columns.keys(), key=lambda name: costs[name].value):
        if flat or np.ptp(panel.values[:, panel.columns[label]]) > 0:
            curves.setdefault(evidence.plain[label].solver, []).append(label)
    return curves


def _why_no_curve(evidence: Evidence, score: Score, costs: dict[str, Cost]) -> str:
    rows = costs.keys() & evidence.plain.keys()
    others = [one for label in rows if isinstance(one := score_of(evidence.run, label, score.metric), Score)]
    if any(dict(one.fingerprint) != dict(score.fingerprint) for one in others):
        return "the fewer-steps rows were scored with another fingerprint: score the run again"
    if any(one.n != score.n for one in others):
        return f"the fewer-steps rows were scored on other images than these {score.n}: score the run again"
    return "no fewer-steps row has both this score and this cost: add steps:N to the methods"


def _against(evidence: Evidence, score: Score, costs: dict[str, Cost], solver: str, rows: list[str]) -> Ruling:
    panel, method = evidence.panel(score), costs[score.method]
    knots = [costs[row] for row in rows]
    mixture = mix(method, knots)
    sign = 1.0 if score.direction == "higher" else -1.0
    dof = min([method.dof, *(knot.dof for knot in knots)])
    estimate = advantage(
        panel.units, panel.draws, panel.columns[score.method], [panel.columns[row] for row in rows], mixture, dof, sign
    )
    rival = tuple(Rung(row, float(share)) for row, share in zip(rows, mixture.shares, strict=True) if share > 0)
    return Ruling(Outcome.NOT_MEASURED, estimate, None, solver, rival, _place(method, knots))


def _place(method: Cost, knots: list[Cost]) -> Place:
    """Where the method's cost lies on the curve; it counts as beyond an end only where 97.5% of the draws say so."""
    if float(np.mean(method.draws > knots[-1].draws)) >= 1 - LEVEL / 2:
        return "more expensive"
    return "cheaper" if float(np.mean(method.draws < knots[0].draws)) >= 1 - LEVEL / 2 else "within"


def _decide(ruling: Ruling, p_adjusted: float | None) -> Ruling:
    """The outcome, and why where it is neither yes nor worse. Beyond the curve's ends nothing is extrapolated."""
    estimate = ruling.advantage
    if estimate is None or p_adjusted is None:
        return ruling
    if not math.isfinite(estimate.standard_error):
        reason = "a single image, prompt or round has no interval: raise the samples or rounds"
        return replace(ruling, outcome=Outcome.CANNOT_TELL, p_adjusted=p_adjusted, reason=reason)
    sure = p_adjusted < LEVEL
    better, worse = sure and estimate.value > 0, sure and estimate.value < 0
    outcome, reason = Outcome.CANNOT_TELL, f"the difference may be chance (p = {p_adjusted:.2g} over all methods and metrics)"
    if ruling.place == "more expensive":
        beyond = "it costs more than every row that this score can be held against"
        outcome = Outcome.CANNOT_TELL if better else Outcome.WORSE if worse else Outcome.NO_GAIN
        reason = f"{beyond}: add steps:N of its cost" if better else f"{beyond}, and is not better than the most expensive"
    elif better:
        outcome, reason = Outcome.YES, ""
    elif ruling.place == "cheaper":
        reason = "it costs less than every row that this score can be held against: add steps:N of its cost"
    elif worse:
        outcome, reason = Outcome.WORSE, ""
    return replace(ruling, outcome=outcome, p_adjusted=p_adjusted, reason=reason)
