"""Files as a stranger would make them, byte by byte, and the bounds within which any of them must be read or refused."""

from __future__ import annotations

import io
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

MIB = 2**20
SECONDS, MEMORY_MIB = 10.0, 1024
UNSAFE_ADVICE = ("weights_only", "trust_remote_code", "allow_pickle")
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) print\n%%EOF\n"
PNG = b"\x89PNG\r\n\x1a\n"
PICKLE = b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94."


@contextmanager
def bounded(seconds: float = SECONDS, mib: float = MEMORY_MIB) -> Iterator[None]:
    """Fail where the block takes longer, or more memory beyond what the process has, than is stated.

    The time for which this thread could have run and another one had the processor is not the block's.
    """
    Path("/proc/self/clear_refs").write_text("5")
    started, before = time.monotonic() - outrun_s(), peak_mib()
    yield
    taken, more = time.monotonic() - outrun_s() - started, peak_mib() - before
    assert taken < seconds and more < mib, f"{taken:.1f} s and {more:.0f} MiB"


def outrun_s() -> float:
    """Seconds for which this thread has waited for a processor."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


def peak_mib() -> float:
    """The largest memory that this process has had resident since it was last set to zero, in MiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def encoded(kind: str, size: tuple[int, int] = (8, 8), **options: object) -> bytes:
    """A picture of one colour as Pillow writes it."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (1, 2, 3)).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    """Of a PNG, with its checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, rows: bytes, before: bytes = b"") -> bytes:
    """A PNG of 8-bit RGB whose decompressed data are ``rows``, whatever its header says; ``before`` goes between the two."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def run_length_bmp(side: int, body: bytes) -> bytes:
    """A BMP of ``side`` x ``side`` pixels in runs, which Pillow decodes in Python."""
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 1078) + header + bytes(1024) + body


def npy(shape: str, dtype: str = "<f8", body: bytes = b"", version: int = 1, padding: int = 0) -> bytes:
    """An array file whose header says ``shape`` and ``dtype``, whatever its ``body`` is."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}{' ' * padding}\n".encode()
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(header)) + header + body


def text_array(text: str) -> bytes:
    """An array file of one text."""
    return npy("()", f"<U{len(text)}", text.encode("utf-32-le"))


def zipped(path: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """An archive of these members."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def zip_of_zeros(path: Path, name: str, head: bytes, mib: int, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """An archive of one member: ``head``, then so many MiB of zeros, which deflate to a thousandth."""
    with zipfile.ZipFile(path, "w", method) as archive, archive.open(name, "w", force_zip64=True) as file:
        file.write(head)
        for _ in range(mib):
            file.write(bytes(MIB))
    return path
