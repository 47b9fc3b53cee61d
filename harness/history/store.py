"""The history of runs in one SQLite file: append-only, safe for several writers, and refused when it is not ours.

Each run is kept whole, but for its images and what metrics measured of them, of which it keeps the digests: specification,
environment (commit, dirty flag, machine), every method, score, null control, fault, per-image value, metric fingerprint and raw
time. So gates and comparisons need the history alone. A run's identity is a digest
of that content, not of where it lies: appending the same run twice, or after moving it, changes nothing, while a run that was
resumed becomes a new row. Each record carries digests: a damaged one is named, not used, and appending the run again puts a whole
one beside it. Tags are names for runs; giving one again moves it. Write-ahead logging needs a local disk: keep the
file off network file systems.
"""

from __future__ import annotations

import errno
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.errors import ArtifactError, UsageError
from harness.history.packing import HEADER_LETTERS, Packed, inline, pack, parse_header, run_id, summary, unpack
from harness.history.schema import connect, is_read_only, prepare, restrict, transaction
from harness.results import TimingSample
from harness.storage.records import Run
from harness.text import without_credentials

RUN_ID = re.compile(r"[0-9a-f]{32}")
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")
SHORTEST_COMMIT = 4
NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_SHMSIZE}
START_OVER = "move the history away and append the runs again"
COLUMNS = {  # of the table of runs, after the id
    "created": str,
    "preset": str,
    "spec_digest": str,
    "commit_id": str,
    "dirty": int,
    "machine_key": str,
    "path": str,
    "complete": int,
}
HEADER = f"substr(header, 1, {HEADER_LETTERS + 1})"  # one that is longer is refused by its length
LONGEST_ID = 64  # letters of an id that are read; ours have 32
RECORDS = f'SELECT {HEADER}, "values" FROM records'
RETIRED = f"""SELECT substr(run_id, 1, {LONGEST_ID}) FROM retired
WHERE rowid IN (SELECT max(rowid) FROM retired GROUP BY run_id) AND is_retired"""
ROW = ", ".join(f"substr({name}, 1, 10000)" if kind is str else f"CAST({name} AS INTEGER)" for name, kind in COLUMNS.items())
ORDER = f"SELECT rowid FROM runs ORDER BY substr(created, 1, {LONGEST_ID}), rowid"  # sorting takes memory: no header in it
RUNS = f"""SELECT substr(id, 1, {LONGEST_ID}), {ROW}, (SELECT {HEADER} FROM records WHERE run_id = runs.id
ORDER BY rowid DESC LIMIT 1) FROM runs WHERE rowid = ?"""
NEWEST_TAGS = f"""SELECT tag, run_id FROM tags WHERE rowid IN (SELECT max(rowid) FROM tags GROUP BY tag)
AND length(tag) <= 100 AND length(run_id) <= {LONGEST_ID} ORDER BY tag"""


@dataclass(frozen=True)
class StoredScore:
    """A score without its per-image values, or a failure's reason (then ``value`` is None).

    ``low`` and ``high`` are None for a single image.
    """

    method: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int | None
    fingerprint: Mapping[str, str]
    failure: str
    title: str = ""
    unit: str = ""
    direction: str = ""


