"""MLflow: an experiment for each preset, a run for each run. Needs the extra ``mlflow``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.history.store import HistoryEntry
from reports.tracking.base import Tracked, unusable

TAG = "ilf-bench.run_id"
BATCH = 500  # metrics in one call; MLflow takes at most 1,000 entities


class MlflowTracker:
    """The MLflow store at ``uri``; empty: a file store ``mlruns`` in ``out``."""

    def __init__(self, uri: str, out: Path) -> None:
        self.mlflow = _import()
        if not uri:
            # MLflow keeps its file store in maintenance and opens it only where asked to; it needs no server and no database.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (out / "mlruns").resolve().as_uri()
        self.where = uri

    def has(self, entry: HistoryEntry) -> bool:
        """Whether a finished run has its id."""
        try:
            client = self._client()
            found = client.get_experiment_by_name(entry.preset)
            wanted = f"tags.`{TAG}` = '{entry.run_id}' and attributes.status = 'FINISHED'"
            return found is not None and bool(client.search_runs([found.experiment_id], wanted))
        except self.mlflow.exceptions.MlflowException as error:
            raise unusable(self.where, error) from error

    def log(self, run: Tracked) -> None:
        """Metrics, parameters, record, verdicts, samples and report."""
        try:
            self._log(self._client(), run)
        except self.mlflow.exceptions.MlflowException as error:
            raise unusable(self.where, error) from error

    def _client(self) -> Any:
        return self.mlflow.MlflowClient(tracking_uri=self.where)

    def _log(self, client: Any, run: Tracked) -> None:
        found = client.get_experiment_by_name(run.entry.preset)
        experiment = found.experiment_id if found else client.create_experiment(run.entry.preset)
        tags = {TAG if name == "run_id" else name: value for name, value in run.tags.items()}
        name = run.entry.run_id[:12]
        logged = client.create_run(experiment, start_time=run.milliseconds, tags=tags, run_name=name).info.run_id
        metric = self.mlflow.entities.Metric
        metrics = [metric(scalar.name, scalar.value, run.milliseconds, scalar.step) for scalar in run.scalars()]
        for start in range(0, len(metrics), BATCH):
            client.log_batch(logged, metrics=metrics[start : start + BATCH])
        client.log_batch(logged, params=[self.mlflow.entities.Param(key, str(value)[:6000]) for key, value in run.config.items()])
        client.log_text(logged, run.record(), "record.json")
        client.log_text(logged, run.markdown(), "verdicts.md")
        if samples := run.samples():
            client.log_image(logged, samples, "samples.png")
        if report := run.report():
            client.log_artifacts(logged, str(report), "report")
        client.set_terminated(logged)


def _import() -> Any:
    try:
        import mlflow
    except ImportError as error:
        raise UsageError(expected="mlflow", got="none installed", remedy="pip install 'mlflow-skinny>=3,<4'") from error
    return mlflow
