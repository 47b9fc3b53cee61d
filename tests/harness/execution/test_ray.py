"""The Ray engine: any number of workers writes the files that one process writes, and a lost worker costs one range."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from harness.errors import UsageError
from harness.execution.runner import Runner
from harness.execution.tasks import Facts, Loss, Task, TaskResult
from harness.storage.layout import slug
from harness.storage.records import read_json, read_run
from ilf_bench.engines import EngineMaker, cluster_engine, local_engine
from ilf_bench.experiment import prepare
from tests.harness.execution.stand_ins import Doomed, Neighbour, Sleeper, Storing
from tests.harness.execution.test_dispatch import assert_same_images, check_failures, failing_preset
from tests.harness.execution.test_runner import files, write_preset

ray = pytest.importorskip("ray")
from ray.exceptions import OutOfMemoryError  # noqa: E402

from harness.execution.ray import AT_MOST, ClusterEngine, ClusterOptions, Pool  # noqa: E402

# Loses its process the first time that it is attached with half of the samples made.
DEADLY = """
import os, signal
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

@dataclass(frozen=True)
class Deadly:
    marker: str
    label = "deadly"
    def plan(self, plan):
        return plan
    @contextmanager
    def attach(self, pipeline):
        generate = pipeline.generate
        def once_deadly(prompts, seed, indices):
            if 9 in indices and not Path(self.marker).exists():
                Path(self.marker).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return generate(prompts, seed, indices)
        pipeline.generate = once_deadly
        try:
            yield
        finally:
            del pipeline.generate

METHODS = {"deadly": Deadly}
"""

# Hangs on sample 5 the first time, and has memory for no more than two images beside sample 9.
HUNGRY = """
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
import torch

@dataclass(frozen=True)
class Hungry:
    marker: str
    label = "hungry"
    def plan(self, plan):
        return plan
    @contextmanager
    def attach(self, pipeline):
        generate = pipeline.generate
        def hungry(prompts, seed, indices):
            if 5 in indices and not Path(self.marker).exists():
                Path(self.marker).touch()
                time.sleep(3600)
            if 9 in indices and len(indices) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return generate(prompts, seed, indices)
        pipeline.generate = hungry
        try:
            yield
        finally:
            del pipeline.generate

METHODS = {"hungry": Hungry}
"""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One cluster for all tests: starting one takes seconds."""
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def run(preset: Path, plugins: list[Path], make: EngineMaker, out: Path) -> Path:
    """The folder of a run that went well."""
    experiment = prepare(str(preset), {}, plugins).experiment
    folder = experiment.folder(out)
    engine = make(experiment, folder)
    try:
        assert Runner(experiment, engine, folder, Console(quiet=True)).run() == []
    finally:
        engine.close()
    return folder


def test_two_workers_of_which_one_is_killed(folders: dict[str, Path], tmp_path: Path) -> None:
    plugin, marker = tmp_path / "deadly.py", tmp_path / "marker"
    plugin.write_text(DEADLY)
    methods = ["full", "steps:2", f"deadly:marker={marker}"]
    preset = write_preset(tmp_path, folders["pixart"], samples=24, methods=methods, timing={"rounds": 1, "batch": 2})
    marker.touch()
    alone = run(preset, [plugin], local_engine, tmp_path / "alone")
    marker.unlink()
    spread = run(preset, [plugin], partial(cluster_engine, ClusterOptions(workers=2)), tmp_path / "spread")
    assert files(alone).keys() == files(spread).keys()
    assert_same_images(alone, spread)
    (fault,) = read_run(spread).faults
    assert (fault.stage, fault.method, fault.batch) == ("generate", "deadly", 4)
    assert fault.start in (0, 4, 8), "the range, or the one before it on the same worker, 0 or 4, whose answer was lost with it"
    assert read_run(alone).faults == () and read_run(spread).complete


