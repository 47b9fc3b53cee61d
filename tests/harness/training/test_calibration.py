"""Calibrations: on tuning samples only, deterministic, stored by what they depend on, with their cost stated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from baselines.magcache import MagCache
from baselines.teacache import TeaCache
from harness.config.methods import Composition
from harness.cost.plan import Plan
from harness.errors import ArtifactError, NotMeasured
from harness.paths import ROOT
from harness.sampling.pipeline import Pipeline
from harness.storage.records import read_run
from harness.training import calibration
from ilf_bench.cli import main
from tests.conftest import open_pipeline
from tests.harness.execution.test_runner import write_preset


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ilf-bench" / "calibrations"


def watch(sample: Callable[[], None]) -> dict[str, list[float]]:
    sample()
    return {"curve": [1.0, 2.0]}


def test_another_devices_seconds_are_not_this_ones(pipeline: Pipeline, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, seconds = pipeline.plan(), {}
    for name in ("NVIDIA L4", "NVIDIA H200"):
        monkeypatch.setattr(calibration, "device_name", lambda device, name=name: name)
        found = calibration.calibrate("method", pipeline, "thing", watch)
        seconds[name] = found.seconds
        assert found.device == name and calibration.spent("method", pipeline.folder).calibration_s == found.seconds
        assert calibration.find("method", plan, "thing") == found, "the one that was used last"
    assert len(list(cache.iterdir())) == 2 and seconds["NVIDIA L4"] != seconds["NVIDIA H200"]


def test_made_once_and_then_read(pipeline: Pipeline, cache: Path) -> None:
    calls: list[int] = []

    def counted(sample: Callable[[], None]) -> dict[str, list[float]]:
        calls.append(1)
        return watch(sample)

    with pipeline.counting() as counter:
        first = calibration.calibrate("method", pipeline, "thing", counted)
        assert counter.rows == 0
    again = calibration.calibrate("method", pipeline, "thing", counted)
    assert calls == [1] and again == first and first.seconds > 0 and len(list(cache.iterdir())) == 1
    assert calibration.spent("method", pipeline.folder).calibration_s == first.seconds
    assert calibration.spent("another", pipeline.folder).calibration_s == 0


def test_known_again_by_everything_that_it_depends_on(pipeline: Pipeline, cache: Path) -> None:
    calibration.calibrate("method", pipeline, "thing", watch)
    plan = pipeline.plan()
    others = [
        plan.with_steps(9),
        replace(plan, guidance=plan.guidance.at(3.0)),
        replace(plan, solver="unipc"),
        replace(plan, timesteps=(9, 5, 1, 0)),
        replace(plan, backbone=replace(plan.backbone, shapes=plan.backbone.like(scale=2.0))),  # larger images
    ]
    assert calibration.find("method", plan, "thing") is not None and calibration.find("method", plan, "other") is None
    assert all(calibration.find("method", other, "thing") is None for other in others)


def test_two_calibrations_agree_whatever_the_precision(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curves = []
    for precision in ("fp32", "bf16"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / precision))
        pipeline = open_pipeline(folders["pixart"], precision=precision)
        with MagCache().attach(pipeline):
            found = calibration.find(MagCache(), pipeline.plan(), "magcache")
        assert found is not None and pipeline.precision == precision
        curves.append(found.curves)
    assert curves[0] == curves[1]


def test_a_damaged_file_is_named(pipeline: Pipeline, cache: Path) -> None:
    calibration.calibrate("method", pipeline, "thing", watch)
    (file,) = cache.iterdir()
    file.write_text("{")
    with pytest.raises(ArtifactError, match="thing-"):
        calibration.find("method", pipeline.plan(), "thing")


def test_nothing_that_is_judged_is_calibrated_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.training.calibration.SAMPLES", 16)
    held_out = set((ROOT / "zoo/tiny-pixart/prompts-held-out.txt").read_text().splitlines())
    text, classes = (calibration.tuning_prompts(ROOT / "zoo" / name) for name in ("tiny-pixart", "tiny-dit"))
    assert calibration.SEED < 1000 and len(set(text)) == 16 and not held_out & set(text)
    assert len(classes) == 16 and len(set(classes)) == 10


def test_random_weights_cannot_be_calibrated(pipeline: Pipeline) -> None:
    plan = pipeline.plan()
    with pytest.raises(NotMeasured, match="trained weights"):
        MagCache().plan(Plan(replace(plan.backbone, folder=None), plan.steps))


def test_a_run_records_the_cost(folders: dict[str, Path], tmp_path: Path) -> None:
    methods = ["full", "steps:3+magcache:0.9", "teacache:3.5", "deepcache"]
    preset = write_preset(tmp_path, folders["dit"], methods=methods, samples=4, metrics=[], timing={"rounds": 0})
    assert main(["run", str(preset), "--out", str(tmp_path / "runs")]) == 0
    (folder,) = (tmp_path / "runs").glob("random-*")
    full, magcache, teacache, deepcache = read_run(folder).methods
    assert full.calibration_s is None and deepcache.calibration_s is None and magcache.training_s is None
    assert magcache.calibration_s and magcache.block_evaluations == magcache.predicted_block_evaluations
    assert teacache.calibration_s and teacache.block_evaluations <= teacache.predicted_block_evaluations  # type: ignore[operator]


def test_the_parts_of_a_composition_add_up(pipeline: Pipeline) -> None:
    both = Composition((MagCache(), TeaCache()))
    with MagCache().attach(pipeline):
        pass
    with TeaCache().attach(pipeline):
        pass
    backbone = pipeline.plan().backbone
    assert both.upfront_cost(backbone) == MagCache().upfront_cost(backbone) + TeaCache().upfront_cost(backbone)
