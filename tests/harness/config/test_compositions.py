"""What a composition may hold: each thing chosen once, before what depends on it. Else its label would not say what runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from harness.config.methods import parse_method
from harness.config.spec import load_spec
from harness.errors import NotMeasured, UsageError
from harness.execution.experiment import method_labels
from harness.models.loading import find_plan, load_pipeline
from harness.paths import ROOT
from harness.sampling.pipeline import Pipeline
from ilf_bench.cli import main
from ilf_bench.outcome import print_miscounted
from ilf_bench.registry import BUILT_IN
from ilf_bench.stand_ins import stand_in
from tests.harness.execution.test_runner import write_preset
from tests.records import method_record

PIXART = ROOT / "zoo" / "tiny-pixart"
SPEC = load_spec("tiny-text", {})
PLAN = find_plan(SPEC)
SAVERS = (
    "deepcache", "delta-dit", "encoder", "step-rehash", "fora", "taylorseer", "smoothcache", "pab", "t-gate", "first-block",
    "teacache", "magcache", "deediff", "t-stitch", "bottleneck", "guidance-reuse",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("steps:8+steps:6", "the number of steps"),
        ("steps:10+ilf:steps=8", "the number of steps"),
        ("ilf:steps=8+steps:10", "the number of steps"),
        ("ilf:steps=8+ilf:steps=6", "the number of steps"),
        ("steps:10+bespoke:8", "the number of steps"),
        ("solver:ddim+solver:unipc", "the solver"),
        ("solver:unipc+ilf-untrained:3", "the solver"),
        ("spacing:1.5+spacing:2", "the timesteps"),
        ("bespoke:8+spacing:1.5", "the timesteps"),
        ("ilf+spacing:1.5", "the timesteps"),
        ("compile+cuda-graphs", "compilation"),
    ],
)
def test_a_thing_is_chosen_once(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=f"one method of a composition that chooses {what}; got two"):
        parse_method(text, BUILT_IN).plan(PLAN)


@pytest.mark.parametrize("first", SAVERS)
def test_two_methods_that_leave_work_out_do_not_compose(first: str) -> None:
    """They crashed, or took stale features from each other, or cost what nobody had predicted."""
    for second in SAVERS:
        with pytest.raises(UsageError, match="what its steps leave out"):
            parse_method(f"{first}+{second}", BUILT_IN).plan(PLAN)


@pytest.mark.parametrize(
    "text", ["spacing:1.5+steps:8", "spacing:1.5+solver:dpm++1", "spacing:1.5+bespoke:8", "fora:2+spacing:1.5"]
)
def test_what_depends_on_another_choice_comes_after_it(text: str) -> None:
    """Spaced timesteps were dropped in silence by what changed the steps or the solver after them."""
    with pytest.raises(UsageError, match="got another order"):
        parse_method(text, BUILT_IN).plan(PLAN)


@pytest.mark.parametrize(
    ("text", "steps", "solver", "chosen"),
    [
        ("steps:8+solver:dpm++1+spacing:1.5+fora:2+compile", 8, "dpm++1", 8),
        ("solver:unipc+steps:6", 6, "unipc", 0),
        ("compile+ilf:steps=8+fora:2", 8, "bespoke", 8),
        ("bespoke:8+taylorseer", 8, "bespoke", 8),
    ],
)
def test_a_composition_does_what_its_label_says(text: str, steps: int, solver: str, chosen: int) -> None:
    plan = parse_method(text, BUILT_IN).plan(PLAN)
    assert (len(plan.steps), plan.solver, len(plan.timesteps)) == (steps, solver, chosen)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return load_pipeline(load_spec("tiny-text", {"precision": "fp32", "device": "cpu"}))


@pytest.mark.parametrize(
    "text",
    [
        "steps:10+t-stitch:0.4",
        "ilf:steps=8+t-stitch:0.4",
        "bespoke:6+t-stitch:0.5",
        "t-stitch:0.4",
        "steps:6+bottleneck",
        "steps:6+spacing:1.5+fora:2",
        "ilf:steps=6+deepcache:interval=2",
        "bespoke:6+taylorseer:interval=2",
        "steps:5+t-gate",
        "steps:7+spacing:1.5+guidance-reuse",
        "bespoke:8+guidance-reuse",
    ],
)
def test_a_composition_costs_what_its_parts_promise(pipeline: Pipeline, text: str) -> None:
    """A smaller model for the first steps took its share of the full run's steps, whatever the others had chosen."""
    method = parse_method(text, BUILT_IN)
    with pipeline.counting() as counter, method.attach(pipeline):
        pipeline.generate(["red cat", "blue dog"], 0, [0, 1])
    assert counter.rows / 2 == pytest.approx(method.plan(pipeline.plan()).block_evaluations)