@pytest.mark.slow
def test_a_worker_whose_gpu_is_lost_is_replaced(folders: dict[str, Path], tmp_path: Path) -> None:
    plugin, marker = tmp_path / "broken.py", tmp_path / "marker"
    broken = 'raise RuntimeError("CUDA error: an illegal memory access was encountered")'
    plugin.write_text(DEADLY.replace("os.kill(os.getpid(), signal.SIGKILL)", broken))
    methods = ["full", f"deadly:marker={marker}"]
    preset = write_preset(tmp_path, folders["pixart"], samples=12, methods=methods, timing={"rounds": 1, "batch": 2})
    folder = run(preset, [plugin], partial(cluster_engine, ClusterOptions(workers=1)), tmp_path / "out")
    (fault,) = read_run(folder).faults
    assert (fault.stage, fault.method, fault.start) == ("generate", "deadly", 8) and "illegal memory access" in fault.reason


@pytest.mark.parametrize(
    ("there", "device", "room"),
    [({"CPU": 16.0, "GPU": 1.0}, "auto", 1), ({"CPU": 2.0, "GPU": 4.0}, "cuda", 2), ({"CPU": 2.0}, "auto", 2)],
)
def test_more_workers_than_the_cluster_has_room_for_are_told_at_once(
    there: dict[str, float], device: str, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: there)
    engine = ClusterEngine(ClusterOptions(workers=3, device=device), lambda: pytest.fail("hired"), lambda: pytest.fail("hired"))
    began = time.monotonic()
    with pytest.raises(UsageError, match=f"--workers of at most {room}"):
        engine.start()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(("per_gpu", "room"), [(1, 2), (3, 6)])
def test_workers_share_a_gpu_only_where_that_is_asked_for(per_gpu: int, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 64.0, "GPU": 2.0})
    hired: list[float] = []
    monkeypatch.setattr(Pool, "_hire", lambda pool: hired.append(pool.gpus))
    monkeypatch.setattr(Pool, "facts", lambda pool: [Facts({}, 1)])
    options = ClusterOptions(workers=room, per_gpu=per_gpu)
    ClusterEngine(options, lambda: pytest.fail("made"), lambda: pytest.fail("made")).start()
    assert hired == [pytest.approx(1 / per_gpu)] * room
    many = ClusterEngine(replace(options, workers=room + 1), lambda: pytest.fail("made"), lambda: pytest.fail("made"))
    with pytest.raises(UsageError, match=rf"at most {room}, each with a CPU and a GPU{' for 3' if per_gpu == 3 else ' of'}"):
        many.start()


def test_what_was_being_stored_by_a_lost_worker_is_made_again_and_not_blamed(tmp_path: Path) -> None:
    """Sample 2 was being stored, and 4 waited, when 3 ended the process."""
    pool = Pool(partial(Storing, tmp_path), 1, 0.0, 60.0)
    tasks = deque(Task("generate", "full", i, i + 1, 1) for i in range(6))
    ends: list[tuple[int, bool]] = []
    for outcome in pool.run(lambda: tasks.popleft() if tasks else None):
        ends.append((outcome.task.start, outcome.loss is not None))
        if outcome.loss:
            tasks.appendleft(outcome.task)
    pool.close()
    assert [start for start, lost in ends if lost] == [3]
    tries = {start: len(list(tmp_path.glob(f"{start}-*"))) for start in range(6)}
    assert tries == {0: 1, 1: 1, 2: 2, 3: 2, 4: 1, 5: 1}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers(folders: dict[str, Path], tmp_path: Path, workers: int) -> None:
    preset = write_preset(tmp_path, folders["dit"], samples=48, timing={"rounds": 0})
    alone = run(preset, [], local_engine, tmp_path / "alone")
    spread = run(preset, [], partial(cluster_engine, ClusterOptions(workers=workers)), tmp_path / "spread")
    assert files(alone).keys() == files(spread).keys()
    assert_same_images(alone, spread)


