"""Pareto fronts over many draws at once: which points are on the front, and how much of the plane it dominates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness.results import FloatArray

BoolArray = npt.NDArray[np.bool_]


def on_front(costs: FloatArray, losses: FloatArray) -> BoolArray:
    """Which points no other point beats, bool [B, M], in each of B draws of costs [B, M] and losses [B, M].

    Lower is better on both. A point is beaten by one at least as good on both axes and better on one: exact ties both stay.

    >>> on_front(np.array([[0.5, 0.6, 1.0]]), np.array([[2.0, 3.0, 1.0]]))  # the second costs more and is worse than the first
    array([[ True, False,  True]])
    """
    order, sorted_costs, sorted_losses = _sorted(costs, losses)
    best = np.minimum.accumulate(sorted_losses, axis=1)
    before = np.concatenate([np.full((len(best), 1), np.inf), best[:, :-1]], axis=1)
    first = np.maximum.accumulate(np.where(sorted_losses < before, np.arange(costs.shape[1]), 0), axis=1)
    rival = np.concatenate([np.zeros((len(first), 1), dtype=first.dtype), first[:, :-1]], axis=1)
    cheaper_rival = np.take_along_axis(sorted_costs, rival, axis=1) < sorted_costs
    beaten = (before < sorted_losses) | ((before == sorted_losses) & cheaper_rival)
    front: BoolArray = np.empty_like(beaten)
    np.put_along_axis(front, order, ~beaten, axis=1)
    return front


def hypervolume(costs: FloatArray, losses: FloatArray, cost_limit: float, loss_limit: float) -> FloatArray:
    """The area between each draw's front and the corner (``cost_limit``, ``loss_limit``), float64 [B]; points outside add 0."""
    _, sorted_costs, sorted_losses = _sorted(np.minimum(costs, cost_limit), losses)
    best = np.minimum(np.minimum.accumulate(sorted_losses, axis=1), loss_limit)
    ends = np.concatenate([sorted_costs[:, 1:], np.full((len(best), 1), cost_limit)], axis=1)
    area: FloatArray = ((ends - sorted_costs) * (loss_limit - best)).sum(axis=1)
    return area


def _sorted(costs: FloatArray, losses: FloatArray) -> tuple[npt.NDArray[np.intp], FloatArray, FloatArray]:
    """By cost, ties by loss: the order, and both arrays in it."""
    order = np.lexsort((losses, costs), axis=1)
    return order, np.take_along_axis(costs, order, axis=1), np.take_along_axis(losses, order, axis=1)