@pytest.mark.parametrize(
    "text",
    ["ilf:steps=8+t-gate", "bespoke:8+t-gate", "ilf:steps=8+guidance-reuse", "ilf:steps=8+bottleneck", "bespoke:8+bottleneck"],
)
def test_what_needs_both_branches_or_another_solver_says_so_before_it_runs(text: str) -> None:
    with pytest.raises(NotMeasured, match="leave one of the two out"):
        parse_method(text, BUILT_IN).plan(PLAN)


def test_a_module_is_not_taken_for_the_full_run(tmp_path: Path) -> None:
    module = parse_method(f"ilf:checkpoint={tmp_path / 'full'}", BUILT_IN)
    assert module.label == "full"
    with pytest.raises(UsageError, match="rename its folder"):
        method_labels([module, parse_method("steps:8", BUILT_IN)])


def test_a_part_without_weights_is_found_after_the_parts_before_it() -> None:
    """A router made for 20 steps, on 10: refused as it is, and no training of ILF is offered."""
    method = parse_method("steps:10+learning-to-cache", BUILT_IN)
    assert stand_in(method, PLAN, SPEC) is None
    complete = stand_in(parse_method("ilf+fora:2", BUILT_IN), replace(PLAN, backbone=replace(PLAN.backbone, folder=None)), SPEC)
    assert complete is not None and complete.label.startswith("untrained ilf")


def test_no_steps_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 1 step"):
        parse_method("ilf:steps=0", BUILT_IN)


def test_a_method_alone_is_never_refused() -> None:
    """Also where it is asked within another, which happens when one is attached."""
    for name in (*SAVERS, "steps:8", "solver:ddim", "spacing:1.5", "bespoke", "ilf", "compile"):
        assert parse_method(name, BUILT_IN).plan(replace(PLAN, timesteps=(999, 500) * 10)).steps


def test_an_option_is_given_once() -> None:
    with pytest.raises(UsageError, match="steps once"):
        parse_method("ilf:steps=8:steps=6", BUILT_IN)
    with pytest.raises(UsageError, match="steps once"):
        parse_method("steps:8:steps=6", BUILT_IN)


def test_it_is_refused_before_anything_is_sampled(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = write_preset(tmp_path, folders["dit"], methods=["full", "steps:3+steps:2"])
    assert main(["run", str(preset), "--out", str(tmp_path / "runs")]) == 64
    assert "number of steps" in capsys.readouterr().err and not (tmp_path / "runs").exists()


def test_a_row_that_ran_otherwise_than_promised_is_called_out(capsys: pytest.CaptureFixture[str]) -> None:
    exact, bound = PLAN.with_steps(10), PLAN.at_most()
    prepared: Any = SimpleNamespace(plans={"10 steps": exact, "cache": bound, "full": PLAN})
    counted = {"10 steps": (86.2, 240.0), "cache": (300.0, 480.0), "full": (480.0, 480.0)}
    records = {name: method_record(name, ran, predicted_block_evaluations=promised) for name, (ran, promised) in counted.items()}
    run: Any = SimpleNamespace(records=records)
    print_miscounted(prepared, run, Console(width=200))
    assert capsys.readouterr().out == "WARNING: 10 steps ran 86.2 block evaluations, but its parts predict 240\n"
