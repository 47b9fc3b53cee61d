"""A plan for a large run: what was measured (benchmarks/results/scaling-*.json) and what is assumed, made into hours."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

from harness.execution.environment import cpu_name
from harness.storage.files import write_bytes

RESULTS = Path(__file__).parent / "results"
SIDE = 256  # pixels of the planned images
ROUNDS, TIMED_BATCH = 9, 32  # rounds of timing, the warm-up among them


@dataclass(frozen=True)
class Spread:
    """Seconds of one stage with so many workers, in one turn."""

    stage: str
    workers: int
    turn: int
    images: int
    seconds: float


@dataclass(frozen=True)
class DriverCost:
    """What a run costs the process that hands out the work: processor seconds, and peak memory from its start on."""

    images: int
    ranges: int
    seconds: float
    peak_mib: float


@dataclass(frozen=True)
class ImageCost:
    """Processor seconds of a whole run of ``images`` images of ``side`` x ``side`` pixels, by part."""

    images: int
    side: int
    image_bytes: float
    store_s: float
    score_s: float
    runner_s: float
    history_s: float
    report_s: float
    report_peak_mib: float


@dataclass(frozen=True)
class Assumptions:
    """What nobody has measured here. GPU-seconds are of DiT-XL/2 at 256 pixels in bf16, batched."""

    images: int = 50_000
    methods: int = 20
    full_s: float = 0.5  # GPU-seconds per image of the full run
    mean_cost: float = 0.6  # of a method, as a share of the full run
    score_s: float = 0.02  # GPU-seconds per image, all metrics
    batch: int = 32  # images of a range
    gpu_hour: float = 2.5  # price
    write_bytes_s: float = 1e9  # of the shared store
    record_bytes: float = 9_000  # per image: receipts, and 2048 float32 features


def machine() -> dict[str, Any]:
    """Where and when something was measured."""
    packages = {name: version(name) for name in ("torch", "ray")}
    return {"processor": cpu_name(), "cores": os.cpu_count(), "measured": datetime.now(UTC).isoformat("T", "minutes"), **packages}


def write_result(part: str, content: dict[str, Any]) -> None:
    """The raw numbers of one part."""
    RESULTS.mkdir(exist_ok=True)
    write_bytes(RESULTS / f"scaling-{part}.json", (json.dumps(content, indent=1) + "\n").encode())


def read_result(part: str) -> dict[str, Any]:
    """The inverse."""
    content: dict[str, Any] = json.loads((RESULTS / f"scaling-{part}.json").read_text(encoding="utf-8"))
    return content


@dataclass(frozen=True)
class Measured:
    """What a plan takes from measurements: processor seconds per image or per range, and bytes per image.

    ``efficiency``: what two workers did of twice one worker's work, in the worse stage.
    """

    efficiency: float
    driver_s: float
    store_s: float
    score_s: float
    report_s: float
    image_bytes: float

    @classmethod
    def read(cls) -> Measured:
        """From benchmarks/results: storing and scoring at the planned size, reporting at the largest count."""
        runs = [ImageCost(**run) for run in read_result("records")["runs"]]
        driver = max((DriverCost(**each) for each in read_result("memory")["driver"]), key=lambda each: each.images)
        large, many = next(run for run in runs if run.side == SIDE), max(runs, key=lambda run: run.images)
        turns = [Spread(**turn) for turn in read_result("workers")["turns"]]
        best: dict[tuple[str, int], float] = {}
        for turn in turns:
            best[turn.stage, turn.workers] = min(turn.seconds, best.get((turn.stage, turn.workers), turn.seconds))
        efficiency = min(best[stage, 1] / best[stage, 2] / 2 for stage, _ in best)
        return cls(
            efficiency,
            driver.seconds / driver.ranges,
            large.store_s / large.images,
            large.score_s / large.images,
            (many.history_s + many.report_s) / many.images,
            large.image_bytes,
        )


@dataclass(frozen=True)
class Plan:
    """Hours of wall time by part, GPU-hours, and the busy share of what all GPUs have in common."""

    generate_h: float
    time_h: float
    score_h: float
    report_h: float
    gpu_hours: float
    stored_bytes: float
    shares: dict[str, float]

    @property
    def wall_h(self) -> float:
        """All parts, one after another."""
        return self.generate_h + self.time_h + self.score_h + self.report_h

    @property
    def first(self) -> str:
        """What saturates first as GPUs are added."""
        return max(self.shares, key=lambda name: self.shares[name])


def plan_for(gpus: int, assumed: Assumptions, measured: Measured) -> Plan:
    """Generation and scoring spread; timing and the report do not."""
    total, rate = assumed.images * assumed.methods, gpus * measured.efficiency
    generate_s = total * (assumed.full_s * assumed.mean_cost + measured.store_s) / rate
    score_s = total * (assumed.score_s + measured.score_s) / rate
    time_s = ROUNDS * TIMED_BATCH * (assumed.methods + 1) * assumed.full_s * assumed.mean_cost
    report_s = total * measured.report_s
    stored = total * (measured.image_bytes + assumed.record_bytes)
    shares = {
        "the store": stored / generate_s / assumed.write_bytes_s,
        "the driver": total / assumed.batch * measured.driver_s / generate_s,
        "what one process does alone": (time_s + report_s) / (generate_s + score_s + time_s + report_s),
    }
    generate_h, time_h, score_h, report_h = (seconds / 3600 for seconds in (generate_s, time_s, score_s, report_s))
    return Plan(generate_h, time_h, score_h, report_h, (generate_s + score_s) / 3600 * gpus + time_s / 3600, stored, shares)


def plan(assumed: Assumptions) -> Table:
    """A row for 8 and one for 64 GPUs."""
    columns = ("GPUs", "generate, h", "time, h", "score, h", "report, h", "all, h", "GPU-hours", "price", "GB", "busy")
    table = Table(*columns, title=f"{assumed.images:,} images x {assumed.methods} methods")
    measured = Measured.read()
    for gpus in (8, 64):
        made = plan_for(gpus, assumed, measured)
        busy = "\n".join(f"{share:.1%} {name}{' (first)' if name == made.first else ''}" for name, share in made.shares.items())
        hours = [f"{h:.2f}" for h in (made.generate_h, made.time_h, made.score_h, made.report_h, made.wall_h)]
        price, stored = f"{made.gpu_hours * assumed.gpu_hour:.0f}", f"{made.stored_bytes / 1e9:.0f}"
        table.add_row(str(gpus), *hours, f"{made.gpu_hours:.0f}", price, stored, busy)
    return table
