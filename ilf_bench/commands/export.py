"""``ilf-bench export``: the history as JSON, as Parquet, or in a tracker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.errors import UsageError
from ilf_bench.console import print_line
from ilf_bench.options import DEFAULT_OUT, WRITTEN, Out, Track


def export(
    target: Annotated[Path | None, typer.Argument(**WRITTEN, help="FILE.json, or FOLDER.parquet for three tables.")] = None,
    tracker: Track = None,
    out: Out = DEFAULT_OUT,
) -> None:
    """Write the whole history as JSON or Parquet, or log it to MLflow, Weights & Biases or TensorBoard."""
    from harness.history.export import export_history
    from ilf_bench.lookup import kept_history, track

    if target is None and tracker is None:
        raise UsageError(expected="FILE.json, FOLDER.parquet or --track", got="neither", remedy="ilf-bench export history.json")
    history, done = kept_history(out), []
    if target is not None:
        done.append(f"{export_history(history, target)} runs written to {target}")
    if tracker is not None:
        from reports.tracking.open import open_tracker

        done.append(track(out, open_tracker(tracker, out)))
    print_line("; ".join(done))
