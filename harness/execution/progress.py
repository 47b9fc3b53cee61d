"""How far a long piece of work is: bars on a terminal, and lines in a log, of which there is one at least every 30 seconds."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness.execution.interrupts import end_if_asked
from harness.terminal import make_console

T = TypeVar("T")
INTERVAL_S = 30.0
BAR = 16


class Followed(Protocol):
    """What is told about the stages of some work. A stage's clock runs from its first :meth:`begin`."""

    def add(self, name: str, total: int | None, done: int = 0) -> int:
        """A new stage of ``total`` pieces, ``done`` of which an earlier call has finished; None: nobody knows how many."""
        ...

    def begin(self, stage: int) -> None:
        """Work on it begins now, if it has not begun yet."""
        ...

    def advance(self, stage: int, pieces: int = 1, note: str = "") -> None:
        """So many more pieces are done."""
        ...

    def end(self, stage: int) -> None:
        """Nothing more will come."""
        ...


@contextmanager
def following(console: Console | None = None) -> Iterator[Followed]:
    """Follow work inside the context, on a terminal or in a log."""
    shown = console or make_console()
    with _bars(shown) if shown.is_terminal and not shown.is_dumb_terminal else _log(shown) as followed:
        yield followed


@contextmanager
def stage(name: str, console: Console | None = None) -> Iterator[None]:
    """Follow one piece of work whose length nobody knows."""
    with following(console) as followed:
        number = followed.add(name, None)
        followed.begin(number)
        yield
        followed.end(number)


def tracked(items: Collection[T], name: str, console: Console | None = None) -> Iterator[T]:
    """The items, one after the other, as a stage; none after this process was asked to end."""
    with following(console) as followed:
        number = followed.add(name, len(items))
        followed.begin(number)
        for item in items:
            end_if_asked()
            yield item
            followed.advance(number)


class _Bars:
    """On a terminal: a bar for each stage, with its own time and the time to go."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def add(self, name: str, total: int | None, done: int = 0) -> int:
        return int(self.progress.add_task(name, start=False, total=total, completed=done, note=""))

    def begin(self, stage: int) -> None:
        if not self.progress.tasks[stage].started:
            self.progress.start_task(TaskID(stage))

    def advance(self, stage: int, pieces: int = 1, note: str = "") -> None:
        self.begin(stage)
        self.progress.update(TaskID(stage), advance=pieces, note=note)

    def end(self, stage: int) -> None:
        task = self.progress.tasks[stage]
        self.progress.update(TaskID(stage), total=task.completed if task.total is None else task.total)
        self.progress.stop_task(TaskID(stage))


@contextmanager
def _bars(console: Console) -> Iterator[_Bars]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=BAR),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bars(progress)


@dataclass
class _Stage:
    name: str
    total: int | None
    done: int
    before: int = 0  # done by an earlier call
    begun: float | None = None
    note: str = ""
    ended: bool = False

    def line(self, now: float) -> str:
        """For example ``generate full: 64 of 296, 3.1/s, 0:01:15 to go``."""
        spent = 0.0 if self.begun is None else now - self.begun
        note = f", {self.note}" if self.note else ""
        if self.total is None:
            return f"{self.name}: {'done in' if self.ended else 'running for'} {clock(spent)}{note}"
        new = self.done - self.before
        rate = new / spent if new and spent > 0 else 0.0
        text = f"{self.name}: {self.done} of {self.total}"
        if self.ended or self.done >= self.total:
            return f"{text} in {clock(spent)}{note}"
        if not rate:
            return f"{text} after {clock(spent)}{note}"
        speed = f"{rate:.3g}/s" if rate >= 0.1 else f"{1 / rate:.3g} s each"
        return f"{text}, {speed}, {clock((self.total - self.done) / rate)} to go{note}"


def clock(seconds: float) -> str:
    """For example ``0:01:15``."""
    return str(timedelta(seconds=round(seconds)))


@dataclass
class _Log:
    """Without a terminal: a line for each stage that ends, and, from a thread, one where none has come for so long."""

    console: Console
    interval_s: float
    stages: list[_Stage] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    last: float = field(default_factory=monotonic)
    closed: threading.Event = field(default_factory=threading.Event)

    def add(self, name: str, total: int | None, done: int = 0) -> int:
        with self.lock:
            self.stages.append(_Stage(name, total, done, done))
            return len(self.stages) - 1

    def begin(self, stage: int) -> None:
        with self.lock:
            one = self.stages[stage]
            one.begun = monotonic() if one.begun is None else one.begun

    def advance(self, stage: int, pieces: int = 1, note: str = "") -> None:
        with self.lock:
            self.begin(stage)
            one = self.stages[stage]
            one.done, one.note = one.done + pieces, note
            if one.total is not None and one.done >= one.total:
                self.end(stage)

    def end(self, stage: int) -> None:
        with self.lock:
            if not self.stages[stage].ended:
                self.stages[stage].ended = True
                self._say(self.stages[stage])

    def watch(self) -> None:
        """Until closed: say where the work is, whenever nothing was said for the interval."""
        while not self.closed.wait(max(0.0, self.last + self.interval_s - monotonic())):
            with self.lock:
                open_ = [one for one in self.stages if one.begun is not None and not one.ended]
                if monotonic() < self.last + self.interval_s:
                    continue
                self.last = monotonic()
                for one in open_[-1:]:
                    self._say(one)

    def _say(self, one: _Stage) -> None:
        self.last = monotonic()
        self.console.print(one.line(self.last), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _log(console: Console) -> Iterator[_Log]:
    log = _Log(console, INTERVAL_S)
    thread = threading.Thread(target=log.watch, name="progress", daemon=True)
    thread.start()
    try:
        yield log
    finally:
        log.closed.set()
        thread.join()
