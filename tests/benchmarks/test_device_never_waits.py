"""The benchmark of the device that sleeps, at toy size: it drives the product's own stage, which knows nothing of it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import device_never_waits as bench
from benchmarks.sleeping import Sleeping, SleepingMetric, content, seen
from harness.contracts import Batch
from harness.paths import ROOT
from metrics.published.packages import to_pil


def test_the_stage_stores_what_the_device_made() -> None:
    bar = bench.storing(32, 0.005, 0.0, 0.2)
    device, encoding = bar.beside["device"], bar.beside["encoding alone"]
    assert bar.beside["asked of it"] == pytest.approx(0.2) and device >= 0.2 and bar.measured >= 0.2 and encoding > 0
    assert bar.allowed == pytest.approx(max(1.03 * device, 1.05 * encoding))
    assert bar.passes is (bar.measured <= bar.allowed)


def test_the_device_may_spend_time_in_python() -> None:
    pipeline = Sleeping(16, 0.02, bench.PYTHON_SHARE)
    began = time.perf_counter()
    assert pipeline.generate(["a"], 0, [0]).shape == (1, 3, 16, 16) and time.perf_counter() - began >= 0.019


def test_a_bare_loop_is_held_against_the_stage() -> None:
    bar = bench.looping("tiny-class", 4, rounds=2)
    assert 0 < bar.beside["lower"] <= bar.beside["mean"] <= bar.measured


def test_scoring_is_held_against_reading_alone() -> None:
    bar = bench.scoring(80, rounds=2, side=64, seconds=0.0005)
    assert bar.beside["network, s"] == pytest.approx(0.04) and bar.beside["worst"] >= bar.measured > 0


def test_a_network_that_sleeps_sees_what_reading_alone_makes() -> None:
    images = content(48)[:3]
    found = SleepingMetric("x", 0.0).measure(Batch(images, ["a"] * 3, range(3)))
    resized = torch.stack([seen(to_pil(image[None])[0]) for image in images])
    np.testing.assert_array_equal(found[:, 0], resized[:, ::56, ::56].float().mean(dim=(1, 2, 3)).numpy())


@pytest.mark.slow
def test_workers_of_the_ray_engine_store_while_their_devices_go_on() -> None:
    """What they store takes as long as their devices do: one after the other would take twice the time."""
    bar = bench.spreading(2.0, count=2, side=32, seconds=0.05, encoding_s=0.05 * bench.THREADS)
    assert 1 <= bar.measured < 1.6


def test_each_bar_is_a_line_of_json(tmp_path: Path) -> None:
    out, bars = (
        tmp_path / "bars.jsonl",
        [bench.Bar("store", name, 1.0, allowed, {"x": 1.0}) for name, allowed in (("a", 2), ("b", 0))],
    )
    rows = [bench.show(bar, number, out, {"command": "c"}) for number, bar in enumerate(bars)]
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["name"], line["passes"], line["command"]) for line in found] == [("a", True, "c"), ("b", False, "c")]
    assert [row[4] for row in rows] == ["met", "NOT MET"]


def test_no_part_of_the_product_knows_of_the_device_that_sleeps() -> None:
    packages = ("harness", "ilf", "baselines", "metrics", "reports", "ilf_bench")
    files = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    assert files
    for file in files:
        text = file.read_text()
        assert not any(word in text for word in ("Sleeping", "benchmarks.sleeping", "device_never_waits")), file
