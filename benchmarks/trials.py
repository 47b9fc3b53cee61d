"""Trials of the survival campaign: forked processes, undisturbed results to compare with, and how a resumed one is judged."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from tqdm.std import TqdmDefaultWriteLock

from harness.errors import ArtifactError
from harness.history.store import History
from harness.storage.layout import FOLDERS
from harness.storage.records import read_run
from ilf_bench.__main__ import entry
from ilf_bench.cli import main

KEPT = tuple(sorted({*FOLDERS} - {"timing", "faults"}))  # what must not depend on how a run was cut
TRAINING = ("--trajectories", "6", "--steps", "40", "--batch", "4", "--rounds", "4", "--grids", "2,3")
NAMED = re.compile(r"(/\S+?\.(?:json|npy|npz|png|pt|sqlite))\b")
Results = dict[str, bytes]
TqdmDefaultWriteLock.mp_lock = None  # forked processes share it: one that is killed while it holds it stops all later ones


class Unexplained(Exception):
    """A trial that ended neither identical nor with a message."""


@dataclass
class Bench:
    """A preset that runs in seconds, what undisturbed calls make of it, and a place for the trials.

    ``seconds`` and ``train_seconds``: processor time of such a call once everything is imported.
    """

    preset: Path
    work: Path
    rng: random.Random
    seconds: float = 0.0
    train_seconds: float = 0.0
    whole: Results = field(default_factory=dict)
    trained: Results = field(default_factory=dict)
    changed: dict[str, Results] = field(default_factory=dict)  # undisturbed runs of inputs that were edited
    spare: Path | None = None

    def out(self) -> Path:
        """A fresh folder for one trial."""
        return Path(tempfile.mkdtemp(dir=self.work, prefix="trial-"))

    def measure(self) -> None:
        """The undisturbed run and training; the first call of each does the imports, which forked processes then share."""
        out = self.out()
        for arguments in (self.run(out), self.train(out)):
            with contextlib.redirect_stdout(io.StringIO()):
                if code := main(arguments):
                    raise Unexplained(f"the undisturbed call left by {code}: {arguments}")
        shutil.rmtree(out)
        self.spare = self.out()
        self.seconds = self._seconds(self.run(self.spare), self.spare)
        self.whole = results(self.spare)
        out = self.out()
        self.train_seconds = self._seconds(self.train(out), out)
        self.trained = training_results(out)

    def _seconds(self, arguments: list[str], out: Path) -> float:
        before = worked_s()
        code, said = call(arguments, out)
        if code:
            raise Unexplained(f"the undisturbed call left by {code}: {said}")
        return worked_s() - before

    def run(self, out: Path) -> list[str]:
        """The run's command line."""
        return ["run", str(self.preset), "--out", str(out)]

    def train(self, out: Path) -> list[str]:
        """The training's command line."""
        return ["train", str(self.preset), *TRAINING, "--out", str(out)]

    @contextmanager
    def finished(self) -> Iterator[Path]:
        """A finished run to be damaged and repaired, trial after trial; one that could not be repaired is not used again."""
        out, self.spare = self.spare, None
        if out is None:
            self._seconds(self.run(out := self.out()), out)
        yield out
        self.spare = out


