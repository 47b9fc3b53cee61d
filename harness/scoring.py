"""Scoring: each measurement in one pass over a method's images, then the summary of every metric that uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from harness.contracts import BASELINE, Batch, Failure, FloatArray, Metric, Score, Unmeasurable
from harness.controls import CONTROLS, IDENTICAL, IMAGES, control_batch
from harness.errors import HarnessError
from harness.records import read_json, read_measurement, slug, write_measurement, write_score
from harness.samples import SampleSet

SCORE_BATCH = 64
REPEAT = 1e-3  # of the largest measurement: what another batch size may change
FORESEEN = (HarnessError, Unmeasurable, RuntimeError, ValueError)
Guard = Callable[[str, str, Callable[[], None]], bool]


def by_measurement(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """One metric for each distinct measurement: the others read what it has measured."""
    return {metric.measurement: metric for metric in metrics.values()}


@dataclass
class Measured:
    """Measurements [N, d] by name, and what went wrong instead."""

    rows: dict[str, FloatArray] = field(default_factory=dict)
    broken: dict[str, Exception] = field(default_factory=dict)

    def of(self, metric: Metric) -> FloatArray:
        """A metric's measurements; raises what went wrong."""
        if metric.measurement in self.broken:
            raise self.broken[metric.measurement]
        return self.rows[metric.measurement]


def measure(metrics: Mapping[str, Metric], batches: Iterable[Batch]) -> Measured:
    """All measurements in one pass; one that fails is given up and stops no other."""
    measured = Measured()
    parts: dict[str, list[FloatArray]] = {name: [] for name in metrics}
    for batch in batches:
        for name, metric in metrics.items():
            if name not in measured.broken:
                try:
                    parts[name].append(metric.measure(batch))
                except FORESEEN as error:
                    measured.broken[name] = error
    measured.rows = {name: np.concatenate(rows) for name, rows in parts.items() if name not in measured.broken and rows}
    return measured


def split_batch(whole: Batch, size: int) -> Iterator[Batch]:
    """A batch in parts of ``size``."""
    for start in range(0, len(whole.prompts), size):
        part = slice(start, start + size)
        full = None if whole.full is None else whole.full[part]
        yield Batch(whole.images[part], whole.prompts[part], whole.indices[part], full)


def fingerprint_at(metric: Metric, n: int) -> dict[str, str]:
    """The metric's fingerprint, with N where its expected value depends on it."""
    return {**metric.fingerprint(), **({"n": str(n)} if metric.counted else {})}


def to_score(label: str, name: str, metric: Metric, per_image: FloatArray) -> Score:
    """The record of a summary [N]; below ``advised`` images its title carries a watermark."""
    if not np.isfinite(per_image).all():
        raise Unmeasurable("some per-image values are not finite")
    n = len(per_image)
    title = metric.title if n >= metric.advised else f"{metric.title}, biased: N = {n} < {metric.advised}"
    return Score(
        label, name, title, metric.unit, metric.direction, metric.tiny, float(np.mean(per_image)), n,
        fingerprint_at(metric, n), per_image,
    )  # fmt: skip


