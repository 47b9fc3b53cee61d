"""cache-dit as a row: one image at a time, counted, and nothing of it stays."""

from __future__ import annotations

import sys

import pytest
import torch
from diffusers import PixArtAlphaPipeline

from baselines.third_party.cache_dit import CacheDit
from harness.errors import NotMeasured, UsageError
from harness.sampling.pipeline import Pipeline
from ilf_bench.testing import images

ONE = CacheDit(9.0, front=1, warmup=1)


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="front of at least 1"):
        CacheDit(front=0)


def test_without_the_package_the_plan_says_what_to_install(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cache_dit", None)
    with pytest.raises(NotMeasured, match=r"ilf-bench\[cache-dit\]"):
        ONE.plan(pipeline.plan())


def test_it_runs_less_and_leaves_the_class_of_the_pipeline(pipeline: Pipeline) -> None:
    pytest.importorskip("cache_dit")
    call, plain = PixArtAlphaPipeline.__call__, images(pipeline, (0,))
    with pipeline.counting() as counter, ONE.attach(pipeline):
        assert not torch.equal(images(pipeline, (0,)), plain)
    assert counter.rows < pipeline.plan().block_evaluations
    assert PixArtAlphaPipeline.__call__ is call and torch.equal(images(pipeline, (0,)), plain)


def test_what_it_cannot_do_is_not_measured(pipeline: Pipeline) -> None:
    pytest.importorskip("cache_dit")
    with pytest.raises(NotMeasured, match="one image in each call"), ONE.attach(pipeline):
        images(pipeline, (0, 1))
    with pytest.raises(NotMeasured, match="a model that cache-dit works on"), CacheDit(front=50).attach(pipeline):
        images(pipeline, (0,))
