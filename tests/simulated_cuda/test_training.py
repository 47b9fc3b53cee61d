"""Calibration, training and search on the device: the CPU's numbers in fp32, and everything where it belongs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.learned import ecad
from baselines.learned.search import SearchSettings, build_schedules
from baselines.learned.train_bespoke import BespokeSettings, build_solvers
from baselines.learned.train_deediff import ExitSettings, train_heads
from baselines.learned.train_routers import RouterSettings, train_router
from harness.sampling.pipeline import Pipeline
from harness.training import learned_solver
from harness.training.fit import TrainRecord, TrainSettings
from harness.training.trajectories import record, union_grid
from ilf import end_to_end
from ilf.end_to_end import train_all
from ilf.objective import Objective
from ilf.settings import IlfSettings
from ilf.train import train_module
from ilf.transitions import Transitions
from tests.conftest import PROMPTS
from tests.methods import build
from tests.simulated_cuda.conftest import MODELS
from tests.simulated_cuda.device import SimulatedCuda

Pairs = dict[str, tuple[Pipeline, Pipeline]]
PLAN = TrainSettings(3, 1e-3, warmup=1, checkpoint_every=1)
SIZE: dict[str, Any] = {"grids": (3,), "steps": 3, "batch": 4, "runs": 2, "rounds": 1}
PAPER = {name: SIZE[name] for name in ("grids", "steps", "batch", "runs")}
FORMS = {
    "ours": IlfSettings(loop=(6, 6), **SIZE),
    "guidance-input": IlfSettings(loop=(4, 6), guidance_input=True, separate=True, inner_time="next", **SIZE),
    "first-order": IlfSettings(loop=(4, 6), target="first-order", inner_time="middle", **SIZE | {"rounds": 2}),
    "teacher-steps": IlfSettings(loop=(4, 6), target="teacher-steps", context=False, **SIZE),
    "paper": IlfSettings.of({"form": "paper", "loop": (2, 4), **PAPER}),
    "checkpointed": IlfSettings(loop=(6, 6), gradient_checkpointing=True, **SIZE),
}


def losses(pipeline: Pipeline, settings: IlfSettings, work: Path) -> list[float]:
    data = record(pipeline, PROMPTS[:4], 0, union_grid((3,), settings.power, 250), 4)
    _, made = train_module(pipeline, data, PROMPTS[:4], settings, work / "ilf.pt", PLAN)
    return [loss for _, loss in made.loss_curve]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("form", FORMS)
def test_a_module_trains_as_on_the_cpu(pairs: Pairs, form: str, name: str, tmp_path: Path) -> None:
    there, here = (losses(pipeline, FORMS[form], tmp_path / pipeline.device) for pipeline in pairs[name])
    assert len(here) == 3 and here == pytest.approx(there, rel=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_end_to_end_training(pairs: Pairs, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned_solver, "CONVERGED_GRID", (999, 666, 333, 0))
    monkeypatch.setattr(end_to_end, "end_to_end_optimisation", lambda steps, settings: replace(PLAN, steps=steps))
    settings = replace(FORMS["ours"], end_to_end_steps=2, image_steps=2, end_to_end_batch=2, image_targets=3)
    made: list[TrainRecord] = []
    for pipeline in pairs[name]:
        data = record(pipeline, PROMPTS[:4], 0, union_grid((3,), settings.power, 250), 4)
        made.append(train_all(pipeline, data, PROMPTS[:4], settings, tmp_path / pipeline.device / "x.pt", PLAN)[1])
    there, here = made
    while there.then is not None and here.then is not None:
        there, here = there.then, here.then
        assert here.final_loss == pytest.approx(there.final_loss, rel=1e-3)


Train = Callable[[Pipeline, Path], object]
TRAININGS: dict[str, Train] = {
    "deediff": lambda pipeline, work: train_heads(
        ExitSettings(PLAN, batch=2, trajectories=4), pipeline, PROMPTS[:4], work / "x.pt"
    ),
    "learning-to-cache": lambda pipeline, work: train_router(
        "learning-to-cache", RouterSettings(PLAN, 1.0, 2, trajectories=4), pipeline, PROMPTS[:4], work / "x.pt"
    ),
    "harmonica": lambda pipeline, work: train_router(
        "harmonica", RouterSettings(PLAN, 1.0, 2, trajectories=4), pipeline, PROMPTS[:4], work / "x.pt"
    ),
    "bespoke": lambda pipeline, work: build_solvers(
        BespokeSettings(PLAN, PLAN, (3,), 4, 2), pipeline, PROMPTS[:4], work / "b", work / "x.pt"
    ),
    "ecad": lambda pipeline, work: build_schedules(
        SearchSettings(population=4, generations=1, images=2), pipeline, PROMPTS[:4], work / ecad.NAME, work / "x.json"
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("what", TRAININGS)
def test_learned_baselines_train(pairs: Pairs, what: str, name: str, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    TRAININGS[what](pairs[name][1], work)
    assert any(work.rglob("*"))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("text", ["magcache:0.5:retention=0.3", "smoothcache:0.5", "teacache:3.5", "step-rehash:0.2:first=3"])
def test_a_calibration_has_the_cpus_curves(
    pairs: Pairs, text: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.training import calibration

    found: list[calibration.Calibration] = []
    original = calibration.calibrate

    def noted(*arguments: object) -> calibration.Calibration:
        found.append(original(*arguments))  # type: ignore[arg-type]
        return found[-1]

    for module in ("magcache", "smoothcache", "teacache", "step_rehash"):
        monkeypatch.setattr(f"baselines.{module}.calibrate", noted)
    for pipeline in pairs[name]:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / pipeline.device))
        with build(text, Path()).attach(pipeline):
            pass
    there, here = found
    assert here.seconds != there.seconds and here.curves.keys() == there.curves.keys()
    for curve, values in here.curves.items():
        assert torch.allclose(torch.tensor(values), torch.tensor(there.curves[curve]), rtol=1e-3, atol=1e-5)


def test_batches_are_pinned_and_gathered_ahead(
    device: SimulatedCuda, pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch of the next step is ready in pinned memory; its way to the device makes no step wait."""
    _, gpu = pairs["pixart"]
    gathered: list[str] = []
    take = Transitions.take

    def noted(self: Transitions, index: torch.Tensor) -> Transitions:
        gathered.append(threading.current_thread().name)
        return take(self, index)

    monkeypatch.setattr(Transitions, "take", noted)
    waits: list[list[str]] = []
    call = Objective.__call__

    def counted(self: Objective, transitions: Transitions, generator: torch.Generator) -> torch.Tensor:
        assert all(getattr(transitions, field.name).is_pinned() for field in fields(transitions))
        device.forget()
        loss = call(self, transitions, generator)
        waits.append(sorted(wait.why for wait in device.waits.elements()))
        return loss

    monkeypatch.setattr(Objective, "__call__", counted)
    settings = replace(FORMS["ours"], rounds=2, runs=2)
    data = record(gpu, PROMPTS[:4], 0, union_grid((3,), settings.power, 250), 4)
    train_module(gpu, data, PROMPTS[:4], settings, tmp_path / "ilf.pt", replace(PLAN, steps=6))
    assert len(waits) == 6 and not any("copy" in why for step in waits for why in step)
    assert gathered.count("MainThread") == 2, "only the first step of each round, whose transitions are new, gathers for itself"
    assert sum(name.startswith("batches") for name in gathered) >= 4
