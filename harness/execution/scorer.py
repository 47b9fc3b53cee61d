"""The worker that holds the metrics: measures ranges of images in one pass for all metrics, then summarises each metric."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from harness.config.prompts import CLASS_NUMBERS
from harness.config.spec import is_random
from harness.contracts import Batch, Metric, Unmeasurable, note_of, why_unscored
from harness.errors import ArtifactError
from harness.execution.controls import IMAGES, control_batch
from harness.execution.experiment import Experiment
from harness.execution.measuring import measured_rows
from harness.execution.partial_measurements import PartialMeasurements, Unmeasured
from harness.execution.tasks import SCORE_BATCH, Task, TaskResult, is_fatal, reason, shrinking
from harness.results import BASELINE, Failure, Fault, FloatArray, Score
from harness.statistics.controls import CONTROLS, IDENTICAL
from harness.storage.files import digest
from harness.storage.layout import Layout, Pair
from harness.storage.measurements import has_measurement, read_measurement, write_measurement
from harness.storage.records import read_score, write_score
from harness.storage.samples import SampleSet, chunks

REPEAT = 1e-3  # of the largest measurement: what another batch size may change


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
                    parts[name].append(measured_rows(metric, batch))
                except Exception as error:
                    if is_fatal(error):
                        raise
                    measured.broken[name] = error
    measured.rows = {name: np.concatenate(rows) for name, rows in parts.items() if name not in measured.broken and rows}
    return measured


def split_batch(whole: Batch, size: int) -> Iterator[Batch]:
    """A batch in parts of ``size``."""
    for start in range(0, len(whole.prompts), size):
        part = slice(start, start + size)
        full, converged = (None if images is None else images[part] for images in (whole.full, whole.converged))
        yield Batch(whole.images[part], whole.prompts[part], whole.indices[part], full, converged)


def fingerprint_at(metric: Metric, n: int) -> dict[str, str]:
    """The metric's fingerprint, with N where its expected value depends on it."""
    return {**metric.fingerprint(), **({"n": str(n)} if metric.counted else {})}


def to_score(
    label: str, name: str, metric: Metric, influence: FloatArray, per_image: FloatArray | None, prompts: Sequence[str] = ()
) -> Score:
    """The record of a summary [N] and the images' own values [N]; below ``advised`` images its title carries a watermark.

    ``prompts``: what it read, for its note.
    """
    if not np.isfinite(influence).all() or (per_image is not None and np.isnan(per_image).any()):
        raise Unmeasurable("some per-image values are not finite")
    n = len(influence)
    title = metric.title if n >= metric.advised else f"{metric.title}, biased: N = {n} < {metric.advised}"
    return Score(
        label,
        name,
        title,
        metric.unit,
        metric.direction,
        metric.tiny,
        float(np.mean(influence)),
        n,
        fingerprint_at(metric, n),
        influence,
        per_image,
        note_of(metric, prompts),
    )


@dataclass(frozen=True)
class Todo:
    """Of one method: the metrics that lack a score, and one metric for each measurement of theirs that is not stored."""

    method: str
    lacking: Mapping[str, Metric]
    unmeasured: Mapping[str, Metric]


