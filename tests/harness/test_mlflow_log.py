"""The history in a real MLflow file store."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.store import History
from tests.harness.test_store import make_run

mlflow = pytest.importorskip("mlflow")


def test_each_run_is_logged_once_with_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.mlflow_log import TAG, log_history

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
