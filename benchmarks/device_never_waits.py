"""Does the device ever wait for the product? ``python -m benchmarks.device_never_waits [--seconds 30] [--only store loop]``

``store``: the sampling stage with a device that sleeps, as long per image as a fast GPU computes, held against the device's own
time and against encoding alone. In its second mode the device spends a fifth of its time in Python bytecode, as a host does that
launches kernels. ``loop``: the sampling stage of the tiny models against a bare loop of the pipeline that saves the same PNGs.

Nothing in the product knows of the device that sleeps: it is a pipeline like any other. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from harness.execution.dispatch import Dispatch
from harness.execution.experiment import Experiment
from harness.execution.local import LocalEngine
from harness.execution.sampler import Sampler
from harness.execution.tasks import Task
from harness.models.loading import load_pipeline
from harness.storage.images import Pixels
from harness.storage.samples import chunks
from harness.storage.writing import Writer
from ilf_bench.experiment import prepare

DEVICES = ((256, 0.012), (512, 0.060), (1024, 0.300))  # pixels and device seconds per image: DiT-XL/2 and PixArt on a fast GPU
FASTER = (1, 3)  # the full run, and a method three times as fast
BATCH = 8
PYTHON_SHARE = 0.2
LIMIT, LIMIT_PYTHON, ENCODING_LIMIT, LOOP_LIMIT = 1.03, 1.05, 1.05, 1.02
ROUNDS = 7
T_95 = 2.447  # Student's t for 7 rounds, two-sided


@dataclass(frozen=True)
class Row:
    """One bar: seconds of the stage, of the device, of encoding alone, and the most that the stage may take."""

    name: str
    stage_s: float
    device_s: float
    encoding_s: float
    allowed_s: float

    @property
    def passes(self) -> bool:
        """Whether the stage takes at most that."""
        return self.stage_s <= self.allowed_s


def content(side: int) -> torch.Tensor:
    """uint8 [BATCH, 3, side, side]: smooth waves under noise of 8 grey levels, which compress about as decoded images do."""
    random = np.random.default_rng(side)
    y, x = np.mgrid[0:side, 0:side] / side
    waves = [
        128 + 90 * np.sin(2 * np.pi * (random.uniform(1, 5) * x + random.uniform(1, 5) * y + random.uniform()))
        for _ in range(BATCH * 3)
    ]
    smooth = np.stack(waves).reshape(BATCH, 3, side, side)
    return torch.from_numpy((smooth + random.integers(-4, 5, smooth.shape)).clip(0, 255).astype(np.uint8))


class Sleeping:
    """A pipeline whose device sleeps; a part of its time may be Python's own."""

    def __init__(self, side: int, seconds: float, python_share: float) -> None:
        self.images, self.seconds, self.python_share = content(side), seconds, python_share
        self.steps, self.device, self.slept = 20, "cpu", 0.0

    @contextmanager
    def counting(self) -> Iterator[Any]:
        """A counter that nothing moves."""
        yield SimpleNamespace(rows=0.0)

    def generate(self, prompts: Sequence[str], seed: int, indices: Sequence[int]) -> torch.Tensor:
        """The same images, after the device's time for so many."""
        began = time.perf_counter()
        whole = self.seconds * len(indices)
        pieces = 20  # steps, between which the host has work
        for _ in range(pieces):
            until = time.perf_counter() + whole * self.python_share / pieces
            while time.perf_counter() < until:
                sum(range(100))
            time.sleep(whole * (1 - self.python_share) / pieces)
        self.slept += time.perf_counter() - began if not self.python_share else whole
        return self.images[: len(indices)].clone()


def stage(pipeline: Any, experiment: Experiment, folder: Path, count: int) -> float:
    """Seconds of the product's sampling stage for ``count`` images of the full run."""
    sampler = Sampler(experiment, folder)
    sampler.__dict__["pipeline"] = pipeline
    engine = LocalEngine(lambda: sampler, lambda: sampler)
    engine.workers["sampler"] = sampler
    tasks = [Task("generate", "full", r.start, r.stop, experiment.spec.batch) for r in chunks(count, experiment.spec.batch)]
    began = time.perf_counter()
    outcomes = list(Dispatch(engine, "sampler", tasks, lambda fault: None).outcomes())
    seconds = time.perf_counter() - began
    engine.close()
    assert len(outcomes) == len(tasks) and not any(outcome.error for outcome in outcomes)
    return seconds


