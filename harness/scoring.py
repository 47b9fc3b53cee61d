"""Scoring: all metrics of a method in one pass over its images, then each one's summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.progress import Progress

from harness.contracts import BASELINE, Batch, Failure, FloatArray, Metric, Score, Unmeasurable
from harness.errors import HarnessError
from harness.records import read_json, slug, write_array, write_score
from harness.samples import SampleSet

SCORE_BATCH = 64
Guard = Callable[[str, str, Callable[[], None]], bool]


class Scorer:
    """Measures a run's sample sets. ``guard`` turns the failure of one metric into a record and stops no other."""

    def __init__(
        self, folder: Path, metrics: Mapping[str, Metric | Failure], samples: Callable[[str], SampleSet], guard: Guard
    ) -> None:
        self.folder, self.metrics, self.samples, self.guard = folder, metrics, samples, guard

    def score(self, label: str, progress: Progress) -> None:
        """Measure every metric that this folder lacks; one that could not be built leaves its reason."""
        wanted = {n: m for n, m in self.metrics.items() if not self._is_scored(label, n, m)}
        for metric in wanted.values():
            if isinstance(metric, Failure):
                write_score(self.folder, replace(metric, method=label))
        built = {name: metric for name, metric in wanted.items() if not isinstance(metric, Failure)}
        rows, broken = self._measure(label, built, progress)
        for name, metric in built.items():
            self.guard(label, name, partial(self._summarise, label, name, metric, rows[name], broken.get(name)))

    def _measure(
        self, label: str, built: Mapping[str, Metric], progress: Progress
    ) -> tuple[dict[str, list[FloatArray]], dict[str, Exception]]:
        """Measurements by metric, in batches, and what went wrong."""
        rows: dict[str, list[FloatArray]] = {name: [] for name in built}
        broken: dict[str, Exception] = {}
        samples, full = self.samples(label), self.samples(BASELINE)
        task = progress.add_task(f"score {label}", total=len(samples.prompts))
        for indices in samples.batches(SCORE_BATCH) if built else ():
            paired = full.load(indices) if (full.folder / "manifest.json").exists() else None
            batch = Batch(samples.load(indices), [samples.prompts[i] for i in indices], list(indices), paired)
            for name, metric in built.items():
                if name not in broken:
                    try:
                        rows[name].append(metric.measure(batch))
                    except (HarnessError, Unmeasurable, RuntimeError, ValueError) as error:
                        broken[name] = error
            progress.advance(task, len(indices))
        progress.update(task, completed=len(samples.prompts))
        return rows, broken

    def _is_scored(self, label: str, name: str, metric: Metric | Failure) -> bool:
        """Whether this very metric (same fingerprint) has been scored, successfully, in this folder."""
        path = self.folder / "scores" / slug(label) / f"{name}.json"
        if isinstance(metric, Failure) or not path.exists():
            return False
        return bool(read_json(path).get("fingerprint") == dict(metric.fingerprint()))

    def _summarise(self, label: str, name: str, metric: Metric, rows: list[FloatArray], error: Exception | None) -> None:
        if error is not None:
            raise error
        measured = np.concatenate(rows)
        write_array(self.folder / "measurements" / slug(label) / f"{name}.npy", measured)
        per_image = metric.summarise(measured)
        score = Score(
            label, name, metric.title, metric.unit, metric.direction, metric.tiny, float(np.mean(per_image)), len(per_image),
            dict(metric.fingerprint()), per_image,
        )  # fmt: skip
        if not np.isfinite(score.per_image).all():
            raise Unmeasurable("some per-image values are not finite")
        write_score(self.folder, score)
