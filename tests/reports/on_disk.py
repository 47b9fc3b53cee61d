"""A large run in a folder: images of its own for every method and prompt, in records that the product itself writes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from harness.storage.images import Pixels
from harness.storage.layout import Layout
from harness.storage.records import Run, read_run
from harness.storage.samples import SampleSet
from tests.reports.synthetic import synthetic_run
from tests.runs import write_run

SIDE = 8


def write_large(folder: Path, methods: int = 50, n: int = 2000, rounds: int = 4) -> Run:
    """Write and read back; 100,000 images take about half a minute."""
    run = synthetic_run(folder, methods, n, rounds)
    write_run(run, folder)
    prompts = tuple(f"a photograph of thing number {i}, seen from the other side of the street" for i in range(n))
    for number, record in enumerate(run.methods):
        samples = SampleSet(Layout(folder).samples(record.label).path, prompts, n)
        blocks = iter((0.0, (record.block_evaluations or 0.0) * n))
        samples.generate(range(n), partial(_images, number), partial(next, blocks))
        assert samples.finish(record.label) == record.block_evaluations
    return read_run(folder)


def _images(method: int, _: Sequence[str], indices: Sequence[int]) -> Pixels:
    """uint8 [B, 3, 8, 8], another one for every method and index."""
    return np.random.default_rng((method, indices[0])).integers(0, 256, (len(indices), 3, SIDE, SIDE), np.uint8)