class Scorer:
    """Measures a run's sample sets. ``guard`` turns the failure of one metric into a record and stops no other."""

    def __init__(
        self, folder: Path, metrics: Mapping[str, Metric | Failure], samples: Callable[[str], SampleSet], guard: Guard
    ) -> None:
        self.folder, self.metrics, self.samples, self.guard = folder, metrics, samples, guard

    def score(self, label: str, progress: Progress) -> None:
        """Score every metric that this folder lacks; one that could not be built leaves its reason."""
        samples = self.samples(label)
        wanted = {n: m for n, m in self.metrics.items() if not self._is_scored(label, n, m, len(samples.prompts))}
        for metric in wanted.values():
            if isinstance(metric, Failure):
                write_score(self.folder, replace(metric, method=label))
        built = {name: metric for name, metric in wanted.items() if not isinstance(metric, Failure)}
        measured = self._measure(label, samples, built, progress)
        for name, metric in built.items():
            self.guard(label, name, partial(self._summarise, label, name, metric, measured))

    def score_controls(self, progress: Progress) -> None:
        """The null controls of every metric that could be built, from the full run's first images."""
        samples = self.samples(BASELINE)
        built = {name: metric for name, metric in self.metrics.items() if not isinstance(metric, Failure)}
        n = min(len(samples.prompts), IMAGES)
        todo = {c: m for c in CONTROLS if (m := {k: v for k, v in built.items() if not self._is_control_scored(c, k, v, n)})}
        if not todo:
            return
        task = progress.add_task("score null controls", total=len(todo))
        full = Batch(samples.load(range(n)), samples.prompts[:n], range(n))
        for control, metrics in todo.items():
            self._score_control(control, metrics, control_batch(control, full))
            progress.advance(task)

    def _score_control(self, control: str, metrics: Mapping[str, Metric], whole: Batch) -> None:
        measured = measure(by_measurement(metrics), split_batch(whole, SCORE_BATCH))
        for name, metric in metrics.items():
            try:
                rows = measured.of(metric)
                if control == IDENTICAL:
                    self._check_repeats(name, metric, rows)
                score: Score | Failure = to_score(control, name, metric, metric.values(metric.checked(rows)))
            except FORESEEN as error:
                score = Failure(control, name, str(error) or type(error).__name__)
            write_score(self.folder, score, "controls")

    def _check_repeats(self, name: str, metric: Metric, rows: FloatArray) -> None:
        """Raise :class:`Unmeasurable` unless the full run's images measure now what they measured when it was scored."""
        first = read_measurement(self.folder, BASELINE, metric.measurement)
        if first is not None and not np.allclose(rows, first[: len(rows)], rtol=REPEAT, atol=REPEAT * float(np.abs(first).max())):
            raise Unmeasurable(
                f"{name}: the same images, measured twice, differ by {np.abs(rows - first[: len(rows)]).max():.2g}"
            )

    def _is_control_scored(self, control: str, name: str, metric: Metric, n: int) -> bool:
        return self._matches(self.folder / "controls" / slug(control) / f"{name}.json", metric, n)

    def _measure(self, label: str, samples: SampleSet, built: Mapping[str, Metric], progress: Progress) -> Measured:
        """From the stored arrays where there are any, else in one pass over the images, whose arrays are stored."""
        wanted, kept = by_measurement(built), {}
        for name, metric in wanted.items():
            stored = read_measurement(self.folder, label, name, self._basis(metric, samples, label))
            if stored is not None:
                kept[name] = stored
        missing = {name: metric for name, metric in wanted.items() if name not in kept}
        measured = measure(missing, self._batches(label, samples, progress) if missing else ())
        for name, rows in measured.rows.items():
            write_measurement(self.folder, label, name, self._basis(missing[name], samples, label), rows)
        measured.rows |= kept
        return measured

    def _basis(self, metric: Metric, samples: SampleSet, label: str) -> dict[str, Any]:
        """What a stored measurement must agree on: the network, and the images."""
        basis = {"basis": dict(metric.basis()), "samples": samples.digest()}
        return basis | ({"full": self.samples(BASELINE).digest()} if metric.paired else {})

    def _batches(self, label: str, samples: SampleSet, progress: Progress) -> Iterable[Batch]:
        full = self.samples(BASELINE)
        task = progress.add_task(f"score {label}", total=len(samples.prompts))
        for indices in samples.batches(SCORE_BATCH):
            paired = full.load(indices) if full.is_finished() else None
            yield Batch(samples.load(indices), [samples.prompts[i] for i in indices], list(indices), paired)
            progress.advance(task, len(indices))

    def _is_scored(self, label: str, name: str, metric: Metric | Failure, n: int) -> bool:
        """Whether this very metric (same fingerprint) has been scored, successfully, in this folder."""
        path = self.folder / "scores" / slug(label) / f"{name}.json"
        return not isinstance(metric, Failure) and self._matches(path, metric, n)

    def _matches(self, path: Path, metric: Metric, n: int) -> bool:
        return path.exists() and read_json(path).get("fingerprint") == fingerprint_at(metric, n)

    def _summarise(self, label: str, name: str, metric: Metric, measured: Measured) -> None:
        write_score(self.folder, to_score(label, name, metric, metric.summarise(measured.of(metric))))
