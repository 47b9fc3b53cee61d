"""The first minutes on a GPU, most valuable first: ``python -m benchmarks.gpu_first_day --minutes 10 --out first-day``

Nothing here needs weights. Every stage is a process with a time limit of its own; what it said and measured lies in the output
folder, a line in ``results.jsonl`` after each, and everything in ``first-day.tar`` at the end. The same command goes on where it
was interrupted: a stage that has passed is not run again. On a CPU, or with ``--toy``, all stages run at toy size: that shows
that the script works, and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from harness.errors import HarnessError
from harness.execution.environment import describe
from harness.storage.records import read_run
from harness.timing.nvml import Monitor
from harness.timing.stopwatch import Stopwatch

PROMPTS = "presets/speed-prompts.txt"
WHOLE_TABLE = "the whole speed table (python studies/speed_table.py --device cuda) is estimated at 25 to 30 minutes, not hours"
SPEED = "full,steps:12,steps:10,deepcache:interval=3,ilf-untrained:steps=10:feedback=paper-4"
SYSTEMS = "full,cuda-graphs,compile,fp8+compile,int8+compile"
DISTILLED = "full,ilf-untrained:steps=10:feedback=all:guidance_distilled=all"
LEAST = 0.5  # of a stage's limit must be left, or it is not begun
PASSED, PARTLY, FAILED, LATE, UNREACHED = "passed", "passed in part", "failed", "over its time", "not reached"
GEMM_SIDE = 8192


@dataclass(frozen=True)
class Setting:
    """Where the stages run and what they leave."""

    device: str
    toy: bool
    folder: Path


Command = list[str]


@dataclass(frozen=True)
class Stage:
    """One part of the plan: its limit in seconds and its commands, each a list of words behind ``python``."""

    name: str
    limit_s: float
    commands: Callable[[Setting], list[Command]]


@dataclass
class Result:
    """What became of a stage; ``rows`` are what it measured."""

    name: str
    state: str
    seconds: float
    limit_s: float
    toy: bool
    device: str
    rows: list[dict[str, Any]] = field(default_factory=list)


def _run(s: Setting, stage: str, preset: str, architecture: str, methods: str, batches: str, *more: str) -> Command:
    """``ilf-bench run`` on random weights of true size, or on a bundled model at toy size."""
    words = ["-m", "ilf_bench", "run"]
    out = ["--out", str(s.folder / stage), "--device", s.device, "--set", "metrics=[]", "--methods", methods, *more]
    if s.toy:
        tiny = "tiny-class" if architecture.startswith("dit") else "tiny-text"
        return [*words, tiny, *out, "--steps", "4", "--samples", "2", "--rounds", "1", "--batches", "2,1"]
    prompts = [] if architecture.startswith("dit") else ["--prompts", PROMPTS]
    size = ["--samples", "2", "--rounds", "3", "--warmup", "1", "--batches", batches, "--dtype", "bfloat16"]
    return [*words, preset, *out, *prompts, *size, "--pipeline", f"random:{architecture}"]


def _train(s: Setting, preset: str, architecture: str) -> Command:
    words = ["-m", "ilf_bench", "train"]
    out = ["--out", str(s.folder / "5-training" / preset), "--device", s.device]
    if s.toy:
        tiny = "tiny-class" if architecture.startswith("dit") else "tiny-text"
        size = ["--trajectories", "4", "--steps", "4", "--set", "training.end_to_end_steps=4", "--batch", "2", "--rounds", "1"]
        return [*words, tiny, *out, *size, "--grids", "2,3"]
    prompts = [] if architecture.startswith("dit") else ["--prompts", PROMPTS]
    size = ["--trajectories", "32", "--steps", "30", "--rounds", "1", "--grids", "5"]
    return [*words, preset, *out, *prompts, *size, "--pipeline", f"random:{architecture}", "--dtype", "bfloat16"]


def _tiny(s: Setting, preset: str) -> Command:
    size = ["--samples", "4", "--rounds", "1", "--set", "metrics=[]"] if s.toy else ["--samples", "48", "--rounds", "3"]
    methods = "full,steps:10,deepcache:interval=2,first-block:0.1,ilf"
    words = ["-m", "ilf_bench", "run", preset, "--device", s.device, "--out", str(s.folder / "1-tiny")]
    return [*words, "--methods", methods, "--batches", "4" if s.toy else "16", *size]


def _tests(s: Setting) -> Command:
    selection = ["--collect-only", "-m", "gpu"] if s.toy else ["-m", "gpu and not slow", "-k", "not full_size"]
    return ["-m", "pytest", "-q", *selection, "tests"]


STAGES = (
    Stage("0-stack", 20, lambda s: [["-m", "benchmarks.gpu_first_day", "--stack", "--device", s.device]]),
    Stage("1-tiny", 60, lambda s: [_tiny(s, "tiny-text"), _tiny(s, "tiny-class")]),
    Stage("2-tests", 45, lambda s: [_tests(s)]),
    Stage("3-dit-256", 40, lambda s: [_run(s, "3-dit-256", "dit-xl-256", "dit-xl-2-256", SPEED, "8,1")]),
    Stage("4-pixart-512", 55, lambda s: [_run(s, "4-pixart-512", "pixart-alpha-512", "pixart-alpha-512", SPEED, "8,1")]),
    Stage(
        "5-training",
        70,
        lambda s: [_train(s, "dit-xl-256", "dit-xl-2-256"), _train(s, "pixart-alpha-512", "pixart-alpha-512")],
    ),
    Stage(
        "6-compiled", 130, lambda s: [_run(s, "6-compiled", "dit-xl-256", "dit-xl-2-256", "full,steps:10", "8,1", "--compile")]
    ),
    Stage("7-systems", 70, lambda s: [_run(s, "7-systems", "dit-xl-256", "dit-xl-2-256", SYSTEMS, "8")]),
    Stage("8-pixart-1024", 45, lambda s: [_run(s, "8-pixart-1024", "pixart-alpha-1024", "pixart-alpha-1024", DISTILLED, "4")]),
    Stage("9-sigma-2k", 25, lambda s: [_run(s, "9-sigma-2k", "pixart-sigma-2k", "pixart-sigma-2k", "full", "1")]),
)


def stack(device: str) -> None:
    """Print what is installed, what ``doctor`` finds, and NVML's counters around a matrix product."""
    from ilf_bench.doctor import diagnose

    facts = describe(device, "bf16")
    print(json.dumps(facts, indent=1, default=str))
    for found in diagnose():
        print(found.state, found.found)
    side = GEMM_SIDE if device.startswith("cuda") else 256
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    matrix, monitor = torch.randn(side, side, device=device, dtype=dtype), Monitor(device)
    matrix @ matrix
    monitor.begin()
    watch, count = Stopwatch(device), 50
    for _ in range(count):
        product = matrix @ matrix
    seconds, _ = watch.read()
    assert torch.isfinite(product).all()
    print(f"{2 * side**3 * count / seconds / 1e12:.3g} TFLOP/s in {dtype}; {monitor.end()}; NVML: {monitor.why_not or 'asked'}")


