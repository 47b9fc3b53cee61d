"""Weights & Biases: a run for each run, grouped by preset. Needs the extra ``wandb``.

``WANDB_MODE=offline`` writes the runs below OUT/wandb, where ``wandb sync`` takes them from, and contacts nobody.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.history.store import HistoryEntry
from reports.tracking.base import COLUMNS, Tracked, unusable

PROJECT = "ilf-bench"


class WandbTracker:
    """The project ``project`` (``ENTITY/PROJECT``, ``PROJECT`` or empty: ``ilf-bench``); its files lie in ``out``/wandb."""

    def __init__(self, project: str, out: Path) -> None:
        self.wandb = _import()
        entity, _, name = project.rpartition("/")
        self.entity, self.project, self.out = entity or None, name or PROJECT, out
        self.where = f"wandb:{project or PROJECT}"

    @property
    def is_offline(self) -> bool:
        """Whether runs are only written to disk."""
        return os.environ.get("WANDB_MODE") == "offline"

    def has(self, entry: HistoryEntry) -> bool:
        """Whether a finished run has its id: on disk where offline, else at the server."""
        if self.is_offline:
            return self._done(entry).exists()
        path = "/".join(part for part in (self.entity, self.project, _identity(entry)) if part)
        try:
            return bool(self.wandb.Api().run(path).state == "finished")
        except ValueError:  # no such run
            return False
        except self.wandb.errors.Error as error:
            if "could not find" in str(error).lower() or "not found" in str(error).lower():
                return False
            raise unusable(self.where, error) from error

    def log(self, run: Tracked) -> None:
        """Scalars, configuration, a table of verdicts, samples; record and report as one artifact."""
        try:
            with self._started(run) as started:
                self._numbers(started, run)
                started.log({"verdicts": self.wandb.Table(columns=list(COLUMNS), data=[list(row) for row in run.verdicts()])})
                if samples := run.samples():
                    started.log({"samples": self.wandb.Image(samples)})
                self._files(started, run)
        except self.wandb.errors.Error as error:
            raise unusable(self.where, error) from error
        if self.is_offline:
            self.wandb.teardown()  # what a finished run wrote reaches the disk when the package's own process ends
            self._done(run.entry).touch()

    @contextmanager
    def _started(self, run: Tracked) -> Iterator[Any]:
        self.out.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = {
            "entity": self.entity, "project": self.project, "dir": str(self.out), "group": run.entry.preset,
            "id": _identity(run.entry), "name": run.entry.run_id[:12], "config": {**run.config, "run": run.tags},
            "tags": list(run.entry.tags), "save_code": False,
            "settings": self.wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True),
        }  # fmt: skip
        with self.wandb.init(**options) as started:
            yield started

    def _numbers(self, started: Any, run: Tracked) -> None:
        """Each timing round is one step; what has no rounds is the run's summary."""
        scalars = sorted(run.scalars(), key=lambda scalar: scalar.step)
        rounds = [scalar for scalar in scalars if scalar.name.endswith("/seconds_per_image")]
        for step, group in groupby(rounds, key=lambda scalar: scalar.step):
            started.log({"round": step, **{scalar.name: scalar.value for scalar in group}})
        started.summary.update({scalar.name: scalar.value for scalar in scalars if scalar not in rounds})

    def _files(self, started: Any, run: Tracked) -> None:
        artifact = self.wandb.Artifact(f"run-{run.entry.run_id[:12]}", type="ilf-bench-run", metadata=run.tags)
        with artifact.new_file("record.json", mode="w") as file:
            file.write(run.record())
        if report := run.report():
            artifact.add_dir(str(report), name="report")
        started.log_artifact(artifact)

    def _done(self, entry: HistoryEntry) -> Path:
        return self.out / "wandb" / f"{_identity(entry)}.complete"


def _identity(entry: HistoryEntry) -> str:
    return f"ilf-{entry.run_id[:24]}"


def _import() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise UsageError(expected="wandb", got="none installed", remedy="pip install 'wandb<0.29'") from error
    return wandb
