"""The history in MLflow: an experiment a preset, a run for each run, never the same one twice. Needs the extra ``mlflow``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from harness.errors import ArtifactError, UsageError
from harness.history.packing import inline
from harness.history.store import History, HistoryEntry
from harness.storage.layout import slug

TAG = "ilf-bench.run_id"
BATCH = 500  # metrics in one call; MLflow takes at most 1,000 entities


def log_history(history: History, uri: str) -> tuple[int, int]:
    """Log every run that the MLflow store at ``uri`` lacks; returns (new, all). Empty: a file store beside the history."""
    mlflow = import_mlflow()
    if not uri:
        # MLflow keeps its file store in maintenance and opens it only where asked to; it needs no server and no database.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        uri = (history.path.parent / "mlruns").resolve().as_uri()
    entries, new = history.runs(), 0
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        for entry in entries:
            new += _log(client, mlflow, history, entry)
    except mlflow.exceptions.MlflowException as error:
        raise ArtifactError(
            expected=f"a usable MLflow store at {uri}", got=str(error).splitlines()[0], remedy="see MLflow's own documentation"
        ) from error
    return new, len(entries)


def import_mlflow() -> Any:
    """The package, or a :class:`UsageError` that says how to install it."""
    try:
        import mlflow
    except ImportError as error:
        raise UsageError(expected="mlflow", got="none installed", remedy="pip install mlflow-skinny") from error
    return mlflow


def _log(client: Any, mlflow: Any, history: History, entry: HistoryEntry) -> bool:
    """Whether the run was new. A run counts as logged once it is finished: a cut one is logged again."""
    found = client.get_experiment_by_name(entry.preset)
    experiment = found.experiment_id if found else client.create_experiment(entry.preset)
    logged = client.search_runs([experiment], f"tags.`{TAG}` = '{entry.run_id}' and attributes.status = 'FINISHED'")
    if logged:
        return False
    tags = {
        TAG: entry.run_id,
        "commit": entry.commit,
        "dirty": str(entry.dirty),
        "spec_digest": entry.spec_digest,
        "machine_key": entry.machine_key,
        "complete": str(entry.complete),
        "tags": ", ".join(entry.tags),
    }
    moment = _milliseconds(entry.created)
    run = client.create_run(experiment, start_time=moment, tags=tags, run_name=entry.run_id[:12]).info.run_id
    metrics = [mlflow.entities.Metric(name, value, moment, step) for name, value, step in _numbers(entry)]
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run, metrics=metrics[start : start + BATCH])
    params = [mlflow.entities.Param(key, str(value)[:6000]) for key, value in entry.spec.items()]
    client.log_batch(run, params=params)
    client.log_text(run, json.dumps(inline(history.packed(entry.run_id)), indent=1), "record.json")
    client.set_terminated(run)
    return True


def _numbers(entry: HistoryEntry) -> Iterator[tuple[str, float, int]]:
    """(name, value, step): scores at step 0 and seconds per image at their round. Labels become names that MLflow takes."""
    for score in entry.scores:
        if score.value is not None:
            yield f"{slug(score.method)}/{score.metric}", score.value, 0
    for timing in entry.timings:
        yield f"{slug(timing.method)}/seconds_per_image", timing.latency_s / timing.batch, timing.round


def _milliseconds(created: str) -> int:
    try:
        return int(datetime.fromisoformat(created).timestamp() * 1000)
    except ValueError:
        return 0
