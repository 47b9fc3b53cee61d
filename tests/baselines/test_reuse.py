"""Re-use of parts by a table, against blocks written out by hand; routers and schedules that become such tables."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baselines.learned.ecad import NAMES, Ecad, decode, encode
from baselines.learned.routers import HarmoniCa, LearningToCache, Router
from baselines.support.parts import ReuseTable
from harness.cost.guidance import Guidance
from harness.cost.plan import Backbone
from harness.errors import ArtifactError, NotMeasured, UsageError
from harness.sampling.pipeline import Pipeline
from tests.conftest import DEPTH, PROMPTS

EVERYTHING = frozenset(NAMES)


def _gates(block: Any, hidden_states: torch.Tensor, kwargs: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    """Normed input of the attention, its gate, and shift, scale and gate of the MLP, as the block itself makes them."""
    if block.norm_type == "ada_norm_zero":
        normed, gate, shift, scale, mlp_gate = block.norm1(
            hidden_states, kwargs["timestep"], kwargs["class_labels"], hidden_dtype=hidden_states.dtype
        )
        return normed, gate[:, None], shift[:, None], scale[:, None], mlp_gate[:, None]
    table = block.scale_shift_table[None] + kwargs["timestep"].reshape(len(hidden_states), 6, -1)
    shift_a, scale_a, gate, shift, scale, mlp_gate = table.chunk(6, dim=1)
    return block.norm1(hidden_states) * (1 + scale_a) + shift_a, gate, shift, scale, mlp_gate


def _by_hand(block: Any, h: torch.Tensor, kwargs: dict[str, Any], kept: dict[str, torch.Tensor], reuse: frozenset[str]) -> Any:
    """One block; ``kept`` holds the parts' last outputs before the gate and is brought up to date."""
    normed, gate, shift, scale, mlp_gate = _gates(block, h, kwargs)
    if "attn1" not in reuse:
        kept["attn1"] = block.attn1(normed)
    h = h + gate * kept["attn1"]
    if block.attn2 is not None:
        if "attn2" not in reuse:
            kept["attn2"] = block.attn2(
                h, encoder_hidden_states=kwargs["encoder_hidden_states"], attention_mask=kwargs["encoder_attention_mask"]
            )
        h = h + kept["attn2"]
    if "ff" not in reuse:
        norm = block.norm2 if block.norm_type == "ada_norm_single" else block.norm3
        kept["ff"] = block.ff(norm(h) * (1 + scale) + shift)
    return h + mlp_gate * kept["ff"]


def test_equals_blocks_written_out_by_hand(pipeline: Pipeline) -> None:
    table = Ecad(0.7).table(pipeline.folder)
    entering: list[tuple[torch.Tensor, dict[str, Any]]] = []
    leaving: list[torch.Tensor] = []
    first = pipeline.blocks[0].register_forward_pre_hook(lambda m, a, k: entering.append((a[0], k)), with_kwargs=True)
    last = pipeline.blocks[-1].register_forward_hook(lambda m, a, output: leaving.append(output))
    with table.attached(pipeline, "test"):
        pipeline.generate(PROMPTS, 0, range(5))
    first.remove()
    last.remove()
    kept: list[dict[str, torch.Tensor]] = [{} for _ in range(DEPTH)]
    with torch.inference_mode():
        for (h, kwargs), output, step in zip(entering, leaving, table.reuse, strict=True):
            for block, memory, reuse in zip(pipeline.blocks, kept, step, strict=True):
                h = _by_hand(block, h, kwargs, memory, reuse)
            assert torch.allclose(h, output, atol=1e-5)


@pytest.mark.parametrize("method", [LearningToCache(0.0), HarmoniCa(0.0), Ecad(1.0)], ids=lambda m: m.label)
def test_nothing_reused_is_the_full_run_bit_for_bit(pipeline: Pipeline, method: Any) -> None:
    full = pipeline.generate(PROMPTS, 0, range(5))
    with pipeline.counting() as counter, method.attach(pipeline):
        assert torch.equal(pipeline.generate(PROMPTS, 0, range(5)), full)
    assert counter.rows / 5 == pipeline.plan().block_evaluations


@pytest.mark.parametrize("method", [LearningToCache(0.5), HarmoniCa(0.5), Ecad(0.7)], ids=lambda m: m.label)
def test_compute_is_really_skipped_and_training_is_on_the_ledger(pipeline: Pipeline, method: Any) -> None:
    with pipeline.counting() as counter, method.attach(pipeline):
        pipeline.generate(PROMPTS, 0, range(5))
    plan = pipeline.plan()
    assert 0.3 < counter.rows / 5 / plan.block_evaluations < 0.95
    assert method.upfront_cost(plan.backbone).training_s == 1.0
    with pytest.raises(NotMeasured, match="4 steps"), pipeline.sampling(steps=5), method.attach(pipeline):
        pass
    with pytest.raises(NotMeasured):
        method.plan(type(plan).full(Backbone(DEPTH, None), 4, Guidance(2.0)))


def test_a_table_must_fit_its_model_and_begin_with_a_full_step(pipeline: Pipeline) -> None:
    nothing, everything = (frozenset(),) * DEPTH, (EVERYTHING,) * DEPTH
    for reuse in ((everything, nothing, nothing, nothing), ((frozenset(),) * 3,) * 4):
        with pytest.raises(ArtifactError, match="6 blocks"):
            ReuseTable(reuse, "dpm++", 2.0).check(4, DEPTH, "test")  # type: ignore[arg-type]
    with pytest.raises(NotMeasured, match=r"0\.600"):
        Ecad(0.5).table(pipeline.folder)
    for bad in (lambda: Ecad(0.0), lambda: HarmoniCa(2.0), lambda: LearningToCache(-1.0)):
        with pytest.raises(UsageError):
            bad()


def test_a_router_is_full_where_it_is_not_routed() -> None:
    router = Router(5, 2, ("attn1", "ff"), range(1, 5, 2))
    router.logits.data.fill_(-9.0)
    assert (router.keep[[0, 2, 4]] == 1).all() and (router.keep[[1, 3]] < 0.01).all()
    router.keep.sum().backward()
    assert router.logits.grad is not None and (router.logits.grad[[0, 2, 4]] == 0).all() and (router.logits.grad[1] > 0).all()


@given(st.lists(st.lists(st.sets(st.sampled_from(NAMES)), min_size=3, max_size=3), min_size=1, max_size=5))
def test_schedules_survive_their_encoding(reuse: list[list[set[str]]]) -> None:
    table = ReuseTable(tuple(tuple(map(frozenset, row)) for row in reuse), "dpm++", 1.5)
    assert decode(encode(table), "dpm++", 1.5) == table
