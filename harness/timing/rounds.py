"""Interleaved timing: every method once per round, so that drift affects all of them equally."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import torch

from harness.config.spec import TimingSpec
from harness.contracts import Capturing, Method
from harness.execution.tasks import is_fatal, reason, shrinking
from harness.results import BASELINE, REFERENCE, Failure, Fault, TimingSample
from harness.sampling.compiling import compile_seconds, gave_up
from harness.sampling.encoded import EncodedPrompts
from harness.sampling.pipeline import Pipeline
from harness.sampling.restoration import Restoration, leak_reason
from harness.storage.layout import Layout
from harness.storage.records import read_json, read_timings, write_json, write_score
from harness.timing.nvml import DeviceState, Monitor
from harness.timing.reference_workload import Workload
from harness.timing.stages import StageTimer
from harness.timing.stopwatch import Stopwatch

CLEAR_REFS = Path("/proc/self/clear_refs")


def reset_peak_memory(device: str) -> None:
    """Start a new peak: the CUDA allocator's, or (on Linux) this process's resident set."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        CLEAR_REFS.write_text("5", encoding="utf-8")


def peak_memory_bytes(device: str) -> int:
    """The peak since :func:`reset_peak_memory`; where the system cannot reset it, since the process began."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError, StopIteration):
        line = next(s for s in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if s.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def time_once(
    pipeline: Pipeline,
    method: Method,
    label: str,
    prompts: Sequence[str],
    seed: int,
    number: int,
    monitor: Monitor | None = None,
    text_s: float | None = None,
) -> TimingSample:
    """One timed batch, attaching outside the clock. The device is watched from outside the timed region, too.

    ``text_s``: what the text stage takes, where it was timed apart and the prompts are known; then the sample includes it.
    """
    timer, monitor = StageTimer(pipeline.device), monitor or Monitor("cpu")
    pipeline.residency.enter("denoise")
    with method.attach(pipeline):
        if isinstance(method, Capturing) and method.captures:
            pipeline.generate(prompts, seed, range(len(prompts)))
        reset_peak_memory(pipeline.device)
        monitor.begin()
        compiling, watch = compile_seconds(), Stopwatch(pipeline.device)
        with timer.timing(pipeline):
            pipeline.generate(prompts, seed, range(len(prompts)))
        latency, cpu_s = watch.read()
        state = monitor.end()
    compiled = compile_seconds() - compiling
    return _sample(timer, state, (label, number, len(prompts)), (latency, cpu_s, compiled), text_s)


def _sample(
    timer: StageTimer,
    state: DeviceState,
    what: tuple[str, int, int],
    seconds: tuple[float, float | None, float],
    text_s: float | None,
) -> TimingSample:
    """The record of a timed call. ``what``: method, round, batch; ``seconds``: end to end, of the processor, of compilation."""
    latency, cpu_s, compiled = seconds
    return TimingSample(
        *what,
        latency + (text_s or 0.0),
        timer.text_s if text_s is None else text_s,
        timer.denoise_s,
        timer.decode_s,
        max(timer.peaks.values(), default=0) or peak_memory_bytes(timer.device),
        compiled,
        state.clock_mhz,
        state.temperature_c,
        state.power_w,
        state.throttled,
        cpu_s,
        timer.copy_s,
        state.energy_j,
        timer.reserved,
        timer.peaks.get("text"),
        timer.peaks.get("denoise"),
        timer.peaks.get("decode"),
        text_s is not None,
    )


def text_apart(pipeline: Pipeline, prompts: Sequence[str], encoded: EncodedPrompts) -> float | None:
    """Seconds that the text stage takes with its encoders alone on the device; None where they are there beside the rest.

    ``encoded`` has the prompts afterwards.
    """
    if pipeline.residency.offload != "text" or not encoded.applies:
        return None
    with pipeline.keeping_prompts(encoded):
        pipeline.encode(prompts)
    timer = StageTimer(pipeline.device)
    pipeline.residency.enter("text")
    with timer.timing(pipeline):
        pipeline.encode(prompts)
    pipeline.residency.enter("denoise")
    return timer.text_s


def in_round(labels: Sequence[str], number: int) -> list[str]:
    """The order of a round: every second one runs in reverse, so that no method always follows the same one."""
    return list(reversed(labels)) if number % 2 else list(labels)


class Rounds:
    """Times methods on one pipeline, at every batch size of the spec; a round is one file: an interrupted one is repeated.

    The failure of one method at one batch size is recorded and stops no other. Where a GPU's memory is too small for the full
    run at a batch size, every method is timed at a smaller one, and ``faults`` says so. ``renewed`` loads the pipeline again.
    """

    def __init__(
        self,
        folder: Path,
        timing: TimingSpec,
        pipeline: Pipeline,
        prompts: Sequence[str],
        seed: int,
        methods: Mapping[str, Method],
        renewed: Callable[[], Pipeline] | None = None,
    ) -> None:
        self.folder, self.timing, self.pipeline = folder, timing, pipeline
        self.restoration, self.renewed = Restoration(pipeline), renewed
        self.prompts, self.seed, self.methods = prompts, seed, methods
        self.monitor = Monitor(pipeline.device)
        self.workload = Workload(pipeline.device, pipeline.precision)
        self.alive = {batch: list(methods) for batch in timing.all_batches}
        self.sizes = {batch: batch for batch in timing.all_batches}
        self.faults: list[Fault] = []
        self.encoded = EncodedPrompts(pipeline.pipe)
        self.text_s: dict[int, float | None] = {}
        self.warm = False

    def record(self, number: int) -> list[Failure]:
        """Time round ``number`` and store it; before the first one, warm up. Returns what failed, which is recorded, too."""
        failures: list[Failure] = []
        if not self.warm:
            for label in self.methods:
                for batch in self.alive:  # an earlier try's failure
                    Layout(self.folder).score(label, self._stage(batch)).record.unlink(missing_ok=True)
            self._fit()
            self._store_warmups([row for n in range(self.timing.warmup, 0, -1) for row in self._round(-n, failures)])
            self.warm = True
        rows = self._round(number, failures)
        if any(row.method != REFERENCE for row in rows):  # else it is repeated by the next try
            write_json(Layout(self.folder).round(number), [asdict(row) for row in rows])
        return failures

    def _fit(self) -> None:
        """Find the batch sizes at which the full run fits a GPU, or take those of the rounds that are stored."""
        if not self.pipeline.device.startswith("cuda") or BASELINE not in self.methods:
            return
        files = Layout(self.folder).rounds()
        stored = {sample.batch for file in files for sample in read_timings(file)} - set(self.timing.all_batches)
        for batch in list(self.alive):
            allowed = max((size for size in stored if size < batch), default=batch)
            _, size = shrinking(allowed, self._try)
            if size == batch:
                continue
            self.faults.append(
                Fault("time", BASELINE, 0, 0, size, f"out of memory at {batch} images: all methods are timed at {size}")
            )
            if size in self.alive:
                del self.alive[batch]
            self.sizes[batch] = size

    def _try(self, size: int) -> None:
        """The full run once, at a batch size."""
        with self.methods[BASELINE].attach(self.pipeline):
            self.pipeline.generate(self._prompts(size), self.seed, range(size))

    def _prompts(self, size: int) -> list[str]:
        return [self.prompts[i % len(self.prompts)] for i in range(size)]

    def _stage(self, batch: int) -> str:
        """What a failure is filed under: ``timing`` for the batch size that reports compare at."""
        return "timing" if batch == self.timing.batch else f"timing_batch_{batch}"

    def _store_warmups(self, rows: Sequence[TimingSample]) -> None:
        """After those of a run that was cut before."""
        if not rows:
            return
        file = Layout(self.folder).warmup
        before = read_json(file) if file.exists() else []
        write_json(file, [*before, *(asdict(row) for row in rows)])

    def _round(self, number: int, failures: list[Failure]) -> list[TimingSample]:
        """One round over all batch sizes, warm-up rounds apart; a method that fails at one of them leaves ``alive`` there."""
        rows: list[TimingSample] = []
        for batch in self.alive:
            size = self.sizes[batch]
            prompts = self._prompts(size)
            if size not in self.text_s:
                self.text_s[size] = text_apart(self.pipeline, prompts, self.encoded)
            rows.append(self.workload.time_once(number, size))
            for label in in_round(self.alive[batch], number):
                try:
                    rows.append(self._time(label, prompts, number, self.text_s[size]))
                except Exception as error:
                    if is_fatal(error):
                        raise
                    failures.append(Failure(label, self._stage(batch), reason(gave_up(error) or error)))
                    write_score(self.folder, failures[-1])
                    self.alive[batch] = [other for other in self.alive[batch] if other != label]
                rows.append(self.workload.time_once(number, size))
        return rows

    def _time(self, label: str, prompts: Sequence[str], number: int, text_s: float | None) -> TimingSample:
        """One call; it encodes its prompts, unless that was timed apart.

        A method that leaves the pipeline changed fails, and the next one gets a pipeline that is loaded again.
        """
        start = perf_counter()
        try:
            sample = self._called(label, prompts, number, text_s)
        except BaseException:
            self._restored(perf_counter() - start)
            raise
        if faults := self._restored(perf_counter() - start):
            raise RuntimeError(leak_reason(faults))
        return sample

    def _called(self, label: str, prompts: Sequence[str], number: int, text_s: float | None) -> TimingSample:
        with self.pipeline.keeping_prompts(None if text_s is None else self.encoded):
            if text_s is not None:  # a pipeline that was loaded again has none of them
                self.pipeline.encode(prompts)
            return time_once(self.pipeline, self.methods[label], label, prompts, self.seed, number, self.monitor, text_s)

    def _restored(self, attached_s: float) -> list[str]:
        """What a method has left changed; then the pipeline is loaded again."""
        faults = self.restoration.faults(attached_s)
        if faults and self.renewed is not None:
            self.pipeline = self.renewed()
            self.restoration = Restoration(self.pipeline)
            self.encoded = EncodedPrompts(self.pipeline.pipe)
        return faults
