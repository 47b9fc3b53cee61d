"""``--set FIELD=VALUE``: every field of a preset, converted and checked by the preset's own schema."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.config.spec import ExperimentSpec, load_spec
from harness.errors import UsageError
from ilf.settings import IlfSettings
from ilf_bench.assignments import assigned, field_names, joined
from ilf_bench.cli import main
from ilf_bench.commands.run import RunOptions
from tests.ilf_bench.test_cli import preset as preset


@pytest.mark.parametrize(
    ("text", "where", "value"),
    [
        ("samples=12", "samples", 12),
        ("guidance=2.5", "guidance", 2.5),
        ("solver=dpm++", "solver", "dpm++"),
        ("compile=true", "compile", True),
        ("reference=null", "reference", None),
        ("memory_gib=null", "memory_gib", None),
        ("prompts=a=b.txt", "prompts", "a=b.txt"),
        ("methods=full, steps:3+solver:ddim,ilf:steps=8", "methods", ("full", "steps:3+solver:ddim", "ilf:steps=8")),
        ("metrics=", "metrics", ()),
        ("timing.rounds=3", "timing.rounds", 3),
        ("timing.batches=1,4", "timing.batches", (1, 4)),
        ("timing.batches=[2, 8]", "timing.batches", (2, 8)),
    ],
)
def test_a_field_is_set(text: str, where: str, value: Any) -> None:
    spec: Any = load_spec("tiny-text", assigned([text]))
    for name in where.split("."):
        spec = getattr(spec, name)
    assert spec == value and type(spec) is type(value)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("training.loop=5,8", "loop", (5, 8)),
        ("training.loop=middle", "loop", "middle"),
        ("training.lr=1e-3", "lr", 1e-3),
        ("training.runs=null", "runs", None),
        ("training.grids=4,8", "grids", (4, 8)),
        ("training.copy=yes", "copy", True),
    ],
)
def test_a_field_of_the_training_is_set(text: str, name: str, value: Any) -> None:
    assert getattr(IlfSettings.of(load_spec("tiny-text", assigned([text])).training), name) == value


def test_one_field_of_a_section_leaves_the_others() -> None:
    before, after = load_spec("tiny-text"), load_spec("tiny-text", assigned(["timing.rounds=3", "training.steps=5"]))
    assert after.timing == before.timing.model_copy(update={"rounds": 3})
    assert after.training == before.training | {"steps": "5"}


def test_every_field_of_a_preset_can_be_named() -> None:
    names = set(field_names())
    assert names >= set(ExperimentSpec.model_fields) | {"timing.warmup", "training.form", "training.end_to_end_batch"}
    for name in names:
        assigned([f"{name}=1"])


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["samples"], "FIELD=VALUE"),
        (["sampels=3"], "did you mean 'samples'"),
        (["rounds=3"], "did you mean timing.rounds or training.rounds"),
        (["timing.round=3"], "did you mean 'timing.rounds'"),
        (["training.optimizer_steps=3"], "did you mean 'training.optimiser_steps'"),
        (["anchors.metric=fid"], "a field of a preset"),
        (["samples=3", "samples=4"], "samples once"),
        (["timing.batches=[1"], "close every bracket"),
    ],
)
def test_what_names_no_field_is_refused(texts: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        assigned(texts)


@pytest.mark.parametrize(
    ("text", "words"),
    [("samples=many", "samples"), ("timing.rounds=-1", "timing.rounds"), ("solver=dpm+", r"did you mean 'dpm\+\+'")],
)
def test_a_value_that_cannot_be_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_spec("tiny-text", assigned([text]))


def test_an_option_and_an_assignment_do_not_contradict_each_other() -> None:
    assert RunOptions(rounds=2, assigned=["timing.batch=4"]).overrides() == {"timing": {"rounds": 2, "batch": "4"}}
    with pytest.raises(UsageError, match="steps once"):
        RunOptions(steps=2, assigned=["steps=4"]).overrides()
    with pytest.raises(UsageError, match="rounds once"):
        joined({"timing": {"rounds": 2}}, {"timing": {"rounds": 3}})


def test_the_command_line_takes_it(preset: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", preset(), "--dry-run", "--out", str(tmp_path), "--set", "samples=7", "--set", "methods=full,steps:2"]
    assert main(arguments) == 0
    assert "7 images per method" in capsys.readouterr().out
    assert main([*arguments[:-2], "--set", "sample=3"]) == 64
    assert "did you mean 'samples'" in capsys.readouterr().err
