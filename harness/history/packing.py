"""A run as one text and one block of bytes: what the history stores, what exports carry, and what identifies a run."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import ArtifactError
from harness.results import FloatArray
from harness.statistics import mean_interval
from harness.storage.arrays import RUN_BYTES, SCORE_BYTES
from harness.storage.checks import check_summary
from harness.storage.documents import parse_json
from harness.storage.files import digest
from harness.storage.layout import VALUES, is_control, is_score
from harness.storage.records import FORMAT, SEAL, Piece, Run, check_format, digest_of, parse_run, pieces_of
from harness.text import without_credentials

DTYPES = ("float32", "float64")
PACKED = "values_sha256"  # in a header, beside its own digest
HEADER_LETTERS = 64 * 2**20  # of a header, which is ASCII; all records of a large run have a tenth of that
RECORDS, ARRAYS, INTERVALS = "records", "arrays", "intervals"
REPAIR = "append its folder again: ilf-bench history --add FOLDER"


@dataclass(frozen=True)
class Packed:
    """``header``: JSON of a run without its arrays, with its digest and theirs; ``values``: these, compressed."""

    header: str
    values: bytes

    @classmethod
    def seal(cls, header: Mapping[str, Any], arrays: Sequence[FloatArray]) -> Packed:
        """With digests. Raises :class:`ValueError` on a number that is not finite."""
        values = zlib.compress(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays))
        content = {**header, PACKED: digest(values)}
        text = json.dumps(content, sort_keys=True, allow_nan=False)
        return cls(json.dumps({**content, SEAL: digest(text.encode())}, sort_keys=True), values)

    def is_intact(self) -> bool:
        """Whether header and values are what their digests say."""
        try:
            return bool(parse_header(self.header)[PACKED] == digest(self.values))
        except (ArtifactError, KeyError, TypeError):
            return False


def run_id(run: Run) -> str:
    """32 hexadecimal digits over every record of a run, wherever it lies."""
    return digest_of(pieces_of(run))[:32]


def pack(run: Run) -> Packed:
    """Every record of a run. Raises :class:`ArtifactError` on a value that is not finite."""
    pieces = pieces_of(run)
    arrays = [(name, key, _sound(name, key, array)) for name, piece in pieces.items() for key, array in piece.arrays.items()]
    header = {
        "format": FORMAT,
        "path": without_credentials(str(run.path.resolve())),
        RECORDS: {name: piece.content for name, piece in pieces.items()},
        ARRAYS: [[name, key, array.dtype.name, list(array.shape)] for name, key, array in arrays],
        INTERVALS: {name: list(_interval(array)) for name, key, array in arrays if key == VALUES},
    }
    try:
        return Packed.seal(header, [array for _, _, array in arrays])
    except ValueError as error:
        raise ArtifactError(
            expected=f"finite numbers in {run.path}", got=str(error), remedy="score and time that run again"
        ) from error


def _sound(name: str, key: str, array: FloatArray) -> FloatArray:
    """Values of an image by itself may be infinite."""
    fine = np.isfinite(array) if key == VALUES else ~np.isnan(array)
    if array.dtype.name not in DTYPES or not fine.all():
        raise ArtifactError(
            expected=f"finite values of {name}", got=f"{array.dtype.name} values, not all finite", remedy="score that run again"
        )
    return array


def _interval(values: FloatArray) -> tuple[float, float] | tuple[()]:
    """The 95% interval of the mean, so that a trend needs no values; none for a single image."""
    if len(values) < 2:
        return ()
    interval = mean_interval(np.asarray(values, np.float64))
    return interval.low, interval.high


def unpack(packed: Packed) -> Run:
    """The inverse of :func:`pack`. Raises :class:`ArtifactError` on a damaged record and on one of another format."""
    header = parse_header(packed.header)
    try:
        if header[PACKED] != digest(packed.values):
            raise ValueError("other values than were stored")
        arrays = _unpacked(header[ARRAYS], packed.values)
        pieces = {name: Piece(content, arrays.get(name, {})) for name, content in header[RECORDS].items()}
        return replace(parse_run(pieces, Path(header["path"])), in_folder=False)
    except (KeyError, TypeError, ValueError, AttributeError, zlib.error) as error:
        raise ArtifactError(expected="a whole record of a run", got=repr(error), remedy=REPAIR) from error


def parse_header(text: str) -> dict[str, Any]:
    """The JSON object of a header. Raises :class:`ArtifactError` where it is none, or not what its digest says, or of another
    format."""
    try:
        if len(text) > HEADER_LETTERS:
            raise ValueError(f"more than {HEADER_LETTERS >> 20} MiB of JSON")
        header = dict(parse_json(text.encode()))
        if header.pop(SEAL, None) != digest(json.dumps(header, sort_keys=True).encode()):
            raise ValueError("another content than was stored")
    except (TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(expected="a whole record of a run", got=repr(error), remedy=REPAIR) from error
    check_format(header, "a record of the history")
    return header


def _unpacked(listed: Sequence[Sequence[Any]], compressed: bytes) -> dict[str, dict[str, FloatArray]]:
    """The arrays, from as many bytes as they need: what would become more is refused before it fills the memory."""
    found: dict[str, dict[str, FloatArray]] = {}
    place, needed = 0, sum(_bytes(dtype, shape) for _, _, dtype, shape in listed)
    if needed > RUN_BYTES:
        raise ValueError(f"{needed:,} bytes of values, more than {RUN_BYTES >> 20} MiB")
    values = zlib.decompressobj().decompress(compressed, needed + 1)
    for name, key, dtype, shape in listed:
        array: FloatArray = np.frombuffer(values, _dtype(dtype), prod(shape), place).reshape(shape)
        place += array.nbytes
        found.setdefault(name, {})[key] = array
    if place != len(values):
        raise ValueError(f"other values than the {place} bytes that the records need")
    return found


def _bytes(dtype: str, shape: Sequence[int]) -> int:
    """Of one array, which are no more than a score may have."""
    if not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"an array of shape {shape}")
    if (size := _dtype(dtype).itemsize * prod(shape)) > SCORE_BYTES:
        raise ValueError(f"an array of {size:,} bytes, more than {SCORE_BYTES >> 20} MiB")
    return size


def _dtype(name: str) -> np.dtype[Any]:
    if name not in DTYPES:
        raise ValueError(f"values of type {name}")
    return np.dtype(name)


def inline(packed: Packed) -> dict[str, Any]:
    """One JSON object with the values of all arrays in place, for exports."""
    header = parse_header(packed.header)
    unpack(packed)
    arrays = _unpacked(header[ARRAYS], packed.values)
    del header[PACKED]
    return header | {ARRAYS: [[*listed, _listed(arrays[listed[0]][listed[1]])] for listed in header[ARRAYS]]}


def _listed(array: FloatArray) -> list[float | str]:
    """JSON has no infinity: it becomes a text that NumPy reads."""
    return [value if isfinite(value) else str(value) for value in array.ravel().tolist()]


def outline(content: Mapping[str, Any]) -> Packed:
    """The inverse of :func:`inline`."""
    try:
        listed = [list(entry[:4]) for entry in content[ARRAYS]]
        arrays = [np.asarray(entry[4], _dtype(entry[2])).reshape(entry[3]) for entry in content[ARRAYS]]
        return Packed.seal({**content, ARRAYS: listed}, arrays)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ArtifactError(expected="an exported record of a run", got=repr(error), remedy="export it again") from error


@dataclass(frozen=True)
class Summary:
    """What a header alone says: the run without its scores, and of each score the content, and the interval of its mean."""

    run: Run
    scores: tuple[tuple[Mapping[str, Any], Sequence[float]], ...]


def summary(header: Mapping[str, Any]) -> Summary:
    """Raises :class:`ArtifactError`, KeyError, TypeError or ValueError on a header that is none."""
    plain = {name: Piece(content) for name, content in header[RECORDS].items() if not is_score(name)}
    run = replace(parse_run(plain, Path(header["path"])), in_folder=False)
    order = {label: i for i, label in enumerate(run.spec["method_labels"])}
    scores = {name: content for name, content in header[RECORDS].items() if is_score(name) and not is_control(name)}
    found = [(content, header[INTERVALS].get(name, [])) for name, content in scores.items()]
    for name, (content, interval) in zip(scores, found, strict=True):
        check_summary(content, interval, run.path / name)
    return Summary(run, tuple(sorted(found, key=lambda score: order.get(score[0]["method"], len(order)))))
