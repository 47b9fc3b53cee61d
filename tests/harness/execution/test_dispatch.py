"""What all engines share: lost tasks are done again, at a smaller batch where memory is short, and no failure stops another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from harness.execution.dispatch import ERRORS, TRIES, Dispatch
from harness.execution.experiment import Experiment
from harness.execution.runner import Runner
from harness.execution.tasks import Facts, Loss, Role, Task, TaskResult, attempt, is_out_of_memory, shrinking
from harness.results import REFERENCE, Failure, Fault, Score
from harness.sampling.pipeline import Pipeline
from harness.storage.images import decode_image
from harness.storage.layout import slug
from harness.storage.locations import place
from harness.storage.records import read_json, read_run
from ilf_bench.cli import main
from ilf_bench.engines import local_engine
from ilf_bench.experiment import prepare
from tests.harness.execution.test_runner import files, write_preset

PLUGIN = """
from contextlib import contextmanager
from dataclasses import dataclass

@dataclass(frozen=True)
class Broken:
    label = "broken"
    def plan(self, plan):
        return plan
    @contextmanager
    def attach(self, pipeline):
        raise KeyError("no such kernel")
        yield

@dataclass(frozen=True)
class OneBadSample:
    label = "one bad sample"
    def plan(self, plan):
        return plan
    @contextmanager
    def attach(self, pipeline):
        generate = pipeline.generate
        def failing(prompts, seed, indices):
            if 5 in indices and seed < 2000:
                raise RuntimeError("sample 5 is cursed")
            return generate(prompts, seed, indices)
        pipeline.generate = failing
        try:
            yield
        finally:
            del pipeline.generate

