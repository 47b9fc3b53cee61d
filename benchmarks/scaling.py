"""Measure how runs scale, and plan large ones from that.

    python -m benchmarks.scaling [workers] [memory] [records] [plan]

``workers``: generation and scoring of the tiny-text preset with one and with two single-thread workers of the Ray engine.
``memory``: the driver's memory and processor time at 1,000 and 20,000 images. ``records``: what storing, scoring and
reporting cost per image at up to 200,000 images. Both replace sampling by noise, so that the product's own work remains. Each
writes benchmarks/results/scaling-PART.json, and ``plan`` (benchmarks/scale_plan.py) reads them. ``workers`` needs a quiet
machine; the others count processor time, which other load changes little. docs/scale.md holds what they printed.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.scale_plan import Assumptions, Spread, machine, plan, write_result
from benchmarks.simulated import drive, simulate
from harness.execution.dispatch import Dispatch
from harness.execution.ray import ClusterOptions
from harness.execution.tasks import Engine, Role, Stage, Task
from harness.storage.samples import chunks
from ilf_bench.engines import cluster_engine
from ilf_bench.experiment import prepare

T = TypeVar("T")
console = Console(width=130)


def apart(work: Callable[..., T], *arguments: object) -> T:
    """The result of ``work`` in a new process, whose memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


STAGES: tuple[tuple[Stage, Role], ...] = (("generate", "sampler"), ("measure", "scorer"))


def timed(engine: Engine, role: Role, tasks: Iterable[Task]) -> float:
    """Seconds that an engine takes for tasks; none may fail."""
    start = time.perf_counter()
    for outcome in Dispatch(engine, role, tasks, lambda fault: None).outcomes():
        assert not outcome.error and not outcome.failures, outcome
    return time.perf_counter() - start


def workers(ranges: int, repeats: int) -> None:
    """Seconds of generation and scoring with one and two workers, in turn; networks are loaded and warm before the clock."""
    found: list[Spread] = []
    for turn, count in itertools.product(range(repeats), (1, 2)):
        with tempfile.TemporaryDirectory() as folder:
            found += [Spread(stage, count, turn, images, s) for stage, images, s in one_spread(ranges, count, Path(folder))]
    write_result("workers", {"machine": machine(), "turns": [asdict(each) for each in found]})
    table = Table("stage", "images", "1 worker, s", "2 workers, s", "ratio", title="tiny-text, one thread a worker, all turns")
    for stage, _ in STAGES:
        one, two = ([s for s in found if (s.stage, s.workers) == (stage, count)] for count in (1, 2))
        times = [", ".join(f"{s.seconds:.1f}" for s in part) for part in (one, two)]
        ratios = ", ".join(f"{a.seconds / b.seconds:.2f}" for a, b in zip(one, two, strict=True))
        table.add_row(stage, str(one[0].images), *times, ratios)
    console.print(table)


def one_spread(ranges: int, count: int, out: Path) -> Iterator[tuple[str, int, float]]:
    """Stage, images and seconds with ``count`` workers; two more ranges warm the workers up before the clock starts."""
    size = prepare("tiny-text", {}, []).experiment.spec.batch
    experiment = prepare("tiny-text", {"methods": ("full",), "samples": (ranges + 2) * size}, []).experiment
    folder = experiment.folder(out)
    options = ClusterOptions(workers=count, device="cpu", score_device="cpu", score_batch=size)
    engine = cluster_engine(options, experiment, folder)
    engine.start()
    *parts, one, other = chunks(experiment.spec.samples, size)
    for stage, role in STAGES:
        tasks = [Task(stage, "full", r.start, r.stop, size) for r in (one, other, *parts)]
        timed(engine, role, tasks[:2])
        yield stage, ranges * size, timed(engine, role, tasks[2:])
        if stage == "generate":
            timed(engine, role, [Task("finish", "full")])
    engine.close()


def memory(counts: Sequence[int]) -> None:
    """The driver's peak memory and processor time, each count in a process of its own."""
    found = [apart(drive, count) for count in counts]
    write_result("memory", {"machine": machine(), "driver": [asdict(each) for each in found]})
    table = Table("images", "ranges", "peak memory, MiB", "processor time, ms a range", title="The driver of a Ray run")
    for each in found:
        row = (f"{each.images:,}", f"{each.ranges:,}", f"{each.peak_mib:.0f}", f"{1e3 * each.seconds / each.ranges:.1f}")
        table.add_row(*row)
    console.print(table)


def records(cases: Sequence[tuple[int, int]]) -> None:
    """Processor time per image, each case (images, side) in a process of its own."""
    found = [apart(simulate, *case) for case in cases]
    write_result("records", {"machine": machine(), "runs": [asdict(each) for each in found]})
    columns = ("images", "side", "bytes", "store", "score", "runner", "history", "report", "report's peak, MiB")
    table = Table(*columns, title="Milliseconds of processor time per image; two methods, PSNR")
    for each in found:
        parts = (each.store_s, each.score_s, each.runner_s, each.history_s, each.report_s)
        costs = (f"{1e3 * part / each.images:.3f}" for part in parts)
        table.add_row(f"{each.images:,}", str(each.side), f"{each.image_bytes:.0f}", *costs, f"{each.report_peak_mib:.0f}")
    console.print(table)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["workers", "memory", "records", "plan"])
    parser.add_argument("--ranges", type=int, default=30, help="of 37 images, for workers")
    parser.add_argument("--repeats", type=int, default=2, help="for workers")
    for field in fields(Assumptions):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    assumed = Assumptions(**{field.name: getattr(arguments, field.name) for field in fields(Assumptions)})
    parts: dict[str, Callable[[], None]] = {
        "workers": lambda: workers(arguments.ranges, arguments.repeats),
        "memory": lambda: memory((1_000, 20_000)),
        "records": lambda: records(((2_000, 32), (20_000, 32), (200_000, 32), (2_000, 256))),
        "plan": lambda: console.print(plan(assumed)),
    }
    for name in arguments.parts:
        parts[name]()


if __name__ == "__main__":
    main()
