"""Random pipelines of true architecture: the published shapes, equal weights from equal seeds, and what such a run reports."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from baselines.steps import Full
from harness.config.spec import build_spec, load_spec, preset_names
from harness.cost.guidance import Guidance
from harness.errors import UsageError
from harness.models.architecture import NOTE, Architecture
from harness.models.loading import load_pipeline
from harness.models.random_weights import DTYPES, architectures, describe, find_architecture
from harness.results import REFERENCE, Failure
from harness.sampling.pipeline import Pipeline
from harness.storage.records import read_run
from ilf.untrained import UntrainedIlf
from ilf_bench.cli import main

# The autoencoder of Stable Diffusion has 83,653,863 parameters; the float32 file of PixArt-XL-2-1024-MS has this many bytes.
VAE_PARAMETERS = 83_653_863
PIXART_1024_BYTES = 2_445_465_672
FULL_PRESETS = [name for name in preset_names() if name.startswith(("dit-", "pixart-")) and name != "pixart-lcm-1024"]


ARCHITECTURES = {**architectures("class"), **architectures("text")}


def is_told(architecture: Architecture) -> bool:
    """Whether it has additional conditions."""
    return bool(architecture.configs["transformer"].get("use_additional_conditions"))


WITHOUT_GUIDANCE = ("flux.1-dev", "flux.1-schnell", "flux.2-dev", "flux.2-klein-4b")  # dev reads its scale as an embedding


def shrunk(architecture: Architecture) -> Architecture:
    """The same kind of pipeline, small; a side of 128 is what makes diffusers pass the additional conditions of alpha-1024."""
    family, _ = describe(architecture)
    small = replace(architecture.shrunk(family.tiny).cut(3), cut_from=0, remarks=architecture.remarks)
    if "sample_size" not in family.tiny.parts["transformer"] or "sample_size" not in family.tiny.parts["vae"]:
        return small
    side = 128 if is_told(architecture) else 8
    return small.having("transformer", sample_size=side).having("vae", sample_size=2 * side)


def prompt(architecture: Architecture) -> list[str]:
    return ["a <b>cat</b>, 3 dögs"] if architecture.limits else ["207"]


def patched_to(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """``random:NAME`` is small."""
    family, _ = describe(ARCHITECTURES[name])
    monkeypatch.setitem(family.architectures, name, shrunk(ARCHITECTURES[name]))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_samples_and_its_cost_is_the_formula(name: str, dtype: torch.dtype) -> None:
    architecture = shrunk(ARCHITECTURES[name])
    side = {"height": architecture.asked, "width": architecture.asked}
    pipeline = Pipeline(architecture.build(dtype), steps=2, guidance=4.5, solver="checkpoint", **side)
    with pipeline.counting() as counter:
        images = pipeline.generate(prompt(architecture), 1, [0])
    assert images.shape == (1, 3, *pipeline.image_size) and 5 < images.float().std() < 125
    branches = 1 if name in WITHOUT_GUIDANCE else 2
    assert counter.rows == pipeline.plan().block_evaluations == 2 * branches * 3


@pytest.mark.parametrize("name", ["dit-xl-2-256", "pixart-sigma-512"])
def test_every_block_changes_its_input_and_seeds_repeat(name: str) -> None:
    small = shrunk(ARCHITECTURES[name])
    pipe, again, other = small.build(), small.build(), small.build(seed=3)
    for key, value in pipe.transformer.state_dict().items():
        assert torch.equal(value, again.transformer.state_dict()[key])
    key = "transformer_blocks.0.attn1.to_q.weight"
    assert not torch.equal(pipe.transformer.state_dict()[key], other.transformer.state_dict()[key])
    changes: list[float] = []
    for block in pipe.transformer.transformer_blocks:
        block.register_forward_hook(lambda m, args, kwargs, out: changes.append(float((out - args[0]).std())), with_kwargs=True)
    Pipeline(pipe, steps=1, precision="fp32").generate(prompt(ARCHITECTURES[name]), 1, [0])
    assert len(changes) == 3 and min(changes) > 0.01


@pytest.mark.parametrize("name", ["dit-xl-2-256", "pixart-alpha-512", "pixart-alpha-1024", "pixart-sigma-2k"])
def test_published_shapes(name: str) -> None:
    transformer: Any = ARCHITECTURES[name].empty("transformer")
    vae = ARCHITECTURES[name].empty("vae")
    assert sum(p.numel() for p in vae.parameters()) == VAE_PARAMETERS
    config = transformer.config
    assert (config.num_layers, config.num_attention_heads, config.attention_head_dim, config.out_channels) == (28, 16, 72, 8)
    assert transformer.config.sample_size * 8 == {"dit-xl-2-256": 256, "pixart-sigma-2k": 2048}.get(name) or int(
        name[-4:].strip("-")
    )
    if name == "pixart-alpha-1024":
        size = 4 * sum(value.numel() for value in transformer.state_dict().values())
        assert 0 <= PIXART_1024_BYTES - size < 200_000  # the rest is the file's header


def num_layers(one: Architecture) -> str:
    """What a family's transformer calls its number of blocks."""
    return next(name for name in ("num_layers", "n_layers") if name in one.configs["transformer"])


