"""The tables of the history, and how a file of an older version becomes one of this version."""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import ArtifactError

SCHEMA_VERSION = 2
APPLICATION_ID = 0x696C6662  # "ilfb", in the header of the file: tells our databases from others
BUSY_S = 30.0
SUMMARY = "summary"  # the key of a record that version 1 left behind, without per-image values

RUNS_TABLE = """CREATE TABLE runs (id TEXT PRIMARY KEY, created TEXT NOT NULL, preset TEXT NOT NULL, spec_digest TEXT NOT NULL,
    commit_id TEXT NOT NULL, dirty INTEGER NOT NULL, machine_key TEXT NOT NULL, path TEXT NOT NULL, complete INTEGER NOT NULL)"""
TABLES = (
    """CREATE TABLE records (run_id TEXT NOT NULL REFERENCES runs(id), header TEXT NOT NULL, "values" BLOB NOT NULL)""",
    "CREATE INDEX records_of_runs ON records (run_id)",
    "CREATE TABLE tags (tag TEXT NOT NULL, run_id TEXT NOT NULL REFERENCES runs(id), created TEXT NOT NULL)",
)


def prepare(database: sqlite3.Connection, path: Path) -> None:
    """Create the tables in an empty file, migrate an older one in a single transaction, refuse any other."""
    with transaction(database):
        version, owner = _pragma(database, "user_version"), _pragma(database, "application_id")
        tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if (version, owner, tables) == (0, 0, 0):
            _create(database)
        else:
            _check(path, version, owner)
            if (state := database.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(f"damaged file: {state}")
            if version == 1:
                _migrate(database)
    _write_ahead(database)


def _check(path: Path, version: int, owner: int) -> None:
    if owner != APPLICATION_ID:
        raise ArtifactError(
            expected=f"an ilf-bench history at {path}", got="another program's database", remedy="name another file"
        )
    if version not in (1, SCHEMA_VERSION):
        remedy = "use the version of ilf-bench that wrote it, or move it away and append the runs again"
        raise ArtifactError(expected=f"history version {SCHEMA_VERSION} at {path}", got=f"version {version}", remedy=remedy)


def _create(database: sqlite3.Connection) -> None:
    database.execute(RUNS_TABLE)
    _protect(database, "runs")
    _add_tables(database)
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _add_tables(database: sqlite3.Connection) -> None:
    for statement in TABLES:
        database.execute(statement)
    for table in ("records", "tags"):
        _protect(database, table)
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _protect(database: sqlite3.Connection, table: str) -> None:
    for action in ("update", "delete"):
        database.execute(
            f"CREATE TRIGGER {table}_no_{action} BEFORE {action} ON {table}"
            " BEGIN SELECT RAISE(ABORT, 'the history is append-only'); END"
        )


def _migrate(database: sqlite3.Connection) -> None:
    """Version 1 had a table of scores and one of timings: each run's rows become one record, marked as a summary."""
    _add_tables(database)
    for (identity,) in database.execute("SELECT id FROM runs ORDER BY rowid").fetchall():
        rows = database.execute("SELECT * FROM scores WHERE run_id = ? ORDER BY rowid", (identity,)).fetchall()
        times = database.execute("SELECT samples FROM timings WHERE run_id = ? ORDER BY rowid", (identity,)).fetchall()
        timings = [sample for (text,) in times for sample in json.loads(text)]
        header = json.dumps({SUMMARY: True, "scores": [_old_score(row) for row in rows], "timings": timings})
        database.execute("INSERT INTO records VALUES (?, ?, ?)", (identity, header, zlib.compress(b"")))
    database.execute("DROP TABLE scores")
    database.execute("DROP TABLE timings")


def _old_score(row: tuple[Any, ...]) -> dict[str, Any]:
    _, method, metric, value, low, high, n, fingerprint, failure = row
    if failure:
        return {"method": method, "metric": metric, "reason": failure}
    bounds = {"value": value, "low": low, "high": high, "n": n}
    return {"method": method, "metric": metric, **bounds, "fingerprint": json.loads(fingerprint)}


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, with the lock of a writer from the beginning."""
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
