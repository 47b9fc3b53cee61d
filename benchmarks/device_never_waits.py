"""Does the device ever wait for the product?

    python -m benchmarks.device_never_waits [--seconds 30] [--only store score] [--sides 256] [--presets tiny-text]

``store``: the sampling stage with a device that sleeps, as long per image as a fast GPU computes, held against the device's own
time and against encoding alone. In its second mode the device spends a fifth of its time in Python bytecode, as a host does that
launches kernels. ``loop``: the sampling stage of the tiny models against a bare loop of the pipeline that saves the same PNGs.
``score``: scoring with a network that sleeps, against reading, hashing, decoding and resizing alone, on as many threads.
``workers``: eight workers of the Ray engine on one folder, whose compression sleeps, too.

Nothing in the product knows of the device that sleeps: it is a pipeline and a network like any other. Run it on a quiet machine.
``--out FILE`` keeps each bar as a line of JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.scale_plan import machine
from benchmarks.sleeping import BATCH, Sleeping, SleepingMetric, SleepingSampler, content, seen
from harness.execution.dispatch import Dispatch
from harness.execution.experiment import Experiment
from harness.execution.local import LocalEngine
from harness.execution.sampler import Sampler
from harness.execution.scorer import Scorer
from harness.execution.tasks import SCORE_BATCH, Engine, Role, Task
from harness.models.loading import load_pipeline
from harness.storage.files import write_bytes
from harness.storage.images import Pixels, decode_image, decode_rgb, from_planes
from harness.storage.samples import SampleSet, chunks
from harness.storage.writing import THREADS, Writer
from ilf_bench.engines import cluster_engine
from ilf_bench.experiment import prepare

DEVICES = ((256, 0.012), (512, 0.060), (1024, 0.300))  # pixels and device seconds per image: DiT-XL/2 and PixArt on a fast GPU
FASTER = (1, 3)  # the full run, and a method three times as fast
PYTHON_SHARE = 0.2
LIMIT, LIMIT_PYTHON, ENCODING_LIMIT, LOOP_LIMIT, SCORING_LIMIT, WORKERS_LIMIT = 1.03, 1.05, 1.05, 1.02, 1.1, 1.03
ROUNDS = 7
TURN = 48  # images that the bare loop and ours make in turn
T_95 = 2.447  # Student's t for 7 rounds, two-sided
SCORED_SIDE, NETWORK_S = 512, 0.001  # pixels, and seconds of the network per image
WORKERS, ENCODING_S = 8, 0.02  # and seconds that an image's compression sleeps
PARTS = ("store", "loop", "score", "workers")
PRESETS = ("tiny-class", "tiny-text")  # of the bare loop


@dataclass(frozen=True)
class Bar:
    """What was measured, and the most that it may be: seconds or a ratio; ``beside`` are the numbers that it was made from."""

    part: str
    name: str
    measured: float
    allowed: float
    beside: dict[str, float]

    @property
    def passes(self) -> bool:
        """Whether it is at most that."""
        return self.measured <= self.allowed


def timed(engine: Engine, role: Role, tasks: Sequence[Task]) -> float:
    """Seconds that an engine takes for tasks, none of which may fail."""
    began = time.perf_counter()
    outcomes = list(Dispatch(engine, role, tasks, lambda fault: None).outcomes())
    seconds = time.perf_counter() - began
    assert len(outcomes) == len(tasks) and not any(outcome.error or outcome.failures for outcome in outcomes), outcomes[0]
    return seconds


def ranges(experiment: Experiment, count: int, first: int = 0) -> list[Task]:
    """The full run's images ``first`` to ``count`` - 1."""
    batch = experiment.spec.batch
    return [Task("generate", "full", first + r.start, first + r.stop, batch) for r in chunks(count - first, batch)]


