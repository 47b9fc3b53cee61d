"""The run: generate, time, score, record. Each task skips what an interrupted run has already finished."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.contracts import why_unscored
from harness.errors import ArtifactError, UsageError
from harness.execution.dispatch import Dispatch
from harness.execution.experiment import Experiment
from harness.execution.part import Part
from harness.execution.progress import Followed, following, stage
from harness.execution.resuming import AnotherRun, changed_methods, forget, remove, shared_change, stays
from harness.execution.tasks import Engine, Facts, Role, Task, TaskResult
from harness.results import BASELINE, Failure, Fault, MethodRecord
from harness.storage.files import remove_leftovers, write_bytes
from harness.storage.layout import Layout
from harness.storage.locations import is_local
from harness.storage.locks import held_alone, held_together
from harness.storage.records import (
    FORMAT,
    check_format,
    digest_of,
    has_run,
    read_json,
    read_pieces,
    read_timings,
    write_json,
    write_method,
    write_score,
)
from harness.storage.samples import chunks
from harness.text import blanked, one_line
from harness.timing.machine import differing_facts

MOST_LETTERS = 200  # of a value in an error message
BYTES_PER_PIXEL = 2.2  # measured on PNGs of the bundled models


class Runner:
    """Runs one experiment on one engine into one folder."""

    def __init__(self, experiment: Experiment, engine: Engine, folder: Path, console: Console, command: str = "") -> None:
        self.experiment, self.spec, self.engine, self.console = experiment, experiment.spec, engine, console
        self.command, self.folder, self.layout = command, folder, Layout(folder)
        self.planned: dict[str, MethodRecord] = dict(experiment.planned)
        self.failures: list[Failure] = []
        self.failed: set[str] = set()  # methods without all their images
        self.finished: dict[str, Any] = {}  # what an earlier call wrote when everything had been measured
        self.since = ""

    def run(self) -> list[Failure]:
        """All stages; returns what failed, with reasons. Everything else has been measured.

        ``since`` then says since when and at which commit, where an earlier call had measured all of it. Raises
        :class:`AnotherRun` where the folder has a finished run of something else.
        """
        with stage("load the model", self.console):
            facts = self.engine.start()
        if words := facts.environment.get("placement"):
            self.console.print(one_line(f"memory: {words}"), markup=False, soft_wrap=True)
        check_disk(self.experiment, self.folder, facts.image_pixels)
        with held_alone(self.folder):
            self._prepare(facts)
            with following(self.console) as progress:
                self._generate(progress)
                self._time(progress)
                self._score(progress)
            if not self.failures:
                self._complete(facts.environment)
        return self.failures

    def generate(self, part: Part) -> list[Failure]:
        """The images of one part alone, beside the processes that generate the others; a later :meth:`run` does all else.

        Raises :class:`UsageError` where a method has changed since the run was begun: what others have made would be deleted.
        """
        with stage("load the model", self.console):
            facts = self.engine.start()
        check_disk(self.experiment, self.folder, facts.image_pixels)
        with held_together(self.folder):
            self._prepare(facts, alone=False)
            with following(self.console) as progress:
                self._images(progress, part)
        return self.failures

    def _prepare(self, facts: Facts, *, alone: bool = True) -> None:
        """Describe the run, or find out what of an earlier call is kept; the rest of it is deleted, where we are ``alone``."""
        self.planned = {k: replace(r, identity=facts.identities.get(k, r.identity)) for k, r in self.experiment.planned.items()}
        environment = facts.environment | {
            "command": self.command,
            "prompts": dict(self.experiment.prompt_record),
            "anchors": [anchor.model_dump(mode="json") for anchor in self.spec.anchors],  # never ranked
            "image_pixels": facts.image_pixels,
        }
        environment = blanked(environment)
        begun = read_json(self.layout.environment) if self.layout.environment.exists() else {}
        self.finished = self._finished()
        self._check_place(begun, environment)
        changed = changed_methods(self.folder, self.planned)
        if alone:
            remove_leftovers(self.folder)
            self.layout.complete.unlink(missing_ok=True)  # whole only when this call, too, has found or made everything
            forget(self.folder, changed)
        elif changed:
            raise _changed_meanwhile(self.folder, changed)
        for label, why in changed.items():
            self._say(f"{label}: {why} changed since {begun.get('created', 'an earlier call')}: made again")
        busy = environment.get("busy", [])
        if busy and not self.finished:
            self._say(f"the machine is busy ({'; '.join(busy)}): times are disturbed, and the report says so")
        if changed or not begun:
            write_json(self.layout.environment, environment)
        elif busy and not self.finished and not begun.get("busy"):
            write_json(self.layout.environment, begun | {"busy": busy})
        self._write_spec()
        self._write_plugins()
        for label, record in self.planned.items():
            if not has_run(self.folder, label):
                write_method(self.folder, record)

    def _finished(self) -> dict[str, Any]:
        """When everything had been measured; nothing where it has not, or where that note is damaged."""
        try:
            found = read_json(self.layout.complete) if self.layout.complete.exists() else {}
            check_format(found, str(self.folder)) if found else None
        except ArtifactError:
            return {}
        return dict(found)

    def _check_place(self, begun: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        """An unfinished run is resumed on its own machine alone, so that its records belong together; a finished one stays."""
        moved = differing_facts(begun, environment) if begun else ""
        if self.finished:
            why = (
                f"the machine ({moved})"
                if moved
                else shared_change(self.folder, {k: r.identity for k, r in self.planned.items()})
            )
            if why:
                beside = self.experiment.folder(self.folder.parent, self.experiment.number(self.folder.parent) + 1)
                raise AnotherRun(beside, stays(self.folder, why, beside))
        elif moved:
            raise ArtifactError(
                expected=f"the machine that {self.folder} was started on",
                got=moved,
                remedy="choose another --out, or delete that run; `ilf-bench report` rebuilds a report anywhere",
            )

    def _write_spec(self) -> None:
        """The resolved preset. The folder's name holds its digest, so a damaged one can be replaced; labels may have changed."""
        content = blanked(self.spec.identity()) | {
            "format": FORMAT,
            "digest": self.spec.digest(),
            "method_labels": list(self.planned),
        }
        path = self.layout.spec
        if path.exists():
            try:
                found = read_json(path)
            except ArtifactError as error:
                self._say(f"damaged, written again: {error}")
                found = content
            check_format(found, str(self.folder))
            content["format"] = found["format"]  # a run keeps the version that it was begun with
            if found | {"method_labels": []} != content | {"method_labels": []}:
                recorded, current = differing(found, content)
                raise ArtifactError(
                    expected=f"the spec of this run in {self.folder}: {current}", got=recorded, remedy="choose another --out"
                )
        write_json(path, content)

    def _write_plugins(self) -> None:
        """The sources of the user's own methods and metrics as they are run, and no others."""
        plugins = [plugin for plugin in self.experiment.plugins.values() if plugin.sources]
        kept = {self.layout.plugin(plugin.digest, name): text for plugin in plugins for name, text in plugin.sources.items()}
        for folder in self.layout.plugins():
            if not any(file.is_relative_to(folder) for file in kept):
                remove(folder)
        for file, text in kept.items():
            write_bytes(file, text.encode())

    def _complete(self, environment: Mapping[str, Any]) -> None:
        """Write last that everything has been measured, and when; as before where nothing is other than it was."""
        records = digest_of(read_pieces(self.folder))
        if self.finished.get("records") == records:
            self.since = f"{self.finished.get('finished')} at {str(self.finished.get('commit'))[:12]}"
        else:
            begun = {"format": read_json(self.layout.spec)["format"], "commit": environment.get("commit")}
            now = {"finished": datetime.now(UTC).isoformat(timespec="seconds"), "records": records}
            self.finished = begun | {"dirty": environment.get("dirty")} | now
        write_json(self.layout.complete, self.finished)

    def _say(self, text: str) -> None:
        self.console.print(one_line(text), markup=False, soft_wrap=True)

    def _generate(self, progress: Followed) -> None:
        """All images, then each method's record; a range that fails makes its method a failure, and stops no other range."""
        self._images(progress, Part(1, 1))
        finish = (Task("finish", label) for label in self.experiment.methods if label not in self.failed)
        for outcome in self._outcomes("sampler", finish):
            self._method_failed(outcome)
        for failure in (one for one in self.failures if not one.metric):  # also where it was found while that method was finished
            write_method(self.folder, self.planned[failure.method], failure.reason)

    def _images(self, progress: Followed, part: Part) -> None:
        """The images of a part of all ranges; each range is one task."""
        counts = {label: len(self.experiment.samples(self.folder, label).prompts) for label in self.experiment.methods}
        size = self.spec.batch
        ranges = (
            (label, r) for window in self.experiment.windows() for label in counts for r in chunks(counts[label], size, window)
        )
        mine = list(part.of_all(ranges))
        images = {label: sum(len(r) for each, r in mine if each == label) for label in counts}
        bars = {label: progress.add(f"generate {label}", count) for label, count in images.items() if count}
        self._follow("sampler", (Task("generate", label, r.start, r.stop, size) for label, r in mine), bars, progress)

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
        if outcome.error:
            where = f" ({outcome.task.text})" if outcome.task.stop else ""
            self._fail(Failure(outcome.task.method, "", outcome.error + where))

    def _fail(self, failure: Failure) -> None:
        if failure.method not in self.failed:
            self.failed.add(failure.method)
            self.failures.append(failure)
            self._say(f"{failure.method} has failed: {failure.reason}")
            write_method(self.folder, self.planned[failure.method], failure.reason)

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
            self._say(f"damaged, timed again: {error}")
            return False

    def _score(self, progress: Followed) -> None:
        """Measure all ranges, each of all methods in turn, because all are held against the same images; then summarise.

        Images that cannot be read make their method a failure.
        """
        labels = [label for label in self.experiment.methods if self.spec.metrics and label not in self.failed]
        scored = [label for label in labels if not why_unscored(self.experiment.methods[label])]
        bars = {label: progress.add(f"score {label}", self.spec.samples) for label in scored}
        size = self.engine.score_batch
        tasks = (Task("measure", label, r.start, r.stop, size) for r in chunks(self.spec.samples, size) for label in scored)
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
            for leak in outcome.leaks:
                self._fail(leak)
                for path in self.layout.of_method(leak.method):  # nobody knows any more what they show
                    remove(path)
            yield outcome

    def _note(self, fault: Fault) -> None:
        """Record what was done again; this process is the folder's only writer of faults."""
        write_json(self.layout.fault(len(self.layout.faults())), asdict(fault))
        what = f"{fault.stage} {fault.method} {fault.start}"
        self._say(f"done again: {what}: {fault.reason}")


def _changed_meanwhile(folder: Path, changed: Mapping[str, str]) -> UsageError:
    label, why = next(iter(changed.items()))
    return UsageError(
        expected=f"methods as they were when {folder} was begun",
        got=f"{label}: {why} changed since",
        remedy="run once without --part, which makes it again, or choose another --out",
    )


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
