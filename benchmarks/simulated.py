"""Runs whose sampling is replaced by noise, so that the product's own work remains.

Apart from benchmarks/scaling.py, because Ray's processes import what they are sent by the name of its module.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from rich.console import Console

from benchmarks.scale_plan import DriverCost, ImageCost
from harness.execution.experiment import Experiment
from harness.execution.local import LocalEngine
from harness.execution.ray import ClusterOptions
from harness.execution.runner import Runner
from harness.execution.sampler import Sampler
from harness.execution.tasks import SCORE_BATCH, Facts, SamplerWorker, Task, TaskResult
from harness.history.store import History
from harness.storage.records import read_run, write_method
from ilf_bench.engines import cluster_engine, make_scorer
from ilf_bench.experiment import prepare
from reports.render.build import build_report

BLOCKS = 480  # block evaluations that a simulated image claims
NOISE_LEVELS = 58  # such noise fills a PNG with 2.5 bytes a pixel, a little more than the bundled models' images do (2.2)


def reset_peak() -> None:
    """Forget this process's peak memory."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_mib() -> float:
    """Peak resident memory of this process since :func:`reset_peak`."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


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

    def do(self, task: Task) -> TaskResult:
        """Noise instead of images, other noise for another method; a record without a plan."""
        samples = self.experiment.samples(self.folder, task.method)
        if task.stage == "generate":
            blocks = itertools.count(0, BLOCKS * len(task.indices))
            images = self.noise.roll(len(task.method), 0)[: len(task.indices)].numpy()
            samples.generate(task.indices, lambda prompts, indices: images, lambda: next(blocks))
        else:
            planned = self.experiment.planned[task.method]
            write_method(self.folder, replace(planned, block_evaluations=samples.finish(task.method)))
        return TaskResult(task)


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
        runner = Runner(experiment, engine, folder, Console(quiet=True))
        engine.start()
        reset_peak()
        start = time.process_time()
        assert runner.run() == []
        seconds, peak = time.process_time() - start, peak_mib()
        engine.close()
    return DriverCost(images, -(-images // experiment.spec.batch), seconds, peak)


@dataclass
class Clocked:
    """A worker whose processor seconds are added up by stage."""

    worker: SamplerWorker
    seconds: dict[str, float]

    def facts(self) -> Facts:
        """The worker's."""
        return self.worker.facts()

    def close(self) -> None:
        """The worker's."""
        self.worker.close()

    def do(self, task: Task) -> TaskResult | Future[TaskResult]:
        """The worker's."""
        start = time.process_time()
        outcome = self.worker.do(task)
        self.seconds[task.stage] += time.process_time() - start
        return outcome


def simulate(images: int, side: int) -> ImageCost:
    """What storing, scoring (PSNR) and reporting cost in a run of two methods, ``images`` in all."""
    seconds: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as out:
        experiment = simulated(images // 2, ["full", "steps:8"], ["psnr"])
        folder = experiment.folder(Path(out))
        engine = LocalEngine(
            lambda: Clocked(Painter(experiment, folder, side), seconds),
            lambda: Clocked(make_scorer(experiment, folder, "cpu", SCORE_BATCH), seconds),  # type: ignore[arg-type]
        )
        start = time.process_time()
        assert Runner(experiment, engine, folder, Console(quiet=True)).run() == []
        ran = time.process_time()
        History(Path(out) / "history.sqlite").append(read_run(folder))
        appended = time.process_time()
        reset_peak()
        build_report(folder)
        reported, peak = time.process_time(), peak_mib()
        size = sum(path.stat().st_size for path in folder.glob("samples/*/*.png")) / images
    store, score = (sum(seconds[stage] for stage in stages) for stages in (("generate", "finish"), ("measure", "summarise")))
    return ImageCost(images, side, size, store, score, ran - start - store - score, appended - ran, reported - appended, peak)
