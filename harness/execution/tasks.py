"""The unit of work, and the protocols of those who do it and those who hand it out."""

from __future__ import annotations

import errno
import gc
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, Protocol, TypeVar

import torch

from harness.errors import DeviceLost, HarnessError
from harness.execution.interrupts import end_if_asked, interrupted
from harness.results import Failure, Fault

Role = Literal["sampler", "scorer"]
Stage = Literal["generate", "finish", "time", "measure", "summarise", "controls"]
T = TypeVar("T")
SCORE_BATCH = 64  # images that a scorer takes at a time, unless told otherwise
FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}  # no method's fault: nothing more can be written

SHORT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "status_alloc_failed")
STICKY = (  # CUDA errors after which every call of the process fails
    "illegal memory access",
    "device-side assert",
    "unspecified launch failure",
    "misaligned address",
    "illegal instruction",
    "invalid program counter",
    "invalid address space",
    "hardware stack error",
    "uncorrectable ecc error",
    "cuda error: unknown error",
    "the launch timed out",
)


@dataclass(frozen=True)
class Task:
    """One stage of one method on samples ``start`` .. ``stop`` - 1, ``batch`` at a time.

    Doing it a second time finds the work done, or does it again with the same result. ``time`` is of all methods, and
    ``start`` is its round; ``finish`` and ``summarise`` are of all samples, and ``controls`` are made from the full run's.
    """

    stage: Stage
    method: str
    start: int = 0
    stop: int = 0
    batch: int = 0

    @property
    def indices(self) -> range:
        """The samples."""
        return range(self.start, self.stop)

    @property
    def text(self) -> str:
        """For messages."""
        what = f"{self.stage} {self.method}".strip()
        return f"{what}, samples {self.start} to {self.stop - 1}" if self.stop else what

    def fault(self, batch: int, reason: str) -> Fault:
        """The record that this task was done again."""
        return Fault(self.stage, self.method, self.start, self.stop, batch, reason)


class Loss(Enum):
    """How a worker was lost: it ended or did not answer, or it was ended because memory ran out."""

    WORKER = "worker"
    MEMORY = "memory"


@dataclass(frozen=True)
class TaskResult:
    """What became of a task. ``error`` says why it was not done; with a ``loss`` nothing is known against the task itself.

    ``failures`` are those of single metrics or timings, already recorded; ``faults`` are to be recorded. ``leaks``: methods that
    were found to have left the pipeline changed, which may be others than the task's.
    """

    task: Task
    failures: tuple[Failure, ...] = ()
    faults: tuple[Fault, ...] = ()
    error: str = ""
    loss: Loss | None = None
    leaks: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What a worker knows of its machine and model. ``image_pixels`` is of one image.

    ``identities``: what decides each method's images and times; see harness/execution/identity.py.
    """

    environment: dict[str, Any]
    image_pixels: int
    identities: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class Worker(Protocol):
    """Lives in one process with its networks loaded and does one task at a time."""

    def do(self, task: Task) -> TaskResult | Future[TaskResult]:
        """Do a task. Raises the errors that :func:`attempt` turns into an outcome.

        A future: the next task may begin, and what this one made is still being stored; it is done when that is on disk.
        """
        ...

    def close(self) -> None:
        """Do nothing more; what was not stored is dropped."""
        ...


class SamplerWorker(Worker, Protocol):
    """A worker that can describe where it is."""

    def facts(self) -> Facts:
        """Load the model and describe it and the machine. Raises :class:`HarnessError` where that fails."""
        ...


class Engine(Protocol):
    """Workers of both roles, wherever they are; ``score_batch`` is how many images a scorer takes at a time."""

    score_batch: int

    def start(self) -> Facts:
        """Start the samplers; all must agree. Raises :class:`HarnessError` where one cannot."""
        ...

    def run(self, role: Role, take: Callable[[], Task | None], *, alone: bool = False) -> Iterator[TaskResult]:
        """Do tasks until ``take`` has no more, each on any worker of the role; outcomes come in any order.

        A task is taken only when a worker is free for it, so that little waits in memory; after every outcome ``take`` is
        asked again. ``alone``: one worker, and no other process of this engine on any device.
        """
        ...

    def close(self) -> None:
        """Let all workers go."""
        ...


def attempt(worker: Worker, task: Task) -> Future[TaskResult]:
    """Do a task; whatever a method or metric raises is an outcome, and stops no other, unless :func:`is_fatal`.

    What is returned is done when what the task made is on disk; :func:`outcome_of` reads it. Raises :class:`DeviceLost` where
    the GPU's context is broken: every later task of this process would fail, too.
    """
    end_if_asked()
    try:
        made = worker.do(task)
    except Exception as error:
        made = failed(task, error)
    return made if isinstance(made, Future) else done(made)


def outcome_of(task: Task, made: Future[TaskResult]) -> TaskResult:
    """Waits until what a task made is on disk; errors of writing are treated as those of the task."""
    try:
        return made.result()
    except Exception as error:
        return failed(task, error)


def failed(task: Task, error: Exception) -> TaskResult:
    """The outcome that an error is. Raises the error where it is none."""
    if is_lost(error):
        raise DeviceLost(
            expected=f"a working GPU for {task.text}",
            got=reason(error),
            remedy="run the same command again: a new process goes on; if the error comes back, leave that method out",
        ) from error
    if is_fatal(error):
        raise error
    return TaskResult(task, error=reason(error))


def done(result: TaskResult) -> Future[TaskResult]:
    """What needs no waiting for."""
    made: Future[TaskResult] = Future()
    made.set_result(result)
    return made


def after(stored: Future[None], result: TaskResult) -> Future[TaskResult]:
    """``result``, once what belongs to it is stored, or what kept it from being."""
    made: Future[TaskResult] = Future()

    def tell(stored: Future[None]) -> None:
        error = stored.exception()
        if error is None:
            made.set_result(result)
        else:
            made.set_exception(error)

    stored.add_done_callback(tell)
    return made


def is_fatal(error: Exception) -> bool:
    """Whether an error is no outcome: the system refuses to write, also the record of a failure, or the user interrupted."""
    return interrupted() or is_lost(error) or (isinstance(error, OSError) and error.errno in FATAL)


def is_lost(error: BaseException) -> bool:
    """Whether an error says that the GPU's context is broken for good."""
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(phrase in words for phrase in STICKY)


def reason(error: Exception) -> str:
    """An error in one line: its text, with the type where the text alone says nothing to a reader."""
    text = " ".join(str(error).split())
    return text if isinstance(error, (HarnessError, RuntimeError)) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    words = str(error).lower()
    said = any(phrase in words for phrase in SHORT_OF_MEMORY)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and said)


def shrinking(batch: int, work: Callable[[int], T]) -> tuple[T, int]:
    """``work(batch)``, with the batch halved for as long as memory runs out; returns what came of it and the last batch."""
    while True:
        try:
            return work(batch), batch
        except (RuntimeError, MemoryError) as error:
            if batch == 1 or not is_out_of_memory(error):
                raise
        batch = max(1, batch // 2)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