@contextmanager
def sampling(pipeline: Any, experiment: Experiment, folder: Path) -> Iterator[Engine]:
    """The engine of the product's sampling stage, with a pipeline that is loaded already."""
    sampler = Sampler(experiment, folder)
    if isinstance(pipeline, Sleeping):
        pipeline.drive(sampler)
    else:
        sampler.__dict__["pipeline"] = pipeline
    engine = LocalEngine(lambda: sampler, lambda: sampler)
    engine.workers["sampler"] = sampler
    yield engine
    engine.close()


def stage(pipeline: Any, experiment: Experiment, folder: Path, count: int) -> float:
    """Seconds of the product's sampling stage for ``count`` images of the full run."""
    with sampling(pipeline, experiment, folder) as engine:
        return timed(engine, "sampler", ranges(experiment, count))


def encoding(images: Pixels, count: int, folder: Path) -> float:
    """Seconds to encode, hash and write as many images with nothing else to do, on the threads that the product uses."""
    writer, began = Writer(), time.perf_counter()
    stored = []
    for start in range(0, count, BATCH):
        chunk = writer.chunk()
        indices = range(start, min(start + BATCH, count))
        chunk.add(images[: len(indices)], indices, lambda i: folder / f"{i:06d}.png")
        stored.append(chunk.close(lambda digests: None))
    for whole in stored:
        whole.result()
    writer.close()
    return time.perf_counter() - began


def without_timing(preset: str, count: int, **changes: object) -> Experiment:
    """``count`` images of a tiny preset's full run, in batches of :data:`BATCH`."""
    given = {"methods": ("full",), "samples": count, "batch": BATCH, "metrics": (), "timing": {"rounds": 0}, "device": "cpu"}
    return prepare(preset, given | changes, []).experiment


