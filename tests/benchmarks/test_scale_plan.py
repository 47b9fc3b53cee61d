"""The plan's arithmetic, and that it stands on the committed measurements."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.scale_plan import Assumptions, Measured, plan, plan_for

ASSUMED = Assumptions(images=1_000, methods=10, full_s=1.0, mean_cost=0.5, score_s=0.1, batch=10, write_bytes_s=1e6)
MEASURED = Measured(efficiency=0.8, driver_s=0.01, store_s=0.5, score_s=0.1, report_s=0.001, image_bytes=1_000)


def test_hours_by_hand() -> None:
    made = plan_for(10, ASSUMED, MEASURED)
    assert made.generate_h == pytest.approx(10_000 * (0.5 + 0.5) / 8 / 3600)
    assert made.score_h == pytest.approx(10_000 * 0.2 / 8 / 3600)
    assert made.time_h == pytest.approx(9 * 32 * 11 * 0.5 / 3600) and made.report_h == pytest.approx(10 / 3600)
    assert made.gpu_hours == pytest.approx((made.generate_h + made.score_h) * 10 + made.time_h)
    assert made.stored_bytes == 10_000 * 10_000
    assert made.shares["the driver"] == pytest.approx(1_000 * 0.01 / 1_250)
    assert made.shares["the store"] == pytest.approx(1e8 / 1_250 / 1e6)


def test_only_what_spreads_shrinks() -> None:
    few, many = (plan_for(gpus, ASSUMED, MEASURED) for gpus in (8, 64))
    assert many.generate_h == pytest.approx(few.generate_h / 8) and many.score_h == pytest.approx(few.score_h / 8)
    assert (many.time_h, many.report_h) == (few.time_h, few.report_h)
    assert all(many.shares[name] > few.shares[name] for name in few.shares)


def test_the_slowest_common_part_saturates_first() -> None:
    assert plan_for(8, replace(ASSUMED, write_bytes_s=1e4), MEASURED).first == "the store"
    assert plan_for(8, ASSUMED, replace(MEASURED, driver_s=5.0)).first == "the driver"


def test_the_committed_measurements_make_a_plan() -> None:
    measured = Measured.read()
    assert 0.5 < measured.efficiency < 1.1 and measured.image_bytes > 0
    assert min(measured.driver_s, measured.store_s, measured.score_s, measured.report_s) > 0
    assert plan(Assumptions()).row_count == 2
