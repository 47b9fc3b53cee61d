"""``ilf-bench score``: a folder of images that another program made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from harness.commands.run import build_metrics
from harness.contracts import Batch, Failure, Metric, Unmeasurable
from harness.engine.tasks import SCORE_BATCH
from harness.errors import HarnessError, UsageError
from harness.loading import quiet_libraries
from harness.prompts import load_prompts
from harness.samples import decode_image
from harness.spec import load_spec
from harness.statistics import mean_interval

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


def score_folder(
    folder: Path, prompts: Path, metrics: Sequence[str], task: str
) -> Iterator[tuple[tuple[str, str, str, str], bool]]:
    """A table row for each metric of a folder of images, and whether it could be measured."""
    quiet_libraries()
    preset = {"text": "tiny-text", "class": "tiny-class"}.get(task)
    if preset is None:
        raise UsageError(expected="task text or class", got=repr(task), remedy="--task text")
    if not folder.is_dir():
        raise UsageError(expected="a folder of images", got=str(folder), remedy="name a folder")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise UsageError(expected=f"images in {folder}", got="none", remedy="name a folder with PNG or JPEG files")
    spec = load_spec(preset, {"metrics": tuple(metrics), "prompts": str(prompts), "samples": len(files)})
    listed = load_prompts(str(prompts)).texts
    if len(listed) != len(files):
        raise UsageError(expected=f"{len(files)} prompts, one an image", got=str(len(listed)), remedy=f"edit {prompts}")
    for name, metric in build_metrics(spec).items():
        yield _score_row(name, metric, files, listed)


def _score_row(
    name: str, metric: Metric | Failure, files: Sequence[Path], prompts: Sequence[str]
) -> tuple[tuple[str, str, str, str], bool]:
    if isinstance(metric, Failure):
        return (name, metric.reason, "", ""), False
    if metric.paired:
        return (metric.title, "needs a full run on the same noise", "", ""), False
    try:
        rows = []
        for start in range(0, len(files), SCORE_BATCH):
            chosen = range(start, min(start + SCORE_BATCH, len(files)))
            images = torch.stack([decode_image(files[i]) for i in chosen])
            rows.append(metric.measure(Batch(images, [prompts[i] for i in chosen], list(chosen))))
        interval = mean_interval(metric.summarise(np.concatenate(rows)))
    except (HarnessError, Unmeasurable, RuntimeError, ValueError) as error:
        return (metric.title, str(error), "", str(len(files))), False
    return (metric.title, f"{interval.value:.4f}", f"{interval.low:.4f} .. {interval.high:.4f}", str(len(files))), True
