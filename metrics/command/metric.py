"""A scorer command as a metric: its values as they are, or its features as a kernel distance to the reference."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from harness.contracts import Batch, Metric
from harness.results import FloatArray
from metrics.base import BaseMetric, images_and_full
from metrics.command.process import Command
from metrics.command.protocol import read_rows, request
from metrics.command.spec import CommandSpec
from metrics.context import MetricContext
from metrics.kernel import KID, KernelDistance, Kind
from metrics.published.packages import to_pil


@dataclass(frozen=True)
class CommandFactory:
    """Builds the metric ``name``; starting the command is part of that. Small, and can be sent to another process."""

    name: str
    spec: CommandSpec

    def __call__(self, context: MetricContext) -> Metric:
        """A kernel distance where the command gives features, else its own value for each image."""
        scorer = CommandScorer(Command(self.name, self.spec, context.device))
        hello = scorer.command.hello
        title = hello.title or self.name
        if hello.width == 1:
            return CommandMetric(self.name, title, scorer)
        kind = Kind(self.name, f"Kernel distance ({title})", KID.kernel, KID.text, KID.factor, KID.unbiased)
        features = CommandFeatures(scorer)
        return KernelDistance(features, context.features_for(features), kind=kind)


class CommandScorer:
    """Hands batches to a command as PNG files."""

    def __init__(self, command: Command) -> None:
        self.command, self.asked = command, 0

    def __call__(self, images: torch.Tensor, prompts: Sequence[str], full: torch.Tensor | None = None) -> FloatArray:
        """float32 [B, width] for uint8 [B, 3, H, W]."""
        hello = self.command.hello
        self.asked += 1
        with tempfile.TemporaryDirectory(prefix="ilf-bench-scorer-") as folder:
            files = _write(images, Path(folder), "image")
            beside = None if full is None else _write(full, Path(folder), "full")
            line = request(self.asked, files, prompts, beside)
            return self.command.ask(line, partial(read_rows, batch=self.asked, n=len(images), hello=hello))


def _write(images: torch.Tensor, folder: Path, stem: str) -> list[str]:
    paths = [folder / f"{stem}-{i:04d}.png" for i in range(len(images))]
    for image, path in zip(to_pil(images), paths, strict=True):
        image.save(path, compress_level=1)
    return [str(path) for path in paths]


class CommandMetric(BaseMetric):
    """One value per image; direction, unit and range are the command's word."""

    def __init__(self, name: str, title: str, scorer: CommandScorer) -> None:
        hello = scorer.command.hello
        self.name, self.scorer, self.hello = name, scorer, hello
        self.title = f"{title} to the full run" if hello.paired else title
        self.unit, self.direction, self.range = hello.unit, hello.direction, hello.range
        self.paired, self.reads_prompts = hello.paired, True

    def details(self) -> Mapping[str, str]:
        """The handshake."""
        return self.hello.fingerprint()

    def measure(self, batch: Batch) -> FloatArray:
        """Values, float32 [B, 1]."""
        if not self.paired:
            return self.scorer(batch.images, batch.prompts)
        images, full = images_and_full(batch, self.title)
        return self.scorer(images, batch.prompts, full)


class CommandFeatures:
    """Several numbers per image; a ``FeatureExtractor``, asked without prompts."""

    def __init__(self, scorer: CommandScorer) -> None:
        self.scorer, self.width = scorer, scorer.command.hello.width

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, width] for uint8 [B, 3, H, W]."""
        return torch.from_numpy(self.scorer(images, [""] * len(images)))

    def fingerprint(self) -> Mapping[str, str]:
        """The handshake; the extractor is the command with its weights."""
        known = self.scorer.command.hello.fingerprint()
        return {**known, "extractor": f"{known['command']}-{known['weights']}"}