METHODS = {"broken": Broken, "bad-sample": OneBadSample}
"""


class Scripted:
    """An engine whose outcomes are decided by a function of the task."""

    score_batch = 64

    def __init__(self, decide: Callable[[Task], TaskResult]) -> None:
        self.decide = decide
        self.done: list[Task] = []

    def start(self) -> Facts:
        return Facts({}, 1)

    def run(self, role: Role, take: Callable[[], Task | None], *, alone: bool = False) -> Iterator[TaskResult]:
        while (task := take()) is not None:
            self.done.append(task)
            yield self.decide(task)

    def close(self) -> None:
        pass


def lost(task: Task, times: int, seen: list[Task], loss: Loss = Loss.WORKER) -> TaskResult:
    seen.append(task)
    return TaskResult(task, error="it died", loss=loss) if len(seen) <= times else TaskResult(task)


@pytest.mark.parametrize(
    ("loss", "times", "batches"),
    [(Loss.WORKER, 0, [8]), (Loss.WORKER, 1, [8, 8]), (Loss.WORKER, 3, [8, 8, 4, 2]), (Loss.MEMORY, 2, [8, 4, 2])],
)
def test_a_lost_task_is_done_again(loss: Loss, times: int, batches: list[int]) -> None:
    seen: list[Task] = []
    notes: list[Fault] = []
    engine = Scripted(lambda task: lost(task, times, seen, loss))
    (outcome,) = Dispatch(engine, "sampler", [Task("generate", "full", 0, 8, 8)], notes.append).outcomes()
    assert not outcome.error and [task.batch for task in seen] == batches
    assert [(f.batch, f.reason, f.start, f.stop) for f in notes] == [(b, "it died", 0, 8) for b in batches[1:]]


def test_a_task_that_always_kills_its_worker_is_given_up_and_stops_no_other() -> None:
    engine = Scripted(lambda task: TaskResult(task, error="it died", loss=Loss.WORKER) if task.start == 8 else TaskResult(task))
    tasks = [Task("generate", "full", start, start + 8, 8) for start in (0, 8, 16)]
    outcomes = list(Dispatch(engine, "sampler", tasks, lambda fault: None).outcomes())
    assert sorted((o.task.start, o.error) for o in outcomes) == [(0, ""), (8, "it died"), (16, "")]
    assert len([task for task in engine.done if task.start == 8]) == TRIES


def test_a_method_that_only_fails_is_given_up_after_some_ranges() -> None:
    engine = Scripted(lambda task: TaskResult(task, error="no" if task.method == "bad" else ""))
    tasks = [Task("generate", method, start, start + 1, 1) for method in ("bad", "good") for start in range(10)]
    outcomes = list(Dispatch(engine, "sampler", tasks, lambda fault: None).outcomes())
    assert [o.task.method for o in outcomes] == ["bad"] * ERRORS + ["good"] * 10


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), RuntimeError("can't allocate memory")]
)
def test_the_batch_shrinks_until_it_fits(error: Exception) -> None:
    tried = []

    def work(batch: int) -> str:
        tried.append(batch)
        if batch > 2:
            raise error
        return "done"

    assert shrinking(9, work) == ("done", 2) and tried == [9, 4, 2]
    with pytest.raises(type(error)):
        shrinking(1, lambda batch: (_ for _ in ()).throw(error))


def test_other_errors_are_not_taken_for_short_memory() -> None:
    assert not is_out_of_memory(RuntimeError("no such kernel"))
    with pytest.raises(RuntimeError, match="kernel"):
        shrinking(8, lambda batch: (_ for _ in ()).throw(RuntimeError("no such kernel")))


def test_a_full_disk_is_no_failure_of_a_method() -> None:
    class Full:
        def do(self, task: Task) -> TaskResult:
            raise OSError(28, "No space left on device")

    class Missing:
        def do(self, task: Task) -> TaskResult:
            raise FileNotFoundError(2, "no checkpoint")

    with pytest.raises(OSError, match="No space"):
        attempt(Full(), Task("generate", "full"))
    assert "no checkpoint" in attempt(Missing(), Task("generate", "full")).result().error


def run(experiment: Experiment, out: Path) -> Path:
    folder = experiment.folder(out)
    assert Runner(experiment, local_engine(experiment, folder), folder, Console(quiet=True)).run() == []
    return folder


def test_out_of_memory_is_met_with_a_smaller_batch_and_noted(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = write_preset(tmp_path, folders["dit"], methods=["full"], timing={"rounds": 0}, metrics=["ssim"])
    experiment = prepare(str(preset), {}, []).experiment
    whole = run(experiment, tmp_path / "whole")
    generate = Pipeline.generate

    def small(self: Pipeline, prompts: list[str], seed: int, indices: list[int]) -> torch.Tensor:
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return generate(self, prompts, seed, indices)

    monkeypatch.setattr(Pipeline, "generate", small)
    short = run(experiment, tmp_path / "short")
    (fault,) = read_run(short).faults  # later ranges begin with the batch that fits
    assert (fault.method, fault.start, fault.batch) == ("full", 0, 2) and "out of memory" in fault.reason
    samples = short / "samples" / slug("full")
    assert [read_json(samples / f"chunk-{start:06d}.json")["batch"] for start in (0, 4, 8)] == [2, 2, 2]
    assert_same_images(whole, short)


def assert_same_images(one: Path, other: Path) -> None:
    """The same names, and no pixel further apart than one grey level."""
    images = sorted(path.relative_to(one) for path in one.glob("samples/*/*.png"))
    assert images and images == sorted(path.relative_to(other) for path in other.glob("samples/*/*.png"))
    for name in images:
        difference = decode_image(one / name).astype(int) - decode_image(other / name)
        assert np.abs(difference).max() <= 1, name


def check_failures(preset: Path, plugin: Path, out: Path, *options: str) -> Path:
    """A failed method, a failed sample and a failed metric stop nothing else, are named, and leave by 4."""
    assert main(["run", str(preset), "--plugin", str(plugin), "--out", str(out), *options]) == 4
    (folder,) = (path for path in out.iterdir() if path.is_dir())
    run = read_run(folder)
    assert [m.label for m in run.methods] == ["full", "2 steps"] and not run.complete
    reasons = {failure.method: failure.reason for failure in run.failed_methods}
    assert reasons.keys() == {"broken", "one bad sample"}
    assert "no such kernel" in reasons["broken"]
    assert "sample 5 is cursed" in reasons["one bad sample"] and "samples 4 to 7" in reasons["one bad sample"]
    assert len(list((folder / "samples" / slug("one bad sample")).glob("*.png"))) == 8, "the other ranges are made"
    assert isinstance(run.scores["2 steps", "ssim"], Score)
    metric = run.scores["2 steps", "fid"]
    assert isinstance(metric, Failure) and "reference" in metric.reason
    assert {t.method for t in run.timings} == {"full", "2 steps", "full (A/A)", REFERENCE}
    page = (folder / "report" / "index.html").read_text()
    assert "no such kernel" in page and "sample 5 is cursed" in page
    return folder


def failing_preset(tmp_path: Path, pipeline: Path) -> tuple[Path, Path]:
    """A preset of which one method, one sample of another and one metric fail, and the plugin that makes them."""
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN)
    methods = ["full", "broken", "bad-sample", "steps:2"]
    return write_preset(tmp_path, pipeline, methods=methods, metrics=["ssim", "fid"], timing={"rounds": 1, "batch": 2}), plugin


def test_failures_stop_nothing_else(folders: dict[str, Path], tmp_path: Path) -> None:
    preset, plugin = failing_preset(tmp_path, folders["dit"])
    check_failures(preset, plugin, tmp_path / "runs")


def test_a_run_lies_in_any_file_system(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the history of a run at a URL lies in ./runs
    preset = write_preset(tmp_path, folders["dit"], methods=["full", "steps:2"], timing={"rounds": 1, "batch": 2})
    assert main(["run", str(preset), "--out", str(tmp_path / "local")]) == 0
    url = f"memory://{tmp_path.name}"
    assert main(["run", str(preset), "--out", url]) == 0
    assert main(["run", str(preset), "--out", url]) == 0, "it resumes there, too"
    (here,), (there,) = (tmp_path / "local").glob("random-*"), place(url).glob("random-*")
    assert files(here) == files(there)
    assert (there / "report" / "index.html").exists() and (tmp_path / "runs" / "history.sqlite").exists()
    assert main(["report", str(there)]) == 0
    assert main(["gate", "--against", str(here), str(there)]) in (0, 2, 3)


@pytest.mark.parametrize("scheme", ["steam", "oci"])
def test_a_file_system_that_is_not_there(
    scheme: str, tmp_path: Path, folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """One that nobody knows, and one whose package is not installed."""
    preset = write_preset(tmp_path, folders["dit"])
    assert main(["run", str(preset), "--out", f"{scheme}://bucket/runs"]) == 64
    assert "fsspec" in capsys.readouterr().err


def test_a_wrong_engine(tmp_path: Path, folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(write_preset(tmp_path, folders["dit"])), "--engine", "steam"]) == 64
    assert "local, ray" in capsys.readouterr().err