def worked_s() -> float:
    """Processor seconds of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def write_preset(folder: Path, pipeline: Path) -> Path:
    """A preset of three methods and 24 images on a small pipeline."""
    prompts = folder / "prompts.txt"
    prompts.write_text("red cat\nblue dog\nred dog\n", encoding="utf-8")
    content = {
        "name": "campaign",
        "task": "text",
        "pipeline": str(pipeline),
        "steps": 4,
        "guidance": 2.0,
        "samples": 24,
        "batch": 4,
        "prompts": str(prompts),
        "precision": "fp32",
        "device": "cpu",
        "methods": ["full", "steps:2", "deepcache:interval=2"],
        "metrics": ["psnr", "ssim"],
        "timing": {"rounds": 2, "batch": 2, "warmup": 1},
    }
    (folder / "campaign.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
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


def busy_for(pid: int, work_s: float, limit_s: float = 120.0) -> None:
    """Wait until a child has worked for so many seconds of processor time, or has ended; other load does not count."""
    usage, deadline = Path(f"/proc/{pid}/schedstat"), time.monotonic() + limit_s
    while int(usage.read_text(encoding="utf-8").split()[0]) < work_s * 1e9 and time.monotonic() < deadline:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.002)


def killed(work: Callable[[], object], log: Path, after_s: float) -> None:
    """Run ``work`` in a forked process that gets SIGKILL when it has worked for so long, unless it has ended."""
    pid = forked(work, log)
    busy_for(pid, after_s)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def command(arguments: list[str]) -> Callable[[], None]:
    """``ilf-bench`` with these arguments, as the console script calls it."""

    def work() -> None:
        sys.argv = ["ilf-bench", *arguments]
        entry()

    return work


def call(arguments: list[str], out: Path) -> tuple[int, str]:
    """Exit code and all output of ``ilf-bench`` in a process of its own."""
    log = out / "log.txt"
    log.unlink(missing_ok=True)
    code = ended(forked(command(arguments), log))
    return code, log.read_text(encoding="utf-8")


def run_folder(out: Path) -> Path:
    """The only run in a folder."""
    (folder,) = out.glob("campaign-*")
    return folder


def results(out: Path) -> Results:
    """Every file of a run that must be the same, by its name in it."""
    folder = run_folder(out)
    paths = [path for part in KEPT for path in (folder / part).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def training_results(out: Path) -> Results:
    """The trained module, and its record without the seconds."""
    files = {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.suffix in (".safetensors", ".json")}
    made = json.loads(files.pop("training.json"))
    return files | {key: json.dumps(made[key]).encode() for key in ("loss_curve", "final_loss", "settings")}


def differing(one: Results, other: Results) -> list[str]:
    """The names that only one has, or whose content differs."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def check_whole(bench: Bench, out: Path) -> None:
    """Complete, readable, no leftovers, and identical to the undisturbed run."""
    check_same(bench.whole, out)


def check_same(whole: Results, out: Path) -> None:
    """The same against the files of any undisturbed run."""
    folder = run_folder(out)
    run = read_run(folder)
    others = differing(whole, results(out))
    if others or not run.complete or len({t.round for t in run.timings}) != 2 or any(folder.rglob("*.tmp")):
        raise Unexplained(f"not as undisturbed: {others[:3]}, complete {run.complete}, {len(run.timings)} timings")
    if not any(entry.path == folder.resolve() and entry.complete for entry in History(out / "history.sqlite").runs()):
        raise Unexplained("the history lacks the finished run")


def check_trained(bench: Bench, out: Path) -> None:
    """The undisturbed training's module, curve and loss, to the bit."""
    if others := differing(bench.trained, training_results(out)):
        raise Unexplained(f"not as undisturbed: {others}")


def resume(arguments: list[str], out: Path, check: Callable[[], None]) -> str:
    """Call again: identical, or a refusal that names files, after whose removal it is identical."""
    if not (refusal := refused(arguments, out, check)):
        return "identical"
    named = dict.fromkeys(NAMED.findall(refusal))
    if "remedy:" not in refusal or not named:
        raise Unexplained(f"refused without naming a file: {refusal[-300:]}")
    for path in named:
        for suffix in ("", "-wal", "-shm") if path.endswith("sqlite") else ("",):
            Path(path + suffix).unlink(missing_ok=True)
    if again := refused(arguments, out, check):
        raise Unexplained(f"refused again: {again[-300:]}")
    return f"{' and '.join(Path(path).name for path in named)} named, removed, identical"


def refused(arguments: list[str], out: Path, check: Callable[[], None]) -> str:
    """What a call, or the check after it, said where it refused; empty where all is well."""
    code, said = call(arguments, out)
    if code == 65:
        return said
    if code or "Traceback" in said:
        raise Unexplained(f"exit {code}: {said[-500:]}")
    try:
        check()
    except ArtifactError as error:
        return str(error)
    return ""
