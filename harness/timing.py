"""Interleaved timing: every method once a round, so that drift hits all of them alike."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from rich.progress import Progress

from harness.compiling import compile_seconds
from harness.contracts import Method, TimingSample
from harness.nvml import Monitor
from harness.pipeline import Pipeline
from harness.records import read_json, slug, write_json
from harness.spec import TimingSpec
from harness.stages import StageTimer

CLEAR_REFS = Path("/proc/self/clear_refs")
Guard = Callable[[str, str, Callable[[], None]], bool]


def reset_peak_memory(device: str) -> None:
    """Start a new peak: the CUDA allocator's, or (on Linux) this process's resident set."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        CLEAR_REFS.write_text("5")


def peak_memory_bytes(device: str) -> int:
    """The peak since :func:`reset_peak_memory`; where the system cannot reset it, since the process began."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError, StopIteration):
        line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def time_once(
    pipeline: Pipeline, method: Method, label: str, prompts: Sequence[str], seed: int, number: int, monitor: Monitor | None = None
) -> TimingSample:
    """One timed batch, attaching outside the clock. The device is watched from outside the timed region, too."""
    timer, monitor = StageTimer(pipeline.device), monitor or Monitor("cpu")
    with method.attach(pipeline):
        reset_peak_memory(pipeline.device)
        monitor.begin()
        compiling, start = compile_seconds(), timer.now()
        with timer.timing(pipeline.pipe):
            pipeline.generate(prompts, seed, range(len(prompts)))
        latency = timer.now() - start
        state = monitor.end()
    return TimingSample(
        label, number, len(prompts), latency, timer.text_s, timer.denoise_s, timer.decode_s, peak_memory_bytes(pipeline.device),
        compile_seconds() - compiling, state.clock_mhz, state.temperature_c, state.power_w, state.throttled,
    )  # fmt: skip


def in_round(labels: Sequence[str], number: int) -> list[str]:
    """The order of a round: every second one runs in reverse, so that no method always follows the same one."""
    return list(reversed(labels)) if number % 2 else list(labels)


class Rounds:
    """Times methods on one pipeline, at every batch size of the spec; a round is one file, so that a cut one starts again.

    ``guard`` turns the failure of one method at one batch size into a record and stops no other.
    """

    def __init__(
        self, folder: Path, timing: TimingSpec, pipeline: Pipeline, prompts: Sequence[str], seed: int, guard: Guard
    ) -> None:
        self.folder, self.timing, self.pipeline = folder, timing, pipeline
        self.prompts, self.seed, self.guard = prompts, seed, guard
        self.monitor = Monitor(pipeline.device)

    def run(self, methods: Mapping[str, Method], progress: Progress) -> None:
        """Warm up and time what this folder lacks. Warm-up rounds are recorded apart, with the seconds spent compiling."""
        todo = [n for n in range(self.timing.rounds) if not self._file(n).exists()]
        task = progress.add_task("time, interleaved rounds", total=self.timing.rounds, completed=self.timing.rounds - len(todo))
        if not todo:
            return
        alive = {batch: list(methods) for batch in self.timing.all_batches}
        for label in methods:
            for batch in alive:
                (self.folder / "scores" / slug(label) / f"{self._stage(batch)}.json").unlink(missing_ok=True)  # an earlier try
        with self.pipeline.compiled():
            warmups = [row for n in range(self.timing.warmup, 0, -1) for row in self._round(methods, alive, -n)]
            self._store_warmups(warmups)
            for number in todo:
                write_json(self._file(number), [asdict(row) for row in self._round(methods, alive, number)])
                progress.advance(task)

    def _file(self, number: int) -> Path:
        return self.folder / "timing" / f"{number:03d}.json"

    def _stage(self, batch: int) -> str:
        """What a failure is filed under: ``timing`` for the batch size that reports compare at."""
        return "timing" if batch == self.timing.batch else f"timing-batch-{batch}"

    def _store_warmups(self, rows: Sequence[TimingSample]) -> None:
        """After those of a run that was cut before."""
        file = self.folder / "warmup.json"
        before = read_json(file) if file.exists() else []
        write_json(file, [*before, *(asdict(row) for row in rows)])

    def _round(self, methods: Mapping[str, Method], alive: dict[int, list[str]], number: int) -> list[TimingSample]:
        """One round over all batch sizes; a method that fails at one of them leaves ``alive`` there."""
        rows: list[TimingSample] = []
        for batch in alive:
            prompts = [self.prompts[i % len(self.prompts)] for i in range(batch)]
            for label in in_round(alive[batch], number):
                once = partial(self._time_once, rows, methods[label], label, prompts, number)
                if not self.guard(label, self._stage(batch), once):
                    alive[batch] = [other for other in alive[batch] if other != label]
        return rows

    def _time_once(self, rows: list[TimingSample], method: Method, label: str, prompts: list[str], number: int) -> None:
        rows.append(time_once(self.pipeline, method, label, prompts, self.seed, number, self.monitor))
