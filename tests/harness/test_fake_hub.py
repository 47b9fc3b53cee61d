"""The real huggingface_hub client against a hub on this machine: what is fetched, what is refused, what a cut download leaves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.config.prompts import load_prompts
from harness.errors import ArtifactError
from harness.hub import fetch_model
from harness.models.loading import find_plan, load_pipeline
from ilf_bench.cli import main
from tests.fake_hub import FakeHub, serve
from tests.harness.config.test_prompts import FILES, WANTED
from tests.harness.execution.test_runner import write_preset
from tests.harness.test_hub import image, spec


@pytest.fixture
def hub(tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Models toy/dit and toy/pixart."""
    for name in ("dit", "pixart"):
        shutil.copytree(folders[name], tmp_path / "hub" / "models" / "toy" / name)
    with serve(tmp_path / "hub", monkeypatch) as hub:
        yield hub


def test_settings_first_then_weights_then_nothing(hub: FakeHub, folders: dict[str, Path]) -> None:
    chosen = spec("hub:toy/dit", "class")
    assert find_plan(chosen).backbone.depth == 6
    assert not any("safetensors" in name for name in hub.served), "a cost prediction fetches no weights"
    assert (image(chosen) == image(spec(str(folders["dit"]), "class"))).all()
    fetched = list(hub.served)
    assert sum("safetensors" in name for name in fetched) == 2
    image(chosen)
    assert hub.served == fetched, "the second time everything is in the cache"


def test_a_whole_run_from_the_hub(hub: FakeHub, folders: dict[str, Path], tmp_path: Path) -> None:
    preset = str(write_preset(tmp_path, folders["dit"], methods=["full"], metrics=[], samples=2))
    assert main(["run", preset, "--pipeline", "hub:toy/dit@main", "--rounds", "0", "--out", str(tmp_path / "runs")]) == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("toy/none", "no such repository, or a private one.*hf auth login"),
        ("toy/gated", "a gated repository.*accept its conditions"),
        ("toy/dit@v9", "no such revision"),
    ],
)
def test_what_a_hub_refuses(
    hub: FakeHub, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, words: str
) -> None:
    hub.gated.add("toy/gated")
    with pytest.raises(ArtifactError, match=words):
        fetch_model(name, ["*"])
    preset = str(write_preset(tmp_path, folders["dit"]))
    assert main(["run", preset, "--pipeline", f"hub:{name}", "--out", str(tmp_path / "runs")]) == 65
    said = capsys.readouterr().err
    assert said.startswith("error: expected ") and "remedy: " in said and "Traceback" not in said and said.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_download_that_breaks_off_is_taken_up(hub: FakeHub) -> None:
    """Nothing half-written is ever loaded, and the next try fetches what is not finished, no more."""
    chosen, weights = spec("hub:toy/pixart"), "diffusion_pytorch_model.safetensors"
    hub.cut.add(weights)
    with pytest.raises(ArtifactError, match=r"toy/pixart.*try again"):
        load_pipeline(chosen)
    hub.cut.clear()
    hub.served.clear()
    assert image(chosen).float().std() > 0
    assert hub.served and not [name for name in hub.served if ".json" in name or ".txt" in name]
    served = list(hub.served)
    image(chosen)
    assert hub.served == served


def test_a_hub_that_went_away_serves_from_the_cache(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = spec("hub:toy/dit", "class")
    before = image(chosen)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert (image(chosen) == before).all()
    with pytest.raises(ArtifactError, match=r"no network, and the cache lacks it.*hf download toy/pixart"):
        find_plan(spec("hub:toy/pixart"))


def test_prompts_from_a_dataset_on_the_hub(hub: FakeHub) -> None:
    """In the layout of MJHQ-30K (one JSON object) and of PartiPrompts (a table)."""
    for name, file in (("playgroundai/MJHQ-30K", "meta_data.json"), ("nateraw/parti-prompts", "parti.tsv")):
        folder = hub.repository("datasets", name)
        folder.mkdir(parents=True)
        target = "PartiPrompts.tsv" if file == "parti.tsv" else file
        (folder / target).write_bytes(FILES[file].encode())
    for name in ("mjhq-30k", "parti-prompts"):
        listed = load_prompts(name)
        assert listed.texts == WANTED and listed.record()["source"] == name
    with pytest.raises(ArtifactError, match=r"data set.*no such repository"):
        load_prompts("hub:playgroundai/none/meta_data.json")
    with pytest.raises(ArtifactError, match="no such revision or file"):
        load_prompts("hub:playgroundai/MJHQ-30K/other.json")
