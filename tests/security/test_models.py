"""A pipeline from a stranger names no code, no other repository and no size beyond measure; altered weights are not loaded."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.learned.deediff import load_heads
from baselines.t_stitch import load_sibling
from harness.config.spec import ExperimentSpec, build_spec
from harness.errors import ArtifactError
from harness.models.checksums import write_sums
from harness.models.loading import find_plan, load_pipeline
from harness.models.reading import CLASSES, load_tensors, read_seconds
from harness.training.states import content_digest, read_state
from tests.security.crafted import UNSAFE_ADVICE, bounded


@dataclass(frozen=True)
class Payload:
    """Makes a folder when it is unpickled."""

    path: str

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError(f"a connection to {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders["pixart"], tmp_path / "pixart"))


def spec(folder: Path) -> ExperimentSpec:
    methods, timing = ["full"], {"rounds": 1, "batch": 1}
    content = {"name": "x", "task": "text", "pipeline": str(folder), "prompts": "presets/speed-prompts.txt", "methods": methods}
    return build_spec(content | {"metrics": [], "timing": timing, "device": "cpu", "precision": "fp32"}, "test")


def load(folder: Path) -> None:
    """As a run does: first what needs no weights, then these."""
    find_plan(spec(folder))
    load_pipeline(spec(folder))


def edit(file: Path, **changed: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


def refused(work: Callable[[], object], match: str = ".") -> str:
    with bounded(), pytest.raises(ArtifactError, match=match) as caught:
        work()
    assert not any(word in str(caught.value) for word in UNSAFE_ADVICE)
    return str(caught.value)


def test_a_pipeline_of_ours_is_loaded(folder: Path) -> None:
    load(folder)


PAIRS = [
    ["os", "system"],
    ["builtins", "exec"],
    ["transformers", "AutoModel"],
    ["transformers", "RagModel"],
    ["diffusers", "DiffusionPipeline"],
    ["pipeline", "Own"],
    ["diffusers"],
    [["diffusers"], "AutoencoderKL"],
    "os",
]


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_an_index_names_known_classes_alone(pair: object, folder: Path) -> None:
    (folder / "pipeline.py").write_text("raise SystemExit('code of a stranger ran')")
    edit(folder / "model_index.json", scheduler=pair)
    refused(lambda: load(folder), match="known classes")


@pytest.mark.parametrize("value", [5, 0.5, True, {}], ids=str)
def test_a_part_that_is_no_pair_of_library_and_class_is_refused(value: object, folder: Path) -> None:
    edit(folder / "model_index.json", transformer=value)
    refused(lambda: load(folder), match="transformer")


def test_the_list_of_classes_is_of_classes() -> None:
    import diffusers
    import transformers

    for library, names in (("diffusers", diffusers), ("transformers", transformers)):
        assert all(isinstance(getattr(names, name), type) for name in CLASSES[library])


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "scheduler", "tokenizer"])
@pytest.mark.parametrize(
    "asked",
    [
        {"auto_map": {"AutoModel": "owner/name--file.Class"}},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"nested": {"trust_remote_code": True}},
        {"_attn_implementation": "owner/kernels"},
        {"num_layers": 10**9},
        {"num_layers": -(10**9)},
        {"extra_ids": 10**8},
        {"d_model": 1e300},
        {"num_train_timesteps": 10**7},
    ],
    ids=str,
)
def test_settings_ask_for_no_code_and_no_size_beyond_measure(part: str, asked: dict[str, Any], folder: Path) -> None:
    file = next(
        path
        for path in (folder / part).iterdir()
        if path.name in ("config.json", "scheduler_config.json", "tokenizer_config.json")
    )
    edit(file, **asked)
    refused(lambda: load(folder))


def test_a_table_of_positions_is_bounded(folder: Path) -> None:
    edit(folder / "transformer" / "config.json", sample_size=2**14, attention_head_dim=2**10)
    refused(lambda: load(folder), match="positions")


def test_no_adapter_leads_to_another_model(folder: Path) -> None:
    (folder / "text_encoder" / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/name"}')
    refused(lambda: load(folder), match="adapter")


def test_a_pickle_is_one_message_and_runs_nothing(folder: Path, tmp_path: Path) -> None:
    payload = Payload(str(tmp_path / "ran"))
    for weights in (folder / "vae").glob("*.safetensors"):
        weights.unlink()
    for content in (pickle.dumps(payload), b"\x80\x04."):
        (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # torch warns of the protocol, at a line of its own
            refused(lambda: load(folder))
    torch.save({"a": payload}, folder / "vae" / "diffusion_pytorch_model.bin")
    refused(lambda: load(folder))
    assert not (tmp_path / "ran").exists()


def test_a_compressed_file_of_torch_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2**20)}, tmp_path / "a.bin")
    assert load_tensors(tmp_path / "a.bin")["a"].shape == (2**20,)
    with zipfile.ZipFile(tmp_path / "a.bin") as plain, zipfile.ZipFile(tmp_path / "b.bin", "w", zipfile.ZIP_DEFLATED) as squeezed:
        for entry in plain.infolist():
            squeezed.writestr(entry.filename, plain.read(entry))
    refused(lambda: load_tensors(tmp_path / "b.bin"), match="compressed")


def test_a_state_that_stands_for_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    nested: Any = [0]
    for _ in range(60):
        nested = [nested, nested]
    torch.save({"nested": nested, "digest": content_digest(0)}, tmp_path / "state.pt")
    refused(lambda: read_state(tmp_path / "state.pt"), match="items")


ALTERED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "heads of DeeDiff": ("deediff", load_heads),
    "sibling of T-Stitch": ("transformer", load_sibling),
    "pipeline": ("transformer", lambda path: load(path.parent)),
}


@pytest.mark.parametrize("what", ALTERED)
@pytest.mark.parametrize("how", ["altered", "not listed"])
def test_altered_weights_are_not_loaded(what: str, how: str, folder: Path) -> None:
    """Also where the list of digests leaves the weights out."""
    name, work = ALTERED[what]
    part = folder / name
    write_sums(part)
    work(part)
    weights = next(part.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x01\x02\x03\x04")
    if how == "not listed":
        lines = [line for line in (part / "SHA256SUMS").read_text().splitlines() if weights.name not in line]
        (part / "SHA256SUMS").write_text("".join(f"{line}\n" for line in lines))
    refused(lambda: work(part))


@pytest.mark.parametrize("seconds", ["1e308", "-1", "true", '"x"', "null", "[]"])
def test_seconds_of_a_training_are_a_time(seconds: str, tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(f'{{"seconds": {seconds}}}')
    refused(lambda: read_seconds(tmp_path / "training.json"))
    assert read_seconds(tmp_path / "none.json") == 0


def test_a_header_and_a_vocabulary_beyond_measure_are_refused_unread(folder: Path) -> None:
    weights = next((folder / "transformer").glob("*.safetensors"))
    content = weights.read_bytes()
    with weights.open("wb") as file:
        file.write((17 * 2**20).to_bytes(8, "little") + b"{" + b" " * (17 * 2**20 - 1) + content)
    refused(lambda: load(folder), "a header of at most 16 MiB in .*/transformer/")
    weights.write_bytes(content)
    with (folder / "tokenizer" / "tokenizer.json").open("wb") as file:
        file.truncate(49 * 2**20)
    refused(lambda: load(folder), "a vocabulary of at most 48 MiB in .*/tokenizer/")


def test_lists_of_settings_are_bounded(folder: Path) -> None:
    edit(folder / "scheduler" / "scheduler_config.json", trained_betas=[1e-4] * 60_000)
    refused(lambda: load(folder), "60,000 values of trained_betas, more than 50,000")
