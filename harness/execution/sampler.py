"""The worker that holds the pipeline: makes ranges of images, closes a method's record, and times rounds."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from harness.config.description import describe_method
from harness.config.prompts import prompt_note
from harness.config.spec import is_random
from harness.execution.environment import describe, weights_digest
from harness.execution.experiment import Experiment
from harness.execution.tasks import Facts, Task, TaskResult, after, shrinking
from harness.models.loading import load_pipeline, quiet_libraries
from harness.paths import locate
from harness.results import A_A, BASELINE
from harness.sampling.captions import caption_notes
from harness.sampling.counting import BlockCounter
from harness.sampling.encoded import EncodedPrompts
from harness.sampling.pipeline import Pipeline
from harness.storage.images import Pixels
from harness.storage.listing import list_images
from harness.storage.records import has_run, write_method
from harness.storage.writing import Writer
from harness.timing.rounds import Rounds

TIMING_SEED_OFFSET = 1_000_000  # timed images are not the scored ones


class Sampler:
    """Does ``generate``, ``finish`` and ``time``. The pipeline stays loaded, and a method attached until another is wanted."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self.experiment, self.spec, self.folder = experiment, experiment.spec, folder
        self.attached: tuple[str, BlockCounter] | None = None
        self.stack = ExitStack()
        self.batches: dict[str, int] = {}  # what memory allowed, where it was less than the preset's
        self.rounds: Rounds | None = None
        self.writer = Writer()

    def close(self) -> None:
        """Detach the method, and drop the images that are not stored."""
        self._detach()
        self.writer.close()

    @cached_property
    def pipeline(self) -> Pipeline:
        """Loaded on first use."""
        quiet_libraries()
        return load_pipeline(self.spec)

    @cached_property
    def encoded(self) -> EncodedPrompts:
        """The prompts of all methods, as the plain pipeline encodes them."""
        return EncodedPrompts(self.pipeline.pipe)

    def facts(self) -> Facts:
        """The machine, the weights and their notes, and the size of an image."""
        pipeline = self.pipeline
        environment = describe(pipeline.device, pipeline.arithmetic) | {
            "weights": weights_digest(pipeline.folder),
            "weights_dtype": pipeline.dtype,
            "notes": [*pipeline.notes, *self._input_notes()],
        }
        return Facts(environment, image_pixels(pipeline))

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

    def do(self, task: Task) -> TaskResult | Future[TaskResult]:
        """One task. Images are stored while the next ones are made; all else is on disk when it returns."""
        if task.stage == "generate":
            return self._generate(task)
        if task.stage == "finish":
            return self._finish(task)
        return self._time(task)

    def _generate(self, task: Task) -> TaskResult | Future[TaskResult]:
        samples = self.experiment.samples(self.folder, task.method)
        if samples.is_done(task.indices):
            return TaskResult(task)
        counter = self._attach(task.method)

        def sample(prompts: Sequence[str], indices: Sequence[int]) -> Pixels:
            return self.pipeline.generate(prompts, self.spec.seed, indices).numpy()

        allowed = min(task.batch, self.batches.get(task.method, task.batch))
        try:
            stored, batch = shrinking(
                allowed, lambda size: samples.begin(task.indices, sample, lambda: counter.rows, self.writer, size)
            )
        except BaseException:
            self._detach()  # whatever state the failure left, the next range begins with a fresh attachment
            raise
        if batch == allowed:
            return after(stored, TaskResult(task))
        self.batches[task.method] = batch
        return after(stored, TaskResult(task, faults=(task.fault(batch, f"out of memory at {allowed} images at a time"),)))

    def _finish(self, task: Task) -> TaskResult:
        label = task.method
        method = self.experiment.methods[label]
        self._attach(label)
        steps = self.pipeline.steps
        self._detach()
        text, plugins = self.experiment.planned[label].spec, self.experiment.plugins
        record = describe_method(label, text, method, self.pipeline.plan(), plugins)
        counted = self.experiment.samples(self.folder, label).finish(label)
        write_method(self.folder, replace(record, steps=steps, block_evaluations=counted))
        return TaskResult(task)

    def _attach(self, label: str) -> BlockCounter:
        """Attach a method, unless it is; the counter counts from before, so that only real work is counted."""
        if self.attached is not None and self.attached[0] == label:
            return self.attached[1]
        self._detach()
        with ExitStack() as stack:
            stack.enter_context(self.pipeline.keeping_prompts(self.encoded))
            counter = stack.enter_context(self.pipeline.counting())
            stack.enter_context(self.experiment.methods[label].attach(self.pipeline))
            self.stack = stack.pop_all()
        self.attached = label, counter
        return counter

    def _detach(self) -> None:
        self.attached = self.rounds = None
        self.stack.close()

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
            self.rounds = Rounds(self.folder, self.spec.timing, self.pipeline, self.experiment.prompts, seed, methods)
        failures = self.rounds.record(task.start)
        faults, self.rounds.faults = tuple(self.rounds.faults), []
        return TaskResult(task, tuple(failures), faults)


def image_pixels(pipeline: Pipeline) -> int:
    """Pixels of one image."""
    _, height, width = pipeline.latent_shape
    scale = 2 ** (len(pipeline.pipe.vae.config.block_out_channels) - 1)
    return int(height * width * scale * scale)
