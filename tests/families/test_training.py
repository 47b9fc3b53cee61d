"""A training step of ILF on every family, and low bits where torchao is installed: what has no cell in the document's table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.training.fit import TrainSettings
from harness.training.trajectories import record, union_grid
from ilf.settings import IlfSettings
from ilf.train import build_module, train_module
from ilf_bench.testing import EVERY, images, method_clauses
from studies.families import CASES, WORDS, Opened, why_not

STEP = TrainSettings(steps=2, lr=1e-2, warmup=1, ema=0.5, checkpoint_every=1)


@pytest.mark.families
@pytest.mark.parametrize("name", CASES)
def test_ilf_trains_a_step_and_leaves_the_backbone(families: dict[str, Opened], name: str, tmp_path: Path) -> None:
    """Two steps, so that what the first has changed is trained on once."""
    pipeline = families[name].pipeline
    settings = IlfSettings(loop=(3, 3), grids=(2,), steps=2, batch=3, rounds=1, runs=3, seed=7, guidance_distilled="none")
    before = {key: value.clone() for key, value in pipeline.transformer.state_dict().items()}
    data = record(pipeline, WORDS, settings.seed, union_grid(settings.grids, settings.power, widest_gap=200), batch=3)
    module, made = train_module(pipeline, data, WORDS, settings, tmp_path / "work.pt", STEP)
    torch.manual_seed(STEP.seed)
    untrained = build_module(pipeline, settings).state_dict()
    moved = [key for key, value in module.state_dict().items() if not torch.equal(value, untrained[key])]
    assert moved and made.seconds > 0 and all(torch.isfinite(value).all() for value in module.state_dict().values())
    after = pipeline.transformer.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.families
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("text", ["int8:float", "int8:float+fora:2"])
def test_int8_weights_keep_the_contract(families: dict[str, Opened], name: str, text: str) -> None:
    pytest.importorskip("torchao")
    assert why_not(families[name], text) == ""


@pytest.mark.families
@pytest.mark.parametrize("name", CASES)
def test_int8_inputs_keep_the_contract_but_for_a_few_grey_levels(families: dict[str, Opened], name: str) -> None:
    """In families of two streams, INT8 inputs differ between batch sizes: by up to 3 grey levels where INT8 itself costs 6."""
    pytest.importorskip("torchao")
    one = families[name]
    broken = {clause.promise for clause in method_clauses(one.pipeline, one.method("int8")) if clause.fault}
    assert broken <= {"makes each image independent of its neighbours"}
    with one.method("int8").attach(one.pipeline):
        together, alone = images(one.pipeline, EVERY), torch.cat([images(one.pipeline, [i]) for i in EVERY])
    assert (together - alone).abs().max() <= 4


@pytest.mark.families
@pytest.mark.parametrize("name", CASES)
def test_fp8_says_what_it_needs(families: dict[str, Opened], name: str) -> None:
    pytest.importorskip("torchao")
    assert "compute capability 8.9" in why_not(families[name], "fp8")
