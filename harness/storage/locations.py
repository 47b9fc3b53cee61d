"""Where a run lies: a local folder, or any URL that fsspec knows (s3://, gs://, memory://, ...), used through one interface.

A URL becomes a :class:`upath.UPath`, whose methods are those of :class:`pathlib.Path`; the whole package is typed with the
latter. Three things are local only: file locks, free space, and the SQLite history.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from upath import UPath

from harness.errors import ArtifactError, UsageError


def place(name: str | Path) -> Path:
    """A local path as it stands, a URL as a remote one. Raises :class:`UsageError` where the URL's file system is missing."""
    if not isinstance(name, str):
        return name
    text = name
    scheme, separator, _ = text.partition("://")
    if not separator or scheme == "file":
        return Path(text.removeprefix("file://"))
    try:
        path = UPath(text)
        _ = path.fs  # imports the file system's package
        return cast(Path, path)
    except (ValueError, ImportError) as error:
        raise UsageError(
            expected="a folder, or a URL of a file system that fsspec knows",
            got=f"{text}: {error}",
            remedy="install its package (s3fs for s3://, gcsfs for gs://), or name a folder",
        ) from error


def local_path(name: str | Path) -> Path:
    """A path of this machine's file system. Raises :class:`UsageError` on a URL, which would become a folder like ``http:``."""
    text = str(name)
    if "://" in text and not text.startswith("file://"):
        raise UsageError(expected="a path on this machine", got=text, remedy="write it there, and copy it to the URL")
    return Path(text.removeprefix("file://"))


def is_local(path: Path) -> bool:
    """Whether a path lies on a file system of this machine, network mounts included."""
    return isinstance(path, Path)


def can_write(folder: Path) -> bool:
    """Whether this user may write into a local folder, or create it."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return os.access(there, os.W_OK)


def history_path(out: Path) -> Path:
    """Where the history of runs in ``out`` lies: there, or in ./runs for a URL, because SQLite needs a local disk."""
    return (out if is_local(out) else Path("runs")) / "history.sqlite"


def inside(folder: Path, name: object) -> Path:
    """``folder / name`` for a bare file name out of a record. Raises :class:`ArtifactError` on one that leads elsewhere."""
    if not isinstance(name, str) or name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
        raise ArtifactError(expected=f"a bare file name in the records of {folder}", got=repr(name), remedy="run again")
    return folder / name
