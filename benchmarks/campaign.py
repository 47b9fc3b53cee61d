"""Kill, starve and damage runs, trainings and the history, and hold what comes after against undisturbed ones.

    python -m benchmarks.campaign [--trials 50] [--seed 0] [--only NAME,...]

Each scenario says how many of its trials ended identical to an undisturbed one, and how many refused with a message that
names the damage (after which its remedy is followed, and the result compared). A trial that does neither is an error, and the
command leaves by 1. tests/harness/test_survive.py runs a short version.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.trials import Bench, Unexplained, check_whole, command, ended, forked, resume, run_to_end, write_preset
from harness import environment
from harness.contracts import Failure, MethodRecord
from harness.errors import ArtifactError
from harness.records import Run
from harness.store import History
from harness.training import TrainSettings, fit, read_state
from tests.conftest import save_pixart


def kill_run(bench: Bench, number: int) -> str:
    """SIGKILL at a random moment, twice; then to the end."""
    out = bench.out()
    for _ in range(2):
        pid = forked(command(bench.preset, out), out / "log.txt")
        time.sleep(bench.rng.uniform(0, bench.seconds))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return resume(bench, out)


def interrupt_run(bench: Bench, number: int) -> str:
    """SIGINT or SIGTERM at a random moment: exit 130, a message, and no traceback."""
    out = bench.out()
    pid = forked(command(bench.preset, out), out / "log.txt")
    time.sleep(bench.rng.uniform(0.05, bench.seconds))
    os.kill(pid, (signal.SIGINT, signal.SIGTERM)[number % 2])
    code = ended(pid)
    said = (out / "log.txt").read_text()
    if code not in (0, 130) or "Traceback" in said or (code == 130 and "resumes" not in said):
        raise Unexplained(f"exit {code}: {said[-500:]}")
    return resume(bench, out)


def twice_at_once(bench: Bench, number: int) -> str:
    """Two processes start the same run: one works, the other refuses or finds all done."""
    out = bench.out()
    pids = [forked(command(bench.preset, out), out / f"log-{i}.txt") for i in range(2)]
    codes = sorted(ended(pid) for pid in pids)
    said = "".join((out / f"log-{i}.txt").read_text() for i in range(2))
    if codes not in ([0, 0], [0, 64]) or (codes[1] == 64 and "at work" not in said):
        raise Unexplained(f"exits {codes}: {said[-500:]}")
    check_whole(bench, out)
    return "one refused, identical" if codes[1] else "one after the other, identical"


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


def damage_run(bench: Bench, number: int) -> str:
    """Damage one random file of a run, finished or cut short."""
    out, how = bench.out(), ("remove", "truncate", "flip")[number % 3]
    if number % 2:
        run_to_end(bench.preset, out)
    else:
        pid = forked(command(bench.preset, out), out / "log.txt")
        time.sleep(bench.rng.uniform(0.3, 1.0) * bench.seconds)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    files = sorted(p for p in out.glob("campaign-*/**/*") if p.is_file() and p.stat().st_size and "report" not in p.parts)
    if not files:
        return resume(bench, out)
    damage(bench.rng.choice(files), how, bench.rng)
    return f"{how}: {resume(bench, out)}"


def damage_history(bench: Bench, number: int) -> str:
    """Damage the history's file: it is refused by name, or intact."""
    out, how = bench.out(), ("remove", "truncate", "flip")[number % 3]
    run_to_end(bench.preset, out)
    damage(out / "history.sqlite", how, bench.rng)
    return f"{how}: {resume(bench, out)}"


