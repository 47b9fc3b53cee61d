"""The page that shows how to add a family shows a file that runs, as it stands."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from diffusers import DDIMScheduler

from baselines.deepcache import DeepCache
from baselines.first_block_cache import FirstBlockCache
from baselines.fora import Fora
from harness.contracts import Method
from harness.models.families import table
from harness.sampling.pipeline import Pipeline
from ilf.untrained import UntrainedIlf
from ilf_bench.recognise import without_preset
from ilf_bench.testing import keeps_the_contract
from studies.families import CASES
from tests.families.test_families import forward_macs

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLE = DOCS / "examples" / "lab_family.py"


@pytest.fixture(scope="module")
def example() -> Any:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("lab_family", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, example: Any) -> Iterator[None]:
    """The example as the entry point of another package."""
    monkeypatch.setattr(EntryPoint, "load", lambda self: example.FAMILY)
    monkeypatch.setattr(table, "entry_points", lambda group: [EntryPoint("lab", "lab_family:FAMILY", group)])
    table.families.cache_clear()
    yield
    table.families.cache_clear()


@pytest.fixture
def pipeline(known: None, example: Any) -> Pipeline:
    """A tiny pipeline of the example's class with random weights."""
    built = CASES["DiT"].tiny.build()
    own = example.LabPipeline(built.transformer, built.vae, DDIMScheduler(clip_sample=False))
    return Pipeline(own, steps=4, guidance=2.0, solver="dpm++", precision="fp32")


def test_the_page_shows_the_file_and_it_is_short() -> None:
    shown = re.search(r"```python\n(.*?)```", (DOCS / "add-a-family.md").read_text(), re.DOTALL)
    assert shown is not None and shown[1] == EXAMPLE.read_text()
    assert len(EXAMPLE.read_text().splitlines()) <= 120


def test_its_facts_are_those_that_torch_counts(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.families.test_families.WORDS", ("3",))
    assert pipeline.family.name == "lab" and forward_macs(pipeline) == pipeline.geometry.forward_macs


@pytest.mark.parametrize(
    "method", [Fora(2), DeepCache(interval=2), FirstBlockCache(9.0), UntrainedIlf(steps=3, feedback="first-2")]
)
def test_methods_keep_the_contract_on_it(pipeline: Pipeline, method: Method) -> None:
    keeps_the_contract(pipeline, method)


def test_a_run_recognises_its_folder(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.pipe.save_pretrained(tmp_path)
    preset, fields = without_preset(str(tmp_path))
    assert preset == "tiny-class" and (fields["steps"], fields["guidance"]) == (20, 1.5)


def test_what_the_page_names_exists() -> None:
    text = (DOCS / "add-a-family.md").read_text()
    for file in re.findall(r"`((?:harness|tests|studies)/[a-z_0-9/]+\.py)`", text):
        assert (DOCS.parent / file).exists(), file
