"""The history in a real MLflow file store."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.history.store import History
from ilf_bench import experiment as run_command
from ilf_bench import outcome
from ilf_bench.cli import main
from tests.runs import make_run


def test_without_mlflow_nothing_is_sampled(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setattr(run_command, "execute", lambda *_: pytest.fail("it ran"))
    assert main(["run", "tiny-text", "--mlflow", ""]) == 64
    said = capsys.readouterr().err
    assert said.startswith("error: expected mlflow; got none installed; remedy: pip install") and "mlflow-skinny" in said


def test_a_run_is_logged_when_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mlflow = pytest.importorskip("mlflow")

    def execute(prepared: Any, out: Path, *_: object, **options: object) -> SimpleNamespace:
        History(out / "history.sqlite").append(make_run(tmp_path / "1", 1))
        return SimpleNamespace(failures=[])

    monkeypatch.setattr(outcome, "print_executed", lambda *_: None)
    monkeypatch.setattr(run_command, "execute", execute)
    assert main(["run", "tiny-text", "--out", str(tmp_path), "--mlflow", ""]) == 0
    assert "1 of 1 runs were new to MLflow" in capsys.readouterr().out
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    assert client.get_experiment_by_name("tiny-text") is not None


def test_each_run_is_logged_once_with_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    from harness.history.mlflow import TAG, log_history

    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    history = History(tmp_path / "h.sqlite")
    first = history.append(make_run(tmp_path / "1", 1))
    assert log_history(history, "") == (1, 1)
    history.append(make_run(tmp_path / "2", 2))
    assert log_history(history, "") == (1, 2)
    assert log_history(history, "") == (0, 2)
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("tiny-text")
    assert len(client.search_runs([experiment.experiment_id])) == 2
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`{TAG}` = '{first}'")
    (score,) = [value for name, value in run.data.metrics.items() if name.endswith("/good")]
    assert score == pytest.approx(next(s.value for s in history.find(first).scores if s.metric == "good"))
    (times,) = [name for name in run.data.metrics if name.endswith("/seconds_per_image")]
    assert [m.value for m in client.get_metric_history(run.info.run_id, times)] == [0.25, 0.5, 0.75]
    assert run.data.tags["commit"] == "abc" and run.data.params["name"] == "tiny-text"
    assert [f.path for f in client.list_artifacts(run.info.run_id)] == ["record.json"]
