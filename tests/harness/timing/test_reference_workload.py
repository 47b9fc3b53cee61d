"""The fixed workload: always the same work, and fast."""

from __future__ import annotations

import torch

from harness.results import REFERENCE
from harness.timing.reference_workload import BATCH, TOKENS, WIDTH, Workload


def test_it_is_the_same_work_every_time() -> None:
    """Equal outputs, and these very numbers: a change of the workload would make old times meaningless."""
    first, second = Workload("cpu", "fp32").run(), Workload("cpu", "fp32").run()
    assert first.shape == (BATCH, TOKENS, WIDTH) and torch.equal(first, second)
    assert torch.isfinite(first).all() and first.std().item() > 0.5
    torch.testing.assert_close(first[0, 0, :3], EXPECTED, rtol=1e-3, atol=1e-3)


EXPECTED = torch.tensor([-0.56494, -0.08842, -1.11310])


def test_a_sample_has_both_clocks_on_one_thread() -> None:
    sample = Workload("cpu", "fp32").time_once(3, 8)
    assert sample.method == REFERENCE and sample.round == 3 and sample.batch == 8
    assert sample.cpu_s is not None and 0 < sample.cpu_s <= sample.latency_s * 1.5
