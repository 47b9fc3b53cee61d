"""Low bits on every family, in an environment with torchao: `make test-low-bit`."""

from __future__ import annotations

import pytest
import torch

from ilf_bench.testing import EVERY, images, method_clauses
from studies.families import CASES, Opened, why_not


@pytest.mark.families
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("text", ["int8:float", "int8:float+fora:2"])
def test_int8_weights_keep_the_contract(families: dict[str, Opened], name: str, text: str) -> None:
    pytest.importorskip("torchao")
    assert why_not(families[name], text) == ""


@pytest.mark.families
@pytest.mark.parametrize("name", CASES)
def test_int8_inputs_keep_the_contract_but_for_a_few_grey_levels(families: dict[str, Opened], name: str) -> None:
    """In families of two streams, INT8 inputs differ between batch sizes: by up to 3 grey levels where INT8 itself costs 6."""
    pytest.importorskip("torchao")
    one = families[name]
    broken = {clause.promise for clause in method_clauses(one.pipeline, one.method("int8")) if clause.fault}
    assert broken <= {"makes each image independent of its neighbours"}
    with one.method("int8").attach(one.pipeline):
        together, alone = images(one.pipeline, EVERY), torch.cat([images(one.pipeline, [i]) for i in EVERY])
    assert (together - alone).abs().max() <= 4


@pytest.mark.families
@pytest.mark.parametrize("name", CASES)
def test_fp8_says_what_it_needs(families: dict[str, Opened], name: str) -> None:
    pytest.importorskip("torchao")
    assert "compute capability 8.9" in why_not(families[name], "fp8")
