"""Whatever goes wrong is one line that names the file, what was tried, and a remedy for that very refusal."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from harness.errors import ArtifactError
from harness.paths import ROOT
from harness.storage.files import write_bytes
from harness.storage.locks import held_alone
from ilf_bench import cli
from ilf_bench.failures import explain

REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "quota",
    errno.EROFS: "read-only",
    errno.EACCES: "you are user",
    errno.EPERM: "you are user",
    errno.ENOENT: "it exists as far as",
    errno.ENOTDIR: "a file where a folder is needed",
    errno.EEXIST: "a file where a folder is needed",
    errno.EISDIR: "a folder lies there",
    errno.EMFILE: "ulimit -n",
    errno.ENAMETOOLONG: "a shorter name",
    errno.EIO: "dmesg",
    errno.ENOMEM: "memory is short",
    errno.EBUSY: "another process",
    errno.ECONNREFUSED: "check the network",
}


@pytest.mark.parametrize("number", REMEDIES, ids=errno.errorcode.get)
@pytest.mark.parametrize("named", [True, False])
def test_each_refusal_of_the_system_has_its_remedy(tmp_path: Path, number: int, named: bool) -> None:
    path = tmp_path / "folder" / "file"
    said, code = explain(OSError(number, os.strerror(number), *([str(path)] if named else [])))
    assert code == 74 and said.startswith("error: expected to ") and errno.errorcode[number] in said
    assert not named or str(path) in said
    if named or number != errno.ENOENT:
        assert REMEDIES[number] in said.partition("; remedy: ")[2]


def test_the_place_that_is_named_is_the_one_that_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    for place, word in (("cache", "XDG_CACHE_HOME"), ("hub", "HF_HOME"), ("/srv/runs", "--out")):
        said, _ = explain(OSError(errno.ENOSPC, "full", str(tmp_path / place / "file")))
        assert said.endswith(f"name another folder with {word}"), said


def call(code: str) -> str:
    """What is said about the error that ``code`` raises."""
    with pytest.raises(Exception) as raised:
        exec(code, {"os": os, "Path": Path, "write_bytes": write_bytes})
    return explain(raised.value)[0]


def test_real_refusals_name_the_file_and_what_was_tried(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert f"open {tmp_path}/nowhere" in call(f"open('{tmp_path}/nowhere')")
    assert f"starts at {Path.cwd()}" in call("open('nowhere/at/all')")
    said = call(f"write_bytes(Path('{tmp_path}/file/x'), b'')")
    assert f"{tmp_path}/file is a file where a folder is needed" in said
    (tmp_path / "taken").mkdir()
    assert f"write {tmp_path}/taken; got EISDIR" in call(f"write_bytes(Path('{tmp_path}/taken'), b'')")
    assert "a shorter name" in call(f"open('{tmp_path}/{'x' * 300}')")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_names_the_file_although_the_system_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.mkstemp", lambda **_: (os.open("/dev/full", os.O_WRONLY), str(tmp_path / ".x.tmp")))
    said = call(f"write_bytes(Path('{tmp_path}/record.json'), b'content')")
    assert said.startswith(f"error: expected to write {tmp_path}/record.json; got ENOSPC") and "MB are left" in said


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    said = call(f"write_bytes(Path('{tmp_path}/locked/file'), b'')")
    assert "create" in said and f"{tmp_path}/locked belongs to user" in said and "mode 500" in said


def test_refusals_inside_other_libraries_are_found() -> None:
    said, code = explain(SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert code == 74 and "ENOSPC" in said and "free some space" in said
    said, code = explain(sqlite3.OperationalError("database or disk is full"))
    assert code == 74 and "the history" in said and "free some space" in said
    said, code = explain(sqlite3.OperationalError("attempt to write a readonly database"))
    assert code == 74 and "EACCES" in said


def test_what_is_foreseen_keeps_its_code() -> None:
    said, code = explain(ArtifactError(expected="a", got="b", remedy="c"))
    assert (said, code) == ("error: expected a; got b; remedy: c", 65)
    assert explain(MemoryError())[1] == 74


def test_what_is_unforeseen_is_one_line_a_log_and_70(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def broken(*_: object, **__: object) -> None:
        raise KeyError("surprise\nin two lines")

    monkeypatch.setattr(cli, "app", broken)
    assert cli.main(["list", "presets"]) == 70
    (line,) = capsys.readouterr().err.splitlines()
    found = re.fullmatch(
        r"error: unforeseen: KeyError: .*surprise.* \(test_failures\.py, line \d+\); the traceback is in (\S+\.log): .*", line
    )
    assert found is not None, line
    log = Path(found[1]).read_text()
    assert "Traceback (most recent call last)" in log and "in broken" in log and "command:" in log


def test_without_a_place_for_the_log_it_is_still_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    said, code = explain(KeyError("surprise"))
    assert code == 70 and said.endswith("no log file could be written")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["rn"], "Did you mean 'run'"),
        (["run", "--step", "3"], "--step; did you mean --steps?"),
        (["run", "--colour", "3"], "see ilf-bench run --help"),
        (["run", "tiny-txt"], "did you mean 'tiny-text'?"),
        (["run", "--methods", "full,deepcahe"], "did you mean 'deepcache'?"),
        (["run", "--methods", "full,deepcache:intervall=3"], "did you mean 'interval'?"),
        (["run", "--metrics", "clip-score"], "did you mean 'clip_score'?"),
        (["list", "method"], "did you mean 'methods'?"),
        (["run", "--engine", "rai"], "did you mean 'ray'?"),
    ],
)
def test_a_slip_gets_the_word_that_was_meant(capsys: pytest.CaptureFixture[str], arguments: list[str], word: str) -> None:
    assert cli.main(arguments) == 64
    assert word in capsys.readouterr().err


def start(arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A shell's command line with ``ilf-bench`` in it, run from the outside."""
    known = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": "/tmp"} | environment
    command = arguments.replace("ilf-bench", f"{sys.executable} -m ilf_bench")
    return subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, env=known)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_output_that_cannot_take_our_signs_gets_others(encoding: str) -> None:
    done = start("ilf-bench list presets", PYTHONIOENCODING=encoding, LC_ALL="C")
    assert done.returncode == 0 and "tiny-text" in done.stdout and not done.stderr


