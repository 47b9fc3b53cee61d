"""Kill, starve and damage runs, trainings and the history, and hold what comes after against undisturbed ones.

    python -m benchmarks.campaign [--trials 50] [--seed 0] [--only NAME,...] [--record FILE]

Each scenario says how many of its trials ended identical to an undisturbed one, and how many refused with a message that
names the damage (after which its remedy is followed, and the result compared). A trial that does neither is an error, and the
command leaves by 1. Each trial is a line of FILE as soon as it has ended; the same command does those that are not there.
tests/benchmarks/test_survive.py runs a short version.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Self

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.edited import edit_plugin, edit_settings
from benchmarks.trials import (
    Bench,
    Unexplained,
    busy_for,
    check_trained,
    check_whole,
    command,
    ended,
    forked,
    killed,
    resume,
    worked_s,
    write_preset,
)
from harness.config.spec import load_spec
from harness.errors import ArtifactError
from harness.execution import environment
from harness.history.store import History
from harness.results import Failure, MethodRecord
from harness.storage.files import write_bytes
from harness.storage.records import FORMAT, Run
from tests.conftest import save_pixart

LOADING_S = 0.03, 0.11  # processor seconds between which an undisturbed run loads weights


def resumed_run(bench: Bench, out: Path) -> str:
    """The same command again."""
    return resume(bench.run(out), out, lambda: check_whole(bench, out))


def resumed_training(bench: Bench, out: Path) -> str:
    """The same command again."""
    return resume(bench.train(out), out, lambda: check_trained(bench, out))


def kill_run(bench: Bench, number: int) -> str:
    """SIGKILL at a random moment, twice; then to the end."""
    out = bench.out()
    for _ in range(2):
        killed(command(bench.run(out)), out / "log.txt", bench.rng.uniform(0, bench.seconds))
    return resumed_run(bench, out)


def interrupt_run(bench: Bench, number: int, between_s: tuple[float, float] | None = None) -> str:
    """SIGINT or SIGTERM at a random moment: exit 130, a message, and no traceback."""
    out = bench.out()
    pid = forked(command(bench.run(out)), out / "log.txt")
    busy_for(pid, bench.rng.uniform(*(between_s or (0.05, bench.seconds))))
    os.kill(pid, (signal.SIGINT, signal.SIGTERM)[number % 2])
    code = ended(pid)
    said = (out / "log.txt").read_text(encoding="utf-8")
    if code not in (0, 130) or "Traceback" in said or (code == 130 and "resumes" not in said):
        raise Unexplained(f"exit {code}: {said[-500:]}")
    return resumed_run(bench, out)


def interrupt_loading(bench: Bench, number: int) -> str:
    """The same while weights are loaded, where libraries catch what they should not."""
    return interrupt_run(bench, number, LOADING_S)


def twice_at_once(bench: Bench, number: int) -> str:
    """Two processes start the same run: one works, the other refuses or finds all done."""
    out = bench.out()
    pids = [forked(command(bench.run(out)), out / f"log-{i}.txt") for i in range(2)]
    codes = sorted(ended(pid) for pid in pids)
    said = "".join((out / f"log-{i}.txt").read_text(encoding="utf-8") for i in range(2))
    if codes not in ([0, 0], [0, 64]) or (codes[1] == 64 and "at work" not in said):
        raise Unexplained(f"exits {codes}: {said[-500:]}")
    check_whole(bench, out)
    return "one refused, identical" if codes[1] else "one after the other, identical"


DAMAGES = ("remove", "truncate", "flip")


def damage(path: Path, how: str, rng: random.Random) -> None:
    """Remove a file, cut it, or flip one bit of it."""
    if how == "remove":
        path.unlink()
        return
    content = bytearray(path.read_bytes())
    position = rng.randrange(len(content))
    if how == "truncate":
        content = content[:position]
    else:
        content[position] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def damage_any(out: Path, pattern: str, how: str, rng: random.Random) -> None:
    """Damage one random file, a report's aside; nothing where there is none."""
    files = sorted(path for path in out.glob(pattern) if path.is_file() and path.stat().st_size and "report" not in path.parts)
    if files:
        damage(rng.choice(files), how, rng)


