"""The history: append-only, idempotent, safe for concurrent writers, and loud about damaged or foreign files."""

from __future__ import annotations

import multiprocessing
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.contracts import Failure, MethodRecord, Score, TimingSample
from harness.errors import ArtifactError
from harness.records import Run
from harness.store import History, run_id


def make_run(path: Path, seed: int = 0) -> Run:
    values = np.random.default_rng(seed).normal(5, 1, 16)
    score = Score("full", "good", "Good", "points", "higher", True, float(values.mean()), 16, {"weights": "aa"}, values)
    environment = {"commit": "abc", "dirty": True, "created": f"2026-01-{seed % 28 + 1:02d}T00:00:00+00:00", "machine_key": "m"}
    spec = {"format": 1, "name": "tiny-text", "digest": "d1", "method_labels": ["full", "8 steps", "broken"], "metrics": ["good"]}
    return Run(
        path=path,
        spec=spec,
        environment=environment,
        methods=(MethodRecord("full", "full", 20, 480, 480), MethodRecord("8 steps", "steps:8", 8, 192, 192)),
        failed_methods=(Failure("broken", "", "no such block"),),
        scores={("full", "good"): score, ("8 steps", "good"): Failure("8 steps", "good", "out of memory")},
        timings=tuple(TimingSample("full", i, 4, 1.0 + i, 0.1, 0.8, 0.1, 1000) for i in range(3)),
        complete=True,
    )


def test_what_went_in_comes_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    identity = History(tmp_path / "history.sqlite").append(run)
    (entry,) = History(tmp_path / "history.sqlite").runs()
    assert (entry.run_id, entry.preset, entry.commit, entry.dirty, entry.complete) == (identity, "tiny-text", "abc", True, True)
    assert entry.timings == run.timings
    scores = {(s.method, s.metric): s for s in entry.scores}
    score = run.scores["full", "good"]
    assert isinstance(score, Score)
    stored = scores["full", "good"]
    assert stored.value == score.value and stored.n == 16 and stored.fingerprint == {"weights": "aa"}
    assert stored.low is not None and stored.high is not None and stored.low < score.value < stored.high
    assert (scores["8 steps", "good"].value, scores["8 steps", "good"].failure) == (None, "out of memory")
    assert scores["broken", ""].failure == "no such block"


def test_appending_twice_or_after_moving_changes_nothing(tmp_path: Path) -> None:
    history, run = History(tmp_path / "h.sqlite"), make_run(tmp_path / "run")
    first = history.append(run)
    assert history.append(run) == first
    assert history.append(replace(run, path=tmp_path / "moved")) == first
    assert len(history.runs()) == 1


def test_a_resumed_run_is_a_new_row_and_its_folder_finds_the_newest(tmp_path: Path) -> None:
    history, run = History(tmp_path / "h.sqlite"), make_run(tmp_path / "run")
    history.append(replace(run, complete=False))
    newest = history.append(run)
    assert len(history.runs()) == 2
    assert history.find(str(tmp_path / "run")).run_id == newest


def test_identity_covers_the_images_behind_a_score(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    score = run.scores["full", "good"]
    assert isinstance(score, Score)
    shuffled = replace(score, per_image=score.per_image[::-1].copy())
    assert run_id(replace(run, scores=dict(run.scores) | {("full", "good"): shuffled})) != run_id(run)


def test_find_by_id_beginning_and_path(tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    identities = [history.append(make_run(tmp_path / str(i), i)) for i in range(20)]
    assert history.find(identities[3]).run_id == identities[3]
    assert history.find(identities[3][:12]).run_id == identities[3]
    assert history.find(str(tmp_path / "5")).run_id == identities[5]
    shared = next(i[0] for i in identities if sum(j[0] == i[0] for j in identities) > 1)
    with pytest.raises(ArtifactError, match="give more digits"):
        history.find(shared)
    for unknown in ("zzzz", "", "%"):
        with pytest.raises(ArtifactError, match="see ilf-bench history"):
            history.find(unknown)


def test_runs_come_oldest_first(tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    for seed in (5, 1, 3):
        history.append(make_run(tmp_path / str(seed), seed))
    assert [entry.path.name for entry in history.runs()] == ["1", "3", "5"]


def _write(path: Path, first: int, barrier: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    for seed in range(first, first + 15):
        History(path).append(make_run(path.parent / str(seed), seed))


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    """Both create the file at the same moment and overlap on five runs: every run is there, and once."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    workers = [context.Process(target=_write, args=(tmp_path / "h.sqlite", first, barrier)) for first in (0, 10)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert sorted(int(entry.path.name) for entry in History(tmp_path / "h.sqlite").runs()) == list(range(25))


def test_an_append_that_breaks_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(tmp_path / "h.sqlite")
    monkeypatch.setattr("harness.store._timing_rows", lambda run: [("full", "[]"), ("full", "[]")])
    with pytest.raises(ArtifactError):
        history.append(make_run(tmp_path / "run"))
    assert history.runs() == ()


def test_rows_cannot_be_changed_or_deleted(tmp_path: Path) -> None:
    History(tmp_path / "h.sqlite").append(make_run(tmp_path / "run"))
    with sqlite3.connect(tmp_path / "h.sqlite") as database:
        for statement in ("UPDATE scores SET value = 1", "DELETE FROM runs", "DELETE FROM timings"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                database.execute(statement)


def test_a_truncated_file_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    history = History(path)
    for seed in range(20):
        history.append(make_run(tmp_path / str(seed), seed))
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = path.read_bytes()
    for kept in (len(whole) // 2, 4096, 100, 50):
        damaged = tmp_path / f"{kept}.sqlite"
        damaged.write_bytes(whole[:kept])
        with pytest.raises(ArtifactError, match="remedy: move"):
            History(damaged)


def test_foreign_files_and_other_versions_are_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.sqlite"
    text.write_text("these are my notes, not a database at all" * 10)
    with pytest.raises(ArtifactError, match="remedy: move"):
        History(text)
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as database:
        database.execute("CREATE TABLE notes (text TEXT)")
    before = foreign.read_bytes()
    with pytest.raises(ArtifactError, match="another program's database"):
        History(foreign)
    assert foreign.read_bytes() == before
    ours = tmp_path / "ours.sqlite"
    History(ours)
    shutil.copy(ours, tmp_path / "later.sqlite")
    with sqlite3.connect(tmp_path / "later.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(ArtifactError, match="got version 99"):
        History(tmp_path / "later.sqlite")