def test_only_alpha_1024_is_told_its_resolution() -> None:
    assert all(num_layers(one) for one in ARCHITECTURES.values())
    cut = {name: one.having("transformer", **{num_layers(one): 1}) for name, one in ARCHITECTURES.items() if one.limits}
    told = {name: getattr(one.empty("transformer"), "use_additional_conditions", False) for name, one in cut.items()}
    assert [name for name, value in told.items() if value] == ["pixart-alpha-1024"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_saved_in_the_published_format_it_loads_to_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    for name, task in (("dit-xl-2-256", "class"), ("pixart-sigma-512", "text")):
        patched_to(monkeypatch, name)
        folder = tmp_path / name
        random = find_architecture(f"random:{name}", task).build(DTYPES[dtype])
        random.save_pretrained(folder, safe_serialization=True)
        assert list(folder.glob("transformer/*.safetensors")) and (folder / "model_index.json").exists()
        fields = {"name": "x", "task": task, "prompts": "x", "methods": ["full"], "metrics": [], "steps": 2, "dtype": dtype}
        fields |= {"device": "cpu", "precision": "fp32" if dtype == "float32" else "auto"}
        images = [
            load_pipeline(build_spec(fields | {"pipeline": pipeline}, "test")).generate(prompt(ARCHITECTURES[name]), 1, [0])
            for pipeline in (str(folder), f"random:{name}")
        ]
        torch.testing.assert_close(images[0], images[1], rtol=0, atol=0)


def test_unknown_or_foreign_architecture() -> None:
    for name in ("random:dit-xl-2-128", "random:pixart-alpha-512", "random:"):
        with pytest.raises(UsageError, match="random:dit-xl-2-256, random:dit-xl-2-512"):
            find_architecture(name, "class")


def test_a_random_run_reports_speed_and_cost_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    patched_to(monkeypatch, "pixart-alpha-512")
    out, options = str(tmp_path / "runs"), ["--device", "cpu", "--samples", "2", "--steps", "4"]
    (tmp_path / "short.yaml").write_text(
        yaml.safe_dump(
            yaml.safe_load(Path("presets/pixart-alpha-512.yaml").read_text())
            | {
                "timing": {"rounds": 1, "batch": 1, "warmup": 0},
                "dtype": "float32",
                "precision": "fp32",
                "batch": 2,
                "methods": ["full", "steps:2", "ilf"],
                "metrics": ["fid", "psnr"],
                "prompts": "presets/speed-prompts.txt",
            }
        )
    )
    assert main(["run", str(tmp_path / "short.yaml"), "--pipeline", "random:pixart-alpha-512", "--out", out, *options]) == 0
    said = capsys.readouterr().out
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    run = read_run(folder)
    looped = 8 * (2 * 3 + 1 + 1)  # eight steps, three blocks on both branches; one looped, and the module, on one of them
    assert [method.block_evaluations for method in run.methods] == [24.0, 12.0, looped]
    assert {sample.method for sample in run.timings} == {"full", "full (A/A)", "2 steps", "ilf", REFERENCE}
    assert {key[1] for key in run.scores} == {"fid", "psnr"}
    for (label, _), score in run.scores.items():
        assert isinstance(score, Failure)
        assert "ilf-bench train" in score.reason if label == "ilf" else score.reason == "NOT-MEASURED: random weights"
    assert "ilf: NOT-MEASURED" in said and "of device time at" in said and "measured on cpu" in said and "of disk" in said
    assert not run.failed_methods and run.methods[2].extra_parameters > 0
    (anchor,) = run.environment["anchors"]
    assert anchor["value"] == 92.03 and "project page" in anchor["source"] and run.environment["image_pixels"] == 16 * 16
    assert run.environment["notes"][0] == NOTE and "not timed as published" in run.environment["notes"][1]
    assert run.environment["weights_dtype"] == "float32" and run.environment["prompts"]["count"] == 16
    assert "anchors" not in json.loads((folder / "spec.json").read_text())


@pytest.mark.parametrize("name", FULL_PRESETS)
def test_every_preset_of_the_full_tier_is_whole(name: str) -> None:
    chosen = load_spec(name)
    architecture = find_architecture("random:" + name.replace("dit-xl-", "dit-xl-2-"), chosen.task)
    assert chosen.pipeline.startswith("hub:") and chosen.steps == 20 and chosen.dtype == "float16"
    assert chosen.guidance == (1.5 if chosen.task == "class" else 4.5)
    assert list(chosen.methods) == ["full", "steps:12", "steps:10", "deepcache:interval=3", "ilf"]
    assert chosen.anchors or name in ("pixart-alpha-256", "pixart-sigma-2k")
    size = {"256": 32, "512": 64, "1024": 128, "2k": 256}[name.rsplit("-", 1)[1]]
    assert architecture.configs["transformer"]["sample_size"] == size and architecture.side == 8 * size


def test_notes_do_not_change_what_an_experiment_is() -> None:
    chosen = load_spec("pixart-sigma-2k")
    assert chosen.model_copy(update={"memory_gib": None, "anchors": ()}).digest() == chosen.digest()
    assert load_spec("tiny-text").identity()["dtype"] == "float32" and chosen.identity()["dtype"] == "float16"


def test_the_cache_of_the_presets_costs_326_of_560() -> None:
    from harness.config.methods import parse_method
    from harness.cost.plan import Backbone, Plan
    from ilf_bench.registry import BUILT_IN

    plan = Plan.full(Backbone(28, None), 20, Guidance(4.5))
    costs = [parse_method(text, BUILT_IN).plan(plan).block_evaluations / 2 for text in ("full", "deepcache:interval=3")]
    assert costs == [560, 326]


def test_one_step_of_pixart_alpha_is_refused() -> None:
    pipe = shrunk(ARCHITECTURES["pixart-alpha-256"]).build()
    with pytest.raises(UsageError, match="at least 2 steps"):
        Pipeline(pipe, steps=1, precision="fp32").generate(["cat"], 1, [0])


def full_size(name: str, device: str, side: int) -> None:
    """Two steps of one image: finite, of the published size, and as many block evaluations as the formula says."""
    architecture = ARCHITECTURES[name]
    pipe = architecture.build(torch.bfloat16)
    pipeline = Pipeline(pipe, steps=2, guidance=4.5, solver="checkpoint", device=device)
    for method in (Full(), UntrainedIlf(steps=2, feedback="all", form="ours")):
        with pipeline.counting() as counter, method.attach(pipeline):
            images = pipeline.generate(prompt(architecture), 1000, [0])
        assert images.shape == (1, 3, side, side) and images.float().std() > 5
        assert (
            counter.rows
            == method.plan(pipeline.plan()).block_evaluations
            == (2 * 2 * 28 if method == Full() else 2 * (2 * 28 + 2))
        )


SIDES = {name: architecture.side for name, architecture in ARCHITECTURES.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, side in SIDES.items() if side <= 512])
def test_full_size_on_a_cpu(name: str) -> None:
    full_size(name, "cpu", SIDES[name])


