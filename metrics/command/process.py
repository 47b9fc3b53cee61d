"""The life of a scorer command: started once, asked batch by batch, restarted once where it fails, and always ended."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

from harness.errors import NotMeasured
from metrics.command.protocol import SHOWN, CommandFault, Handshake, read_handshake
from metrics.command.spec import CommandSpec

T = TypeVar("T")
LONGEST = 2**26  # bytes of a line: 64 images with 65,536 numbers each
MOST_LINES = 2  # an answer and the end: whoever says more between two questions has said what nobody asked for
RECOVERED = 100  # good answers after which another restart is granted
PATIENCE = 5.0  # seconds that a command has to end by itself once its standard input is closed
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")  # of our environment, wrong in another


class Command:
    """A scorer command by its name in the scorers' file; ``device`` is handed to it as ``ILF_BENCH_DEVICE``."""

    def __init__(self, name: str, spec: CommandSpec, device: str = "cpu") -> None:
        self.name, self.spec, self.device = name, spec, device
        self.log = Path(tempfile.gettempdir()) / f"ilf-bench-scorer-{name}-{os.getpid()}.log"
        self.dead: NotMeasured | None = None
        self.restarted, self.good = False, 0
        self._running: _Running | None = None
        self._hello: Handshake | None = None

    @property
    def hello(self) -> Handshake:
        """Its handshake; starts it. Raises :class:`NotMeasured` where that fails twice."""
        if self._hello is None:
            self._twice(lambda running: None)
        assert self._hello is not None
        return self._hello

    def ask(self, request: bytes, read: Callable[[bytes], T]) -> T:
        """What ``read`` makes of the answer to ``request``.

        A fault (too slow, deaf, ended, garbage, another handshake than before) restarts it once and asks again; the second,
        unless 100 good answers lie between, is final: :class:`NotMeasured`, at once for every later question too. What else
        ``read`` raises passes through.
        """

        def exchange(running: _Running) -> T:
            running.must_be_silent()
            limit = _Limit(self.spec.timeout_s)
            running.say(request, limit)
            return read(running.line(limit, "an answer"))

        return self._twice(exchange)

    def _twice(self, work: Callable[[_Running], T]) -> T:
        if self.dead is not None:
            raise self.dead
        while True:
            try:
                found = work(self._started())
            except CommandFault as fault:
                self.close(kill=True)
                if self.good < RECOVERED and self.restarted:
                    self.dead = self._final(fault)
                    raise self.dead from fault
                self.restarted, self.good = True, 0
            else:
                self.good += 1
                return found

    def _started(self) -> _Running:
        if self._running is None:
            self._running = _Running(self.spec.command, self.device, self.log)
            hello = read_handshake(self._running.line(_Limit(self.spec.start_timeout_s), "its handshake"))
            if self._hello is not None and hello != self._hello:
                raise CommandFault("the same handshake after a restart", f"{hello.fingerprint()}")
            self._hello = hello
        return self._running

    def _final(self, fault: CommandFault) -> NotMeasured:
        words = self.last_words()
        said = f"; it last wrote {words!r} to its standard error" if words else ""
        return NotMeasured(
            expected=f"{fault.expected} from scorer command {self.name}",
            got=f"{fault.got}, twice{said}",
            remedy=f"run it by hand: {' '.join(self.spec.command)}; its standard error is in {self.log}; docs/scorer-commands.md",
        )

    def last_words(self) -> str:
        """The last line of its standard error that says anything."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")

    def close(self, *, kill: bool = False) -> None:
        """End it, where it runs: by closing its input, or ``kill`` it at once."""
        if self._running is not None:
            if kill:
                self._running.process.kill()
            self._running.end()
            self._running = None


class _Limit:
    """``seconds`` from now on, for a whole exchange."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._end = seconds, time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds that remain, at least 0."""
        return max(0.0, self._end - time.monotonic())


class _Running:
    """One process: lines are read by a thread and requests written without blocking, so that waiting for either can end."""

    def __init__(self, command: tuple[str, ...], device: str, log: Path) -> None:
        environment = {key: value for key, value in os.environ.items() if key not in FOREIGN}
        with log.open("wb") as errors:
            try:
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env={**environment, "ILF_BENCH_DEVICE": device, "PYTHONUNBUFFERED": "1"},
                    start_new_session=True,  # it is ended with all that it starts, and does not see our Ctrl-C
                )
            except OSError as error:
                raise CommandFault(f"a program {command[0]}", str(error)) from error
        self.lines: queue.Queue[bytes] = queue.Queue(MOST_LINES)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.input = self.process.stdin.fileno()
        os.set_blocking(self.input, False)
        threading.Thread(target=_read, args=(self.process.stdout, self.lines), daemon=True).start()
        self.end = weakref.finalize(self, _end, self.process)

    def must_be_silent(self) -> None:
        """Raise :class:`CommandFault` where it has said something that nobody asked for."""
        if not self.lines.empty():
            said = self.lines.get()[:SHOWN].decode(errors="replace").strip()
            raise CommandFault("silence between answers", repr(said) if said else self._ended())

    def say(self, line: bytes, limit: _Limit) -> None:
        """Write to its standard input. Raises :class:`CommandFault` where it does not take all of it in time."""
        room, rest = select.poll(), memoryview(line)
        room.register(self.input, select.POLLOUT)
        while rest:
            if not room.poll(limit.left * 1000):
                taken = f"{len(line) - len(rest)} within {limit.seconds:g} s: it does not read its standard input"
                raise CommandFault(f"a reader of a request's {len(line)} bytes", taken)
            try:
                rest = rest[os.write(self.input, rest) :]
            except OSError as error:
                raise CommandFault("a reader of a request", self._ended()) from error

    def line(self, limit: _Limit, what: str) -> bytes:
        """The next line. Raises :class:`CommandFault` where none comes in time."""
        try:
            line = self.lines.get(timeout=limit.left)
        except queue.Empty:
            raise CommandFault(what, f"none within {limit.seconds:g} s") from None
        if not line:
            raise CommandFault(what, self._ended())
        if not line.endswith(b"\n"):
            raise CommandFault(what, f"{len(line)} bytes without the end of a line")
        return line

    def _ended(self) -> str:
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            return "a closed standard output"
        return f"it was killed by {signal.Signals(-code).name}" if code < 0 else f"it ended with exit code {code}"


def _read(stream: IO[bytes], lines: queue.Queue[bytes]) -> None:
    """Lines into the queue; an empty one is the end. After one that never ends, or that finds the queue full, nothing is read."""
    with stream, contextlib.suppress(queue.Full):
        while line := stream.readline(LONGEST):
            lines.put_nowait(line)
            if not line.endswith(b"\n"):
                break
        lines.put_nowait(b"")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close its input, wait a little, then kill it with everything that it has started."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):  # it is gone already
            process.stdin.close()
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
