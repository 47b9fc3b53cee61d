"""Files that somebody else may have prepared: what is read is regular and not too large, what is written follows no link.

Run folders, histories, presets, images and bundles travel between people. So a file is never opened before it is known to be a
regular one (a FIFO could block forever, a device never end), never read beyond a stated size, and never written through a
name that could have been foreseen: new files get random names beside their place and are renamed into it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from harness.errors import ArtifactError
from harness.storage.locations import is_local

MIB = 2**20
RECORD_BYTES = 32 * MIB  # a manifest of 100,000 images has 25
CHUNK = MIB
UMASK = os.umask(0)
os.umask(UMASK)  # the mask can only be read by setting it


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def open_regular(path: Path) -> io.BufferedReader:
    """A file for reading. Raises :class:`OSError` on what is no regular file, without opening it; links are followed."""
    if not is_local(path):
        return path.open("rb")
    _check_regular(os.stat(path), path)
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        _check_regular(os.fstat(file.fileno()), path)  # it may have been exchanged since
    except OSError:
        file.close()
        raise
    return file


def _check_regular(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))


def read_small(path: Path, most: int = RECORD_BYTES) -> bytes:
    """The content of a regular file of at most ``most`` bytes. Raises :class:`OSError` on any other."""
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"more than {most / MIB:g} MiB", str(path))
    return content


def read_text(path: Path) -> str:
    """The UTF-8 text of a record. Raises :class:`ArtifactError` on any other file."""
    try:
        return read_small(path).decode()
    except (OSError, ValueError) as error:
        raise ArtifactError(expected=f"a text at {path}", got=str(error), remedy="delete that file and run again") from error


def file_digest(path: Path) -> str:
    """SHA-256 of a regular file of any size."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file to write, under a random name beside ``path``, whose name it takes when the block has ended without an error.

    So a reader sees the whole file or none, and where ``path`` is a link the link is replaced, not what it leads to.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                os.fchmod(file.fileno(), 0o666 & ~UMASK)  # mkstemp makes files that only their owner can read
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """The refusals of the system inside the block are of ``path``: a full disk names no file, a temporary file another one."""
    try:
        yield
    except OSError as error:
        if error.filename is None or Path(os.fsdecode(error.filename)).parent == path.parent:
            error.filename = str(path)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; see :func:`replacing`.

    An object store needs no second name: it shows an object only when all of it has arrived.
    """
    if is_local(path):
        with replacing(path) as file:
            file.write(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files that a killed process left; only the folder's sole owner may. A folder of such a name is none."""
    if is_local(folder):
        for path in folder.rglob(".*.tmp"):
            if not path.is_dir():
                path.unlink(missing_ok=True)


def refuse_link(path: Path) -> None:
    """Raise :class:`ArtifactError` where ``path`` itself is a link: what is written below it would land elsewhere."""
    if is_local(path) and path.is_symlink():
        raise ArtifactError(
            expected=f"no link where this program writes: {path}",
            got=f"a link to {os.readlink(path)}",
            remedy="remove the link, or choose another --out",
        )


def refuse_links(folder: Path) -> None:
    """Raise :class:`ArtifactError` where anything below a local ``folder`` is a link, a FIFO, a socket or a device.

    Whoever made the folder decides where a link leads; what is read through one could be any file of the reader's, and what is
    written could replace one.
    """
    waiting = [str(folder)] if is_local(folder) and folder.is_dir() else []
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    raise ArtifactError(
                        expected=f"plain files and folders below {folder}",
                        got=f"{'a link' if entry.is_symlink() else 'no plain file'}: {entry.path}",
                        remedy="put the files themselves there, or copy the folder without it",
                    )
