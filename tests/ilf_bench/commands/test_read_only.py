"""A colleague's runs, which may be read and not written: all that only reads works, all else says what to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.history.store import History
from tests.reports.conftest import Fake, write_fake

CALLS = """
import contextlib, io, json, sys
from ilf_bench.cli import main

found = []
for call in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(call)
    found.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(found))
"""
RIGHTS = "-dac_override,-dac_read_search"  # what lets root write anyway


def as_anybody(calls: list[list[str]], folder: Path) -> list[tuple[int, str]]:
    """Exit code and all output of each call, in a process to which the permissions of files apply, also where we are root."""
    program = [sys.executable, "-c", CALLS, json.dumps(calls)]
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root without setpriv may write everything")
        program = ["setpriv", f"--bounding-set={RIGHTS}", f"--inh-caps={RIGHTS}", *program]
    environment = os.environ | {"COLUMNS": "80", "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return [(code, out + err) for code, out, err in json.loads(done.stdout.splitlines()[-1])]


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[Path]:
    """Two runs and their history, none of which may be written."""
    folder = tmp_path / "theirs"
    for name in ("a", "b"):
        History(folder / "history.sqlite").append(write_fake(folder / name, Fake(timing_seed=ord(name))), (name,))
    everything = [folder, *folder.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in everything:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_read_only_runs_and_their_history_can_be_read(theirs: Path, tmp_path: Path) -> None:
    out = ["--out", str(theirs)]
    before = {path: path.stat().st_mtime_ns for path in theirs.rglob("*")}
    readers = [
        ["history", *out, "--html", str(tmp_path / "history.html")],
        ["compare", "a", "b", *out],
        ["gate", "b", "--against", "a", *out],
        ["export", str(tmp_path / "history.json"), *out],
        ["report", str(theirs / "a"), "--out", str(tmp_path / "report")],
    ]
    writers = [["tag", "mine", "a", *out], ["history", "retire", History(theirs / "history.sqlite").runs()[0].run_id, *out]]
    found = as_anybody([*readers, *writers, ["report", str(theirs / "a")]], tmp_path)
    assert [code for code, _ in found[: len(readers)]] == [0, 0, 0, 0, 0], found
    assert "tiny-text" in found[0][1] and "×1" in found[1][1] and "gate: PASS" in found[2][1]
    assert (tmp_path / "report" / "index.html").exists() and (tmp_path / "report" / "paper" / "table.tex").exists()
    for code, said in found[len(readers) : -1]:
        assert code == 64 and "one that can only be read" in said and "--out" in said
    assert found[-1][0] != 0 and "--out" in found[-1][1]
    assert {path: path.stat().st_mtime_ns for path in theirs.rglob("*")} == before, "nothing was written"


def test_runs_are_compared_where_no_history_can_be_made(theirs: Path) -> None:
    """From a folder that may not be written, with the folders of the runs."""
    runs = [str(theirs / name) for name in ("a", "b")]
    ((code, said),) = as_anybody([["compare", *runs]], theirs)
    assert code == 0 and "×1" in said


def test_what_a_writer_has_not_merged_yet_is_read_too(theirs: Path, tmp_path: Path) -> None:
    """A log beside the file holds the newest runs: they are seen while their writer is still there."""
    theirs.chmod(0o755)
    (theirs / "history.sqlite").chmod(0o644)
    history = History(theirs / "history.sqlite")
    with history._connected() as writer:
        writer.execute("SELECT count(*) FROM runs").fetchone()
        history.tag("newest", history.runs()[-1].run_id)
        assert (theirs / "history.sqlite-wal").stat().st_size > 0
        for path in theirs.glob("history.sqlite*"):
            path.chmod(0o444)
        theirs.chmod(0o555)
        ((code, said),) = as_anybody([["gate", "newest", "--against", "a", "--out", str(theirs)]], tmp_path)
        theirs.chmod(0o755)
    assert code == 0 and "gate: PASS" in said