def measured(folder: Path) -> Iterator[dict[str, Any]]:
    """Of each run in a stage's folder: medians of each method at each batch size."""
    for spec in sorted(folder.glob("*/spec.json")):
        try:
            run = read_run(spec.parent)
        except HarnessError as error:
            yield {"run": spec.parent.name, "error": str(error)}
            continue
        calls = [*run.timings, *run.other_batches]
        for key in dict.fromkeys((call.method, call.batch) for call in calls):
            some = [call for call in calls if (call.method, call.batch) == key]
            yield {
                "run": spec.parent.name,
                "method": key[0],
                "batch": key[1],
                "ms_per_image": 1000 * median(call.latency_s for call in some) / key[1],
                "denoise_ms_per_image": 1000 * median(call.denoise_s for call in some) / key[1],
                "peak_gib": max(call.peak_memory_bytes for call in some) / 2**30,
            }


def execute(stage: Stage, setting: Setting, limit_s: float) -> Result:
    """Run a stage's commands one after another within ``limit_s`` together."""
    folder, began = setting.folder / stage.name, time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    codes: list[int | None] = []
    with (folder / "said.txt").open("a") as said:
        for command in stage.commands(setting):
            left = limit_s - (time.monotonic() - began)
            codes.append(_call(command, said, left) if left > 0 else None)
    seconds = time.monotonic() - began
    return Result(stage.name, _state(codes), seconds, limit_s, setting.toy, setting.device, list(measured(folder)))


