"""BudCache: its search finds the best schedule where all can be tried, and its cost is known before it."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
import torch

from baselines.budcache import BudCache, Distance, Search, Steps
from harness.errors import UsageError
from harness.sampling.pipeline import Pipeline
from harness.training.calibration import find
from ilf_bench.testing import EVERY, images


def every(steps: int, budget: int) -> list[Steps]:
    """All choices that a search may make."""
    fixed = max(1, budget // 4)
    return [frozenset(range(fixed)) | set(tail) for tail in combinations(range(fixed, steps), budget - fixed)]


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_search_finds_one_of_the_ten_best_of_thousands(power: float) -> None:
    """A smooth loss of 18,564 choices: the gaps between steps that run, weighted along the run."""

    def loss(chosen: Steps) -> float:
        ends = [*sorted(chosen), 20]
        return sum((b - a) ** 2 * (1 + a) ** power for a, b in pairwise(ends)) / 1000

    tried: list[Steps] = []
    found = Search(20, 8, lambda chosen: tried.append(chosen) or loss(chosen)).best()  # type: ignore[func-returns-value]
    assert len(found) == 8 and {0, 1} <= found and len(tried) == len(set(tried)) < 2000
    assert loss(found) <= sorted(map(loss, every(20, 8)))[9]


@pytest.mark.parametrize(("steps", "budget"), [(1, 1), (4, 4), (5, 1), (2, 1)])
def test_where_there_is_no_choice_it_is_made(steps: int, budget: int) -> None:
    assert Search(steps, budget, lambda chosen: 0.0).best() == frozenset(range(budget))


def test_the_schedule_is_the_best_of_all(pipeline: Pipeline) -> None:
    """Of the 10 that run 3 of 6 steps, by the distance of the last latents; where all run it is 0."""
    method = BudCache(0.5)
    with pipeline.sampling(steps=6):
        distance = Distance(pipeline)
        assert distance(frozenset(range(6))) == 0
        best = min(every(6, 3), key=distance)
        with method.attach(pipeline):
            known = find(method, pipeline.plan(), "budcache-3")
    assert known is not None and [i for i, run in enumerate(known.curves["runs"]) if run] == sorted(best)


def test_the_cost_is_known_before_the_search(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    method, plan = BudCache(0.5), pipeline.plan()
    before = method.plan(plan)
    assert before.exact and before.block_evaluations == plan.block_evaluations / 2
    plain = images(pipeline, EVERY)
    with pipeline.counting() as counter, method.attach(pipeline):
        assert counter.rows == 0 and not torch.equal(images(pipeline, EVERY), plain)
        assert counter.rows / len(EVERY) == before.block_evaluations == method.plan(plan).block_evaluations
    assert method.upfront_cost(plan.backbone).calibration_s > 0 and len(method.reads(plan)) == 1
    assert torch.equal(images(pipeline, EVERY), plain)


def test_a_budget_is_a_share() -> None:
    for wrong in (0, 1.1):
        with pytest.raises(UsageError, match="at most 1"):
            BudCache(wrong)
