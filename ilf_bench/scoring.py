"""Scores of a folder of images that another program made, alone or against another folder of the same images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from harness.config.prompts import CLASS_NUMBERS, load_prompts
from harness.config.spec import ExperimentSpec, load_spec
from harness.contracts import Batch, Metric, reads_prompts
from harness.errors import UsageError
from harness.execution.measuring import Measured, by_measurement, measure
from harness.execution.scorer import to_score
from harness.execution.tasks import SCORE_BATCH, is_fatal, reason
from harness.models.loading import quiet_libraries
from harness.paths import locate
from harness.results import Failure, FloatArray, Score
from harness.statistics import Estimate, Interval, mean_interval, paired_difference
from harness.storage.listing import Listing, list_images
from harness.storage.reading import check_size, read_ahead
from ilf_bench.pairing import Paired, are_class_numbers, pair_prompts
from ilf_bench.registry import Registry, build_metrics
from ilf_bench.scorer_commands import command_metrics

PRESETS = {"text": "tiny-text", "class": "tiny-class"}
SIZES = "score images of each size in a folder of their own"


@dataclass(frozen=True)
class FolderScore:
    """One metric of a folder. ``difference`` is the folder's score less that of ``--against``, image by image.

    ``influence`` [N] and ``per_image`` [N] are in the order of the files; see :class:`harness.results.Score`.
    ``note``: what of the prompts its network did not read. Where ``failure`` says why, the rest is empty.
    """

    metric: str
    title: str
    direction: str = ""
    value: float | None = None
    interval: Interval | None = None
    n: int = 0
    influence: FloatArray = field(default_factory=lambda: np.zeros(0))
    per_image: FloatArray | None = None
    difference: Estimate | None = None
    failure: str = ""
    note: str = ""


@dataclass(frozen=True)
class FolderScores:
    """All scores of a folder, and what a reader must know of how they came about."""

    files: tuple[str, ...]
    prompts: tuple[str, ...]
    scores: tuple[FolderScore, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ScoreRequest:
    """What to score: ``metrics`` empty means those of the bundled preset, as far as images and options allow."""

    folder: Path
    metrics: tuple[str, ...] = ()
    prompts: Path | None = None
    against: Path | None = None
    task: str = "text"
    scorers: str | None = None
    reference: str | None = None
    plugins: tuple[Path, ...] = ()


def score_folder(request: ScoreRequest) -> FolderScores:
    """Every image is read once for all metrics. Raises :class:`UsageError` on what cannot be paired or read."""
    quiet_libraries()
    listing = list_images(request.folder)
    other = list_images(request.against) if request.against is not None else None
    if other is not None:
        _check_same_names(listing, other)
    paired = pair_prompts(listing, load_prompts(str(request.prompts))) if request.prompts is not None else None
    scorers = None if request.scorers is None else locate(request.scorers)
    registry = Registry.of(request.plugins).with_commands(command_metrics(scorers))
    registry.check_metrics(request.metrics)
    metrics = build_metrics(_spec(request, len(listing.files)), registry.metrics)
    if not request.metrics:
        metrics = _allowed(metrics, len(listing.files), paired, other)
    usable = {name: _usable(name, metric, paired, other) for name, metric in metrics.items()}
    ready = {name: metric for name, metric in usable.items() if not isinstance(metric, Failure)}
    texts = paired.texts if paired else ("",) * len(listing.files)
    measured = measure(by_measurement(ready), _batches(listing, texts, other) if ready else ())
    scores = [_score(name, metric, measured, texts) for name, metric in usable.items()]
    if other is not None:
        alone = {name: metric for name, metric in ready.items() if not metric.paired}
        theirs = measure(by_measurement(alone), _batches(other, texts, None) if alone else ())
        scores = [_compared(score, alone.get(score.metric), theirs) for score in scores]
    notes = [
        paired.how if paired else "",
        listing.note,
        other.note if other else "",
        _reference_note(request),
        *(score.note for score in scores),
    ]
    return FolderScores(listing.names, texts if paired else (), tuple(scores), tuple(dict.fromkeys(filter(None, notes))))


def _check_same_names(listing: Listing, other: Listing) -> None:
    """Two folders are compared file by file; a name that only one of them has would pair the rest by accident."""
    ours, theirs = set(listing.names), set(other.names)
    if ours == theirs:
        return
    alone = [*sorted(ours - theirs), *sorted(theirs - ours)]
    raise UsageError(
        expected=f"the same file names in {listing.folder} and {other.folder}",
        got=f"{len(alone)} that only one of them has: {', '.join(alone[:3])}",
        remedy="remove or rename them: images are compared name by name",
    )


def _reference_note(request: ScoreRequest) -> str:
    """What was left out of a folder of references."""
    folder = None if request.reference is None else locate(request.reference)
    return list_images(folder).note if folder is not None and folder.is_dir() else ""


def _spec(request: ScoreRequest, n: int) -> ExperimentSpec:
    """The tiny preset of the task; published scorers have no use for its reference."""
    if request.task not in PRESETS:
        raise UsageError(expected="task text or class", got=repr(request.task), remedy="--task text")
    content: dict[str, object] = {"samples": n} | ({"metrics": request.metrics} if request.metrics else {})
    if request.scorers is not None:
        content |= {"scorers": request.scorers, "reference": request.reference}
    elif request.reference is not None:
        content |= {"reference": request.reference}
    return load_spec(PRESETS[request.task], content)


def _allowed(
    metrics: Mapping[str, Metric | Failure], n: int, prompts: Paired | None, other: Listing | None
) -> dict[str, Metric | Failure]:
    """Those that can be measured here: available, with enough images, and with what else they need."""
    found = {}
    for name, metric in metrics.items():
        if isinstance(metric, Failure) or n < metric.floor:
            continue
        if not isinstance(_usable(name, metric, prompts, other), Failure):
            found[name] = metric
    return dict(found)


def _usable(name: str, metric: Metric | Failure, prompts: Paired | None, other: Listing | None) -> Metric | Failure:
    if isinstance(metric, Failure):
        return metric
    if metric.paired and other is None:
        return Failure("", name, "needs a second folder of the same images: --against FOLDER")
    if not reads_prompts(metric):
        return metric
    if prompts is None:
        return Failure("", name, "needs the prompts: --prompts FILE")
    return Failure("", name, CLASS_NUMBERS) if are_class_numbers(prompts.texts) else metric


def _batches(listing: Listing, prompts: Sequence[str], full: Listing | None) -> Iterator[Batch]:
    read = [read_ahead(each.files, SCORE_BATCH, SIZES) for each in (listing, full) if each is not None]
    start = 0
    for images, *beside in zip(*read, strict=True):
        chosen = range(start, start + len(images))
        start = chosen.stop
        for other in beside:
            assert full is not None
            check_size(other.shape[2:], images.shape[2:], full.files[chosen.start], listing.files[chosen.start], SIZES)
        tensors = [torch.from_numpy(each) for each in (images, *beside)]
        yield Batch(tensors[0], [prompts[i] for i in chosen], list(chosen), *tensors[1:])


def _score(name: str, metric: Metric | Failure, measured: Measured, texts: Sequence[str]) -> FolderScore:
    if isinstance(metric, Failure):
        return FolderScore(name, name, failure=metric.reason)
    found = _measured(name, metric, measured, texts)
    if isinstance(found, str):
        return FolderScore(name, metric.title, failure=found)
    interval = mean_interval(found.influence)
    return FolderScore(
        name, found.title, found.direction, interval.value, interval, found.n, found.influence, found.per_image, note=found.note
    )


def _measured(name: str, metric: Metric, measured: Measured, texts: Sequence[str] = ()) -> Score | str:
    """The score, or why there is none."""
    try:
        rows = measured.of(metric)
        return to_score("", name, metric, metric.summarise(rows), metric.per_image(metric.checked(rows)), texts)
    except Exception as error:
        if is_fatal(error):
            raise
        return reason(error)


def _compared(score: FolderScore, metric: Metric | None, theirs: Measured) -> FolderScore:
    if score.failure or metric is None:
        return score
    other = _measured(score.metric, metric, theirs)
    if isinstance(other, str):
        return replace(score, failure=f"the other folder: {other}")
    return replace(score, difference=paired_difference(score.influence, other.influence))
