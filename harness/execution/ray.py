"""The Ray engine: each worker is an actor that keeps its networks loaded; this process only hands out tasks.

A worker that dies is replaced, and so is one that does not answer within the deadline; what it was doing is lost, and the
dispatcher has it done again. Samplers are let go before scorers are made, so that both may use the same devices in turn.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
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
DOING, STORING = "doing", "storing"  # Ray's groups of an actor's methods
DOING_AT_MOST, AT_MOST = 2, 4  # tasks of one actor: one under way and one that waits; and with those that are being stored
START_S = 900.0  # for a worker's process to start and load its networks
ALIKE = ("machine_key", "weights", "ilf-bench", "commit", "code")  # what all samplers must agree on


@dataclass(frozen=True)
class ClusterOptions:
    """Where, how many workers of each role, on what device, and how long one task may take.

    ``address`` is a running cluster's (``auto``: the one of this machine); without it one is started here and stopped at the
    end. ``scorers`` are as many as the samplers where nothing else is said. ``per_gpu`` workers share a GPU; one keeps it busy,
    because it stores and reads in the background.
    """

    address: str | None = None
    workers: int = 2
    scorers: int | None = None
    device: str = "auto"
    score_device: str = "auto"
    score_batch: int = SCORE_BATCH
    deadline_s: float = 1800.0
    per_gpu: int = 1


def send_by_value(modules: Iterable[ModuleType]) -> None:
    """Send what these modules define along with what uses it: workers have no such files."""
    for module in modules:
        cloudpickle.register_pickle_by_value(module)


class Host:
    """What runs inside an actor. It makes its worker on first use, so that errors of loading arrive as what they are.

    Its methods run in two groups: :meth:`do` in one thread, one task after another, and :meth:`stored` in others, so that
    the device goes on while what it made is stored.
    """

    def __init__(self, make: Callable[[], Worker], folder: str) -> None:
        with contextlib.suppress(OSError):
            os.chdir(folder)  # relative paths in a preset mean the same everywhere
        self.make = make
        self.worker: Any = None
        self.made: dict[Task, Future[TaskResult]] = {}

    @ray.method(concurrency_group=DOING)  # type: ignore[untyped-decorator]
    def facts(self) -> Facts:
        """Of a sampler."""
        self.worker = self.worker or self.make()
        facts: Facts = self.worker.facts()
        return facts

    @ray.method(concurrency_group=DOING)  # type: ignore[untyped-decorator]
    def do(self, task: Task) -> TaskResult | None:
        """One task; None where its outcome is for :meth:`stored` to tell."""
        self.worker = self.worker or self.make()
        made = attempt(self.worker, task)
        if made.done():
            return outcome_of(task, made)
        self.made[task] = made
        return None

    @ray.method(concurrency_group=STORING)  # type: ignore[untyped-decorator]
    def stored(self, task: Task) -> TaskResult:
        """The outcome of a task that was done, when what it made is on disk."""
        return outcome_of(task, self.made.pop(task))


@dataclass(eq=False)
class Member:
    """An actor with its tasks by the reference of each answer: the first one of ``doing`` is under way, others wait for it.

    ``heard`` is when it last answered, or was given something after it had nothing to do; ``new``: it has answered nothing yet.
    """

    actor: Any
    new: bool = True
    doing: dict[Any, Task] = field(default_factory=dict)
    storing: dict[Any, Task] = field(default_factory=dict)
    heard: float = 0.0

    @property
    def load(self) -> int:
        """How many tasks it has."""
        return len(self.doing) + len(self.storing)

    @property
    def has_room(self) -> bool:
        """Whether it takes one more, so that its device need not wait for this process."""
        return len(self.doing) < DOING_AT_MOST and self.load < AT_MOST

    def give(self, task: Task) -> None:
        """One more task."""
        if not self.load:
            self.heard = monotonic()
        self.doing[self.actor.do.remote(task)] = task

    def is_overdue(self, deadline_s: float) -> bool:
        """Whether it counts as hung; its first task includes its start and the loading of its networks."""
        return bool(self.load) and monotonic() - self.heard > deadline_s + (START_S if self.new else 0.0)


class Pool:
    """Actors of one role, each with at most :data:`AT_MOST` tasks, so that what waits does not grow with the run."""

    def __init__(self, make: Callable[[], Worker], size: int, gpus: float, deadline_s: float) -> None:
        self.make, self.gpus, self.deadline_s = make, gpus, deadline_s
        self.members = [self._hire() for _ in range(size)]
        self.again: deque[Task] = deque()  # of lost workers, which were busy with something else

    def _hire(self) -> Member:
        host = ray.remote(concurrency_groups={DOING: 1, STORING: AT_MOST})(Host).options(
            num_cpus=1, num_gpus=self.gpus, max_restarts=0, max_task_retries=0
        )
        return Member(host.remote(self.make, str(Path.cwd())))

    @property
    def idle(self) -> list[Member]:
        """Those that have nothing to do."""
        return [member for member in self.members if not member.load]

    def facts(self) -> list[Facts]:
        """Of every actor. Raises the first one's error, and :class:`UsageError` where not all could start in time."""
        try:
            found: list[Facts] = ray.get([member.actor.facts.remote() for member in self.members], timeout=START_S)
        except GetTimeoutError as error:
            raise UsageError(
                expected=f"room for {len(self.members)} workers, each with a CPU and {self.gpus:g} GPUs",
                got=f"a cluster with {ray.cluster_resources()}, where not all started in {START_S:.0f} s",
                remedy="fewer --workers, or a larger cluster",
            ) from error
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise UsageError(
                expected=f"{len(self.members)} workers that start",
                got=first_line(error),
                remedy="fewer --workers where memory is short; else the same ilf-bench and plugins on every node",
            ) from error
        for member in self.members:
            member.new = False
        return found

    def shrink(self, size: int) -> None:
        """Let all but ``size`` of the idle actors go."""
        for member in self.idle[size:]:
            self._let_go(member)

    def run(self, take: Callable[[], Task | None]) -> Iterator[TaskResult]:
        """See :meth:`harness.execution.tasks.Engine.run`."""
        while True:
            self._hand_out(take)
            flights = {reference: member for member in self.members for reference in (*member.doing, *member.storing)}
            if not flights:
                return
            ready, _ = ray.wait(list(flights), num_returns=1, timeout=POLL_S)
            for reference in ready:
                yield from self._answered(flights[reference], reference)
            for member in [each for each in self.members if not ready and each.is_overdue(self.deadline_s)]:
                yield self._lost(member, f"no answer within {self.deadline_s:g} s")

    def _hand_out(self, take: Callable[[], Task | None]) -> None:
        """Whoever has least gets the next task, for as long as somebody has room."""
        while free := [member for member in self.members if member.has_room]:
            task = self.again.popleft() if self.again else take()
            if task is None:
                return
            min(free, key=lambda member: member.load).give(task)

    def _answered(self, member: Member, reference: Any) -> Iterator[TaskResult]:
        """The outcome of a task, if that was it, or the loss of one whose worker is gone; that worker is replaced."""
        try:
            outcome: TaskResult | None = ray.get(reference)
        except RayTaskError as error:
            if not isinstance(error.cause, DeviceLost):
                raise error.cause from None
            yield self._lost(member, str(error.cause))
            return
        except RayError as error:
            loss = Loss.MEMORY if isinstance(error, OutOfMemoryError) else Loss.WORKER
            yield self._lost(member, first_line(error), loss)
            return
        member.new, member.heard = False, monotonic()
        task = member.doing.pop(reference, None) or member.storing.pop(reference)
        if outcome is None:
            member.storing[member.actor.stored.remote(task)] = task
        else:
            yield outcome

    def _lost(self, member: Member, why: str, loss: Loss = Loss.WORKER) -> TaskResult:
        """What the worker was busy with is lost; its other tasks, which are not at fault, are handed out again."""
        task, *others = [*member.doing.values(), *member.storing.values()]
        self.again.extend(others)
        self._let_go(member)
        self.members.append(self._hire())
        return TaskResult(task, error=f"its worker was lost: {why}", loss=loss)

    def _let_go(self, member: Member) -> None:
        ray.kill(member.actor)
        self.members.remove(member)

    def close(self) -> None:
        """Let all go."""
        for member in list(self.members):
            self._let_go(member)


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
        """What a worker makes is stored while it makes more.

        Alone: all others have gone before the first task begins, and do not come back.
        """
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
            gpus = 1.0 / self.options.per_gpu if device != "cpu" and there.get("GPU", 0) else 0.0
            room = int(min(there.get("CPU", 0), there["GPU"] * self.options.per_gpu if gpus else float("inf")))
            if size > room:  # Ray would wait for more, and say nothing
                option = "--workers" if role == "sampler" else "--score-workers"
                raise UsageError(
                    expected=f"{option} of at most {room}, each with a CPU{self._share(gpus)} of the cluster's",
                    got=str(size),
                    remedy=f"{option} {room}, or a larger cluster",
                )
            self.pools[role] = Pool(self.make[role], size, gpus, self.options.deadline_s)
        return self.pools[role]

    def _share(self, gpus: float) -> str:
        """Of a GPU, in words."""
        one = "a GPU" if self.options.per_gpu == 1 else f"a GPU for {self.options.per_gpu} of them"
        return f" and {one}" if gpus else ""

    def _dismiss(self, role: Role) -> None:
        pool = self.pools.pop(role, None)
        if pool is not None:
            pool.close()


def first_line(error: BaseException) -> str:
    """An error's first line of text, or its type."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
