"""The Ray engine: each worker is an actor that keeps its networks loaded; this process only hands out tasks.

A worker that dies is replaced, and so is one that does not answer within the deadline; what it was doing is lost, and the
dispatcher has it done again. Samplers are let go before scorers are made, so that both may use the same devices in turn.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import ModuleType
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayError, RayTaskError

from harness.errors import ArtifactError, DeviceLost, UsageError
from harness.execution.ray_token import demand_token
from harness.execution.tasks import SCORE_BATCH, Facts, Loss, Role, SamplerWorker, Task, TaskResult, Worker, attempt, outcome_of

POLL_S = 1.0  # how often deadlines are looked at
START_S = 900.0  # for a worker's process to start and load its networks
ALIKE = ("machine_key", "weights", "ilf-bench", "commit", "code")  # what all samplers must agree on


@dataclass(frozen=True)
class ClusterOptions:
    """Where, how many workers of each role, on what device, and how long one task may take.

    ``address`` is a running cluster's (``auto``: the one of this machine); without it one is started here and stopped at the
    end. A worker on a GPU holds a whole one. ``scorers`` are as many as the samplers where nothing else is said.
    """

    address: str | None = None
    workers: int = 2
    scorers: int | None = None
    device: str = "auto"
    score_device: str = "auto"
    score_batch: int = SCORE_BATCH
    deadline_s: float = 1800.0


def send_by_value(modules: Iterable[ModuleType]) -> None:
    """Send what these modules define along with what uses it: workers have no such files."""
    for module in modules:
        cloudpickle.register_pickle_by_value(module)


class Host:
    """What runs inside an actor. It makes its worker on first use, so that errors of loading arrive as what they are."""

    def __init__(self, make: Callable[[], Worker], folder: str) -> None:
        with contextlib.suppress(OSError):
            os.chdir(folder)  # relative paths in a preset mean the same everywhere
        self.make = make
        self.worker: Any = None

    def facts(self) -> Facts:
        """Of a sampler."""
        self.worker = self.worker or self.make()
        facts: Facts = self.worker.facts()
        return facts

    def do(self, task: Task) -> TaskResult:
        """One task."""
        self.worker = self.worker or self.make()
        return outcome_of(task, attempt(self.worker, task))


@dataclass(frozen=True)
class Flight:
    """A task under way: whose it is, and until when an answer is waited for."""

    actor: Any
    task: Task
    deadline: float


class Pool:
    """Actors of one role; at most one task each is under way, so that what waits does not grow with the run."""

    def __init__(self, make: Callable[[], Worker], size: int, gpus: float, deadline_s: float) -> None:
        self.make, self.gpus, self.deadline_s = make, gpus, deadline_s
        self.new: set[Any] = set()
        self.idle: list[Any] = [self._hire() for _ in range(size)]
        self.flights: dict[Any, Flight] = {}

    def _hire(self) -> Any:
        host = ray.remote(Host).options(num_cpus=1, num_gpus=self.gpus, max_restarts=0, max_task_retries=0)
        actor = host.remote(self.make, str(Path.cwd()))
        self.new.add(actor)
        return actor

    def facts(self) -> list[Facts]:
        """Of every actor. Raises the first one's error, and :class:`UsageError` where not all could start in time."""
        try:
            found: list[Facts] = ray.get([actor.facts.remote() for actor in self.idle], timeout=START_S)
        except GetTimeoutError as error:
            raise UsageError(
                expected=f"room for {len(self.idle)} workers, each with a CPU and {self.gpus:g} GPUs",
                got=f"a cluster with {ray.cluster_resources()}, where not all started in {START_S:.0f} s",
                remedy="fewer --workers, or a larger cluster",
            ) from error
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise UsageError(
                expected=f"{len(self.idle)} workers that start",
                got=first_line(error),
                remedy="fewer --workers where memory is short; else the same ilf-bench and plugins on every node",
            ) from error
        self.new.clear()
        return found

    def shrink(self, size: int) -> None:
        """Let all but ``size`` of the idle actors go."""
        for actor in self.idle[size:]:
            ray.kill(actor)
        self.idle = self.idle[:size]

    def run(self, take: Callable[[], Task | None]) -> Iterator[TaskResult]:
        """See :meth:`harness.execution.tasks.Engine.run`."""
        while True:
            while self.idle and (task := take()) is not None:
                actor = self.idle.pop()
                self.flights[actor.do.remote(task)] = Flight(actor, task, monotonic() + self._patience(actor))
            if not self.flights:
                return
            ready, _ = ray.wait(list(self.flights), num_returns=1, timeout=POLL_S)
            for reference in ready or self._overdue():
                yield self._land(reference, self.flights.pop(reference), bool(ready))

    def _patience(self, actor: Any) -> float:
        """Seconds until an actor counts as hung; the first task includes its start and the loading of its networks."""
        first = actor in self.new
        self.new.discard(actor)
        return self.deadline_s + (START_S if first else 0.0)

    def _overdue(self) -> Sequence[Any]:
        now = monotonic()
        return [reference for reference, flight in self.flights.items() if flight.deadline < now]

    def _land(self, reference: Any, flight: Flight, answered: bool) -> TaskResult:
        """The outcome of a task that was answered, or the loss of one whose worker is gone; that worker is replaced."""
        loss, why = Loss.WORKER, f"no answer within {self.deadline_s:g} s"
        if answered:
            try:
                outcome: TaskResult = ray.get(reference)
                self.idle.append(flight.actor)
                return outcome
            except RayTaskError as error:
                if not isinstance(error.cause, DeviceLost):
                    raise error.cause from None
                why = str(error.cause)
            except OutOfMemoryError as error:
                loss, why = Loss.MEMORY, first_line(error)
            except RayError as error:
                why = first_line(error)
        ray.kill(flight.actor)
        self.idle.append(self._hire())
        return TaskResult(flight.task, error=f"its worker was lost: {why}", loss=loss)


