"""Methods compared on a pipeline in memory: the same images as from its folder, identified by what decides them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from PIL import Image

import ilf_bench
from harness.errors import ArtifactError, UsageError
from harness.models.identity import memory_digest
from harness.sampling.pipeline import Pipeline
from harness.storage.layout import Layout
from harness.storage.records import read_json
from tests.conftest import PROMPTS

SETTINGS: dict[str, Any] = {"steps": 3, "guidance": 2.0, "timing": {"rounds": 2, "batch": 2, "warmup": 0}}
METHODS = ("steps:2", "fora:interval=2")


def load(folder: Path) -> Any:
    return DiffusionPipeline.from_pretrained(folder)


@pytest.fixture(scope="module", params=["pixart", "dit"])
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]


def image_digests(run: ilf_bench.RunResults) -> dict[str, list[str]]:
    """The digests of the images of every method, in order."""
    layout = Layout(run.path)
    found = {label: read_json(layout.samples(label).manifest)["samples"] for label in run.methods["label"]}
    return {label: [sample["sha256"] for sample in samples] for label, samples in found.items()}


def test_images_are_those_of_the_same_pipeline_from_its_folder(folder: Path, tmp_path: Path) -> None:
    task = "class" if "dit" in folder.name else "text"
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    preset = tmp_path / "preset.yaml"
    preset.write_text(
        f"name: same\ntask: {task}\npipeline: {folder}\nprompts: {tmp_path / 'prompts.txt'}\nsolver: checkpoint\nsteps: 3\n"
        f"guidance: 2.0\nsamples: 5\nbatch: 5\nmethods: [full, 'steps:2', 'fora:interval=2']\nmetrics: [psnr]\n"
        "timing: {rounds: 0}\n"
    )
    stored = ilf_bench.run(str(preset), out=tmp_path / "stored")
    settings = {**SETTINGS, "timing": {"rounds": 0}}
    held = ilf_bench.benchmark(load(folder), METHODS, PROMPTS, ["psnr"], out=tmp_path / "held", **settings)
    assert image_digests(held) == image_digests(stored) and len(image_digests(held)["full"]) == len(PROMPTS)
    assert held.scores["value"].tolist()[1:] == stored.scores["value"].tolist()[1:]


def test_settings_of_the_call_reach_the_pipeline(folders: dict[str, Path], tmp_path: Path) -> None:
    """Every image differs where the negative prompt does, and has the height and width that were asked for."""
    settings = {**SETTINGS, "timing": {"rounds": 0}}

    def digests(name: str, **asked: Any) -> list[str]:
        run = ilf_bench.benchmark(load(folders["pixart"]), [], PROMPTS, [], out=tmp_path / name, **settings, **asked)
        return image_digests(run)["full"]

    plain, negative, wide = (
        digests("plain"),
        digests("negative", negative_prompt=PROMPTS[0]),
        digests("wide", height=16, width=32),
    )
    assert not set(plain) & set(negative)
    image = next((tmp_path / "wide").rglob("000000.png"))
    assert len(wide) == len(PROMPTS) and Image.open(image).size == (32, 16)


def test_the_pipeline_is_given_back_and_a_second_call_resumes(folder: Path, tmp_path: Path) -> None:
    pipe = load(folder)
    scheduler, state = pipe.scheduler, memory_digest(pipe)
    run = ilf_bench.benchmark(pipe, METHODS, PROMPTS, ["psnr", "ssim"], out=tmp_path, **SETTINGS)
    assert pipe.scheduler is scheduler and memory_digest(pipe) == state
    assert run.record.complete and run.record.environment["weights"] == state and state in run.record.spec["pipeline"]
    written = {path: path.stat().st_mtime_ns for path in run.path.rglob("*.png")}
    again = ilf_bench.benchmark(pipe, METHODS, PROMPTS, ["psnr", "ssim"], out=tmp_path, **SETTINGS)
    assert again.path == run.path and {path: path.stat().st_mtime_ns for path in written} == written


def test_the_pipeline_is_given_back_after_a_failure(folders: dict[str, Path], tmp_path: Path, monkeypatch: Any) -> None:
    pipe = load(folders["pixart"])
    scheduler = pipe.scheduler

    def fails(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, "generate", fails)
    with pytest.raises(KeyboardInterrupt):
        ilf_bench.benchmark(pipe, METHODS, PROMPTS, out=tmp_path, **SETTINGS)
    assert pipe.scheduler is scheduler


LEAKY = """
from contextlib import contextmanager
from dataclasses import dataclass
import torch

@dataclass(frozen=True)
class Leaky:
    "Leaves a weight changed."
    label = "leaky"

    def plan(self, plan):
        return plan

    @contextmanager
    def attach(self, pipeline):
        with torch.no_grad():
            next(pipeline.transformer.parameters()).add_(0.1)
        yield

METHODS = {"leaky": Leaky}
"""


def test_after_a_method_that_does_not_give_the_pipeline_back_nothing_is_measured_on_it(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "leaky.py").write_text(LEAKY)
    plugins = [tmp_path / "leaky.py"]
    pipe, methods = load(folders["pixart"]), ["leaky", "steps:2"]
    run = ilf_bench.benchmark(pipe, methods, PROMPTS, ["psnr"], plugins=plugins, out=tmp_path / "runs", **SETTINGS)
    failures = run.methods.set_index("label")["failure"]
    assert all("leaky left changed; remedy: load the pipeline again" in failures[label] for label in ("full", "2 steps"))
    assert run.timings.empty and run.scores["value"].isna().all() and not run.record.complete


def changed_weight(pipe: Any) -> None:
    with torch.no_grad():
        next(pipe.vae.parameters()).view(-1)[0].add_(1e-3)


def changed_buffer(pipe: Any) -> None:
    pipe.transformer.register_buffer("further", torch.ones(1))


def changed_scheduler(pipe: Any) -> None:
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, beta_end=0.03)


def changed_dtype(pipe: Any) -> None:
    pipe.vae.to(torch.bfloat16)


def changed_vocabulary(pipe: Any) -> None:
    pipe.tokenizer.add_tokens(["horse"])


@pytest.mark.parametrize("change", [changed_weight, changed_buffer, changed_scheduler, changed_dtype, changed_vocabulary])
def test_identity_changes_with_whatever_decides_images(folders: dict[str, Path], change: Callable[[Any], None]) -> None:
    pipe, other = load(folders["pixart"]), load(folders["pixart"])
    assert memory_digest(pipe) == memory_digest(other)
    change(other)
    assert memory_digest(pipe) != memory_digest(other)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"device": "cpu"}, "device"),
        ({"step": 3}, "did you mean 'steps'"),
        ({"methods": ["step:3"]}, "step"),
        ({"metrics": ["psnrr"]}, "psnr"),
        ({"prompts": []}, "at least one prompt"),
        ({"prompts": [3]}, "3"),
        ({"true_guidance": 4.0}, "no true_guidance where PixArt"),
        ({"negative_prompt": "blue", "guidance": 1.0}, "no negative_prompt where PixArt"),
        ({"decode_dtype": "float32"}, "got decode_dtype"),
        ({"decode_tiled": True}, "got decode_tiled"),
    ],
)
def test_wrong_settings_are_named_before_anything_is_sampled(
    folders: dict[str, Path], tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        ilf_bench.benchmark(load(folders["pixart"]), **{"prompts": PROMPTS, "out": tmp_path / "runs", **settings})
    assert not (tmp_path / "runs").exists()


def test_an_unknown_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="known family"):
        ilf_bench.benchmark(object(), prompts=PROMPTS, out=tmp_path)