@dataclass(frozen=True)
class HistoryEntry:
    """One run as the history lists it. ``path`` is what its record says of where it lay; nobody follows it."""

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
    spec: Mapping[str, Any]
    environment: Mapping[str, Any]
    tags: tuple[str, ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        """Every method with a score, a failure or a time, in the order they were stored."""
        return tuple(dict.fromkeys([*(s.method for s in self.scores), *(t.method for t in self.timings)]))


@dataclass(frozen=True)
class Listing:
    """What a history holds: ``unreadable`` says by run id why a record is passed over; ``retired`` counts those set aside."""

    entries: tuple[HistoryEntry, ...]
    unreadable: Mapping[str, str]
    retired: int


class History:
    """An append-only store of runs in one file. Every error of the file is an :class:`ArtifactError` with a remedy."""

    def __init__(self, path: Path) -> None:
        """Open the history at ``path``, created where there is none; refuses damaged and foreign files, and other formats.

        One that this user may not write is read, and only :meth:`append`, :meth:`tag` and :meth:`retire` are refused.
        """
        self.path = Path(path)
        self.read_only = is_read_only(self.path)
        with self._connected() as database:
            prepare(database, self.path, read_only=self.read_only)

    def append(self, run: Run, tags: tuple[str, ...] = (), *, keep: bool = False) -> str:
        """Add a run in one transaction and return its id; a run that is already there whole only gets the tags, with ``keep``
        those alone that no run has."""
        packed = pack(run)
        unpack(packed)  # what could not be read again does not enter
        identity = run_id(run)
        with self._writing() as database:
            if database.execute("SELECT 1 FROM runs WHERE id = ?", (identity,)).fetchone() is None:
                database.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (identity, *_run_row(run)))
            found = database.execute(f"{RECORDS} WHERE run_id = ?", (identity,))
            if not any(Packed(*row).is_intact() for row in found):
                database.execute("INSERT INTO records VALUES (?, ?, ?)", (identity, packed.header, packed.values))
            held = dict(database.execute(NEWEST_TAGS).fetchall())
            for tag in tags:
                if held.get(tag) != identity and not (keep and tag in held):
                    database.execute("INSERT INTO tags VALUES (?, ?, ?)", (tag, identity, _now()))
        return identity

    def tag(self, name: str, identity: str) -> None:
        """Name a run; the name is taken from whichever run had it."""
        if not TAG.fullmatch(name):
            raise UsageError(
                expected="a tag of letters, digits, '.', '_', '/' and '-'", got=repr(name), remedy="choose another name"
            )
        with self._writing() as database:
            database.execute("INSERT INTO tags VALUES (?, ?, ?)", (name, identity, _now()))

    def tagged(self) -> dict[str, str]:
        """The run's id for each tag."""
        with self._connected() as database:
            return dict(database.execute(NEWEST_TAGS).fetchall())

    def runs(self) -> tuple[HistoryEntry, ...]:
        """Every readable run that is not retired, oldest first by its own creation time, then by the order of appending."""
        return self.listing().entries

    def listing(self) -> Listing:
        """The runs, and beside them those that cannot be read: one bad record hides no other."""
        found, unreadable = [], {}
        with self._connected() as database:
            tags = database.execute(NEWEST_TAGS).fetchall()
            retired = {identity for (identity,) in database.execute(RETIRED)}
            for place in database.execute(ORDER).fetchall():
                row = database.execute(RUNS, place).fetchone()
                identity = str(row[0])
                if identity in retired:
                    continue
                try:
                    found.append(_entry(row, tuple(tag for tag, owner in tags if owner == identity)))
                except ArtifactError as error:
                    unreadable[identity] = f"{error.got}; {error.remedy}, or ilf-bench history retire {identity[:12]}"
        return Listing(tuple(found), unreadable, len(retired))

    def retire(self, beginning: str, *, is_retired: bool = True) -> str:
        """Set the run aside whose id begins so, readable or not, or take it back; nothing is deleted. Returns its id."""
        with self._writing() as database:
            known = [identity for (identity,) in database.execute("SELECT id FROM runs") if str(identity).startswith(beginning)]
            if len(known) != 1 or not beginning:
                got = "none" if not known else f"{len(known)} of them"
                raise UsageError(
                    expected=f"the beginning of one run's id in {self.path}",
                    got=f"{beginning!r}: {got}",
                    remedy="see ilf-bench history",
                )
            database.execute("INSERT INTO retired VALUES (?, ?, ?)", (known[0], int(is_retired), _now()))
        return str(known[0])

    def packed(self, identity: str) -> Packed:
        """The stored record of one run."""
        with self._connected() as database:
            newest = f"{RECORDS} WHERE run_id = ? ORDER BY rowid DESC LIMIT 1"
            found = database.execute(newest, (identity,)).fetchone()
        if found is None:
            raise ArtifactError(expected=f"run {identity} in {self.path}", got="no record of it", remedy="see ilf-bench history")
        return Packed(*found)

    def load(self, identity: str) -> Run:
        """A run as :func:`harness.storage.records.read_run` gave it, from the history alone; its images lie where they lay."""
        packed = self.packed(identity)
        with self._naming(identity):
            run = unpack(packed)
            if run_id(run) != identity:
                raise ArtifactError(expected="the run of that id", got=f"the record of run {run_id(run)[:12]}", remedy=START_OVER)
            return run

    def exported(self) -> Iterator[dict[str, Any]]:
        """Every run of :meth:`runs` as one JSON object: its columns, ``tags``, and ``record`` with all values in place."""
        for entry in self.runs():
            with self._connected() as database:
                row = database.execute(f"SELECT {ROW} FROM runs WHERE id = ?", (entry.run_id,)).fetchone()
                columns = dict(zip(COLUMNS, row, strict=True))
            with self._naming(entry.run_id):
                record = inline(self.packed(entry.run_id))
            yield {"id": entry.run_id, **columns, "tags": list(entry.tags), "record": record}

    def find(self, text: str) -> HistoryEntry:
        """A run by its tag, its folder, its id or the beginning of it, or by its commit (the newest complete run of that)."""
        entries = self.runs()
        tagged = [entry for entry in entries if text in entry.tags]
        here = [entry for entry in entries if entry.path == Path(text).resolve()] if text else []
        if tagged or here:
            return (tagged or here)[-1]
        lower = text.lower()
        named = [entry for entry in entries if text and entry.run_id.startswith(lower)]
        if not named and len(text) >= SHORTEST_COMMIT:
            of_commit = [entry for entry in entries if entry.commit.startswith(lower)]
            if len({entry.commit for entry in of_commit}) == 1:
                return ([entry for entry in of_commit if entry.complete] or of_commit)[-1]
            named = of_commit
        if len(named) == 1:
            return named[0]
        if named:
            names = ", ".join(f"{entry.run_id[:12]} (commit {entry.commit[:12]})" for entry in named[:5])
            raise ArtifactError(
                expected=f"one run in {self.path}",
                got=f"{len(named)} that begin with {text!r}: {names}",
                remedy="give more digits",
            )
        raise ArtifactError(
            expected=f"a run folder, or a tag, run id or commit in {self.path}", got=repr(text), remedy="see ilf-bench history"
        )

    @contextmanager
    def _naming(self, identity: str) -> Iterator[None]:
        """Errors of one record name it and the file."""
        try:
            yield
        except ArtifactError as error:
            where = f"{error.expected}, {identity[:12]} in {self.path}"
            raise ArtifactError(expected=where, got=error.got, remedy=error.remedy) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        if self.read_only:
            raise UsageError(
                expected=f"a history at {self.path} that this user may write",
                got="one that can only be read",
                remedy="name a folder of your own with --out",
            )
        with self._connected() as database, transaction(database):
            yield database

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for each call; WAL and the busy timeout let other processes write meanwhile."""
        database: sqlite3.Connection | None = None
        try:
            database = connect(self.path, read_only=self.read_only)
            restrict(database)
            yield database
        except (sqlite3.Error, OSError) as error:
            if getattr(error, "sqlite_errorcode", None) in NO_ROOM:
                raise OSError(errno.ENOSPC, "no room for the history", str(self.path)) from error
            busy = isinstance(error, sqlite3.OperationalError) and "locked" in str(error)
            remedy = "wait for the other writer and try again" if busy else f"move {self.path} away and append the runs again"
            if self.read_only:
                remedy = "copy it and the files beside it to a folder of your own, and name that with --out"
            raise ArtifactError(expected=f"a usable history at {self.path}", got=str(error), remedy=remedy) from error
        finally:
            if database is not None:
                database.close()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _run_row(run: Run) -> tuple[Any, ...]:
    *columns, complete = _columns(run)
    return *columns, without_credentials(str(run.path.resolve())), complete


def _columns(run: Run) -> tuple[Any, ...]:
    """A row of ``runs`` without id and path."""
    digest, commit = str(run.spec.get("digest", "")), str(run.environment.get("commit") or "")
    created, machine = str(run.environment.get("created") or ""), str(run.environment.get("machine_key") or "")
    return created, str(run.spec["name"]), digest, commit, int(bool(run.environment.get("dirty"))), machine, int(run.complete)


def _entry(row: tuple[Any, ...], tags: tuple[str, ...]) -> HistoryEntry:
    identity, created, preset, digest, commit, dirty, machine, _, complete, text = row
    try:
        if not RUN_ID.fullmatch(identity):
            raise ValueError(f"an id {identity!r}")
        found = summary(parse_header(text))
        if (*row[1:7], complete) != _columns(found.run):
            raise ValueError("a row that its record does not fit")
        scores = [_stored(content, interval) for content, interval in found.scores]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ArtifactError(expected="a whole record of a run", got=repr(error), remedy=START_OVER) from error
    failed = [StoredScore(f.method, "", None, None, None, None, {}, f.reason) for f in found.run.failed_methods]
    return HistoryEntry(
        identity,
        created,
        preset,
        digest,
        commit,
        bool(dirty),
        machine,
        found.run.path,
        bool(complete),
        (*scores, *failed),
        found.run.timings,
        found.run.spec,
        found.run.environment,
        tags,
    )


def _stored(content: Mapping[str, Any], interval: Sequence[float]) -> StoredScore:
    method, metric = content["method"], content["metric"]
    if "reason" in content:
        return StoredScore(method, metric, None, None, None, None, {}, content["reason"] or "no reason recorded")
    value, n, title, unit, direction = (content[name] for name in ("value", "n", "title", "unit", "direction"))
    low, high = interval or (None, None)
    return StoredScore(method, metric, value, low, high, n, content["fingerprint"], "", title, unit, direction)
