"""Measure how runs scale, and plan large ones from that.

    python -m benchmarks.scaling [workers] [memory] [records] [plan]

``workers``: generation and scoring of the tiny-text preset with one and with two single-thread workers of the Ray engine.
``memory``: the driver's memory and processor time at 1,000 and 20,000 images. ``records``: what storing, scoring and reporting
an image cost at up to 200,000 images. Both replace sampling by noise, so that the product's own work remains. Each writes
benchmarks/results/scaling-PART.json, and ``plan`` (benchmarks/scale_plan.py) reads them. ``workers`` needs a quiet machine; the
others count processor time, which other load changes little. docs/scale.md holds what they printed.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.scale_plan import Assumptions, DriverCost, ImageCost, Spread, machine, plan, write_result
from harness.commands.engines import cluster_engine, make_scorer
from harness.commands.run import prepare
from harness.contracts import MethodRecord
from harness.engine.cluster import ClusterOptions
from harness.engine.dispatch import Dispatch
from harness.engine.local import LocalEngine
from harness.engine.tasks import SCORE_BATCH, Engine, Facts, Outcome, Role, Stage, Task, Witness
from harness.experiment import Experiment
from harness.records import read_run, slug, write_json
from harness.runner import Runner
from harness.sampler import Sampler
from harness.samples import chunks
from harness.store import History
from reports.build import build_report

T = TypeVar("T")
BLOCKS = 480  # block evaluations that a simulated image claims
NOISE_LEVELS = 58  # noise of so many levels fills a PNG with 2.2 bytes a pixel, as the bundled models' images do
console = Console(width=130)


def apart(work: Callable[..., T], *arguments: object) -> T:
    """The result of ``work`` in a new process, whose memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def reset_peak() -> None:
    """Forget this process's peak memory."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """Peak resident memory of this process since :func:`reset_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


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
    changes = {"methods": ("full",), "samples": (ranges + 2) * size, "metrics": ("fid", "clip_score", "ssim")}
    experiment = prepare("tiny-text", changes, []).experiment
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


class Painter(Sampler):
    """A sampler whose images are noise and cost nothing: what remains is the product's own work."""

    pipeline = SimpleNamespace()  # type: ignore[assignment]

    def __init__(self, experiment: Experiment, folder: Path, side: int) -> None:
        super().__init__(experiment, folder)
        self.noise = torch.randint(0, NOISE_LEVELS, (experiment.spec.batch, 3, side, side), dtype=torch.uint8)

    def facts(self) -> Facts:
        """Of no model."""
        environment = {"machine_key": "m", "weights": "", "created": "2026-01-01T00:00:00+00:00"}
        return Facts(environment, self.noise[0, 0].numel())

    def do(self, task: Task) -> Outcome:
        """Noise instead of images, other noise for another method; a record without a plan."""
        samples = self.experiment.samples(self.folder, task.method)
        if task.stage == "generate":
            blocks = itertools.count(0, BLOCKS * len(task.indices))
            images = self.noise.roll(len(task.method), 0)[: len(task.indices)]
            samples.generate(task.indices, lambda prompts, indices: images, lambda: next(blocks))
        else:
            text = self.experiment.method_texts[task.method]
            record = MethodRecord(task.method, text, 20, BLOCKS, samples.finish(task.method))
            write_json(self.folder / "methods" / f"{slug(task.method)}.json", asdict(record))
        return Outcome(task)


def simulated(samples: int, methods: Sequence[str], metrics: Sequence[str]) -> Experiment:
    """The tiny-text preset without timing."""
    changes = {"methods": tuple(methods), "samples": samples, "metrics": tuple(metrics), "timing": {"rounds": 0}}
    return prepare("tiny-text", changes, []).experiment


def drive(images: int) -> DriverCost:
    """What a Ray run of so many images costs the process that hands out the work."""
    with tempfile.TemporaryDirectory() as out:
        experiment = simulated(images, ["full"], [])
        folder = experiment.folder(Path(out))
        engine = cluster_engine(ClusterOptions(workers=1), experiment, folder)
        engine.make["sampler"] = partial(Painter, experiment, folder, 32)  # type: ignore[attr-defined]
        runner = Runner(experiment, engine, Path(out), Console(quiet=True))
        engine.start()
        reset_peak()
        start = time.process_time()
        assert runner.run() == []
        seconds, peak = time.process_time() - start, peak_mib()
        engine.close()
    return DriverCost(images, -(-images // experiment.spec.batch), seconds, peak)


def memory(counts: Sequence[int]) -> None:
    """The driver's peak memory and processor time, each count in a process of its own."""
    found = [apart(drive, count) for count in counts]
    write_result("memory", {"machine": machine(), "driver": [asdict(each) for each in found]})
    table = Table("images", "ranges", "peak memory, MiB", "processor time, ms a range", title="The driver of a Ray run")
    for each in found:
        row = (f"{each.images:,}", f"{each.ranges:,}", f"{each.peak_mib:.0f}", f"{1e3 * each.seconds / each.ranges:.1f}")
        table.add_row(*row)
    console.print(table)


@dataclass
class Clocked:
    """A worker whose processor seconds are added up by stage."""

    worker: Witness
    seconds: Counter[str]

    def facts(self) -> Facts:
        """The worker's."""
        return self.worker.facts()

    def do(self, task: Task) -> Outcome:
        """The worker's."""
        start = time.process_time()
        outcome = self.worker.do(task)
        self.seconds[task.stage] += time.process_time() - start
        return outcome


def simulate(images: int, side: int) -> ImageCost:
    """What storing, scoring (PSNR) and reporting cost in a run of two methods, ``images`` in all."""
    seconds: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as out:
        experiment = simulated(images // 2, ["full", "steps:8"], ["psnr"])
        folder = experiment.folder(Path(out))
        engine = LocalEngine(
            lambda: Clocked(Painter(experiment, folder, side), seconds),
            lambda: Clocked(make_scorer(experiment, folder, "cpu", SCORE_BATCH), seconds),  # type: ignore[arg-type]
        )
        start = time.process_time()
        assert Runner(experiment, engine, Path(out), Console(quiet=True)).run() == []
        ran = time.process_time()
        History(Path(out) / "history.sqlite").append(read_run(folder))
        appended = time.process_time()
        reset_peak()
        build_report(folder)
        reported, peak = time.process_time(), peak_mib()
        size = sum(path.stat().st_size for path in folder.glob("samples/*/*.png")) / images
    store, score = (sum(seconds[stage] for stage in stages) for stages in (("generate", "finish"), ("measure", "summarise")))
    return ImageCost(images, side, size, store, score, ran - start - store - score, appended - ran, reported - appended, peak)


def records(cases: Sequence[tuple[int, int]]) -> None:
    """Processor time an image, each case (images, side) in a process of its own."""
    found = [apart(simulate, *case) for case in cases]
    write_result("records", {"machine": machine(), "runs": [asdict(each) for each in found]})
    columns = ("images", "side", "bytes", "store", "score", "runner", "history", "report", "report's peak, MiB")
    table = Table(*columns, title="Milliseconds of processor time an image; two methods, PSNR")
    for each in found:
        parts = (each.store_s, each.score_s, each.runner_s, each.history_s, each.report_s)
        costs = (f"{1e3 * part / each.images:.3f}" for part in parts)
        table.add_row(f"{each.images:,}", str(each.side), f"{each.image_bytes:.0f}", *costs, f"{each.report_peak_mib:.0f}")
    console.print(table)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["workers", "memory", "records", "plan"])
    parser.add_argument("--ranges", type=int, default=14, help="of 37 images, for workers")
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
