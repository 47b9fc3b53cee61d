"""Which steps loop, which are guidance-distilled, and what that costs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.cost.guidance import Guidance
from harness.cost.plan import Backbone, Plan
from harness.errors import UsageError
from ilf.schedule import Schedule
from ilf.settings import IlfSettings, chosen_steps

GRID = (999, 799, 599, 399, 199)
PAPER = IlfSettings.of({"form": "paper", "steps": 10}).resolved(28)


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
    return Plan.full(Backbone(28, None), 20, Guidance(guidance))


def test_the_papers_setting_costs_332_block_evaluations() -> None:
    """28 blocks, 12 looped, feedback on 4 of 10 steps, one branch: as in the paper's table."""
    schedule = Schedule.of(PAPER, None, 10, feedback="paper-4")
    assert sum(cost.evaluations for cost in schedule.plan(PAPER, plan())) == 332
    assert sum(cost.evaluations for cost in schedule.plan(PAPER, plan(4.5))) == 664


def test_a_guidance_distilled_step_costs_one_branch_and_a_conditional_loop_one_loop() -> None:
    ours = replace(PAPER, loop=(28, 28), branches="conditional", guidance_distilled="first-2")
    schedule = Schedule.of(ours, None, 5)
    assert [cost.evaluations for cost in schedule.plan(ours, plan(4.5))] == [30, 30, 58, 58, 58]
    adapter = replace(ours, inner_pass=False)
    assert [cost.evaluations for cost in Schedule.of(adapter, None, 5).plan(adapter, plan(4.5))] == [29, 29, 57, 57, 57]


def test_guidance_distillation_needs_feedback() -> None:
    assert Schedule.of(PAPER, None, 5, feedback="last-2", guidance_distilled="first-4").distilled == {3}
