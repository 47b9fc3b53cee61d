"""A device that sleeps, and what belongs to it: benchmarks/device_never_waits.py holds the product against it.

Apart from that, because Ray's processes import what they are sent by the name of its module.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from harness.contracts import Batch
from harness.execution.experiment import Experiment
from harness.execution.sampler import Sampler
from harness.execution.tasks import Facts
from harness.results import Direction, FloatArray
from harness.sampling.residency import Residency
from harness.storage import writing
from harness.storage.images import Pixels, encode_png
from metrics.base import BaseMetric
from metrics.published.packages import in_chunks

BATCH = 8
PIECES = 20  # of a batch's time: the host has work between steps
SIDE = 224  # pixels that the network sees


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

    def __init__(self, side: int, seconds: float, python_share: float = 0.0) -> None:
        self.images, self.seconds, self.python_share = content(side), seconds, python_share
        self.steps, self.device = 20, "cpu"
        self.residency = Residency(SimpleNamespace(components={}, to=lambda device: None), "cpu", "none")

    @contextmanager
    def counting(self) -> Iterator[Any]:
        """A counter that nothing moves."""
        yield SimpleNamespace(rows=0.0)

    def keeping_prompts(self, encoded: object) -> AbstractContextManager[None]:
        """It encodes none."""
        return nullcontext()

    def drive(self, sampler: Sampler) -> None:
        """Be the pipeline of a sampler; it has no weights that a method could leave changed."""
        sampler.__dict__.update(pipeline=self, encoded=None, restoration=SimpleNamespace(faults=lambda seconds: []))

    def generate(self, prompts: Sequence[str], seed: int, indices: Sequence[int]) -> torch.Tensor:
        """The same images, after the device's time for so many."""
        whole = self.seconds * len(indices)
        for _ in range(PIECES):
            until = time.perf_counter() + whole * self.python_share / PIECES
            while time.perf_counter() < until:
                sum(range(100))
            time.sleep(whole * (1 - self.python_share) / PIECES)
        return self.images[: len(indices)].clone()


class SleepingEncoder:
    """Instead of compression: its time is slept, and one file's content, made beforehand, is returned."""

    def __init__(self, image: Pixels, seconds: float) -> None:
        self.content, self.seconds = encode_png(image), seconds

    def __call__(self, image: Pixels) -> bytes:
        """The content."""
        time.sleep(self.seconds)
        return self.content


class SleepingSampler(Sampler):
    """A sampler whose device and whose compression sleep: coordination, receipts and files remain."""

    def __init__(self, experiment: Experiment, folder: Path, side: int, seconds: float, encoding_s: float) -> None:
        super().__init__(experiment, folder)
        Sleeping(side, seconds).drive(self)
        writing.encode_png = SleepingEncoder(content(side)[0].numpy(), encoding_s)  # type: ignore[attr-defined]

    def facts(self) -> Facts:
        """Of no model."""
        return Facts({"machine_key": "m", "weights": ""}, 1)


def seen(image: Image.Image) -> torch.Tensor:
    """What the network sees of an image, resized as the published networks ask for it: float32 [SIDE, SIDE, 3]."""
    return torch.from_numpy(np.array(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)))


class SleepingMetric(BaseMetric):
    """The brightness of resized images by a network that sleeps for each."""

    title = "Brightness"
    direction: Direction = "higher"

    def __init__(self, name: str, seconds: float) -> None:
        self.name, self.seconds = name, seconds

    def details(self) -> Mapping[str, str]:
        """The time."""
        return {"seconds": str(self.seconds)}

    def measure(self, batch: Batch) -> FloatArray:
        """float32 [B, 1]."""
        return in_chunks(self._network, batch.images, prepare=seen).numpy()

    def _network(self, resized: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds * len(resized))
        return resized[:, ::56, ::56].float().mean(dim=(1, 2, 3))[:, None]
