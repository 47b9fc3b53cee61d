"""FLUX.2 as it is published: the processor of dev, the index of klein, its conversations, and a hub that gates it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import load_file, save_file

from harness.config.spec import build_spec
from harness.errors import ArtifactError, UsageError
from harness.models.loading import find_plan, load_pipeline
from harness.sampling.captions import caption_notes
from studies.families import CASES, Case
from tests.fake_hub import FakeHub, serve

NAMES = ("FLUX.2-dev", "FLUX.2-klein", "FLUX.2-klein-base")
LONG = "a red cat and a blue dog " * 2


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Every checkpoint as toy/NAME, in the shape in which it is published; the saved ones lie in tmp_path / NAME."""
    for name in NAMES:
        saved = CASES[name].save(tmp_path / name)
        published = Path(shutil.copytree(saved, tmp_path / "hub" / "models" / "toy" / name))
        in_shards(published / "transformer")
    as_processor(tmp_path / "hub" / "models" / "toy" / "FLUX.2-dev")
    with serve(tmp_path / "hub", monkeypatch) as hub:
        yield hub


def in_shards(folder: Path) -> None:
    """A large transformer comes in several files."""
    name = "diffusion_pytorch_model"
    weights = load_file(folder / f"{name}.safetensors")
    pattern = name + "{suffix}.safetensors"
    split = split_torch_state_dict_into_shards(weights, filename_pattern=pattern, max_shard_size=40_000)
    (folder / f"{name}.safetensors").unlink()
    for file, keys in split.filename_to_tensors.items():
        save_file({key: weights[key] for key in keys}, folder / file, metadata={"format": "pt"})
    assert len(split.filename_to_tensors) > 1
    index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
    (folder / f"{name}.safetensors.index.json").write_text(json.dumps(index))


def as_processor(folder: Path) -> None:
    """FLUX.2-dev's tokenizer is part of a processor of texts and images, as AutoProcessor saves it."""
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"tokenizer": ["transformers", "PixtralProcessor"]}))
    images = {"image_processor_type": "PixtralImageProcessor", "patch_size": {"height": 14, "width": 14}}
    settings = {"processor_class": "PixtralProcessor", "image_processor": images, "patch_size": 14, "spatial_merge_size": 2}
    (folder / "tokenizer" / "processor_config.json").write_text(json.dumps(settings))


def image(case: Case, pipeline: str) -> torch.Tensor:
    """One image of a tiny pipeline at a path or on the hub."""
    return load_pipeline(spec(case, pipeline)).generate(["red cat"], 1, [0])


def spec(case: Case, pipeline: str, **changes: object) -> object:
    side = {"height": case.tiny.asked, "width": case.tiny.asked}
    told = {"name": "x", "task": "text", "prompts": "x", "methods": ["full"], "metrics": [], "device": "cpu", "precision": "fp32"}
    return build_spec(
        {**told, **side, "pipeline": pipeline, "steps": 2, "solver": "checkpoint", **case.settings, **changes}, "a test"
    )


@pytest.mark.families
@pytest.mark.parametrize("name", NAMES)
def test_a_published_folder_is_read_from_a_hub(hub: FakeHub, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    told = spec(case, f"hub:toy/{name}")
    assert find_plan(told).backbone.depth == 6  # type: ignore[arg-type]
    assert not any(".safetensors@" in file for file in hub.served)
    assert torch.equal(image(case, f"hub:toy/{name}"), image(case, str(tmp_path / name)))


@pytest.mark.families
def test_a_gated_checkpoint_says_what_to_do(hub: FakeHub) -> None:
    hub.gated.add("toy/FLUX.2-dev")
    with pytest.raises(ArtifactError, match=r"a gated repository.*accept its conditions"):
        find_plan(spec(CASES["FLUX.2-dev"], "hub:toy/FLUX.2-dev"))  # type: ignore[arg-type]


@pytest.mark.families
def test_how_it_is_guided_is_what_its_pipeline_does(tmp_path: Path) -> None:
    """Dev and a distilled klein call the transformer once a step, any other klein twice, whatever scale is asked for."""
    for name, calls in zip(NAMES, (1, 1, 2), strict=True):
        folder = CASES[name].save(tmp_path / name)
        pipeline = CASES[name].open(folder, guidance=3.0, steps=2)  # type: ignore[arg-type]
        with pipeline.counting() as counter:
            pipeline.generate(["red cat"], 0, [0])
        assert counter.rows == 2 * calls * 6 and pipeline.guidance.branches == calls


@pytest.mark.families
def test_what_it_does_not_use_is_refused(tmp_path: Path) -> None:
    for name, field in (("FLUX.2-dev", "true_guidance"), ("FLUX.2-klein-base", "negative_prompt")):
        folder = CASES[name].save(tmp_path / name)
        value: object = 2.0 if field == "true_guidance" else "ugly"
        with pytest.raises(UsageError, match=f"no {field} where FLUX.2"):
            find_plan(spec(CASES[name], str(folder), **{field: value}))  # type: ignore[arg-type]


@pytest.mark.families
@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_is_counted_with_the_conversation_around_it(tmp_path: Path, name: str) -> None:
    """Held against the text encoder: what is said to be cut changes nothing, and what is not changes the caption."""
    pipeline = CASES[name].open(CASES[name].save(tmp_path / name))  # type: ignore[arg-type]

    def embedded(prompt: str) -> torch.Tensor:
        layers = pipeline.family.arguments(pipeline, [prompt])["text_encoder_out_layers"]
        with torch.no_grad():
            told = {"max_sequence_length": pipeline.caption_tokens, "text_encoder_out_layers": layers}
            return pipeline.pipe.encode_prompt([prompt], device="cpu", **told)[0]  # type: ignore[no-any-return]

    assert not torch.equal(embedded("red cat"), embedded("red dog")) and caption_notes(pipeline, ["cat"]) == []
    who = "Mistral" if name == "FLUX.2-dev" else "Qwen3"
    assert caption_notes(pipeline, [LONG]) == [f"1 of 1 prompts is cut at 16 tokens by the {who} of text_encoder"]
    end = LONG[:-3] + "x"
    assert torch.equal(embedded(LONG), embedded(end)) == (
        name != "FLUX.2-dev" or pipeline.pipe.tokenizer.truncation_side == "right"
    )


@pytest.mark.parametrize(("side", "tokens"), [(512, 1024), (1024, 4096), (2048, 16384)])
def test_published_layers_and_shifts(side: int, tokens: int) -> None:
    from harness.models.families.flux2 import FAMILY, caption_layers
    from harness.models.families.flux2_klein import READ

    assert caption_layers({"text_config": {"num_hidden_layers": 40}}, (10, 20, 30)) == (10, 20, 30)
    assert caption_layers({"num_hidden_layers": 36}, READ) == (9, 18, 27) and caption_layers({"num_hidden_layers": 3}, READ) == (
        1,
        2,
        3,
    )
    for steps in (4, 50):
        assert FAMILY.mu({}, tokens, steps) == compute_empirical_mu((side // 16) ** 2, steps)