@pytest.mark.slow
def test_a_hung_worker_and_too_little_memory_cost_one_range_each(folders: dict[str, Path], tmp_path: Path) -> None:
    plugin, marker = tmp_path / "hungry.py", tmp_path / "marker"
    plugin.write_text(HUNGRY)
    methods = ["full", f"hungry:marker={marker}"]
    preset = write_preset(tmp_path, folders["pixart"], samples=24, methods=methods, timing={"rounds": 0})
    spread = run(preset, [plugin], partial(cluster_engine, ClusterOptions(workers=2, deadline_s=20)), tmp_path / "spread")
    assert marker.exists(), "nobody hung"
    alone = run(preset, [plugin], local_engine, tmp_path / "alone")
    assert_same_images(alone, spread)
    faults = {(f.stage, f.method, f.start, f.batch): f.reason for f in read_run(spread).faults}
    assert faults.keys() == {("generate", "hungry", 4, 4), ("generate", "hungry", 8, 2)}
    assert "no answer within 20 s" in faults["generate", "hungry", 4, 4]
    assert "out of memory at 4 images" in faults["generate", "hungry", 8, 2]
    assert read_json(spread / "samples" / slug("hungry") / "chunk-000008.json")["batch"] == 2


def test_failures_stop_nothing_else(folders: dict[str, Path], tmp_path: Path) -> None:
    preset, plugin = failing_preset(tmp_path, folders["dit"])
    check_failures(preset, plugin, tmp_path / "runs", "--engine", "ray", "--workers", "1")


def test_a_worker_that_ray_ends_for_memory_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(reference: object) -> object:
        monkeypatch.undo()
        raise OutOfMemoryError("Task was killed due to the node running low on memory")

    monkeypatch.setattr("harness.execution.ray.ray.get", killed)
    pool = Pool(partial(Sleeper, tmp_path), 1, 0.0, 60.0)
    tasks = iter([Task("generate", "full", i, i + 1, 8) for i in range(2)])
    first, second = pool.run(lambda: next(tasks, None))
    assert (
        first.loss is Loss.MEMORY and "low on memory" in first.error and second == TaskResult(Task("generate", "full", 1, 2, 8))
    )
    pool.shrink(0)


def test_a_worker_that_hangs_is_replaced_and_little_waits(tmp_path: Path) -> None:
    tasks = iter([Task("generate", "full", i, i + 1, 1) for i in range(12)])
    under_way = most = 0

    def take() -> Task | None:
        nonlocal under_way, most
        task = next(tasks, None)
        under_way += task is not None
        most = max(most, under_way)
        return task

    pool = Pool(partial(Sleeper, tmp_path / "marker"), 2, 0.0, 2.0)
    ends = []
    for outcome in pool.run(take):
        under_way -= 1
        ends.append((outcome.task.start, outcome.loss is not None))
    assert sorted(ends) == [(i, i == 3) for i in range(12)]
    assert 2 <= most <= 2 * AT_MOST and len(pool.idle) == 2
    pool.shrink(0)


def test_workers_that_cannot_start_are_an_error_with_a_remedy() -> None:
    engine = ClusterEngine(ClusterOptions(workers=1, device="cpu"), Doomed, Doomed)
    with pytest.raises(UsageError, match=r"1 workers that start.*died.*--workers"):
        engine.start()
    engine.close()


def test_timed_rounds_have_no_other_worker_beside_them(tmp_path: Path) -> None:
    worker = partial(Neighbour, tmp_path)
    engine = ClusterEngine(ClusterOptions(workers=2, device="cpu"), worker, worker)
    engine.start()
    tasks = iter([Task("time", "", n) for n in range(2)])
    found = [outcome.error for outcome in engine.run("sampler", lambda: next(tasks, None), alone=True)]
    engine.close()
    assert found == ["1 others, there: set()"] * 2
