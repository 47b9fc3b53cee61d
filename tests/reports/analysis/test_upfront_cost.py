"""The upfront cost, and numbers that others published."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.config.spec import preset_names
from harness.errors import UsageError
from harness.statistics import Interval
from harness.storage.records import Run
from reports.analysis.published import published_for, read_published
from reports.analysis.upfront_cost import break_even, saved_seconds, upfront_cost
from reports.render.markdown import markdown_report

Make = Callable[..., Run]


def test_training_pays_back_after_as_many_images_as_it_saves_seconds(make_run: Make) -> None:
    """Training took 900 s, and each image takes half of the full run's second."""
    run = make_run(noise=0.0)
    row = next(row for row in upfront_cost(run) if row.method == "ilf(steps=10)")
    saving = saved_seconds(run, row.method)
    assert saving is not None and saving.value == pytest.approx(0.5)
    assert row.break_even is not None and row.break_even.value == pytest.approx(1800)
    assert (row.spent_s, row.extra_parameters, row.extra_memory_bytes) == (900, 3000, 0)
    free = next(row for row in upfront_cost(run) if row.method == "8 steps")
    assert free.break_even is None and free.spent_s == 0


def test_calibration_counts_and_the_interval_follows_the_speed_up(make_run: Make) -> None:
    run = make_run(noise=0.02)
    run = replace(run, methods=tuple(replace(m, calibration_s=100.0) for m in run.methods))
    row = next(row for row in upfront_cost(run) if row.method == "ilf(steps=10)")
    saving = saved_seconds(run, row.method)
    assert row.spent_s == 1000 and row.break_even is not None and saving is not None
    assert row.break_even.low == pytest.approx(1000 / saving.high) and row.break_even.high == pytest.approx(1000 / saving.low)
    assert row.break_even.low < row.break_even.value < row.break_even.high


def test_compiling_is_read_from_the_warm_up(make_run: Make) -> None:
    run = make_run()
    warm = [replace(t, round=-1, compile_s=seconds) for t, seconds in zip(run.timings_of["8 steps"][:2], (7.0, 1.5), strict=True)]
    rows = {row.method: row for row in upfront_cost(replace(run, warmups=tuple(warm)))}
    assert rows["8 steps"].compile_s == 8.5 and rows["12 steps"].compile_s is None and rows["8 steps"].spent_s == 0


def test_what_saves_nothing_never_pays_back() -> None:
    assert break_even(10, Interval(0.1, -0.1, 0.2)) == Interval(pytest.approx(100), pytest.approx(50), math.inf)
    assert break_even(10, Interval(-0.1, -0.2, -0.05)) == Interval(math.inf, math.inf, math.inf)


def test_an_untimed_run_has_a_ledger_without_seconds(make_run: Make) -> None:
    run = replace(make_run(), timings=())
    row = upfront_cost(run)[-1]
    assert saved_seconds(run, row.method) is None and row.break_even is None
    assert row.extra_memory_bytes is None and row.training_s == 900


def test_the_published_table_is_complete_and_names_its_source() -> None:
    from reports.analysis.published import FOLDER

    numbers = read_published(FOLDER / "gwilliam-2025.yaml")
    assert len(numbers) == 16 * 8 and {n.model for n in numbers} <= set(preset_names())
    (one,) = [n for n in numbers if (n.model, n.method, n.metric) == ("pixart-alpha-1024", "ILF", "image_reward")]
    assert (one.value, one.unit, one.block_evaluations) == (91.71, "x100", 332)
    assert one.source == "published by Gwilliam et al., arXiv 2501.13107, project page"


def test_published_numbers_stand_apart_and_only_beside_their_own_model(make_run: Make) -> None:
    run = make_run()
    assert published_for(run) == [] and "Published elsewhere" not in markdown_report(run)
    renamed = replace(run, spec=dict(run.spec) | {"name": "pixart-alpha-512"})
    text = markdown_report(renamed)
    assert (
        "not measured here, not ranked" in text
        and "| caching (20 steps) | 326 | 0.59 (1.797 times as fast) | 82.95 (-9.08) |" in text
    )


def test_the_users_own_file(make_run: Make, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "- source: <b>a paper</b>\n  baseline: theirs\n  columns: [{metric: fid, title: FID, unit: '', direction: lower}]\n"
        "  rows: [{model: tiny-text, method: ours, values: [1.5]}, {model: tiny-text, method: theirs, values: [2.5]}]\n"
    )
    (number, _) = published_for(make_run(), [file])
    assert (number.method, number.value, number.source) == ("ours", 1.5, "<b>a paper</b>")


@pytest.mark.parametrize(
    "text", ["- source: x", "[1, 2]", ": :", "- {source: x, columns: [], rows: [{model: a, method: b, values: [1]}]}"]
)
def test_a_bad_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"bad\.yaml"):
        read_published(file)
