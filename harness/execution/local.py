"""The default engine: this process does everything, one task after another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future

from harness.execution.tasks import SCORE_BATCH, Facts, Role, SamplerWorker, Task, TaskResult, Worker, attempt, outcome_of


class LocalEngine:
    """One sampler and one scorer in this process, made when they are first needed."""

    score_batch = SCORE_BATCH

    def __init__(self, sampler: Callable[[], SamplerWorker], scorer: Callable[[], Worker]) -> None:
        self.make_sampler, self.make_scorer = sampler, scorer
        self.workers: dict[Role, Worker] = {}

    def start(self) -> Facts:
        """Load the pipeline."""
        sampler = self.make_sampler()
        self.workers = {"sampler": sampler}
        return sampler.facts()

    def run(self, role: Role, take: Callable[[], Task | None], *, alone: bool = False) -> Iterator[TaskResult]:
        """One task after another: the device is never shared here. What one made is stored while the next ones are done."""
        if role not in self.workers:
            self.workers[role] = self.make_scorer()
        begun: deque[tuple[Task, Future[TaskResult]]] = deque()
        while (task := take()) is not None or begun:
            if task is not None:
                begun.append((task, attempt(self.workers[role], task)))
            while begun and (task is None or begun[0][1].done()):
                yield outcome_of(*begun.popleft())

    def close(self) -> None:
        """Let the networks go, and what was not stored."""
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()
