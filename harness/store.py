"""The history of runs in one SQLite file: append-only, safe for several writers, and refused when it is not ours.

A run's identity is a digest of its content (specification, environment, methods, scores, timings), not of where it lies. So
appending the same run twice, or after moving it, changes nothing, while a run that was resumed becomes a new row. Write-ahead
logging needs a local disk: keep the file off network file systems.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.contracts import Failure, Score, TimingSample
from harness.errors import ArtifactError
from harness.places import place
from harness.records import Run
from harness.statistics import mean_interval

SCHEMA_VERSION = 1
APPLICATION_ID = 0x696C6662  # "ilfb", in the header of the file: tells our databases from others
BUSY_S = 30.0
SCHEMA = (
    """CREATE TABLE runs (id TEXT PRIMARY KEY, created TEXT NOT NULL, preset TEXT NOT NULL, spec_digest TEXT NOT NULL,
       commit_id TEXT NOT NULL, dirty INTEGER NOT NULL, machine_key TEXT NOT NULL, path TEXT NOT NULL,
       complete INTEGER NOT NULL)""",
    """CREATE TABLE scores (run_id TEXT NOT NULL REFERENCES runs(id), method TEXT NOT NULL, metric TEXT NOT NULL, value REAL,
       low REAL, high REAL, n INTEGER, fingerprint TEXT NOT NULL, failure TEXT NOT NULL, PRIMARY KEY (run_id, method, metric),
       CHECK ((value IS NULL) = (failure <> '')))""",
    """CREATE TABLE timings (run_id TEXT NOT NULL REFERENCES runs(id), method TEXT NOT NULL, samples TEXT NOT NULL,
       PRIMARY KEY (run_id, method))""",
)

APPEND_ONLY = [
    f"CREATE TRIGGER {table}_no_{action} BEFORE {action} ON {table} BEGIN SELECT RAISE(ABORT, 'the history is append-only'); END"
    for table in ("runs", "scores", "timings")
    for action in ("update", "delete")
]


@dataclass(frozen=True)
class StoredScore:
    """A score without its per-image values; ``low`` and ``high`` are None for a single image. Or a failure's reason."""

    method: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int | None
    fingerprint: Mapping[str, str]
    failure: str


