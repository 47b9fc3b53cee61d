"""Arrays of numbers in ``.npy`` and ``.npz`` files: plain dtypes only, and no more bytes than the file itself has or may have.

NumPy's own reader takes a file's word for its shape, and advises to allow pickles where it meets what is no array. So only its
parser of headers is used.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from harness.errors import ArtifactError
from harness.results import FloatArray
from harness.storage.archives import BROKEN, open_archive
from harness.storage.files import CHUNK, MIB, digest, read_small, write_bytes

ARRAY_BYTES = 512 * MIB  # 65,000 features of width 2,048
SCORE_BYTES = 16 * MIB  # of the file of one array of a score: float64 of 2 million images
RUN_BYTES = 192 * MIB  # of all arrays of scores in a run: two of each of 12 methods, 20 metrics and 50,000 images
HEADER_BYTES = 10_000
KINDS = "biufU"  # numbers, and the text that says where they are from
AnyArray = npt.NDArray[Any]


def write_array(path: Path, content: FloatArray) -> str:
    """A ``.npy`` file without pickles; returns its digest."""
    buffer = io.BytesIO()
    np.save(buffer, content, allow_pickle=False)
    write_bytes(path, buffer.getvalue())
    return digest(buffer.getvalue())


def read_array(path: Path, expected: str, most: int = ARRAY_BYTES) -> FloatArray:
    """The inverse of :func:`write_array`. Raises :class:`ArtifactError` on a damaged file, one with another digest, and one of
    more than ``most`` bytes."""
    try:
        content = read_small(path, most)
        if digest(content) != expected:
            raise ValueError("another content than was written")
        values: FloatArray = parse_array(content)
    except (OSError, ValueError) as error:
        raise ArtifactError(expected=f"numbers at {path}", got=str(error), remedy="delete that file and run again") from error
    return values


def checked_total(total: int, arrays: Iterable[FloatArray], run: Path) -> int:
    """Bytes of the scores' arrays of a run with these. Raises :class:`ArtifactError` on more than :data:`RUN_BYTES`."""
    total += sum(array.nbytes for array in arrays)
    if total > RUN_BYTES:
        raise ArtifactError(
            expected=f"at most {RUN_BYTES // MIB} MiB of values in the scores of {run}",
            got="more",
            remedy="score fewer metrics in one run",
        )
    return total


def parse_array(content: bytes) -> AnyArray:
    """The array of a ``.npy`` file. Raises :class:`ValueError` on anything else."""
    stream = io.BytesIO(content)
    shape, fortran, dtype = _header(stream)
    body = content[stream.tell() :]
    if _bytes(shape, dtype) != len(body):
        raise ValueError(f"{len(body)} bytes for shape {list(shape)} of {dtype}")
    return _shaped(np.frombuffer(body, np.uint8).copy(), shape, fortran, dtype)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and dtype."""
    try:
        version = np.lib.format.read_magic(stream)
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = reader(_Limited(stream), max_header_size=HEADER_BYTES)  # type: ignore[arg-type]
    except Exception as error:  # it evaluates a text: anything can be wrong with that
        raise ValueError("no array: its header cannot be read") from error
    if dtype.kind not in KINDS or not dtype.itemsize or any(n < 0 for n in shape):
        raise ValueError(f"an array of {dtype} where numbers are expected")
    return shape, fortran, dtype


class _Limited:
    """A stream that no header reads more of than a header has."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream

    def read(self, size: int) -> bytes:
        """At most ``HEADER_BYTES`` at a time."""
        return self.stream.read(min(size, HEADER_BYTES + 1))


def _bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Bytes of an array, in exact arithmetic."""
    total = int(dtype.itemsize)
    for n in shape:
        total *= n
    return total


def _shaped(content: npt.NDArray[np.uint8], shape: tuple[int, ...], fortran: bool, dtype: np.dtype[Any]) -> AnyArray:
    try:
        return content.view(dtype).reshape(shape, order="F" if fortran else "C")
    except (OverflowError, TypeError) as error:
        raise ValueError(f"no array of shape {list(shape)}") from error


def array_names(source: Path | bytes) -> list[str]:
    """What a ``.npz`` file holds. Raises :class:`ValueError` where it is none."""
    with _archive(source) as archive:
        return [entry.filename.removesuffix(".npy") for entry in archive.infolist()]


def read_arrays(source: Path | bytes, names: Sequence[str], most_bytes: int = ARRAY_BYTES) -> dict[str, AnyArray]:
    """These arrays of a ``.npz`` file, and nothing else in it.

    Raises :class:`ValueError` where one is missing or has more than ``most_bytes``.
    """
    with _archive(source) as archive:
        return {name: _member(archive, f"{name}.npy", most_bytes) for name in names}


@contextmanager
def _archive(source: Path | bytes) -> Iterator[zipfile.ZipFile]:
    try:
        with open_archive(source) as archive:
            yield archive
    except (*BROKEN, zlib.error, MemoryError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _member(archive: zipfile.ZipFile, name: str, most_bytes: int) -> AnyArray:
    if name not in archive.namelist():
        raise ValueError(f"no array {name.removesuffix('.npy')} in it")
    with archive.open(name) as stream:
        shape, fortran, dtype = _header(stream)
        if (size := _bytes(shape, dtype)) > most_bytes:
            raise ValueError(f"{name} has {size:,} bytes, more than {most_bytes // MIB} MiB")
        content = np.empty(size, np.uint8)
        place = 0
        while place < size and (chunk := stream.read(min(CHUNK, size - place))):
            content[place : place + len(chunk)] = np.frombuffer(chunk, np.uint8)
            place += len(chunk)
        if place != size or stream.read(1):
            raise ValueError(f"{name} has other bytes than its shape {list(shape)} needs")
    return _shaped(content, shape, fortran, dtype)
