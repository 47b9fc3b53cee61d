"""Compilation and CUDA graphs of every family's blocks: traced by dynamo and run by eager kernels, by inductor, and on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.sampling import compiling
from ilf_bench.testing import EVERY, images
from studies.families import CASES, Opened
from tests.methods import build

TEXTS = ("compile", "compile+first-block:9", "compile+ilf:checkpoint={ilf}")


@pytest.mark.families
@pytest.mark.parametrize("name", CASES)
def test_every_block_is_one_graph_and_computes_the_same(
    families: dict[str, Opened], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph break is an error (``fullgraph``). With eager kernels the images are equal bit for bit."""
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    torch._dynamo.reset()
    one = families[name]
    for text in TEXTS:
        with one.method(text.removeprefix("compile+") if "+" in text else "full").attach(one.pipeline):
            plain = images(one.pipeline, EVERY)
        with one.method(text).attach(one.pipeline):
            assert torch.equal(images(one.pipeline, EVERY), plain)
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_inductor_compiles_every_block(families: dict[str, Opened], name: str) -> None:
    torch._dynamo.reset()
    pipeline = families[name].pipeline
    with pipeline.sampling(steps=2):
        plain = images(pipeline, [0])
        with build("compile", Path()).attach(pipeline):
            assert (images(pipeline, [0]) - plain).abs().max() <= 1
    torch._dynamo.reset()


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("text", ["compile", "cuda-graphs"])
def test_on_a_gpu_images_are_the_eager_ones(families: dict[str, Opened], name: str, text: str) -> None:
    folder = families[name].pipeline.folder
    assert folder is not None
    pipeline = CASES[name].open(folder, device="cuda")
    plain = images(pipeline, EVERY)
    with build(text, Path()).attach(pipeline):
        assert all((images(pipeline, EVERY) - plain).abs().max() <= 1 for _ in range(2))
