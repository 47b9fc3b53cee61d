"""The cost ledger, the null controls, and numbers that others published."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.contracts import Score
from harness.errors import UsageError
from harness.records import Run
from harness.spec import preset_names
from harness.statistics import Interval
from reports.controls import Separation, control_names, read_controls
from reports.ledger import break_even, ledger
from reports.markdown import markdown_report
from reports.published import published_for, read_published

Make = Callable[..., Run]


def test_training_pays_back_after_as_many_images_as_it_saves_seconds(make_run: Make) -> None:
    """Training took 900 s, and each image takes half of the full run's second."""
    run = make_run(noise=0.0)
    row = next(row for row in ledger(run) if row.method == "ilf(steps=10)")
    assert row.saving_s is not None and row.saving_s.value == pytest.approx(0.5)
    assert row.break_even is not None and row.break_even.value == pytest.approx(1800)
    assert (row.spent_s, row.extra_parameters, row.extra_memory_bytes) == (900, 3000, 0)
    free = next(row for row in ledger(run) if row.method == "8 steps")
    assert free.break_even is None and free.spent_s == 0


def test_calibration_counts_and_the_interval_follows_the_speed_up(make_run: Make) -> None:
    run = make_run(noise=0.02)
    run = replace(run, methods=tuple(replace(m, calibration_s=100.0) for m in run.methods))
    row = next(row for row in ledger(run) if row.method == "ilf(steps=10)")
    assert row.spent_s == 1000 and row.break_even is not None and row.saving_s is not None
    assert row.break_even.low == pytest.approx(1000 / row.saving_s.high) and row.break_even.high == pytest.approx(
        1000 / row.saving_s.low
    )
    assert row.break_even.low < row.break_even.value < row.break_even.high


def test_what_saves_nothing_never_pays_back() -> None:
    assert break_even(10, Interval(0.1, -0.1, 0.2)) == Interval(pytest.approx(100), pytest.approx(50), math.inf)
    assert break_even(10, Interval(-0.1, -0.2, -0.05)) == Interval(math.inf, math.inf, math.inf)


def test_an_untimed_run_has_a_ledger_without_seconds(make_run: Make) -> None:
    row = ledger(replace(make_run(), timings=()))[-1]
    assert row.saving_s is None and row.break_even is None and row.extra_memory_bytes is None and row.training_s == 900


def with_control(run: Run, name: str, values: np.ndarray, fingerprint: str = "aa") -> Run:
    full = run.scores["full", "good"]
    assert isinstance(full, Score)
    control = replace(
        full, method=name, per_image=values, n=len(values), value=float(values.mean()), fingerprint={"weights": fingerprint}
    )
    return replace(run, scores=dict(run.scores) | {(name, "good"): control})


@pytest.mark.parametrize(
    ("centre", "separation"),
    [(0.0, Separation.CLEAR), (9.0, Separation.OVERLAPPING), (10.0, Separation.NONE), (12.0, Separation.REVERSED)],
)
def test_controls(make_run: Make, centre: float, separation: Separation) -> None:
    """The full run scores 10 with deviation 1 on 64 images; the control has 40 of its own."""
    values = centre + np.random.default_rng(0).permutation(np.linspace(-1.7, 1.7, 40))
    run = with_control(make_run(), "control: black", values)
    (reading,) = read_controls(run)
    assert reading.separation is separation and reading.gap.value == pytest.approx(10 - centre)
    assert reading.trustworthy is (separation is Separation.CLEAR) and control_names(run) == ["control: black"]


def test_the_overlap_is_the_share_of_pairs(make_run: Make) -> None:
    run = with_control(make_run(), "control: noise", np.array([9.0, 10.5]))
    full = run.scores["full", "good"]
    assert isinstance(full, Score)
    pairs = [c > m for c in (9.0, 10.5) for m in full.per_image]
    assert read_controls(run)[0].overlap == pytest.approx(np.mean(pairs))


def test_a_control_of_one_image_or_of_another_fingerprint_shows_nothing(make_run: Make) -> None:
    assert read_controls(with_control(make_run("a"), "control: black", np.zeros(1)))[0].separation is Separation.NONE
    assert read_controls(with_control(make_run("b"), "control: black", np.zeros(9), fingerprint="bb")) == []


def test_the_published_table_is_complete_and_names_its_source() -> None:
    from reports.published import FOLDER

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
    assert "not measured here, not ranked" in text and "| caching | 326 | ImageReward | 82.95 | x100 |" in text


def test_the_users_own_file(make_run: Make, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "- source: <b>a paper</b>\n  columns: [{metric: fid, title: FID, unit: '', direction: lower}]\n"
        "  rows: [{model: tiny-text, method: ours, values: [1.5]}, {model: tiny-text, method: theirs, values: [null]}]\n"
    )
    (number,) = published_for(make_run(), [file])
    assert (number.method, number.value, number.source) == ("ours", 1.5, "<b>a paper</b>")


@pytest.mark.parametrize(
    "text", ["- source: x", "[1, 2]", ": :", "- {source: x, columns: [], rows: [{model: a, method: b, values: [1]}]}"]
)
def test_a_bad_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"bad\.yaml"):
        read_published(file)
