"""Compilation and CUDA graphs lie below every other method. Traced by dynamo, run by eager kernels: seconds, and exact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.deepcache import DeepCache
from baselines.systems import Compile, CudaGraphs
from harness.config.methods import Composition
from harness.config.spec import TimingSpec
from harness.errors import NotMeasured
from harness.sampling import compiling
from harness.sampling.patching import patched
from harness.sampling.pipeline import Pipeline
from harness.timing.rounds import Rounds
from tests.conftest import PROMPTS, open_pipeline
from tests.methods import build, save_random_module


@pytest.fixture(autouse=True)
def _eager_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "BACKEND", "eager")


def test_compiled_is_eager_and_counted(pipeline: Pipeline) -> None:
    plain = pipeline.generate(PROMPTS, 0, range(5))
    with pipeline.counting() as counter, Compile().attach(pipeline):
        assert torch.equal(pipeline.generate(PROMPTS, 0, range(5)), plain)
    assert counter.rows / 5 == pipeline.plan().block_evaluations
    assert all("forward" not in vars(block) for block in pipeline.blocks)


def test_no_new_compilation_when_attached_again(pipeline: Pipeline) -> None:
    torch._dynamo.reset()
    for _ in range(2):
        with Compile().attach(pipeline):
            pipeline.generate(PROMPTS, 0, range(5))
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        torch._dynamo.utils.counters.clear()
    assert graphs == 0


@pytest.mark.parametrize("text", ["compile+deepcache:interval=2", "deepcache:interval=2+compile"])
def test_a_composition_compiles_below_the_cache_in_either_order(pipeline: Pipeline, text: str) -> None:
    with DeepCache(2).attach(pipeline):
        cached = pipeline.generate(PROMPTS, 0, range(5))
    method = build(text, Path())
    assert isinstance(method, Composition)
    with pipeline.counting() as counter, method.attach(pipeline):
        assert torch.equal(pipeline.generate(PROMPTS, 0, range(5)), cached)
    assert counter.rows / 5 == method.plan(pipeline.plan()).block_evaluations


def test_ilf_composes(pipeline: Pipeline, tmp_path: Path) -> None:
    folder = save_random_module(pipeline, tmp_path / "module")
    images = []
    for text in ("ilf:checkpoint={ilf}", "ilf:checkpoint={ilf}+compile"):
        with build(text, folder).attach(pipeline):
            images.append(pipeline.generate(PROMPTS, 0, range(5)))
    assert torch.equal(*images)


@pytest.mark.parametrize("text", ["fora", "taylorseer", "t-gate:0.5", "ecad:0.7"])
def test_caches_of_parts_are_not_measured_compiled(folders: dict[str, Path], text: str) -> None:
    """Each pattern of parts would be a compilation of its own, up to torch's limit, at which the full run fails, too."""
    pipeline = open_pipeline(folders["pixart"], compile=True)
    method = build(text, Path())
    with method.attach(pipeline):
        pipeline.generate(PROMPTS, 0, range(5))  # images are made by eager blocks
    with pipeline.compiled(), pytest.raises(NotMeasured, match="without compilation"), method.attach(pipeline):
        pass
    with pytest.raises(NotMeasured, match="without compilation"), build(f"{text}+compile", Path()).attach(pipeline):
        pass


class EveryStep:
    """A method that makes each step another compilation."""

    label = "every step"

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        def scaled(forward: Any) -> Any:
            return lambda *args, **kwargs: forward(*args, **kwargs) * (1 + 0.01 * pipeline.clock.step)

        with ExitStack() as stack:
            for block in pipeline.blocks:
                stack.enter_context(patched(block.ff, "forward", scaled(block.ff.forward)))
            yield


def test_a_method_that_compiles_at_every_step_costs_no_other(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "SHAPES", 8)
    torch._dynamo.reset()
    pipeline = open_pipeline(folders["dit"], compile=True, steps=10)
    methods: Any = {"full": build("full", Path()), "every step": EveryStep(), "3 steps": build("steps:3", Path())}
    timing = TimingSpec(rounds=1, warmup=1, batch=3, batches=(1, 2))
    # monkeypatch would delete an option that was never set, which hides its default from later tests
    with torch._dynamo.config.patch(recompile_limit=8), pipeline.compiled():
        failures = Rounds(tmp_path, timing, pipeline, PROMPTS, 0, methods).record(0)
    assert {failure.method for failure in failures} == {"every step"} and len(failures) == 3
    assert all(failure.reason.startswith("NOT-MEASURED: expected at most 8 variants") for failure in failures)
    torch._dynamo.reset()


def test_cuda_graphs_without_cuda_are_not_measured(pipeline: Pipeline) -> None:
    with pytest.raises(NotMeasured, match="CUDA"), CudaGraphs().attach(pipeline):
        pass


@pytest.mark.gpu
@pytest.mark.parametrize("text", ["cuda-graphs", "deepcache:interval=2+cuda-graphs"])
def test_cuda_graphs_give_the_same_images(pipeline: Pipeline, text: str) -> None:
    on_gpu = Pipeline(pipeline.pipe, folder=pipeline.folder, steps=4, guidance=2.0, precision="fp32", device="cuda")
    plain = text.replace("cuda-graphs", "full")
    images = []
    for method in (plain, text, text):
        with build(method, Path()).attach(on_gpu):
            images.append(on_gpu.generate(PROMPTS, 0, range(5)).int())
    assert (images[0] - images[1]).abs().max() <= 1 and torch.equal(images[1], images[2])
