"""The block cache against a hand-written loop over blocks, and its limits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from baselines.deepcache import DeepCache, default_range
from harness.cost.guidance import Guidance
from harness.cost.plan import Backbone, Plan
from harness.errors import UsageError
from harness.sampling.pipeline import Pipeline
from tests.conftest import PROMPTS


def test_default_range_is_the_papers() -> None:
    assert default_range(28) == (6, 23)
    assert default_range(12) == (3, 10)


def test_cost_of_the_papers_cache_row() -> None:
    """18 of 28 blocks cached on 13 of 20 steps: 326 of 560 block evaluations a branch."""
    plan = Plan.full(Backbone(28, None), 20, Guidance(1.0))
    assert plan.block_evaluations == 560
    assert DeepCache(interval=3).plan(plan).block_evaluations == 326


def test_interval_one_is_the_full_run_bit_for_bit(pipeline: Pipeline) -> None:
    full = pipeline.generate(PROMPTS, 0, range(5))
    with DeepCache(interval=1).attach(pipeline):
        assert torch.equal(pipeline.generate(PROMPTS, 0, range(5)), full)


def test_equals_a_hand_written_cache(pipeline: Pipeline) -> None:
    """Blocks 2 to 4 of 6, every second step: what enters block 5 is the fresh input plus the old residual."""
    entering: list[tuple[torch.Tensor, dict[str, object]]] = []
    leaving: list[torch.Tensor] = []
    first = pipeline.blocks[0].register_forward_pre_hook(lambda m, a, k: entering.append((a[0], k)), with_kwargs=True)
    last = pipeline.blocks[-1].register_forward_hook(lambda m, a, output: leaving.append(output))
    with DeepCache(interval=2, first=2, last=4).attach(pipeline):
        pipeline.generate(PROMPTS, 0, range(5))
    first.remove()
    last.remove()
    assert len(leaving) == 4
    residual = torch.zeros(())
    with torch.inference_mode():
        for step, (h, conditioning) in enumerate(entering):
            h = pipeline.blocks[0](h, **conditioning)
            if step % 2 == 0:
                entered = h
                for block in pipeline.blocks[1:4]:
                    h = block(h, **conditioning)
                residual = h - entered
            else:
                h = h + residual
            for block in pipeline.blocks[4:]:
                h = block(h, **conditioning)
            assert torch.equal(h, leaving[step])


@pytest.mark.parametrize("bad", [{"interval": 0}, {"first": 4, "last": 2}, {"last": 99}, {"first": -1}])
def test_impossible_settings_are_refused(pipeline: Pipeline, bad: dict[str, int]) -> None:
    with pytest.raises(UsageError), DeepCache(**bad).attach(pipeline):
        pass


def test_another_batch_size_in_the_next_call_is_no_problem(pipeline: Pipeline, tmp_path: Path) -> None:
    with DeepCache(interval=3).attach(pipeline):
        pipeline.generate(PROMPTS, 0, range(5))
        assert pipeline.generate(PROMPTS[:2], 0, range(2)).shape[0] == 2
