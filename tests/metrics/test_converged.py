"""Paired metrics against a converged run, of which the full run is itself an approximation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.config.spec import load_spec
from harness.contracts import Batch
from harness.errors import UsageError
from harness.execution.scorer import Scorer
from harness.execution.tasks import Task
from harness.results import BASELINE, Failure, Score
from harness.storage.records import read_run
from ilf_bench.cli import main
from metrics.context import MetricContext
from metrics.converged import SUFFIX
from metrics.table import METRICS, PAIRED
from tests.harness.execution.test_runner import write_preset
from tests.harness.execution.test_scorer import PROMPTS, Few, read_scores, sample_set, write_samples

Draw = Callable[..., torch.Tensor]


def test_every_paired_metric_has_one_and_no_other(context: MetricContext) -> None:
    assert {name for name in METRICS if name.endswith(SUFFIX)} == {f"{name}{SUFFIX}" for name in PAIRED}
    for name in ("psnr", "ssim", "feature_distance"):
        assert METRICS[name](context).paired and name in PAIRED


def test_it_measures_what_the_metric_measures_against_other_images(context: MetricContext, random_images: Draw) -> None:
    images, full, converged = (random_images(4, seed) for seed in range(3))
    batch = Batch(images, ["x"] * 4, range(4), full, converged)
    metric = METRICS["feature_distance"](context)
    twin = METRICS["feature_distance_converged"](replace(context, reference_steps=100))
    np.testing.assert_allclose(twin.measure(batch), metric.measure(replace(batch, full=converged)), rtol=1e-6)
    assert (twin.measure(replace(batch, images=converged)) == 0).all()
    assert twin.title == "Feature distance to the converged run (100 steps) (tiny)" and twin.direction == "lower" and twin.paired
    assert twin.measurement != metric.measurement and twin.fingerprint()["to"] == "the converged run (100 steps)"
    other = METRICS["feature_distance_converged"](replace(context, reference_steps=50))
    assert other.fingerprint() != twin.fingerprint() and other.basis() != twin.basis()
    with pytest.raises(UsageError, match="images of the converged run"):
        twin.measure(replace(batch, converged=None))


def test_without_reference_steps_it_says_what_to_add(context: MetricContext) -> None:
    with pytest.raises(UsageError, match=r"reference_steps: 100 in the preset, and steps:100"):
        METRICS["psnr_converged"](context)


@pytest.mark.parametrize(("steps", "methods"), [(100, ["full"]), (3, ["full", "steps:3"])])
def test_a_reference_must_be_a_method_with_more_steps(
    folders: dict[str, Path], tmp_path: Path, steps: int, methods: list[str]
) -> None:
    preset = write_preset(tmp_path, folders["pixart"], methods=methods, reference_steps=steps)
    with pytest.raises(UsageError, match=f"reference_steps {steps} must be more than"):
        load_spec(str(preset))


class WithConverged(Few):
    converged = "fast"


def test_the_scorer_hands_over_both_sets_and_the_controls_have_them_too(context: MetricContext, tmp_path: Path) -> None:
    folder = write_samples(tmp_path)
    metrics = {name: METRICS[name](replace(context, reference_steps=9)) for name in ("psnr", "psnr_converged")}
    scorer = Scorer(WithConverged(), folder, metrics, 5)  # type: ignore[arg-type]
    for label in (BASELINE, "fast"):
        for start, stop in ((0, 5), (5, 10), (10, 12)):
            scorer.do(Task("measure", label, start, stop, 5))
        scorer.do(Task("summarise", label))
    scorer.do(Task("controls", BASELINE))
    found, controls = read_scores(folder), read_scores(folder, "controls")
    there, back = found["fast", "psnr"], found[BASELINE, "psnr_converged"]
    assert isinstance(there, Score) and isinstance(back, Score) and there.value == back.value, "the same pair of images"
    for label, name in ((BASELINE, "psnr"), ("fast", "psnr_converged")):
        same = found[label, name]
        assert isinstance(same, Failure) and same.reason.startswith(
            f"identical to the {'full' if name == 'psnr' else 'converged'} run"
        )
    black = controls["black", "psnr_converged"]
    reference = torch.from_numpy(sample_set(folder, "fast").load(range(len(PROMPTS)))).double() / 255
    assert isinstance(black, Score) and black.value == pytest.approx(-10 * np.log10(float(reference.square().mean())))


def test_a_run_with_a_converged_reference(folders: dict[str, Path], tmp_path: Path) -> None:
    metrics = ["psnr", "psnr_converged", "ssim_converged"]
    preset = write_preset(
        tmp_path,
        folders["pixart"],
        methods=["full", "steps:2", "steps:9"],
        metrics=metrics,
        reference_steps=9,
        samples=4,
        timing={"rounds": 1, "batch": 2},
    )
    assert main(["run", str(preset), "--out", str(tmp_path / "runs")]) == 0
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    run = read_run(folder)
    full, two = run.scores["full", "ssim_converged"], run.scores["2 steps", "ssim_converged"]
    assert isinstance(full, Score) and isinstance(two, Score) and two.value < full.value < 1
    page = next(folder.rglob("index.html")).read_text()
    assert "SSIM to the converged run (9 steps)" in page
