"""Exports of the history: everything comes back, twice changes nothing, and what was altered or is foreign is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ArtifactError, UsageError
from harness.history.export import export_history, import_history
from harness.history.store import History
from tests.runs import make_run, whole_run

KINDS = ("json", "parquet")


@pytest.fixture
def history(tmp_path: Path) -> History:
    """Three runs, one of them with tags, and one with a record of every kind."""
    history = History(tmp_path / "h.sqlite")
    history.append(whole_run(tmp_path / "whole"))
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
        assert import_history(other, target).runs == 3
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
    record = run["record"]
    if change == "value":
        record["arrays"][0][4][3] += 1e-9
    elif change == "time":
        record["records"]["timing/000.json"][0]["latency_s"] *= 0.9
    elif change == "commit":
        record["records"]["environment.json"]["commit"] = "another"
    elif change == "dtype":
        record["arrays"][0][2] = "object"
    elif change == "lost":
        del record["arrays"]
    elif change == "deleted":
        del record["records"]["timing/000.json"]
    elif change == "later":
        content["format"] = 99
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
        ("deleted", "altered"),
        ("later", "got record format 99"),
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


def test_what_is_derived_is_computed_again(history: History, tmp_path: Path) -> None:
    """An interval, and the columns of the list of runs, follow from the record and not from what an export says of them."""
    export_history(history, tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    for run in content["runs"]:
        run["record"]["intervals"] = {name: [0.0, 0.0] for name in run["record"]["intervals"]}
        run["commit_id"] = "another"
    (tmp_path / "out.json").write_text(json.dumps(content))
    other = History(tmp_path / "other.sqlite")
    import_history(other, tmp_path / "out.json")
    assert other.runs() == history.runs()


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
