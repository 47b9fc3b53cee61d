"""TensorBoard: a folder of events for each run. Needs the extra ``tensorboard``; ``tensorboard --logdir FOLDER`` shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import UsageError
from harness.history.store import HistoryEntry
from harness.storage.locations import local_path
from reports.tracking.base import Tracked, emptied

DONE = "complete"  # written last: without it a run's folder is written again


class TensorboardTracker:
    """The folder ``folder`` of runs; empty: ``tensorboard`` in ``out``."""

    def __init__(self, folder: str, out: Path) -> None:
        self.writer = _import()
        self.folder = local_path(folder) if folder else out / "tensorboard"
        self.where = str(self.folder)

    def has(self, entry: HistoryEntry) -> bool:
        """Whether the run's folder was finished."""
        return (self._place(entry) / DONE).exists()

    def log(self, run: Tracked) -> None:
        """Scalars; the verdicts, the specification and the tags as texts; samples as an image."""
        place = emptied(self._place(run.entry))
        second = run.milliseconds / 1000
        with self.writer(logdir=str(place)) as events:
            for scalar in run.scalars():
                events.add_scalar(scalar.name, scalar.value, scalar.step, walltime=second)
            events.add_text("verdicts", run.markdown(), walltime=second)
            described = json.dumps({**run.tags, **run.config}, indent=2)
            events.add_text("specification", "    " + described.replace("\n", "\n    "), walltime=second)
            if samples := run.samples():
                events.add_image("samples", np.asarray(samples), walltime=second, dataformats="HWC")
        (place / DONE).touch()

    def _place(self, entry: HistoryEntry) -> Path:
        return self.folder / entry.run_id[:12]


def _import() -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UsageError(expected="tensorboardX", got="none installed", remedy="pip install tensorboardX") from error
    return SummaryWriter
