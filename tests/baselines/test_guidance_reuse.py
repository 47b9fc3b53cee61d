"""Reused guidance: which steps run both branches, and what the null branch's prediction is on the others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from baselines.guidance_reuse import GuidanceReuse
from harness.errors import NotMeasured, UsageError
from harness.sampling.pipeline import Pipeline
from studies.families import opened
from tests.ilf.test_loop import record_outputs


@pytest.mark.parametrize(
    ("method", "both"),
    [
        (GuidanceReuse(), [0, 2, 4, 6]),
        (GuidanceReuse(3), [0, 3, 6]),
        (GuidanceReuse(2, first=3), [0, 1, 2, 4, 6]),
        (GuidanceReuse(1), list(range(8))),
    ],
)
def test_the_steps_that_run_both_branches(method: GuidanceReuse, both: list[int]) -> None:
    assert [step for step in range(8) if not method.reuses(step)] == both


def test_the_null_branch_is_the_conditional_one_minus_the_last_difference(pipeline: Pipeline) -> None:
    plain, rows = record_outputs(pipeline), list[int]()
    handle = pipeline.blocks[0].register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    with GuidanceReuse().attach(pipeline):
        reused = record_outputs(pipeline)
    handle.remove()
    images = rows[1]
    assert rows == [2 * images, images, 2 * images, images] and torch.equal(reused[0], plain[0])
    (conditional, null), (after, null_after) = pipeline.guidance.halves(plain[0]), pipeline.guidance.halves(reused[1])
    assert torch.allclose(after, pipeline.guidance.halves(plain[1])[0], atol=1e-5), "the latents after one step are the same"
    assert torch.allclose(null_after, after - (conditional - null), atol=1e-6)


@pytest.mark.families
def test_where_the_branches_are_two_calls_the_second_is_left_out(tmp_path: Path) -> None:
    pipeline, rows = opened("Qwen-Image", tmp_path).pipeline, list[int]()
    handle = pipeline.blocks[0].register_forward_pre_hook(lambda module, args: rows.append(1))
    pipeline.generate(["red cat"], 0, [0])
    full = len(rows)
    with GuidanceReuse().attach(pipeline):
        pipeline.generate(["red cat"], 0, [0])
    handle.remove()
    assert full == 2 * pipeline.steps and len(rows) - full == pipeline.steps + (pipeline.steps + 1) // 2


def test_one_branch_has_nothing_to_reuse(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "guidance", pipeline.guidance.at(1.0))
    with pytest.raises(NotMeasured, match="two guidance branches"), GuidanceReuse().attach(pipeline):
        pass


@pytest.mark.parametrize("wrong", [{"interval": 0}, {"first": 0}])
def test_settings_below_one_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        GuidanceReuse(**wrong)