class ClusterEngine:
    """Samplers and scorers as actors on a Ray cluster."""

    def __init__(self, options: ClusterOptions, sampler: Callable[[], SamplerWorker], scorer: Callable[[], Worker]) -> None:
        self.options, self.score_batch = options, options.score_batch
        self.make: dict[Role, Callable[[], Worker]] = {"sampler": sampler, "scorer": scorer}
        self.pools: dict[Role, Pool] = {}
        self.joined = False

    def start(self) -> Facts:
        """Join or start the cluster and load every sampler; their machines and models must be alike."""
        self._join()
        found = self._pool("sampler", self.options.workers).facts()
        for key in ALIKE:
            values = sorted({str(facts.environment.get(key)) for facts in found})
            if len(values) > 1:
                raise ArtifactError(
                    expected=f"workers with one {key}", got=", ".join(values), remedy="run on nodes of one kind, installed alike"
                )
        return found[0]

    def _join(self) -> None:
        """Join or start a cluster, unless this process has done so already."""
        if ray.is_initialized():
            return
        scorers = self.options.scorers or self.options.workers
        here = {"num_cpus": max(self.options.workers, scorers)} if self.options.address is None else {}
        demand_token(self.options.address)
        os.environ.setdefault("RAY_worker_niceness", "0")  # else a local cluster's workers are timed behind everybody else
        try:
            ray.init(
                address=self.options.address or "local",
                log_to_driver=False,
                include_dashboard=False if here else None,
                logging_level=logging.ERROR,
                **here,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(
                expected=f"a Ray cluster at {self.options.address}",
                got=first_line(error),
                remedy="`RAY_AUTH_MODE=token ray start --head` there, its ~/.ray/auth_token here; RAY_AUTH_MODE=disabled joins a "
                "cluster that obeys everybody; or leave --address out to start one here",
            ) from error
        self.joined = True

    def run(self, role: Role, take: Callable[[], Task | None], *, alone: bool = False) -> Iterator[TaskResult]:
        """One task a worker. Alone: all others have gone before the first task begins, and do not come back."""
        if role == "scorer":
            self._dismiss("sampler")
        size = self.options.workers if role == "sampler" else (self.options.scorers or self.options.workers)
        pool = self._pool(role, size)
        if alone:
            pool.shrink(1)
        return pool.run(take)

    def close(self) -> None:
        """Stop the actors, and leave the cluster where :meth:`start` joined it; one that was started there ends with that."""
        for role in list(self.pools):
            self._dismiss(role)
        if self.joined:
            ray.shutdown()

    def _pool(self, role: Role, size: int) -> Pool:
        if role not in self.pools:
            device = self.options.device if role == "sampler" else self.options.score_device
            there = ray.cluster_resources()
            gpus = 1.0 if device != "cpu" and there.get("GPU", 0) else 0.0
            room = int(min(there.get("CPU", 0), there["GPU"] if gpus else float("inf")))
            if size > room:  # Ray would wait for more, and say nothing
                option = "--workers" if role == "sampler" else "--score-workers"
                raise UsageError(
                    expected=f"{option} of at most {room}, each with a CPU{' and a GPU' if gpus else ''} of the cluster's",
                    got=str(size),
                    remedy=f"{option} {room}, or a larger cluster",
                )
            self.pools[role] = Pool(self.make[role], size, gpus, self.options.deadline_s)
        return self.pools[role]

    def _dismiss(self, role: Role) -> None:
        pool = self.pools.pop(role, None)
        if pool is not None:
            for actor in [*pool.idle, *(flight.actor for flight in pool.flights.values())]:
                ray.kill(actor)


def first_line(error: BaseException) -> str:
    """An error's first line of text, or its type."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
