"""Trials of the survival campaign: forked processes, an undisturbed run to compare with, and how a resumed one is judged."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from harness.cli import entry
from harness.commands import engines  # noqa: F401  (imported here, so that no forked process has to)
from harness.records import read_run
from harness.store import History
from reports import build  # noqa: F401

KEPT = ("samples", "scores", "measurements", "methods")  # what must not depend on how a run was cut


class Unexplained(Exception):
    """A trial that ended neither identical nor with a message."""


@dataclass
class Bench:
    """A preset that runs in seconds, its undisturbed result, and a place for the trials."""

    preset: Path
    work: Path
    rng: random.Random
    seconds: float = 0.0
    whole: dict[str, bytes] = field(default_factory=dict)

    def out(self) -> Path:
        """A fresh folder for one trial."""
        return Path(tempfile.mkdtemp(dir=self.work, prefix="trial-"))

    def measure(self) -> None:
        """The undisturbed run."""
        out, start = self.out(), time.monotonic()
        code, said = run_to_end(self.preset, out)
        if code:
            raise Unexplained(f"the undisturbed run left by {code}: {said}")
        self.seconds, self.whole = time.monotonic() - start, results(out)
        shutil.rmtree(out)


def write_preset(folder: Path, pipeline: Path) -> Path:
    """A preset of three methods and 24 images on a small pipeline."""
    prompts = folder / "prompts.txt"
    prompts.write_text("red cat\nblue dog\nred dog\n")
    content = {
        "name": "campaign", "task": "text", "pipeline": str(pipeline), "steps": 4, "guidance": 2.0, "samples": 24, "batch": 4,
        "prompts": str(prompts), "precision": "fp32", "device": "cpu", "methods": ["full", "steps:2", "deepcache:interval=2"],
        "metrics": ["psnr", "ssim"], "timing": {"rounds": 2, "batch": 2, "warmup": 1},
    }  # fmt: skip
    (folder / "campaign.yaml").write_text(yaml.safe_dump(content))
    return folder / "campaign.yaml"


def forked(work: Callable[[], object], log: Path) -> int:
    """Run ``work`` in a forked process that writes to ``log``; returns its id."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(handle, stream)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        work()
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def ended(pid: int, limit_s: float = 120.0) -> int:
    """The exit code of a process (minus the signal that ended it); one that takes too long is an error."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise Unexplained(f"no end within {limit_s:.0f} s")


def command(preset: Path, out: Path, *options: str) -> Callable[[], None]:
    """``ilf-bench run`` as the console script calls it."""

    def work() -> None:
        sys.argv = ["ilf-bench", "run", str(preset), "--out", str(out), *options]
        entry()

    return work


def run_to_end(preset: Path, out: Path) -> tuple[int, str]:
    """Exit code and all output of one run in a process of its own."""
    log = out / "log.txt"
    log.unlink(missing_ok=True)
    code = ended(forked(command(preset, out), log))
    return code, log.read_text()


def run_folder(out: Path) -> Path:
    """The only run in a folder."""
    (folder,) = out.glob("campaign-*")
    return folder


def results(out: Path) -> dict[str, bytes]:
    """Every file that must be the same, by its name in the run."""
    folder = run_folder(out)
    paths = [path for part in KEPT for path in (folder / part).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def check_whole(bench: Bench, out: Path) -> None:
    """Complete, readable, no leftovers, and identical to the undisturbed run."""
    folder = run_folder(out)
    run = read_run(folder)
    found = results(out)
    differing = sorted(n for n in bench.whole.keys() | found.keys() if bench.whole.get(n) != found.get(n))
    if differing or not run.complete or len({t.round for t in run.timings}) != 2 or list(folder.rglob("*.tmp")):
        raise Unexplained(f"not as undisturbed: {differing[:3]}, complete {run.complete}, {len(run.timings)} timings")
    if not any(entry.path == folder.resolve() and entry.complete for entry in History(out / "history.sqlite").runs()):
        raise Unexplained("the history lacks the finished run")


def resume(bench: Bench, out: Path) -> str:
    """Call again: identical, or a refusal that names a file, after whose removal it is identical."""
    code, said = run_to_end(bench.preset, out)
    answer = "identical"
    if code == 65:
        named = re.findall(r"(/\S+?\.(?:json|npy|npz|png|sqlite))\b", said)
        if "remedy:" not in said or not named:
            raise Unexplained(f"refused without naming a file: {said[-300:]}")
        for path in named[:1]:
            for suffix in ("", "-wal", "-shm") if path.endswith("sqlite") else ("",):
                Path(path + suffix).unlink(missing_ok=True)
        answer = f"named {Path(named[0]).name}, removed, identical"
        code, said = run_to_end(bench.preset, out)
    if code or "Traceback" in said:
        raise Unexplained(f"exit {code}: {said[-500:]}")
    check_whole(bench, out)
    return answer
