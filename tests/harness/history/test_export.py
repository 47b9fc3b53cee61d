"""Exports of the history: everything comes back, twice changes nothing, and what was altered or is foreign is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ArtifactError, UsageError
from harness.history.export import export_history, import_history
from harness.history.store import History
from tests.harness.history.test_store import make_run, write_version_1

KINDS = ("json", "parquet")


@pytest.fixture
def history(tmp_path: Path) -> History:
    """Two whole runs, one with tags, and one that version 1 left behind."""
    path = tmp_path / "h.sqlite"
    write_version_1(path, make_run(tmp_path / "old", 0))
    history = History(path)
    first, _ = (history.append(make_run(tmp_path / str(seed), seed)) for seed in (1, 2))
    history.tag("baseline", first)
    history.tag("good", first)
    return history


@pytest.mark.parametrize("kind", KINDS)
def test_everything_comes_back_and_only_once(history: History, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("pyarrow")
    target = tmp_path / f"out.{kind}"
    assert export_history(history, target) == 3
    other = History(tmp_path / "other.sqlite")
    for _ in range(2):
        assert import_history(other, target) == 3
    assert list(other.exported()) == list(history.exported())
    assert [entry.run_id for entry in other.runs()] == [entry.run_id for entry in history.runs()]
    assert other.find("baseline").run_id == history.find("baseline").run_id


@pytest.mark.parametrize("kind", KINDS)
def test_an_import_adds_to_what_is_there(history: History, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("pyarrow")
    export_history(history, tmp_path / f"out.{kind}")
    other = History(tmp_path / "other.sqlite")
    other.append(make_run(tmp_path / "own", 4))
    import_history(other, tmp_path / f"out.{kind}")
    assert len(other.runs()) == 4


def _alter(path: Path, change: str) -> None:
    content: dict[str, Any] = json.loads(path.read_text())
    run = content["runs"][-1]
    if change == "value":
        run["record"]["scores"][0]["per_image"][3] += 1e-9
    elif change == "time":
        run["record"]["timings"][0]["latency_s"] *= 0.9
    elif change == "commit":
        run["record"]["environment"]["commit"] = "another"
    elif change == "dtype":
        run["record"]["scores"][0]["dtype"] = "object"
    elif change == "lost":
        del run["record"]["scores"]
    elif change == "later":
        content["version"] = 99
    elif change == "foreign":
        content["kind"] = "something else"
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("value", "altered after the export"),
        ("time", "altered"),
        ("commit", "altered"),
        ("dtype", "values of type object"),
        ("lost", "an exported record"),
        ("later", "got version 99"),
        ("foreign", "another file"),
    ],
)
def test_altered_exports_are_refused_and_nothing_is_written(history: History, tmp_path: Path, change: str, message: str) -> None:
    export_history(history, tmp_path / "out.json")
    _alter(tmp_path / "out.json", change)
    other = History(tmp_path / "other.sqlite")
    with pytest.raises(ArtifactError, match=message):
        import_history(other, tmp_path / "out.json")
    assert other.runs() == ()


def test_other_files_are_refused(tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    with pytest.raises(UsageError, match=r"\.json or \.parquet"):
        export_history(history, tmp_path / "out.csv")
    (tmp_path / "cut.json").write_text('{"kind": "ilf-b')
    with pytest.raises(ArtifactError, match="readable JSON"):
        import_history(history, tmp_path / "cut.json")
    pytest.importorskip("pyarrow")
    (tmp_path / "cut.parquet").mkdir()
    (tmp_path / "cut.parquet" / "scores.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match="runs, scores and timings"):
        import_history(history, tmp_path / "cut.parquet")
