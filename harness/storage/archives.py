"""Zip archives from strangers: members stored or deflated, of a bounded number and size, read through one handle.

An archive's own words about its members are not believed: what a member gives is counted while it is read.
"""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from harness.storage.files import CHUNK, MIB, open_regular

MOST_MEMBERS = 400_000  # a bundle of 12 methods with 30,000 images each has 360,000
DIRECTORY_BYTES = 48 * MIB  # that a zip file's list of members may take
MOST_RATIO, FREE_BYTES = 200, 64 * MIB  # how often larger a whole archive may become, beyond a little that always may
HEADER_BYTES = 30  # of a member, at least
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
BROKEN = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zipfile.LargeZipFile)
# and zlib.error, which is none of these: reading raises it as it is
ENTRY = b"PK\x01\x02"  # how the entry of one member begins


class _Bounded(io.BufferedReader):
    """Refuses the one large read that ``zipfile`` makes, that of the list of members, where it is too large."""

    def read(self, size: int | None = -1, /) -> bytes:
        most = DIRECTORY_BYTES + 1
        content = super().read(most if size is None or size < 0 else min(size, most))
        if len(content) == most:
            raise zipfile.BadZipFile(f"a list of members of more than {DIRECTORY_BYTES // MIB} MiB")
        if content.count(ENTRY) > MOST_MEMBERS:
            raise zipfile.BadZipFile(f"more than {MOST_MEMBERS:,} members")
        return content


@contextmanager
def open_archive(source: Path | bytes) -> Iterator[zipfile.ZipFile]:
    """A local archive, or its content. Raises one of :data:`BROKEN` where it is none, or holds what is not read here."""
    raw = io.BytesIO(source) if isinstance(source, bytes) else open_regular(source).detach()
    with _Bounded(cast(io.RawIOBase, raw)) as file, zipfile.ZipFile(file) as archive:
        _check_members(archive, file.seek(0, io.SEEK_END))
        yield archive


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    names: set[str] = set()
    total = end = 0
    for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset):
        if entry.header_offset < end:  # many members out of the same bytes; Python refuses it from 3.11.8 on
            raise zipfile.BadZipFile(f"{entry.filename!r} lies over another member")
        end = entry.header_offset + HEADER_BYTES + entry.compress_size
        total += entry.file_size
        if entry.filename in names:
            raise zipfile.BadZipFile(f"{entry.filename!r} is in it more than once")
        if entry.compress_type not in METHODS or entry.flag_bits & 1:
            raise zipfile.BadZipFile(f"{entry.filename!r} is neither stored nor deflated, or is encrypted")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise zipfile.BadZipFile(f"{entry.filename!r} is a link, or no plain file")
        names.add(entry.filename)
    if total > FREE_BYTES + MOST_RATIO * size:
        raise zipfile.BadZipFile(f"it would become {total:,} bytes, more than {MOST_RATIO} times as large")


def read_chunks(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, size: int) -> Iterator[bytes]:
    """The bytes of a member that must have ``size`` of them. Raises :class:`zipfile.BadZipFile` as soon as it has others."""
    left = size
    with archive.open(entry) as file:
        while chunk := file.read(CHUNK):
            left -= len(chunk)
            if left < 0:
                break
            yield chunk
    if left:
        raise zipfile.BadZipFile(f"{entry.filename!r} does not have the {size:,} bytes that were said")