@dataclass(frozen=True)
class HistoryEntry:
    """One run as the history keeps it. ``path`` is where it lay when it was appended."""

    run_id: str
    created: str
    preset: str
    spec_digest: str
    commit: str
    dirty: bool
    machine_key: str
    path: Path
    complete: bool
    scores: tuple[StoredScore, ...]
    timings: tuple[TimingSample, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        """Every method with a score, a failure or a time, in the order they were stored."""
        return tuple(dict.fromkeys([*(s.method for s in self.scores), *(t.method for t in self.timings)]))


def run_id(run: Run) -> str:
    """32 hexadecimal digits over everything a report shows of a run, wherever it lies."""
    scores = []
    for key in sorted(run.scores):
        score = run.scores[key]
        content = asdict(score)
        if isinstance(score, Score):
            content["per_image"] = hashlib.sha256(np.ascontiguousarray(score.per_image).tobytes()).hexdigest()
        scores.append(content)
    timings = [asdict(sample) for sample in sorted(run.timings, key=lambda t: (t.round, t.method))]
    methods = sorted((asdict(m) for m in run.methods), key=lambda m: str(m["label"]))
    failed = [asdict(failure) for failure in run.failed_methods]
    everything = [run.spec, run.environment, methods, failed, scores, timings, run.complete]
    return hashlib.sha256(json.dumps(everything, sort_keys=True, default=dict).encode()).hexdigest()[:32]


class History:
    """An append-only store of runs in one file. Every error of the file is an :class:`ArtifactError` with a remedy."""

    def __init__(self, path: Path) -> None:
        """Open the history at ``path``, creating it where there is none; refuses damaged and foreign files."""
        self.path = Path(path)
        with self._connected() as database:
            self._prepare(database)

    def append(self, run: Run) -> str:
        """Add a run in one transaction and return its id; a run that is already there is left as it is."""
        identity = run_id(run)
        with self._connected() as database, _transaction(database):
            if database.execute("SELECT 1 FROM runs WHERE id = ?", (identity,)).fetchone() is None:
                database.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (identity, *_run_row(run)))
                database.executemany(
                    "INSERT INTO scores VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [(identity, *row) for row in _score_rows(run)]
                )
                database.executemany("INSERT INTO timings VALUES (?, ?, ?)", [(identity, *row) for row in _timing_rows(run)])
        return identity

    def runs(self) -> tuple[HistoryEntry, ...]:
        """Every run, oldest first by its own creation time, then by the order of appending."""
        with self._connected() as database:
            rows = database.execute("SELECT * FROM runs ORDER BY created, rowid").fetchall()
            return tuple(_entry(database, row) for row in rows)

    def find(self, text: str) -> HistoryEntry:
        """A run by its id, by an unambiguous beginning of it, or by its folder (the newest state of it)."""
        with self._connected() as database:
            rows = database.execute(
                "SELECT * FROM runs WHERE path = ? ORDER BY created, rowid", (str(place(text).resolve()),)
            ).fetchall()[-1:]
            if not rows and text:
                rows = database.execute("SELECT * FROM runs WHERE substr(id, 1, ?) = ?", (len(text), text.lower())).fetchall()
            if len(rows) == 1:
                return _entry(database, rows[0])
        if rows:
            names = ", ".join(row[0][:12] for row in rows[:5])
            raise ArtifactError(
                expected=f"one run in {self.path}",
                got=f"{len(rows)} whose id begins with {text!r}: {names}",
                remedy="give more digits",
            )
        raise ArtifactError(
            expected=f"a run id, its beginning, or a run folder in {self.path}", got=repr(text), remedy="see ilf-bench history"
        )

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for each call; WAL and the busy timeout let other processes write meanwhile."""
        database: sqlite3.Connection | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
            database.execute("PRAGMA foreign_keys = ON")
            yield database
        except (sqlite3.Error, OSError) as error:
            busy = isinstance(error, sqlite3.OperationalError) and "locked" in str(error)
            remedy = "wait for the other writer and try again" if busy else f"move {self.path} away and append the runs again"
            raise ArtifactError(expected=f"a usable history at {self.path}", got=str(error), remedy=remedy) from error
        finally:
            if database is not None:
                database.close()

    def _prepare(self, database: sqlite3.Connection) -> None:
        with _transaction(database):
            version, owner = _pragma(database, "user_version"), _pragma(database, "application_id")
            tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if (version, owner, tables) == (0, 0, 0):
                for statement in (*SCHEMA, *APPEND_ONLY):
                    database.execute(statement)
                database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                version, owner = SCHEMA_VERSION, APPLICATION_ID
        self._check(version, owner)
        if (state := database.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(f"damaged file: {state}")
        _write_ahead(database)

    def _check(self, version: int, owner: int) -> None:
        if owner != APPLICATION_ID:
            raise ArtifactError(
                expected=f"an ilf-bench history at {self.path}", got="another program's database", remedy="name another file"
            )
        if version != SCHEMA_VERSION:
            remedy = "use the version of ilf-bench that wrote it, or move it away and append the runs again"
            raise ArtifactError(
                expected=f"history version {SCHEMA_VERSION} at {self.path}", got=f"version {version}", remedy=remedy
            )


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _pragma(database: sqlite3.Connection, name: str) -> int:
    return int(database.execute(f"PRAGMA {name}").fetchone()[0])


def _write_ahead(database: sqlite3.Connection) -> None:
    """Switch to WAL. SQLite does not wait for its busy timeout here, so a second opener at the same moment retries."""
    deadline = time.monotonic() + BUSY_S
    while database.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _run_row(run: Run) -> tuple[Any, ...]:
    env, spec = run.environment, run.spec
    digest, commit = str(spec.get("digest", "")), str(env.get("commit") or "")
    created, machine = str(env.get("created") or ""), str(env.get("machine_key") or "")
    return (
        created,
        str(spec["name"]),
        digest,
        commit,
        int(bool(env.get("dirty"))),
        machine,
        str(run.path.resolve()),
        int(run.complete),
    )


def _score_rows(run: Run) -> list[tuple[Any, ...]]:
    order = {str(label): i for i, label in enumerate(run.spec["method_labels"])}
    scores = sorted(run.scores.values(), key=lambda s: order.get(s.method, len(order)))
    rows = [_score_row(score) for score in scores]
    return rows + [(f.method, "", None, None, None, None, "{}", f.reason or "no reason recorded") for f in run.failed_methods]


def _score_row(score: Score | Failure) -> tuple[Any, ...]:
    if isinstance(score, Failure):
        return score.method, score.metric, None, None, None, None, "{}", score.reason or "no reason recorded"
    interval = mean_interval(np.asarray(score.per_image, np.float64))
    bounds = [bound if math.isfinite(bound) else None for bound in (interval.low, interval.high)]
    return score.method, score.metric, score.value, *bounds, score.n, json.dumps(dict(score.fingerprint), sort_keys=True), ""


def _timing_rows(run: Run) -> list[tuple[str, str]]:
    methods = dict.fromkeys(t.method for t in run.timings)
    return [(method, json.dumps([asdict(t) for t in run.timings if t.method == method])) for method in methods]


def _entry(database: sqlite3.Connection, row: tuple[Any, ...]) -> HistoryEntry:
    identity, created, preset, digest, commit, dirty, machine, path, complete = row
    scores = database.execute(
        "SELECT method, metric, value, low, high, n, fingerprint, failure FROM scores WHERE run_id = ? ORDER BY rowid",
        (identity,),
    ).fetchall()
    timings = database.execute("SELECT samples FROM timings WHERE run_id = ? ORDER BY rowid", (identity,)).fetchall()
    try:
        samples = tuple(TimingSample(**sample) for (text,) in timings for sample in json.loads(text))
        stored = tuple(StoredScore(m, name, v, low, high, n, json.loads(f), why) for m, name, v, low, high, n, f, why in scores)
    except (ValueError, TypeError) as error:
        raise sqlite3.DatabaseError(f"damaged record of run {identity}: {error}") from error
    where = place(path)
    return HistoryEntry(identity, created, preset, digest, commit, bool(dirty), machine, where, bool(complete), stored, samples)
