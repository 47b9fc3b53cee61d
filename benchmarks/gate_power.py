"""How often does the gate cry wolf, and how often does it see a 5% slow-down? Measured on this machine, as noisy as it is.

    python -m benchmarks.gate_power record     # about 13 minutes; stop and call again: it goes on
    python -m benchmarks.gate_power judge      # two minutes; reads benchmarks/results/gate_power.jsonl only

``record``: each of eight processes loads the bundled text-to-image model (4 steps, one image a call, one thread) and makes five
timing runs of 16 s: three of unchanged code, and between them two in which every call is followed by 5% of its own processor
time of extra work. A run is rounds of the fixed workload, the call, the workload again, as the runner times; all raw times are
kept.

``judge``: a gate holds one current run, or three, against a baseline whose commit has six clean runs in the history; all other
unchanged runs are in the history as an earlier commit's. For 200 A/A gates and 50 of a slow-down, each current run is drawn from
the unchanged or the slowed ones of a process of its own, and everything else from the unchanged runs of the other processes, and
so of other minutes. Each run is in many gates, so the verdicts are not independent. They come from
``reports.analysis.gate.gate`` with its
default limits; an alarm is a FAIL of any check, a slow-down is caught where the gate FAILs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.disguised import Disguised
from harness.execution.environment import describe
from harness.history.store import History
from harness.models.loading import load_pipeline
from harness.results import BASELINE, REFERENCE, MethodRecord, TimingSample
from harness.sampling.patching import patched
from harness.sampling.pipeline import Pipeline
from harness.storage.files import write_bytes
from harness.storage.records import FORMAT, Run
from harness.timing.reference_workload import Workload
from harness.timing.rounds import time_once
from ilf_bench import experiment as app
from reports.analysis.gate import GateResult, GateVerdict, gate
from reports.analysis.spread import repeated_spreads

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "gate_power.jsonl"
PROCESSES, SECONDS, SLOWER = 8, 16.0, 0.05
REPEATED, A_A_GATES, SLOW_GATES, SEED = 6, 200, 50, 0
CURRENT = (1, 3)  # runs of the commit that is judged
PLAN = (False, True, False, True, False)  # one process: is the run slowed?


@contextmanager
def slowed(pipeline: Pipeline, share: float = SLOWER) -> Iterator[None]:
    """Every call is followed by ``share`` of its own processor time of extra work."""
    generate = pipeline.generate

    def slow(*arguments: Any) -> Any:
        start = time.process_time()
        images = generate(*arguments)
        end = time.process_time()
        while time.process_time() < end + share * (end - start):
            pass
        return images

    with patched(pipeline, "generate", slow):
        yield


def record_process(process: int) -> None:
    """All runs of one process, appended to the results, a line a run."""
    torch.set_num_threads(1)
    experiment = app.prepare("tiny-text", {"steps": 4, "precision": "fp32", "methods": (BASELINE,)}, []).experiment
    pipeline = load_pipeline(experiment.spec)
    workload, method, prompts = Workload("cpu", pipeline.precision), experiment.methods[BASELINE], list(experiment.prompts[:1])
    environment = describe("cpu", pipeline.arithmetic)
    for number, is_slowed in enumerate(PLAN):
        current = Disguised(method, slowed) if is_slowed else method
        for warm in (-2, -1):
            workload.time_once(warm, 1), time_once(pipeline, current, BASELINE, prompts, 7, warm)
        timings, start = [workload.time_once(0, 1)], time.monotonic()
        began = time.time()
        while time.monotonic() < start + SECONDS:
            timings.append(time_once(pipeline, current, BASELINE, prompts, 7, 0))
            timings.append(workload.time_once(0, 1))
        took = time.monotonic() - start
        line = {
            "process": process,
            "run": number,
            "slowed": is_slowed,
            "began": began,
            "seconds": took,
            "environment": environment,
            "spec": experiment.spec.identity(),
            "timings": [_compact(t) for t in timings],
        }
        with RESULTS.open("a") as file:
            file.write(json.dumps(line) + "\n")


def _compact(sample: TimingSample) -> list[Any]:
    """Whole microseconds."""
    return [sample.method == REFERENCE, round(sample.latency_s * 1e6), round((sample.cpu_s or 0) * 1e6), sample.peak_memory_bytes]


def recorded() -> list[dict[str, Any]]:
    """Every line of the results."""
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()] if RESULTS.exists() else []


def record(processes: int) -> None:
    """The processes that are still missing, one after the other; a cut one starts again."""
    RESULTS.parent.mkdir(exist_ok=True)
    for process in range(PROCESSES):
        lines = recorded()
        if sum(line["process"] == process for line in lines) == len(PLAN):
            continue
        if processes == 0:
            return
        kept = [line for line in lines if line["process"] != process]
        write_bytes(RESULTS, "".join(json.dumps(line) + "\n" for line in kept).encode())
        command = [sys.executable, "-m", "benchmarks.gate_power", "process", "--number", str(process)]
        subprocess.run(command, cwd=ROOT, check=True)
        processes -= 1


def as_run(line: dict[str, Any], commit: str) -> Run:
    """A line as the run whose timings it holds: a round is a call with the workload before it, the last one also after."""
    timings, number = [], -1
    for i, (is_workload, latency, cpu, peak) in enumerate(line["timings"]):
        number = min(i // 2, len(line["timings"]) // 2 - 1)
        label = REFERENCE if is_workload else BASELINE
        timings.append(TimingSample(label, number, 1, latency / 1e6, 0, latency / 1e6, 0, peak, cpu_s=cpu / 1e6))
    spec = dict(line["spec"]) | {"format": FORMAT, "digest": "gate-power", "method_labels": [BASELINE], "metrics": []}
    path = Path(f"process-{line['process']}-run-{line['run']}")
    methods = (MethodRecord(BASELINE, BASELINE, "full", 4, 0.0, 0.0),)
    return Run(path, spec, dict(line["environment"]) | {"commit": commit, "dirty": False}, methods, (), {}, tuple(timings), True)


def judge() -> None:
    """Draw the gates, judge them, and print the two rates."""
    lines = recorded()
    for repeats in CURRENT:
        for name, slow, wanted in (("A/A", False, A_A_GATES), ("5% slower", True, SLOW_GATES)):
            report(f"{repeats} current, {name}", gates(lines, slow, wanted, repeats))
    print(f"longest timing run: {max(line['seconds'] for line in lines):.1f} s; runs: {len(lines)}")


def gates(lines: list[dict[str, Any]], slow: bool, wanted: int, repeats: int) -> list[GateResult]:
    """``wanted`` gates of ``repeats`` slowed or unchanged runs, each against six unchanged ones, all from other processes."""
    rng, commits = np.random.default_rng(SEED), ("current", "baseline", "earlier")
    runs = {commit: [as_run(line, commit) for line in lines] for commit in commits}
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder) / "history.sqlite")
        names = {commit: [history.append(run) for run in runs[commit]] for commit in commits}
        entries = {entry.run_id: entry for entry in history.runs()}
    results = []
    for _ in range(wanted):
        chosen = [int(process) for process in rng.permutation(PROCESSES)]
        now = [int(rng.choice(of_process(lines, process, slow))) for process in chosen[:repeats]]
        unchanged = [i for process in chosen[repeats:] for i in of_process(lines, process, False)]
        others = [int(i) for i in rng.permutation(unchanged)]
        then, earlier = others[:REPEATED], others[REPEATED:]
        known = [entries[names[commit][i]] for commit, some in zip(commits, (now, then, earlier), strict=True) for i in some]
        current, baseline = runs["current"][now[0]], runs["baseline"][then[0]]
        results.append(gate(current, baseline, spreads=repeated_spreads(known, baseline, current)))
    return results


def of_process(lines: list[dict[str, Any]], process: int, slow: bool) -> list[int]:
    """The numbers of the lines of one process, slowed or unchanged."""
    return [i for i, line in enumerate(lines) if line["process"] == process and line["slowed"] == slow]


def report(name: str, results: list[GateResult]) -> None:
    """Whole verdicts, and which checks failed."""
    whole = Counter(result.verdict.value for result in results)
    failed = Counter(row.check for result in results for row in result.rows if row.verdict is GateVerdict.FAIL)
    print(f"{name}: {len(results)} gates: {dict(whole)}; failing checks: {dict(failed)}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["record", "judge", "process"])
    parser.add_argument("--number", type=int, default=0, help="of the process, for `process`")
    parser.add_argument("--processes", type=int, default=PROCESSES, help="record at most so many in this call")
    arguments = parser.parse_args()
    if arguments.what == "judge":
        judge()
    elif arguments.what == "record":
        record(arguments.processes)
    else:
        record_process(arguments.number)


if __name__ == "__main__":
    main()
