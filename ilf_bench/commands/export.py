"""``ilf-bench export`` and ``ilf-bench import``: the history as JSON, as Parquet, or in MLflow."""

from __future__ import annotations

from pathlib import Path

from harness.errors import UsageError
from harness.history.export import export_history, import_history
from ilf_bench.commands.lookup import kept_history, open_history


def export(out: Path, target: Path | None, mlflow: str | None) -> str:
    """Write the history to a file and, where asked, to MLflow; returns a sentence."""
    if target is None and mlflow is None:
        raise UsageError(expected="FILE.json, FOLDER.parquet or --mlflow", got="neither", remedy="ilf-bench export history.json")
    history, done = kept_history(out), []
    if target is not None:
        done.append(f"{export_history(history, target)} runs written to {target}")
    if mlflow is not None:
        from harness.history.mlflow import log_history

        new, all_runs = log_history(history, mlflow)
        done.append(f"{new} of {all_runs} runs were new to MLflow at {mlflow or 'its default store'}")
    return "; ".join(done)


def import_(out: Path, source: Path) -> str:
    """Read an export into the history; returns a sentence."""
    return f"{import_history(open_history(out), source)} runs of {source} are in the history"
