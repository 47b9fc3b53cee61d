"""A run as one text and one block of bytes: what the history stores, what exports carry, and what identifies a run."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import ArtifactError
from harness.results import Failure, FloatArray, Score, TimingSample
from harness.statistics import mean_interval
from harness.storage.files import digest
from harness.storage.records import FORMAT, SEAL, Run, method_record

DTYPES = ("float32", "float64")


VALUES = "values_sha256"  # in a header, beside its own digest; records of before there were digests have neither
AGAIN = "append its folder again: ilf-bench history --add FOLDER"


@dataclass(frozen=True)
class Packed:
    """``header``: JSON of a run without its per-image values, with its digest and theirs; ``values``: these, compressed."""

    header: str
    values: bytes

    @classmethod
    def seal(cls, header: Mapping[str, Any], arrays: Sequence[bytes]) -> Packed:
        """With digests. Raises :class:`ValueError` on a number that is not finite."""
        values = zlib.compress(b"".join(arrays))
        content = {**header, VALUES: digest(values)}
        text = json.dumps(content, sort_keys=True, allow_nan=False)
        return cls(json.dumps({**content, SEAL: digest(text.encode())}, sort_keys=True), values)

    def is_intact(self) -> bool:
        """Whether header and values are what their digests say."""
        try:
            return bool(parse_header(self.header).get(VALUES, found := digest(self.values)) == found)
        except (ArtifactError, TypeError):
            return False


def run_id(run: Run) -> str:
    """32 hexadecimal digits over everything a report shows of a run, wherever it lies."""
    scores = []
    for key in sorted(run.scores):
        score = run.scores[key]
        content = asdict(score)
        if isinstance(score, Score):
            content["per_image"] = hashlib.sha256(np.ascontiguousarray(score.per_image).tobytes()).hexdigest()
        scores.append(content)
    timings = [timing_content(sample) for sample in sorted(run.timings, key=lambda t: (t.round, t.method))]
    methods = sorted((asdict(m) for m in run.methods), key=lambda m: str(m["label"]))
    failed = [asdict(failure) for failure in run.failed_methods]
    planned = [asdict(record) for record in run.planned]
    everything = [run.spec, run.environment, methods, planned, failed, scores, timings, run.complete]
    more = [timing_content(sample) for sample in (*run.warmups, *run.other_batches)]
    everything += [more] if more else []  # runs of before these were recorded keep their ids
    return hashlib.sha256(json.dumps(everything, sort_keys=True, default=dict).encode()).hexdigest()[:32]


def timing_content(sample: TimingSample) -> dict[str, Any]:
    """The fields that were measured: what a machine or an older version lacks (the default) leaves no trace in an identity."""
    return {f.name: value for f in fields(sample) if (value := getattr(sample, f.name)) != f.default}


def pack(run: Run) -> Packed:
    """Everything in a run but its images. Raises :class:`ArtifactError` on a value that is not finite."""
    order = {str(label): i for i, label in enumerate(run.spec.get("method_labels", ()))}
    scores = sorted(run.scores.values(), key=lambda s: order.get(s.method, len(order)))
    header = {
        "format": FORMAT,
        "path": str(run.path.resolve()),
        "complete": run.complete,
        "spec": dict(run.spec),
        "environment": dict(run.environment),
        "methods": [asdict(m) for m in run.methods],
        "planned": [asdict(m) for m in run.planned],
        "failed_methods": [asdict(f) for f in run.failed_methods],
        "scores": [_score_content(score) for score in scores],
        "timings": [timing_content(t) for t in run.timings],
        "other_batches": [timing_content(t) for t in run.other_batches],
        "warmups": [timing_content(t) for t in run.warmups],
    }
    arrays = [np.ascontiguousarray(s.per_image).tobytes() for s in scores if isinstance(s, Score)]
    try:
        return Packed.seal(header, arrays)
    except ValueError as error:
        raise ArtifactError(
            expected=f"finite numbers in {run.path}", got=str(error), remedy="score and time that run again"
        ) from error


def _score_content(score: Score | Failure) -> dict[str, Any]:
    content = asdict(score)
    if isinstance(score, Failure):
        return content
    values = content.pop("per_image")
    if values.dtype.name not in DTYPES or not np.isfinite(values).all():
        raise ArtifactError(
            expected=f"finite values of {score.method} {score.metric}",
            got=f"{values.dtype.name} values, not all finite",
            remedy="score that run again",
        )
    interval = mean_interval(np.asarray(values, np.float64))
    bounds = {"low": interval.low, "high": interval.high} if len(values) > 1 else {"low": None, "high": None}
    return content | bounds | {"dtype": values.dtype.name, "fingerprint": dict(score.fingerprint)}


def unpack(packed: Packed) -> Run:
    """The inverse of :func:`pack`. Raises :class:`ArtifactError` on a damaged record and on one of another version."""
    header = parse_header(packed.header)
    if header.get("format") != FORMAT:
        raise ArtifactError(
            expected=f"record format {FORMAT}",
            got=str(header.get("format")),
            remedy="use the version of ilf-bench that wrote it, or run again",
        )
    try:
        if header.get(VALUES, found := digest(packed.values)) != found:
            raise ValueError("other values than were stored")
        scores = list(_scores(header["scores"], zlib.decompress(packed.values)))
        path = Path(header["path"])
        return Run(
            path=path,
            spec=header["spec"],
            environment=header["environment"],
            methods=tuple(method_record(m, path) for m in header["methods"]),
            failed_methods=tuple(Failure(**f) for f in header["failed_methods"]),
            scores={(s.method, s.metric): s for s in scores},
            timings=tuple(TimingSample(**t) for t in header["timings"]),
            complete=bool(header["complete"]),
            other_batches=tuple(TimingSample(**t) for t in header.get("other_batches", ())),
            warmups=tuple(TimingSample(**t) for t in header.get("warmups", ())),
            planned=tuple(method_record(m, path) for m in header["planned"]),
        )
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise ArtifactError(expected="a whole record of a run", got=repr(error), remedy=AGAIN) from error


def parse_header(text: str) -> dict[str, Any]:
    """The JSON object of a header. Raises :class:`ArtifactError` where it is none, or not what its digest says."""
    try:
        header = dict(json.loads(text))
        sealed = SEAL in header or VALUES in header
        if sealed and header.pop(SEAL, None) != digest(json.dumps(header, sort_keys=True).encode()):
            raise ValueError("another content than was stored")
        return header
    except (TypeError, ValueError) as error:
        raise ArtifactError(expected="a whole record of a run", got=repr(error), remedy=AGAIN) from error


def _scores(contents: list[dict[str, Any]], values: bytes) -> Iterator[Score | Failure]:
    place = 0
    for content in contents:
        if "reason" in content:
            yield Failure(**content)
            continue
        kept = {name: value for name, value in content.items() if name not in ("low", "high", "dtype")}
        dtype, count = _dtype(content["dtype"]), int(content["n"])
        array: FloatArray = np.frombuffer(values, dtype, count, place)
        place += array.nbytes
        yield Score(**kept, per_image=array)
    if place != len(values):
        raise ValueError(f"{len(values)} bytes of values where the scores need {place}")


def _dtype(name: str) -> np.dtype[Any]:
    if name not in DTYPES:
        raise ValueError(f"values of type {name}")
    return np.dtype(name)


def inline(packed: Packed) -> dict[str, Any]:
    """One JSON object with the per-image values in place, for exports."""
    header = parse_header(packed.header)
    header.pop(VALUES, None)
    if "format" in header:
        run = unpack(packed)
        for content in header["scores"]:
            score = run.scores[content["method"], content["metric"]]
            if isinstance(score, Score):
                content["per_image"] = [float(value) for value in score.per_image]
    return header


def outline(content: Mapping[str, Any]) -> Packed:
    """The inverse of :func:`inline`."""
    header, arrays = dict(content), []
    try:
        header["scores"] = [dict(score) for score in content["scores"]]
        for score in header["scores"]:
            if "per_image" in score:
                arrays.append(np.asarray(score.pop("per_image"), _dtype(score["dtype"])).tobytes())
        return Packed.seal(header, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(expected="an exported record of a run", got=repr(error), remedy="export it again") from error
