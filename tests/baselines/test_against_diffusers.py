"""Our caches against diffusers' hooks, where these work on the two models, on the same random weights."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from diffusers import FirstBlockCacheConfig, MagCacheConfig, PyramidAttentionBroadcastConfig, TaylorSeerCacheConfig
from diffusers.hooks import (
    apply_first_block_cache,
    apply_mag_cache,
    apply_pyramid_attention_broadcast,
    apply_taylorseer_cache,
)
from diffusers.hooks.hooks import CacheContext, _set_cache_context

from baselines.first_block_cache import FirstBlockCache
from baselines.fora import Fora
from baselines.magcache import MagCache
from baselines.pab import PAB
from baselines.taylorseer import TaylorSeer
from harness.contracts import Method
from harness.sampling.pipeline import Pipeline
from harness.training import calibration
from harness.training.calibration import find
from tests.baselines.recording import record
from tests.conftest import open_pipeline


@pytest.fixture(params=["dit", "pixart"])
def pipeline(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Pipeline:
    """A fresh one: diffusers' hooks stay on the model."""
    return open_pipeline(folders[request.param])


PARTS = [r"transformer_blocks\.\d+\.(attn1|attn2|ff)"]


def check(
    pipeline: Pipeline, method: Method, apply: object, config: object, indices: tuple[int, ...], skipped: bool = True
) -> None:
    """The same hidden states at every step, and other ones than the full run's."""
    full, ours = record(pipeline, indices=indices), record(pipeline, method, indices)
    apply(pipeline.transformer, config)  # type: ignore[operator]
    _set_cache_context(pipeline.transformer, CacheContext("both branches"))
    theirs = record(pipeline, indices=indices)
    assert all(torch.allclose(a.left, b.left, atol=1e-5) for a, b in zip(ours, theirs, strict=True))
    assert skipped == any(not torch.allclose(a.left, b.left, atol=1e-5) for a, b in zip(ours, full, strict=True))


@pytest.mark.parametrize("threshold", [0.1, 0.25, 0.4])
def test_first_block_cache(pipeline: Pipeline, threshold: float) -> None:
    """One image, for which our decision and theirs are over the same two rows."""
    pipeline.steps = 10
    check(pipeline, FirstBlockCache(threshold), apply_first_block_cache, FirstBlockCacheConfig(threshold), (2,))


def test_magcache(pipeline: Pipeline) -> None:
    pipeline.steps = 10
    method = MagCache(0.5, most=2)
    with method.attach(pipeline):
        known = find(MagCache(), pipeline.plan(), "magcache")
    assert known is not None
    config = MagCacheConfig(threshold=0.5, max_skip_steps=2, num_inference_steps=10, mag_ratios=list(known.curves["ratios"]))
    check(pipeline, method, apply_mag_cache, config, (0, 1, 2))


def test_magcache_calibration(
    pipeline: Pipeline,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """One chunk, because theirs is a mean over a call; they print the ratios."""
    with MagCache().attach(pipeline):
        known = find(MagCache(), pipeline.plan(), "magcache")
    apply_mag_cache(pipeline.transformer, MagCacheConfig(calibrate=True, num_inference_steps=4))
    prompts = calibration.tuning_prompts(pipeline.folder)  # type: ignore[arg-type]
    capsys.readouterr()
    pipeline.generate(prompts, calibration.SEED, range(len(prompts)))
    printed = ast.literal_eval(capsys.readouterr().out.strip().splitlines()[-1])
    assert known is not None and known.curves["ratios"] == pytest.approx(printed, rel=1e-4)


def test_pyramid_attention_broadcast(pipeline: Pipeline) -> None:
    pipeline.steps = 10
    config = PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        cross_attention_block_skip_range=4,
        cross_attention_block_identifiers=("transformer_blocks",),
        spatial_attention_block_identifiers=("transformer_blocks",),
        current_timestep_callback=lambda: pipeline.clock.t,
    )
    check(pipeline, PAB(attention=2, cross=4), apply_pyramid_attention_broadcast, config, (0, 1, 2))


@pytest.mark.parametrize("order", [0, 1, 2])
def test_taylorseer(pipeline: Pipeline, order: int) -> None:
    """At interval 2 both schedules agree: full at 0, 1, 3, 5, ... (theirs begins its rhythm one step later than the paper)."""
    pipeline.steps = 9
    config = TaylorSeerCacheConfig(
        cache_interval=2,
        disable_cache_before_step=2,
        max_order=order,
        taylor_factors_dtype=torch.float32,
        cache_identifiers=PARTS,
    )
    check(pipeline, TaylorSeer(interval=2, order=order, warmup=2), apply_taylorseer_cache, config, (0, 1, 2))


def test_fora_is_taylorseer_of_order_0(pipeline: Pipeline) -> None:
    pipeline.steps = 8
    config = TaylorSeerCacheConfig(
        cache_interval=2, disable_cache_before_step=1, max_order=0, taylor_factors_dtype=torch.float32, cache_identifiers=PARTS
    )
    check(pipeline, Fora(2), apply_taylorseer_cache, config, (0, 1, 2))


def test_diffusers_own_default_for_taylorseer_does_nothing_here(pipeline: Pipeline) -> None:
    """Why we have our own: without identifiers no module of these models matches, silently."""
    pipeline.steps = 8
    full = record(pipeline)
    apply_taylorseer_cache(pipeline.transformer, TaylorSeerCacheConfig(cache_interval=3))
    assert all(torch.equal(a.left, b.left) for a, b in zip(full, record(pipeline), strict=True))
