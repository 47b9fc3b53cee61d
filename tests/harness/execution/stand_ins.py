"""What Ray's processes do in tests instead of sampling; a file of their own, because a process imports the whole module."""

from __future__ import annotations

import os
import time
from concurrent.futures import Future
from pathlib import Path

from harness.execution.tasks import Facts, Task, TaskResult


class Storing:
    """What it makes is stored when it has made the next thing, but for the last; sample 3 ends its process the first time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[tuple[Task, Future[TaskResult]]] = []

    def do(self, task: Task) -> Future[TaskResult]:
        (self.folder / f"{task.start}-{len(list(self.folder.glob(f'{task.start}-*')))}").touch()
        if task.start == 3 and not (self.folder / "3-1").exists():
            time.sleep(1)  # so that the driver has heard of sample 1
            os._exit(1)
        self.made.append((task, Future()))
        for earlier, future in self.made[: None if task.start == 5 else -1]:
            if not future.done():
                future.set_result(TaskResult(earlier))
        return self.made[-1][1]


class Sleeper:
    """Hangs on sample 3 the first time."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def do(self, task: Task) -> TaskResult:
        if task.start == 3 and not self.marker.exists():
            self.marker.touch()
            time.sleep(3600)
        return TaskResult(task)


class Neighbour:
    """Writes its process down; on a timed task it says who of them is still there, which it gives some seconds to change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def facts(self) -> Facts:
        (self.folder / str(os.getpid())).touch()
        return Facts({}, 1)

    def do(self, task: Task) -> TaskResult:
        others = {int(path.name) for path in self.folder.iterdir()} - {os.getpid()}
        for _ in range(100):
            if not (there := {pid for pid in others if Path(f"/proc/{pid}").exists()}):
                break
            time.sleep(0.1)
        return TaskResult(task, error=f"{len(others)} others, there: {there}")


class Doomed:
    """Its process ends when it is asked anything."""

    def facts(self) -> Facts:
        os._exit(1)

    def do(self, task: Task) -> TaskResult:
        os._exit(1)
