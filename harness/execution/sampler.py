"""The worker that holds the pipeline: makes ranges of images, closes a method's record, and times rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter

from torch import nn

from harness.config.description import describe_method
from harness.config.prompts import prompt_note
from harness.config.spec import is_random
from harness.errors import ArtifactError
from harness.execution.code import code_digest
from harness.execution.environment import describe
from harness.execution.experiment import Experiment
from harness.execution.fitting import Placement, Room, loading, place, room_on
from harness.execution.identity import CALIBRATIONS, read_identity
from harness.execution.tasks import Facts, Task, TaskResult, after, is_fatal, reason, shrinking
from harness.models.identity import model_digest
from harness.models.loading import load_pipeline, quiet_libraries
from harness.paths import locate
from harness.results import A_A, BASELINE, Failure, Fault
from harness.sampling.captions import caption_notes
from harness.sampling.counting import BlockCounter
from harness.sampling.encoded import EncodedPrompts
from harness.sampling.pipeline import Pipeline
from harness.sampling.precision import resolve_device
from harness.sampling.restoration import Restoration, changed, leak_reason, state_of
from harness.storage.images import Pixels
from harness.storage.layout import Layout
from harness.storage.listing import list_images
from harness.storage.records import has_run, read_method, write_method
from harness.storage.samples import SampleSet, chunks
from harness.storage.writing import Writer
from harness.timing.rounds import Rounds

LOAD_AGAIN = "load the pipeline again, and leave that method out"
TIMING_SEED_OFFSET = 1_000_000  # timed images are not the scored ones


@dataclass(frozen=True)
class Lent:
    """A pipeline that is already in memory, and the digest that identifies it."""

    pipeline: Pipeline
    digest: str


class Sampler:
    """Does ``generate``, ``finish`` and ``time``. The pipeline stays loaded, and a method attached until another is wanted."""

    def __init__(self, experiment: Experiment, folder: Path, lent: Lent | None = None) -> None:
        self.experiment, self.spec, self.folder, self.lent = experiment, experiment.spec, folder, lent
        self.attached: tuple[str, BlockCounter] | None = None
        self.stack = ExitStack()
        self.batches: dict[str, int] = {}  # what memory allowed, where it was less than the preset's
        self.rounds: Rounds | None = None
        self.writer = Writer()
        self.sets: dict[str, SampleSet] = {}
        self.leaks: list[Failure] = []
        self.changed_by = ""  # the method that left a lent pipeline changed
        self.since = 0.0
        self.encoded_ahead: tuple[range, int] | None = None

    def close(self) -> None:
        """Detach the method, and drop the images that are not stored."""
        self._detach()
        self.writer.close()

    @cached_property
    def pipeline(self) -> Pipeline:
        """Loaded on first use where none is lent, once it is known that it fits, and again after a method has left it changed."""
        if self.lent:
            if self.changed_by:
                got = f"one that {self.changed_by} left changed"
                raise ArtifactError(expected="the pipeline as it was lent", got=got, remedy=LOAD_AGAIN)
            return self.lent.pipeline
        with loading(self.placed, self.room):
            return load_pipeline(self.spec, self.placed.offload)

    @cached_property
    def room(self) -> Room | None:
        """Memory of the GPU before anything is loaded."""
        return room_on(resolve_device(self.spec.device))

    @cached_property
    def placed(self) -> Placement:
        """Where the parts of the pipeline lie, and the batch that is predicted to fit."""
        if self.lent:
            return Placement("none", self.spec.batch, None)  # it lies where its owner has put it
        quiet_libraries()
        return place(self.spec, self.experiment.prompts, self.room)

    @cached_property
    def encoded(self) -> EncodedPrompts:
        """The prompts of all methods, as the plain pipeline encodes them."""
        return EncodedPrompts(self.pipeline.pipe)

    @cached_property
    def restoration(self) -> Restoration:
        """The pipeline as it was loaded."""
        return Restoration(self.pipeline)

    def facts(self) -> Facts:
        """The machine, the weights and their notes, and the size of an image."""
        pipeline = self.pipeline
        environment = describe(pipeline.device, pipeline.arithmetic, self.placed.offload) | {
            **self._placement(),
            "weights": self.model,
            "weights_dtype": pipeline.dtype,
            "code": code_digest(),
            "notes": [*pipeline.notes, *self._input_notes()],
        }
        return Facts(environment, image_pixels(pipeline), {label: self._identity(label) for label in self.experiment.methods})

    @cached_property
    def model(self) -> str:
        """The digest of the pipeline."""
        return self.lent.digest if self.lent else model_digest(self.pipeline)

    def _identity(self, label: str) -> dict[str, str]:
        """What decides a method's images and times, as far as it is known by now."""
        planned = self.experiment.planned[label]
        plugins = [self.experiment.plugins[part.name] for part in planned.parts if part.name in self.experiment.plugins]
        found = read_identity(self.experiment.methods[label], self.pipeline.plan(), plugins, self.model)
        return {**planned.identity, **found}

    def _input_notes(self) -> list[str]:
        """What of the prompts and of a folder of references was left out, and how the text encoders read the prompts.

        Pipelines of random weights have tokenizers of letters, and read nothing.
        """
        notes = [prompt_note(self.experiment.prompt_record, self.spec.samples)]
        if self.spec.task == "text" and not is_random(self.spec.pipeline):
            notes += caption_notes(self.pipeline, self.experiment.prompts)
        if self.spec.reference is not None and (reference := locate(self.spec.reference)).is_dir():
            notes.append(list_images(reference).note)
        return [note for note in notes if note]

    def _placement(self) -> dict[str, object]:
        """For the record: predicted bytes of each stage, what else than usual was done about them, and what left the device."""
        placed, words = self.placed, self.placed.words
        known = {"predicted_bytes": placed.predicted.stages(placed.offload)} if placed.predicted else {}
        moved = {"offloaded_bytes": self.pipeline.residency.host_bytes} if placed.offload != "none" else {}
        return {**known, **moved, **({"placement": words} if words else {})}

    def do(self, task: Task) -> TaskResult | Future[TaskResult]:
        """One task. Images are stored while the next ones are made; all else is on disk when it returns."""
        if task.stage == "generate":
            return self._generate(task)
        if task.stage == "finish":
            return self._finish(task)
        return self._time(task)

    def _done(self, task: Task, failures: Sequence[Failure] = (), faults: Sequence[Fault] = ()) -> TaskResult:
        """A task's result, with the methods that have been found to have left the pipeline changed."""
        leaks, self.leaks = tuple(self.leaks), []
        return TaskResult(task, tuple(failures), tuple(faults), leaks=leaks)

    def _generate(self, task: Task) -> TaskResult | Future[TaskResult]:
        samples = self._samples(task.method)
        if samples.is_done(task.indices):
            return TaskResult(task)
        allowed = min(task.batch, self.placed.batch, self.batches.get(task.method, task.batch))
        self._encode_ahead(task, allowed)
        counter = self._attach(task.method)

        def sample(prompts: Sequence[str], indices: Sequence[int]) -> Pixels:
            return self.pipeline.generate(prompts, self.spec.seed, indices).numpy()

        try:
            stored, batch = shrinking(
                allowed, lambda size: samples.begin(task.indices, sample, lambda: counter.rows, self.writer, size)
            )
        except BaseException:
            self._detach()  # whatever state the failure left, the next range begins with a fresh attachment
            raise
        if batch == allowed:
            return after(stored, self._done(task))
        self.batches[task.method] = batch
        return after(stored, self._done(task, faults=[task.fault(batch, f"out of memory at {allowed} images at a time")]))

    def _samples(self, label: str) -> SampleSet:
        """The images of one method; a range of them is a batch, so this is asked often."""
        if label not in self.sets:
            self.sets[label] = self.experiment.samples(self.folder, label)
        return self.sets[label]

    def _encode_ahead(self, task: Task, size: int) -> None:
        """Where the text encoders leave the device: encode all prompts that are kept together, so that they come and go once."""
        window = next(window for window in self.experiment.windows() if task.start in window)
        if self.pipeline.residency.offload != "text" or self.encoded_ahead == (window, size):
            return
        self._detach()
        prompts = self.experiment.prompts
        with self.pipeline.keeping_prompts(self.encoded):
            for part in chunks(len(prompts), self.spec.batch, window):
                for few in (part[i : i + size] for i in range(0, len(part), size)):
                    self.pipeline.encode([prompts[i] for i in few])
        self.pipeline.residency.enter("denoise")
        self.encoded_ahead = window, size

    def _finish(self, task: Task) -> TaskResult:
        label = task.method
        method = self.experiment.methods[label]
        self._detach()
        before, start = self.restoration.state, perf_counter()
        with method.attach(self.pipeline):
            steps, touched = self.pipeline.steps, changed(before, state_of(self.pipeline))
        if faults := self.restoration.faults(perf_counter() - start):
            self._leaked(label, faults)
        if any(leak.method == label for leak in self.leaks):
            return self._done(task)
        text, plugins = self.experiment.planned[label].spec, self.experiment.plugins
        record = describe_method(label, text, method, self.pipeline.plan(), plugins)
        counted = self._samples(label).finish(label)
        if record.is_plain and self._changes_networks(touched):
            record = replace(record, kind="other", parts=tuple(replace(part, kind="other") for part in record.parts))
        identity = {**self._begun(label), CALIBRATIONS: self._identity(label)[CALIBRATIONS]}
        write_method(self.folder, replace(record, steps=steps, block_evaluations=counted, identity=identity))
        return self._done(task)

    def _changes_networks(self, touched: Sequence[str]) -> bool:
        """Whether what a method has changed is in a network: then it does more than choose steps, solver and timesteps."""
        networks = tuple(f"{name}." for name, part in self.pipeline.pipe.components.items() if isinstance(part, nn.Module))
        return any(name.startswith(networks) for name in touched)

    def _begun(self, label: str) -> Mapping[str, str]:
        """What the method's images were made of when they were begun; a file that has changed since makes them others."""
        file = Layout(self.folder).method(label)
        return read_method(file).identity if file.exists() else self._identity(label)

    def _attach(self, label: str) -> BlockCounter:
        """Attach a method, unless it is; the counter counts from before, so that only real work is counted."""
        if self.attached is not None and self.attached[0] == label:
            return self.attached[1]
        self._detach()
        self.pipeline.residency.enter("denoise")
        _ = self.restoration  # as it is before the first method
        with ExitStack() as stack:
            stack.enter_context(self.pipeline.keeping_prompts(self.encoded))
            counter = stack.enter_context(self.pipeline.counting())
            stack.enter_context(self.experiment.methods[label].attach(self.pipeline))
            self.stack = stack.pop_all()
        self.attached, self.since = (label, counter), perf_counter()
        return counter

    def _detach(self) -> None:
        """Let the method go, and look what it has left; then the next one begins with a pipeline that is loaded again."""
        left, self.attached, self.rounds = self.attached, None, None
        try:
            self.stack.close()
        except Exception as error:
            if left is None or is_fatal(error):
                raise
            self._leaked(left[0], [f"leaving it, {reason(error)}"])
            return
        if left is not None and (faults := self.restoration.faults(perf_counter() - self.since)):
            self._leaked(left[0], faults)

    def _leaked(self, label: str, faults: Sequence[str]) -> None:
        self.changed_by = label
        self.leaks.append(Failure(label, "", leak_reason(faults)))
        self._forget_pipeline()

    def _forget_pipeline(self) -> None:
        """It is loaded again when it is needed; prompts that were encoded with it are encoded again."""
        self.changed_by = self.changed_by or "a method"
        for name in ("pipeline", "restoration", "encoded"):
            self.__dict__.pop(name, None)
        self.encoded_ahead = None

    def _renewed(self) -> Pipeline:
        """The pipeline loaded again for the rounds that are under way."""
        self.stack.close()
        self._forget_pipeline()
        self.stack.enter_context(self.pipeline.compiled())
        return self.pipeline

    def _time(self, task: Task) -> TaskResult:
        """One interleaved round of the methods that have a record, the baseline twice; before the first one, the warm-up."""
        if self.rounds is None:
            self._detach()
            known = [label for label in self.experiment.methods if has_run(self.folder, label)]
            methods = {label: self.experiment.methods[label] for label in known}
            if BASELINE in methods:
                methods[A_A] = methods[BASELINE]
            seed = self.spec.seed + TIMING_SEED_OFFSET
            self.stack.enter_context(self.pipeline.compiled())
            prompts, timing = self.experiment.prompts, self.spec.timing
            self.rounds = Rounds(self.folder, timing, self.pipeline, prompts, seed, methods, self._renewed)
        failures = self.rounds.record(task.start)
        faults, self.rounds.faults = list(self.rounds.faults), []
        return self._done(task, failures, faults)


def image_pixels(pipeline: Pipeline) -> int:
    """Pixels of one image."""
    height, width = pipeline.image_size
    return height * width