def damage_run(bench: Bench, number: int) -> str:
    """Damage one random file of a run, finished or cut short."""
    how = DAMAGES[number % 3]
    if number % 2:
        with bench.finished() as out:
            damage_any(out, "campaign-*/**/*", how, bench.rng)
            return f"{how}: {resumed_run(bench, out)}"
    out = bench.out()
    killed(command(bench.run(out)), out / "log.txt", bench.rng.uniform(0.3, 1.0) * bench.seconds)
    damage_any(out, "campaign-*/**/*", how, bench.rng)
    return f"{how}: {resumed_run(bench, out)}"


def damage_history(bench: Bench, number: int) -> str:
    """Damage the history's file: it is refused by name, or intact."""
    how = DAMAGES[number % 3]
    with bench.finished() as out:
        damage(out / "history.sqlite", how, bench.rng)
        return f"{how}: {resumed_run(bench, out)}"


def full_disk(bench: Bench, number: int) -> str:
    """A file system that fills up at a random moment: exit 74 or 64, and a run that resumes when there is room."""
    out = bench.out()
    with bench.finished() as whole:
        used = sum(path.stat().st_blocks * 512 for path in whole.rglob("*"))
    size = int(bench.rng.uniform(0.2, 1.2) * used)
    mounted = os.system(f"mount -t tmpfs -o size={size} none {out} 2>/dev/null") == 0
    if not mounted:
        return "skipped: a small file system cannot be mounted here"
    try:
        log = bench.work / f"log-{number}.txt"
        code = ended(forked(command(bench.run(out)), log))
        said = log.read_text(encoding="utf-8")
        if code not in (0, 64, 74) or "Traceback" in said or (code and "remedy" not in said):
            raise Unexplained(f"exit {code}: {said[-500:]}")
        os.system(f"mount -o remount,size=64m {out}")
        return f"exit {code}, then {resumed_run(bench, out)}"
    finally:
        os.system(f"umount -l {out}")


def clock_jump(bench: Bench, number: int) -> str:
    """The system's clock jumps by up to a year, forwards and backwards, while a run works."""
    out = bench.out()
    real = time.time

    def work() -> None:
        time.time = lambda: real() + bench.rng.uniform(-3.15e7, 3.15e7)
        environment.datetime = JumpingClock  # type: ignore[attr-defined]
        command(bench.run(out))()

    code = ended(forked(work, out / "log.txt"))
    if code:
        raise Unexplained(f"exit {code}: {(out / 'log.txt').read_text(encoding='utf-8')[-500:]}")
    check_whole(bench, out)
    return resumed_run(bench, out)


