"""Distilled rivals: a student's weights, steps, guidance and solver for the time of its row, and its teacher as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import save_file

from baselines.table import BASELINES
from baselines.third_party.distilled import Distilled
from baselines.third_party.lora import read_adapters
from harness.config.methods import parse_method
from harness.errors import ArtifactError, NotMeasured, UsageError
from harness.execution.identity import files_of
from harness.sampling.pipeline import Pipeline
from harness.training.calibration import find
from ilf_bench.testing import images, keeps_the_contract
from tests.conftest import open_pipeline

LAYERS = ("transformer_blocks.0.attn1.to_q", "transformer_blocks.3.ff.net.2")
RANK, ALPHA = 2, 4.0


def save_lora(pipeline: Pipeline, file: Path, form: str = "peft", **others: torch.Tensor) -> Path:
    """A random LoRA of two layers, strong enough to be seen."""
    torch.manual_seed(11)
    tensors: dict[str, torch.Tensor] = dict(others)
    for name in LAYERS:
        layer: Any = pipeline.transformer.get_submodule(name)
        down, up = torch.randn(RANK, layer.in_features), torch.randn(layer.out_features, RANK)
        if form == "peft":
            tensors |= {f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up}
        else:
            tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(ALPHA)}
    told = {"lora_adapter_metadata": json.dumps({"transformer.r": RANK, "transformer.lora_alpha": ALPHA})}
    save_file(tensors, file, metadata=told if form == "peft" else None)
    return file


@pytest.fixture
def lora(pipeline: Pipeline, tmp_path: Path) -> Path:
    return save_lora(pipeline, tmp_path / "turbo.safetensors")


@pytest.fixture
def student(folders: dict[str, Path], pipeline: Pipeline, tmp_path: Path) -> Path:
    """A pipeline like the teacher's with other weights and another scheduler."""
    other = open_pipeline(folders["dit" if pipeline.is_class_conditional else "pixart"])
    torch.manual_seed(12)
    for parameter in other.transformer.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    folder = tmp_path / ("dit" if pipeline.is_class_conditional else "pixart")
    other.pipe.scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    other.pipe.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("form", ["peft", "kohya"])
def test_a_lora_is_what_peft_would_add(pipeline: Pipeline, tmp_path: Path, form: str) -> None:
    """y = W x + scale (alpha / r) B (A x), written as peft runs it, in front of the layers."""
    file = save_lora(pipeline, tmp_path / "turbo.safetensors", form)
    hooks = []
    for name, adapter in read_adapters(file).items():
        assert adapter.factor == ALPHA / RANK

        def add(module: Any, args: Any, output: torch.Tensor, adapter: Any = adapter) -> torch.Tensor:
            return output + 0.5 * (ALPHA / RANK) * (args[0] @ adapter.down.T) @ adapter.up.T

        hooks.append(pipeline.transformer.get_submodule(name).register_forward_hook(add))
    with pipeline.sampling(steps=3):
        wanted = images(pipeline, (0, 1))
    for hook in hooks:
        hook.remove()
    with pipeline.sampling(steps=3):
        plain = images(pipeline, (0, 1))
    with Distilled(lora=str(file), steps=3, guidance=pipeline.guidance.scale, scale=0.5).attach(pipeline):
        found = images(pipeline, (0, 1))
    assert (found - wanted).abs().max() <= 1 and (found - plain).abs().max() > 8


def assert_same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """To one grey level in one value of a thousand: the same weights lie elsewhere in memory, which changes last bits."""
    assert (found - wanted).abs().max() <= 1 and (found != wanted).double().mean() <= 1e-3


def test_the_student_samples_as_a_pipeline_of_its_own_would(pipeline: Pipeline, student: Path) -> None:
    alone = open_pipeline(student, steps=2, guidance=1.0, solver="checkpoint")
    with Distilled(transformer=str(student), steps=2).attach(pipeline):
        assert_same(images(pipeline, (0, 1)), images(alone, (0, 1)))
        assert pipeline.plan().block_evaluations == alone.plan().block_evaluations == 12
    named = open_pipeline(student, steps=2, guidance=1.5, solver="unipc")
    with Distilled(transformer=str(student / "transformer"), steps=2, guidance=1.5, solver="unipc").attach(pipeline):
        assert_same(images(pipeline, (0, 1)), images(named, (0, 1)))


