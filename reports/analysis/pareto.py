"""The Pareto front of cost against a value: of the estimates, and how sure it is when both axes are uncertain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.results import BASELINE, Direction, FloatArray, Score
from harness.statistics import Interval
from harness.statistics.fronts import BoolArray, hypervolume, on_front
from harness.statistics.intervals import bias_corrected
from harness.storage.records import Run
from reports.analysis.evidence import SECONDS, Evidence, evidence_of
from reports.analysis.select import plain_pipeline, score_of


def pareto_front(costs: Sequence[float], values: Sequence[float], direction: Direction) -> list[int]:
    """Indices of the points that no other point beats, cheapest first.

    A point is beaten by one that is at least as good on both axes and strictly better on one, so exact ties both stay.
    Lower cost is better; ``direction`` says which value is. Raises ValueError on unequal lengths or a NaN.
    """
    if len(costs) != len(values):
        raise ValueError(f"expected as many values as costs; got {len(values)} and {len(costs)}")
    if any(math.isnan(number) for number in (*costs, *values)):
        raise ValueError("a NaN has no place on a Pareto front; leave failed methods out")
    if not costs:
        return []
    losses = [-value if direction == "higher" else value for value in values]
    front = on_front(np.array([costs], dtype=np.float64), np.array([losses], dtype=np.float64))[0]
    return sorted(np.flatnonzero(front).tolist(), key=lambda i: (costs[i], losses[i], i))


@dataclass(frozen=True)
class FrontSurvey:
    """The front of one metric against one cost, over bootstrap draws of images and rounds.

    ``probability`` is each method's share of draws in which it is on the front. ``volume`` is the dominated share of the box
    between the dearest cost and the worst score, the cheapest and the best; ``gain`` what the accelerators add to the volume
    of full, fewer steps and other solvers. Neither can be negative, so noise alone lifts both; their intervals allow for that.
    """

    metric: str
    unit: str
    probability: Mapping[str, float]
    volume: Interval
    gain: Interval


def survey_front(run: Run, metric: str, unit: str) -> FrontSurvey | None:
    """The survey over every method with that score and cost; None with fewer than two, or where an axis has no interval."""
    evidence = evidence_of(run)
    costs = evidence.costs(unit)
    scores = [score for label in costs if isinstance(score := score_of(run, label, metric), Score)]
    example = next((score for score in scores if score.method == BASELINE), scores[0] if scores else None)
    if example is None:
        return None
    panel = evidence.panel(example)
    labels = [score.method for score in scores if score.method in panel.columns]
    if len(labels) < 2 or panel.units.n < 2 or min(costs[label].dof for label in labels) < 1:
        return None
    sign = -1.0 if example.direction == "higher" else 1.0
    chosen = [panel.columns[label] for label in labels]
    losses = sign * panel.units.means[chosen]
    loss_draws = losses + sign * panel.draws[:, chosen]
    cost = np.array([costs[label].value for label in labels])
    cost_draws = _cost_draws(evidence, labels) if unit == SECONDS else np.broadcast_to(cost, loss_draws.shape)
    plain = np.array([plain_pipeline(run, label) is not None for label in labels])
    box = _Box(float(cost.min()), float(cost.max()), float(losses.min()), float(losses.max()))
    whole, alone = (box.volumes(cost[None], losses[None], keep)[0] for keep in (plain | True, plain))
    draws, draws_alone = (box.volumes(cost_draws, loss_draws, keep) for keep in (plain | True, plain))
    probability = dict(zip(labels, on_front(cost_draws, loss_draws).mean(axis=0).tolist(), strict=True))
    volume, gain = bias_corrected(float(whole), draws), bias_corrected(float(whole - alone), draws - draws_alone)
    return FrontSurvey(metric, unit, probability, volume, gain)


@dataclass(frozen=True)
class _Box:
    cheapest: float
    dearest: float
    best: float
    worst: float

    def volumes(self, costs: FloatArray, losses: FloatArray, keep: BoolArray) -> FloatArray:
        """Dominated shares of the box [B] by the columns to keep; 0 without any, or where the box has no area."""
        area = (self.dearest - self.cheapest) * (self.worst - self.best)
        if not keep.any() or area <= 0:
            return np.zeros(len(costs))
        return hypervolume(costs[:, keep], losses[:, keep], self.dearest, self.worst) / area


def _cost_draws(evidence: Evidence, labels: list[str]) -> FloatArray:
    """Seconds per image [B, M], paired by round."""
    assert evidence.times is not None
    draws = [evidence.times.draws(label, student=True) for label in labels]
    return evidence.full_seconds * np.column_stack(draws)
