"""How a run or `ilf-bench score` chooses its networks, and what each metric says where packages or weights are missing."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from harness.config.spec import load_spec, preset_names
from harness.errors import NotMeasured, UsageError
from harness.paths import locate
from ilf_bench.cli import main
from metrics.context import MetricContext
from metrics.published.spec import Scorers, read_scorers
from metrics.table import METRICS
from tests.published import CLIP_NAME, FULL_STACK, draw_images, save_dino, save_images, save_open_clip, save_rn50

DEFAULT = locate("metrics/published/scorers.yaml")
Printed = pytest.CaptureFixture[str]
NEEDS = {
    "fid": "torch_fidelity",
    "clip_score": "open_clip",
    "clip_iqa": "pyiqa",
    "image_reward": "ImageReward",
    "cmmd": "open_clip",
}


def test_the_file_holds_the_defaults() -> None:
    assert read_scorers(DEFAULT) == Scorers()


@pytest.mark.parametrize("name", [name for name in preset_names() if load_spec(name).pipeline.startswith("hub:")])
def test_every_full_preset_names_the_published_networks(name: str) -> None:
    spec = load_spec(name)
    assert read_scorers(locate(spec.scorers)) == Scorers() and set(spec.metrics) <= set(METRICS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("clip: {model: ViT-L-14}", "clip.pretrained: Field required"),
        ("clipp: {}", "clipp: Extra inputs"),
        ("image_reward: {precision: int8}", "image_reward.precision"),
        ("[1, 2]", "file: Input should be"),
        ("clip: [", "a YAML file, at"),
    ],
)
def test_a_wrong_file_is_the_users_fault(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "scorers.yaml").write_text(content)
    with pytest.raises(UsageError, match=words):
        _ = MetricContext(tmp_path / "scorers.yaml", "text").networks


def test_neither_folder_nor_file() -> None:
    with pytest.raises(UsageError, match="name zoo/scorers or a copy"):
        _ = MetricContext(Path("nowhere"), "text").networks


@pytest.mark.parametrize("name", list(NEEDS))
def test_a_missing_package_names_its_installation(name: str) -> None:
    if importlib.util.find_spec(NEEDS[name]):
        pytest.skip(f"{NEEDS[name]} is installed here")
    with pytest.raises(NotMeasured, match=r"not installed; remedy: .*(make metrics|--no-deps)"):
        METRICS[name](MetricContext(DEFAULT, "text"))


def test_a_missing_hub_folder_of_dinov2_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / "scorers.yaml"
    path.write_text(yaml.safe_dump({"dinov2": {"model": str(tmp_path / "none")}}))
    with pytest.raises(NotMeasured, match=r"dinov2\.model"):
        METRICS["fd_dinov2"](MetricContext(path, "text"))


def score(folder: Path, prompts: list[str], *arguments: str) -> int:
    file = folder.parent / "prompts.txt"
    file.write_text("\n".join(prompts) + "\n")
    return main(["score", str(folder), "--prompts", str(file), *arguments])


def test_scoring_a_folder_with_dinov2_against_a_folder(tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "scorers.yaml"
    path.write_text(yaml.safe_dump({"dinov2": {"model": str(save_dino(tmp_path / "dino"))}}))
    folder, real = (
        save_images(draw_images(34, side=32), tmp_path / "images"),
        save_images(draw_images(20, 1, 32), tmp_path / "real"),
    )
    arguments = ["--metrics", "fd_dinov2,psnr", "--scorers", str(path), "--reference", str(real)]
    assert score(folder, ["x"] * 34, *arguments) == 4
    said = capsys.readouterr().out
    assert "FD-DINOv2, biased: N = 34 < 160" in said and "(tiny)" not in said
    assert "needs a second folder of the same images: --against FOLDER" in said
    (manifest,) = (tmp_path / "cache").rglob("*.json")
    assert {"source", "n", "content", "extractor", "sha256"} == set(yaml.safe_load(manifest.read_text()))


def test_scoring_with_the_clips_of_the_packages(tmp_path: Path, capsys: Printed) -> None:
    pytest.importorskip("open_clip", reason=FULL_STACK)
    pytest.importorskip("pyiqa", reason=FULL_STACK)
    clip = {"model": CLIP_NAME, "pretrained": str(save_open_clip(tmp_path / "clip"))}
    path = tmp_path / "scorers.yaml"
    path.write_text(yaml.safe_dump({"clip": clip, "clip_iqa": {"backbone": str(save_rn50(tmp_path / "RN50.pt"))}}))
    folder = save_images(draw_images(6), tmp_path / "images")
    assert score(folder, ["a cat"] * 6, "--metrics", "clip_score,clip_iqa,clip_iqa_natural", "--scorers", str(path)) == 0
    said = capsys.readouterr().out
    assert "CLIP score" in said and "CLIP-IQA natural, not synthetic" in said and "(tiny)" not in said


def damaged(folder: Path) -> Path:
    path = folder / "0003.png"
    path.write_bytes(path.read_bytes()[:60])
    return path


def single_pixel(folder: Path) -> Path:
    path = folder / "0003.png"
    Image.new("RGB", (1, 1)).save(path)
    return path


@pytest.mark.parametrize("harm", [damaged, single_pixel])
def test_one_bad_file_stops_the_scoring_by_name(tmp_path: Path, capsys: Printed, harm: object) -> None:
    folder = save_images(draw_images(6, side=32), tmp_path / "images")
    assert callable(harm)
    path = harm(folder)
    assert score(folder, ["a cat"] * 6, "--metrics", "clip_score") == 65
    said = capsys.readouterr()
    assert path.name in said.err + said.out and "Traceback" not in said.err


def test_single_pixels_are_no_images_for_any_scorer(tmp_path: Path, capsys: Printed) -> None:
    folder = save_images(torch.zeros(3, 3, 1, 1, dtype=torch.uint8), tmp_path / "images")
    assert score(folder, ["a cat"] * 3, "--metrics", "clip_score,clip_iqa") == 4
    assert capsys.readouterr().out.count("expected uint8 images") == 2


def test_grey_and_sixteen_bit_images_score_as_their_rgb(tmp_path: Path, capsys: Printed) -> None:
    grey = draw_images(2, side=32)[:, 0].numpy()
    tables = []
    modes = {
        "rgb": lambda image: np.repeat(image[..., None], 3, axis=2),
        "grey": lambda image: image,
        "deep": lambda image: image.astype(np.uint16) * 257,
    }
    for name, convert in modes.items():
        folder = tmp_path / name / "images"
        folder.mkdir(parents=True)
        for i, image in enumerate(grey):
            Image.fromarray(convert(image)).save(folder / f"{i}.png")
        assert score(folder, ["a cat"] * 2, "--metrics", "clip_score,image_reward") == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1] == tables[2]


def test_every_image_is_read_once_for_all_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.storage import images, reading

    folder, opened = save_images(draw_images(5, side=32), tmp_path / "images"), []
    original = images.decode_rgb

    def counted(path: Path, expected: str | None) -> Image.Image:
        opened.append(os.fspath(path))
        return original(path, expected)

    monkeypatch.setattr(reading, "decode_rgb", counted)
    assert score(folder, ["a cat"] * 5, "--metrics", "clip_score,clip_iqa,image_reward") == 0
    assert sorted(opened) == sorted(str(path) for path in folder.iterdir())
