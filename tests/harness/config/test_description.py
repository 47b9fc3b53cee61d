"""What a method is follows from what its plan changes: under whatever name, and whatever its label says."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from harness.config.description import Plugin, describe_method
from harness.config.methods import parse_method
from harness.cost.guidance import Guidance
from harness.cost.plan import Backbone, Plan
from harness.models.families.base import Described, backbone_of
from harness.models.families.table import family_of
from harness.results import Kind, MethodRecord, UpfrontCost
from harness.storage.records import read_run
from ilf_bench.cli import main
from ilf_bench.registry import BUILT_IN
from reports.analysis.answers import answers
from reports.analysis.select import Plain, accelerators, is_fewer_steps, plain_pipeline
from reports.render.style import families
from tests.harness.execution.test_runner import write_preset

PLAN = Plan.full(Backbone(6, None), 20, Guidance(1.5), "dpm++")
CONFIG = {
    "num_layers": 6,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 8,
    "sample_size": 8,
    "patch_size": 2,
    "num_embeds_ada_norm": 10,
}
BACKBONE = backbone_of(family_of("DiTPipeline"), Described("DiTPipeline", {"transformer": CONFIG}), None)


def described(text: str, plan: Plan = PLAN, **more: Any) -> MethodRecord:
    return describe_method(text, text, parse_method(text, {**BUILT_IN, **more}), plan, {})


@pytest.mark.parametrize(
    ("text", "kind", "steps", "solver", "spacing", "family"),
    [
        ("full", "full", 20, "dpm++", "", "full"),
        ("steps:8", "fewer steps", 8, "dpm++", "", "steps"),
        ("solver:unipc", "solver", 20, "unipc", "", "solver"),
        ("spacing:1.5", "timesteps", 20, "dpm++", "1.5", "spacing"),
        ("fora:3", "less work per step", 20, "dpm++", "", "fora"),
        ("first-block:0.2", "less work per step", 20, "dpm++", "", "first-block"),
        ("compile", "compilation", 20, "dpm++", "", "compile"),
        ("ilf-untrained:10", "learned", 10, "dpm++", "ilf-untrained", "ilf-untrained"),
        ("steps:8+solver:unipc", "composition", 8, "unipc", "", "steps"),
        ("steps:8+spacing:1.50", "composition", 8, "dpm++", "1.5", "spacing"),
        ("steps:8+fora:2", "composition", 8, "dpm++", "", "fora"),
    ],
)
def test_every_kind(text: str, kind: Kind, steps: int, solver: str, spacing: str, family: str) -> None:
    plan = replace(PLAN, backbone=BACKBONE) if "ilf" in text or "fora" in text else PLAN
    record = described(text, plan)
    assert (record.kind, record.steps, record.solver, record.spacing, record.family) == (kind, steps, solver, spacing, family)
    assert record.is_plain == (not record.kinds & {"less work per step", "learned", "compilation"})
    assert [part.name for part in record.parts] == [part.split(":")[0] for part in text.split("+")]
    assert record.block_evaluations is None and record.predicted_block_evaluations is not None


def test_options_are_recorded_with_their_values_and_their_defaults() -> None:
    plan = replace(PLAN, backbone=BACKBONE)
    assert described("deepcache:2", plan).parts[0].options == {"interval": 2, "first": None, "last": None}
    assert described("steps:8+spacing:1.5").parts[1].options == {"power": 1.5}


def test_what_has_no_plan_is_unknown_and_keeps_its_names_and_options() -> None:
    record = described("steps:8+ilf:feedback=all")
    assert (record.kind, record.steps, record.predicted_block_evaluations) == ("unknown", None, None)
    assert [part.name for part in record.parts] == ["steps", "ilf"] and record.parts[1].options["feedback"] == "all"
    assert not record.is_plain


@dataclass(frozen=True)
class Mine:
    """A plugin's method; ``how`` it plans."""

    how: str = "steps"
    label: str = "8 steps"  # which says nothing

    def plan(self, plan: Plan) -> Plan:
        changed = {
            "steps": lambda: plan.with_steps(8),
            "cut": lambda: replace(plan, steps=plan.steps[:8]),
            "solver": lambda: plan.with_steps(8).with_solver("unipc"),
            "grid": lambda: plan.with_timesteps(tuple(range(980, -1, -49))[:20]),
            "cache": lambda: plan.with_steps(8).saving([0, 3] * 4),
            "cheaper": lambda: replace(plan, steps=tuple(replace(step, branches=1) for step in plan.steps)),
            "own": lambda: plan.choosing("the colours"),
            "silent": lambda: plan,
            "trained": lambda: plan.with_steps(8),
        }
        return changed[self.how]()

    def attach(self, pipeline: Any) -> Any:
        return nullcontext()


