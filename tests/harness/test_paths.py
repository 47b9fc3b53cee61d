"""Where files of the user's own lie, also for users who have nowhere to put them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.paths import cache_folder, private_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_cache_lies_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own" / "ilf-bench" and cache_folder().is_dir()


def test_without_a_writable_home_it_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").write_text("no folder")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = cache_folder()
    assert folder == tmp_path / f"ilf-bench-cache-{os.getuid()}" == cache_folder()
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("made", ["open", "link", "file"])
def test_what_somebody_else_has_made_is_not_used(tmp_path: Path, made: str) -> None:
    folder = tmp_path / f"ilf-bench-home-{os.getuid()}"
    if made == "open":
        folder.mkdir()
        folder.chmod(0o777)
    elif made == "link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "theirs")
    else:
        folder.write_text("")
    with pytest.raises((UsageError, FileExistsError)):
        private_folder("home")
