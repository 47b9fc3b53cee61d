"""The page that shows how to add a metric shows a file that runs, as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import ilf_bench
from harness.contracts import Batch
from harness.results import Failure, Score
from harness.storage.records import read_run
from ilf_bench.cli import main
from ilf_bench.registry import Registry
from ilf_bench.testing import metric_clauses, tiny_batch, tiny_context
from metrics.context import MetricContext
from tests.harness.execution.test_runner import write_preset
from tests.published import draw_images

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLE = DOCS / "examples" / "sharpness_change.py"


def test_the_page_shows_the_file_and_it_is_short() -> None:
    shown = re.search(r"```python\n(.*?)```", (DOCS / "add-a-metric.md").read_text(), re.DOTALL)
    assert shown is not None and shown[1] == EXAMPLE.read_text()
    assert len(EXAMPLE.read_text().splitlines()) < 40


def test_the_example_keeps_the_contract() -> None:
    build = Registry.of([EXAMPLE]).metrics["sharpness_change"]
    context = tiny_context("text")
    clauses = metric_clauses("sharpness_change", build, tiny_batch("text", 6), context)
    assert len(clauses) > 5 and [f"{one.promise}: {one.fault}" for one in clauses if one.fault] == []


def test_the_example_measures_blur() -> None:
    metric = Registry.of([EXAMPLE]).metrics["sharpness_change"](MetricContext(Path("zoo/scorers"), "text"))
    full = draw_images(4, side=48)
    blurred = torch.nn.functional.avg_pool2d(full.float(), 3, 1, 1).round().to(torch.uint8)

    def value(images: torch.Tensor) -> float:
        return float(metric.summarise(metric.measure(Batch(images, ["x"] * 4, range(4), full))).mean())

    assert value(full) == 0 < value(blurred)
    wanted = [np.log2(_variance(a) / _variance(b)) for a, b in zip(blurred, full, strict=True)]
    assert value(blurred) == pytest.approx(np.abs(wanted).mean(), rel=1e-4)


def _variance(image: torch.Tensor) -> float:
    """Of the Laplacian of the luma, plus one grey level, in plain NumPy."""
    luma = np.tensordot([0.299, 0.587, 0.114], image.double().numpy(), axes=1)
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * luma[1:-1, 1:-1]
    return float(laplacian.var(ddof=1)) + 1


def test_the_command_of_the_page_runs(folders: dict[str, Path], tmp_path: Path) -> None:
    fields = {"methods": ["full", "steps:2"], "metrics": ["psnr", "sharpness_change"], "samples": 4}
    preset = write_preset(tmp_path, folders["pixart"], **fields, timing={"rounds": 0, "batch": 2})
    assert main(["run", str(preset), "--out", str(tmp_path / "runs"), "--plugin", str(EXAMPLE)]) == 0
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    run = read_run(folder)
    score, same = run.scores["2 steps", "sharpness_change"], run.scores["full", "sharpness_change"]
    assert isinstance(score, Score) and score.value > 0 and score.unit == "octaves" and score.fingerprint["definition"]
    assert isinstance(same, Score) and same.value == 0 and not isinstance(run.controls["noise", "sharpness_change"], Failure)


def test_what_the_page_names_exists() -> None:
    text = (DOCS / "add-a-metric.md").read_text()
    for name in ("BaseMetric", "FeatureMetric", "Unmeasurable", "NotMeasured", "MetricContext"):
        assert name in text and hasattr(ilf_bench, name)
    for name in re.findall(r"`([a-z_]+)\(extractor\)`", text):
        assert hasattr(MetricContext, name)
    for file in re.findall(r"`(metrics/[a-z_/]+\.py)`", text):
        assert (DOCS.parent / file).exists(), file
