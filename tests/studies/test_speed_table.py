"""The speed table: its arithmetic on samples whose answers are known, and one reduced run of the whole script."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from harness.config.methods import parse_method
from harness.cost.device_speed import Speed
from harness.cost.plan import Plan
from harness.models.families.base import backbone_of
from harness.models.random_weights import describe
from harness.results import REFERENCE, Failure, TimingSample
from harness.storage.records import Run
from ilf_bench.registry import BUILT_IN
from studies import speed_table
from tests.harness.models.test_random_weights import ARCHITECTURES, patched_to

FAMILY, MODEL = describe(ARCHITECTURES["dit-xl-2-256"])
FULL = Plan.full(backbone_of(FAMILY, MODEL, None), 20, FAMILY.guidance(MODEL.configs, 1.5, 1.0))


def test_the_methods_have_the_blocks_of_the_paper() -> None:
    costs = [parse_method(text, BUILT_IN).plan(FULL).block_evaluations / 2 for text in speed_table.methods(20)]
    assert costs == [560, 336, 280, 326, 332, 205]


def test_rows_from_known_samples(tmp_path: Path) -> None:
    """Half the blocks in 0.6 of the denoising time; text and decode take a tenth of a second each."""
    timings = tuple(
        TimingSample(method, n, 2, 0.2 + denoise, 0.1, denoise, 0.1, 2**30, throttled=why)
        for n in range(3)
        for method, denoise, why in (("full", 1.0, ""), ("10 steps", 0.6, "SwPowerCap" if n else ""))
    )
    warm = (TimingSample("10 steps", -1, 2, 9.0, 0.1, 8.8, 0.1, 1, compile_s=7.0),)
    run = Run(tmp_path, {"name": "x", "compile": True}, {}, (), (), {}, timings, True, (), warm)
    plans: dict[str, Plan | Failure] = {"full": FULL, "10 steps": FULL.with_steps(10), "gone": Failure("gone", "", "x")}
    full, ten = speed_table.rows_of(run, plans, Speed(100e12, "a data sheet"))
    assert (full.speedup, full.kept, full.blocks, full.batch) == (1, 1, 1120, 2)
    assert ten.denoise_speedup == pytest.approx(1 / 0.6) and ten.kept == pytest.approx(1 / 0.6 / 2)
    assert ten.speedup == pytest.approx(1.2 / 0.8) and ten.stages == pytest.approx(1)
    macs = 118_666_838_016  # of one call of DiT-XL/2 at 256, as torch counts them
    assert full.of_peak == pytest.approx(2 * 20 * 2 * 2 * macs / 1.0 / 100e12)
    assert (ten.compile_s, ten.throttled, ten.samples, ten.seconds_per_image) == (7.0, 2, 3, pytest.approx(0.4))
    text = speed_table.markdown([full, ten], "Facts.", Speed(100e12, "a data sheet"))
    rows = [line.split("|") for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4 and len({len(row) for row in rows}) == 1 and "2 of 3" in text and "a data sheet" in text


def test_the_whole_script_at_reduced_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patched_to(monkeypatch, "dit-xl-2-256")
    out = tmp_path / "speed.md"
    arguments = "--presets dit-xl-256 --steps 4 --layers 2 --rounds 1 --warmup 1 --batches 2,1 --modes eager --device cpu"
    monkeypatch.setattr(sys, "argv", ["speed_table.py", *arguments.split(), "--runs", str(tmp_path / "r"), "--out", str(out)])
    speed_table.main()
    assert out.read_text().count("| dit-xl-256 | eager |") == 2 * 5 and "cut to 2 blocks: no result" in out.read_text()
    (stored,) = json.loads(out.with_suffix(".json").read_text())
    timed = [sample for sample in stored["samples"] if sample["method"] != REFERENCE]
    assert len(timed) == 2 * 2 * 6, "warm-up and one round, two batch sizes, five methods and the A/A pair"
    assert stored["environment"]["notes"] and stored["spec"]["pipeline"] == "random:dit-xl-2-256:layers=2"
