"""The run: generate, time, score, record. Each task skips what an interrupted run has already finished."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.contracts import why_unscored
from harness.errors import ArtifactError, UsageError
from harness.execution.dispatch import Dispatch
from harness.execution.experiment import Experiment
from harness.execution.progress import Followed, following, stage
from harness.execution.tasks import Engine, Facts, Role, Task, TaskResult
from harness.results import BASELINE, Failure, Fault
from harness.storage.files import remove_leftovers
from harness.storage.layout import Layout
from harness.storage.locations import is_local
from harness.storage.locks import held_alone
from harness.storage.records import FORMAT, check_format, has_run, read_json, read_timings, write_json, write_method, write_score
from harness.storage.samples import chunks
from harness.text import one_line, without_credentials

SAME_THROUGHOUT = {"machine_key": "machine, torch and thread count", "weights": "weights", "prompts": "prompts"}
MOST_LETTERS = 200  # of a value in an error message
BYTES_PER_PIXEL = 2.2  # measured on PNGs of the bundled models


class Runner:
    """Runs one experiment on one engine into one folder."""

    def __init__(self, experiment: Experiment, engine: Engine, out: Path, console: Console, command: str = "") -> None:
        self.experiment, self.spec, self.engine, self.console = experiment, experiment.spec, engine, console
        self.command = command
        self.folder = experiment.folder(out)
        self.layout = Layout(self.folder)
        self.failures: list[Failure] = []
        self.failed: set[str] = set()  # methods without all their images

    def run(self) -> list[Failure]:
        """All stages; returns what failed, with reasons. Everything else has been measured."""
        with stage("load the model", self.console):
            facts = self.engine.start()
        check_disk(self.experiment, self.folder, facts.image_pixels)
        with held_alone(self.folder):
            self._prepare(facts)
            with following(self.console) as progress:
                self._generate(progress)
                self._time(progress)
                self._score(progress)
            if not self.failures:
                write_json(self.layout.complete, {"format": FORMAT})
        return self.failures

    def _prepare(self, facts: Facts) -> None:
        """Describe the run, or check that the folder belongs to this very spec, model and machine."""
        labels = list(self.experiment.methods)
        spec = self.spec.identity() | {"format": FORMAT, "digest": self.spec.digest(), "method_labels": labels}
        environment = facts.environment | {
            "command": without_credentials(self.command),
            "prompts": dict(self.experiment.prompt_record),
            "anchors": [anchor.model_dump(mode="json") for anchor in self.spec.anchors],  # never ranked
            "image_pixels": facts.image_pixels,
        }
        remove_leftovers(self.folder)
        self.layout.complete.unlink(missing_ok=True)  # whole only when this call, too, has found or made everything
        if self.layout.environment.exists():
            self._check_same(environment)
        else:
            write_json(self.layout.environment, environment)
        if self._spec_differs(spec):
            write_json(self.layout.spec, spec)
        for label, record in self.experiment.planned.items():
            if not has_run(self.folder, label):
                write_method(self.folder, record)

    def _spec_differs(self, spec: dict[str, Any]) -> bool:
        """Whether the spec must be written (again): the folder's name holds its digest, so a damaged one can be replaced."""
        path = self.layout.spec
        if not path.exists():
            return True
        try:
            found = read_json(path)
        except ArtifactError as error:
            self.console.print(one_line(f"damaged, written again: {error}"), markup=False, soft_wrap=True)
            return True
        check_format(found, str(self.folder))
        if found != spec:
            recorded, current = differing(found, spec)
            raise ArtifactError(
                expected=f"the spec of this run in {self.folder}: {current}", got=recorded, remedy="choose another --out"
            )
        return False

    def _check_same(self, environment: dict[str, Any]) -> None:
        """A run is resumed with its own weights and prompts on its own machine, so that its records belong together."""
        begun = read_json(self.layout.environment)
        for key, what in SAME_THROUGHOUT.items():
            if begun.get(key) != environment[key]:
                recorded, current = differing(begun.get(key), environment[key])
                raise ArtifactError(
                    expected=f"the {what} that {self.folder} was started with: {recorded}",
                    got=current,
                    remedy="choose another --out, or delete that run; `ilf-bench report` rebuilds a report anywhere",
                )

    def _generate(self, progress: Followed) -> None:
        """All images, then each method's record; a range that fails makes its method a failure, and stops no other range."""
        counts = {label: len(self.experiment.samples(self.folder, label).prompts) for label in self.experiment.methods}
        bars = {label: progress.add(f"generate {label}", count) for label, count in counts.items()}
        size = self.spec.batch
        ranges = (
            (label, r) for window in self.experiment.windows() for label in bars for r in chunks(counts[label], size, window)
        )
        tasks = (Task("generate", label, r.start, r.stop, size) for label, r in ranges)
        self._follow("sampler", tasks, bars, progress)
        finish = [Task("finish", label) for label in bars if label not in self.failed]
        for outcome in self._outcomes("sampler", finish):
            self._method_failed(outcome)

    def _follow(self, role: Role, tasks: Iterable[Task], bars: Mapping[str, int], progress: Followed) -> None:
        """Have ranges of samples done; each method's bar begins when its first range is handed out."""

        def begun() -> Iterator[Task]:
            for task in tasks:
                progress.begin(bars[task.method])
                yield task

        for outcome in self._outcomes(role, begun()):
            progress.advance(bars[outcome.task.method], len(outcome.task.indices))
            self._method_failed(outcome)
        for bar in bars.values():
            progress.end(bar)

    def _method_failed(self, outcome: TaskResult) -> None:
        label = outcome.task.method
        if not outcome.error or label in self.failed:
            return
        where = f" ({outcome.task.text})" if outcome.task.stop else ""
        self.failed.add(label)
        self.failures.append(Failure(label, "", outcome.error + where))
        write_method(self.folder, self.experiment.planned[label], self.failures[-1].reason)

    def _time(self, progress: Followed) -> None:
        """Rounds of all methods that generated; a round is one file, so that an interrupted round is repeated as a whole."""
        labels = [label for label in self.experiment.methods if label not in self.failed]
        todo = [n for n in range(self.spec.timing.rounds) if labels and not self._is_timed(n)]
        if not todo:
            return
        bar = progress.add("time, interleaved rounds", self.spec.timing.rounds, self.spec.timing.rounds - len(todo))
        progress.begin(bar)
        for outcome in self._outcomes("sampler", [Task("time", "", n) for n in todo], alone=True):
            progress.advance(bar)
            for label in labels if outcome.error else ():
                self.failures.append(Failure(label, "timing", f"round {outcome.task.start}: {outcome.error}"))
                write_score(self.folder, self.failures[-1])
        progress.end(bar)

    def _is_timed(self, number: int) -> bool:
        path = self.layout.round(number)
        try:
            return path.exists() and bool(read_timings(path))
        except ArtifactError as error:
            self.console.print(one_line(f"damaged, timed again: {error}"), markup=False, soft_wrap=True)
            return False

    def _score(self, progress: Followed) -> None:
        """Measure all ranges of all methods, then summarise. Images that cannot be read make their method a failure."""
        labels = [label for label in self.experiment.methods if self.spec.metrics and label not in self.failed]
        scored = [label for label in labels if not why_unscored(self.experiment.methods[label])]
        bars = {label: progress.add(f"score {label}", self.spec.samples) for label in scored}
        size = self.engine.score_batch
        tasks = (Task("measure", label, r.start, r.stop, size) for label in scored for r in chunks(self.spec.samples, size))
        self._follow("scorer", tasks, bars, progress)
        summaries = [Task("summarise", label) for label in labels if label not in self.failed]
        if summaries:
            progress.begin(bar := progress.add("summarise scores", len(summaries)))
        for outcome in self._outcomes("scorer", summaries):
            progress.advance(bar)
            self._method_failed(outcome)
        controls = [Task("controls", BASELINE)] if BASELINE in scored and BASELINE not in self.failed else []
        for outcome in self._outcomes("scorer", controls):
            if outcome.error:
                self.failures.append(Failure(BASELINE, "null controls", outcome.error))

    def _outcomes(self, role: Role, tasks: Iterable[Task], *, alone: bool = False) -> Iterator[TaskResult]:
        """Final outcomes; failures of single metrics and timings are collected on the way."""
        for outcome in Dispatch(self.engine, role, tasks, self._note).outcomes(alone=alone):
            self.failures += outcome.failures
            yield outcome

    def _note(self, fault: Fault) -> None:
        """Record what was done again; this process is the folder's only writer of faults."""
        write_json(self.layout.fault(len(self.layout.faults())), asdict(fault))
        what = f"{fault.stage} {fault.method} {fault.start}"
        self.console.print(one_line(f"done again: {what}: {fault.reason}"), markup=False, soft_wrap=True)


def differing(recorded: object, current: object) -> tuple[str, str]:
    """Two values in words; of two mappings, only the keys that differ."""
    if isinstance(recorded, Mapping) and isinstance(current, Mapping):
        keys = [key for key in sorted({*recorded, *current}) if recorded.get(key) != current.get(key)]
        texts = [", ".join(f"{key} {values.get(key)}" for key in keys) for values in (recorded, current)]
    else:
        texts = [str(recorded), str(current)]
    return texts[0][:MOST_LETTERS], texts[1][:MOST_LETTERS]


def check_disk(experiment: Experiment, out: Path, image_pixels: int) -> int:
    """Bytes that the run will write. Raises :class:`UsageError` where the disk has less; of a URL nothing is known."""
    needed = int(experiment.spec.samples * len(experiment.methods) * (image_pixels * BYTES_PER_PIXEL + 4096))
    if not is_local(out):
        return needed
    parent = next(p for p in (out, *out.resolve().parents) if p.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise UsageError(
            expected=f"{needed / 1e6:.0f} MB free for {out}", got=f"{free / 1e6:.0f} MB", remedy="choose another --out"
        )
    return needed
