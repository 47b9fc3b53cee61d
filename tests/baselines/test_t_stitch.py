"""The stitch at its ends and its seam."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch.utils.flop_counter import FlopCounterMode

from baselines.t_stitch import TStitch, load_sibling
from harness.errors import ArtifactError, NotMeasured, UsageError
from harness.models.families.basic import block_cost
from harness.sampling.patching import patched
from harness.sampling.pipeline import Pipeline
from tests.conftest import PROMPTS


def test_fraction_zero_is_the_full_run_bit_for_bit(pipeline: Pipeline) -> None:
    full = pipeline.generate(PROMPTS, 0, range(5))
    with TStitch(0.0).attach(pipeline):
        assert torch.equal(pipeline.generate(PROMPTS, 0, range(5)), full)


def test_fraction_one_is_the_small_model_alone(pipeline: Pipeline) -> None:
    assert pipeline.folder is not None
    with TStitch(1.0).attach(pipeline):
        stitched = pipeline.generate(PROMPTS, 0, range(5))
    small, large = load_sibling(pipeline.folder.with_name(pipeline.folder.name + "-small") / "transformer"), pipeline.transformer
    try:
        pipeline.pipe.transformer = small
        assert torch.equal(pipeline.generate(PROMPTS, 0, range(5)), stitched)
    finally:
        pipeline.pipe.transformer = large


def test_the_large_model_takes_over_at_the_seam_with_the_small_ones_latent(pipeline: Pipeline) -> None:
    """Half of 4 steps: what the scheduler got is the small model's output twice, then the large one's on what came of it."""
    assert pipeline.folder is not None
    small = load_sibling(pipeline.folder.with_name(pipeline.folder.name + "-small") / "transformer")
    large = pipeline.transformer.forward
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    outer = patched(pipeline.transformer, "forward", lambda h, **k: large(h, **k))
    with outer, TStitch(0.5).attach(pipeline):
        inside = pipeline.transformer.forward

        def watched(hidden_states: torch.Tensor, **kwargs: object) -> object:
            output = inside(hidden_states, **kwargs)
            alone = (small if len(seen) < 2 else large)(hidden_states, **kwargs)
            seen.append((_sample(output), _sample(alone)))
            return output

        with patched(pipeline.transformer, "forward", watched):
            pipeline.generate(PROMPTS, 0, range(5))
    assert len(seen) == 4 and all(torch.equal(a, b) for a, b in seen)


def _sample(output: object) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output.sample  # type: ignore[attr-defined, no-any-return]


def test_multiply_accumulates_are_those_that_torch_counts(pipeline: Pipeline) -> None:
    calls: list[tuple[torch.Tensor, dict[str, object]]] = []
    block = pipeline.blocks[0]
    hook = block.register_forward_pre_hook(lambda m, a, k: calls.append((a[0], k)), with_kwargs=True)
    pipeline.generate(PROMPTS, 0, range(5))
    hook.remove()
    for attention in (getattr(block, name) for name in ("attn1", "attn2") if getattr(block, name) is not None):
        attention.set_processor(AttnProcessor())  # torch does not count the fused one on a CPU
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        block(calls[0][0], **calls[0][1])
    assert counter.get_total_flops() / 2 / len(calls[0][0]) == pytest.approx(pipeline.geometry.blocks[0].block, rel=0.01)


def test_missing_and_foreign_siblings_are_refused(pipeline: Pipeline, folders: dict[str, Path], tmp_path: Path) -> None:
    other = folders["dit" if not pipeline.is_class_conditional else "pixart"]
    with pytest.raises(ArtifactError, match="Transformer2DModel"), TStitch(small=f"{other}-small").attach(pipeline):
        pass
    with pytest.raises(UsageError, match="transformer"), TStitch(small=str(tmp_path)).attach(pipeline):
        pass
    with patched(pipeline, "folder", None), pytest.raises(NotMeasured, match=r"a smaller model of the same kind.*random weights"):
        TStitch().plan(pipeline.plan())
    with pytest.raises(UsageError, match="fraction"):
        TStitch(1.5)


def test_published_shapes() -> None:
    """DiT-XL/2 at 256: 118.7 G for 28 blocks and 0.2% of ends, as published; at 512 524.6 G."""
    for latent, published in ((32, 118.7e9), (64, 524.6e9)):
        block = block_cost(16 * 72, (latent // 2) ** 2, 0, 0, own_embedding=True)
        assert 28 * block.block == pytest.approx(published, rel=0.004)
