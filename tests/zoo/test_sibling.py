"""The fine-tuned sibling of tiny-sd3: a low-rank change, merged into the weights of a pipeline that loads like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch import nn
from torch.nn.utils import parametrize

from harness.paths import ROOT
from zoo.recipes.sibling import RANK, LowRank, build_sibling


def test_a_change_starts_at_zero_and_has_its_rank() -> None:
    torch.manual_seed(0)
    layer, given = nn.Linear(20, 30), torch.randn(4, 20)
    before, weight = layer(given), layer.weight.detach().clone()
    parametrize.register_parametrization(layer, "weight", LowRank(layer.weight))
    assert torch.equal(layer(given), before)
    nn.init.normal_(layer.parametrizations.weight[0].up)
    changed = layer(given)
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    assert torch.allclose(layer(given), changed) and not torch.allclose(changed, before)
    assert torch.linalg.matrix_rank(layer.weight - weight) == RANK and set(dict(layer.named_parameters())) == {"weight", "bias"}


@pytest.mark.slow
def test_the_sibling_is_a_pipeline_whose_blocks_alone_differ(tmp_path: Path) -> None:
    build_sibling(tmp_path / "work", tmp_path / "tiny-sd3-grey", steps=2)
    sibling = SD3Transformer2DModel.from_pretrained(tmp_path / "tiny-sd3-grey" / "transformer").state_dict()
    original = SD3Transformer2DModel.from_pretrained(ROOT / "zoo" / "tiny-sd3" / "transformer").state_dict()
    assert sibling.keys() == original.keys()
    changed = {name for name, weight in sibling.items() if not torch.equal(weight, original[name])}
    assert changed and all(name.startswith("transformer_blocks.") and name.endswith(".weight") for name in changed)
    assert not (tmp_path / "tiny-sd3-grey" / "ilf").exists() and "zoo.recipes.sibling" in (
        tmp_path / "tiny-sd3-grey" / "README.md"
    ).read_text(encoding="utf-8")
