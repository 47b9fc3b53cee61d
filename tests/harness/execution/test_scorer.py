"""Scoring a run: shared measurements, stored arrays, null controls, and what a score records."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from harness.contracts import Batch, Metric, Unmeasurable
from harness.execution.scorer import Scorer, to_score
from harness.execution.tasks import Task, TaskResult, attempt, outcome_of
from harness.results import BASELINE, Direction, Failure, FloatArray, Score
from harness.statistics.controls import CONTROLS
from harness.storage.images import decode_rgb
from harness.storage.layout import Layout, Scored
from harness.storage.measurements import read_measurement
from harness.storage.records import read_json, read_score
from harness.storage.samples import SampleSet, chunks

PROMPTS = tuple(f"prompt {i}" for i in range(12))


class Brightness:
    """A metric on a shared measurement, the mean of each image; ``seen`` counts the images that were measured."""

    title, unit, tiny, paired = "Brightness", "", False, False
    direction: Direction = "higher"

    def __init__(self, name: str, seen: list[int], *, floor: int = 1, advised: int = 1, counted: bool = False) -> None:
        self.name, self.seen = name, seen
        self.floor, self.advised, self.counted = floor, advised, counted
        self.measurement = "means"

    def basis(self) -> Mapping[str, str]:
        return {"network": "mean"}

    def fingerprint(self) -> Mapping[str, str]:
        return {"metric": self.name, **self.basis()}

    def measure(self, batch: Batch) -> FloatArray:
        self.seen.extend(batch.indices)
        return batch.images.float().mean(dim=(1, 2, 3))[:, None].numpy()

    def checked(self, measured: FloatArray) -> FloatArray:
        return measured.astype(np.float64)

    def summarise(self, measured: FloatArray) -> FloatArray:
        if len(measured) < self.floor:
            raise Unmeasurable(f"at least {self.floor}")
        return self.values(measured)

    def per_image(self, measured: FloatArray) -> FloatArray:
        return self.checked(measured)[:, 0]

    def values(self, measured: FloatArray) -> FloatArray:
        return self.checked(measured)[:, 0]


class Paired(Brightness):
    """The distance to the full run, from the same noise."""

    paired = True

    def __init__(self, name: str) -> None:
        super().__init__(name, [])
        self.measurement = name

    def measure(self, batch: Batch) -> FloatArray:
        assert batch.full is not None
        return (batch.images.float() - batch.full.float()).abs().mean(dim=(1, 2, 3))[:, None].numpy()


def read_scores(run: Path, kind: Scored = "scores") -> dict[tuple[str, str], Score | Failure]:
    found = [read_score(file) for file in Layout(run).scores(kind)]
    return {(score.method, score.metric): score for score in found}


def sample_set(folder: Path, label: str, prompts: tuple[str, ...] = PROMPTS) -> SampleSet:
    return SampleSet(folder / "samples" / label, prompts, 5)


def write_samples(folder: Path, prompts: tuple[str, ...] = PROMPTS) -> Path:
    """Samples of the full run and of one other method."""
    generator = torch.Generator().manual_seed(0)
    for label in (BASELINE, "fast"):
        samples = sample_set(folder, label, prompts)
        for indices in samples.chunks():
            images = torch.randint(0, 256, (len(indices), 3, 8, 8), dtype=torch.uint8, generator=generator).numpy()
            samples.generate(indices, lambda prompts, i, drawn=images: drawn, lambda: 0)  # type: ignore[misc]
        samples.finish(label)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_samples(tmp_path)


class Few:
    """As much of an experiment as a scorer asks for."""

    methods: ClassVar[dict[str, object]] = {BASELINE: object(), "fast": object()}
    converged: str | None = None

    def __init__(self, prompts: tuple[str, ...] = PROMPTS) -> None:
        self.prompts = prompts
        self.spec = SimpleNamespace(samples=len(prompts), pipeline="a folder", task="text")

    def samples(self, folder: Path, label: str) -> SampleSet:
        return sample_set(folder, label, self.prompts)


def score(
    folder: Path,
    metrics: Mapping[str, Metric | Failure],
    labels: tuple[str, ...] = (BASELINE, "fast"),
    prompts: tuple[str, ...] = PROMPTS,
) -> None:
    scorer = Scorer(Few(prompts), folder, metrics, 5)  # type: ignore[arg-type]
    for label in labels:
        for indices in chunks(len(prompts), 5):
            scorer.do(Task("measure", label, indices.start, indices.stop, 5))
        scorer.do(Task("summarise", label))
    scorer.do(Task("controls", BASELINE))


def values(found: Score | Failure) -> FloatArray:
    assert isinstance(found, Score)
    return found.influence


def test_metrics_of_one_measurement_share_one_pass_and_one_array(folder: Path) -> None:
    seen: list[int] = []
    score(folder, {name: Brightness(name, seen) for name in ("one", "two")}, labels=(BASELINE,))
    assert seen == [*range(12)] * (1 + len(CONTROLS))
    assert [path.name for path in (folder / "measurements").rglob("*.npy")] == ["means.npy"]
    found = read_scores(folder)
    np.testing.assert_array_equal(values(found[BASELINE, "one"]), values(found[BASELINE, "two"]))


def test_a_metric_added_later_reads_the_stored_array(folder: Path) -> None:
    score(folder, {"one": Brightness("one", [])})
    seen: list[int] = []
    before = read_measurement(folder, "fast", "means")
    scorer = Scorer(Few(), folder, {"later": Brightness("later", seen)}, 5)  # type: ignore[arg-type]
    scorer.do(Task("measure", "fast", 0, 5, 5))
    scorer.do(Task("summarise", "fast"))
    assert seen == [] and isinstance(read_scores(folder)["fast", "later"], Score)
    np.testing.assert_array_equal(read_measurement(folder, "fast", "means"), before)


def test_other_images_or_another_network_are_measured_again(folder: Path) -> None:
    score(folder, {"one": Brightness("one", [])})
    seen: list[int] = []
    other = Brightness("one", seen)
    other.basis = lambda: {"network": "another"}  # type: ignore[method-assign]
    score(folder, {"one": other}, labels=("fast",))
    assert seen[:12] == [*range(12)]
    samples = sample_set(folder, "fast")
    samples.generate(range(5), lambda prompts, i: np.zeros((len(i), 3, 8, 8), dtype=np.uint8), lambda: 0)
    samples.finish("fast")
    seen.clear()
    score(folder, {"new": Brightness("new", seen)}, labels=("fast",))
    assert seen[:12] == [*range(12)]


def test_every_control_is_scored_once_beside_the_methods(folder: Path) -> None:
    seen: list[int] = []
    metrics: dict[str, Metric | Failure] = {"one": Brightness("one", seen), "broken": Failure("", "broken", "no network")}
    score(folder, metrics)
    controls = read_scores(folder, "controls")
    assert {control for control, _ in controls} == set(CONTROLS) and {name for _, name in controls} == {"one"}
    np.testing.assert_array_equal(values(controls["black", "one"]), np.zeros(12))
    np.testing.assert_array_equal(values(controls["identical", "one"]), values(read_scores(folder)[BASELINE, "one"]))
    count = len(seen)
    score(folder, metrics)
    assert len(seen) == count


def test_a_metric_that_does_not_repeat_itself_is_found_out(folder: Path) -> None:
    class Drifting(Brightness):
        def measure(self, batch: Batch) -> FloatArray:
            return super().measure(batch) + len(self.seen)

    score(folder, {"one": Drifting("one", [])})
    same = read_scores(folder, "controls")["identical", "one"]
    assert isinstance(same, Failure) and "measured twice, differ" in same.reason


def test_n_below_the_floor_is_refused_and_below_the_advice_watermarked(folder: Path) -> None:
    low = to_score("a", "m", Brightness("m", [], advised=20, counted=True), np.zeros(12), None)
    assert low.title == "Brightness, biased: N = 12 < 20" and low.fingerprint["n"] == "12"
    assert to_score("a", "m", Brightness("m", [], advised=12), np.zeros(12), None).title == "Brightness"
    assert "n" not in to_score("a", "m", Brightness("m", []), np.zeros(12), None).fingerprint
    score(folder, {"m": Brightness("m", [], floor=13)})
    refused = read_scores(folder)["fast", "m"]
    assert isinstance(refused, Failure) and refused.reason == "at least 13"
    with pytest.raises(Unmeasurable, match="not finite"):
        to_score("a", "m", Brightness("m", []), np.array([0.0, np.nan]), None)


def test_what_scoring_an_image_costs_does_not_grow_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking up for each range what is known of all images made it grow with the square."""
    read: list[Path] = []

    def counted(path: Path) -> object:
        read.append(path)
        return read_json(path)

    monkeypatch.setattr("harness.storage.samples.read_json", counted)

    def receipts(n: int) -> int:
        prompts = tuple(f"prompt {i}" for i in range(n))
        folder = write_samples(tmp_path / str(n), prompts)
        read.clear()
        score(folder, {name: Brightness(name, []) for name in ("one", "two")}, prompts=prompts)
        return len(read)

    assert receipts(80) <= 4 * receipts(20)


