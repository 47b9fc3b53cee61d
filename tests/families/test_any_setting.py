"""Every method on every family at settings that nobody chose: the predicted cost, no state, and a pipeline that is as it was."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import NotMeasured, UsageError
from harness.sampling.patching import patched
from harness.sampling.restoration import changed, state_of
from studies.families import CASES, LEARNED, METHODS, WORDS, Opened

LEAST = 2  # steps: a scheduler that stretches its sigmas to a given last one cannot make one step


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(CASES)),
    text=st.sampled_from((*METHODS, *LEARNED)),
    guidance=st.sampled_from([None, 0.0, 1.0, 3.0]),
    steps=st.one_of(st.integers(LEAST, 8), st.integers(9, 24)),
    batch=st.sampled_from([1, 3]),
)
def test_any_method_of_any_family_at_any_setting(
    families: dict[str, Opened], name: str, text: str, guidance: float | None, steps: int, batch: int
) -> None:
    """Two calls in a row: the same images, the predicted cost both times. ``guidance`` None: the case's own. What cannot run so
    (a router of other steps, a solver of another guidance) says why and leaves the pipeline as it was, too."""
    one = families[name]
    pipeline, prompts, indices = one.pipeline, [WORDS[i % len(WORDS)] for i in range(batch)], list(range(batch))
    scale = pipeline.guidance.scale if guidance is None else guidance
    if pipeline.is_class_conditional:
        prompts = [str(i) for i in range(batch)]
    method = one.method(text)
    with pipeline.sampling(steps=steps), patched(pipeline, "guidance", pipeline.guidance.at(scale)):
        before = state_of(pipeline)
        try:
            with pipeline.counting() as counter, method.attach(pipeline):
                first = pipeline.generate(prompts, 0, indices)
                once = counter.rows
                assert torch.equal(pipeline.generate(prompts, 0, indices), first)
                assert counter.rows == pytest.approx(2 * once)
            plan = method.plan(pipeline.plan())
        except (NotMeasured, UsageError):
            assert not changed(before, state_of(pipeline))
            return
        assert not changed(before, state_of(pipeline))
        cost, foreseen = once / batch, plan.block_evaluations
        assert cost == pytest.approx(foreseen) if plan.exact else 0 < cost <= foreseen * (1 + 1e-9)
