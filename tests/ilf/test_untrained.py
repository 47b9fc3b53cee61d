"""The stand-in for a module that has not been trained: the paper's cost, no scores, one batch of images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.config.methods import parse_method
from harness.config.spec import load_spec
from harness.contracts import why_unscored
from harness.cost.guidance import Guidance
from harness.cost.plan import Backbone, Plan
from harness.errors import UsageError
from harness.models.families.base import backbone_of
from harness.models.random_weights import describe
from harness.results import Failure
from harness.storage.layout import slug
from harness.storage.records import read_run
from ilf.settings import middle
from ilf.untrained import UntrainedIlf
from ilf_bench.cli import main
from ilf_bench.experiment import prepare
from ilf_bench.registry import BUILT_IN
from tests.harness.cost.test_flops import ARCHITECTURES
from tests.harness.execution.test_runner import write_preset

XL = Plan.full(Backbone(28, None), 20, Guidance(4.5))


def test_its_default_is_the_papers_cost() -> None:
    assert UntrainedIlf().plan(XL).block_evaluations / 2 == 332
    assert UntrainedIlf(feedback="all", form="ours").plan(XL).block_evaluations == 10 * (2 * 28 + 2)
    assert middle(28) == (9, 20) and middle(1) == (1, 1)


@pytest.mark.parametrize(("first", "last"), [(0, 29), (20, 9), (None, 29)])
def test_a_loop_that_the_model_has_not(first: int | None, last: int | None) -> None:
    with pytest.raises(UsageError, match="1 <= first <= last <= 28"):
        UntrainedIlf(first=first, last=last).plan(XL)


@pytest.mark.parametrize("name", ["dit-xl-2-256", "pixart-alpha-512"])
def test_the_module_of_a_published_model_has_a_blocks_parameters(name: str) -> None:
    family, model = describe(ARCHITECTURES[name])
    extra = UntrainedIlf().upfront_cost(backbone_of(family, model, None)).extra_parameters
    assert 20e6 < extra < 35e6


def write(tmp_path: Path, folder: Path, **changes: object) -> Path:
    return write_preset(tmp_path, folder, **({"methods": ["full", "steps:2", "ilf", "ilf+fora:2"]} | changes))


def test_a_preset_without_a_module_still_runs(
    folders: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """12 samples in batches of 4: one batch of the stand-in counts its blocks, and no more is made."""
    preset = write(tmp_path, folders["pixart"], training={"steps": 3, "loop": [2, 3]})
    assert main(["run", str(preset), "--out", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().out
    assert said.count(f"ilf-bench train {preset} (predicted: ") == 2 and "of device time at" in said
    (folder,) = (tmp_path / "runs").glob("random-*")
    run = read_run(folder)
    by_label = {method.label: method for method in run.methods}
    assert by_label["ilf"].block_evaluations == by_label["ilf"].predicted_block_evaluations == 3 * (2 * 6 + 2 + 1)
    assert len(list((folder / "samples" / slug("ilf")).glob("*.png"))) == 4
    assert len(list((folder / "samples" / slug("2 steps")).glob("*.png"))) == 12
    for label in ("ilf", "ilf + fora(interval=2)"):
        for metric in ("psnr", "ssim"):
            score = run.scores[label, metric]
            assert isinstance(score, Failure) and score.reason.startswith("NOT-MEASURED") and "of device time at" in score.reason
    assert sum(sample.method == "ilf" for sample in run.timings) == 2 and run.complete
    assert "of device time at" in (folder / "report" / "index.html").read_text()


def test_a_dry_run_says_it_too(folders: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(write(tmp_path, folders["dit"])), "--out", str(tmp_path / "runs"), "--dry-run"]) == 0
    assert "predicted: " in capsys.readouterr().out


def test_a_named_checkpoint_that_is_missing_is_an_error(folders: Mapping[str, Path], tmp_path: Path) -> None:
    preset = write(tmp_path, folders["dit"], methods=["full", "ilf:checkpoint=nowhere"])
    assert main(["run", str(preset), "--out", str(tmp_path / "runs")]) == 64


def test_a_composition_is_as_measurable_as_its_parts() -> None:
    methods = [parse_method(text, BUILT_IN) for text in ("steps:3+solver:ddim", "ilf-untrained+fora:2", "ilf")]
    assert [bool(why_unscored(method)) for method in methods] == [False, True, False]


def test_the_training_section_changes_no_digest(folders: Mapping[str, Path], tmp_path: Path) -> None:
    one, other = (
        load_spec(str(write(tmp_path, folders["dit"], training={"steps": steps, "trajectories": 7}))) for steps in (3, 5)
    )
    assert one.training["steps"] == 3 and one.digest() == other.digest()
    with pytest.raises(UsageError, match=r"training\.batch"):
        prepare(str(write(tmp_path, folders["dit"], training={"batch": 0})), {})
