"""Our caches against cache-dit's DBCache, an independent one, on the same random weights. Skipped where it is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.deepcache import DeepCache
from baselines.first_block_cache import FirstBlockCache
from harness.contracts import Method
from harness.sampling.pipeline import Pipeline
from tests.conftest import PROMPTS, open_pipeline

cache_dit = pytest.importorskip("cache_dit")


@pytest.fixture(params=["dit", "pixart"])
def pipeline(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Pipeline:
    """A fresh one of a class of its own, because cache-dit replaces ``__call__`` of the pipeline's class."""
    opened = open_pipeline(folders[request.param], steps=10)
    kind = type(opened.pipe)
    opened.pipe.__class__ = type(kind.__name__, (kind,), {})
    return opened


def predictions(pipeline: Pipeline, indices: tuple[int, ...]) -> list[torch.Tensor]:
    """What the transformer returned at each step of one call, [rows, channels, height, width]."""
    found: list[torch.Tensor] = []
    hook = pipeline.transformer.register_forward_hook(lambda m, args, output: found.append(output[0]))
    pipeline.generate([PROMPTS[i] for i in indices], 0, indices)
    hook.remove()
    return found


def check(pipeline: Pipeline, method: Method, indices: tuple[int, ...], **settings: Any) -> None:
    """The same prediction at every step and the same evaluations, twice in a row, and others than the full run's."""
    full = predictions(pipeline, indices)
    with pipeline.counting() as counter:
        with method.attach(pipeline):
            ours, cost = predictions(pipeline, indices), counter.rows
        config = cache_dit.DBCacheConfig(num_inference_steps=pipeline.steps, max_warmup_steps=1, **settings)
        cache_dit.enable_cache(pipeline.pipe, cache_config=config)
        for _ in range(2):
            counter.rows = 0.0
            theirs = predictions(pipeline, indices)
            assert len(theirs) == len(ours) == pipeline.steps and counter.rows == cost
            assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))
    assert cost < len(indices) * pipeline.plan().block_evaluations
    assert not all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, full, strict=True))


@pytest.mark.parametrize("threshold", [0.15, 0.25, 0.4])
def test_first_block_cache(pipeline: Pipeline, threshold: float) -> None:
    """One image, because theirs decides for the whole batch at once."""
    check(pipeline, FirstBlockCache(threshold), (2,), Fn_compute_blocks=1, Bn_compute_blocks=0, residual_diff_threshold=threshold)


@pytest.mark.parametrize("interval", [2, 3])
def test_deepcache(pipeline: Pipeline, interval: int) -> None:
    """A fixed mask of steps, one block before and one behind the cached range: our DeepCache on blocks 2 to 5 of 6."""
    mask = [int(step % interval == 0) for step in range(pipeline.steps)]
    check(
        pipeline,
        DeepCache(interval, first=2, last=5),
        (0, 1, 2),
        Fn_compute_blocks=1,
        Bn_compute_blocks=1,
        steps_computation_mask=mask,
        steps_computation_policy="static",
    )
