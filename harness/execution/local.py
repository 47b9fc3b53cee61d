"""The default engine: this process does everything, one task after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness.execution.tasks import SCORE_BATCH, Facts, Role, SamplerWorker, Task, TaskResult, Worker, attempt


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
        """One task after another: the device is never shared here."""
        if role not in self.workers:
            self.workers[role] = self.make_scorer()
        while (task := take()) is not None:
            yield attempt(self.workers[role], task)

    def close(self) -> None:
        """Let the networks go."""
        self.workers.clear()
