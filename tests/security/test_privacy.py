"""Credentials in a URL of the command line stand in no record, page, bundle, export, message or error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.execution.runner import Runner
from harness.execution.tasks import Facts
from harness.history.store import History
from harness.storage.layout import Layout
from harness.storage.records import read_json, write_json
from ilf_bench.cli import main
from ilf_bench.experiment import prepare
from ilf_bench.lookup import folder_on_disk
from reports.render.build import build_report
from tests.harness.execution.test_runner import write_preset
from tests.reports.conftest import Fake, write_fake
from tests.runs import make_run

URL = "s3://KEY1:SECRET2@bucket/runs?token=SECRET3&part=2"


def clean(text: str) -> bool:
    return not any(word in text for word in ("KEY1", "SECRET2", "SECRET3"))


class Idle:
    """An engine that has a machine and does nothing."""

    score_batch = 64

    def start(self) -> Facts:
        return Facts({"machine_key": "m", "weights": "w", "device": "cpu"}, 64)

    def run(self, *arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    def close(self) -> None:
        pass


def test_a_record_of_a_run_has_no_credentials(folders: dict[str, Path], tmp_path: Path) -> None:
    experiment = prepare(str(write_preset(tmp_path, folders["dit"])), {}, []).experiment
    engine: Any = Idle()
    runner = Runner(experiment, engine, tmp_path / "runs", Console(quiet=True), command=f"ilf-bench run x --out '{URL}'")
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    texts = [path.read_text() for path in (tmp_path / "runs").rglob("*.json")]
    assert texts and all(map(clean, texts)) and any("s3://***@bucket/runs?token=***&part=2" in text for text in texts)


def test_a_history_has_no_credentials_and_still_finds_the_folder(tmp_path: Path) -> None:
    history, run = History(tmp_path / "history.sqlite"), make_run(tmp_path / "s3://KEY1:SECRET2@b")
    history.append(run)
    entry = history.runs()[0]
    assert clean(str(entry.path)) and all(clean(path.read_bytes().decode("latin-1")) for path in tmp_path.glob("history*"))
    (tmp_path / "plain").mkdir()
    Layout(tmp_path / "plain").spec.write_text("{}")
    history.append(make_run(tmp_path / "plain", 1))
    assert folder_on_disk(history.runs()[-1], tmp_path) == tmp_path / "plain"


@pytest.mark.parametrize(
    "command",
    [
        ["report", URL],
        ["report", "https://KEY1:SECRET2@127.0.0.1:9/x"],
        ["run", "tiny-text", "--prompts", URL],
        ["run", "tiny-text", "--out", "nothing://KEY1:SECRET2@h"],
        ["run", "https://KEY1:SECRET2@h/preset.yaml"],
        ["run", "tiny-text", "--pipeline", "https://KEY1:SECRET2@h/model"],
        ["run", "tiny-text", "--reference", "https://KEY1:SECRET2@h/r.npz"],
        ["compare", "https://KEY1:SECRET2@h/a", "b"],
        ["tag", "x", "https://KEY1:SECRET2@h/a"],
        ["bundle", "https://KEY1:SECRET2@h/a"],
    ],
    ids=lambda command: " ".join(command[:3]),
)
def test_an_error_has_no_credentials(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, *(["--out", str(tmp_path)] if command[0] in ("compare", "tag") else [])]) != 0
    said = "".join(capsys.readouterr())
    assert said and clean(said) and "Traceback" not in said


def test_pages_and_junit_of_somebody_elses_run_have_no_credentials(tmp_path: Path) -> None:
    label, run = f"12 steps {URL}", tmp_path / "run"
    methods = {"full": (20, 480, 1.0, 10.0), label: (12, 288, 0.6, 9.0), "ilf(steps=10)": (10, 240, 0.5, 9.9)}
    write_fake(run, Fake(methods=methods, n=8, rounds=3))
    for name in ("title", "prompts", "reference"):
        write_json(Layout(run).spec, read_json(Layout(run).spec) | {name: URL})
    for folder in Layout(run).sample_folders():
        manifest = read_json(folder.manifest)
        samples = [sample | {"prompt": f"{URL} it's"} for sample in manifest["samples"]]
        write_json(folder.manifest, manifest | {"samples": samples})
    build_report(run)
    junit, out = tmp_path / "gate.xml", str(tmp_path)
    other = write_fake(tmp_path / "other", Fake(methods=methods, n=8, rounds=3, timing_seed=1)).path
    main(["gate", str(run), "--against", str(other), "--junit", str(junit), "--out", out])
    pages = [page for page in (run / "report").iterdir() if page.is_file()]
    assert {page.name for page in pages} >= {"index.html", "gallery.html", "report.md", "report.csv"}
    for page in (*pages, junit):
        assert clean(page.read_text()), page
    assert "s3://***@bucket" in junit.read_text() and "s3://***@bucket" in (run / "report" / "index.html").read_text()


def test_a_record_has_no_credentials_in_the_texts_of_its_preset(folders: dict[str, Path], tmp_path: Path) -> None:
    experiment = prepare(str(write_preset(tmp_path, folders["dit"])), {"title": URL}, []).experiment
    engine: Any = Idle()
    for _ in range(2):  # the second call compares what it finds with what it would write
        with pytest.raises(KeyboardInterrupt):
            Runner(experiment, engine, tmp_path / "runs", Console(quiet=True), command="ilf-bench run x").run()
    assert read_json(next((tmp_path / "runs").rglob("spec.json")))["title"] == "s3://***@bucket/runs?token=***&part=2"
