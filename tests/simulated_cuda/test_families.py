"""CUDA graphs on every family: blocks of one stream, of two, and those that end one, each with the conditioning of its kind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ilf_bench.testing import EVERY, images
from studies.families import CASES
from tests.methods import build


@pytest.mark.parametrize("name", CASES)
def test_cuda_graphs_give_the_same_images(name: str, tmp_path: Path) -> None:
    pipeline = CASES[name].open(CASES[name].save(tmp_path / "model"), device="cuda")
    for text in ("full", "deepcache:interval=2:first=1:last=4"):
        with build(text, Path()).attach(pipeline):
            plain = images(pipeline, EVERY), images(pipeline, [1])
        graphs = "cuda-graphs" if text == "full" else f"{text}+cuda-graphs"
        with build(graphs, Path()).attach(pipeline):
            for _ in range(2):
                assert torch.equal(images(pipeline, EVERY), plain[0]) and torch.equal(images(pipeline, [1]), plain[1])
