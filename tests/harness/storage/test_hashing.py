"""Files are hashed whole, once, and remembered as long as they are the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.storage import hashing
from harness.storage.hashing import content_digest


def test_a_file_is_read_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    read: list[Path] = []
    whole = hashing.file_digest
    monkeypatch.setattr(hashing, "file_digest", lambda path: read.append(path) or whole(path))
    monkeypatch.setattr(hashing, "SETTLED_NS", -1)
    file = tmp_path / "weights.bin"
    file.write_bytes(b"a" * 5_000_000)
    first = content_digest(file)
    link = tmp_path / "link"
    link.symlink_to(file)
    assert content_digest(file) == first == content_digest(link) and read == [file]
    content = bytearray(file.read_bytes())
    content[2_500_000] ^= 1  # neither in the first nor in the last MiB
    file.write_bytes(content)
    assert content_digest(file) != first and read == [file, file]
    (tmp_path / "cache" / "ilf-bench" / "digests").chmod(0o500)
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    (tmp_path / "cache").write_text("no folder can be made here")
    assert content_digest(link) == content_digest(file)


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could change once more within the same tick of the file system's clock."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "a").write_bytes(b"1")
    content_digest(tmp_path / "a")
    assert not list((tmp_path / "cache").rglob("*.json"))
