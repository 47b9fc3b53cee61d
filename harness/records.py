"""A run on disk: raw records, written once under a temporary name and renamed.

RUN/spec.json            the resolved ExperimentSpec
RUN/environment.json     machine, packages, commit
RUN/methods/SLUG.json    a MethodRecord, or a Failure
RUN/samples/SLUG/        000000.png ... and manifest.json (indices, prompts, digests)
RUN/measurements/SLUG/NAME.npy         what a metric measured, one row an image: shared by all metrics of that measurement
RUN/measurements/SLUG/NAME.json        what it was measured with and on
RUN/scores/SLUG/METRIC.json and .npy   a Score and its per-image values, or a Failure
RUN/controls/CONTROL/METRIC.json and .npy  the same for a null control (harness/controls.py)
RUN/timing/ROUND.json    the TimingSamples of one interleaved round
RUN/run.json             written last: the run is complete
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from harness.contracts import Failure, FloatArray, MethodRecord, Score, TimingSample
from harness.errors import ArtifactError

FORMAT = 1
UMASK = os.umask(0)
os.umask(UMASK)  # the mask can only be read by setting it


Part = Literal["scores", "controls"]


@dataclass(frozen=True, eq=False)
class Run:
    """A finished or partial run, as read back. Equal only to itself. ``scores`` is keyed by (method label, metric name),
    ``controls`` by (null control, metric name); see :func:`read_scores`.
    """

    path: Path
    spec: Mapping[str, Any]
    environment: Mapping[str, Any]
    methods: tuple[MethodRecord, ...]
    failed_methods: tuple[Failure, ...]
    scores: Mapping[tuple[str, str], Score | Failure]
    timings: tuple[TimingSample, ...]
    complete: bool
    controls: Mapping[tuple[str, str], Score | Failure] = field(default_factory=dict)

    @cached_property
    def records(self) -> Mapping[str, MethodRecord]:
        """The methods that ran, by label."""
        return {record.label: record for record in self.methods}

    @cached_property
    def timings_of(self) -> Mapping[str, tuple[TimingSample, ...]]:
        """The timed calls of each method that was timed, by label, in round order."""
        found: dict[str, list[TimingSample]] = {}
        for sample in sorted(self.timings, key=lambda t: t.round):
            found.setdefault(sample.method, []).append(sample)
        return {label: tuple(samples) for label, samples in found.items()}


def slug(label: str) -> str:
    """A file name for a method label: readable, and unique through a short digest."""
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-").lower()[:60]
    return f"{readable}-{hashlib.sha256(label.encode()).hexdigest()[:6]}"


def write_bytes(path: Path, content: bytes) -> None:
    """Write under a temporary name in the same folder, then rename: a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o666 & ~UMASK)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """JSON with sorted keys; NaN and infinity are refused, because a failure is a :class:`Failure`."""
    write_bytes(path, (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def write_array(path: Path, content: FloatArray) -> None:
    """A ``.npy`` file without pickles."""
    buffer = io.BytesIO()
    np.save(buffer, content, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def read_json(path: Path) -> Any:
    """JSON, or an :class:`ArtifactError` that names the damaged file."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(
            expected=f"readable JSON at {path}", got=str(error), remedy="delete that file and run again"
        ) from error


def write_score(run: Path, score: Score | Failure, part: Part = "scores") -> None:
    """The per-image values first, then the JSON that makes them count. ``part`` controls: ``method`` names a null control."""
    base = run / part / slug(score.method) / score.metric
    content = asdict(score)
    if isinstance(score, Score):
        content.pop("per_image")
        write_array(base.with_suffix(".npy"), score.per_image)
    write_json(base.with_suffix(".json"), content)


def read_score(path: Path) -> Score | Failure:
    """The inverse of :func:`write_score` for one ``.json`` file."""
    content = read_json(path)
    if "reason" in content:
        return Failure(**content)
    values = np.load(path.with_suffix(".npy"), allow_pickle=False)
    if values.shape != (content["n"],) or not np.isfinite(values).all():
        raise ArtifactError(
            expected=f"{content['n']} finite values beside {path}", got=f"shape {values.shape}", remedy="score again"
        )
    return Score(**content, per_image=values)


def read_scores(run: Path, part: Part = "scores") -> dict[tuple[str, str], Score | Failure]:
    """Every score of a run by (method label, metric).

    ``part`` controls: those of the null controls by (control, metric), with ``method`` naming the control (identical, jpeg50,
    shuffled, constant, noise or black; harness/controls.py). Each has the full run's first images, at most 100 of them, and
    is to be held against ``identical``, which has the same N; :func:`harness.controls.separations` and ``is_blind`` judge them.
    A run of an earlier version has none.
    """
    found = [read_score(file) for file in sorted((run / part).glob("*/*.json"))]
    return {(score.method, score.metric): score for score in found}


def write_measurement(run: Path, method: str, name: str, basis: Mapping[str, Any], rows: FloatArray) -> None:
    """Measurements [N, d] of one method, then the ``basis`` (networks, images) that makes them count."""
    base = run / "measurements" / slug(method) / name
    base.with_suffix(".json").unlink(missing_ok=True)
    write_array(base.with_suffix(".npy"), rows)
    write_json(base.with_suffix(".json"), {"shape": list(rows.shape), **basis})


def read_measurement(run: Path, method: str, name: str, basis: Mapping[str, Any] | None = None) -> FloatArray | None:
    """Measurements [N, d], or None where there are none, or none of that ``basis``."""
    base = run / "measurements" / slug(method) / name
    if not base.with_suffix(".json").exists():
        return None
    stored = read_json(base.with_suffix(".json"))
    shape = stored.pop("shape")
    if basis is not None and stored != dict(basis):
        return None
    rows: FloatArray = np.load(base.with_suffix(".npy"), allow_pickle=False)
    if list(rows.shape) != shape:
        raise ArtifactError(expected=f"measurements {shape} in {base}.npy", got=str(rows.shape), remedy="delete it and run again")
    return rows


def read_run(path: Path) -> Run:
    """Everything a report needs. Raises :class:`ArtifactError` on a folder that is no run or has another format."""
    if not (path / "spec.json").exists():
        raise ArtifactError(
            expected=f"a run folder at {path}", got="no spec.json in it", remedy="name a folder made by ilf-bench run"
        )
    spec = read_json(path / "spec.json")
    if spec.get("format") != FORMAT:
        raise ArtifactError(expected=f"record format {FORMAT}", got=str(spec.get("format")), remedy="run again with this version")
    methods = [read_json(file) for file in sorted((path / "methods").glob("*.json"))]
    order = {label: i for i, label in enumerate(spec["method_labels"])}
    records = [MethodRecord(**m) for m in methods if "reason" not in m]
    rounds = [read_json(file) for file in sorted((path / "timing").glob("*.json"))]
    return Run(
        path=path,
        spec=spec,
        environment=read_json(path / "environment.json"),
        methods=tuple(sorted(records, key=lambda m: order.get(m.label, len(order)))),
        failed_methods=tuple(Failure(**m) for m in methods if "reason" in m),
        scores=read_scores(path),
        timings=tuple(TimingSample(**sample) for samples in rounds for sample in samples),
        complete=(path / "run.json").exists(),
        controls=read_scores(path, "controls"),
    )
