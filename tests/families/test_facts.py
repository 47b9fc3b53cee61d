"""Facts of a family that no method's contract shows: held against what its own pipeline and blocks do, at tiny size."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch

from harness.config.spec import build_spec
from harness.models.empty import empty_pipeline
from harness.models.families.base import Conditioning, ModelCall, State
from harness.sampling.pipeline import Pipeline
from harness.sampling.rehearsal import component_bytes, rehearse
from harness.sampling.rows import map_tensors
from harness.sampling.sites import Predict, Run, bare_sites, model_changed
from ilf.loop import InnerLoop
from ilf.module import Transition
from ilf.settings import IlfSettings
from ilf.train import build_module
from studies.families import CASES, WORDS

FLOW = [name for name in CASES if not name.startswith(("DiT", "PixArt"))]


@pytest.fixture(scope="module", params=FLOW)
def pipeline(request: pytest.FixtureRequest) -> Pipeline:
    """One case in memory, in float32."""
    case = CASES[request.param]
    settings: dict[str, Any] = {"steps": 3, "guidance": 2.0, "solver": "checkpoint", "precision": "fp32", **case.settings}
    return Pipeline(case.tiny.build(), height=case.tiny.asked, width=case.tiny.asked, **settings)


class Told:
    """What the transformer got in its first call, and each block beside its streams."""

    def __init__(self) -> None:
        self.call: ModelCall | None = None
        self.blocks: dict[int, Conditioning] = {}

    def model(self, predict: Predict, call: ModelCall) -> torch.Tensor:
        self.call = self.call or call
        return predict(call)

    def block(self, number: int) -> Any:
        def called(run: Run, state: State, conditioning: Conditioning) -> State:
            self.blocks.setdefault(number, conditioning)
            return run(state, conditioning)

        return called


def first_call(pipeline: Pipeline) -> tuple[Told, float]:
    """What was told in it, and the scheduler's time."""
    told = Told()
    with ExitStack() as stack:
        stack.enter_context(model_changed(pipeline.transformer, pipeline.family, told.model))
        for site in bare_sites(pipeline.transformer, pipeline.family):
            stack.enter_context(site.changed(told.block(site.number)))
        pipeline.generate(list(WORDS[:2]), 0, [0, 1])
    return told, pipeline.clock.timesteps[0]


def test_blocks_are_told_the_time_as_the_family_says(pipeline: Pipeline) -> None:
    told, t = first_call(pipeline)
    assert told.call is not None
    rows = torch.full((len(told.call.sample),), t)
    with torch.no_grad():
        here = pipeline.family.conditioning_at(pipeline.transformer, told.call, rows)
        there = pipeline.family.conditioning_at(pipeline.transformer, told.call, rows / 2)
    for site in bare_sites(pipeline.transformer, pipeline.family):
        conditioning = told.blocks[site.number]
        same, other = (site.segment.timed(pipeline.transformer, timed, site.place) for timed in (here, there))
        assert same.keys() & conditioning.keys()
        for name in same.keys() & conditioning.keys():
            torch.testing.assert_close(same[name].reshape(conditioning[name].shape), conditioning[name], rtol=1e-5, atol=1e-5)
            assert not torch.allclose(other[name], same[name], rtol=1e-3, atol=1e-3)


def test_timesteps_are_those_that_are_predicted(pipeline: Pipeline) -> None:
    pipeline.generate(["red cat"], 0, [0])
    own = pipeline.backbone.own_timesteps
    assert own is not None and pipeline.clock.timesteps == pytest.approx(own(pipeline.steps, False), rel=1e-5)
    with pipeline.sampling(solver="dpm++"):
        pipeline.generate(["red cat"], 0, [0])
        assert pipeline.clock.timesteps == pytest.approx(own(pipeline.steps, True), rel=1e-5)


@pytest.mark.families
@pytest.mark.parametrize("number", [1, -1], ids=["first", "last"])
def test_feedback_learns_and_the_backbone_does_not(pipeline: Pipeline, number: int) -> None:
    """Gradients go through the inner loop of the first and of the last block: a few steps bring the prediction nearer to 0."""
    told, t = first_call(pipeline)
    assert told.call is not None
    sample, rows = told.call.sample.clone(), len(told.call.sample)
    conditioning = map_tensors(told.call.conditioning, torch.clone)  # those of a run cannot be differentiated
    times = [torch.full((rows,), value) for value in (t, t / 2, 1000.0, 2.0)]
    at = number % (pipeline.plan().backbone.depth + 1)
    module = build_module(pipeline, IlfSettings(loop=(at, at), grids=(3,), steps=3, guidance_distilled="none"))
    loop = InnerLoop(pipeline.transformer, pipeline.family, module)
    optimizer, losses = torch.optim.AdamW(module.parameters(), lr=1e-2), []
    pipeline.transformer.requires_grad_(False)
    with loop.hooked():
        for _ in range(4):
            loop.call = ModelCall(sample, pipeline.family.call.time(times[0]), conditioning)
            loop.transition = Transition(*times[:3], sample, sample, torch.zeros(rows, dtype=torch.bool), times[3])
            loss = pipeline.predict(sample, times[0], conditioning).square().mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(weight.grad is None for weight in pipeline.transformer.parameters())


@pytest.mark.families
@pytest.mark.parametrize("name", FLOW)
def test_what_it_allocates_is_found_without_weights(name: str) -> None:
    case = CASES[name]
    told = {"name": "x", "task": "text", "prompts": "x", "methods": ["full"], "metrics": [], "device": "cpu", "steps": 3}
    known = {"guidance": 2.0, "solver": "checkpoint", "dtype": "bfloat16", **case.settings}
    empty = empty_pipeline(build_spec({**told, **known, "pipeline": f"random:{case.architecture}:tiny"}, "a test"))
    found = rehearse(empty, ["red cat", "blue dog"])
    assert found.weights == component_bytes(empty.pipe) and min(found.weights.values()) > 0
    assert set(found.activations) == {"text", "denoise", "decode"} and min(found.activations.values()) > 0