def storing(side: int, seconds: float, python_share: float, device_s: float) -> Bar:
    """The sampling stage with a device of ``seconds`` per image, over ``device_s`` of its time."""
    count = -(-int(device_s / seconds) // BATCH) * BATCH
    experiment, pipeline = without_timing("tiny-class", count), Sleeping(side, seconds, python_share)
    with tempfile.TemporaryDirectory() as folder:
        taken = stage(pipeline, experiment, Path(folder), count)
    with tempfile.TemporaryDirectory() as folder:
        alone = encoding(pipeline.images.numpy(), count, Path(folder))
    limit, device = LIMIT_PYTHON if python_share else LIMIT, by_itself(pipeline, count)
    name = f"{side} px, {1000 * seconds:.0f} ms{', a fifth in Python' if python_share else ''}"
    beside = {"device": device, "asked of it": count * seconds, "encoding alone": alone, "ratio": taken / device}
    return Bar("store", name, taken, max(limit * device, ENCODING_LIMIT * alone), beside)


def by_itself(pipeline: Sleeping, count: int) -> float:
    """Seconds of the device's time for ``count`` images, judged by a third of them: sleeps last longer than asked for."""
    some = -(-count // BATCH // 3)
    began = time.perf_counter()
    for _ in range(some):
        pipeline.generate([""] * BATCH, 0, range(BATCH))
    return (time.perf_counter() - began) * count / BATCH / some


def bare_loop(pipeline: Any, experiment: Experiment, folder: Path, images: range) -> float:
    """Seconds of what a user writes: sample, convert, save, one after another."""
    began = time.perf_counter()
    for start in images[:: experiment.spec.batch]:
        indices = range(start, min(start + experiment.spec.batch, images.stop))
        made = pipeline.generate([experiment.prompts[i] for i in indices], experiment.spec.seed, indices)
        for i, image in zip(indices, made, strict=True):
            Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(folder / f"{i:06d}.png", compress_level=1)
    return time.perf_counter() - began


def looping(preset: str, count: int, rounds: int = ROUNDS) -> Bar:
    """Ours over a bare loop: the upper limit of the 95% interval of the rounds' mean ratio, after one that warms up.

    The two take turns within a round, :data:`TURN` images each and each first in half of the turns, so that a machine whose
    speed drifts slows both.
    """
    experiment = prepare(preset, {"methods": ("full",), "samples": count, "device": "cpu"}, []).experiment
    pipeline, ratios = load_pipeline(experiment.spec), []
    for number in range(-1, rounds):
        with tempfile.TemporaryDirectory() as folder, sampling(pipeline, experiment, Path(folder) / "ours") as engine:
            bare = Path(folder) / "bare"
            bare.mkdir()
            seconds = np.zeros(2)
            for turn, images in enumerate(chunks(count, TURN)):
                turns: list[Callable[[], float]] = [
                    partial(bare_loop, pipeline, experiment, bare, images),
                    partial(timed, engine, "sampler", ranges(experiment, images.stop, images.start)),
                ]
                for each in (0, 1) if (turn + number) % 2 else (1, 0):
                    seconds[each] += turns[each]()
        if number >= 0:
            ratios.append(seconds[1] / seconds[0])
    mean, error = float(np.mean(ratios)), T_95 * float(np.std(ratios, ddof=1)) / len(ratios) ** 0.5
    return Bar("loop", f"{preset}, of a bare loop", mean + error, LOOP_LIMIT, {"mean": mean, "lower": mean - error})


def write_images(samples: SampleSet, side: int) -> None:
    """A whole sample set of :func:`content`."""
    images = content(side).numpy()
    for indices in samples.chunks():
        samples.generate(indices, lambda prompts, i: images[: len(i)], lambda: 0.0)
    samples.finish("full")


def read_alone(samples: SampleSet, work: Callable[[tuple[Path, str]], torch.Tensor]) -> float:
    """Seconds to read, hash, decode and resize every image of a set, on the threads that the product uses."""
    files = samples.files(range(len(samples.prompts)))
    with ThreadPoolExecutor(THREADS) as pool:
        began = time.perf_counter()
        for made in [pool.submit(work, file) for file in files]:
            made.result()
        return time.perf_counter() - began


def by_array(file: tuple[Path, str]) -> torch.Tensor:
    """As metrics are given images: decoded into an array uint8 [3, H, W], and resized from that."""
    return seen(from_planes(decode_image(*file)))


def by_pillow(file: tuple[Path, str]) -> torch.Tensor:
    """Without the array, which only a program of one metric could do."""
    return seen(decode_rgb(*file))


def scoring(count: int, rounds: int = ROUNDS, side: int = SCORED_SIDE, seconds: float = NETWORK_S) -> Bar:
    """The scoring stage over reading alone: the mean ratio of interleaved rounds, after one that warms up."""
    experiment, found = without_timing("tiny-class", count), []
    tasks = [Task("measure", "full", r.start, r.stop, SCORE_BATCH) for r in chunks(count, SCORE_BATCH)]
    with tempfile.TemporaryDirectory() as name:
        samples = experiment.samples(Path(name), "full")
        write_images(samples, side)
        for number in range(-1, rounds):
            metric = SleepingMetric(f"round-{number}", seconds)  # of another name each time, so that nothing is known of it
            scorer = Scorer(experiment, Path(name), {metric.name: metric})
            engine = LocalEngine(partial(Sampler, experiment, Path(name)), lambda scorer=scorer: scorer)  # type: ignore[misc]
            work = [partial(read_alone, samples, by_array), partial(read_alone, samples, by_pillow)]
            work.append(partial(timed, engine, "scorer", tasks))
            taken = {turn: with_processor(work[turn]) for turn in ((0, 1, 2) if number % 2 == 0 else (2, 1, 0))}
            engine.close()
            if number >= 0:
                found.append(np.array([taken[2], taken[2]]) / np.array([taken[0], taken[1]]))
    wall, processor = np.mean(found, axis=0).T
    names = ("processor seconds", "of Pillow alone", "its processor seconds", "worst", "network, s")
    numbers = (processor[0], wall[1], processor[1], max(each[0, 0] for each in found), count * seconds)
    beside = {name: float(number) for name, number in zip(names, numbers, strict=True)}
    return Bar("score", f"{side} px, {1000 * seconds:.0f} ms, of reading alone", float(wall[0]), SCORING_LIMIT, beside)


def with_processor(work: Callable[[], float]) -> tuple[float, float]:
    """Seconds, and processor seconds of this process."""
    began = time.process_time()
    return work(), time.process_time() - began


def spreading(
    device_s: float, count: int = WORKERS, side: int = 512, seconds: float = 0.06, encoding_s: float = ENCODING_S
) -> Bar:
    """Workers of the Ray engine whose devices and compression sleep, over ``device_s`` of each device's time."""
    from harness.execution.ray import ClusterOptions  # ray is no part of the light core

    batches = -(-int(device_s / seconds) // BATCH)
    first, total = 2 * count * BATCH, (2 + batches) * count * BATCH  # two batches of each worker warm up
    experiment = without_timing("tiny-class", total)
    with tempfile.TemporaryDirectory() as out:
        folder = experiment.folder(Path(out))
        engine = cluster_engine(ClusterOptions(workers=count, device="cpu"), experiment, folder)
        engine.make["sampler"] = partial(SleepingSampler, experiment, folder, side, seconds, encoding_s)  # type: ignore[attr-defined]
        try:
            engine.start()
            timed(engine, "sampler", ranges(experiment, first))
            taken = timed(engine, "sampler", ranges(experiment, total, first))
        finally:
            engine.close()
    device = batches * BATCH * seconds
    name = f"{count} workers, {side} px, {1000 * seconds:.0f} ms, of the device"
    return Bar("workers", name, taken / device, WORKERS_LIMIT, {"stage": taken, "device": device})


def bars(
    parts: Sequence[str], device_s: float, images: int, sides: Sequence[int], presets: Sequence[str] = PRESETS
) -> Iterator[Bar]:
    """Each bar when it has been measured; of ``store`` those of some ``sides``, of ``loop`` those of some ``presets``."""
    if "store" in parts:
        chosen = [(side, seconds) for side, seconds in DEVICES if side in sides]
        for share, (side, seconds), faster in itertools.product((0.0, PYTHON_SHARE), chosen, FASTER):
            yield storing(side, seconds / faster, share, device_s)
    if "loop" in parts:
        yield from (looping(preset, images) for preset in presets)
    if "score" in parts:
        yield scoring(8 * SCORE_BATCH)
    if "workers" in parts:
        yield spreading(device_s)


def show(bar: Bar, number: int, out: Path | None, conditions: dict[str, Any]) -> list[str]:
    """A bar's row; with ``out``, its line of JSON goes there."""
    load = f"{os.getloadavg()[0]:.1f}"
    if out is not None:
        line = asdict(bar) | {"passes": bar.passes, "load": load} | conditions
        before = out.read_bytes() if out.exists() and number else b""
        write_bytes(out, before + json.dumps(line).encode() + b"\n")
    beside = ", ".join(f"{name} {value:.3f}" for name, value in bar.beside.items())
    return [bar.part, bar.name, f"{bar.measured:.3f}", f"{bar.allowed:.3f}", "met" if bar.passes else "NOT MET", beside, load]


def main() -> None:
    """Print the bars and whether each is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="device time of each bar")
    parser.add_argument("--images", type=int, default=800, help="of the bare loop, in each round")
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS)
    sides = [side for side, _ in DEVICES]
    parser.add_argument("--sides", nargs="+", type=int, default=sides, choices=sides, help="pixels of the images of `store`")
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), choices=PRESETS, help="pipelines of `loop`")
    parser.add_argument("--out", type=Path, help="a file for each bar as a line of JSON; replaces what it held")
    arguments = parser.parse_args()
    console = Console(width=150)
    conditions = {"machine": machine(), "command": " ".join(["python -m benchmarks.device_never_waits", *sys.argv[1:]])}
    table = Table("part", "bar", "measured", "allowed", "", "made from", "load")
    measured = bars(arguments.only, arguments.seconds, arguments.images, arguments.sides, arguments.presets)
    for number, bar in enumerate(measured):
        row = show(bar, number, arguments.out, conditions)
        table.add_row(*row)
        print(*row, sep=" | ", flush=True)
    console.print(table)


if __name__ == "__main__":
    main()