def _state(codes: Sequence[int | None]) -> str:
    """What the exit codes of a stage's commands say; 4: finished, but something could not be measured."""
    if None in codes:
        return LATE
    return PASSED if not any(codes) else PARTLY if set(codes) <= {0, 4} else FAILED


def _call(command: Sequence[str], said: Any, limit_s: float) -> int | None:
    """The exit code of a command, or None where it was ended because it took longer than ``limit_s``."""
    said.write(f"$ python {' '.join(command)}\n")
    said.flush()
    process = subprocess.Popen([sys.executable, *command], stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def finished(setting: Setting, results: Path) -> dict[str, Result]:
    """The stages that an earlier call of the same command has passed."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    known = [Result(**json.loads(line)) for line in lines]
    same = [r for r in known if (r.toy, r.device) == (setting.toy, setting.device) and r.state in (PASSED, PARTLY)]
    return {result.name: result for result in same}


def run_all(setting: Setting, seconds: float, console: Console, stages: Sequence[Stage] = STAGES) -> list[Result]:
    """All stages in order, within ``seconds`` of this call."""
    results, began = setting.folder / "results.jsonl", time.monotonic()
    setting.folder.mkdir(parents=True, exist_ok=True)
    known, found = finished(setting, results), []
    for stage in stages:
        if stage.name in known:
            found.append(known[stage.name])
            continue
        left = seconds - (time.monotonic() - began)
        limit = seconds if setting.toy else stage.limit_s
        if left < LEAST * min(limit, stage.limit_s):
            found.append(Result(stage.name, UNREACHED, 0.0, limit, setting.toy, setting.device))
            continue
        console.print(f"{stage.name}: at most {min(limit, left):.0f} s")
        found.append(execute(stage, setting, min(limit, left)))
        with results.open("a") as file:
            file.write(json.dumps(asdict(found[-1])) + "\n")
    with tarfile.open(setting.folder.with_suffix(".tar"), "w") as archive:
        archive.add(setting.folder, arcname=setting.folder.name)
    return found


def summary(found: Sequence[Result]) -> Table:
    """A row for each stage, and for each method that it timed."""
    table = Table("stage", "state", "seconds", "method", "batch", "ms / image", "denoising", "peak GiB")
    for result in found:
        table.add_row(result.name, result.state, f"{result.seconds:.0f} of {result.limit_s:.0f}")
        for row in result.rows:
            if "method" in row:
                numbers = [f"{row[key]:.3g}" for key in ("ms_per_image", "denoise_ms_per_image", "peak_gib")]
                table.add_row("", "", "", row["method"], str(row["batch"]), *numbers)
    return table


def main() -> int:
    """Run the plan; the exit code is 0 where every stage was reached and none failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--toy", action="store_true", help="toy size, as always on a CPU")
    parser.add_argument("--out", type=Path, default=Path("first-day"))
    parser.add_argument("--stack", action="store_true", help="print the machine's facts and leave: the first stage")
    arguments = parser.parse_args()
    if arguments.stack:
        stack(arguments.device)
        return 0
    console, setting = Console(), Setting(arguments.device, arguments.toy or arguments.device == "cpu", arguments.out)
    console.print(WHOLE_TABLE)
    console.print(f"this plan: {sum(stage.limit_s for stage in STAGES):.0f} s at most{', at toy size' if setting.toy else ''}")
    found = run_all(setting, 60 * arguments.minutes, console)
    console.print(summary(found))
    console.print(f"everything: {setting.folder.with_suffix('.tar')}")
    return 0 if all(result.state in (PASSED, PARTLY) for result in found) else 1


if __name__ == "__main__":
    sys.exit(main())
