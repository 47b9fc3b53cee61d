"""What holds for EVERY method: exact restoration, predicted cost, no state between calls, no leak between neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baselines.magcache import MagCache
from baselines.table import BASELINES
from harness.errors import NotMeasured, UsageError
from harness.results import method_parts
from harness.sampling.pipeline import Pipeline
from harness.sampling.restoration import changed, state_of
from harness.training.calibration import find
from ilf.method import ILF_METHODS
from ilf.untrained import UNTRAINED_METHODS
from ilf_bench.testing import EVERY, keeps_the_contract
from tests.conftest import PROMPTS, open_pipeline
from tests.methods import COMPOSED, EXTRAS, LEARNED, LOW_BIT, TEXTS, THIRD_PARTY, applies, build, save_random_module

ALL = TEXTS + COMPOSED + THIRD_PARTY + EXTRAS


def images(pipeline: Pipeline, indices: Sequence[int]) -> torch.Tensor:
    """Images of seed 0 as signed integers."""
    return pipeline.generate([PROMPTS[i] for i in indices], 0, list(indices)).int()


@pytest.fixture(scope="session")
def opened(folders: dict[str, Path]) -> dict[str, Pipeline]:
    """One pipeline of each backbone for all tests here: they leave it as they found it, or fail."""
    return {name: open_pipeline(folder) for name, folder in folders.items()}


@pytest.fixture(scope="session")
def modules(opened: dict[str, Pipeline], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_random_module(pipeline, tmp_path_factory.mktemp(name)) for name, pipeline in opened.items()}


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
    keeps_the_contract(pipeline, method, changes=text != "full")


@pytest.mark.parametrize("text", ALL)
def test_pipeline_is_restored_after_an_error(opened: dict[str, Pipeline], modules: dict[str, Path], text: str) -> None:
    pipeline = opened["pixart"]
    before = state_of(pipeline)
    with pytest.raises(ZeroDivisionError), build(text, modules["pixart"]).attach(pipeline):
        raise ZeroDivisionError
    assert not changed(before, state_of(pipeline))


@pytest.mark.parametrize(
    ("cache", "why"),
    [("first-block:0.25", "same blocks for all images"), ("deepcache:interval=2:first=2:last=4", "all run or are all skipped")],
)
def test_a_cache_that_a_loop_cannot_bear_says_so(
    opened: dict[str, Pipeline], modules: dict[str, Path], cache: str, why: str
) -> None:
    pipeline, method = opened["dit"], build(f"ilf:checkpoint={{ilf}}+{cache}", modules["dit"])
    with pytest.raises(NotMeasured, match=why), method.attach(pipeline):
        images(pipeline, EVERY)


@pytest.mark.parametrize("text", ["fora:2+ilf:checkpoint={ilf}", "deepcache:interval=2+steps:3"])
def test_what_chooses_the_steps_comes_first(opened: dict[str, Pipeline], modules: dict[str, Path], text: str) -> None:
    with pytest.raises(UsageError, match="first, and then"):
        build(text, modules["dit"]).plan(opened["dit"].plan())


ANYWHERE = (
    *TEXTS,
    *THIRD_PARTY,
    *LEARNED,
    *LOW_BIT,
    *EXTRAS,
    "cuda-graphs",
    "ilf:checkpoint={ilf}",
)  # compile: tests/baselines/test_systems.py
ANY_SETTING = {
    "text": st.sampled_from(ANYWHERE),
    "name": st.sampled_from(["dit", "pixart"]),
    "guidance": st.sampled_from([1.0, 2.0]),
    "steps": st.one_of(st.integers(1, 8), st.integers(9, 50)),
    "batch": st.sampled_from([1, 5]),
}


def test_every_method_of_the_table_is_held_to_the_contract() -> None:
    """``compile`` and ``distilled`` in files of their own."""
    held = {part.split(":")[0] for text in (*ANYWHERE, *COMPOSED) for part in method_parts(text)}
    assert held | {"compile", "distilled"} == {*BASELINES, *ILF_METHODS, *UNTRAINED_METHODS}


def check_at(pipeline: Pipeline, text: str, module: Path, guidance: float, steps: int, batch: int) -> None:
    """Two calls in a row: finite, the same images, the predicted cost both times, and a restored pipeline.

    What cannot run here (a router of other steps, FP8 on a CPU) says so, and leaves the pipeline as it was, too.
    """
    method = build(text, module)
    steps = steps if pipeline.is_class_conditional else max(steps, 2)  # diffusers takes 1 step for a distilled PixArt
    with pytest.MonkeyPatch.context() as patch, pipeline.sampling(steps=steps):
        patch.setattr(pipeline, "guidance", pipeline.guidance.at(guidance))
        before = state_of(pipeline)
        try:
            with pipeline.counting() as counter, method.attach(pipeline):
                first = images(pipeline, list(range(batch)))
                once = counter.rows
                assert torch.equal(images(pipeline, list(range(batch))), first) and counter.rows == pytest.approx(2 * once)
        except NotMeasured:
            assert text not in TEXTS or not applies(text, pipeline)
            assert not changed(before, state_of(pipeline))
            return
        plan = method.plan(pipeline.plan())
        cost, foreseen = once / batch, plan.block_evaluations
        assert cost == pytest.approx(foreseen) if plan.exact else 0 < cost <= foreseen * (1 + 1e-9)
        assert not changed(before, state_of(pipeline))


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(**ANY_SETTING)
def test_every_method_at_any_setting(
    opened: dict[str, Pipeline], modules: dict[str, Path], text: str, name: str, guidance: float, steps: int, batch: int
) -> None:
    check_at(opened[name], text, modules[name], guidance, steps, batch)


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(**ANY_SETTING)
def test_every_method_at_hundreds_of_settings(
    opened: dict[str, Pipeline], modules: dict[str, Path], text: str, name: str, guidance: float, steps: int, batch: int
) -> None:
    check_at(opened[name], text, modules[name], guidance, steps, batch)


SAME = (
    "deepcache:interval=1",
    "delta-dit:interval=1",
    "encoder:keys=4",
    "step-rehash:threshold=2",
    "fora:interval=1",
    "taylorseer:interval=1",
    "smoothcache:alpha=0",
    "smoothcache:alpha=9:most=0",
    "pab:attention=1:cross=1",
    "t-gate:1",
    "guidance-reuse:1",
    "guidance-reuse:first=4",
    "first-block:0",
    "teacache:0",
    "magcache:threshold=0",
    "magcache:most=0:threshold=9",
    "magcache:retention=1",
    "steps:4",
)


@pytest.mark.parametrize("name", ["dit", "pixart"])
@pytest.mark.parametrize("text", SAME)
def test_where_nothing_is_skipped_it_is_the_full_run_bit_for_bit(opened: dict[str, Pipeline], text: str, name: str) -> None:
    pipeline, method = opened[name], build(text, Path())
    if applies(text, pipeline):
        plain = images(pipeline, EVERY)
        with pipeline.counting() as counter, method.attach(pipeline):
            assert torch.equal(images(pipeline, EVERY), plain) and counter.rows == len(EVERY) * pipeline.plan().block_evaluations


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
    assert find(MagCache(), plan, "magcache") is not None
    assert find(MagCache(), plan.with_steps(7), "magcache") is None