def full_disk(bench: Bench, number: int) -> str:
    """A file system that fills up at a random moment: exit 74 or 64, and a run that resumes when there is room."""
    out = bench.out()
    size = sum(map(len, bench.whole.values())) + 400_000
    mounted = os.system(f"mount -t tmpfs -o size={bench.rng.randrange(40_000, size)} none {out} 2>/dev/null") == 0
    if not mounted:
        return "skipped: a small file system cannot be mounted here"
    try:
        log = bench.work / f"log-{number}.txt"
        code = ended(forked(command(bench.preset, out), log))
        said = log.read_text()
        if code not in (0, 64, 65, 74) or "Traceback" in said or (code and "remedy" not in said):
            raise Unexplained(f"exit {code}: {said[-500:]}")
        os.system(f"mount -o remount,size=64m {out}")
        return f"exit {code}, then {resume(bench, out)}"
    finally:
        os.system(f"umount -l {out}")


def clock_jump(bench: Bench, number: int) -> str:
    """The system's clock jumps by up to a year, forwards and backwards, while a run works."""
    out = bench.out()
    real = time.time

    def work() -> None:
        time.time = lambda: real() + bench.rng.uniform(-3.15e7, 3.15e7)
        environment.datetime = JumpingClock
        command(bench.preset, out)()

    code = ended(forked(work, out / "log.txt"))
    if code:
        raise Unexplained(f"exit {code}: {(out / 'log.txt').read_text()[-500:]}")
    check_whole(bench, out)
    return resume(bench, out)


class JumpingClock(environment.datetime):  # type: ignore[misc]
    """A clock that went back by 30 years."""

    @classmethod
    def now(cls, tz: object = None) -> environment.datetime:
        """Long ago."""
        return environment.datetime(1996, 2, 29, tzinfo=tz)  # type: ignore[arg-type]


SETTINGS = TrainSettings(steps=120, lr=1e-2, warmup=10, checkpoint_every=5, seed=3)


def train(folder: Path) -> None:
    """A small training with the product's loop; its end is the file ``weights.pt``."""
    torch.manual_seed(5)
    model = torch.nn.Linear(64, 64)

    def loss(generator: torch.Generator) -> torch.Tensor:
        x = torch.randn(256, 64, generator=generator)
        return (model(x) - x.flip(1)).square().mean()

    record = fit(model, loss, SETTINGS, folder / "training.pt", "campaign")
    torch.save({"weights": model.state_dict(), "curve": record.loss_curve}, folder / "weights.tmp")
    os.replace(folder / "weights.tmp", folder / "weights.pt")


def trained(folder: Path) -> tuple[dict[str, torch.Tensor], list[tuple[int, float]]]:
    """Weights and loss curve of a training that ended."""
    state = torch.load(folder / "weights.pt", weights_only=True)
    return state["weights"], state["curve"]


def same_training(bench: Bench, folder: Path) -> bool:
    """Whether a training ended with the weights and the curve of an undisturbed one."""
    whole = bench.work / "whole-training"
    if not whole.exists():
        whole.mkdir()
        ended(forked(lambda: train(whole), whole / "log.txt"))
    (weights, curve), (expected, points) = trained(folder), trained(whole)
    return curve == points and all(torch.equal(weights[n], expected[n]) for n in expected)


def kill_training(bench: Bench, number: int) -> str:
    """SIGKILL at a random moment, twice; every third time the state is damaged, too."""
    out, answer = bench.out(), "identical"
    for _ in range(2):
        pid = forked(lambda: train(out), out / "log.txt")
        time.sleep(bench.rng.uniform(0, 0.5))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    state = out / "training.pt"
    if number % 3 == 0 and state.exists():
        damage(state, ("truncate", "flip")[number % 2], bench.rng)
        try:
            read_state(state)
            answer = "a flip that no content depends on, identical"
        except ArtifactError:
            answer = "damage named, removed, identical"
            if ended(forked(lambda: train(out), out / "log.txt")) == 0:
                raise Unexplained("a damaged training state was used") from None
            state.unlink()
    if code := ended(forked(lambda: train(out), out / "log.txt")):
        raise Unexplained(f"exit {code}: {(out / 'log.txt').read_text()[-500:]}")
    if not same_training(bench, out):
        raise Unexplained("another curve or other weights")
    return answer


