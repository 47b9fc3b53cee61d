"""CUDA graphs and low-bit weights, as far as they can be tried without CUDA's kernels."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from harness.errors import NotMeasured
from harness.sampling.pipeline import Pipeline
from harness.timing.rounds import time_once
from tests.conftest import PROMPTS, open_pipeline
from tests.methods import build
from tests.simulated_cuda.conftest import MODELS
from tests.simulated_cuda.device import CUDAGraph, SimulatedCuda
from tests.simulated_cuda.sampling import EVERY, images

Pairs = dict[str, tuple[Pipeline, Pipeline]]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("text", ["full", "deepcache:interval=2", "ilf:checkpoint={ilf}", "solver:unipc", "first-block:0.25"])
def test_cuda_graphs_give_the_same_images(pairs: Pairs, modules: dict[str, Path], text: str, name: str) -> None:
    _, gpu = pairs[name]
    with build(text, modules[name]).attach(gpu):
        plain = [images(gpu, EVERY), images(gpu, [1])]
    graphs = "cuda-graphs" if text == "full" else f"{text}+cuda-graphs"
    with build(graphs, modules[name]).attach(gpu):
        for _ in range(2):
            assert all(torch.equal(images(gpu, some), one) for some, one in zip((EVERY, [1]), plain, strict=True))


def test_graphs_read_the_weights_where_they_lie(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph whose weights are inputs copies all of them at each replay; ours copies the block's input and its output."""
    _, gpu = pairs["pixart"]
    with build("cuda-graphs", Path()).attach(gpu):
        before = images(gpu, EVERY)
        copied: list[int] = []
        real = torch.Tensor.copy_
        monkeypatch.setattr(torch.Tensor, "copy_", lambda self, *a, **k: copied.append(self.numel()) or real(self, *a, **k))
        monkeypatch.setattr(CUDAGraph, "replay", lambda graph: None)
        images(gpu, EVERY)
        weights = sum(p.numel() for p in gpu.blocks[0].parameters())
        assert copied and max(copied) < weights and sum(copied) < weights * gpu.steps * len(gpu.blocks)
    monkeypatch.undo()
    with build("cuda-graphs", Path()).attach(gpu):
        assert torch.equal(images(gpu, EVERY), before)
        weight = gpu.blocks[0].ff.net[2].weight.data
        kept = weight.clone()
        weight.mul_(3)
        assert not torch.equal(images(gpu, EVERY), before), "a changed weight is seen by the next replay"
        weight.copy_(kept)


def test_graphs_are_captured_before_the_clock_starts(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    _, gpu = pairs["dit"]
    captured: list[int] = []
    start = CUDAGraph.__init__
    monkeypatch.setattr(CUDAGraph, "__init__", lambda self: captured.append(1) or start(self))
    calls: list[int] = []
    generate = gpu.generate
    monkeypatch.setattr(gpu, "generate", lambda *a: calls.append(len(captured)) or generate(*a))
    time_once(gpu, build("cuda-graphs", Path()), "x", PROMPTS[:2], 0, 0)
    assert calls[0] == 0 < calls[1] == len(captured), "the second call, which is timed, captures nothing"


def test_what_a_graph_cannot_do_honestly_is_not_measured(pairs: Pairs, folders: dict[str, Path]) -> None:
    _, gpu = pairs["dit"]
    with pytest.raises(NotMeasured, match="eager blocks"), build("fora+cuda-graphs", Path()).attach(gpu):
        pass
    mixed = open_pipeline(folders["dit"], device="cuda", precision="bf16")
    with pytest.raises(NotMeasured, match="16-bit weights"), build("cuda-graphs", Path()).attach(mixed):
        pass


class Rounded(torch.nn.Parameter):
    """Stands for a weight that torchao has quantised."""


@pytest.fixture
def torchao(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """torchao's front door: keeps its configurations, and replaces the weight of a layer as torchao does."""
    seen = SimpleNamespace(configs=[], layers=[])

    def quantize(layer: nn.Linear, config: object, filter_fn: Callable[[nn.Module, str], bool]) -> None:
        assert filter_fn(layer, "")
        seen.configs.append(config)
        seen.layers.append(layer)
        layer.weight = Rounded(layer.weight.detach().to(torch.bfloat16).to(layer.weight.dtype), requires_grad=False)
        layer.quantisation = "described"

    fake = SimpleNamespace(quantize_=quantize)
    for name in ("Int8DynamicActivationInt8Weight", "Int8WeightOnly", "Float8DynamicActivationFloat8Weight"):
        setattr(fake, f"{name}Config", lambda name=name, **options: (name, options))
    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", lambda name: fake if name == "torchao.quantization" else real(name))
    return seen


def half(folder: Path, **settings: Any) -> Pipeline:
    """A pipeline with bfloat16 weights on the device."""
    cpu = open_pipeline(folder)
    return Pipeline(cpu.pipe.to(dtype=torch.bfloat16), folder=folder, steps=4, guidance=2.0, device="cuda", **settings)


@pytest.mark.parametrize("text", ["fp8", "int8:float", "int8+compile"])
def test_the_weights_that_are_replaced_leave_the_device(
    device: SimulatedCuda, folders: dict[str, Path], torchao: SimpleNamespace, text: str
) -> None:
    gpu = half(folders["dit"])
    before = {name: (id(p), p.data.cpu().clone()) for name, p in gpu.transformer.named_parameters()}
    bytes_before = device.allocated()
    with build(text, Path()).attach(gpu):
        assert device.allocated() <= bytes_before, "quantised weights beside the originals take more than the full model"
        assert torchao.layers and all(isinstance(layer.weight, Rounded) for layer in torchao.layers)
        assert all(options["set_inductor_config"] is False for _, options in torchao.configs)
    assert device.allocated() == bytes_before
    for name, p in gpu.transformer.named_parameters():
        assert p.is_cuda and id(p) == before[name][0] and torch.equal(p.data.cpu(), before[name][1])


def test_fp8_takes_16_bit_weights_and_no_tile(pairs: Pairs, folders: dict[str, Path], torchao: SimpleNamespace) -> None:
    _, gpu = pairs["dit"]
    with pytest.raises(NotMeasured, match="--dtype bfloat16"), build("fp8", Path()).attach(gpu):
        pass
    low = half(folders["dit"])
    low.blocks[0].attn1.to_q.weight.data = torch.zeros(128, 128, dtype=torch.bfloat16, device="cuda")
    with build("fp8", Path()).attach(low):
        assert low.blocks[0].attn1.to_q not in torchao.layers and low.blocks[0].attn1.to_k in torchao.layers


def test_eager_int8_is_not_measured_on_a_gpu(pairs: Pairs, folders: dict[str, Path], torchao: SimpleNamespace) -> None:
    """torchao prints every input of an eager layer; `--compile` makes images with eager blocks, and times compiled ones."""
    _, gpu = pairs["dit"]
    with pytest.raises(NotMeasured, match=r"int8\+compile"), build("int8", Path()).attach(gpu):
        pass
    with build("int8", Path()).attach(half(folders["dit"], compile=True)):
        assert torchao.layers
