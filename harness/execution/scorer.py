"""The worker that holds the metrics: measures ranges of images in one pass for all metrics, then summarises each metric."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.config.prompts import CLASS_NUMBERS
from harness.config.spec import is_random
from harness.contracts import Batch, Metric, Unmeasurable, note_of, why_unscored
from harness.errors import ArtifactError
from harness.execution.controls import IMAGES, control_batch
from harness.execution.experiment import Experiment
from harness.execution.measuring import Pristine, by_measurement, measure, measured_rows, split_batch
from harness.execution.partial_measurements import PartialMeasurements, Unmeasured
from harness.execution.tasks import SCORE_BATCH, Task, TaskResult, is_fatal, reason, shrinking
from harness.results import BASELINE, WATERMARK, Failure, Fault, FloatArray, Score
from harness.statistics.controls import CONTROLS, IDENTICAL
from harness.storage.files import digest
from harness.storage.layout import Layout, Pair
from harness.storage.measurements import has_measurement, read_measurement, write_measurement
from harness.storage.reading import Reader, Reading
from harness.storage.records import read_score, write_score
from harness.storage.samples import chunks

AHEAD = 1  # ranges whose images are read while one is measured
REPEAT = 1e-3  # of the largest measurement: what another batch size may change


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
    title = metric.title if n >= metric.advised else f"{metric.title}{WATERMARK}{n} < {metric.advised}"
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


@dataclass(frozen=True)
class Range:
    """What is to be measured of one range: metrics by measurement, with their keys; what is known; the images by their role."""

    task: Task
    metrics: Mapping[str, Metric]
    keys: Mapping[str, str]
    rows: Mapping[str, FloatArray]
    read: Mapping[str, Reading]


class Pending(Future[TaskResult]):
    """A range whose images are being read. It is measured after the next one has been begun, or when its result is asked for."""

    def __init__(self, measure: Callable[[Pending], None], begun: Range) -> None:
        super().__init__()
        self.measure, self.range = measure, begun

    def result(self, timeout: float | None = None) -> TaskResult:
        """What became of it."""
        self.measure(self)
        return super().result(timeout)


class Scorer:
    """Does ``measure``, ``summarise`` and ``controls`` for the metrics that a run lacks. What is measured of a range lies in
    RUN/parts until the method is scored, so that neither an interrupted run nor a lost worker costs more than one range.
    """

    def __init__(
        self, experiment: Experiment, folder: Path, metrics: Mapping[str, Metric | Failure], size: int = SCORE_BATCH
    ) -> None:
        self.experiment, self.folder, self.size = experiment, folder, size
        self.metrics = {name: _with_captions(name, metric, experiment) for name, metric in metrics.items()}
        self.todo: dict[str, Todo] = {}
        self.reader = Reader()
        self.shared: dict[str, tuple[range, Reading]] = {}  # one range of the sets that are held against every method's
        self.prints: dict[str, list[str]] = {}  # the digests of each method's images
        self.begun: deque[Pending] = deque()
        self.measuring = threading.RLock()
        self.pristine = Pristine()

    def close(self) -> None:
        """Nothing waits to be stored; what is being read is dropped."""
        self.reader.close()

    def do(self, task: Task) -> TaskResult | Future[TaskResult]:
        """One task. A range's images are read while earlier ranges are measured; all else is on disk when it returns."""
        if task.stage == "measure":
            return self._begin(task)
        with self.measuring:
            while self.begun:
                self._measure_next()
            return self._controls(task) if task.stage == "controls" else self._summarise(task, self._todo(task.method))

    def _todo(self, label: str) -> Todo:
        """Looked up once a method: it reads what is known of all its images."""
        if label not in self.todo:
            self.todo[label] = self._look_up(label)
        return self.todo[label]

    def _look_up(self, label: str) -> Todo:
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
        prints = [self._prints(name) for name in sets]
        return {"basis": dict(metric.basis()), "images": digest(repr(prints).encode())}

    def _prints(self, label: str) -> list[str]:
        """The digests of all images of a method. Its receipts are read once."""
        if label not in self.prints:
            samples = self.experiment.samples(self.folder, label)
            self.prints[label] = samples.digests(range(len(samples.prompts)))
        return self.prints[label]

    def _begin(self, task: Task) -> TaskResult | Future[TaskResult]:
        """Start to read a range's images, and measure an earlier range meanwhile."""
        label, metrics, indices = task.method, self._todo(task.method).unmeasured, task.indices
        if not metrics:
            return TaskResult(task)
        sets = {"images": label, **self._beside()}
        files = {name: self._files(each, indices) for name, each in sets.items()}
        keys = part_keys(metrics, [[print_ for _, print_ in each] for each in files.values()])
        rows = PartialMeasurements(self.folder, label, task.start).rows(keys)
        if rows.keys() == metrics.keys():
            return TaskResult(task)
        read = {name: self._reading(each, indices, files[name]) for name, each in sets.items()}
        pending = Pending(self._measure_until, Range(task, metrics, keys, rows, read))
        self.begun.append(pending)
        if len(self.begun) > AHEAD:
            with self.measuring:
                self._measure_next()
        return pending

    def _files(self, label: str, indices: range) -> list[tuple[Path, str]]:
        samples, prints = self.experiment.samples(self.folder, label), self._prints(label)
        return [(samples.image_path(i), prints[i]) for i in indices]

    def _reading(self, label: str, indices: range, files: list[tuple[Path, str]]) -> Reading:
        """The images of one method under way; those that every method is held against are read once for all of them."""
        if label not in (BASELINE, self.experiment.converged):
            return self.reader.begin(files)
        known = self.shared.get(label)
        if known is None or known[0] != indices:
            known = self.shared[label] = indices, self.reader.begin(files)
        return known[1]

    def _measure_until(self, pending: Pending) -> None:
        with self.measuring:
            while not pending.done() and self.begun:
                self._measure_next()

    def _measure_next(self) -> None:
        """Measure the range that was begun first; what goes wrong is told to whoever asks for its result."""
        pending = self.begun.popleft() if self.begun else None
        if pending is not None:
            try:
                pending.set_result(self._measure(pending.range))
            except Exception as error:
                pending.set_exception(error)

    def _measure(self, begun: Range) -> TaskResult:
        """One range's rows of every measurement into one part; one that fails leaves its reason in it."""
        task, rows = begun.task, dict(begun.rows)
        tensors = {id(each): torch.from_numpy(each.result()) for each in begun.read.values()}
        images = {name: tensors[id(each)] for name, each in begun.read.items()}
        prompts = self.experiment.samples(self.folder, task.method).prompts
        batch = Batch(**images, prompts=[prompts[i] for i in task.indices], indices=list(task.indices))
        missing: dict[str, Unmeasured] = {}
        faults: list[Fault] = []
        pristine = self.pristine.of(batch)
        for name, metric in ((name, metric) for name, metric in begun.metrics.items() if name not in rows):
            try:
                rows[name], size = shrinking(task.batch, partial(in_pieces, metric, batch, pristine))
                if size < task.batch:
                    faults.append(task.fault(size, f"{name}: out of memory at {task.batch} images at a time"))
            except Exception as error:
                if is_fatal(error):
                    raise
                missing[name] = Unmeasured(reason(error), not isinstance(error, Unmeasurable))
        PartialMeasurements(self.folder, task.method, task.start).write(begun.keys, rows, missing)
        return TaskResult(task, faults=tuple(faults))

    def _beside(self) -> dict[str, str]:
        """The labels of the whole sample sets that paired metrics hold a method's images against."""
        named = {"full": BASELINE, "converged": self.experiment.converged}
        whole = {name: self.experiment.samples(self.folder, label) for name, label in named.items() if label is not None}
        return {name: str(named[name]) for name, each in whole.items() if each.manifest.exists()}

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
        self.todo.pop(label, None)
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
        sets = [samples] if converged is None else [samples, self.experiment.samples(self.folder, converged)]
        read = [self.reader.begin(each.files(range(n))) for each in sets]
        images = [torch.from_numpy(each.result()) for each in read]
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


def part_keys(metrics: Mapping[str, Metric], prints: Sequence[Sequence[str]]) -> dict[str, str]:
    """For each measurement: what identifies a range's images, the full run's beside them, and the metric."""
    images = [list(each) for each in prints]
    return {name: digest(repr((images, name, sorted(metric.basis().items()))).encode()) for name, metric in metrics.items()}


def in_pieces(metric: Metric, batch: Batch, pristine: Pristine, size: int) -> FloatArray:
    """What the metric measures [B, d], ``size`` images at a time."""
    return measured_rows(metric, batch, list(split_batch(batch, size)), pristine)