def some_run(folder: Path, number: int) -> Run:
    """A record of a run, as the history keeps it."""
    spec = {"format": 1, "name": "campaign", "digest": f"{number}", "method_labels": ["full"], "metrics": []}
    return Run(
        folder / str(number), spec, {"created": f"2026-01-01T00:{number // 60:02d}:{number % 60:02d}"},
        (MethodRecord("full", "full", 20, 1, 1),), (Failure("broken", "", "why"),), {}, (), True,
    )  # fmt: skip


def append(path: Path, runs: int) -> None:
    """Append many runs to a history."""
    history = History(path)
    for number in range(runs):
        history.append(some_run(path.parent, number))


def kill_history(bench: Bench, number: int) -> str:
    """SIGKILL while two processes append: what is there is whole, and appending again completes it without doubles."""
    out, runs = bench.out(), 100
    pids = [forked(lambda: append(out / "history.sqlite", runs), out / f"log-{i}.txt") for i in range(2)]
    time.sleep(bench.rng.uniform(0, 0.6))
    os.kill(pids[0], signal.SIGKILL)
    os.waitpid(pids[0], 0)
    if code := ended(pids[1]):
        raise Unexplained(f"the other writer left by {code}: {(out / 'log-1.txt').read_text()[-300:]}")
    append(out / "history.sqlite", runs)
    entries = History(out / "history.sqlite").runs()
    if len(entries) != runs or any(len(entry.scores) != 1 for entry in entries):
        raise Unexplained(f"{len(entries)} entries of {runs}")
    return "identical"


SCENARIOS: dict[str, tuple[Callable[[Bench, int], str], str]] = {
    "kill-run": (kill_run, "the run, SIGKILL at two random moments"),
    "kill-training": (kill_training, "a training, SIGKILL at two random moments; every third with a damaged state"),
    "kill-history": (kill_history, "one of two writers of the history, SIGKILL at a random moment"),
    "interrupt": (interrupt_run, "SIGINT or SIGTERM at a random moment"),
    "twice": (twice_at_once, "the same run started twice at once"),
    "damage": (damage_run, "a random file of a cut or finished run removed, truncated, or one bit flipped"),
    "damage-history": (damage_history, "the history removed, truncated, or one bit flipped"),
    "disk": (full_disk, "a disk that is full at a random moment (a small tmpfs)"),
    "clock": (clock_jump, "a clock that jumps by up to a year at every look, and stands in 1996 in the record"),
}


def campaign(bench: Bench, names: list[str], trials: int, report: Callable[[str], None]) -> dict[str, Counter[str]]:
    """All trials of the named scenarios; each answer with its count."""
    found: dict[str, Counter[str]] = {}
    for name in names:
        found[name] = Counter()
        for number in track(range(trials), description=f"{name:<16}"):
            try:
                found[name][SCENARIOS[name][0](bench, number)] += 1
            except (Unexplained, OSError, ValueError, ArtifactError, sqlite3.Error) as error:
                found[name]["ERROR"] += 1
                report(f"{name} {number}: {error}")
    return found


def main() -> None:
    """Run the campaign and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(SCENARIOS))
    arguments = parser.parse_args()
    console = Console(width=150)
    torch.set_num_threads(1)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        bench = Bench(write_preset(work, save_pixart(work / "pixart")), work, random.Random(arguments.seed))
        bench.measure()
        console.print(f"undisturbed: {bench.seconds:.1f} s after the imports")
        found = campaign(bench, arguments.only.split(","), arguments.trials, lambda text: console.print(text, markup=False))
    table = Table("scenario", "what", "trials", "how they ended")
    for name, answers in found.items():
        ends = "\n".join(f"{count} {answer}" for answer, count in answers.most_common())
        table.add_row(name, SCENARIOS[name][1], str(answers.total()), ends)
    console.print(table)
    console.print(f"{time.monotonic() - started:.0f} s")
    sys.exit(1 if any("ERROR" in answers for answers in found.values()) else 0)


if __name__ == "__main__":
    main()
