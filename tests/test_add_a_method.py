"""The page that shows how to add a method shows a file that runs, as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.config.methods import parse_method
from harness.errors import UsageError
from harness.sampling.pipeline import Pipeline
from harness.storage.records import read_run
from ilf_bench.cli import main
from ilf_bench.registry import Registry
from ilf_bench.testing import keeps_the_contract
from tests.conftest import open_pipeline
from tests.harness.execution.test_runner import write_preset

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLE = DOCS / "examples" / "limited_guidance.py"


def test_the_page_shows_the_file_and_it_is_short() -> None:
    shown = re.search(r"```python\n(.*?)```", (DOCS / "add-a-method.md").read_text(), re.DOTALL)
    assert shown is not None and shown[1] == EXAMPLE.read_text()
    assert len(EXAMPLE.read_text().splitlines()) < 60


def test_the_example_keeps_the_contract(pipeline: Pipeline) -> None:
    table = Registry.of([EXAMPLE]).methods
    keeps_the_contract(pipeline, parse_method("limited-guidance:0.5:0.75", table))
    keeps_the_contract(pipeline, parse_method("limited-guidance:0:1", table), changes=False)


def test_the_command_of_the_page_runs(folders: dict[str, Path], tmp_path: Path) -> None:
    preset = write_preset(
        tmp_path, folders["pixart"], methods=["full", "limited-guidance:0.25:0.75"], samples=4, timing={"rounds": 1, "batch": 2}
    )
    assert main(["run", str(preset), "--out", str(tmp_path / "runs"), "--plugin", str(EXAMPLE)]) == 0
    (folder,) = (tmp_path / "runs").glob("random-*")
    record = read_run(folder).methods[1]
    assert record.label == "guidance(0.25-0.75)"
    assert record.block_evaluations == record.predicted_block_evaluations == 6 * (2 + 2 + 1 + 1)


def test_what_the_page_names_exists(folders: dict[str, Path]) -> None:
    pipeline = open_pipeline(folders["pixart"])
    text = (DOCS / "add-a-method.md").read_text()
    for name in re.findall(r"`pipeline\.([a-z_.]+)`", text):
        owner: object = pipeline
        for word in name.split("."):
            if word != "t":  # only known inside a call
                owner = getattr(owner, word)
    for file in re.findall(r"`((?:baselines|tests)/[a-z_/]+\.py)`", text):
        assert (DOCS.parent / file).exists(), file


def test_impossible_options_are_refused_before_any_weight_is_loaded() -> None:
    with pytest.raises(UsageError, match="first <= last"):
        parse_method("limited-guidance:0.9:0.1", Registry.of([EXAMPLE]).methods)