class JumpingClock(datetime):
    """A clock that went back by 30 years."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        """Long ago."""
        return cls(1996, 2, 29, tzinfo=tz)


def kill_training(bench: Bench, number: int) -> str:
    """SIGKILL at a random moment, twice; every third time a random file is damaged, too."""
    out, how = bench.out(), DAMAGES[number // 3 % 3]
    for _ in range(2):
        killed(command(bench.train(out)), out / "log.txt", bench.rng.uniform(0, bench.train_seconds))
    if number % 3:
        return resumed_training(bench, out)
    damage_any(out, "work/*", how, bench.rng)
    return f"{how}: {resumed_training(bench, out)}"


def some_run(folder: Path, number: int) -> Run:
    """A record of a run, as the history keeps it."""
    own = {"format": FORMAT, "digest": f"{number}", "methods": ["full"], "method_labels": ["full"], "metrics": []}
    spec = load_spec("tiny-text").identity() | own
    return Run(
        folder / str(number),
        spec,
        {"created": f"2026-01-01T00:{number // 60:02d}:{number % 60:02d}"},
        (MethodRecord("full", "full", "full", 20, 1, 1),),
        (Failure("broken", "", "why"),),
        {},
        (),
        True,
        planned=(MethodRecord("broken", "broken", "unknown", None, None),),
    )


def append(path: Path, runs: int) -> None:
    """Append many runs to a history."""
    history = History(path)
    for number in range(runs):
        history.append(some_run(path.parent, number))


def kill_history(bench: Bench, number: int) -> str:
    """SIGKILL to one of two writers: what is there is whole, and appending again completes it without doubles."""
    out, runs = bench.out(), 100
    whole, cut = out / "whole.sqlite", out / "history.sqlite"
    before = worked_s()
    ended(forked(lambda: append(whole, runs), out / "log.txt"))
    work_s = worked_s() - before
    pids = [forked(lambda: append(cut, runs), out / f"log-{i}.txt") for i in range(2)]
    busy_for(pids[0], bench.rng.uniform(0, work_s))
    os.kill(pids[0], signal.SIGKILL)
    os.waitpid(pids[0], 0)
    if code := ended(pids[1]):
        raise Unexplained(f"the other writer left by {code}: {(out / 'log-1.txt').read_text(encoding='utf-8')[-300:]}")
    append(cut, runs)
    entries = History(cut).runs()
    if len(entries) != runs or entries != History(whole).runs():
        raise Unexplained(f"{len(entries)} entries of {runs}")
    return "identical"


SCENARIOS: dict[str, tuple[Callable[[Bench, int], str], str]] = {
    "kill-run": (kill_run, "the run, SIGKILL at two random moments"),
    "kill-training": (kill_training, "a training, SIGKILL at two random moments; every third with a damaged file"),
    "kill-history": (kill_history, "one of two writers of the history, SIGKILL at a random moment"),
    "interrupt": (interrupt_run, "SIGINT or SIGTERM at a random moment"),
    "interrupt-loading": (interrupt_loading, "the same in the first moments, while weights are loaded"),
    "twice": (twice_at_once, "the same run started twice at once"),
    "edit-plugin": (edit_plugin, "a plugin or what it imports is edited between two SIGKILLs"),
    "edit-settings": (edit_settings, "a setting of a component is edited between two SIGKILLs, the weights staying"),
    "damage": (damage_run, "a random file of a cut or finished run removed, truncated, or one bit flipped"),
    "damage-history": (damage_history, "the history removed, truncated, or one bit flipped"),
    "disk": (full_disk, "a disk that is full at a random moment (a small tmpfs)"),
    "clock": (clock_jump, "a clock that is off by up to a year at every reading, and says 1996 in the record"),
}


@dataclass(frozen=True)
class Trial:
    """How one trial ended; ``ended`` begins with ERROR where it should not have ended so."""

    scenario: str
    number: int
    ended: str
    seconds: float


def try_one(bench: Bench, name: str, number: int, seed: int) -> Trial:
    """One trial; its random numbers are its own, so that it can be repeated alone."""
    bench.rng = random.Random(f"{seed} {name} {number}")
    start = time.monotonic()
    try:
        answer = SCENARIOS[name][0](bench, number)
    except (Unexplained, OSError, ValueError, ArtifactError, sqlite3.Error) as error:
        answer = f"ERROR: {error}"
    return Trial(name, number, answer, round(time.monotonic() - start, 2))


Done = dict[tuple[str, int], Trial]


def read_trials(path: Path) -> Done:
    """The trials that an earlier call has written."""
    found = [Trial(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return {(trial.scenario, trial.number): trial for trial in found}


def write_trials(path: Path, done: Done) -> None:
    """A line a trial."""
    write_bytes(path, "".join(json.dumps(asdict(trial)) + "\n" for trial in done.values()).encode())


def summary(trials: Iterable[Trial]) -> Table:
    """A row a scenario."""
    table = Table("scenario", "what", "trials", "how they ended")
    for name, group in itertools.groupby(trials, key=lambda trial: trial.scenario):
        answers = Counter("ERROR" if trial.ended.startswith("ERROR") else trial.ended for trial in group)
        ends = "\n".join(f"{count} {answer}" for answer, count in answers.most_common())
        table.add_row(name, SCENARIOS[name][1], str(answers.total()), ends)
    return table


def main() -> None:
    """Run the trials that are not recorded yet, and print the table of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(SCENARIOS))
    parser.add_argument("--record", type=Path, default=Path("runs/campaign.jsonl"))
    arguments = parser.parse_args()
    console = Console(width=150)
    torch.set_num_threads(1)
    wanted = [(name, number) for name in arguments.only.split(",") for number in range(arguments.trials)]
    done = read_trials(arguments.record)
    todo = [key for key in wanted if key not in done]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        bench = Bench(write_preset(work, save_pixart(work / "pixart")), work, random.Random(arguments.seed))
        bench.measure()
        console.print(f"undisturbed: a run {bench.seconds:.1f} s, a training {bench.train_seconds:.1f} s, after the imports")
        for name, number in todo:
            trial = done[name, number] = try_one(bench, name, number, arguments.seed)
            write_trials(arguments.record, done)
            console.print(f"{name} {number}: {trial.ended}, {trial.seconds:.1f} s", markup=False)
    console.print(summary(done[key] for key in wanted))
    console.print(f"{sum(done[key].seconds for key in wanted):.0f} s")
    sys.exit(1 if any(done[key].ended.startswith("ERROR") for key in wanted) else 0)


if __name__ == "__main__":
    main()
