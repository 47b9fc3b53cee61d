"""Whether records are what they must be, each alone and all together: before they enter a history, and whenever they are read.

A record that would break a report later (a time of 1e308 s, a batch of none, a score that is not the mean of its values, a name
that leads elsewhere) is refused where it is read, by its file.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from harness.errors import ArtifactError
from harness.results import Failure, FloatArray, Score
from harness.storage.fields import (
    MOST_NUMBER,
    Amount,
    Count,
    Flag,
    Label,
    Line,
    MetricName,
    Number,
    PositiveCount,
    PresetName,
    RoundNumber,
    Text,
)
from harness.storage.layout import FILES, FOLDERS, PER_IMAGE, VALUES, Layout, is_control

T = TypeVar("T")
MEAN_TOLERANCE = 1e-4  # of the largest value: a mean of float32 numbers is that uncertain
REMEDY = "delete that file and run again"
FORBIDDEN = '\\:\0*?"<>|'  # in the path of a file: each means something on some system


class _Content(BaseModel):
    """What readers take from a free-form record; other fields may stand beside it."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, protected_namespaces=())


class _Timing(_Content):
    rounds: Count
    batch: PositiveCount
    warmup: Count
    batches: list[PositiveCount] = []


class _Spec(_Content):
    """Of an experiment as ExperimentSpec writes it."""

    name: PresetName
    digest: Line
    method_labels: Annotated[list[Label], Field(max_length=2_000)]
    metrics: Annotated[list[MetricName], Field(max_length=500)]
    task: Literal["class", "text"]
    pipeline: Line
    prompts: Line
    solver: Line
    precision: Line
    device: Line
    steps: PositiveCount
    samples: PositiveCount
    batch: PositiveCount
    seed: RoundNumber
    guidance: Amount
    timing: _Timing
    methods: Annotated[list[Line], Field(max_length=2_000)] = []
    title: Line = ""
    dtype: Line = ""
    scorers: Line = ""
    reference: Line | None = None
    compile: Flag = False


class _Prompts(_Content):
    source: Line = ""
    digest: Line = ""
    count: Count = 0
    duplicates: Count = 0
    blank_dropped: Count = 0


class _Environment(_Content):
    """Of the machine, its packages, the weights and the prompts."""

    created: Line | None = None
    commit: Line | None = None
    dirty: Flag | None = None
    machine_key: Line | None = None
    device: Line | None = None
    device_name: Line | None = None
    weights: Line | None = None
    command: Text | None = None
    image_pixels: Count | None = None
    busy: Annotated[list[Line], Field(max_length=10)] = []
    prompts: _Prompts | None = None


class _Sample(_Content):
    index: Count
    prompt: Text
    file: Annotated[str, Field(pattern=r"^[0-9]{1,9}\.(png|jpg|jpeg|webp|bmp)$")]
    sha256: Line


class _Manifest(_Content):
    """Of the images of one method."""

    samples: list[_Sample]
    receipts: dict[Line, Line] = {}


class _Completion(_Content):
    """When and at which commit everything had been measured."""

    finished: Line | None = None
    commit: Line | None = None


class _Measurement(_Content):
    """What an array was measured with."""

    digest: Line


