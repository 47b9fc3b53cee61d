"""Low-bit products: exact restoration, small and real differences, and a clear word where they cannot run."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from baselines.quantised import Fp8, Int8
from harness.errors import NotMeasured
from harness.sampling.pipeline import Pipeline
from tests.conftest import PROMPTS
from tests.methods import build


@pytest.mark.parametrize("method", [Int8(), Int8("float")], ids=lambda m: m.label)
def test_int8_changes_little_and_restores_all(pipeline: Pipeline, method: Int8) -> None:
    pytest.importorskip("torchao")
    tensors = {name: (id(p), p.clone()) for name, p in pipeline.transformer.named_parameters()}
    attributes = {name: set(vars(module)) for name, module in pipeline.transformer.named_modules()}
    plain = pipeline.generate(PROMPTS, 0, range(5))
    with pipeline.counting() as counter, method.attach(pipeline):
        low = pipeline.generate(PROMPTS, 0, range(5))
    difference = (low.float() - plain.float()).abs().mean()
    assert 0 < difference < 5 and counter.rows / 5 == pipeline.plan().block_evaluations
    assert all(id(p) == tensors[n][0] and torch.equal(p, tensors[n][1]) for n, p in pipeline.transformer.named_parameters())
    assert all(set(vars(module)) == attributes[name] for name, module in pipeline.transformer.named_modules())
    assert torch.equal(pipeline.generate(PROMPTS, 0, range(5)), plain)


def test_int8_composes_with_a_cache(pipeline: Pipeline) -> None:
    pytest.importorskip("torchao")
    method = build("steps:3+deepcache:interval=2+int8", Path())
    with pipeline.counting() as counter, method.attach(pipeline):
        pipeline.generate(PROMPTS, 0, range(5))
    assert counter.rows / 5 == method.plan(pipeline.plan()).block_evaluations


def test_fp8_on_a_cpu_is_not_measured(pipeline: Pipeline) -> None:
    with pytest.raises(NotMeasured, match=r"8\.9"), Fp8().attach(pipeline):
        pass


def test_without_torchao_the_plan_says_what_to_install(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    for method in (Int8(), Fp8()):
        with pytest.raises(NotMeasured, match="lowbit"):
            method.plan(pipeline.plan())


@pytest.mark.gpu
def test_fp8_changes_little(pipeline: Pipeline) -> None:
    pytest.importorskip("torchao")
    on_gpu = Pipeline(pipeline.pipe, folder=pipeline.folder, steps=4, guidance=2.0, precision="bf16", device="cuda")
    plain = on_gpu.generate(PROMPTS, 0, range(5))
    with Fp8().attach(on_gpu):
        low = on_gpu.generate(PROMPTS, 0, range(5))
    assert 0 < (low.float() - plain.float()).abs().mean() < 8
