"""A run on disk: raw records, written once under a temporary name and renamed.

Which file holds what says harness/storage/layout.py. Every JSON file carries the SHA-256 of its content, and that of the arrays
beside it: a damaged record is never used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from harness.errors import ArtifactError
from harness.results import Failure, Fault, FloatArray, MethodPart, MethodRecord, Score, TimingSample
from harness.storage.arrays import SCORE_BYTES, checked_total, read_array, write_array
from harness.storage.checks import (
    check_completion,
    check_digests,
    check_environment,
    check_fields,
    check_measurement,
    check_names,
    check_place,
    check_score,
    check_spec,
)
from harness.storage.documents import parse_json
from harness.storage.files import digest, file_digest, read_small, read_text, refuse_links, write_bytes
from harness.storage.layout import (
    FILES,
    FOLDERS,
    PER_IMAGE,
    VALUES,
    Layout,
    Scored,
    array_beside,
    is_manifest,
    is_record,
    is_source,
)

T = TypeVar("T")
P = TypeVar("P")

FORMAT = 1  # of records, history, exports and bundles; see docs/format.md
READABLE = (0, FORMAT)  # the last draft before version 1 has the same fields
SEAL = "sha256"  # the key under which a JSON object holds the digest of all its other content
DIGESTS, REASON = "digests", "reason"  # keys: of a score's arrays, and of what failed
NO_VALUES, SAME, OWN = "none", "influence", "own"  # what a score's per-image values are: none, the influence, or an array


@dataclass(frozen=True, eq=False)
class Piece:
    """One record: its content as JSON has it, and the arrays that lie beside it by their keys."""

    content: Any
    arrays: Mapping[str, FloatArray] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 over the content, and over type, shape and bytes of the arrays. Raises ValueError on NaN and infinity."""
        total = hashlib.sha256(_canonical(self.content))
        for key, array in sorted(self.arrays.items()):
            total.update(f"{key}:{array.dtype.name}:{array.shape}:".encode() + np.ascontiguousarray(array).tobytes())
        return total.hexdigest()


