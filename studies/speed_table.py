"""How fast the methods are on true architectures, and how far from what the device could do.

    python studies/speed_table.py --device cuda                     # the whole table; hours of a GPU, resumable
    python studies/speed_table.py --presets dit-xl-256 --layers 2 --steps 2 --rounds 1 --batches 1 --device cpu

Every preset runs on random weights, eager and compiled, through the same code as ``ilf-bench run``. Written to ``--out``: a
Markdown table, and beside it (``.json``) every raw sample with the record of the machine. Nothing here judges quality.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from rich.console import Console

from harness.config.spec import load_spec
from harness.cost.device_speed import Speed, measured_speed, published_peak
from harness.cost.plan import Plan
from harness.models.random_weights import DTYPES
from harness.results import BASELINE, Failure, TimingSample
from harness.storage.files import write_bytes
from harness.storage.records import Run
from ilf_bench.experiment import execute, prepare
from ilf_bench.options import timing_overrides

PRESETS = ("dit-xl-256", "dit-xl-512", "pixart-alpha-512", "pixart-alpha-1024")
ARCHITECTURE = {"dit-xl-256": "dit-xl-2-256", "dit-xl-512": "dit-xl-2-512"}  # others are called as their preset
PROMPTS = "presets/speed-prompts.txt"


def methods(steps: int) -> tuple[str, ...]:
    """Full, 12/20 and 10/20 of the steps, the cache at 326 and ILF at 332 blocks of 560, and ILF with guidance distilled."""
    twelve, half = max(2, round(0.6 * steps)), max(2, steps // 2)
    fewer = dict.fromkeys([f"steps:{twelve}", f"steps:{half}"])
    fed = max(1, round(0.4 * half))
    return (
        BASELINE,
        *fewer,
        "deepcache:interval=3",
        f"ilf-untrained:steps={half}:feedback=paper-{fed}",
        f"ilf-untrained:steps={half}:feedback=all:guidance_distilled=all",
    )


@dataclass(frozen=True)
class Row:
    """One method at one batch size. ``of_peak``: FLOP/s of the denoising loop over the device's; ``kept``: measured speed-up of
    that loop over the speed-up in block evaluations; ``stages``: measured over predicted end-to-end time, where the prediction
    takes text and decode from the full run. ``throttled`` counts marked samples.
    """

    preset: str
    compiled: bool
    batch: int
    method: str
    blocks: float
    seconds_per_image: float
    denoise_s_per_image: float
    speedup: float
    denoise_speedup: float
    kept: float
    stages: float
    of_peak: float
    peak_memory_bytes: int
    compile_s: float
    throttled: int
    samples: int


def rows_of(run: Run, plans: dict[str, Plan | Failure], peak: Speed) -> Iterator[Row]:
    """The rows of one run, each from its medians."""
    everything = [*run.timings, *run.other_batches]
    for batch in sorted({sample.batch for sample in everything}):
        full = [s for s in everything if s.batch == batch and s.method == BASELINE]
        for label, plan in plans.items():
            samples = [s for s in everything if s.batch == batch and s.method == label]
            if not isinstance(plan, Failure) and samples and full:
                yield _row(run, label, plan, samples, full, plans, peak)


def _row(
    run: Run,
    label: str,
    plan: Plan,
    samples: Sequence[TimingSample],
    full: Sequence[TimingSample],
    plans: dict[str, Plan | Failure],
    peak: Speed,
) -> Row:
    batch, base = samples[0].batch, plans[BASELINE]
    assert isinstance(base, Plan)
    total, denoise = median(s.latency_s for s in samples), median(s.denoise_s for s in samples)
    faster = median(s.denoise_s for s in full) / denoise
    predicted = median(s.text_s for s in full) + denoise + median(s.decode_s for s in full)
    flops = batch * plan.backbone.geometry.denoising_flops(plan.block_evaluations, sum(step.branches for step in plan.steps))
    warm = [s.compile_s for s in run.warmups if s.method == label and s.batch == batch]
    return Row(
        run.spec["name"],
        bool(run.spec.get("compile")),
        batch,
        label,
        plan.block_evaluations,
        total / batch,
        denoise / batch,
        median(s.latency_s for s in full) / total,
        faster,
        faster / (base.block_evaluations / plan.block_evaluations),
        total / predicted,
        flops / denoise / peak.flops_per_s,
        max(s.peak_memory_bytes for s in samples),
        sum(warm),
        sum(bool(s.throttled) for s in samples),
        len(samples),
    )


def facts_of(run: Run, layers: int | None) -> str:
    """What the table was measured on, and a warning where that was no published architecture."""
    env = run.environment
    parts = ["Random weights", env["device_name"], env["precision"].split(",")[0], f"torch {env['torch']}", env["created"][:10]]
    parts += [f"driver {env['driver']}"] if "driver" in env else []
    cut = f" **The transformer is cut to {layers} blocks: no result.**" if layers else ""
    return f"{', '.join(parts)}.{cut}"


def markdown(rows: Sequence[Row], facts: str, peak: Speed) -> str:
    """The table, with what it was measured on above it."""
    head = (
        "preset | mode | batch | method | blocks / image | s / image | denoise s / image | × full | denoise × full | "
        "kept of block speed-up | measured / predicted by stages | of peak | peak GiB | compile s | throttled"
    )
    lines = [facts, "", f"Peak: {peak.flops_per_s / 1e12:.3g} TFLOP/s, {peak.source}.", "", f"| {head} |"]
    lines.append("|" + "---|" * (head.count("|") + 1))
    for r in rows:
        cells = (
            r.preset,
            "compiled" if r.compiled else "eager",
            r.batch,
            r.method,
            f"{r.blocks:g}",
            f"{r.seconds_per_image:.4g}",
            f"{r.denoise_s_per_image:.4g}",
            f"{r.speedup:.3f}",
            f"{r.denoise_speedup:.3f}",
            f"{r.kept:.3f}",
            f"{r.stages:.3f}",
            f"{r.of_peak:.1%}",
            f"{r.peak_memory_bytes / 2**30:.1f}",
            f"{r.compile_s:.0f}",
            f"{r.throttled} of {r.samples}",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def measure(preset: str, compiled: bool, arguments: argparse.Namespace, console: Console) -> tuple[Run, list[Row], Speed]:
    """One run of ``ilf-bench run`` on random weights, and its rows."""
    task, dtype = load_spec(preset).task, arguments.dtype
    cut = f":layers={arguments.layers}" if arguments.layers else ""
    overrides = {
        "pipeline": f"random:{ARCHITECTURE.get(preset, preset)}{cut}",
        "dtype": dtype,
        "device": arguments.device,
        "steps": arguments.steps,
        "methods": methods(arguments.steps),
        "metrics": (),
        "samples": 1,
        "compile": compiled,
        "timing": timing_overrides(arguments.rounds, arguments.warmup, arguments.batches),
    }
    prepared = prepare(preset, overrides | ({} if task == "class" else {"prompts": PROMPTS}), [])
    run = execute(prepared, arguments.runs, console).run
    plan = prepared.plans[BASELINE]
    assert isinstance(plan, Plan)
    peak = published_peak(run.environment["device_name"])
    peak = peak or measured_speed(plan.backbone.geometry, run.environment["device"], DTYPES[dtype])
    return run, list(rows_of(run, prepared.plans, peak)), peak


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--layers", type=int, help="cut the transformer: for trying this script out, not for a result")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--batches", default="8,1")
    parser.add_argument("--modes", nargs="+", default=["eager", "compiled"], choices=("eager", "compiled"))
    parser.add_argument("--runs", type=Path, default=Path("runs/speed"))
    parser.add_argument("--out", type=Path, default=Path("speed.md"))
    arguments = parser.parse_args()
    console, table, raw = Console(), [], []
    for preset in arguments.presets:
        for mode in arguments.modes:
            run, rows, peak = measure(preset, mode == "compiled", arguments, console)
            table += rows
            samples = [asdict(sample) for sample in (*run.warmups, *run.timings, *run.other_batches)]
            raw.append({"spec": dict(run.spec), "environment": dict(run.environment), "samples": samples})
            write_bytes(arguments.out, markdown(table, facts_of(run, arguments.layers), peak).encode())
            write_bytes(arguments.out.with_suffix(".json"), json.dumps(raw, indent=1).encode())
    console.print(arguments.out.read_text(encoding="utf-8"), markup=False)


if __name__ == "__main__":
    main()
