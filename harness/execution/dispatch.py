"""The policy that all engines share: what is tried again, how often and how, and when a method is given up."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from harness.execution.tasks import Engine, Loss, Role, Task, TaskResult
from harness.results import Fault

TRIES = 4  # of a task whose worker is lost
ERRORS = 3  # failed ranges after which no further range of a method is tried


class Dispatch:
    """Hands tasks to an engine and yields one final outcome for each that was tried.

    A lost task (its worker died or did not answer in time) is done again by another worker: as it was where that is the first
    loss, else at half the batch, because a system short of memory kills without a word. ``note`` records each of that.
    """

    def __init__(self, engine: Engine, role: Role, tasks: Iterable[Task], note: Callable[[Fault], None]) -> None:
        self.engine, self.role, self.note = engine, role, note
        self.tasks = iter(tasks)
        self.again: deque[Task] = deque()
        self.losses: Counter[tuple[str, str, int]] = Counter()
        self.errors: Counter[str] = Counter()

    def outcomes(self, *, alone: bool = False) -> Iterator[TaskResult]:
        """All outcomes, as they come."""
        for outcome in self.engine.run(self.role, self._take, alone=alone):
            for fault in outcome.faults:
                self.note(fault)
            if outcome.loss and self._repeated(outcome):
                continue
            if outcome.error:
                self.errors[outcome.task.method] += 1
            yield outcome

    def _take(self) -> Task | None:
        if self.again:
            return self.again.popleft()
        return next((task for task in self.tasks if self.errors[task.method] < ERRORS), None)

    def _repeated(self, outcome: TaskResult) -> bool:
        task = outcome.task
        key = (task.stage, task.method, task.start)
        self.losses[key] += 1
        if self.losses[key] >= TRIES:
            return False
        as_before = self.losses[key] == 1 and outcome.loss is not Loss.MEMORY
        batch = task.batch if as_before else max(1, task.batch // 2)
        self.note(task.fault(batch, outcome.error))
        self.again.append(replace(task, batch=batch))
        return True
