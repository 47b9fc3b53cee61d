"""Does the gate see a small loss of quality, and does it stay calm where only the seed differs?

    python -m benchmarks.gate_quality          # about fifteen minutes on one thread; prints every verdict

Preset tiny-text, full and 12 steps, 296 images. A/A: the same code on seeds 5101 to 5105 is the history, 5106 to 5110 are gated
against seed 5100. Injected: the output of transformer block 6 times 0.98, in 12 steps only, and in the whole pipeline, each on
seeds 5106 to 5110, gated against the unharmed run of the same seed, as a regression check would be: then images are compared
noise by noise. Which metric with which margin is to catch which loss was written into docs/regression-tracking.md before the
first run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks.disguised import Disguised
from harness.execution.runner import Runner
from harness.history.store import History, HistoryEntry
from harness.sampling.pipeline import Pipeline
from harness.storage.records import Run, read_run
from ilf_bench import experiment as app
from ilf_bench.engines import local_engine
from reports.analysis.gate import GateResult, GateVerdict, Limits, gate
from reports.analysis.spread import repeated_spreads

BASELINE_SEED, SAMPLES, BLOCK, SCALE = 5100, 296, 6, 0.98
HISTORY, GATED = range(5101, 5106), range(5106, 5111)
METHODS = ("full", "steps:12")
MARGINS = {"feature_distance": 0.05, "clip_score": 0.1}  # of the metrics that are to catch the losses
METRICS = ("fid", "clip_score", "clip_iqa", "image_reward", "psnr", "ssim", "feature_distance")


@contextmanager
def harmed(pipeline: Pipeline) -> Iterator[None]:
    """One block's output is scaled."""
    hook = pipeline.blocks[BLOCK].register_forward_hook(lambda module, arguments, output: output * SCALE)
    try:
        yield
    finally:
        hook.remove()


def make_run(seed: int, damaged: tuple[str, ...], out: Path) -> Run:
    """One run without timing, with the methods of those labels harmed."""
    overrides = {"seed": seed, "samples": SAMPLES, "methods": METHODS, "metrics": METRICS, "timing": {"rounds": 0}}
    prepared = app.prepare("tiny-text", overrides, []).experiment
    methods = {label: Disguised(m, harmed) if label in damaged else m for label, m in prepared.methods.items()}
    experiment = replace(prepared, methods=methods)
    folder = experiment.folder(out)
    Runner(experiment, local_engine(experiment, folder), folder, Console(quiet=True)).run()
    return read_run(folder)


def failing(result: GateResult) -> str:
    """Every failing check but the times, which were not taken."""
    return ", ".join(f"{row.method}: {row.check}" for row in result.rows if row.verdict is GateVerdict.FAIL) or "none"


def main() -> None:
    """All runs, then all gates."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        baseline = make_run(BASELINE_SEED, (), out)
        history = History(out / "history.sqlite")
        for run in (make_run(seed, (), out) for seed in HISTORY):
            history.append(replace(run, environment=dict(run.environment) | {"commit": "unchanged", "dirty": False}))
        entries = history.runs()
        calm = [make_run(seed, (), out) for seed in GATED]
        for run in calm:
            show("A/A, another seed", run, baseline, entries)
        for name, damaged in (("12 steps harmed", ("12 steps",)), ("whole pipeline harmed", ("full", "12 steps"))):
            for seed, unharmed in zip(GATED, calm, strict=True):
                show(f"{name}, same seed", make_run(seed, damaged, out / name), unharmed, entries)


def show(name: str, run: Run, baseline: Run, entries: Sequence[HistoryEntry]) -> None:
    """The verdict of one gate, and the named metrics."""
    result = gate(run, baseline, Limits(margins=MARGINS), repeated_spreads(entries, baseline, run))
    print(f"{name}, seed {run.spec['seed']}: failing checks: {failing(result)}", flush=True)
    for row in result.rows:
        if row.check in MARGINS:
            print(f"    {row.method}, {row.check}: {row.verdict.value}, {row.text}", flush=True)


if __name__ == "__main__":
    main()
