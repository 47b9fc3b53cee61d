"""Where the files that come with the installation lie: presets, bundled weights and references."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from harness.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]  # the folder that holds harness/, presets/ and zoo/


def locate(name: str) -> Path:
    """A path as given where it exists, else relative to the installation."""
    path = Path(name)
    try:
        return path if path.exists() or path.is_absolute() else ROOT / path
    except OSError as error:  # a name that no file can have
        raise UsageError(expected="the name of a file or folder", got=repr(name[:80]), remedy="correct that path") from error


def cache_folder() -> Path:
    """Where what is measured once is kept: ``ilf-bench`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Where neither can be written, as with a read-only home, it is a folder of this user's own among the temporary files.
    """
    chosen = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(chosen) / "ilf-bench"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        usable = False
    return folder if usable and folder.is_absolute() else private_folder("cache")


def private_folder(name: str) -> Path:
    """A folder among the temporary files that nobody but this user can enter, the same at every call.

    Raises :class:`UsageError` where somebody else has made one of its name.
    """
    folder = Path(tempfile.gettempdir()) / f"ilf-bench-{name}-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UsageError(
            expected=f"a folder {folder} that belongs to you", got="a folder of another user", remedy="set XDG_CACHE_HOME"
        )
    return folder
