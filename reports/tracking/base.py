"""What a tracker is told about a run, whichever tracker it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from harness.errors import ArtifactError
from harness.history.packing import inline
from harness.history.store import History, HistoryEntry
from harness.storage.layout import Layout, slug
from harness.storage.locations import is_local
from harness.storage.records import Run, read_run
from reports.analysis.overview import Overview, overview
from reports.render.grid import labelled_grid, stored_samples
from reports.render.markdown import escaped_table
from reports.render.words import rival_text

COLUMNS = ("method", "speed-up", "speed-up low", "speed-up high", "better than fewer steps", "fewer steps at equal cost")


@dataclass(frozen=True)
class Scalar:
    """One number. ``step`` is the timing round of a time, and 0 for all else."""

    name: str
    value: float
    step: int = 0


@dataclass(frozen=True)
class Tracked:
    """One recorded run, as trackers take it. ``folder``: where its images and report lie; None where they are not available."""

    entry: HistoryEntry
    history: History
    folder: Path | None

    @property
    def tags(self) -> dict[str, str]:
        """What identifies the run."""
        entry = self.entry
        return {
            "run_id": entry.run_id,
            "commit": entry.commit,
            "dirty": str(entry.dirty),
            "spec_digest": entry.spec_digest,
            "machine_key": entry.machine_key,
            "complete": str(entry.complete),
            "tags": ", ".join(entry.tags),
        }

    @property
    def config(self) -> Mapping[str, Any]:
        """The specification: model, methods, steps, prompts, seed, precision."""
        return self.entry.spec

    @property
    def milliseconds(self) -> int:
        """When the run began, since 1970; 0 where its record does not say."""
        try:
            return int(datetime.fromisoformat(self.entry.created).timestamp() * 1000)
        except ValueError:
            return 0

    def scalars(self) -> Iterator[Scalar]:
        """Scores, speed-ups over the full run, and seconds per image of every timing round, named METHOD/WHAT."""
        for score in self.entry.scores:
            if score.value is not None:
                yield Scalar(f"{slug(score.method)}/{score.metric}", score.value)
        for line in self._overview.lines:
            if line.speed_up is not None:
                yield Scalar(f"{slug(line.label)}/speed_up", line.speed_up.value)
        for timing in self.entry.timings:
            yield Scalar(f"{slug(timing.method)}/seconds_per_image", timing.latency_s / timing.batch, timing.round)

    def verdicts(self) -> list[tuple[str, float | None, float | None, float | None, str, str]]:
        """One row of :data:`COLUMNS` a method, the fastest first; no verdict for rows of fewer steps."""
        return [
            (
                line.label,
                *((line.speed_up.value, line.speed_up.low, line.speed_up.high) if line.speed_up else (None, None, None)),
                line.answer.text if line.answer else "",
                rival_text(line.rival),
            )
            for line in self._overview.lines
        ]

    def markdown(self) -> str:
        """:meth:`verdicts` as a table."""
        rows = [[_cell(value) for value in row] for row in self.verdicts()]
        return escaped_table(COLUMNS, rows)

    def record(self) -> str:
        """The whole record as JSON, with every raw time and the score of every image."""
        return json.dumps(inline(self.history.packed(self.entry.run_id)), indent=1)

    def samples(self) -> Image.Image | None:
        """A few prompts, a row for each method; None where the images are not available."""
        return labelled_grid(stored_samples(read_run(self.folder))) if self.folder else None

    def report(self) -> Path | None:
        """The folder of the report, None where there is none."""
        folder = Layout(self.folder).report if self.folder and is_local(self.folder) else None
        return folder if folder and (folder / "index.html").is_file() else None

    @cached_property
    def _run(self) -> Run:
        return self.history.load(self.entry.run_id)

    @cached_property
    def _overview(self) -> Overview:
        return overview(self._run)


class Tracker(Protocol):
    """Where runs are logged. Both methods raise :class:`ArtifactError` where the store cannot be used."""

    where: str

    def has(self, entry: HistoryEntry) -> bool:
        """Whether the run is there whole; one whose logging was cut short is logged again."""

    def log(self, run: Tracked) -> None:
        """Log all of the run."""


def log_history(history: History, tracker: Tracker, folders: Mapping[str, Path]) -> tuple[int, int]:
    """Log every run that ``tracker`` lacks; returns (new, all). ``folders``: by run id, where its images and report lie."""
    entries = history.runs()
    new = [entry for entry in entries if not tracker.has(entry)]
    for entry in new:
        tracker.log(Tracked(entry, history, folders.get(entry.run_id)))
    return len(new), len(entries)


def unusable(where: str, error: Exception) -> ArtifactError:
    """The error for a store that refuses."""
    said = str(error).splitlines() or [type(error).__name__]
    return ArtifactError(expected=f"a usable store at {where}", got=said[0], remedy="check its address and your credentials")


def _cell(value: float | str | None) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else value


def emptied(folder: Path) -> Path:
    """``folder``, new and empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