class Scorer:
    """Does ``measure``, ``summarise`` and ``controls`` for the metrics that a run lacks. What is measured of a range lies in
    RUN/parts until the method is scored, so that neither an interrupted run nor a lost worker costs more than one range.
    """

    def __init__(
        self, experiment: Experiment, folder: Path, metrics: Mapping[str, Metric | Failure], size: int = SCORE_BATCH
    ) -> None:
        self.experiment, self.folder, self.size = experiment, folder, size
        self.metrics = {name: _with_captions(name, metric, experiment) for name, metric in metrics.items()}
        self.todo: Todo | None = None

    def close(self) -> None:
        """Nothing waits to be stored."""

    def do(self, task: Task) -> TaskResult:
        """One task; what it measured is on disk when it returns."""
        if task.stage == "controls":
            return self._controls(task)
        if self.todo is None or self.todo.method != task.method:
            self.todo = self._todo(task.method)
        return self._measure(task, self.todo) if task.stage == "measure" else self._summarise(task, self.todo)

    def _todo(self, label: str) -> Todo:
        """Looked up once a method: it reads what is known of all its images."""
        given = {} if why_unscored(self.experiment.methods[label]) else self.metrics
        n, files = len(self.experiment.samples(self.folder, label).prompts), Layout(self.folder)
        built = {name: metric for name, metric in given.items() if not isinstance(metric, Failure)}
        lacking = {
            name: metric
            for name, metric in built.items()
            if not (_is_scored(files.score(label, name), metric, n) and self._is_stored(label, metric))
        }
        wanted = by_measurement(lacking)
        return Todo(label, lacking, {name: m for name, m in wanted.items() if self._stored(label, name, m) is None})

    def _stored(self, label: str, name: str, metric: Metric) -> FloatArray | None:
        if not has_measurement(self.folder, label, name):
            return None
        try:
            return read_measurement(self.folder, label, name, self._basis(label, metric))
        except ArtifactError:
            return None  # damaged: measured again

    def _is_stored(self, label: str, metric: Metric) -> bool:
        """Whether its measurements are intact; one that could never be measured has none to lose."""
        return self._stored(label, metric.measurement, metric) is not None

    def _basis(self, label: str, metric: Metric) -> dict[str, Any]:
        """What a stored measurement must agree on: the network, and the images."""
        other = self.experiment.converged if getattr(metric, "to_converged", False) else BASELINE
        sets = [label, other] if metric.paired and other is not None else [label]
        images = [self.experiment.samples(self.folder, name) for name in sets]
        prints = [each.digests(range(len(each.prompts))) for each in images]
        return {"basis": dict(metric.basis()), "images": digest(repr(prints).encode())}

    def _measure(self, task: Task, todo: Todo) -> TaskResult:
        """One range's rows of every measurement into one part; one that fails leaves its reason in it."""
        label, metrics = task.method, todo.unmeasured
        samples, beside = self.experiment.samples(self.folder, label), self._beside()
        part = PartialMeasurements(self.folder, label, task.start)
        keys = part_keys(task.indices, metrics, [samples, *beside.values()])
        rows = part.rows(keys)
        if rows.keys() == metrics.keys():
            return TaskResult(task)
        images = {name: torch.from_numpy(each.load(task.indices)) for name, each in (("images", samples), *beside.items())}
        batch = Batch(**images, prompts=[samples.prompts[i] for i in task.indices], indices=list(task.indices))
        missing: dict[str, Unmeasured] = {}
        faults: list[Fault] = []
        for name, metric in ((name, metric) for name, metric in metrics.items() if name not in rows):
            try:
                rows[name], size = shrinking(task.batch, partial(in_pieces, metric, batch))
                if size < task.batch:
                    faults.append(task.fault(size, f"{name}: out of memory at {task.batch} images at a time"))
            except Exception as error:
                if is_fatal(error):
                    raise
                missing[name] = Unmeasured(reason(error), not isinstance(error, Unmeasurable))
        part.write(keys, rows, missing)
        return TaskResult(task, faults=tuple(faults))

    def _beside(self) -> dict[Literal["full", "converged"], SampleSet]:
        """The whole sample sets that paired metrics hold a method's images against."""
        named: dict[Literal["full", "converged"], str | None] = {"full": BASELINE, "converged": self.experiment.converged}
        sets = {name: self.experiment.samples(self.folder, label) for name, label in named.items() if label is not None}
        return {name: each for name, each in sets.items() if each.manifest.exists()}

    def _summarise(self, task: Task, todo: Todo) -> TaskResult:
        """A score for every lacking metric, or the failure that explains why there is none; ranges that a failed one has
        measured stay for the next run.
        """
        label = task.method
        failures: list[Failure] = []
        unfinished: set[str] = set()
        unscored = why_unscored(self.experiment.methods[label])
        for name, metric in self.metrics.items():
            if unscored:
                write_score(self.folder, Failure(label, name, unscored))
            elif isinstance(metric, Failure):
                write_score(self.folder, replace(metric, method=label))
                if not is_random(self.experiment.spec.pipeline):  # there no metric has a meaning, which is no failure
                    failures.append(replace(metric, method=label))
        for name, metric in todo.lacking.items():
            try:
                rows = self._measured(label, metric)
                of_images = metric.per_image(metric.checked(rows))
                score = to_score(label, name, metric, metric.summarise(rows), of_images, self.experiment.prompts)
                write_score(self.folder, score)
            except Unmeasurable as error:
                write_score(self.folder, Failure(label, name, str(error)))
            except Exception as error:
                if is_fatal(error):
                    raise
                failures.append(Failure(label, name, reason(error)))
                write_score(self.folder, failures[-1])
                unfinished.add(metric.measurement)
        for part in self._parts(label):
            part.keep(unfinished)
        self.todo = None
        return TaskResult(task, failures=tuple(failures))

    def _parts(self, label: str) -> list[PartialMeasurements]:
        return [PartialMeasurements(self.folder, label, r.start) for r in chunks(self.experiment.spec.samples, self.size)]

    def _measured(self, label: str, metric: Metric) -> FloatArray:
        """The stored array, or the parts put together and stored. Raises whatever went wrong in a part."""
        name = metric.measurement
        stored = self._stored(label, name, metric)
        if stored is not None:
            return stored
        rows = []
        for part in self._parts(label):
            found, missing = part.read()
            if name in missing:
                raise RuntimeError(missing[name].reason) if missing[name].failed else Unmeasurable(missing[name].reason)
            rows.append(found[name])
        measured = np.concatenate(rows)
        write_measurement(self.folder, label, name, self._basis(label, metric), measured)
        return measured

    def _controls(self, task: Task) -> TaskResult:
        """The null controls of every metric that could be built, from the full run's first images."""
        samples = self.experiment.samples(self.folder, BASELINE)
        built = {name: metric for name, metric in self.metrics.items() if not isinstance(metric, Failure)}
        n = min(len(samples.prompts), IMAGES)
        whole: Batch | None = None
        for control in CONTROLS:
            files = {name: Layout(self.folder).score(control, name, "controls") for name in built}
            lacking = {name: metric for name, metric in built.items() if not _is_scored(files[name], metric, n)}
            if not lacking:
                continue
            whole = whole or self._first(n)
            self._score_control(control, lacking, control_batch(control, whole))
        return TaskResult(task)

    def _first(self, n: int) -> Batch:
        """The full run's first images, and the converged ones of the same noise."""
        samples, converged = self.experiment.samples(self.folder, BASELINE), self._beside().get("converged")
        images = [torch.from_numpy(each.load(range(n))) for each in (samples, converged) if each is not None]
        return Batch(images[0], samples.prompts[:n], range(n), converged=images[1] if converged else None)

    def _score_control(self, control: str, metrics: Mapping[str, Metric], whole: Batch) -> None:
        measured = measure(by_measurement(metrics), split_batch(whole, self.size))
        for name, metric in metrics.items():
            try:
                rows = measured.of(metric)
                if control == IDENTICAL:
                    self._check_repeats(name, metric, rows)
                checked = metric.checked(rows)
                score: Score | Failure = to_score(control, name, metric, metric.values(checked), metric.per_image(checked))
            except Exception as error:
                if is_fatal(error):
                    raise
                score = Failure(control, name, reason(error))
            write_score(self.folder, score, "controls")

    def _check_repeats(self, name: str, metric: Metric, rows: FloatArray) -> None:
        """Raise :class:`Unmeasurable` unless the full run's images measure now what they measured when it was scored."""
        first = read_measurement(self.folder, BASELINE, metric.measurement)
        if first is not None and not np.allclose(rows, first[: len(rows)], rtol=REPEAT, atol=REPEAT * float(np.abs(first).max())):
            raise Unmeasurable(
                f"{name}: the same images, measured twice, differ by {np.abs(rows - first[: len(rows)]).max():.2g}"
            )