@dataclass(frozen=True, eq=False)
class Run:
    """A finished or partial run, as read back. ``scores`` is keyed by (method label, metric name). Equal only to itself.

    ``timings`` are at the batch size that methods are compared at, the preset's or the smaller one that a GPU's memory allowed,
    ``other_batches`` at the further ones; ``warmups`` came before both.
    ``controls`` is keyed by (null control, metric name), and ``method`` of its scores names the control (identical, jpeg50,
    shuffled, constant, noise or black; harness/statistics/controls.py). Each has the full run's first images, at most 100 of
    them, and is to be held against ``identical``, which has the same N.
    ``planned``: what the methods are that have failed, or not run yet. ``measurements``: what each array was measured with and
    its digest, ``samples``: the digest of each method's manifest, ``plugins``: the texts of the user's own methods and metrics;
    all by the name of the file. ``finished``: when and at which commit everything had been measured. ``in_folder``: whether it
    was read from ``path``; out of a history, ``path`` is only what the record says, and nobody follows it.
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
    measurements: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    samples: Mapping[str, str] = field(default_factory=dict)
    in_folder: bool = True
    plugins: Mapping[str, str] = field(default_factory=dict)
    finished: Mapping[str, Any] = field(default_factory=dict)

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
            _canonical(content)  # raises on NaN and infinity, which no record holds
            return content
        if content.pop(SEAL) != digest(_canonical(content)):
            raise ValueError("a content that its own digest does not fit: it is damaged, or was edited")
    except (OSError, ValueError) as error:
        raise ArtifactError(
            expected=f"readable JSON at {path}", got=str(error), remedy="delete that file and run again"
        ) from error
    return content["content"] if content.keys() == {"content"} else content


def read_record(kind: type[T], content: Any, path: Path) -> T:
    """A dataclass from JSON. Raises :class:`ArtifactError` on missing and unknown fields, and on what these may not hold."""
    check_fields(kind, content, path)
    return kind(**content)


def write_method(run: Path, record: MethodRecord, failure: str = "") -> None:
    """What a method is and did, and why it has not run where it failed."""
    write_json(Layout(run).method(record.label), _method_content(record, failure))


def _method_content(record: MethodRecord, failure: str) -> dict[str, Any]:
    return asdict(record) | ({REASON: failure} if failure else {})


def _method(content: Any, path: Path) -> tuple[MethodRecord, Failure | None]:
    """What a method is, and why it failed where it did."""
    fields = {name: value for name, value in content.items() if name != REASON} if isinstance(content, dict) else content
    record = read_record(MethodRecord, fields, path)
    parts = tuple(MethodPart(**part) for part in content.get("parts", ()))
    record = replace(record, timesteps=tuple(record.timesteps), parts=parts)
    if REASON not in content:
        return record, None
    return record, read_record(Failure, {"method": record.label, "metric": "", "reason": content[REASON]}, path)


def read_method(path: Path) -> MethodRecord:
    """What a method is and did. Raises :class:`ArtifactError` on a damaged record."""
    return _method(read_json(path), path)[0]


def has_run(run: Path, label: str) -> bool:
    """Whether a method has all its images and its counted cost, in a record that can be read."""
    path = Layout(run).method(label)
    try:
        return path.exists() and read_method(path).block_evaluations is not None
    except ArtifactError:
        return False


def write_score(run: Path, score: Score | Failure, kind: Scored = "scores") -> None:
    """The arrays first, then the JSON that makes them count. ``kind`` controls: ``method`` names a null control."""
    path, piece = Layout(run).score(score.method, score.metric, kind).record, _score_piece(score)
    digests = {key: write_array(array_beside(path, key), array) for key, array in piece.arrays.items()}
    write_json(path, piece.content | ({DIGESTS: digests} if digests else {}))


def _score_piece(score: Score | Failure) -> Piece:
    content = asdict(score)
    if isinstance(score, Failure):
        return Piece(content)
    arrays = {VALUES: score.influence}
    content[PER_IMAGE] = NO_VALUES if score.per_image is None else SAME
    if score.per_image is not None and not np.array_equal(score.per_image, score.influence):
        content[PER_IMAGE], arrays[PER_IMAGE] = OWN, score.per_image
    return Piece({name: value for name, value in content.items() if name != VALUES}, arrays)


def _score(piece: Piece, path: Path) -> Score | Failure:
    if not isinstance(piece.content, dict) or REASON in piece.content:
        return read_record(Failure, piece.content, path)
    influence = piece.arrays.get(VALUES, np.zeros(0))
    own: Mapping[str, FloatArray | None] = {NO_VALUES: None, SAME: influence, OWN: piece.arrays.get(PER_IMAGE, np.zeros(0))}
    per_image = own.get(str(piece.content.get(PER_IMAGE)), np.zeros(0))
    score = read_record(Score, {**piece.content, VALUES: influence, PER_IMAGE: per_image}, path)
    check_score(score, path)
    return score


def read_score(path: Path) -> Score | Failure:
    """The inverse of :func:`write_score` for one ``.json`` file. Raises :class:`ArtifactError` where it is missing or damaged."""
    return _score(_read_piece(path), path)


def read_run(path: Path) -> Run:
    """Everything a report needs. Raises :class:`ArtifactError` on a folder that is no run or has another format."""
    if not Layout(path).spec.exists():
        got = f"no {Layout(path).spec.name} in it"
        raise ArtifactError(expected=f"a run folder at {path}", got=got, remedy="name a folder made by ilf-bench run")
    refuse_links(path)
    check_format(read_json(Layout(path).spec), str(path))
    return parse_run(read_pieces(path), path)


def check_format(content: Any, where: str) -> None:
    """Raise :class:`ArtifactError` on records of a version of the format that is none of :data:`READABLE`."""
    found = content.get("format") if isinstance(content, Mapping) else None
    remedy = "read it with the version of ilf-bench that wrote it, or run again"
    if type(found) is int and found > FORMAT:
        remedy = "a newer ilf-bench wrote it: update this one"
    if type(found) is not int or found not in READABLE:
        got = f"record format {found!r}" if found is not None else "none"
        raise ArtifactError(expected=f"record format {FORMAT} at {where}", got=got, remedy=remedy)


def record_files(run: Path, *, images: bool = True) -> list[Path]:
    """Every file of a run's record, sorted: no report, which can be rebuilt, and nothing temporary, hidden or linked.

    This is the one list of what a run consists of: whatever the layout names is in it. Without ``images``, of the folders of
    samples only the manifests: a run may have a million images.
    """
    found = [run / name for name in FILES if (run / name).exists()]
    for folder in (run / name for name in FOLDERS):
        passed_over = not images and folder == Layout(run).all_samples
        listed = (each.manifest for each in Layout(run).sample_folders()) if passed_over else folder.rglob("*")
        found += [path for path in listed if path.is_file() and not path.is_symlink()]
    kept = [path for path in found if not path.name.startswith(".")]
    return sorted(kept, key=lambda path: path.relative_to(run).as_posix())


def read_pieces(run: Path) -> dict[str, Piece]:
    """Every record of a run by the name of its file. Raises :class:`ArtifactError` on a damaged one.

    Of a manifest, which has the digests of images and receipts, only the digest is kept.
    """
    names = [path.relative_to(run).as_posix() for path in record_files(run, images=False)]
    found: dict[str, Piece] = {}
    total = 0
    for name in filter(is_record, names):
        found[name] = read_piece(run, name)
        total = checked_total(total, found[name].arrays.values(), run)
    return found


def read_piece(run: Path, name: str) -> Piece:
    """The record of that name in a run. Raises :class:`ArtifactError` on a damaged one."""
    path = run / name
    if is_source(name):
        return Piece(read_text(path))
    if is_manifest(name):
        return Piece(file_digest(path))
    return _read_piece(path)


def _read_piece(path: Path) -> Piece:
    content = read_json(path)
    digests = content.pop(DIGESTS, {}) if isinstance(content, dict) else {}
    check_digests(digests, path)
    return Piece(content, {key: read_array(array_beside(path, key), expected, SCORE_BYTES) for key, expected in digests.items()})


def parse_run(pieces: Mapping[str, Piece], path: Path) -> Run:
    """A run from its records. Raises :class:`ArtifactError` on another format and on records of unknown kinds."""
    layout = Layout(Path())
    check_names(pieces, path)
    spec, environment = (_needed(pieces, file.name, path) for file in (layout.spec, layout.environment))
    check_format(spec, str(path))
    check_spec(spec, path / layout.spec)
    check_environment(environment, path / layout.environment)
    kinds: dict[str, dict[str, Piece]] = {}
    for name, piece in pieces.items():
        kinds.setdefault(Path(name).parts[0], {})[name] = piece
    if unknown := kinds.keys() - {*FILES, *FOLDERS}:
        raise ArtifactError(expected=f"the records of a run at {path}", got=f"{min(unknown)} among them", remedy="run again")

    def of(kind: str) -> list[tuple[Path, Piece]]:
        return [(path / name, piece) for name, piece in sorted(kinds.get(kind, {}).items())]

    methods = [_placed(_method(piece.content, file), file, path) for file, piece in of("methods")]
    order = {label: i for i, label in enumerate(spec["method_labels"])}
    records = sorted((record for record, _ in methods), key=lambda m: order.get(m.label, len(order)))
    timed = [sample for file, piece in of("timing") for sample in _timings(piece.content, file)]
    further, main = spec.get("timing", {}).get("batches", ()), spec.get("timing", {}).get("batch")
    finished = kinds.get(layout.complete.name, {}).get(layout.complete.name)
    return Run(
        path=path,
        spec=spec,
        environment=environment,
        methods=tuple(record for record in records if record.block_evaluations is not None),
        failed_methods=tuple(failure for _, failure in methods if failure is not None),
        scores=_by_name(_placed(_score(piece, file), file, path) for file, piece in of("scores")),
        timings=tuple(sample for sample in timed if sample.batch not in further or sample.batch == main),
        complete=finished is not None,
        finished={} if finished is None else check_completion(finished.content, path / layout.complete),
        plugins={name: piece.content for name, piece in kinds.get("plugins", {}).items()},
        other_batches=tuple(s for s in timed if s.batch in further and s.batch != main),
        warmups=tuple(sample for file, piece in of(layout.warmup.name) for sample in _timings(piece.content, file)),
        faults=tuple(read_record(Fault, piece.content, file) for file, piece in of("faults")),
        controls=_by_name(_placed(_score(piece, file), file, path) for file, piece in of("controls")),
        planned=tuple(record for record in records if record.block_evaluations is None),
        measurements={n: check_measurement(piece.content, path / n) for n, piece in kinds.get("measurements", {}).items()},
        samples={name: piece.content for name, piece in kinds.get("samples", {}).items()},
    )


def pieces_of(run: Run) -> dict[str, Piece]:
    """The inverse of :func:`parse_run`: every record of a run by the name of its file, as JSON has it."""
    layout = Layout(Path())
    found = {layout.spec: Piece(dict(run.spec)), layout.environment: Piece(dict(run.environment))}
    if run.complete:
        found[layout.complete] = Piece({"format": run.spec["format"], **run.finished})
    reasons = {failure.method: failure.reason for failure in run.failed_methods}
    for label in dict.fromkeys((*run.described, *reasons)):
        found[layout.method(label)] = Piece(_method_content(run.described[label], reasons.get(label, "")))
    found |= {layout.score(*key).record: _score_piece(score) for key, score in run.scores.items()}
    found |= {layout.score(*key, "controls").record: _score_piece(score) for key, score in run.controls.items()}
    for number in sorted({sample.round for sample in (*run.timings, *run.other_batches)}):
        rows = [asdict(sample) for sample in (*run.timings, *run.other_batches) if sample.round == number]
        found[layout.round(number)] = Piece(rows)
    if run.warmups:
        found[layout.warmup] = Piece([asdict(sample) for sample in run.warmups])
    found |= {layout.fault(i): Piece(asdict(fault)) for i, fault in enumerate(run.faults)}
    kept = {name: Piece(content) for name, content in (*run.measurements.items(), *run.samples.items(), *run.plugins.items())}
    return {file.as_posix(): piece for file, piece in found.items()} | kept


def _needed(pieces: Mapping[str, Piece], name: str, path: Path) -> Any:
    if name not in pieces:
        raise ArtifactError(expected=f"{name} among the records at {path}", got="none", remedy="run again")
    return pieces[name].content


def digest_of(pieces: Mapping[str, Piece]) -> str:
    """SHA-256 over all records by their names, wherever they lie."""
    digests = {name: piece.digest for name, piece in pieces.items()}
    return digest(_canonical(digests))


def _placed(record: P, file: Path, run: Path) -> P:
    """The record itself, after checking that its file has the name that the layout gives it."""
    name = file.relative_to(run).as_posix()
    if isinstance(record, (Score, Failure)):
        check_place(name, record.method, record.metric, run)
    elif isinstance(record, tuple):
        check_place(name, record[0].label, None, run)
    return record


def _by_name(scores: Iterable[Score | Failure]) -> dict[tuple[str, str], Score | Failure]:
    return {(score.method, score.metric): score for score in scores}


def _timings(content: Any, path: Path) -> tuple[TimingSample, ...]:
    if not isinstance(content, list):
        raise ArtifactError(expected=f"a list at {path}", got=type(content).__name__, remedy="delete that file and run again")
    return tuple(read_record(TimingSample, sample, path) for sample in content)


def read_timings(path: Path) -> tuple[TimingSample, ...]:
    """The timed calls in one file of a run. Raises :class:`ArtifactError` on anything else."""
    return _timings(read_json(path), path)
