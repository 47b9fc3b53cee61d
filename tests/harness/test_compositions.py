"""What a composition may hold: each thing chosen once, before what depends on it. Else its label would not say what runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli import main
from harness.commands.run import BUILT_IN
from harness.contracts import Backbone, Plan
from harness.errors import UsageError
from harness.methods import parse_method
from harness.records import read_json
from harness.spec import ROOT
from tests.harness.test_runner import write_preset

PIXART = ROOT / "zoo" / "tiny-pixart"
PLAN = Plan.full(Backbone.of(read_json(PIXART / "transformer" / "config.json"), 12, PIXART), 20, 2.5, "dpm++")
SAVERS = (
    "deepcache", "delta-dit", "encoder", "step-rehash", "fora", "taylorseer", "smoothcache", "pab", "t-gate", "first-block",
    "teacache", "magcache", "deediff", "t-stitch", "bottleneck",
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
