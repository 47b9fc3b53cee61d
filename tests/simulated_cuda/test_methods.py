"""Every method on every model: the CPU's images to one grey level, its block evaluations, and no wait that is not stated."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import NotMeasured
from harness.sampling.pipeline import Pipeline
from harness.sampling.restoration import changed, state_of
from harness.sampling.solvers import SOLVERS
from tests.methods import COMPOSED, TEXTS, applies, build
from tests.simulated_cuda.conftest import MODELS
from tests.simulated_cuda.device import SimulatedCuda
from tests.simulated_cuda.sampling import EVERY, images
from tests.simulated_cuda.waits import allowed, measure, table

ROOT = Path(__file__).parents[2]
ALL = tuple(dict.fromkeys((*TEXTS, *COMPOSED, *(f"solver:{name}" for name in SOLVERS))))
Pairs = dict[str, tuple[Pipeline, Pipeline]]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("text", ALL)
def test_a_method_is_the_cpus(device: SimulatedCuda, pairs: Pairs, modules: dict[str, Path], text: str, name: str) -> None:
    cpu, gpu = pairs[name]
    method = build(text, modules[name])
    if not applies(text, gpu):
        with pytest.raises(NotMeasured), method.attach(gpu):
            pass
        return
    images(gpu, EVERY)
    plain, before = sum(device.waits.values()), state_of(gpu)
    with cpu.counting() as expected, method.attach(cpu):
        there = images(cpu, EVERY)
    with gpu.counting() as counted, method.attach(gpu):
        device.forget()
        here = images(gpu, EVERY)
        own = sum(device.waits.values()) - plain
        assert own <= allowed(text, gpu), device.waits
    assert (here - there).abs().max() <= 1 and counted.rows == expected.rows
    assert changed(before, state_of(gpu)) == []


@pytest.mark.parametrize("name", MODELS)
def test_images_leave_the_device_as_bytes_in_one_wait(device: SimulatedCuda, pairs: Pairs, name: str) -> None:
    _, gpu = pairs[name]
    images(gpu, EVERY)
    leaving = [wait for wait in device.waits.elements() if wait.why in ("copy to the host", "synchronize")]
    assert [wait.why for wait in leaving] == ["synchronize"] and "transfer.py" in leaving[0].where


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", MODELS)
def test_low_precision_runs(pairs: Pairs, precision: str, name: str) -> None:
    _, gpu = pairs[name]
    exact = images(gpu, EVERY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "precision", precision)
        assert 0 < (images(gpu, EVERY) - exact).abs().float().mean() < 8


def test_the_documented_table_is_what_is_counted(device: SimulatedCuda, pairs: Pairs, modules: dict[str, Path]) -> None:
    rows = [row for name in MODELS for row in measure(device, name, pairs[name][1], modules[name])]
    assert table(rows) in (ROOT / "docs" / "gpu.md").read_text(), f"docs/gpu.md lacks this table:\n{table(rows)}"
