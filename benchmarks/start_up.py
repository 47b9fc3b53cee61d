"""How long each command takes until it has done a reader's work: ``python -m benchmarks.start_up [--runs FOLDER] [--repeats 5]``.

Times are ratios to ``python -c "import pandas, matplotlib.pyplot"``, measured right before each command, so that they hold on
a busy machine and on a slow one; the median over the repeats is printed, of wall time and of processor time. FOLDER must hold
a finished run of tiny-text; where it has none, one is made first, which takes minutes. Leaves by 1 where a median of the wall
times is above what is allowed; the processor times say whether that was the command's doing or the machine's.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness.storage.layout import Layout

YARDSTICK = (sys.executable, "-c", "import pandas, matplotlib.pyplot")
CLI = (sys.executable, "-m", "ilf_bench")
PRESET = "tiny-text"
VERDICTS = (0, 2, 3)  # what a gate may say of a run against itself: PASS, INCONCLUSIVE, NOT-MEASURED
FIRST_LINE = "run, until its first line"


@dataclass(frozen=True)
class Spent:
    """Seconds of one process: on the clock, and of the processor."""

    wall: float
    cpu: float


@dataclass
class Measured:
    """One command, what it may take, and its ratios to the yardstick."""

    command: Sequence[str]
    allowed: float
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, own: Spent, yardstick: Spent) -> None:
        """One repeat."""
        self.wall.append(own.wall / yardstick.wall)
        self.cpu.append(own.cpu / yardstick.cpu)

    @property
    def met(self) -> bool:
        """Whether the wall time is within what is allowed."""
        return statistics.median(self.wall) <= self.allowed


def commands(run: Path) -> Mapping[str, Measured]:
    """Every command whose start-up is bounded, on a finished run."""
    out, folder = ("--out", str(run.parent)), str(run)
    load = f"import ilf_bench; ilf_bench.load_run({folder!r})"
    return {
        "--version": Measured((*CLI, "--version"), 0.5),
        "--help": Measured((*CLI, "--help"), 0.5),
        "load_run, in Python": Measured((sys.executable, "-c", load), 1.2),
        "list methods": Measured((*CLI, "list", "methods"), 3),
        "history": Measured((*CLI, "history", *out), 2),
        "compare": Measured((*CLI, "compare", folder, folder, *out), 2),
        "gate": Measured((*CLI, "gate", folder, "--against", folder, *out), 2),
        "report": Measured((*CLI, "report", folder), 5),
        FIRST_LINE: Measured((*CLI, "run", PRESET, *out), 1.4),  # a second, where the yardstick takes 0.7 of one
    }


def spend(command: Sequence[str], until_first_line: bool = False) -> Spent:
    """Run a command to its end, or to its first line, when it is stopped. Raises :class:`RuntimeError` where it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    if until_first_line:
        line = process.stdout.readline()
        wall, used = time.perf_counter() - start, cpu_of(process.pid)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if not line:
            raise RuntimeError(f"{' '.join(command)} printed nothing")
        return Spent(wall, used)
    before = os.times()
    _, errors = process.communicate()
    wall, after = time.perf_counter() - start, os.times()
    if process.returncode not in VERDICTS:
        raise RuntimeError(f"{' '.join(command)} left by {process.returncode}: {errors}")
    return Spent(wall, after.children_user + after.children_system - before.children_user - before.children_system)


def cpu_of(process: int) -> float:
    """Processor seconds of a process that still runs, its threads included."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def finished_run(out: Path) -> Path:
    """A finished run of the preset in ``out``; made where there is none."""
    found = [folder for folder in sorted(out.glob(f"{PRESET}-*")) if Layout(folder).complete.exists()]
    if not found:
        subprocess.run([*CLI, "run", PRESET, "--out", str(out)], check=True)
    return found[0] if found else finished_run(out)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    measured = commands(finished_run(arguments.runs))
    yardsticks: list[Spent] = []
    for _ in range(arguments.repeats):
        for name, one in measured.items():
            yardsticks.append(spend(YARDSTICK))
            one.add(spend(one.command, name == FIRST_LINE), yardsticks[-1])
    usual = [statistics.median(getattr(spent, kind) for spent in yardsticks) for kind in ("wall", "cpu")]
    table = Table("command", "allowed", "wall time", "processor time", "", title=f"{usual[0]:.2f} s and {usual[1]:.2f} s are 1")
    for name, one in measured.items():
        ratios = (f"{statistics.median(values):.2f}" for values in (one.wall, one.cpu))
        table.add_row(name, f"{one.allowed:g}", *ratios, "" if one.met else "too slow")
    Console().print(table)
    sys.exit(0 if all(one.met for one in measured.values()) else 1)


if __name__ == "__main__":
    main()
