"""A history from a stranger: its schema is ours or it is not read; its paths are texts; one bad record hides no other."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from harness.errors import ArtifactError, UsageError
from harness.history.export import export_history, import_history
from harness.history.packing import unpack
from harness.history.schema import SUPER_JOURNAL
from harness.history.store import History
from harness.storage.files import digest
from ilf_bench.cli import main
from tests.runs import make_run
from tests.security.crafted import MIB, bounded

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"
SCHEMAS = {
    "an endless view": [f"CREATE VIEW more AS {ENDLESS}"],
    "an endless view for a table": [
        "DROP TABLE tags",
        f"CREATE VIEW tags AS SELECT x AS tag, x AS run_id FROM ({ENDLESS})",
    ],
    "a trigger": ["CREATE TRIGGER more AFTER INSERT ON runs BEGIN DELETE FROM tags; END"],
    "a missing trigger": ["DROP TRIGGER runs_no_delete"],
    "a column": ["ALTER TABLE tags ADD COLUMN more TEXT"],
    "an index on an expression": ["CREATE INDEX more ON runs (abs(complete))"],
    "a table": ["CREATE TABLE more (x)"],
}


@pytest.fixture
def history(tmp_path: Path) -> History:
    made = History(tmp_path / "runs" / "history.sqlite")
    for seed in range(3):
        made.append(make_run(tmp_path / "runs" / str(seed), seed))
    return made


def without_triggers(database: sqlite3.Connection) -> list[str]:
    """Drop the triggers that keep a history append-only, as a stranger does, and return what makes them again."""
    texts = [sql for (sql,) in database.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'")]
    for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        database.execute(f"DROP TRIGGER {name}")
    return texts


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_schema_that_is_not_ours_is_refused(kind: str, history: History) -> None:
    with sqlite3.connect(history.path) as database:
        for statement in SCHEMAS[kind]:
            database.execute(statement)
    with bounded(), pytest.raises(ArtifactError, match="tables of a history"):
        History(history.path).runs()


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_a_link_in_place_of_a_file_of_sqlite_is_refused(suffix: str, history: History, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"precious")
    place = history.path.with_name(history.path.name + suffix)
    place.unlink(missing_ok=True)
    place.symlink_to(secret)
    with pytest.raises(ArtifactError, match="a link"):
        History(history.path).append(make_run(tmp_path / "more", 9))
    assert secret.read_bytes() == b"precious"


def hot_journal(folder: Path, victim: Path) -> Path:
    """A database in the middle of a transaction whose journal names ``victim`` as its super-journal."""
    source, copy = folder / "source.db", folder / "history.sqlite"
    with sqlite3.connect(source) as database:
        database.executescript("CREATE TABLE t (x); INSERT INTO t VALUES (1);")
    database.close()
    writer = sqlite3.connect(source, isolation_level=None)
    writer.execute("PRAGMA cache_size = 1")
    writer.execute("BEGIN IMMEDIATE")
    writer.executemany("INSERT INTO t VALUES (?)", [("x" * 3000,)] * 50)
    copy.write_bytes(source.read_bytes())
    journal = Path(f"{source}-journal").read_bytes()
    writer.execute("ROLLBACK")
    writer.close()
    name = str(victim).encode()
    record = struct.pack(">I", 2**30 // 4096 + 1) + name + struct.pack(">II", len(name), sum(name)) + SUPER_JOURNAL
    Path(f"{copy}-journal").write_bytes(journal + bytes(-len(journal) % 512) + record)
    return copy


def test_a_journal_deletes_no_file_that_it_names(tmp_path: Path) -> None:
    """SQLite by itself does, as the second half shows: so the first could fail."""
    victim = tmp_path / "precious.txt"
    victim.write_text("precious")
    for name in ("plain", "ours"):
        (tmp_path / name).mkdir()
    ours = hot_journal(tmp_path / "ours", victim)
    with pytest.raises(ArtifactError, match="names another file"):
        History(ours)
    assert victim.exists()
    plain = hot_journal(tmp_path / "plain", victim)
    sqlite3.connect(plain).execute("SELECT count(*) FROM t").fetchone()
    assert not victim.exists()


def reseal(history: History, identity: str, change: dict[str, object], values: bytes | None = None) -> None:
    """Write other content into a record and give it the digests that fit, as whoever has the file can."""
    packed = history.packed(identity)
    header = json.loads(packed.header)
    header.pop("sha256")
    header |= change
    if values is not None:
        header["values_sha256"] = digest(values)
    text = json.dumps(header | {"sha256": digest(json.dumps(header, sort_keys=True).encode())}, sort_keys=True)
    with sqlite3.connect(history.path) as database:
        made = without_triggers(database)
        database.execute(
            'UPDATE records SET header = ?, "values" = ? WHERE run_id = ?',
            (text, packed.values if values is None else values, identity),
        )
        for statement in made:
            database.execute(statement)


@pytest.mark.parametrize("path", ["http://127.0.0.1:9/x", "s3://bucket/x", "nothing://x", "memory://x", "/net/host/x"])
def test_a_path_in_a_record_contacts_nobody(path: str, history: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reached: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda *arguments: reached.append(arguments))
    monkeypatch.setattr(fsspec, "filesystem", lambda *arguments, **options: reached.append(arguments))
    identity = history.runs()[-1].run_id
    reseal(history, identity, {"path": path})
    out = ["--out", str(history.path.parent)]
    assert str(history.runs()[-1].path) in (path, path.replace("//", "/"))
    assert main(["history", "--html", str(tmp_path / "page.html"), *out]) == 0
    main(["gate", "--against", history.runs()[0].run_id, *out])
    main(["power", "tiny-text", *out])
    assert export_history(history, tmp_path / "export.json") == 3
    assert not reached


def test_a_bad_record_is_named_and_hides_no_other(history: History, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bad, *others = (entry.run_id for entry in history.runs())
    packed = unpack(history.packed(bad))
    records = json.loads(history.packed(bad).header)["records"]
    name = next(name for name in records if name.startswith("timing/"))
    records[name][0]["latency_s"] = 1e308
    reseal(history, bad, {"records": records})
    out = ["--out", str(history.path.parent)]
    for command in (["history"], ["gate", others[1], "--against", others[0]], ["compare", *others]):
        code = main([*command, *out])
        said = capsys.readouterr()
        assert code in (0, 1, 2, 3) and f"passed over: run {bad[:12]}" in said.err and said.err.count("\n") == 1, command
    assert main(["export", str(tmp_path / "e.json"), *out]) == 0
    assert import_history(History(tmp_path / "other.sqlite"), tmp_path / "e.json").runs == 2
    capsys.readouterr()
    assert main(["history", "retire", bad[:8], *out]) == 0 and main(["history", *out]) == 0
    said = capsys.readouterr()
    assert "passed over" not in said.err and "nothing was deleted" in said.out
    assert main(["history", "restore", bad, *out]) == 0 and history.listing().unreadable.keys() == {bad}
    assert packed.complete and set(history.packed(bad).header)


@pytest.mark.parametrize("given", ["", "zz", "0123456789"])
def test_only_a_known_run_is_retired(given: str, history: History) -> None:
    with pytest.raises(UsageError):
        history.retire(given)


def test_values_that_would_become_more_are_refused(history: History) -> None:
    identity = history.runs()[0].run_id
    reseal(history, identity, {}, zlib.compress(bytes(1024 * MIB), 1))
    with bounded(), pytest.raises(ArtifactError):
        history.load(identity)


def large_shapes(header: dict[str, Any]) -> bytes:
    header["arrays"] = [[*entry[:3], [2**27]] for entry in header["arrays"]]
    return zlib.compress(bytes(1024 * MIB), 1)


def many_shapes(header: dict[str, Any]) -> bytes:
    name, key, *_ = header["arrays"][0]
    header["arrays"] = [[name, f"{key}{i}", "float32", [2**22]] for i in range(64)]
    return zlib.compress(bytes(1024 * MIB), 1)


def negative_shapes(header: dict[str, Any]) -> bytes:
    header["arrays"] = [[*entry[:3], [-1, -1]] for entry in header["arrays"]]
    return zlib.compress(b"")


@pytest.mark.parametrize("make", [large_shapes, many_shapes, negative_shapes])
def test_shapes_of_a_record_fill_no_memory(make: Callable[[dict[str, Any]], bytes], history: History) -> None:
    bad = history.runs()[0].run_id
    header = json.loads(history.packed(bad).header)
    values = make(header)
    reseal(history, bad, {"arrays": header["arrays"]}, values)
    with bounded(), pytest.raises(ArtifactError, match=r"bytes, more|of values, more|an array of shape"):
        history.load(bad)


@pytest.mark.parametrize("text", ['{"a":[' + "[]," * 7_000_000 + "[]]}", '"' + "x" * 70_000_000 + '"'])
def test_a_header_that_becomes_more_is_passed_over(text: str, history: History, capsys: pytest.CaptureFixture[str]) -> None:
    bad, *others = (entry.run_id for entry in history.runs())
    with sqlite3.connect(history.path) as database:
        made = without_triggers(database)
        database.execute("UPDATE records SET header = ? WHERE run_id = ?", (text, bad))
        database.execute("INSERT INTO runs SELECT ?, created, '', '', '', 0, '', '', 0 FROM runs LIMIT 1", ("0" * 32,))
        database.execute("INSERT INTO records VALUES (?, ?, x'')", ("0" * 32, text))
        for statement in made:
            database.execute(statement)
    del text
    out = ["--out", str(history.path.parent)]
    with bounded():
        listing = history.listing()
    assert {entry.run_id for entry in listing.entries} == set(others) and len(listing.unreadable) == 2
    assert all("MiB" in reason for reason in listing.unreadable.values())
    for command in (["gate", others[1], "--against", others[0]], ["export", str(history.path.parent / "e.json")]):
        with bounded():
            assert main([*command, *out]) in (0, 3)
        said = capsys.readouterr()
        assert f"passed over: run {bad[:12]}" in said.err or said.out.startswith("2 runs written")


def test_long_headers_are_read_one_at_a_time(history: History) -> None:
    with sqlite3.connect(history.path) as database:
        for i in range(16):
            row = (f"{i:032x}", "x" * 1_000_000)
            database.execute("INSERT INTO runs VALUES (?, ?, '', '', '', 0, '', '', 0)", row)
            database.execute("INSERT INTO records VALUES (?, replace(hex(zeroblob(10000000)), '00', 'xx'), x'')", row[:1])
    with bounded(mib=200):
        listing = history.listing()
    assert len(listing.entries) == 3 and len(listing.unreadable) == 16


def test_a_schema_of_long_texts_is_not_read_whole(history: History) -> None:
    with sqlite3.connect(history.path) as database:
        for i in range(4):
            database.execute(f"CREATE TABLE t{i} (x /*{'x' * 100_000_000}*/)")
    database.close()
    with bounded(), pytest.raises(ArtifactError, match="others among them"):
        History(history.path)


def test_an_interrupt_ends_a_long_statement(tmp_path: Path) -> None:
    code = (
        "import sqlite3, sys\nfrom harness.history.schema import restrict\n"
        "from harness.execution.interrupts import listen\nlisten()\n"
        f"database = sqlite3.connect(':memory:')\nrestrict(database)\nprint('ready', flush=True)\n"
        f"database.execute('SELECT max(x) FROM ({ENDLESS})').fetchall()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=os.getcwd())
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    process.terminate()
    assert process.wait(timeout=20) != 0
