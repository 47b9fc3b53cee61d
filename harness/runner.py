"""The run: generate, time, score, record. Each stage skips what a cut run has already finished."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness.contracts import (
    A_A,
    BASELINE,
    Failure,
    Ledger,
    Method,
    MethodRecord,
    Metric,
    TimingSample,
    Trained,
    Unmeasurable,
)
from harness.environment import describe, weights_digest
from harness.errors import ArtifactError, HarnessError, UsageError
from harness.pipeline import Pipeline
from harness.records import FORMAT, read_json, slug, write_json, write_score
from harness.samples import SampleSet
from harness.scoring import Scorer
from harness.spec import ExperimentSpec
from harness.timing import in_round, time_once

TIMING_SEED_OFFSET = 1_000_000  # timed images are not the scored ones
SAME_THROUGHOUT = {"machine_key": "machine, torch and thread count", "weights": "weights", "prompts": "prompts"}
BYTES_PER_PIXEL = 2.2  # measured on PNGs of the bundled models


@dataclass(frozen=True)
class Experiment:
    """A spec with its methods (by label, the baseline among them), metrics and prompts."""

    spec: ExperimentSpec
    methods: Mapping[str, Method]
    method_texts: Mapping[str, str]
    metrics: Mapping[str, Metric | Failure]
    prompts: tuple[str, ...]
    prompt_record: Mapping[str, str | int] = field(default_factory=dict)

    def folder(self, out: Path) -> Path:
        """Where the run lies: its name and the digest of its spec."""
        return out / f"{self.spec.name}-{self.spec.digest()}"


def method_labels(methods: Sequence[Method]) -> dict[str, Method]:
    """Methods by label; the baseline must be among them and no label may come twice."""
    labels = [method.label for method in methods]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise UsageError(expected="each method once", got=f"{twice!r} twice", remedy="remove one of them")
    if BASELINE not in labels:
        raise UsageError(expected=f"{BASELINE!r} among the methods", got=", ".join(labels), remedy=f"add {BASELINE}")
    return dict(sorted(zip(labels, methods, strict=True), key=lambda item: item[0] != BASELINE))


@contextmanager
def progress_bars(console: Console) -> Iterator[Progress]:
    """Bars with the count, the elapsed time and the time to go."""
    columns = (
        TextColumn("{task.description:<34}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("eta"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        yield progress


class Runner:
    """Runs one experiment on one pipeline into one folder."""

    def __init__(self, experiment: Experiment, pipeline: Pipeline, out: Path, console: Console, command: str = "") -> None:
        self.experiment, self.spec, self.pipeline, self.console = experiment, experiment.spec, pipeline, console
        self.command = command
        self.folder = experiment.folder(out)
        self.failures: list[Failure] = []

    def prepare(self) -> None:
        """Create the folder, or check that it belongs to this very spec."""
        labels = list(self.experiment.methods)
        spec = self.spec.identity() | {"format": FORMAT, "digest": self.spec.digest(), "method_labels": labels}
        environment = describe(self.pipeline.device, self.pipeline.arithmetic) | self._facts()
        try:
            if (self.folder / "spec.json").exists():
                self._check_same(spec, environment)
            else:
                write_json(self.folder / "environment.json", environment)
                write_json(self.folder / "spec.json", spec)
        except OSError as error:
            raise UsageError(
                expected=f"a writable folder {self.folder}", got=str(error), remedy="choose another --out"
            ) from error

    def _check_same(self, spec: dict[str, Any], environment: dict[str, Any]) -> None:
        """A run is resumed with its own spec, weights and prompts on its own machine, so that its records belong together."""
        if read_json(self.folder / "spec.json") != spec:
            raise ArtifactError(
                expected=f"the spec of this run in {self.folder}", got="another spec", remedy="choose another --out"
            )
        begun = read_json(self.folder / "environment.json")
        for key, what in SAME_THROUGHOUT.items():
            if begun.get(key) != environment[key]:
                raise ArtifactError(
                    expected=f"the {what} that {self.folder} was begun with",
                    got="others",
                    remedy="choose another --out, or delete that run; `ilf-bench report` rebuilds a report anywhere",
                )

    def _facts(self) -> dict[str, Any]:
        """What the record of the machine says beside it: the command, the weights' dtype and notes, the prompts."""
        return {
            "command": self.command,
            "weights": weights_digest(self.pipeline.folder),
            "weights_dtype": self.pipeline.dtype,
            "notes": list(self.pipeline.notes),
            "prompts": dict(self.experiment.prompt_record),
        }

    def run(self) -> list[Failure]:
        """All stages; returns what failed, with reasons. Everything else has been measured."""
        self.prepare()
        with progress_bars(self.console) as progress:
            for label, method in self.experiment.methods.items():
                self._guard(label, "", partial(self._generate, label, method, progress))
            self._time(progress)
            scorer = Scorer(self.folder, self.experiment.metrics, self._samples, self._guard)
            for label in self.experiment.methods:
                if self._samples(label).is_finished():
                    scorer.score(label, progress)
            if self._samples(BASELINE).is_finished():
                scorer.score_controls(progress)
        if not self.failures:
            write_json(self.folder / "run.json", {"format": FORMAT})
        return self.failures

    def _guard(self, label: str, metric: str, work: Callable[[], None]) -> bool:
        """Whether ``work`` succeeded; a foreseen failure of one method or metric becomes a record and stops no other."""
        try:
            work()
            return True
        except (HarnessError, Unmeasurable, RuntimeError, ValueError) as error:
            failure = Failure(label, metric, str(error) or type(error).__name__)
            if metric:
                write_score(self.folder, failure)
            else:
                write_json(self.folder / "methods" / f"{slug(label)}.json", asdict(failure))
            if not isinstance(error, Unmeasurable):
                self.failures.append(failure)
            return False

    def _samples(self, label: str) -> SampleSet:
        return SampleSet(self.folder / "samples" / slug(label), self.experiment.prompts, self.spec.batch)

    def _generate(self, label: str, method: Method, progress: Progress) -> None:
        samples = self._samples(label)
        task = progress.add_task(f"generate {label}", total=self.spec.samples)
        with self.pipeline.counting() as counter, method.attach(self.pipeline):
            for indices in samples.chunks():
                if not samples.is_done(indices):
                    samples.generate(
                        indices, lambda prompts, i: self.pipeline.generate(prompts, self.spec.seed, i), lambda: counter.rows
                    )
                progress.advance(task, len(indices))
            steps = self.pipeline.steps
        plan = self.pipeline.plan()
        ledger = method.ledger(plan.backbone) if isinstance(method, Trained) else Ledger(0.0, 0)
        record = MethodRecord(
            label, self.experiment.method_texts[label], steps, method.plan(plan).block_evaluations, samples.finish(label),
            ledger.extra_parameters, ledger.training_s or None, ledger.calibration_s or None,
        )  # fmt: skip
        write_json(self.folder / "methods" / f"{slug(label)}.json", asdict(record))

    def _time(self, progress: Progress) -> None:
        """Rounds of all methods that generated; a round is one file, so that a cut round starts again as a whole."""
        failed = {failure.method for failure in self.failures}
        methods = {label: m for label, m in self.experiment.methods.items() if label not in failed}
        if BASELINE in methods:
            methods = methods | {A_A: methods[BASELINE]}
        timing = self.spec.timing
        prompts = [self.experiment.prompts[i % len(self.experiment.prompts)] for i in range(timing.batch)]
        todo = [n for n in range(timing.rounds) if not (self.folder / "timing" / f"{n:03d}.json").exists()]
        task = progress.add_task("time, interleaved rounds", total=timing.rounds, completed=timing.rounds - len(todo))
        seed = self.spec.seed + TIMING_SEED_OFFSET
        warmups = [-n for n in range(timing.warmup, 0, -1)] if todo else []
        for label in methods if todo else ():
            (self.folder / "scores" / slug(label) / "timing.json").unlink(missing_ok=True)  # an earlier try's failure
        for number in [*warmups, *todo]:
            rows: list[TimingSample] = []
            for label in in_round(list(methods), number):
                once = partial(self._time_once, rows, methods[label], label, prompts, seed, number)
                if not self._guard(label, "timing", once):
                    methods = {other: m for other, m in methods.items() if other != label}
            if number >= 0:
                write_json(self.folder / "timing" / f"{number:03d}.json", [asdict(row) for row in rows])
                progress.advance(task)

    def _time_once(
        self, rows: list[TimingSample], method: Method, label: str, prompts: list[str], seed: int, number: int
    ) -> None:
        rows.append(time_once(self.pipeline, method, label, prompts, seed, number))


def check_disk(experiment: Experiment, out: Path, image_pixels: int) -> int:
    """Bytes that the run will write. Raises :class:`UsageError` where the disk has less."""
    needed = int(experiment.spec.samples * len(experiment.methods) * (image_pixels * BYTES_PER_PIXEL + 4096))
    parent = next(p for p in (out, *out.resolve().parents) if p.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise UsageError(
            expected=f"{needed / 1e6:.0f} MB free for {out}", got=f"{free / 1e6:.0f} MB", remedy="choose another --out"
        )
    return needed
