"""The examples in docstrings run. A module with an example that is not in the list below is a failure, too.

A list instead of pytest's ``--doctest-modules``: that option would also import every module of the tests as one of the product.
"""

from __future__ import annotations

import doctest
import importlib

import pytest

from harness.paths import ROOT

MODULES = (
    "harness.config.methods",
    "harness.config.solvers",
    "harness.config.spec",
    "harness.cost.guidance",
    "harness.cost.macs",
    "harness.cost.plan",
    "harness.errors",
    "harness.execution.part",
    "harness.history.redaction",
    "harness.results",
    "harness.sampling.grids",
    "harness.sampling.noise",
    "harness.statistics.curves",
    "harness.statistics.fronts",
    "harness.statistics.intervals",
    "harness.statistics.means",
    "harness.statistics.multiple",
    "harness.statistics.resampling",
    "harness.statistics.rounds",
    "harness.storage.layout",
    "harness.text",
    "ilf.settings",
    "ilf_bench",
    "ilf_bench.assignments",
    "ilf_bench.testing",
    "reports.format",
)
PACKAGES = ("harness", "ilf", "baselines", "metrics", "reports", "ilf_bench")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted and not found.failed


def test_every_module_with_an_example_is_listed() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if ">>> " in path.read_text()]
    names = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__") for path in files}
    assert names == set(MODULES)