@pytest.mark.gpu
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_full_size_on_a_gpu(name: str) -> None:
    full_size(name, "cuda", SIDES[name])


@pytest.mark.parametrize("name", ["dit-xl-2-256", "pixart-alpha-256"])
def test_the_true_geometry_at_reduced_depth(name: str) -> None:
    """Width, heads, tokens and text width as published; two blocks, and a small autoencoder, whose cost is not of interest."""
    task = "text" if ARCHITECTURES[name].limits else "class"
    cut = find_architecture(f"random:{name}:layers=2", task).having("vae", block_out_channels=(8, 8, 8, 8), norm_num_groups=2)
    architecture = cut.having("text_encoder", num_layers=1) if task == "text" else cut
    pipeline = Pipeline(architecture.build(torch.bfloat16), steps=2, guidance=4.5, solver="checkpoint")
    with pipeline.counting() as counter:
        images = pipeline.generate(prompt(architecture), 1, [0])
    assert images.shape == (1, 3, 256, 256) and counter.rows == pipeline.plan().block_evaluations == 2 * 2 * 2
    assert pipeline.plan().backbone.geometry.width == 1152 and pipeline.plan().backbone.geometry.tokens == 256


def test_depth_as_an_option() -> None:
    cut = find_architecture("random:dit-xl-2-512:layers=5", "class")
    assert cut.layers == 5 and "5 blocks and the published one 28" in cut.notes[-1]
    assert ARCHITECTURES["dit-xl-2-512"].notes == (NOTE,)
    for wrong in ("layers=0", "layers=x", "depth=3", "layers="):
        with pytest.raises(UsageError, match="layers=N"):
            find_architecture(f"random:dit-xl-2-512:{wrong}", "class")
