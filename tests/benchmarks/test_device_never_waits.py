"""The benchmark of the device that sleeps, at toy size: it drives the product's own stage, which knows nothing of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import device_never_waits as bench
from harness.paths import ROOT


def test_the_stage_stores_what_the_device_made() -> None:
    row = bench.storing(32, 0.005, 0.0, 0.2)
    assert row.device_s == pytest.approx(0.2) and row.stage_s >= row.device_s and row.encoding_s > 0
    assert row.allowed_s == pytest.approx(max(1.03 * row.device_s, 1.05 * row.encoding_s))
    assert row.passes is (row.stage_s <= row.allowed_s)


def test_the_device_may_spend_time_in_python() -> None:
    pipeline = bench.Sleeping(16, 0.02, bench.PYTHON_SHARE)
    assert pipeline.generate(["a"], 0, [0]).shape == (1, 3, 16, 16) and pipeline.slept == pytest.approx(0.02)


def test_a_bare_loop_is_held_against_the_stage(tmp_path: Path) -> None:
    mean, upper = bench.looping("tiny-class", 4, rounds=2)
    assert 0 < mean <= upper


def test_no_part_of_the_product_knows_of_the_device_that_sleeps() -> None:
    packages = ("harness", "ilf", "baselines", "metrics", "reports", "ilf_bench")
    files = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    assert files and not any("Sleeping" in text or "device_never_waits" in text for text in (p.read_text() for p in files))
