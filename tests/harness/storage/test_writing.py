"""Background storing: the same files, a receipt after its images, bounded memory, and nothing reported that is not on disk."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from harness.execution.local import LocalEngine
from harness.execution.tasks import Facts, Task, TaskResult, after, attempt, outcome_of
from harness.paths import ROOT
from harness.storage import writing
from harness.storage.files import digest
from harness.storage.images import Pixels, encode_png
from harness.storage.samples import SampleSet
from harness.storage.writing import Writer

SIZE = 3 * 8 * 8  # bytes of one image


def draw(prompts: Sequence[str], indices: Sequence[int]) -> Pixels:
    return np.stack([np.random.default_rng(i).integers(0, 256, (3, 8, 8), dtype=np.uint8) for i in indices])


@pytest.fixture
def samples(tmp_path: Path) -> SampleSet:
    return SampleSet(tmp_path / "set", tuple(f"prompt {i}" for i in range(12)), 4)


@pytest.fixture
def writer() -> Iterator[Writer]:
    made = Writer(threads=2)
    yield made
    made.close()


def late(monkeypatch: pytest.MonkeyPatch, go: threading.Event) -> None:
    """Files are written once ``go`` is set."""
    real = writing.write_bytes

    def waiting(path: Path, content: bytes) -> None:
        assert go.wait(20)
        real(path, content)

    monkeypatch.setattr(writing, "write_bytes", waiting)


def test_the_receipt_comes_after_its_images_and_names_them(
    samples: SampleSet, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    late(monkeypatch, go)
    rows = iter((10.0, 34.0))
    stored = samples.begin(range(4), draw, lambda: next(rows), writer, batch=3)
    assert not stored.done() and not list(samples.folder.glob("chunk-*")) and not samples.is_done(range(4))
    go.set()
    stored.result(20)
    assert samples.is_done(range(4)) and np.array_equal(samples.load(range(4)), draw([], range(4)))
    assert samples.digests(range(4)) == [digest(encode_png(image)) for image in draw([], range(4))]
    assert '"block_evaluations": 24.0' in samples._receipt(0).read_text() and '"batch": 3' in samples._receipt(0).read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has priorities of single threads")
def test_every_second_thread_takes_only_time_that_nobody_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others have a low priority, so that storing goes on where the machine is busy; the feeding thread keeps its own."""
    together, seen = threading.Barrier(2), list[tuple[int, int]]()
    mine = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)

    def look(image: Pixels, index: int, path_of: Callable[[int], Path]) -> str:
        together.wait(20)
        thread = threading.get_native_id()
        seen.append((os.sched_getscheduler(thread), os.getpriority(os.PRIO_PROCESS, thread)))
        return ""

    monkeypatch.setattr(writing, "_store", look)
    made = Writer(threads=2)
    chunk = made.chunk()
    chunk.add(draw([], range(2)), range(2), lambda index: Path(str(index)))
    chunk.close(lambda digests: None).result(20)
    made.close()
    assert sorted(policy for policy, _ in seen) == [os.SCHED_OTHER, os.SCHED_IDLE]
    assert {nice for policy, nice in seen if policy == os.SCHED_OTHER} == {writing.NICE}
    assert (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)) == mine


def test_images_that_wait_are_bounded(samples: SampleSet, monkeypatch: pytest.MonkeyPatch) -> None:
    go, made = threading.Event(), []
    late(monkeypatch, go)
    writer = Writer(threads=1, waiting_bytes=6 * SIZE)

    def counted(prompts: Sequence[str], indices: Sequence[int]) -> Pixels:
        made.append(list(indices))
        return draw(prompts, indices)

    thread = threading.Thread(target=lambda: [samples.begin(r, counted, lambda: 0.0, writer, 2) for r in samples.chunks()])
    thread.start()
    time.sleep(0.5)
    assert len(made) == 4 and writer.waiting == 6 * SIZE, "three batches wait, and the fourth waits for room"
    go.set()
    thread.join(20)
    writer.pool.shutdown(wait=True)
    assert len(made) == 6 and writer.waiting == 0 and all(samples.is_done(r) for r in samples.chunks())


def full_disk(monkeypatch: pytest.MonkeyPatch, after_files: int) -> None:
    real, written = writing.write_bytes, []

    def refusing(path: Path, content: bytes) -> None:
        if len(written) >= after_files:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written.append(path)
        real(path, content)

    monkeypatch.setattr(writing, "write_bytes", refusing)