def _with_captions(name: str, metric: Metric | Failure, experiment: Experiment) -> Metric | Failure:
    """The metric, or why it has nothing to read: the prompts of a class-conditional model may be bare numbers."""
    reads = not isinstance(metric, Failure) and getattr(metric, "reads_prompts", False)
    numbers = experiment.spec.task == "class" and any(text.isdecimal() for text in experiment.prompts)
    return Failure("", name, CLASS_NUMBERS) if reads and numbers else metric


def _is_scored(files: Pair, metric: Metric, n: int) -> bool:
    """Whether this very metric (same fingerprint) has been scored there, and the record is intact."""
    try:
        score = read_score(files.record)
    except ArtifactError:
        return False
    return isinstance(score, Score) and dict(score.fingerprint) == fingerprint_at(metric, n)


def part_keys(indices: range, metrics: Mapping[str, Metric], sets: Sequence[SampleSet]) -> dict[str, str]:
    """For each measurement: what identifies a range's images, the full run's beside them, and the metric."""
    images = [each.digests(indices) for each in sets] if metrics else []
    return {name: digest(repr((images, name, sorted(metric.basis().items()))).encode()) for name, metric in metrics.items()}


def in_pieces(metric: Metric, batch: Batch, size: int) -> FloatArray:
    """What the metric measures [B, d], ``size`` images at a time."""
    return np.concatenate([measured_rows(metric, piece) for piece in split_batch(batch, size)])
