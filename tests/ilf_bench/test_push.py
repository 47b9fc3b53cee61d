"""``ilf-bench push`` against a hub on this machine: what arrives, what never leaves, and what each refusal says."""

from __future__ import annotations

import csv
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

from harness.history.bundle import verify_bundle
from harness.paths import ROOT
from harness.storage.layout import Layout
from harness.storage.records import read_json, write_json
from ilf.checkpoint import load_module
from ilf_bench.cli import main
from tests.fake_hub import FakeHub, serve
from tests.reports.conftest import Fake, write_fake

MODULE = ROOT / "zoo" / "tiny-pixart" / "ilf"
SECRET = "/srv/private-models/of-nobody"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that knows a token, with Xet switched off."""
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    (tmp_path / "hub").mkdir()
    with serve(tmp_path / "hub", monkeypatch) as hub:
        yield hub


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with images, and with paths of a machine in its records."""
    folder = tmp_path / "runs" / "one"
    write_fake(folder, Fake(n=4, rounds=2))
    layout = Layout(folder)
    write_json(layout.spec, read_json(layout.spec) | {"pipeline": f"{SECRET}/dit"})
    changed = {"command": f"ilf-bench run --pipeline {SECRET}/dit", "notes": [f"prompts of {SECRET}/p.txt: 4 prompts"]}
    write_json(layout.environment, read_json(layout.environment) | changed)
    return folder


def front(card: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(card.read_text().split("---")[1]))


def test_a_run_arrives_whole_and_nothing_private_with_it(hub: FakeHub, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(run), "toy/results", "--space", "toy/report", "--license", "cc-by-4.0"]) == 0
    data, space = hub.repository("datasets", "toy/results"), hub.repository("spaces", "toy/report")
    assert verify_bundle(data / "bundle.zip").findings == () and not hub.public
    said = capsys.readouterr().out
    assert "private dataset: " in said and "private space: " in said
    fields = front(data / "README.md")
    assert fields["license"] == "cc-by-4.0" and "ilf-bench" in fields["tags"] and fields["size_categories"] == ["n<1K"]
    assert front(space / "README.md")["sdk"] == "static"
    card = (data / "README.md").read_text()
    assert verify_bundle(data / "bundle.zip").digest in card and "| --- | --- | --- |" in card
    assert "better than fewer steps?" in card and "\\---" not in (data / "report" / "report.md").read_text()
    rows = list(csv.DictReader((data / "samples" / "metadata.csv").open()))
    assert rows and all((data / "samples" / row["file_name"]).is_file() for row in rows)
    for folder in (data, space):
        page = (folder / "report" / "index.html").read_text()
        assert "<html" in page and (folder / "report" / "gallery.html").exists()
    sent = [path for folder in (data, space) for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in sent if SECRET.encode() in path.read_bytes() or str(run).encode() in path.read_bytes()]


def test_the_same_command_uploads_what_is_missing_and_no_more(
    hub: FakeHub, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.refusals["/commit/"] = (503, "try later")
    monkey = pytest.MonkeyPatch()
    monkey.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    assert main(["push", str(run), "toy/results"]) == 65
    monkey.undo()
    assert "the same command goes on" in capsys.readouterr().err
    hub.refusals.clear()
    assert main(["push", str(run), "toy/results"]) == 0
    stored, commits = len(hub.received), len(hub.commits)
    assert main(["push", str(run), "toy/results"]) == 0
    assert len(hub.received) == stored and len(hub.commits) == commits, "nothing is sent again"


def test_a_dry_run_lists_files_and_asks_nobody(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert main(["push", str(run), "toy/results", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"\d  bundle\.zip\n", said) and "report/index.html" in said and "nothing was uploaded" in said


def test_a_module_arrives_and_loads(hub: FakeHub, tmp_path: Path) -> None:
    assert main(["push", str(MODULE), "toy/module", "--public", "--license", "apache-2.0"]) == 0
    folder = hub.repository("models", "toy/module")
    assert "toy/module" in hub.public and sorted(path.name for path in folder.iterdir()) == [
        "README.md", "SHA256SUMS", "config.json", "diffusion_pytorch_model.safetensors",
    ]  # fmt: skip
    ours, theirs = load_module(MODULE).state_dict(), load_module(folder).state_dict()
    assert all((theirs[name] == value).all() for name, value in ours.items())
    card = (folder / "README.md").read_text()
    assert "Not measured" in card and 'ilf_bench.apply(pipe, "toy/module")' in card


def test_a_run_of_another_module_measures_nothing(hub: FakeHub, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(MODULE), "toy/module", "--run", str(run)]) == 64
    assert "whose methods read other files" in capsys.readouterr().err and not hub.commits


REFUSALS = [
    ("/repos/create", 401, "Invalid credentials", "a token that may write.*hf auth login", 64),
    ("/repos/create", 403, "You don't have the rights", "the right to write.*belong to that organisation", 64),
    ("/commit/", 403, "Private repository storage limit reached", "room for the model.*free or buy storage", 65),
    ("/repos/create", 400, "Repo name is reserved", "Repo name is reserved.*correct the name", 64),
    ("/preupload/", 429, "Too many requests", "wait some minutes", 65),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda one: one[2])
def test_each_refusal_is_one_message(
    hub: FakeHub,
    run: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    refusal: tuple[str, int, str, str, int],
) -> None:
    where, status, said, words, code = refusal
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.refusals[where] = (status, said)
    assert main(["push", str(MODULE), "toy/results"]) == code
    error = capsys.readouterr().err
    assert re.search(words, error) and error.count("\n") == 1 and "Traceback" not in error


def test_what_is_wrong_is_said_before_anything_is_made(
    hub: FakeHub, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [
        (["results"], "expected OWNER/NAME"),
        (["toy/a b"], "correct the name"),
        (["toy/x", "--run", str(run)], "leave --run out"),
    ]
    for arguments, words in cases:
        assert main(["push", str(run), *arguments]) == 64
        assert words in capsys.readouterr().err
    assert main(["push", str(run.parent), "toy/x"]) == 64
    monkeypatch.delenv("HF_TOKEN")
    assert main(["push", str(run), "toy/results"]) == 64
    assert "expected a token of the hub; got none" in capsys.readouterr().err
    assert not hub.commits and not (hub.root / "datasets").exists()


def test_no_network(hub: FakeHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert main(["push", str(MODULE), "toy/results"]) == 65
    assert "no network" in capsys.readouterr().err
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["push", str(MODULE), "toy/results"]) == 64
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err


def test_another_repository_is_left_alone(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    other = hub.repository("models", "toy/other")
    other.mkdir(parents=True)
    (other / "data.csv").write_text("precious")
    assert main(["push", str(MODULE), "toy/other"]) == 64
    assert "holds something else" in capsys.readouterr().err and [path.name for path in other.iterdir()] == ["data.csv"]
    (other / "data.csv").rename(other / "README.md")
    assert main(["push", str(MODULE), "toy/other"]) == 64 and (other / "README.md").read_text() == "precious"
    capsys.readouterr()
    (hub.repository("models", "toy/open")).mkdir()
    hub.public.add("toy/open")
    assert main(["push", str(MODULE), "toy/open"]) == 64
    assert "a public one" in capsys.readouterr().err and not hub.commits


def test_the_name_of_the_host_stops_a_push(
    hub: FakeHub, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node-of-nobody")
    environment = Layout(run).environment
    write_json(environment, read_json(environment) | {"notes": ["measured on node-of-nobody"]})
    assert main(["push", str(run), "toy/results"]) == 64
    assert "'node-of-nobody' in " in capsys.readouterr().err and not hub.commits
