"""The history: append-only, idempotent, safe for concurrent writers, and loud about damaged or foreign files."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.errors import ArtifactError, UsageError
from harness.history.packing import run_id
from harness.history.store import History, HistoryEntry
from harness.results import Score
from tests.runs import make_run


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
    shuffled = replace(score, influence=score.influence[::-1].copy())
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
    monkeypatch.setattr("harness.history.store.NEWEST_TAGS", "SELECT no_such_column FROM tags")
    with pytest.raises(ArtifactError):
        history.append(make_run(tmp_path / "run"))
    monkeypatch.undo()
    assert history.runs() == ()


def test_rows_cannot_be_changed_or_deleted(tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    history.tag("good", history.append(make_run(tmp_path / "run")))
    with sqlite3.connect(tmp_path / "h.sqlite") as database:
        for statement in ("UPDATE records SET header = 1", "DELETE FROM runs", "DELETE FROM records", "DELETE FROM tags"):
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


def test_a_full_disk_is_no_damaged_file(tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    with pytest.raises(OSError, match="no room for the history"), history._connected() as database:
        database.execute("PRAGMA max_page_count = 1")
        database.execute("CREATE TABLE more (text TEXT)")
    assert history.runs() == ()


def everything(path: Path) -> list[tuple[HistoryEntry, str]]:
    """What a history says of all its runs."""
    history = History(path)
    return [(entry, run_id(history.load(entry.run_id))) for entry in history.runs()]


def test_a_flipped_bit_is_named_or_changes_nothing(tmp_path: Path) -> None:
    """Found by the campaign: a flip inside a record was read as it stood, or refused without the name of the file."""
    path, damaged = tmp_path / "h.sqlite", tmp_path / "damaged.sqlite"
    history = History(path)
    runs = [make_run(tmp_path / str(seed), seed) for seed in range(3)]
    for run in runs:
        history.append(run)
    whole, before = path.read_bytes(), everything(path)
    with sqlite3.connect(path) as database:
        stored = [row[0].encode() for row in database.execute("SELECT header FROM records")]
    rng = random.Random(3)
    places = [whole.index(text) + rng.randrange(len(text)) for text in stored for _ in range(15)]
    places += [rng.randrange(len(whole)) for _ in range(40)]
    found = 0
    for place in places:
        content = bytearray(whole)
        content[place] ^= 1 << rng.randrange(8)
        damaged.write_bytes(content)
        try:
            now, unreadable = everything(damaged), History(damaged).listing().unreadable
            assert now == [one for one in before if one[0].run_id not in unreadable], f"byte {place} was altered, and used"
            found += bool(unreadable)
        except ArtifactError as error:
            assert str(damaged) in str(error)
            found += 1
    assert found >= 45


def test_appending_a_run_again_mends_its_damaged_record(tmp_path: Path) -> None:
    path, run = tmp_path / "h.sqlite", make_run(tmp_path / "run")
    identity = History(path).append(run)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"latency_s": 1.0', b'"latency_s": 7.0'))
    listing = History(path).listing()
    assert listing.entries == () and "--add" in listing.unreadable[identity] and "retire" in listing.unreadable[identity]
    with pytest.raises(ArtifactError, match=r"h\.sqlite.*--add"):
        History(path).load(identity)
    for _ in range(2):
        assert History(path).append(run) == identity
    assert run_id(History(path).load(identity)) == identity and len(History(path).runs()) == 1


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
    for version in (2, 99, -1):
        with sqlite3.connect(tmp_path / "later.sqlite") as database:
            database.execute(f"PRAGMA user_version = {version}")
        with pytest.raises(
            ArtifactError, match=rf"expected record format 1 at .*later\.sqlite; got record format {version}; .*wrote"
        ):
            History(tmp_path / "later.sqlite")


def test_a_run_comes_back_whole(tmp_path: Path) -> None:
    """From the history alone: the folder never existed."""
    run = make_run(tmp_path / "run")
    single = replace(run.timings[0], cpu_s=0.9)
    score = run.scores["full", "good"]
    assert isinstance(score, Score)
    halved = replace(score, metric="half", influence=score.influence.astype(np.float32))
    run = replace(run, timings=(single, *run.timings[1:]), scores=dict(run.scores) | {("full", "half"): halved})
    history = History(tmp_path / "h.sqlite")
    loaded = history.load(history.append(run))
    assert run_id(loaded) == run_id(run)
    assert loaded.timings == run.timings and loaded.methods == run.methods and dict(loaded.spec) == dict(run.spec)
    back = loaded.scores["full", "half"]
    assert isinstance(back, Score) and back.influence.dtype == np.float32
    np.testing.assert_array_equal(back.influence, halved.influence)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    run, history = make_run(tmp_path / "run"), History(tmp_path / "h.sqlite")
    score = run.scores["full", "good"]
    assert isinstance(score, Score)
    values = score.influence.copy()
    values[3] = bad
    with pytest.raises(ArtifactError, match="not all finite"):
        history.append(replace(run, scores={("full", "good"): replace(score, influence=values)}))
    with pytest.raises(ArtifactError, match="finite numbers"):
        history.append(replace(run, timings=(replace(run.timings[0], latency_s=bad),)))
    assert history.runs() == ()


def test_tags_and_commits_find_runs(tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    first, second = (history.append(make_run(tmp_path / str(seed), seed)) for seed in (1, 2))
    partial = history.append(replace(make_run(tmp_path / "3", 3), complete=False))
    history.tag("baseline", first)
    history.tag("nightly/1", first)
    assert history.find("baseline").run_id == first and history.find("baseline").tags == ("baseline", "nightly/1")
    history.tag("baseline", second)
    assert history.find("baseline").run_id == second and history.find(first).tags == ("nightly/1",)
    other = replace(make_run(tmp_path / "4", 4), environment={"commit": "0123456789abcdef", "created": "2026-01-09"})
    history.append(other)
    assert history.find("01234567").commit == "0123456789abcdef"
    assert partial in {entry.run_id for entry in history.runs()}
    for bad in ("", "a b", "<b>", "-x", "x" * 101):
        with pytest.raises(UsageError, match="a tag of letters"):
            history.tag(bad, first)


def test_a_commit_means_its_newest_complete_run(tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    commit = {"commit": "feedbeef" * 5, "machine_key": "m"}
    runs = [
        replace(make_run(tmp_path / str(seed), seed), environment=commit | {"created": f"2026-02-0{seed}"}, complete=seed != 3)
        for seed in (1, 2, 3)
    ]
    identities = [history.append(run) for run in runs]
    assert history.find("feedbeef").run_id == identities[1]


def _append_until_killed(path: Path, first: int, report: int) -> None:
    history = History(path)
    for seed in range(first, first + 10_000):
        identity = history.append(make_run(path.parent / str(seed), seed))
        os.write(report, f"{identity}\n".encode())


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    """Three writers are killed at arbitrary moments: every id that append returned is there, whole, and nothing is damaged."""
    path = tmp_path / "h.sqlite"
    History(path)
    context = multiprocessing.get_context("fork")
    reading, writing = os.pipe()
    workers = [context.Process(target=_append_until_killed, args=(path, 10_000 * i, writing)) for i in range(3)]
    for worker in workers:
        worker.start()
    acknowledged = b""
    for worker in workers:
        acknowledged += os.read(reading, 200)
        time.sleep(0.05)
        os.kill(worker.pid or 0, signal.SIGKILL)
        worker.join(30)
    os.close(writing)
    while more := os.read(reading, 65536):
        acknowledged += more
    history = History(path)
    stored = {entry.run_id for entry in history.runs()}
    whole = {line for line in acknowledged.decode().split("\n")[:-1] if len(line) == 32}
    assert len(whole) >= 3 and whole <= stored
    assert all(run_id(history.load(identity)) == identity for identity in stored)
    history.append(make_run(tmp_path / "after", 5))
