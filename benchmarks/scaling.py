"""Measure how runs scale, and plan large ones from that: ``python -m benchmarks.scaling [workers] [memory] [records] [plan]``.

``workers``: generation and scoring of the tiny-text preset with one and with two single-thread workers of the Ray engine.
``memory``: the driver's memory at 1,000 and 20,000 images. ``records``: what storing an image and reporting it cost at up to
200,000 images. ``plan``: 50,000 images x 20 methods on 8 and 64 GPUs; every figure in :class:`Assumptions` may be overridden.
Run it on a quiet machine. docs/scale.md holds what it printed.
"""

from __future__ import annotations

import argparse
import logging
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from harness.commands.engines import cluster_engine
from harness.commands.run import prepare
from harness.contracts import MethodRecord, Score
from harness.engine.cluster import ClusterOptions
from harness.engine.dispatch import Dispatch
from harness.engine.tasks import Engine, Facts, Outcome, Role, Task
from harness.records import FORMAT, read_run, slug, write_json, write_score
from harness.runner import Runner
from harness.sampler import Sampler
from harness.samples import SampleSet, chunks
from reports.build import build_report

console = Console(width=130)


def timed(engine: Engine, role: Role, tasks: Iterable[Task]) -> float:
    """Seconds that an engine takes for tasks; none may fail."""
    start = time.perf_counter()
    for outcome in Dispatch(engine, role, tasks, lambda fault: None).outcomes():
        assert not outcome.error and not outcome.failures, outcome
    return time.perf_counter() - start


def workers(samples: int, repeats: int) -> None:
    """Seconds of generation and scoring with one and two workers, in turn; networks are loaded and warm before the clock."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(repeats):
        for count in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                for stage, seconds in one_spread(samples, count, Path(folder)):
                    found.setdefault((stage, count), []).append(seconds)
    table = Table(
        "stage", "images", "1 worker", "2 workers", "ratio", title="tiny-text, one thread a worker; the least of all turns"
    )
    for stage in ("generate", "score"):
        one, two = (min(found[stage, count]) for count in (1, 2))
        table.add_row(stage, str(samples), f"{one:.1f} s", f"{two:.1f} s", f"{one / two:.2f}")
    console.print(table)


def one_spread(samples: int, count: int, out: Path) -> Iterator[tuple[str, float]]:
    """Seconds by stage with ``count`` workers."""
    experiment = prepare(
        "tiny-text", {"methods": ("full",), "samples": samples, "metrics": ("fid", "clip_score", "ssim")}, []
    ).experiment
    folder, size = experiment.folder(out), experiment.spec.batch
    engine = cluster_engine(ClusterOptions(workers=count, device="cpu", score_device="cpu"), experiment, folder)
    engine.start()
    ranges = list(chunks(samples, size))
    warm = ranges[-count:]  # each worker warms up on a range that is not timed
    timed(engine, "sampler", (Task("generate", "full", r.start, r.stop, size) for r in warm))
    yield "generate", timed(engine, "sampler", (Task("generate", "full", r.start, r.stop, size) for r in ranges[:-count]))
    timed(engine, "sampler", [Task("finish", "full")])
    measure = [Task("measure", "full", r.start, r.stop, engine.score_batch) for r in chunks(samples, engine.score_batch)]
    timed(engine, "scorer", measure[-count:])
    yield "score", timed(engine, "scorer", measure[:-count])
    engine.close()


class Painter(Sampler):
    """A sampler whose pipeline costs nothing: what remains is the product's own work."""

    pipeline = SimpleNamespace()  # type: ignore[assignment]

    def facts(self) -> Facts:
        """Of no model."""
        return Facts({"machine_key": "m", "weights": ""}, 32 * 32)

    def do(self, task: Task) -> Outcome:
        """Noise instead of images, a record without a plan."""
        samples = self.experiment.samples(self.folder, task.method)
        if task.stage == "generate":
            noise = torch.randint(0, 256, (len(task.indices), 3, 32, 32), dtype=torch.uint8)
            samples.generate(task.indices, lambda prompts, indices: noise, lambda: 0)
        else:
            record = MethodRecord(task.method, task.method, 20, 1, samples.finish(task.method))
            write_json(self.folder / "methods" / f"{slug(task.method)}.json", asdict(record))
        return Outcome(task)


def drive(samples: int, out: Path) -> int:
    """Peak resident bytes of this process as the driver of a Ray run of ``samples`` images."""
    changes = {"methods": ("full",), "samples": samples, "metrics": (), "timing": {"rounds": 0}}
    experiment = prepare("tiny-text", changes, []).experiment
    folder = experiment.folder(out)
    engine = cluster_engine(ClusterOptions(workers=1), experiment, folder)
    engine.make["sampler"] = partial(Painter, experiment, folder)  # type: ignore[attr-defined]
    assert Runner(experiment, engine, out, Console(quiet=True)).run() == []
    engine.close()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory(counts: tuple[int, ...]) -> None:
    """The driver's peak memory, each count in a process of its own."""
    table = Table("images", "driver's peak memory", title="Ray engine, sampling replaced by noise")
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            code = f"from pathlib import Path; from benchmarks.scaling import drive; print(drive({count}, Path({folder!r})))"
            output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
            table.add_row(f"{count:,}", f"{int(output.split()[-1]) / 2**20:.0f} MiB")
    console.print(table)


