"""Distilled rivals on flow matching: a LoRA, a student's weights in the place of its teacher's, and one of another kind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from baselines.table import BASELINES
from harness.config.methods import parse_method
from harness.errors import NotMeasured
from ilf_bench.testing import images, keeps_the_contract
from studies.families import CASES, Opened

pytestmark = pytest.mark.families
LAYERS = {  # of each kind of block
    "SD3": ("transformer_blocks.0.attn.add_q_proj", "transformer_blocks.3.ff.net.2"),
    "FLUX.1-dev": ("transformer_blocks.0.attn.to_q", "single_transformer_blocks.1.proj_mlp"),
    "Qwen-Image": ("transformer_blocks.0.attn.to_q", "transformer_blocks.2.img_mlp.net.2"),
}


def save_lora(transformer: torch.nn.Module, layers: tuple[str, ...], file: Path) -> Path:
    """A random LoRA of some layers, strong enough to be seen."""
    torch.manual_seed(11)
    tensors = {}
    for name in layers:
        outputs, inputs = transformer.get_submodule(name).weight.shape  # type: ignore[misc]
        tensors[f"transformer.{name}.lora_A.weight"] = torch.randn(2, inputs)
        tensors[f"transformer.{name}.lora_B.weight"] = torch.randn(outputs, 2)
    save_file(tensors, file)
    return file


@pytest.mark.parametrize("name", LAYERS)
def test_a_lora_keeps_the_contract(families: dict[str, Opened], name: str, tmp_path: Path) -> None:
    pipeline = families[name].pipeline
    file = save_lora(pipeline.transformer, LAYERS[name], tmp_path / "turbo.safetensors")
    told = pipeline.guidance.told
    text = f"distilled:lora={file}:steps=2:guidance={1.0 if told is None else told:g}"
    for more in ("", "+fora:2"):
        keeps_the_contract(pipeline, parse_method(text + more, BASELINES))
    plan = parse_method(text, BASELINES).plan(pipeline.plan())
    assert plan.block_evaluations == 2 * len(pipeline.blocks) and plan.guidance.branches == 1


@pytest.mark.parametrize("name", LAYERS)
def test_a_student_samples_as_a_pipeline_of_its_own_would(families: dict[str, Opened], name: str, tmp_path: Path) -> None:
    case, pipeline = CASES[name], families[name].pipeline
    student = case.tiny.build(seed=9)
    student.save_pretrained(tmp_path / "student")
    parts = {key: part for key, part in pipeline.pipe.components.items() if key not in ("transformer", "scheduler")}
    alone_pipe = type(pipeline.pipe)(**parts, transformer=student.transformer, scheduler=student.scheduler)
    alone_pipe.save_pretrained(tmp_path / "alone")
    scale = {"guidance": 1.0} if pipeline.guidance.told is None else {}
    alone = case.open(tmp_path / "alone", steps=2, **scale)
    told = pipeline.guidance.told or 1.0
    method = parse_method(f"distilled:transformer={tmp_path / 'student'}:steps=2:guidance={told:g}", BASELINES)
    wanted, plain = images(alone, (0, 1)), images(pipeline, (0, 1))
    with method.attach(pipeline):
        found = images(pipeline, (0, 1))
    assert (found - wanted).abs().max() <= 1 < (found - plain).abs().max()


def test_schnell_is_no_student_in_the_place_of_dev(families: dict[str, Opened]) -> None:
    """It is not told its guidance, so it has other weights: two runs, compared with each other."""
    schnell, dev = families["FLUX.1-schnell"].pipeline, families["FLUX.1-dev"].pipeline
    method = parse_method(f"distilled:transformer={schnell.folder}:steps=2", BASELINES)
    with pytest.raises(NotMeasured, match="guidance_embeds True") as refused:
        method.plan(dev.plan())
    assert "a pipeline of its own" in str(refused.value)
    keeps_the_contract(schnell, method)
