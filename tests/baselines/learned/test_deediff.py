"""Early exit: off at threshold 0, everybody out at 1, each sample for itself between, and trained heads that know their error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.learned.deediff import DeeDiff, load_heads
from baselines.learned.train_deediff import ExitSettings, train_heads
from harness.errors import ArtifactError, NotMeasured
from harness.sampling.patching import patched
from harness.sampling.pipeline import Pipeline
from harness.training.fit import TrainSettings
from tests.conftest import DEPTH, PROMPTS


def test_threshold_zero_is_the_full_run_bit_for_bit(pipeline: Pipeline) -> None:
    full = pipeline.generate(PROMPTS, 0, range(5))
    with DeeDiff(0.0).attach(pipeline):
        assert torch.equal(pipeline.generate(PROMPTS, 0, range(5)), full)


def test_threshold_one_leaves_after_the_first_block(pipeline: Pipeline) -> None:
    with pipeline.counting() as counter, DeeDiff(1.0).attach(pipeline):
        pipeline.generate(PROMPTS, 0, range(5))
    assert counter.rows / 5 == 4 * 2 * 1


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_equals_exits_taken_by_hand(pipeline: Pipeline, guidance: float) -> None:
    """Sample by sample and block by block: both branches stay until the less certain one may leave."""
    assert pipeline.folder is not None
    heads = load_heads(pipeline.folder / "deediff")
    with patched(pipeline, "guidance", pipeline.guidance.at(guidance)):
        exits = [_exits_by_hand(pipeline, heads, threshold) for threshold in (0.4, 0.45, 0.5, 0.55)]
    assert len(set().union(*exits)) > 1


def _exits_by_hand(pipeline: Pipeline, heads: Any, threshold: float) -> set[int]:
    """The blocks after which samples left, having checked what every step made of every sample."""
    entering: list[tuple[torch.Tensor, dict[str, Any], float]] = []
    leaving: list[torch.Tensor] = []
    first = pipeline.blocks[0].register_forward_pre_hook(
        lambda m, a, k: entering.append((a[0], k, pipeline.clock.t)), with_kwargs=True
    )
    last = pipeline.blocks[-1].register_forward_hook(lambda m, a, output: leaving.append(output))
    with DeeDiff(threshold).attach(pipeline):
        pipeline.generate(PROMPTS, 0, range(5))
    first.remove()
    last.remove()
    exits = set()
    with torch.inference_mode():
        for (h, kwargs, t), output in zip(entering, leaving, strict=True):
            for sample in range(5):
                rows = list(range(sample, len(h), 5))
                inside, chosen = h[rows], {k: v[rows] if isinstance(v, torch.Tensor) else v for k, v in kwargs.items()}
                for number, block in enumerate(pipeline.blocks):
                    inside = block(inside, **chosen)
                    if number == DEPTH - 1:
                        break
                    if max(heads.uncertainty(number, inside, torch.full((len(rows),), t))) < threshold:
                        inside = heads.leave(number, inside)
                        break
                exits.add(number)
                assert torch.allclose(output[rows], inside, atol=1e-5)
    return exits


def test_cost_is_announced_as_a_bound(pipeline: Pipeline) -> None:
    plan = DeeDiff(0.5).plan(pipeline.plan())
    assert not plan.exact and plan.block_evaluations == pipeline.plan().block_evaluations


def test_training_lowers_the_loss_and_leaves_the_pipeline_alone(pipeline: Pipeline, tmp_path: Path) -> None:
    before = pipeline.generate(PROMPTS, 0, range(5))
    settings = ExitSettings(TrainSettings(steps=40, lr=1e-2, warmup=2, ema=0.5, checkpoint_every=10), batch=16, trajectories=8)
    heads, record = train_heads(settings, pipeline, PROMPTS, tmp_path / "heads.pt")
    assert record.loss_curve[-1][1] < 0.7 * record.loss_curve[0][1]
    assert heads.exits[0].weight.abs().max() > 0
    assert torch.equal(pipeline.generate(PROMPTS, 0, range(5)), before)


def test_foreign_and_missing_heads_are_refused(pipeline: Pipeline, folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="exit heads"), DeeDiff(heads=str(tmp_path)).attach(pipeline):
        pass
    with patched(pipeline, "folder", None), pytest.raises(NotMeasured, match="heads"):
        DeeDiff().plan(pipeline.plan())