class Taught(Mine):
    """The same, with weights."""

    def upfront_cost(self, backbone: Backbone) -> UpfrontCost:
        return UpfrontCost(12.0, 34)


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("steps", "fewer steps"),
        ("cut", "fewer steps"),
        ("solver", "solver"),
        ("grid", "timesteps"),
        ("cache", "less work per step"),
        ("cheaper", "less work per step"),
        ("own", "other"),
        ("silent", "other"),
    ],
)
def test_a_plugin_is_what_it_does(how: str, kind: Kind) -> None:
    record = described(f"mine:{how}", mine=Mine)
    assert record.kind == kind and record.is_plain == (kind in ("fewer steps", "solver", "timesteps"))
    assert record.spacing == ("mine" if how == "grid" else "")
    taught = described("mine:trained", mine=Taught)
    assert (taught.kind, taught.training_s, taught.extra_parameters, taught.is_plain) == ("learned", 12.0, 34, False)


def test_what_a_later_part_inherits_is_not_its_own() -> None:
    plan = replace(PLAN, backbone=BACKBONE)
    record = described("ilf-untrained:steps=10:feedback=all+first-block:0.2+mine:own", plan, mine=Mine)
    assert [part.kind for part in record.parts] == ["learned", "less work per step", "other"]


def test_what_counts_otherwise_than_promised_is_not_plain() -> None:
    record = described("steps:8")
    assert replace(record, block_evaluations=96.0).is_plain and not replace(record, block_evaluations=95.0).is_plain


def test_a_plugins_file_and_digest_are_recorded() -> None:
    methods = parse_method("mine:cut+fora:2", {**BUILT_IN, "mine": Mine})
    plan = replace(PLAN, backbone=BACKBONE)
    record = describe_method("x", "mine:cut+fora:2", methods, plan, {"mine": Plugin("mine.py", "ab12")})
    assert [(part.plugin, part.plugin_digest) for part in record.parts] == [("mine.py", "ab12"), ("", "")]


HALF = """
from contextlib import contextmanager
from dataclasses import dataclass

@dataclass(frozen=True)
class Half:
    label = "turbo cache(interval=2)"
    def plan(self, plan):
        return plan.with_steps(len(plan.steps) // 2)
    @contextmanager
    def attach(self, pipeline):
        with pipeline.sampling(steps=pipeline.steps // 2):
            yield

METHODS = {"turbo": Half}
"""


def test_a_plugin_that_only_takes_fewer_steps_is_judged_as_fewer_steps(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "turbo.py").write_text(HALF)
    methods = ["full", "turbo", "fora:2"]
    preset = write_preset(tmp_path, folders["dit"], methods=methods, samples=8, timing={"rounds": 2, "batch": 2})
    assert main(["run", str(preset), "--out", str(tmp_path / "runs"), "--plugin", str(tmp_path / "turbo.py")]) == 0
    (folder,) = (tmp_path / "runs").glob("random-*")
    run = read_run(folder)
    label = "turbo cache(interval=2)"
    assert run.records[label].kind == "fewer steps" and run.records[label].parts[0].plugin == "turbo.py"
    assert plain_pipeline(run, label) == Plain("dpm++", 2) and is_fewer_steps(run, label)
    assert accelerators(run) == ["fora(interval=2)"] == [answer.label for answer in answers(run)]
    assert families(run) == {"steps": [label], "fora": ["fora(interval=2)"]}
