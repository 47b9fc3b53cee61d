"""Metrics on batches, each held to its contract: what breaks one is that metric's failure and touches no other."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from harness.contracts import Batch, Metric
from harness.errors import UsageError
from harness.execution.tasks import is_fatal
from harness.results import FloatArray

GUIDE = "fix the metric; docs/add-a-metric.md"


class Pristine:
    """Copies of a batch's images, by which a metric that changes them is found out; their memory serves all batches."""

    def __init__(self) -> None:
        self.memory: list[torch.Tensor] = []
        self.pairs: list[tuple[torch.Tensor, torch.Tensor]] = []

    def of(self, batch: Batch) -> Pristine:
        """Those of ``batch`` from now on."""
        tensors = {id(tensor): tensor for tensor in (batch.images, batch.full, batch.converged) if tensor is not None}
        memory = self.memory + [torch.empty(0, dtype=torch.uint8)] * (len(tensors) - len(self.memory))
        self.memory = [
            kept.copy_(tensor) if kept.shape == tensor.shape else tensor.clone()
            for kept, tensor in zip(memory, tensors.values(), strict=False)
        ]
        self.pairs = list(zip(tensors.values(), self.memory, strict=True))
        return self

    def restore(self) -> bool:
        """Put every image back; whether one of them had been changed."""
        changed = [(tensor, kept) for tensor, kept in self.pairs if not _equal(tensor, kept)]
        for tensor, kept in changed:
            tensor.copy_(kept)
        return bool(changed)


def measured_rows(metric: Metric, batch: Batch, pieces: Iterable[Batch] = (), pristine: Pristine | None = None) -> FloatArray:
    """float32 [B, d]. Raises :class:`UsageError` where the metric returns anything else, or changes its input or random state.

    What it has changed is put back first, so that the metrics after it see what they must. ``pieces`` of the batch are measured
    one after another; ``pristine`` are copies of the batch that exist already.
    """
    with _unchanged_images(metric, pristine or Pristine().of(batch)), _unchanged_random_state(metric):
        rows = [(metric.measure(piece), len(piece.prompts)) for piece in pieces or (batch,)]
    return np.concatenate([checked_rows(metric, *each) for each in rows])


def checked_rows(metric: Metric, rows: object, n: int) -> FloatArray:
    """What a metric returned for ``n`` images, or :class:`UsageError`."""
    good = isinstance(rows, np.ndarray) and rows.dtype == np.float32 and rows.ndim == 2 and len(rows) == n and rows.shape[1] > 0
    if good:
        assert isinstance(rows, np.ndarray)
        return rows
    if isinstance(rows, torch.Tensor):
        graph = " that keeps its graph" if rows.requires_grad else ""
        got, remedy = f"a torch tensor{graph}", f"return tensor.detach().float().cpu().numpy(): {GUIDE}"
    elif isinstance(rows, np.ndarray):
        got, remedy = f"{rows.dtype} {list(rows.shape)}", f"one row per image, .astype(np.float32): {GUIDE}"
    else:
        got, remedy = type(rows).__name__, GUIDE
    raise UsageError(expected=f"{metric.name} to measure a NumPy array float32 [{n}, d]", got=got, remedy=remedy)


@contextmanager
def _unchanged_images(metric: Metric, pristine: Pristine) -> Iterator[None]:
    try:
        yield
    finally:
        changed = pristine.restore()
    if changed:
        raise UsageError(expected=f"{metric.name} to leave its images as they are", got="other pixels after it", remedy=GUIDE)


def _equal(tensor: torch.Tensor, kept: torch.Tensor) -> bool:
    """Whether two tensors uint8 hold the same; eight values at a time where they lie so."""
    if tensor.is_contiguous() and tensor.shape[-1] % 8 == 0:
        return torch.equal(tensor.view(torch.int64), kept.view(torch.int64))
    return torch.equal(tensor, kept)


@contextmanager
def _unchanged_random_state(metric: Metric) -> Iterator[None]:
    """Of torch on the CPU and, once it has been used, on CUDA, of NumPy and of Python: a metric that draws from them gives other
    scores in another order of work.
    """
    generators = (torch.default_generator, *torch.cuda.default_generators)
    before = [generator.get_state() for generator in generators], np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        after = [generator.get_state() for generator in generators], np.random.get_state(), random.getstate()
        same_torch = all(map(torch.equal, before[0], after[0]))
        same_array = all(np.array_equal(a, b) for a, b in zip(before[1], after[1], strict=True))
        same = same_torch and same_array and before[2] == after[2]
        if not same:
            for generator, state in zip(generators, before[0], strict=True):
                generator.set_state(state)
            np.random.set_state(before[1])
            random.setstate(before[2])
    if same:
        return
    raise UsageError(
        expected=f"{metric.name} to leave the global random state as it is",
        got="another state after it",
        remedy=f"draw from a torch.Generator of your own: {GUIDE}",
    )


def by_measurement(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """One metric for each distinct measurement: the others read what it has measured."""
    return {metric.measurement: metric for metric in metrics.values()}


@dataclass
class Measured:
    """Measurements [N, d] by name, and what went wrong instead."""

    rows: dict[str, FloatArray] = field(default_factory=dict)
    broken: dict[str, Exception] = field(default_factory=dict)

    def of(self, metric: Metric) -> FloatArray:
        """A metric's measurements; raises what went wrong."""
        if metric.measurement in self.broken:
            raise self.broken[metric.measurement]
        return self.rows[metric.measurement]


def measure(metrics: Mapping[str, Metric], batches: Iterable[Batch]) -> Measured:
    """All measurements in one pass; one that fails is given up and stops no other."""
    measured = Measured()
    parts: dict[str, list[FloatArray]] = {name: [] for name in metrics}
    for batch in batches:
        for name, metric in metrics.items():
            if name not in measured.broken:
                try:
                    parts[name].append(measured_rows(metric, batch))
                except Exception as error:
                    if is_fatal(error):
                        raise
                    measured.broken[name] = error
    measured.rows = {name: np.concatenate(rows) for name, rows in parts.items() if name not in measured.broken and rows}
    return measured


def split_batch(whole: Batch, size: int) -> Iterator[Batch]:
    """A batch in parts of ``size``."""
    for start in range(0, len(whole.prompts), size):
        part = slice(start, start + size)
        full, converged = (None if images is None else images[part] for images in (whole.full, whole.converged))
        yield Batch(whole.images[part], whole.prompts[part], whole.indices[part], full, converged)
