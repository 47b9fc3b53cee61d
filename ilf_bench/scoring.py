"""Scores of a folder of images that another program made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from harness.config.prompts import load_prompts
from harness.config.spec import ExperimentSpec, load_spec
from harness.contracts import Batch, Metric
from harness.errors import UsageError
from harness.execution.scorer import Measured, by_measurement, measure, to_score
from harness.execution.tasks import SCORE_BATCH, is_fatal, reason
from harness.models.loading import quiet_libraries
from harness.paths import locate
from harness.results import Failure
from harness.statistics import mean_interval
from harness.storage.images import IMAGE_SUFFIXES, stack_images
from ilf_bench.registry import Registry, build_metrics
from ilf_bench.scorer_commands import command_metrics

Row = tuple[str, str, str, str]
PRESETS = {"text": "tiny-text", "class": "tiny-class"}


def score_folder(
    folder: Path,
    prompts: Path,
    metrics: Sequence[str],
    task: str,
    scorers: str | None = None,
    reference: str | None = None,
    plugins: Sequence[Path] = (),
) -> Iterator[tuple[Row, bool]]:
    """A table row for each metric of a folder of images, and whether it could be measured. Every image is read once."""
    quiet_libraries()
    files = _images(folder)
    registry = Registry.of(plugins).with_commands(command_metrics(None if scorers is None else locate(scorers)))
    registry.check_metrics(metrics)
    spec = _spec(task, {"metrics": tuple(metrics), "prompts": str(prompts), "samples": len(files)}, scorers, reference)
    listed = load_prompts(str(prompts)).texts
    if len(listed) != len(files):
        raise UsageError(expected=f"{len(files)} prompts, one per image", got=str(len(listed)), remedy=f"edit {prompts}")
    metrics_of = build_metrics(spec, registry.metrics)
    ready = {name: m for name, m in metrics_of.items() if not isinstance(m, Failure) and not m.paired}
    measured = measure(by_measurement(ready), _batches(files, listed) if ready else ())
    for name, metric in metrics_of.items():
        yield _score_row(name, metric, measured, len(files))


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UsageError(expected="a folder of images", got=str(folder), remedy="name a folder")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise UsageError(expected=f"images in {folder}", got="none", remedy="name a folder with PNG or JPEG files")
    return files


def _spec(task: str, content: dict[str, object], scorers: str | None, reference: str | None) -> ExperimentSpec:
    """The tiny preset of the task; published scorers have no use for its reference."""
    if task not in PRESETS:
        raise UsageError(expected="task text or class", got=repr(task), remedy="--task text")
    if scorers is not None:
        content |= {"scorers": scorers, "reference": reference}
    elif reference is not None:
        content |= {"reference": reference}
    return load_spec(PRESETS[task], content)


def _batches(files: Sequence[Path], prompts: Sequence[str]) -> Iterator[Batch]:
    size: Sequence[int] | None = None
    for start in range(0, len(files), SCORE_BATCH):
        chosen = range(start, min(start + SCORE_BATCH, len(files)))
        images = stack_images([files[i] for i in chosen], size, "score images of each size in a folder of their own")
        size = images.shape[1:]
        yield Batch(torch.from_numpy(images), [prompts[i] for i in chosen], list(chosen))


def _score_row(name: str, metric: Metric | Failure, measured: Measured, n: int) -> tuple[Row, bool]:
    if isinstance(metric, Failure):
        return (name, metric.reason, "", ""), False
    if metric.paired:
        return (metric.title, "needs a full run on the same noise", "", ""), False
    try:
        rows = measured.of(metric)
        score = to_score("", name, metric, metric.summarise(rows), metric.per_image(metric.checked(rows)))
    except Exception as error:
        if is_fatal(error):
            raise
        return (metric.title, reason(error), "", str(n)), False
    interval = mean_interval(score.influence)
    return (score.title, f"{interval.value:.4f}", f"{interval.low:.4f} .. {interval.high:.4f}", str(n)), True
