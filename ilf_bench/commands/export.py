"""``ilf-bench export``: the history as JSON, as Parquet, or in MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.errors import UsageError
from ilf_bench.console import print_line
from ilf_bench.options import DEFAULT_OUT, Out


def export(
    target: Annotated[Path | None, typer.Argument(help="FILE.json, or FOLDER.parquet for three tables.")] = None,
    mlflow: Annotated[str | None, typer.Option(help="Also log to this MLflow store; '' means OUT/mlruns.")] = None,
    out: Out = DEFAULT_OUT,
) -> None:
    """Write the whole history as JSON, Parquet or to MLflow."""
    from harness.history.export import export_history
    from ilf_bench.lookup import kept_history, logged_to_mlflow

    if target is None and mlflow is None:
        raise UsageError(expected="FILE.json, FOLDER.parquet or --mlflow", got="neither", remedy="ilf-bench export history.json")
    history, done = kept_history(out), []
    if target is not None:
        done.append(f"{export_history(history, target)} runs written to {target}")
    if mlflow is not None:
        done.append(logged_to_mlflow(history, mlflow))
    print_line("; ".join(done))
