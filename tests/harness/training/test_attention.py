"""Which attention a training uses: explicit on a CPU, the fused one of torch everywhere else."""

from __future__ import annotations

import pytest
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from harness.sampling.pipeline import Pipeline
from harness.training.attention import explicit_attention


def kinds(pipeline: Pipeline) -> set[type]:
    return {type(m.processor) for m in pipeline.transformer.modules() if hasattr(m, "set_processor")}


@pytest.mark.parametrize(("device", "inside"), [("cpu", AttnProcessor), ("meta", AttnProcessor2_0)])
def test_explicit_on_a_cpu_alone(pipeline: Pipeline, device: str, inside: type) -> None:
    pipeline.transformer.to(device)
    with explicit_attention(pipeline.transformer):
        assert kinds(pipeline) == {inside}
    assert kinds(pipeline) == {AttnProcessor2_0}