def records(counts: tuple[int, ...]) -> None:
    """Milliseconds an image of storing and of reporting a run of two methods."""
    table = Table("records", "store, ms each", "report, s", "report, ms each", title="simulated images of 32 x 32, two methods")
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            start = time.perf_counter()
            simulate(run, count // 2)
            middle = time.perf_counter()
            build_report(run)
            report = time.perf_counter() - middle
            table.add_row(f"{count:,}", f"{1e3 * (middle - start) / count:.3f}", f"{report:.1f}", f"{1e3 * report / count:.3f}")
            shutil.rmtree(run)
    console.print(table)


def simulate(run: Path, samples: int) -> None:
    """A run of two methods with one score, through the product's own writers."""
    labels = {"full": 20, "8 steps": 8}
    spec = {"format": FORMAT, "name": "scale", "title": "", "digest": "d", "metrics": ["good"], "samples": samples, "seed": 1000}
    write_json(run / "spec.json", spec | {"method_labels": list(labels), "task": "text", "steps": 20})
    write_json(run / "environment.json", {"machine_key": "m", "created": "2026-01-01T00:00:00+00:00"})
    noise = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    for label, steps in labels.items():
        images = SampleSet(run / "samples" / slug(label), ("red cat",) * samples, 64)
        for indices in images.chunks():
            images.generate(indices, lambda prompts, i: noise[: len(i)], lambda: 0)
        blocks = images.finish(label)
        write_json(run / "methods" / f"{slug(label)}.json", asdict(MethodRecord(label, label, steps, steps, blocks)))
        values = np.random.default_rng(steps).normal(5, 1, samples)
        write_score(run, Score(label, "good", "Good", "", "higher", False, float(values.mean()), samples, {}, values))
    write_json(run / "run.json", {"format": FORMAT})
    assert read_run(run).complete


@dataclass(frozen=True)
class Assumptions:
    """What a plan rests on. Only the product's own costs and the efficiency are measured here; the rest are assumptions."""

    images: int = 50_000
    methods: int = 20
    full_s: float = 0.5  # GPU-seconds an image of the full run (assumed: DiT-XL/2 at 256 pixels, batched, bf16)
    mean_cost: float = 0.6  # of a method, as a share of the full run
    score_s: float = 0.02  # GPU-seconds an image, all metrics
    image_bytes: float = 144_000  # 256 x 256 pixels at the 2.2 bytes a pixel that the bundled models' PNGs take
    record_bytes: float = 9_000  # receipts and 2048 float32 features
    own_ms: float = 1.0  # milliseconds an image of the product's own work on a worker's CPU
    efficiency: float = 0.95  # of spreading
    gpu_hour: float = 2.5  # price
    write_bytes_s: float = 1e9  # of the shared store
    read_s: float = 0.02  # reading a stored image back for scoring, a worker


def plan(assumed: Assumptions) -> None:
    """Hours, storage, cost and the first limit."""
    table = Table(
        "GPUs", "generate, h", "time, h", "score, h", "GPU-hours", "price", "storage, GB", "store writes, MB/s", "saturates first"
    )
    total = assumed.images * assumed.methods
    for gpus in (8, 64):
        rate = gpus * assumed.efficiency
        generate = total * (assumed.full_s * assumed.mean_cost + assumed.own_ms / 1e3) / rate / 3600
        score = total * (assumed.score_s + 2 * assumed.read_s) / rate / 3600
        rounds = 9 * 32 * (assumed.methods + 1) * assumed.full_s * assumed.mean_cost / 3600  # alone: the other GPUs are let go
        storage = total * (assumed.image_bytes + assumed.record_bytes)
        writes = storage / (generate * 3600)
        hours = (generate + score) * gpus + rounds
        first = "the store" if writes > assumed.write_bytes_s / 2 else "the GPUs"
        table.add_row(
            str(gpus), f"{generate:.1f}", f"{rounds:.2f}", f"{score:.2f}", f"{hours:.0f}", f"{hours * assumed.gpu_hour:.0f}",
            f"{storage / 1e9:.0f}", f"{writes / 1e6:.0f}", first,
        )  # fmt: skip
    console.print(table)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["workers", "memory", "records", "plan"])
    parser.add_argument("--samples", type=int, default=592)
    parser.add_argument("--repeats", type=int, default=2)
    for field in fields(Assumptions):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if "workers" in arguments.parts:
        workers(arguments.samples, arguments.repeats)
    if "memory" in arguments.parts:
        memory((1_000, 20_000))
    if "records" in arguments.parts:
        records((2_000, 20_000, 200_000))
    if "plan" in arguments.parts:
        plan(replace(Assumptions(), **{f.name: getattr(arguments, f.name) for f in fields(Assumptions)}))


if __name__ == "__main__":
    main()
