"""One metric on one batch, held to its contract: what breaks it is that metric's failure and touches no other."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from harness.contracts import Batch, Metric
from harness.errors import UsageError
from harness.results import FloatArray

GUIDE = "fix the metric; docs/add-a-metric.md"


def measured_rows(metric: Metric, batch: Batch) -> FloatArray:
    """float32 [B, d]. Raises :class:`UsageError` where the metric returns anything else, or changes its input or random state.

    What it has changed is put back first, so that the metrics after it see what they must.
    """
    with _unchanged_images(metric, batch), _unchanged_random_state(metric):
        rows = metric.measure(batch)
    return checked_rows(metric, rows, len(batch.prompts))


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
def _unchanged_images(metric: Metric, batch: Batch) -> Iterator[None]:
    tensors = [tensor for tensor in (batch.images, batch.full, batch.converged) if tensor is not None]
    before = [tensor.clone() for tensor in tensors]
    yield
    changed = not all(torch.equal(tensor, kept) for tensor, kept in zip(tensors, before, strict=True))
    if changed:
        for tensor, kept in zip(tensors, before, strict=True):
            tensor.copy_(kept)
        raise UsageError(expected=f"{metric.name} to leave its images as they are", got="other pixels after it", remedy=GUIDE)


@contextmanager
def _unchanged_random_state(metric: Metric) -> Iterator[None]:
    """Of torch on the CPU, NumPy and Python: a metric that draws from them gives other scores in another order of work."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    yield
    after = torch.get_rng_state(), np.random.get_state(), random.getstate()
    if torch.equal(before[0], after[0]) and repr(before[1:]) == repr(after[1:]):
        return
    torch.set_rng_state(before[0])
    np.random.set_state(before[1])
    random.setstate(before[2])
    raise UsageError(
        expected=f"{metric.name} to leave the global random state as it is",
        got="another state after it",
        remedy=f"draw from a torch.Generator of your own: {GUIDE}",
    )
