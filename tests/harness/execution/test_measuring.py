"""What a metric of a user's own may do wrong: one clear failure, nothing lost, and every other metric scored."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.contracts import Batch, Metric
from harness.errors import UsageError
from harness.execution.measuring import measured_rows
from harness.results import BASELINE, Failure, FloatArray, Score
from tests.harness.execution.test_scorer import Brightness, folder, read_scores, score, values

__all__ = ["folder"]  # a fixture
Rows = Callable[[Batch, FloatArray], Any]


class Misbehaving(Brightness):
    """Does ``act`` with the batch and the rows that it should have returned."""

    def __init__(self, act: Rows) -> None:
        super().__init__("bad", [])
        self.act, self.measurement = act, "bad"

    def measure(self, batch: Batch) -> FloatArray:
        found: FloatArray = self.act(batch, super().measure(batch))
        return found


def blackened(batch: Batch, rows: FloatArray) -> FloatArray:
    batch.images.zero_()
    return rows


def blackened_through_numpy(batch: Batch, rows: FloatArray) -> FloatArray:
    assert batch.full is not None
    batch.full.numpy()[:] = 0
    return rows


def drawn(draw: Callable[[], object]) -> Rows:
    def act(batch: Batch, rows: FloatArray) -> FloatArray:
        draw()
        return rows

    return act


def interrupted(batch: Batch, rows: FloatArray) -> FloatArray:
    raise TypeError("unsupported operand")


FAULTS: dict[str, tuple[Rows, str]] = {
    "float64": (lambda batch, rows: rows.astype(np.float64), r"got float64 \[5, 1\]"),
    "a vector": (lambda batch, rows: rows[:, 0], r"float32 \[5, d\]; got float32 \[5\]"),
    "too few rows": (lambda batch, rows: rows[1:], r"got float32 \[4, 1\]"),
    "no columns": (lambda batch, rows: rows[:, :0], r"got float32 \[5, 0\]"),
    "a graph": (lambda batch, rows: torch.ones(5, 1, requires_grad=True) * 2, "keeps its graph; remedy: return tensor.detach"),
    "a list": (lambda batch, rows: rows.tolist(), "got list"),
    "nothing": (lambda batch, rows: None, "got NoneType"),
    "other pixels": (blackened, "leave its images as they are"),
    "other pixels of the full run": (blackened_through_numpy, "leave its images as they are"),
    "torch's random state": (drawn(lambda: torch.rand(1)), "leave the global random state"),
    "NumPy's random state": (drawn(lambda: np.random.rand()), "leave the global random state"),
    "Python's random state": (drawn(random.random), "leave the global random state"),
}
EACH = pytest.mark.parametrize(("act", "words"), list(FAULTS.values()), ids=list(FAULTS))


@EACH
def test_one_clear_message_and_everything_is_put_back(act: Rows, words: str) -> None:
    images, full = (torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8) for _ in range(2))
    batch = Batch(images.clone(), ["x"] * 5, range(5), full.clone())
    before = torch.get_rng_state()
    with pytest.raises(UsageError, match=words) as caught:
        measured_rows(Misbehaving(act), batch)
    assert "bad" in str(caught.value) and "add-a-metric" in str(caught.value)
    assert batch.full is not None and torch.equal(batch.images, images) and torch.equal(batch.full, full)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_random_state_of_each_gpu_is_watched_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two generators stand for those of two devices: torch keeps them there once CUDA has been used, and none before."""
    gpus = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    monkeypatch.setattr(torch.cuda, "default_generators", gpus)
    batch = Batch(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), ["x"] * 5, range(5))
    for gpu in gpus:
        before = gpu.get_state()
        with pytest.raises(UsageError, match="leave the global random state"):
            measured_rows(Misbehaving(drawn(lambda gpu=gpu: torch.rand(1, generator=gpu))), batch)  # type: ignore[misc]
        assert torch.equal(gpu.get_state(), before), "and put back"
    assert measured_rows(Misbehaving(lambda batch, rows: rows), batch).shape == (5, 1)


@pytest.mark.parametrize("act", [FAULTS["other pixels"][0], FAULTS["float64"][0], interrupted])
def test_the_other_metrics_are_scored_as_without_it(folder: Path, act: Rows) -> None:
    metrics: dict[str, Metric | Failure] = {"bad": Misbehaving(act), "good": Brightness("good", [])}
    score(folder, metrics)
    found, controls = read_scores(folder), read_scores(folder, "controls")
    for label in (BASELINE, "fast"):
        assert isinstance(found[label, "bad"], Failure) and isinstance(found[label, "good"], Score)
        assert (values(found[label, "good"]) > 0).all(), "the images are as they were"
    assert isinstance(controls["noise", "bad"], Failure) and isinstance(controls["noise", "good"], Score)


class Fragile(Brightness):
    """Fails from its ``after``-th batch on."""

    def __init__(self, seen: list[int], after: int) -> None:
        super().__init__("fragile", seen)
        self.after, self.measurement = after, "fragile"

    def measure(self, batch: Batch) -> FloatArray:
        if self.after == 0:
            raise RuntimeError("the GPU is taken")
        self.after -= 1
        return super().measure(batch)


def test_ranges_that_a_failed_metric_has_measured_are_not_measured_again(folder: Path) -> None:
    seen: list[int] = []
    other: list[int] = []
    score(folder, {"fragile": Fragile(seen, 2), "good": Brightness("good", other)}, labels=("fast",))
    failed = read_scores(folder)["fast", "fragile"]
    assert isinstance(failed, Failure) and failed.reason == "the GPU is taken" and seen == [*range(10)]
    again: list[int] = []
    score(folder, {"fragile": Fragile(again, 99), "good": Brightness("good", other)}, labels=("fast",))
    assert again[:2] == [10, 11] and isinstance(read_scores(folder)["fast", "fragile"], Score)
    assert values(read_scores(folder)["fast", "fragile"]).shape == (12,)
    assert not list((folder / "parts").rglob("*.json")), "what is scored leaves no parts"