class Painter:
    """A sampler without a model."""

    def __init__(self, samples: SampleSet, make: Callable[[Sequence[str], Sequence[int]], Pixels] = draw) -> None:
        self.samples, self.make, self.writer = samples, make, Writer(threads=2)

    def facts(self) -> Facts:
        return Facts({}, 64)

    def do(self, task: Task) -> object:
        return after(self.samples.begin(task.indices, self.make, lambda: 0.0, self.writer), TaskResult(task))

    def close(self) -> None:
        self.writer.close()


def tasks(samples: SampleSet) -> Iterator[Task]:
    return (Task("generate", "full", r.start, r.stop, 4) for r in samples.chunks())


def test_a_disk_that_fills_up_stops_the_run_and_loses_nothing_reported(
    samples: SampleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_disk(monkeypatch, 6)
    engine = LocalEngine(lambda: Painter(samples), lambda: pytest.fail("no scorer"))  # type: ignore[arg-type,return-value]
    engine.start()
    reported, left = [], tasks(samples)
    with pytest.raises(OSError, match="No space left") as caught:
        for outcome in engine.run("sampler", lambda: next(left, None)):
            reported.append(outcome.task)
    engine.close()
    assert caught.value.errno == errno.ENOSPC
    assert [task.start for task in reported] in ([], [0]) and all(samples.is_done(task.indices) for task in reported)
    assert not samples.is_done(range(8, 12))


def test_another_error_of_writing_is_the_methods(samples: SampleSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "encode_png", lambda image: (_ for _ in ()).throw(ValueError("no such image")))
    worker, task = Painter(samples), next(tasks(samples))
    outcome = outcome_of(task, attempt(worker, task))  # type: ignore[arg-type]
    assert "no such image" in outcome.error and not samples.is_done(task.indices)
    worker.close()


def test_a_chunk_that_is_made_again_is_not_overwritten_by_the_first_try(
    samples: SampleSet, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, began = threading.Event(), threading.Event()
    real = writing.write_bytes

    def slow(path: Path, content: bytes) -> None:
        began.set()
        assert go.wait(20)
        real(path, content)

    monkeypatch.setattr(writing, "write_bytes", slow)

    def failing(prompts: Sequence[str], indices: Sequence[int]) -> Pixels:
        if 2 in indices:
            threading.Timer(0.2, go.set).start()
            raise RuntimeError("CUDA out of memory")
        return np.zeros((len(indices), 3, 8, 8), dtype=np.uint8)

    with pytest.raises(RuntimeError, match="out of memory"):
        samples.begin(range(4), failing, lambda: 0.0, writer, 2)
    assert began.is_set() and go.is_set(), "what was being written has been waited for"
    samples.begin(range(4), draw, lambda: 0.0, writer, 1).result(20)
    assert samples.is_done(range(4)) and np.array_equal(samples.load(range(4)), draw([], range(4)))


CHILD = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from harness.storage import writing
from tests.harness.storage.test_writing import Painter, SampleSet, draw, tasks
from harness.execution.local import LocalEngine
from harness.execution.interrupts import listen
samples = SampleSet(Path(sys.argv[2]), tuple(f"prompt {i}" for i in range(12)), 4)
real, how, files = writing.write_bytes, sys.argv[3], []
def write(path, content):
    files.append(path)
    if how == "kill" and len(files) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "interrupt":
        time.sleep(0.3)
    real(path, content)
writing.write_bytes = write
listen()
engine = LocalEngine(lambda: Painter(samples), None)
engine.start()
left = tasks(samples)
try:
    print("started", flush=True)
    for outcome in engine.run("sampler", lambda: next(left, None)):
        print(f"stored {outcome.task.start}", flush=True)
except KeyboardInterrupt:
    engine.close()
    print("interrupted", flush=True)
    sys.exit(130)
"""


def child(folder: Path, how: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(ROOT), str(folder), how]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_a_kill_between_encoding_and_writing_costs_that_chunk(samples: SampleSet) -> None:
    process = child(samples.folder, "kill")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    stored = [int(line.split()[1]) for line in said.splitlines() if line.startswith("stored")]
    assert all(samples.is_done(range(start, start + 4)) for start in stored)
    assert not all(samples.is_done(indices) for indices in samples.chunks())
    for indices in samples.chunks():  # as the same command does it again
        if not samples.is_done(indices):
            samples.generate(indices, draw, lambda: 0.0)
    assert np.array_equal(samples.load(range(12)), draw([], range(12)))


def test_an_interrupt_with_a_full_queue_ends_at_once(samples: SampleSet) -> None:
    process = child(samples.folder, "interrupt")
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    time.sleep(0.4)
    began = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in said and time.monotonic() - began < 5
    receipts = [path.name for path in samples.folder.glob("chunk-*")]
    assert len(receipts) < 3 and not list(samples.folder.glob(".*.tmp")), "nothing half written is left"
