"""The tables of the history. A file of another format is refused by name."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import ArtifactError
from harness.storage.locations import can_write
from harness.storage.records import FORMAT, check_format

APPLICATION_ID = 0x696C6662  # "ilfb", in the header of the file: tells our databases from others
BUSY_S = 30.0

TABLES = (
    """CREATE TABLE runs (id TEXT PRIMARY KEY, created TEXT NOT NULL, preset TEXT NOT NULL, spec_digest TEXT NOT NULL,
    commit_id TEXT NOT NULL, dirty INTEGER NOT NULL, machine_key TEXT NOT NULL, path TEXT NOT NULL, complete INTEGER NOT NULL)""",
    """CREATE TABLE records (run_id TEXT NOT NULL REFERENCES runs(id), header TEXT NOT NULL, "values" BLOB NOT NULL)""",
    "CREATE INDEX records_of_runs ON records (run_id)",
    "CREATE TABLE tags (tag TEXT NOT NULL, run_id TEXT NOT NULL REFERENCES runs(id), created TEXT NOT NULL)",
    "CREATE TABLE retired (run_id TEXT NOT NULL REFERENCES runs(id), is_retired INTEGER NOT NULL, created TEXT NOT NULL)",
)
LONGEST = 256 * 2**20  # bytes of a value or of a statement
SCHEMA_ROWS, SCHEMA_LETTERS = 100, 2000  # more than ours has, and more than each of its texts
LOOKS = 100_000  # instructions of SQLite between two looks at the clock
PREPARED_S = 10.0  # within which a file is known to be ours
BESIDE = ("", "-wal", "-shm", "-journal")  # the file, and those that SQLite opens with it
SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")  # how a journal ends that names another one


def check_files(path: Path) -> None:
    """Raise :class:`OSError` where SQLite would follow a link, or a journal would make it delete another file.

    A journal may name a super-journal, that of a transaction over several databases, which SQLite deletes after recovery. No
    transaction of ours has more than one.
    """
    for name in (path.with_name(path.name + suffix) for suffix in BESIDE):
        try:
            found = name.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "a link, or no plain file", str(name))
    journal = path.with_name(f"{path.name}-journal")
    if journal.exists():
        with journal.open("rb") as file:
            file.seek(max(0, journal.stat().st_size - len(SUPER_JOURNAL)))
            if file.read() == SUPER_JOURNAL:
                raise OSError(errno.EINVAL, "a journal that names another file", str(journal))


def is_read_only(path: Path) -> bool:
    """Whether this user may not write a history at ``path``, or nothing beside it, where SQLite keeps its log."""
    return not can_write(path.parent) or (path.exists() and not os.access(path, os.W_OK))


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """A connection; where nothing may be written, one that only reads, and an empty history where there is no file.

    A file without a log beside it is read as it lies there. With a log, somebody may be writing, and SQLite reads both.
    """
    if not read_only:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_files(path)
        return sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    if not path.exists():
        empty = sqlite3.connect(":memory:", isolation_level=None)
        _create(empty)
        return empty
    check_files(path)
    log = path.with_name(f"{path.name}-wal")
    how = "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=BUSY_S, isolation_level=None)


def restrict(database: sqlite3.Connection) -> None:
    """What a file may make SQLite do: nothing that its schema says, and nothing that cannot be interrupted."""
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
    database.execute("PRAGMA trusted_schema = OFF")
    database.execute("PRAGMA cell_size_check = ON")
    database.execute("PRAGMA foreign_keys = ON")
    database.set_progress_handler(lambda: 0, LOOKS)  # Python sees signals there


def prepare(database: sqlite3.Connection, path: Path, *, read_only: bool) -> None:
    """Create the tables in an empty file, refuse any that is none of ours, is damaged, or has another format."""
    deadline = time.monotonic() + PREPARED_S
    with transaction(database, "" if read_only else "IMMEDIATE"):
        database.set_progress_handler(lambda: int(time.monotonic() > deadline), LOOKS)
        version, owner = _pragma(database, "user_version"), _pragma(database, "application_id")
        tables = _schema(database)
        database.set_progress_handler(lambda: 0, LOOKS)
        if (version, owner, tables) == (0, 0, set()) and not read_only:
            _create(database)
        else:
            _check(path, version, owner)
            if tables != _own_schema():
                raise ArtifactError(
                    expected=f"the tables of a history at {path}", got="others among them", remedy="name another file"
                )
            if (state := database.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(f"damaged file: {state}")
            if version != FORMAT and not read_only:  # the tables of the draft are the same
                database.execute(f"PRAGMA user_version = {FORMAT}")
    if not read_only:
        _write_ahead(database)


def _check(path: Path, version: int, owner: int) -> None:
    if owner != APPLICATION_ID:
        raise ArtifactError(
            expected=f"an ilf-bench history at {path}", got="another program's database", remedy="name another file"
        )
    check_format({"format": version}, str(path))


def _schema(database: sqlite3.Connection) -> set[tuple[Any, ...]]:
    """Tables, indexes, views and triggers with their texts, of which as much is read as tells whether they are ours; no row is
    read, and nothing in it is run."""
    texts = ", ".join(f"substr({column}, 1, {SCHEMA_LETTERS})" for column in ("type", "name", "tbl_name", "sql"))
    return set(database.execute(f"SELECT {texts} FROM sqlite_master LIMIT {SCHEMA_ROWS}"))


@cache
def _own_schema() -> frozenset[tuple[Any, ...]]:
    with closing(sqlite3.connect(":memory:")) as database:
        _create(database)
        return frozenset(_schema(database))


def _create(database: sqlite3.Connection) -> None:
    for statement in TABLES:
        database.execute(statement)
    for table in ("runs", "records", "tags", "retired"):
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
def transaction(database: sqlite3.Connection, lock: str = "IMMEDIATE") -> Iterator[None]:
    """All or nothing, with the lock of a writer from the beginning; without it, for reading alone."""
    database.execute(f"BEGIN {lock}")
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