def measured_ranges(scorer: Scorer, labels: tuple[str, ...]) -> list[TaskResult]:
    """All ranges, each of all methods in turn, as the runner hands them out."""
    tasks = [Task("measure", label, r.start, r.stop, 5) for r in chunks(12, 5) for label in labels]
    made = [(task, attempt(scorer, task)) for task in tasks]
    return [outcome_of(*each) for each in made]


def test_each_image_is_decoded_once_and_each_receipt_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of the full run, against which two paired metrics hold every method."""
    opened: list[Path] = []
    receipts: list[Path] = []
    monkeypatch.setattr("harness.storage.reading.decode_rgb", lambda path, expected: opened.append(path) or decode_rgb(path))
    monkeypatch.setattr("harness.storage.samples.read_json", lambda path: receipts.append(path) or read_json(path))
    metrics: dict[str, Metric | Failure] = {name: Paired(name) for name in ("one", "two")}
    scorer = Scorer(Few(), folder, metrics, 5)  # type: ignore[arg-type]
    assert not any(outcome.error or outcome.failures for outcome in measured_ranges(scorer, (BASELINE, "fast")))
    for label in (BASELINE, "fast"):
        scorer.do(Task("summarise", label))
    scorer.close()
    assert sorted(opened) == sorted((folder / "samples").rglob("*.png")) and len(opened) == 24
    assert sorted(receipts) == sorted((folder / "samples").rglob("chunk-*.json")) and len(receipts) == 6
    found = read_scores(folder)
    assert (values(found[BASELINE, "one"]) == 0).all() and (values(found["fast", "two"]) > 0).all()


def test_the_next_range_is_read_while_one_is_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = threading.Event()

    def noticed(path: Path, expected: str | None) -> Image.Image:
        if path.name == "000005.png":
            read.set()
        return decode_rgb(path, expected)

    monkeypatch.setattr("harness.storage.reading.decode_rgb", noticed)

    class Waiting(Brightness):
        def measure(self, batch: Batch) -> FloatArray:
            assert read.wait(20), "nobody reads the second range"
            return super().measure(batch)

    scorer = Scorer(Few(), folder, {"one": Waiting("one", [])}, 5)  # type: ignore[arg-type]
    first = scorer.do(Task("measure", "fast", 0, 5, 5))
    assert isinstance(first, Future) and not first.done()
    second = scorer.do(Task("measure", "fast", 5, 10, 5))
    assert first.done() and isinstance(second, Future) and not second.done()
    assert second.result() == TaskResult(Task("measure", "fast", 5, 10, 5)) and second.done()
    scorer.close()


def test_a_damaged_image_is_an_error_of_its_own_range(folder: Path) -> None:
    (folder / "samples" / "fast" / "000006.png").write_bytes(b"no image")
    scorer = Scorer(Few(), folder, {"one": Brightness("one", [])}, 5)  # type: ignore[arg-type]
    outcomes = measured_ranges(scorer, ("fast", BASELINE))
    assert [(o.task.method, o.task.start) for o in outcomes if o.error] == [("fast", 5)]
    assert "000006.png" in next(o.error for o in outcomes if o.error)
    scorer.close()