@cache
def _reader(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def check_fields(kind: Any, content: Any, path: Path) -> None:
    """Raise :class:`ArtifactError` where ``content`` is no ``kind``: types, ranges, missing and unknown fields."""
    try:
        _reader(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        name = getattr(kind, "__name__", str(kind)).removeprefix("_")
        raise ArtifactError(expected=f"a {name} at {path}", got=f"{where}: {first['msg']}", remedy=REMEDY) from error


def check_spec(content: Any, path: Path) -> None:
    """Raise :class:`ArtifactError` on what is no specification."""
    check_fields(_Spec, content, path)
    labels = content["method_labels"]
    if len(set(labels)) < len(labels):
        raise ArtifactError(expected=f"each method once at {path}", got="one of them twice", remedy=REMEDY)


def check_environment(content: Any, path: Path) -> None:
    """Raise :class:`ArtifactError` on what is no environment."""
    check_fields(_Environment, content, path)


def check_manifest(content: Any, path: Path) -> None:
    """Raise :class:`ArtifactError` on what is no manifest of images."""
    check_fields(_Manifest, content, path)


def check_completion(content: Any, path: Path) -> dict[str, Any]:
    """What says when a run was complete, without its format. Raises :class:`ArtifactError` on anything else."""
    check_fields(_Completion, content, path)
    return {name: value for name, value in content.items() if name != "format"}


def check_measurement(content: Any, path: Path) -> Any:
    """The record of a measurement itself. Raises :class:`ArtifactError` on anything else."""
    check_fields(_Measurement, content, path)
    return content


def check_digests(content: Any, path: Path) -> None:
    """Raise :class:`ArtifactError` on what are no digests of a score's arrays."""
    check_fields(dict[Literal["influence", "per_image"], Line], content, path)


def check_summary(content: Any, interval: Any, path: Path) -> None:
    """Raise :class:`ArtifactError` on what is no score without its arrays, or no interval of its mean."""
    if isinstance(content, Mapping) and "reason" not in content:
        empty: FloatArray = np.zeros(0)
        check_fields(Score, {**content, VALUES: empty, PER_IMAGE: None}, path)
    else:
        check_fields(Failure, content, path)
    check_fields(Annotated[list[Number], Field(max_length=2)], interval, path)
    if len(interval) == 1:
        raise ArtifactError(expected=f"an interval at {path}", got="one bound", remedy=REMEDY)


def check_score(score: Score, path: Path) -> None:
    """Raise :class:`ArtifactError` where the arrays do not fit the score, or the score is not the mean of its influence."""
    per_image, influence = score.per_image, score.influence
    problem = ""
    if influence.shape != (score.n,) or (per_image is not None and per_image.shape != (score.n,)):
        problem = f"arrays of other lengths than n = {score.n}"
    elif not _within_range(influence, infinite=False) or (per_image is not None and not _within_range(per_image, infinite=True)):
        problem = f"values that are no float32 or float64 numbers of at most {MOST_NUMBER:g}"
    elif abs(float(influence.mean(dtype=np.float64)) - score.value) > MEAN_TOLERANCE * max(1.0, float(np.abs(influence).max())):
        problem = f"{score.value:g} where its values have the mean {influence.mean(dtype=np.float64):g}"
    if problem:
        raise ArtifactError(expected=f"a score that is the mean of its values at {path}", got=problem, remedy=REMEDY)


def _within_range(values: FloatArray, *, infinite: bool) -> bool:
    if values.dtype.name not in ("float32", "float64"):
        return False
    sound = ~np.isnan(values) if infinite else np.isfinite(values)
    return bool(sound.all()) and bool((np.abs(values[np.isfinite(values)]) <= MOST_NUMBER).all())


def is_safe(name: str) -> bool:
    """Whether the path of a record stays inside the folder that it is unpacked into, on every system."""
    parts = name.split("/")
    plain = len(name) <= 1_000 and not any(part in ("", ".", "..") or part.startswith(".") for part in parts)
    known = name in FILES or (parts[0] in FOLDERS and len(parts) <= 4)
    return plain and known and name.isprintable() and not any(sign in name for sign in FORBIDDEN)


def check_place(name: str, method: str, metric: str | None, path: Path) -> None:
    """Raise :class:`ArtifactError` where a record does not lie where the layout puts what it speaks of."""
    layout = Layout(Path())
    if metric is None:
        wanted = layout.method(method)
    else:
        wanted = layout.score(method, metric, "controls" if is_control(name) else "scores").record
    if wanted.as_posix() != name:
        raise ArtifactError(expected=f"{wanted.as_posix()} in {path}", got=f"that record as {name}", remedy=REMEDY)


def check_names(pieces: Mapping[str, Any], path: Path) -> None:
    """Raise :class:`ArtifactError` on a name of a record that could lead elsewhere."""
    if unsafe := [name for name in pieces if not isinstance(name, str) or not is_safe(name)]:
        raise ArtifactError(expected=f"names of records at {path}", got=repr(unsafe[0]), remedy="run again")
