"""The bundled models: complete, small, of the stated quality, and loadable by plain diffusers."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from baselines.learned.train import TRAININGS
from baselines.t_stitch import check_fits, load_sibling
from baselines.table import BASELINES
from harness.config.methods import parse_method
from harness.config.spec import load_spec
from harness.models.loading import find_plan
from harness.paths import ROOT
from harness.results import Score
from harness.storage.records import read_run
from ilf_bench.cli import main
from zoo.recipes import digits, emoji

ZOO = ROOT / "zoo"
MODELS = {"tiny-dit": "tiny-class", "tiny-pixart": "tiny-text", "tiny-sd3": "tiny-flow"}  # and their presets
# Of 6 steps with feedback: 12 blocks, the last one again and the module's, on both branches. An SD3's last block costs less.
EVALUATIONS = {"tiny-class": 156, "tiny-text": 156, "tiny-flow": 151.98046875}


def test_the_whole_zoo_is_at_most_50_mb() -> None:
    """As git stores it: each file compressed, but for what a recipe built and git ignores."""
    ignored = [ROOT / line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if line.startswith("/zoo/")]
    there = [p for folder in ZOO.iterdir() if folder.is_dir() for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc"]
    files = [p for p in there if not any(p.is_relative_to(folder) for folder in ignored)]
    assert 5e6 < sum(len(zlib.compress(p.read_bytes())) for p in files) <= 50e6
    assert not [p for p in files if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")], "only safetensors"


@pytest.mark.parametrize("name", [*MODELS, "scorers"])
def test_quality_bars_were_measured_and_met(name: str) -> None:
    quality = json.loads((ZOO / name / "quality.json").read_text())
    assert quality["passed"] is True
    card = (ZOO / name / "README.md").read_text()
    assert "licence" in card and "zoo.recipes.build" in card and "passed" in card


@pytest.mark.parametrize("name", MODELS)
def test_plain_diffusers_loads_the_folder(name: str) -> None:
    pipe = DiffusionPipeline.from_pretrained(str(ZOO / name), local_files_only=True)
    assert len(pipe.transformer.transformer_blocks) >= 12
    for form in ("ilf",) if name == "tiny-sd3" else ("ilf", "ilf-adapter", "ilf-paper"):
        config = json.loads((ZOO / name / form / "config.json").read_text())["settings"]
        assert config["inner_pass"] is (form != "ilf-adapter") and config["context"] is (form != "ilf-paper")


SMALL = sorted(path.name for path in ZOO.glob("*-small"))


@pytest.mark.parametrize("name", SMALL)
def test_a_small_sibling_fits_its_large_one_and_has_a_card(name: str) -> None:
    assert sum(p.stat().st_size for p in (ZOO / name).rglob("*")) < 4e6
    assert "licence" in (ZOO / name / "README.md").read_text()
    large = DiffusionPipeline.from_pretrained(str(ZOO / name.removesuffix("-small")), local_files_only=True)
    small = load_sibling(ZOO / name / "transformer")
    check_fits(small, large.transformer, ZOO / name)
    assert sum(p.numel() for p in small.parameters()) < 0.4 * sum(p.numel() for p in large.transformer.parameters())


LEARNED = sorted((model, name) for model in MODELS for name in TRAININGS if (ZOO / model / name).is_dir())


@pytest.mark.parametrize(("model", "name"), LEARNED)
def test_a_learned_rival_states_what_it_cost(model: str, name: str) -> None:
    text = next((text for text in load_spec(MODELS[model]).methods if text.startswith(f"{name}:")), name)
    method: Any = parse_method(text, BASELINES)
    plan = method.plan(find_plan(load_spec(MODELS[model])))
    assert plan.block_evaluations < 480 or not plan.exact
    assert method.upfront_cost(plan.backbone).training_s > 10


@pytest.mark.parametrize("name", ["tiny-pixart", "tiny-sd3"])
def test_prompts_of_the_text_presets_were_held_out(name: str) -> None:
    held_out = (ZOO / name / "prompts-held-out.txt").read_text().splitlines()
    train = (ZOO / name / "prompts-train.txt").read_text().splitlines()
    assert not set(held_out) & set(train)
    assert sorted(held_out + train) == sorted(emoji.captions()) and len(held_out) == 74
    assert load_spec(MODELS[name]).prompts == f"zoo/{name}/prompts-held-out.txt"
    recipe = json.loads((ZOO / name / "ilf" / "recipe.json").read_text())
    assert recipe["prompts"].endswith("prompts-train.txt")


@pytest.mark.parametrize("preset", MODELS.values())
def test_default_presets_keep_the_issue_of_scale(preset: str) -> None:
    spec = load_spec(preset)
    assert spec.samples >= 256 and spec.timing.rounds >= 8
    assert spec.samples % spec.batch == 0, "the last chunk is as large as the others, so every image has the same kernels"


@pytest.mark.parametrize("preset", MODELS.values())
def test_a_bundled_preset_runs_with_all_four_scores(preset: str, tmp_path: Path) -> None:
    arguments = ["--methods", "full,steps:4,ilf:steps=6", "--metrics", "clip_score,clip_iqa,image_reward,feature_distance"]
    assert main(["run", preset, *arguments, "--samples", "12", "--rounds", "1", "--out", str(tmp_path)]) == 0
    (folder,) = tmp_path.glob(f"{preset}-*")
    run = read_run(folder)
    assert len(run.scores) == 3 * 4
    for score in run.scores.values():
        assert isinstance(score, Score)
        assert score.tiny and "tiny" in score.title, "a bundled scorer is always labelled"
    ilf = next(m for m in run.methods if m.label == "ilf(6 steps)")
    assert ilf.block_evaluations == ilf.predicted_block_evaluations == EVALUATIONS[preset]
    assert ilf.extra_parameters > 0 and ilf.training_s is not None and ilf.training_s > 0


def test_fid_below_its_floor_is_refused_with_a_reason(tmp_path: Path) -> None:
    arguments = ["--methods", "full", "--metrics", "fid", "--samples", "10", "--rounds", "0", "--out", str(tmp_path)]
    assert main(["run", "tiny-class", *arguments]) == 0
    (folder,) = tmp_path.glob("tiny-class-*")
    assert "at least 48" in getattr(read_run(folder).scores["full", "fid"], "reason", "")


def test_digits_and_emoji_have_distinct_captions() -> None:
    everything = emoji.captions() + digits.captions()
    assert len(set(everything)) == len(everything) == 308


def test_digit_rendering_can_be_undone() -> None:
    images, _ = digits.split("held-out")
    back = digits.to_original_size(digits.render(images))
    assert (back - 16 * images.flatten(1)).abs().mean() < 1.0


def test_emoji_augmentation_moves_by_whole_pixels() -> None:
    pytest.importorskip("PIL")
    if not emoji.FONT.exists():
        pytest.skip("the emoji font is only needed to rebuild the zoo")
    index = torch.tensor([10])
    still = emoji.Augmentation(torch.tensor([0.8]), torch.zeros(1, 2), torch.tensor([False]), torch.tensor([0]))
    moved = emoji.Augmentation(torch.tensor([0.8]), torch.tensor([[2.0, -1.0]]), torch.tensor([False]), torch.tensor([0]))
    a, b = emoji.render(index, still).int(), emoji.render(index, moved).int()
    assert (a[0, :, 2:, :-3] - b[0, :, 1:-1, 2:-1]).abs().max() <= 2
    flipped = emoji.Augmentation(torch.tensor([0.8]), torch.zeros(1, 2), torch.tensor([True]), torch.tensor([0]))
    assert (emoji.render(index, flipped).int().flip(-1) - a).abs().max() <= 2
