"""Which steps loop, which fold, and what that costs."""

from __future__ import annotations

import pytest

from harness.cost.plan import Backbone, Plan
from harness.errors import UsageError
from ilf.schedule import Schedule, chosen_steps

GRID = (999, 799, 599, 399, 199)
CONFIG = {
    "first": 9,
    "last": 20,
    "inner_pass": True,
    "depth": 1,
    "branches": "both",
    "steps": 10,
    "power": 1.0,
    "feedback": "all",
    "folded": "none",
}


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("all", {0, 1, 2, 3, 4}),
        ("none", set()),
        ("first-2", {0, 1}),
        ("last-2", {3, 4}),
        ("paper-3", {0, 1, 3}),
        ("above-599", {0, 1, 2}),
        ("between-399-799", {2, 3}),
        ("0.3", {0, 3}),
        ("0,3", {0, 3}),
        ("first-9", {0, 1, 2, 3, 4}),
    ],
)
def test_steps_by_text(text: str, steps: set[int]) -> None:
    assert chosen_steps(text, GRID) == steps


@pytest.mark.parametrize("text", ["sometimes", "7", "-1", "first-", ""])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="above-T"):
        chosen_steps(text, GRID)


def plan(guidance: float = 1.0) -> Plan:
    return Plan.full(Backbone(28, None), 20, guidance)


def test_the_papers_setting_costs_332_block_evaluations() -> None:
    """28 blocks, 12 looped, feedback on 4 of 10 steps, one branch: as in the paper's table."""
    schedule = Schedule.of(CONFIG, 10, feedback="paper-4")
    assert sum(cost.evaluations for cost in schedule.plan(CONFIG, plan())) == 332
    assert sum(cost.evaluations for cost in schedule.plan(CONFIG, plan(4.5))) == 664


def test_a_folded_step_costs_one_branch_and_a_conditional_loop_one_loop() -> None:
    ours = CONFIG | {"first": 28, "last": 28, "branches": "conditional", "folded": "first-2"}
    schedule = Schedule.of(ours, 5)
    assert [cost.evaluations for cost in schedule.plan(ours, plan(4.5))] == [30, 30, 58, 58, 58]
    adapter = ours | {"inner_pass": False}
    assert [cost.evaluations for cost in Schedule.of(adapter, 5).plan(adapter, plan(4.5))] == [29, 29, 57, 57, 57]


def test_folding_needs_feedback() -> None:
    assert Schedule.of(CONFIG, 5, feedback="last-2", folded="first-4").folded == {3}
