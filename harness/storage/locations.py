"""Where a run lies: a local folder, or any URL that fsspec knows (s3://, gs://, memory://, ...), used through one interface.

A URL becomes a :class:`upath.UPath`, whose methods are those of :class:`pathlib.Path`; the whole package is typed with the
latter. Three things are local only: file locks, free space, and the SQLite history.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from upath import UPath

from harness.errors import ArtifactError, UsageError

LOCK = ".lock"


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


def is_local(path: Path) -> bool:
    """Whether a path lies on a file system of this machine, network mounts included."""
    return isinstance(path, Path)


def history_path(out: Path) -> Path:
    """Where the history of runs in ``out`` lies: there, or in ./runs for a URL, because SQLite needs a local disk."""
    return (out if is_local(out) else Path("runs")) / "history.sqlite"


def inside(folder: Path, name: object) -> Path:
    """``folder / name`` for a bare file name out of a record. Raises :class:`ArtifactError` on one that leads elsewhere."""
    if not isinstance(name, str) or name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
        raise ArtifactError(expected=f"a bare file name in the records of {folder}", got=repr(name), remedy="run again")
    return folder / name


@contextmanager
def held_alone(folder: Path) -> Iterator[None]:
    """Hold a run's folder against a second process, until the end of this one however it comes. Object stores have no locks.

    Raises :class:`UsageError` where another process holds it, or the folder cannot be written.
    """
    if not is_local(folder):
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
    except OSError as error:
        raise UsageError(expected=f"a writable folder {folder}", got=str(error), remedy="choose another --out") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UsageError(
                expected=f"{folder} to be nobody else's at the moment",
                got=f"{file.read().strip() or 'another process'} at work",
                remedy="wait for it, or stop it and call again: the run resumes",
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
