"""What the hub refuses, by its real exceptions, and what a downloaded snapshot must hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors as hub
from safetensors.torch import load_file, save_file

from harness.config.spec import ExperimentSpec
from harness.errors import ArtifactError, HarnessError, UsageError
from harness.hub import fetch_dataset_file, fetch_model
from harness.models.loading import find_plan, load_pipeline

NAME = "facebook/DiT-XL-2-256"


def http(kind: type[Exception], status: int) -> Callable[[], Exception]:
    """An HTTP error of the hub, built with the response class of whichever client it uses."""

    def build() -> Exception:
        import importlib

        client = importlib.import_module(next(base.__module__.split(".")[0] for base in hub.HfHubHTTPError.__mro__[1:2]))
        response = client.Response(status, request=client.Request("GET", "https://huggingface.co/x"))
        return kind(f"{status} Client Error", response=response)

    return build


CASES = [
    ("gated", http(hub.GatedRepoError, 403), ArtifactError, "a gated repository.*hf auth login"),
    ("missing", http(hub.RepositoryNotFoundError, 401), ArtifactError, "no such repository.*check the name"),
    ("revision", http(hub.RevisionNotFoundError, 404), ArtifactError, "no such revision.*after @"),
    ("network", lambda: hub.LocalEntryNotFoundError("no connection"), ArtifactError, "no network.*hf download facebook/DiT"),
    ("server", http(hub.HfHubHTTPError, 503), ArtifactError, "503.*try again"),
    ("disk", lambda: OSError(28, "No space left on device"), ArtifactError, "No space left.*try again"),
    ("name", lambda: hub.HFValidationError("repo id"), UsageError, "hub:OWNER/NAME"),
]


@pytest.mark.parametrize(("build", "kind", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_each_refusal_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, build: Callable[[], Exception], kind: type[HarnessError], words: str
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> str:
        raise build()

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    for call in (lambda: fetch_model(NAME, ["*"]), lambda: fetch_dataset_file(NAME, "meta.json")):
        with pytest.raises(kind, match=words) as error:
            call()
        assert "\n" not in str(error.value)


def test_offline_asks_only_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def cached(*args: Any, local_files_only: bool, **kwargs: Any) -> str:
        assert local_files_only
        raise hub.LocalEntryNotFoundError("not cached")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    with pytest.raises(ArtifactError, match="HF_HUB_OFFLINE is set and the cache lacks it"):
        fetch_model(NAME, ["*"])


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path], tmp_path: Path) -> Path:
    """A folder that plays the hub: snapshots of OWNER/NAME are the folders in it."""
    root = tmp_path / "hub"
    for name in ("dit", "pixart"):
        shutil.copytree(folders[name], root / "toy" / name)

    def download(repository: str, **kwargs: Any) -> str:
        return str(root / repository)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return root / "toy"


def spec(pipeline: str, task: str = "text", **changes: Any) -> ExperimentSpec:
    fields: dict[str, Any] = {
        "name": "toy",
        "task": task,
        "pipeline": pipeline,
        "steps": 2,
        "prompts": "x",
        "methods": ["full"],
        "metrics": [],
        "precision": "fp32",
        "device": "cpu",
    }
    return ExperimentSpec(**(fields | changes))


def image(chosen: ExperimentSpec) -> torch.Tensor:
    return load_pipeline(chosen).generate(["3" if chosen.task == "class" else "red cat"], 1, [0])


@pytest.mark.parametrize(("name", "task"), [("dit", "class"), ("pixart", "text")])
def test_a_snapshot_is_the_same_pipeline_as_the_folder(served: Path, folders: dict[str, Path], name: str, task: str) -> None:
    chosen = spec(f"hub:toy/{name}@main", task)
    assert find_plan(chosen).backbone.depth == 6
    torch.testing.assert_close(image(chosen), image(spec(str(folders[name]), task)), rtol=0, atol=0)


def test_a_transformer_in_a_repository_of_its_own(served: Path) -> None:
    """As PixArt-alpha 256 and Sigma 512 are published, their config naming the class of before diffusers 0.30."""
    before = image(spec("hub:toy/pixart"))
    (served / "own").mkdir()
    shutil.copytree(served / "pixart" / "transformer", served / "own" / "transformer")
    config = served / "own" / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_class_name": "Transformer2DModel"}))
    weights = served / "own" / "transformer" / "diffusion_pytorch_model.safetensors"
    other = load_file(weights)
    save_file({key: value * 1.5 for key, value in other.items()}, weights, metadata={"format": "pt"})
    index = served / "pixart" / "model_index.json"
    index.write_text(index.read_text().replace("PixArtTransformer2DModel", "Transformer2DModel"))
    shutil.rmtree(served / "pixart" / "transformer")
    after = image(spec("hub:toy/pixart+toy/own"))
    assert (before != after).any()
    save_file(other, weights, metadata={"format": "pt"})
    torch.testing.assert_close(image(spec("hub:toy/pixart+toy/own")), before, rtol=0, atol=0)


def test_weights_in_the_old_format(served: Path) -> None:
    """facebook/DiT-XL-2-* hold .bin files, read without unpickling anything but tensors."""
    before = image(spec("hub:toy/dit", "class"))
    for part in ("transformer", "vae"):
        (weights,) = (served / "dit" / part).glob("*.safetensors")
        torch.save(load_file(weights), weights.with_suffix(".bin"))
        weights.unlink()
    torch.testing.assert_close(image(spec("hub:toy/dit", "class")), before, rtol=0, atol=0)


def test_half_downloaded(served: Path) -> None:
    folder = served / "pixart" / "transformer"
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})
    )
    with pytest.raises(ArtifactError, match=r"half-downloaded transformer: model-00001.*download the folder again"):
        load_pipeline(spec("hub:toy/pixart"))
    (folder / "diffusion_pytorch_model.safetensors.index.json").unlink()
    (folder / "diffusion_pytorch_model.safetensors.incomplete").touch()
    with pytest.raises(ArtifactError, match="half-downloaded"):
        load_pipeline(spec("hub:toy/pixart"))


@pytest.mark.parametrize("part", ["transformer", "vae"])
@pytest.mark.parametrize("keep", [0, 6, 200, -1])
def test_truncated_safetensors(served: Path, part: str, keep: int) -> None:
    """Cut to nothing, within the header's length, within the header, and by the last byte."""
    file = served / "dit" / part / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match=r"intact weights.*download the folder again") as error:
        load_pipeline(spec("hub:toy/dit", "class"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("base", "own", "words"),
    [
        ("pixart", "dit", "norm_type ada_norm_zero where the base needs ada_norm_single"),
        ("pixart", "wide", "caption_channels 32 where the base needs 16"),
        ("pixart", "deep", "in_channels 16 where the base needs 4"),
    ],
)
def test_a_transformer_that_does_not_fit_its_base(served: Path, base: str, own: str, words: str) -> None:
    """Told by the settings alone, before a weight is downloaded."""
    for name, change in (("wide", {"caption_channels": 32}), ("deep", {"in_channels": 16})):
        shutil.copytree(served / "pixart" / "transformer", served / name / "transformer")
        config = served / name / "transformer" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(ArtifactError, match=words):
        find_plan(spec(f"hub:toy/{base}+toy/{own}"))


def test_weights_of_another_architecture(served: Path) -> None:
    """The right settings beside the weights of another model: named, not filled up with random numbers."""
    name = "diffusion_pytorch_model.safetensors"
    shutil.copy(served / "dit" / "transformer" / name, served / "pixart" / "transformer" / name)
    with pytest.raises(ArtifactError, match="intact weights that fit their config"):
        load_pipeline(spec("hub:toy/pixart"))
    config = served / "dit" / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"attention_head_dim": 16}))
    with pytest.raises(ArtifactError, match="intact weights that fit their config"):
        load_pipeline(spec("hub:toy/dit", "class"))


def test_a_repository_that_is_no_pipeline(served: Path) -> None:
    (served / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"model_index\.json"):
        find_plan(spec("hub:toy/empty"))
    with pytest.raises(ArtifactError, match="DiTPipeline"):
        find_plan(spec("hub:toy/dit"))


def test_weights_that_are_not_float32_compute_as_they_are(folders: dict[str, Path]) -> None:
    pipeline = load_pipeline(spec(str(folders["dit"]), "class", dtype="bfloat16", precision="auto"))
    assert (pipeline.dtype, pipeline.precision, pipeline.arithmetic) == ("bfloat16", "bf16", "bf16 weights")
    assert pipeline.generate(["3"], 1, [0]).float().std() > 1
    with pytest.raises(ValueError, match="needs dtype float32"):
        spec("x", dtype="float16", precision="fp32")


@pytest.mark.parametrize("label", ["1000", "-1", "3.5", "²", "tench"])
def test_class_indices_that_the_model_has_not(folders: dict[str, Path], label: str) -> None:
    with pytest.raises(UsageError, match="indices below 1000"):
        load_pipeline(spec(str(folders["dit"]), "class")).generate(["3", label], 1, [0, 1])