def encoding(images: Pixels, count: int, folder: Path) -> float:
    """Seconds to encode, hash and write as many images with nothing else to do, on the threads that the product uses."""
    writer, began = Writer(), time.perf_counter()
    stored = []
    for start in range(0, count, BATCH):
        chunk = writer.chunk()
        indices = range(start, min(start + BATCH, count))
        chunk.add(images[: len(indices)], {i: folder / f"{i:06d}.png" for i in indices})
        stored.append(chunk.close(lambda digests: None))
    for whole in stored:
        whole.result()
    writer.close()
    return time.perf_counter() - began


def storing(side: int, seconds: float, python_share: float, device_s: float) -> Row:
    """The sampling stage with a device of ``seconds`` per image, over ``device_s`` of its time."""
    count = -(-int(device_s / seconds) // BATCH) * BATCH
    changes = {"methods": ("full",), "samples": count, "batch": BATCH, "metrics": (), "timing": {"rounds": 0}}
    experiment = prepare("tiny-class", changes, []).experiment
    pipeline = Sleeping(side, seconds, python_share)
    with tempfile.TemporaryDirectory() as folder:
        taken = stage(pipeline, experiment, Path(folder), count)
    with tempfile.TemporaryDirectory() as folder:
        alone = encoding(pipeline.images.numpy(), count, Path(folder))
    limit = LIMIT_PYTHON if python_share else LIMIT
    name = f"{side} px, {1000 * seconds:.0f} ms{', a fifth in Python' if python_share else ''}"
    return Row(name, taken, count * seconds, alone, max(limit * count * seconds, ENCODING_LIMIT * alone))


def bare_loop(pipeline: Any, experiment: Experiment, folder: Path, count: int) -> float:
    """Seconds of what a user writes: sample, convert, save, one after another."""
    folder.mkdir(parents=True)
    began = time.perf_counter()
    for indices in chunks(count, experiment.spec.batch):
        images = pipeline.generate([experiment.prompts[i] for i in indices], experiment.spec.seed, indices)
        for i, image in zip(indices, images, strict=True):
            Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(folder / f"{i:06d}.png", compress_level=1)
    return time.perf_counter() - began


def looping(preset: str, count: int, rounds: int = ROUNDS) -> tuple[float, float]:
    """Ours over a bare loop: the mean of the rounds' ratios, and the upper limit of its 95% interval."""
    experiment = prepare(preset, {"methods": ("full",), "samples": count, "device": "cpu"}, []).experiment
    pipeline, ratios = load_pipeline(experiment.spec), []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(-1, rounds):  # the first one warms up
            turns = [
                lambda n=number: bare_loop(pipeline, experiment, Path(folder) / f"bare-{n}", count),
                lambda n=number: stage(pipeline, experiment, Path(folder) / f"ours-{n}", count),
            ]
            order = (0, 1) if number % 2 == 0 else (1, 0)
            seconds = {turn: turns[turn]() for turn in order}
            if number >= 0:
                ratios.append(seconds[1] / seconds[0])
    error = T_95 * float(np.std(ratios, ddof=1)) / len(ratios) ** 0.5
    return float(np.mean(ratios)), float(np.mean(ratios)) + error


def main() -> None:
    """Print the bars and whether each is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="device time of each bar")
    parser.add_argument("--images", type=int, default=192, help="of the bare loop, in each round")
    parser.add_argument("--only", nargs="+", default=["store", "loop"], choices=("store", "loop"))
    arguments = parser.parse_args()
    console = Console()
    console.print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the start")
    if "store" in arguments.only:
        table = Table("device", "stage, s", "device, s", "encoding alone, s", "of the device", "allowed, s", "")
        for share, (side, seconds), faster in itertools.product((0.0, PYTHON_SHARE), DEVICES, FASTER):
            row = storing(side, seconds / faster, share, arguments.seconds)
            numbers = [f"{value:.2f}" for value in (row.stage_s, row.device_s, row.encoding_s)]
            table.add_row(row.name, *numbers, f"{row.stage_s / row.device_s:.3f}", f"{row.allowed_s:.2f}", _word(row.passes))
        console.print(table)
    if "loop" in arguments.only:
        for preset in ("tiny-class", "tiny-text"):
            mean, upper = looping(preset, arguments.images)
            console.print(f"{preset}: {mean:.3f} of a bare loop, at most {upper:.3f} (95%) {_word(upper <= LOOP_LIMIT)}")


def _word(passes: bool) -> str:
    return "met" if passes else "NOT MET"


if __name__ == "__main__":
    main()
