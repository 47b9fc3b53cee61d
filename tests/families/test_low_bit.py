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
def test_int8_inputs_keep_the_contract_but_for_rounding(families: dict[str, Opened], name: str) -> None:
    """Whatever its neighbours are, an image of a batch is the same. At another batch size float kernels differ in the last bit,
    which moves some inputs by one INT8 step: noise as large as INT8's own, up to 1.1 grey levels of random weights on average."""
    pytest.importorskip("torchao")
    one = families[name]
    broken = {clause.promise for clause in method_clauses(one.pipeline, one.method("int8")) if clause.fault}
    assert broken <= {"makes each image independent of its neighbours"}
    with one.method("int8").attach(one.pipeline):
        together, others = images(one.pipeline, EVERY), images(one.pipeline, [0, 4, 5])
        alone = torch.cat([images(one.pipeline, [i]) for i in EVERY])
    assert torch.equal(together[0], others[0]) and not torch.equal(together[1], others[1])
    assert (together - alone).abs().float().mean() <= 2


@pytest.mark.families
@pytest.mark.parametrize("name", CASES)
def test_fp8_says_what_it_needs(families: dict[str, Opened], name: str) -> None:
    pytest.importorskip("torchao")
    assert "compute capability 8.9" in why_not(families[name], "fp8")
