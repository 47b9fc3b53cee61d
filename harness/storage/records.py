"""A run on disk: raw records, written once under a temporary name and renamed.

Which file holds what says harness/storage/layout.py. Every JSON file carries the SHA-256 of its content, and that of the arrays
beside it: a damaged record is never used.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from harness.errors import ArtifactError
from harness.results import Failure, Fault, FloatArray, MethodPart, MethodRecord, Score, TimingSample
from harness.storage.arrays import ARRAY_BYTES, parse_array
from harness.storage.documents import parse_json
from harness.storage.files import digest, read_small, refuse_links, write_bytes
from harness.storage.layout import Layout, Scored

T = TypeVar("T")

FORMAT = 1
SEAL = "sha256"  # the key under which a JSON object holds the digest of all its other content


@dataclass(frozen=True, eq=False)
class Run:
    """A finished or partial run, as read back. ``scores`` is keyed by (method label, metric name). Equal only to itself.

    ``timings`` are at the batch size that methods are compared at (``timing.batch`` of the spec), ``other_batches`` at the
    further ones; ``warmups`` came before both.
    ``controls`` is keyed by (null control, metric name); see :func:`read_scores`. ``planned``: what the methods are that have
    failed, or not run yet.
    """

    path: Path
    spec: Mapping[str, Any]
    environment: Mapping[str, Any]
    methods: tuple[MethodRecord, ...]
    failed_methods: tuple[Failure, ...]
    scores: Mapping[tuple[str, str], Score | Failure]
    timings: tuple[TimingSample, ...]
    complete: bool
    other_batches: tuple[TimingSample, ...] = ()
    warmups: tuple[TimingSample, ...] = ()
    faults: tuple[Fault, ...] = ()
    controls: Mapping[tuple[str, str], Score | Failure] = field(default_factory=dict)
    planned: tuple[MethodRecord, ...] = ()

    @cached_property
    def records(self) -> Mapping[str, MethodRecord]:
        """The methods that ran, by label."""
        return {record.label: record for record in self.methods}

    @cached_property
    def described(self) -> Mapping[str, MethodRecord]:
        """What each method is, by label, whether it ran or not."""
        return {record.label: record for record in (*self.planned, *self.methods)}

    @cached_property
    def timings_of(self) -> Mapping[str, tuple[TimingSample, ...]]:
        """The timed calls of each method that was timed, by label, in round order."""
        found: dict[str, list[TimingSample]] = {}
        for sample in sorted(self.timings, key=lambda t: t.round):
            found.setdefault(sample.method, []).append(sample)
        return {label: tuple(samples) for label, samples in found.items()}


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, allow_nan=False).encode()


def write_json(path: Path, content: Any) -> None:
    """JSON with sorted keys and its own digest; NaN and infinity are refused, because a failure is a :class:`Failure`.

    What is no object (a list) is stored as the ``content`` of one.
    """
    plain = json.loads(_canonical(content if isinstance(content, dict) else {"content": content}))
    sealed = plain | {SEAL: digest(_canonical(plain))}
    write_bytes(path, (json.dumps(sealed, indent=1, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> Any:
    """The inverse of :func:`write_json`; also JSON that was written by hand, without a digest.

    Raises :class:`ArtifactError`, which names the file, where it is missing, no JSON, or not what its digest says.
    """
    try:
        content = parse_json(read_small(path))
        if not isinstance(content, dict) or SEAL not in content:
            return content
        if content.pop(SEAL) != digest(_canonical(content)):
            raise ValueError("a content that its own digest does not fit: it is damaged, or was edited")
    except (OSError, ValueError) as error:
        raise ArtifactError(
            expected=f"readable JSON at {path}", got=str(error), remedy="delete that file and run again"
        ) from error
    return content["content"] if content.keys() == {"content"} else content


def write_array(path: Path, content: FloatArray) -> str:
    """A ``.npy`` file without pickles; returns its digest."""
    buffer = io.BytesIO()
    np.save(buffer, content, allow_pickle=False)
    write_bytes(path, buffer.getvalue())
    return digest(buffer.getvalue())


def read_array(path: Path, expected: str | None) -> FloatArray:
    """The inverse of :func:`write_array`. Raises :class:`ArtifactError` on a damaged file, or one with another digest."""
    try:
        content = read_small(path, ARRAY_BYTES)
        if expected is not None and digest(content) != expected:
            raise ValueError("another content than was written")
        values: FloatArray = parse_array(content)
    except (OSError, ValueError) as error:
        raise ArtifactError(expected=f"numbers at {path}", got=str(error), remedy="delete that file and run again") from error
    return values


def read_record(kind: type[T], content: Any, path: Path) -> T:
    """A dataclass from JSON. Raises :class:`ArtifactError` where fields are missing or unknown."""
    try:
        return kind(**content)
    except TypeError as error:
        raise ArtifactError(
            expected=f"a {kind.__name__} at {path}", got=str(error), remedy="delete that file and run again"
        ) from error


def write_method(run: Path, record: MethodRecord, failure: str = "") -> None:
    """What a method is and did, and why it has not run where it failed."""
    content = asdict(record) | ({"reason": failure} if failure else {})
    write_json(Layout(run).method(record.label), content)


def read_method(path: Path) -> tuple[MethodRecord, Failure | None]:
    """The inverse of :func:`write_method`."""
    content = dict(read_json(path))
    reason = content.pop("reason", "")
    record = method_record(content, path)
    return record, Failure(record.label, "", reason) if reason else None


def method_record(content: Mapping[str, Any], path: Path) -> MethodRecord:
    """A record and its parts from JSON. Raises :class:`ArtifactError` where fields are missing or unknown."""
    record = read_record(MethodRecord, content, path)
    parts = tuple(read_record(MethodPart, part, path) for part in record.parts)
    return replace(record, timesteps=tuple(record.timesteps), parts=parts)


def has_run(run: Path, label: str) -> bool:
    """Whether a method has all its images and its counted cost."""
    path = Layout(run).method(label)
    return path.exists() and read_method(path)[0].block_evaluations is not None


def write_score(run: Path, score: Score | Failure, kind: Scored = "scores") -> None:
    """The per-image values first, then the JSON that makes them count. ``kind`` controls: ``method`` names a null control."""
    files = Layout(run).score(score.method, score.metric, kind)
    content = asdict(score)
    if isinstance(score, Score):
        content.pop("per_image")
        content["digests"] = {"per_image": write_array(files.array, score.per_image)}
    write_json(files.record, content)


def read_score(path: Path) -> Score | Failure:
    """The inverse of :func:`write_score` for one ``.json`` file."""
    content = read_json(path)
    if not isinstance(content, dict) or "reason" in content:
        return read_record(Failure, content, path)
    digests = content.pop("digests", {})
    values = read_array(path.with_suffix(".npy"), digests.get("per_image"))
    score = read_record(Score, content | {"per_image": values}, path)
    if values.shape != (score.n,) or not np.isfinite(values).all():
        raise ArtifactError(
            expected=f"{score.n} finite values beside {path}",
            got=f"shape {values.shape}",
            remedy="delete that file and run again",
        )
    return score


def read_scores(run: Path, kind: Scored = "scores") -> dict[tuple[str, str], Score | Failure]:
    """Every score of a run by (method label, metric).

    ``kind`` controls: those of the null controls by (control, metric), with ``method`` naming the control (identical, jpeg50,
    shuffled, constant, noise or black; harness/statistics/controls.py). Each has the full run's first images, at most 100 of
    them, and is to be held against ``identical``, which has the same N.
    A run of an earlier version has none.
    """
    found = [read_score(file) for file in Layout(run).scores(kind)]
    return {(score.method, score.metric): score for score in found}


def write_measurement(run: Path, method: str, name: str, basis: Mapping[str, Any], rows: FloatArray) -> None:
    """Measurements [N, d] of one method, then the ``basis`` (networks, images) that makes them count."""
    files = Layout(run).measurement(method, name)
    files.record.unlink(missing_ok=True)
    content = write_array(files.array, rows)
    write_json(files.record, {"digest": content, **basis})


def has_measurement(run: Path, method: str, name: str) -> bool:
    """Whether :func:`read_measurement` would find anything, of whatever basis."""
    return Layout(run).measurement(method, name).record.exists()


def read_measurement(run: Path, method: str, name: str, basis: Mapping[str, Any] | None = None) -> FloatArray | None:
    """Measurements [N, d], or None where there are none, or none of that ``basis``.

    Raises :class:`ArtifactError` on damaged ones.
    """
    if not has_measurement(run, method, name):
        return None
    files = Layout(run).measurement(method, name)
    stored = read_json(files.record)
    content = stored.pop("digest", None)
    if basis is not None and stored != dict(basis):
        return None
    return read_array(files.array, content)


def read_run(path: Path) -> Run:
    """Everything a report needs. Raises :class:`ArtifactError` on a folder that is no run or has another format."""
    layout = Layout(path)
    if not layout.spec.exists():
        raise ArtifactError(
            expected=f"a run folder at {path}", got=f"no {layout.spec.name} in it", remedy="name a folder made by ilf-bench run"
        )
    refuse_links(path)
    spec = read_json(layout.spec)
    if spec.get("format") != FORMAT:
        raise ArtifactError(expected=f"record format {FORMAT}", got=str(spec.get("format")), remedy="run again with this version")
    methods = [read_method(file) for file in layout.methods()]
    order = {label: i for i, label in enumerate(spec["method_labels"])}
    records = sorted((record for record, _ in methods), key=lambda m: order.get(m.label, len(order)))
    timed = [sample for file in layout.rounds() for sample in read_timings(file)]
    further = spec.get("timing", {}).get("batches", ())
    return Run(
        path=path,
        spec=spec,
        environment=read_json(layout.environment),
        methods=tuple(record for record in records if record.block_evaluations is not None),
        failed_methods=tuple(failure for _, failure in methods if failure is not None),
        scores=read_scores(path),
        timings=tuple(sample for sample in timed if sample.batch not in further or sample.batch == spec["timing"]["batch"]),
        complete=layout.complete.exists(),
        other_batches=tuple(s for s in timed if s.batch in further and s.batch != spec["timing"]["batch"]),
        warmups=read_timings(layout.warmup) if layout.warmup.exists() else (),
        faults=tuple(read_record(Fault, read_json(file), file) for file in layout.faults()),
        controls=read_scores(path, "controls"),
        planned=tuple(record for record in records if record.block_evaluations is None),
    )


def read_timings(path: Path) -> tuple[TimingSample, ...]:
    """The timed calls in one file of a run. Raises :class:`ArtifactError` on anything else."""
    content = read_json(path)
    if not isinstance(content, list):
        raise ArtifactError(expected=f"a list at {path}", got=type(content).__name__, remedy="delete that file and run again")
    return tuple(read_record(TimingSample, sample, path) for sample in content)
