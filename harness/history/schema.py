"""The tables of the history. A file of another format is refused by name."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import ArtifactError
from harness.storage.records import FORMAT

APPLICATION_ID = 0x696C6662  # "ilfb", in the header of the file: tells our databases from others
BUSY_S = 30.0

TABLES = (
    """CREATE TABLE runs (id TEXT PRIMARY KEY, created TEXT NOT NULL, preset TEXT NOT NULL, spec_digest TEXT NOT NULL,
    commit_id TEXT NOT NULL, dirty INTEGER NOT NULL, machine_key TEXT NOT NULL, path TEXT NOT NULL, complete INTEGER NOT NULL)""",
    """CREATE TABLE records (run_id TEXT NOT NULL REFERENCES runs(id), header TEXT NOT NULL, "values" BLOB NOT NULL)""",
    "CREATE INDEX records_of_runs ON records (run_id)",
    "CREATE TABLE tags (tag TEXT NOT NULL, run_id TEXT NOT NULL REFERENCES runs(id), created TEXT NOT NULL)",
)


def prepare(database: sqlite3.Connection, path: Path) -> None:
    """Create the tables in an empty file, refuse any that is none of ours, is damaged, or has another format."""
    with transaction(database):
        version, owner = _pragma(database, "user_version"), _pragma(database, "application_id")
        tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if (version, owner, tables) == (0, 0, 0):
            _create(database)
        else:
            _check(path, version, owner)
            if (state := database.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(f"damaged file: {state}")
    _write_ahead(database)


def _check(path: Path, version: int, owner: int) -> None:
    if owner != APPLICATION_ID:
        raise ArtifactError(
            expected=f"an ilf-bench history at {path}", got="another program's database", remedy="name another file"
        )
    if version != FORMAT:
        remedy = "read it with the version of ilf-bench that wrote it, or name another file and append runs of this format"
        raise ArtifactError(expected=f"record format {FORMAT} at {path}", got=f"record format {version}", remedy=remedy)


def _create(database: sqlite3.Connection) -> None:
    for statement in TABLES:
        database.execute(statement)
    for table in ("runs", "records", "tags"):
        _protect(database, table)
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {FORMAT}")


def _protect(database: sqlite3.Connection, table: str) -> None:
    for action in ("update", "delete"):
        database.execute(
            f"CREATE TRIGGER {table}_no_{action} BEFORE {action} ON {table}"
            " BEGIN SELECT RAISE(ABORT, 'the history is append-only'); END"
        )


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
