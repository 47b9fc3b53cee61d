"""What holds for EVERY method: exact restoration, predicted cost, no state between calls, no leak between neighbours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.calibration import find
from harness.errors import NotMeasured
from harness.pipeline import Pipeline
from tests.conftest import PROMPTS, open_pipeline
from tests.methods import COMPOSED, TEXTS, applies, build, save_random_module

ALL = TEXTS + COMPOSED
EVERY = list(range(5))


@pytest.fixture(scope="session")
def opened(folders: dict[str, Path]) -> dict[str, Pipeline]:
    """One pipeline of each backbone for all tests here: they leave it as they found it, or fail."""
    return {name: open_pipeline(folder) for name, folder in folders.items()}


@pytest.fixture(scope="session")
def modules(opened: dict[str, Pipeline], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_random_module(pipeline, tmp_path_factory.mktemp(name)) for name, pipeline in opened.items()}


def images(pipeline: Pipeline, indices: list[int]) -> torch.Tensor:
    """Images of seed 0 as signed integers."""
    return pipeline.generate([PROMPTS[i] for i in indices], 0, indices).int()


def state_of(pipeline: Pipeline) -> list[object]:
    """Everything that a method may not leave changed: attributes of every module, the scheduler and the settings."""
    modules = [(name, sorted(vars(module)), len(module._forward_hooks)) for name, module in pipeline.transformer.named_modules()]
    return [modules, id(pipeline.pipe.scheduler), vars(pipeline.pipe.scheduler).keys(), pipeline.steps, pipeline.solver]


@pytest.mark.parametrize("name", ["dit", "pixart"])
@pytest.mark.parametrize("text", ALL)
def test_a_method_keeps_the_contract(opened: dict[str, Pipeline], modules: dict[str, Path], text: str, name: str) -> None:
    pipeline, method = opened[name], build(text, modules[name])
    if not applies(text, pipeline):
        with pytest.raises(NotMeasured):
            method.plan(pipeline.plan())
        with pytest.raises(NotMeasured), method.attach(pipeline):
            pass
        return
    before, plain = state_of(pipeline), images(pipeline, EVERY)
    weights = {key: value.clone() for key, value in pipeline.transformer.state_dict().items()}
    with pipeline.counting() as counter, method.attach(pipeline):
        together, cost = images(pipeline, EVERY), counter.rows
        counter.rows = 0.0
        alone = torch.cat([images(pipeline, [i]) for i in EVERY])
        alone_cost, shuffled = counter.rows, images(pipeline, [4, 2, 0, 1, 3])
        assert torch.equal(images(pipeline, EVERY), together), "state leaks from call to call"
    assert (together - alone).abs().max() <= 1 and alone_cost == cost, "an image depends on its neighbours"
    assert (together[[4, 2, 0, 1, 3]] - shuffled).abs().max() <= 1, "an image depends on its place"
    assert text == "full" or not torch.equal(together, plain), "the method changes nothing"
    plan = method.plan(pipeline.plan())
    assert cost / 5 == plan.block_evaluations if plan.exact else 0 < cost / 5 <= plan.block_evaluations
    after = pipeline.transformer.state_dict()
    assert after.keys() == weights.keys() and all(torch.equal(after[key], weights[key]) for key in weights)
    assert state_of(pipeline) == before and torch.equal(images(pipeline, EVERY), plain)


@pytest.mark.parametrize("text", ALL)
def test_pipeline_is_restored_after_an_error(opened: dict[str, Pipeline], modules: dict[str, Path], text: str) -> None:
    pipeline = opened["pixart"]
    before = state_of(pipeline)
    with pytest.raises(ZeroDivisionError), build(text, modules["pixart"]).attach(pipeline):
        raise ZeroDivisionError
    assert state_of(pipeline) == before


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=st.sampled_from(TEXTS), name=st.sampled_from(["dit", "pixart"]), guidance=st.sampled_from([1.0, 2.0]),
    steps=st.one_of(st.integers(1, 8), st.integers(9, 50)), batch=st.sampled_from([1, 5]),
)  # fmt: skip
def test_every_method_at_any_setting(
    opened: dict[str, Pipeline], text: str, name: str, guidance: float, steps: int, batch: int
) -> None:
    """Any step count, with and without guidance, two calls in a row: finite, repeatable, at the predicted cost."""
    pipeline, method = opened[name], build(text, Path())
    steps = max(steps, 2) if name == "pixart" else steps  # diffusers takes PixArt-alpha at one step for a distilled model
    if not applies(text, pipeline):
        return
    with pytest.MonkeyPatch.context() as patch, pipeline.sampling(steps=steps):
        patch.setattr(pipeline, "guidance", guidance)
        before = state_of(pipeline)
        with pipeline.counting() as counter, method.attach(pipeline):
            first = images(pipeline, EVERY[:batch])
            once = counter.rows
            assert torch.equal(images(pipeline, EVERY[:batch]), first) and counter.rows == 2 * once
        plan = method.plan(pipeline.plan())
        assert once / batch == plan.block_evaluations if plan.exact else 0 < once / batch <= plan.block_evaluations
        assert state_of(pipeline) == before


SAME = (
    "deepcache:interval=1", "delta-dit:interval=1", "encoder:keys=4", "step-rehash:threshold=2", "fora:interval=1",
    "taylorseer:interval=1", "smoothcache:alpha=0", "smoothcache:alpha=9:most=0", "pab:attention=1:cross=1", "t-gate:1",
    "first-block:0", "teacache:0", "magcache:threshold=0", "magcache:most=0:threshold=9", "magcache:retention=1", "steps:4",
)  # fmt: skip


@pytest.mark.parametrize("name", ["dit", "pixart"])
@pytest.mark.parametrize("text", SAME)
def test_where_nothing_is_skipped_it_is_the_full_run_bit_for_bit(opened: dict[str, Pipeline], text: str, name: str) -> None:
    pipeline, method = opened[name], build(text, Path())
    if applies(text, pipeline):
        plain = images(pipeline, EVERY)
        with pipeline.counting() as counter, method.attach(pipeline):
            assert torch.equal(images(pipeline, EVERY), plain) and counter.rows == 5 * pipeline.plan().block_evaluations


def test_a_calibrated_cost_is_an_upper_bound_until_it_is_calibrated(
    opened: dict[str, Pipeline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pipeline = opened["dit"]
    for text in ("magcache:0.9", "step-rehash:0.2", "smoothcache:5"):
        method, plan = build(text, Path()), pipeline.plan()
        assert not method.plan(plan).exact and method.plan(plan).block_evaluations == plan.block_evaluations
        with method.attach(pipeline):
            pass
        assert method.plan(plan).exact and method.plan(plan).block_evaluations < plan.block_evaluations
    assert find(plan, "magcache") is not None and find(plan.with_steps(7), "magcache") is None
