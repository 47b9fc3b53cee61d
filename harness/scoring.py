"""The worker that holds the metrics: measures ranges of images in one pass for all metrics, then summarises each metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from harness.contracts import BASELINE, Batch, Failure, Fault, FloatArray, Metric, Score, Unmeasurable, no_quality
from harness.engine.tasks import SCORE_BATCH, Outcome, Task, is_fatal, reason, shrinking
from harness.errors import ArtifactError
from harness.experiment import Experiment
from harness.parts import Missing, Part
from harness.random_weights import is_random
from harness.records import digest, read_measured, read_score, slug, write_score
from harness.samples import SampleSet, chunks


class Scorer:
    """Does ``measure`` and ``summarise`` for the metrics that a run lacks. What is measured of a range lies in RUN/parts until
    the method is scored, so that neither a cut run nor a lost worker costs more than one range.
    """

    def __init__(
        self, experiment: Experiment, folder: Path, metrics: Mapping[str, Metric | Failure], size: int = SCORE_BATCH
    ) -> None:
        self.experiment, self.folder, self.metrics, self.size = experiment, folder, metrics, size
        self.lacking: tuple[str, dict[str, Metric]] = ("", {})  # the metrics that the latest method lacks

    def do(self, task: Task) -> Outcome:
        """One task; what it measured is on disk when it returns."""
        if self.lacking[0] != task.method:
            given = {} if no_quality(self.experiment.methods[task.method]) else self.metrics
            built = {name: metric for name, metric in given.items() if not isinstance(metric, Failure)}
            self.lacking = task.method, {n: m for n, m in built.items() if not self._is_scored(task.method, n, m)}
        return self._measure(task) if task.stage == "measure" else self._summarise(task)

    def _is_scored(self, label: str, name: str, metric: Metric) -> bool:
        """Whether this very metric (same fingerprint) has been scored here, and all that it left is intact."""
        path = self.folder / "scores" / slug(label) / f"{name}.json"
        try:
            score = read_score(path)
            read_measured(self.folder, label, name)
        except ArtifactError:
            return False
        return isinstance(score, Score) and dict(score.fingerprint) == dict(metric.fingerprint())

    def _measure(self, task: Task) -> Outcome:
        """One range's rows of every metric into one part; a metric that fails leaves its reason in it."""
        label, metrics = task.method, self.lacking[1]
        samples, full = (self.experiment.samples(self.folder, name) for name in (label, BASELINE))
        sets = [samples, full] if full.manifest.exists() else [samples]
        part = Part(self.folder, label, task.start)
        if not metrics or part.holds(key := part_key(task.indices, metrics, sets)):
            return Outcome(task)
        images = [each.load(task.indices) for each in sets]
        prompts = [samples.prompts[i] for i in task.indices]
        batch = Batch(images[0], prompts, list(task.indices), images[1] if len(images) > 1 else None)
        rows: dict[str, FloatArray] = {}
        missing: dict[str, Missing] = {}
        faults: list[Fault] = []
        for name, metric in metrics.items():
            try:
                rows[name], size = shrinking(task.batch, partial(in_pieces, metric, batch))
                if size < task.batch:
                    faults.append(task.fault(size, f"{name}: out of memory at {task.batch} images at a time"))
            except Exception as error:
                missing[name] = Missing(reason(error), not isinstance(error, Unmeasurable))
        part.write(key, rows, missing)
        return Outcome(task, faults=tuple(faults))

    def _summarise(self, task: Task) -> Outcome:
        """A score for every lacking metric, or the failure that explains why there is none."""
        label = task.method
        failures: list[Failure] = []
        unscored = no_quality(self.experiment.methods[label])
        for name, metric in self.metrics.items():
            if unscored:
                write_score(self.folder, Failure(label, name, unscored))
            elif isinstance(metric, Failure):
                write_score(self.folder, replace(metric, method=label))
                if not is_random(self.experiment.spec.pipeline):  # there no metric has a meaning, which is no failure
                    failures.append(replace(metric, method=label))
        for name, metric in self.lacking[1].items():
            try:
                self._score(label, name, metric)
            except Unmeasurable as error:
                write_score(self.folder, Failure(label, name, str(error)))
            except Exception as error:
                if is_fatal(error):
                    raise
                failures.append(Failure(label, name, reason(error)))
                write_score(self.folder, failures[-1])
        for part in self._parts(label):
            part.remove()
        self.lacking = "", {}
        return Outcome(task, failures=tuple(failures))

    def _parts(self, label: str) -> list[Part]:
        return [Part(self.folder, label, r.start) for r in chunks(self.experiment.spec.samples, self.size)]

    def _score(self, label: str, name: str, metric: Metric) -> None:
        """Put the parts together. Raises :class:`Unmeasurable` or whatever went wrong in a part."""
        rows = []
        for part in self._parts(label):
            found, missing = part.read()
            if name in missing:
                raise RuntimeError(missing[name].reason) if missing[name].failed else Unmeasurable(missing[name].reason)
            rows.append(found[name])
        measured = np.concatenate(rows)
        per_image = metric.summarise(measured)
        if not np.isfinite(per_image).all():
            raise Unmeasurable("some per-image values are not finite")
        score = Score(
            label, name, metric.title, metric.unit, metric.direction, metric.tiny, float(np.mean(per_image)), len(per_image),
            dict(metric.fingerprint()), per_image,
        )  # fmt: skip
        write_score(self.folder, score, measured)


def part_key(indices: range, metrics: Mapping[str, Metric], sets: Sequence[SampleSet]) -> str:
    """Identifies a range's images, the full run's beside them, and the metrics."""
    images = [each.digests(indices) for each in sets]
    prints = [sorted(metric.fingerprint().items()) for metric in metrics.values()]
    return digest(repr((images, list(metrics), prints)).encode())


def in_pieces(metric: Metric, batch: Batch, size: int) -> FloatArray:
    """What the metric measures [B, d], ``size`` images at a time."""
    pieces = [
        Batch(
            batch.images[i : i + size], batch.prompts[i : i + size], batch.indices[i : i + size],
            None if batch.full is None else batch.full[i : i + size],
        )
        for i in range(0, len(batch.indices), size)
    ]  # fmt: skip
    return np.concatenate([metric.measure(piece) for piece in pieces])
