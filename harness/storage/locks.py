"""One process at a time in a folder: a lock that ends with its process, however that ends."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TextIO

from harness.errors import UsageError
from harness.storage.files import refuse_link, refuse_links
from harness.storage.locations import is_local

LOCK = ".lock"


PLACE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
)


def held_alone(folder: Path) -> AbstractContextManager[None]:
    """Hold a folder against a second process until the block or this process ends. Object stores have no locks.

    Raises :class:`UsageError` where another process holds it or the folder cannot be written, and
    :class:`harness.errors.ArtifactError` where it or something in it is a link: what is written could replace any file.
    """
    return _held(folder, fcntl.LOCK_EX)


def held_together(folder: Path) -> AbstractContextManager[None]:
    """As :func:`held_alone`, but only against processes that want the folder for themselves."""
    return _held(folder, fcntl.LOCK_SH)


@contextmanager
def _held(folder: Path, kind: int) -> Iterator[None]:
    if not is_local(folder):
        yield
        return
    refuse_link(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _open(folder / LOCK)
    except OSError as error:
        if error.errno not in PLACE:  # another folder would not help
            raise
        raise UsageError(expected=f"a writable folder {folder}", got=str(error), remedy="choose another --out") from error
    with file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                expected=f"no other process that uses {folder}",
                got=f"{file.read(200).strip() or 'another process'} at work",
                remedy="wait for it, or stop it and run again: the run resumes",
            ) from error
        refuse_links(folder)
        file.seek(0)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _open(path: Path) -> TextIO:
    """The lock to read and write, made where there is none. Raises :class:`OSError` on a link: it would be overwritten."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a link where a lock belongs", str(path)) from error
        raise
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(handle)
        raise OSError(errno.EINVAL, "no file of its own where a lock belongs", str(path))
    return os.fdopen(handle, "r+", errors="replace")