@pytest.mark.parametrize("more", ["", "+fora:2", "+magcache:9:retention=0"])
def test_it_keeps_the_contract(pipeline: Pipeline, lora: Path, student: Path, more: str) -> None:
    keeps_the_contract(pipeline, parse_method(f"distilled:lora={lora}:steps=3{more}", BASELINES))
    if not more:
        keeps_the_contract(pipeline, parse_method(f"distilled:transformer={student}:steps=2", BASELINES))


def test_its_cost_is_known_before(pipeline: Pipeline, lora: Path) -> None:
    plan = Distilled(lora=str(lora), steps=3).plan(pipeline.plan())
    assert plan.block_evaluations == 3 * 6 and plan.guidance.branches == 1
    spent = Distilled(lora=str(lora)).upfront_cost(pipeline.backbone)
    assert spent.extra_parameters == sum(adapter.parameters for adapter in read_adapters(lora).values()) and spent.training_s == 0
    (lora.parent / "training.json").write_text('{"seconds": 7.0}')
    assert Distilled(lora=str(lora)).upfront_cost(pipeline.backbone).training_s == 7


def test_what_lies_in_the_file_is_part_of_what_it_is(pipeline: Pipeline, lora: Path) -> None:
    """Another file of the same name is another row, and a calibration of the teacher is none of the student's."""
    method, plan = Distilled(lora=str(lora), steps=4, guidance=2.0), pipeline.plan()
    assert lora in set(files_of(method, plan))
    cached = parse_method("magcache:0.5", BASELINES)
    with cached.attach(pipeline):
        pass
    assert find(cached, plan, "magcache") is not None and find(cached, method.plan(plan), "magcache") is None
    weights = method.plan(plan).backbone.weights
    save_lora(pipeline, lora, "kohya")
    assert method.plan(plan).backbone.weights != weights


def test_what_it_cannot_read_is_refused(pipeline: Pipeline, lora: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither"):
        Distilled()
    with pytest.raises(UsageError, match="both"):
        Distilled(lora="a", transformer="b")
    for missing in (Distilled(lora="nowhere.safetensors"), Distilled(transformer="nowhere")):
        with pytest.raises(UsageError, match="nowhere"):
            missing.plan(pipeline.plan())
    other = folders["pixart" if pipeline.is_class_conditional else "dit"]
    with pytest.raises(NotMeasured, match="a student with"):
        Distilled(transformer=str(other)).plan(pipeline.plan())
    small = folders["dit" if pipeline.is_class_conditional else "pixart"].with_name(
        "dit-small" if pipeline.is_class_conditional else "pixart-small"
    )
    with pytest.raises(NotMeasured, match=r"num_layers|num_attention_heads|cross_attention_dim"):
        Distilled(transformer=str(small)).plan(pipeline.plan())


@pytest.mark.parametrize(
    ("name", "shape", "why"),
    [
        ("text_encoder.layer.lora_A.weight", (2, 16), "two matrices of one rank"),
        ("transformer.pos_embed.bias", (16,), "matrices of a LoRA"),
        ("transformer.transformer_blocks.0.attn1.to_q.lora_magnitude_vector", (16,), "matrices of a LoRA"),
    ],
)
def test_nothing_in_a_file_is_left_out_in_silence(
    pipeline: Pipeline, tmp_path: Path, name: str, shape: tuple[int, ...], why: str
) -> None:
    file = save_lora(pipeline, tmp_path / "odd.safetensors", **{name: torch.ones(shape)})
    with pytest.raises(ArtifactError, match=why), Distilled(lora=str(file)).attach(pipeline):
        pass


def test_a_lora_of_another_model_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    odd = {"x.lora_A.weight": torch.ones(1, 3), "x.lora_B.weight": torch.ones(3, 1)}
    file = save_lora(pipeline, tmp_path / "odd.safetensors", **odd)
    plain = images(pipeline, (0,))
    with pytest.raises(ArtifactError, match="no such layer"), Distilled(lora=str(file)).attach(pipeline):
        pass
    assert torch.equal(images(pipeline, (0,)), plain)
