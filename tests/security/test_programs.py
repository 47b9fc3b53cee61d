"""A run or a bundle whose records name a program as a scorer starts nothing, whatever is done with it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from harness.history.bundle import write_bundle
from harness.history.export import export_history
from harness.history.store import History
from harness.storage.layout import Layout
from harness.storage.records import read_json, read_run, write_json
from ilf_bench.cli import main
from tests.published import draw_images, save_images
from tests.runs import whole_run

pytest.importorskip("pyarrow")
COMMANDS = {
    "verify a run": "verify theirs --out theirs-runs",
    "verify a bundle": "verify theirs.zip",
    "extract a bundle": "verify theirs.zip --extract unpacked",
    "report a run": "report theirs --out page",
    "report an extracted bundle": "report unpacked --out page",
    "import a JSON export": "import theirs.json --out mine",
    "import a Parquet export": "import theirs.parquet --out mine",
    "leaderboard": "leaderboard theirs.zip --html site",
    "bundle": "bundle theirs again.zip",
    "compare": "compare theirs theirs --out theirs-runs",
    "history": "history --out theirs-runs",
}


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the program of a stranger's scorers' file says that it was started. In the present folder lie their run, its bundle
    and exports of their history, and in each of them the file is named as relative and as absolute path, with its content.
    """
    monkeypatch.chdir(tmp_path)
    for variable in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    commands = {"good": {"command": [sys.executable, "-c", f"open({str(tmp_path / 'started')!r}, 'w')"]}}
    Path("scorers.yaml").write_text(yaml.safe_dump({"commands": commands, "bundled": "zoo/scorers"}))
    whole_run(Path("theirs"))
    spec = Layout(Path("theirs")).spec
    named = {"scorers": "scorers.yaml", "commands": commands, "options": {"scorers": str(Path("scorers.yaml").resolve())}}
    write_json(spec, {**read_json(spec), **named})
    history = History(Path("theirs-runs") / "history.sqlite")
    history.append(read_run(Path("theirs")))
    write_bundle(Path("theirs"), Path("theirs.zip"))
    for kind in ("json", "parquet"):
        export_history(history, Path(f"theirs.{kind}"))
    return tmp_path / "started"


@pytest.mark.parametrize("what", COMMANDS)
def test_records_that_name_a_program_start_nothing(what: str, marker: Path) -> None:
    if "extracted" in what:
        assert main(["verify", "theirs.zip", "--extract", "unpacked"]) == 0
    assert main(COMMANDS[what].split()) == 0
    assert not marker.exists()


def test_the_same_file_named_by_the_user_starts_it(marker: Path) -> None:
    save_images(draw_images(2, side=32), Path("images"))
    Path("prompts.txt").write_text("a cat\n" * 2)
    main(["score", "images", "--prompts", "prompts.txt", "--metrics", "good", "--scorers", "scorers.yaml"])
    assert marker.exists()