def test_a_reader_that_leaves_ends_nothing() -> None:
    done = start("ilf-bench list presets | head -1")
    assert done.returncode == 0 and not done.stderr and done.stdout.strip()


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_closed_streams_end_nothing(closed: str) -> None:
    done = start(f"ilf-bench list presets {closed}")
    assert done.returncode == 0 and not done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_an_output_that_is_full_is_told() -> None:
    done = start("ilf-bench list presets > /dev/full")
    assert done.returncode == 74 and "ENOSPC" in done.stderr and "Traceback" not in done.stderr


def test_a_stranger_in_the_path_is_named_at_start_and_by_doctor(tmp_path: Path) -> None:
    (tmp_path / "metrics.py").write_text("")
    done = start(f"cd {tmp_path} && ilf-bench list presets")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 65 and line.startswith(
        f"error: expected {ROOT}/metrics, a part of ilf-bench; got {tmp_path}/metrics.py"
    )
    elsewhere = start("cd / && ilf-bench doctor", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert elsewhere.returncode == 65 and f"{tmp_path}/metrics.py" in elsewhere.stderr
    (tmp_path / "metrics.py").rename(tmp_path / "mine.py")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "__init__.py").write_text("")
    assert f"{tmp_path}/reports/__init__.py" in start(f"cd {tmp_path} && ilf-bench list presets").stderr
    (tmp_path / "reports" / "__init__.py").unlink()  # a folder without it comes after every package, and shadows nothing
    assert start(f"cd {tmp_path} && ilf-bench list presets").returncode == 0


def test_a_user_whom_the_system_does_not_know(tmp_path: Path) -> None:
    code = "import os, pwd\ndef nobody(*_): raise KeyError\npwd.getpwuid = nobody\ndel os.environ['HOME']\n"
    code += "import getpass; from pathlib import Path; from ilf_bench.home import ensure_home; ensure_home()\n"
    code += "print(getpass.getuser()); print(Path.home()); print(oct(Path.home().stat().st_mode))"
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": "/", "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == [f"user-{os.getuid()}", f"{tmp_path}/ilf-bench-home-{os.getuid()}", "0o40700"], done.stderr


def test_a_lock_that_no_other_folder_would_help_names_its_own_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr("harness.storage.locks._open", refused)
    with pytest.raises(OSError) as raised, held_alone(tmp_path):
        pass
    said, code = explain(raised.value)
    assert code == 74 and "ulimit -n" in said and str(tmp_path) in said and "--out" not in said
