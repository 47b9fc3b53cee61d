"""The field page and its figure are made of a run's records alone."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

from PIL import Image

from harness.storage.records import Run
from reports.render.field import FieldRun, field_page, is_axis
from reports.render.field_figure import field_figure

METHODS = {
    "full": (20, 480, 1.0, 10.0),
    "12 steps": (12, 288, 0.6, 9.0),
    "8 steps": (8, 192, 0.4, 8.0),
    "ilf(steps=10)": (10, 240, 0.5, 9.9),
    "fora(interval=3)": (20, 216, 0.5, 4.0),
    "int8": (20, 480, 0.8, 9.8),
}
CHOSEN = {"ilf": ("ilf(steps=10)",), "fora": ("fora(interval=3)",)}  # synthetic runs have labels as texts


def _page(run: Run) -> str:
    untunable = {"t-gate:0.3": "needs cross-attention", "t-gate:0.6": "needs cross-attention"}
    return field_page([FieldRun(run, CHOSEN, untunable, 96, 500)], "python -m studies.field --samples 64")


def _cells(page: str, label: str) -> list[str]:
    line = next(line for line in page.splitlines() if line.startswith(f"| {label}"))
    return [cell.strip() for cell in line.strip("| ").split(" | ")]


def test_every_rival_has_its_answer_its_interval_and_its_ledger(make_run: Callable[..., Run]) -> None:
    page = _page(make_run(methods=METHODS))
    ilf, fora = _cells(page, "ilf(steps=10)"), _cells(page, "fora(interval=3)")
    assert ilf[1:3] == ["240", "0.50"] and ilf[3].startswith(("1.9", "2.0")) and ilf[4] == "yes" and ilf[5:7] == ["900", "3,000"]
    assert ilf[7].startswith("yes: +1.400 [+1.3")
    assert fora[5:7] == ["–", "–"] and fora[7].startswith("worse: ") and fora[4] == "worse"
    assert (
        "(96 per method)" in page
        and "tuning seed (500)" in " ".join(page.split())
        and "Written by `python -m studies.field --samples 64`" in page
    )
    front = next(line for line in page.splitlines() if line.startswith("- Good score: "))
    assert "ilf(steps=10) (1.00)" in front and "12 steps" not in front


def test_the_answers_are_counted_and_the_winners_named(make_run: Callable[..., Run]) -> None:
    page = _page(make_run(methods=METHODS))
    assert _cells(page.split("### In short")[1], "Good score") == ["Good score", "1", "0", "1", "0", "ilf(steps=10)"]
    assert "2 settings of 2 could be judged" in page


def test_each_reason_is_given_once(make_run: Callable[..., Run]) -> None:
    reason = "expected torchao (generate fp8, samples 0 to 7)"
    page = _page(make_run(methods=METHODS, rounds=0, failed_methods=(("fp8", reason),)))
    assert "| tuning | needs cross-attention | t-gate:0.3, t-gate:0.6 |" in page
    assert "| timing | not timed in this run | all |" in page and "| method | expected torchao | fp8 |" in page


def test_axes_are_judged_by_seconds_only(make_run: Callable[..., Run]) -> None:
    run = make_run(methods=METHODS)
    assert is_axis(run, "int8") and not is_axis(run, "ilf(steps=10)")
    page = _page(run)
    axes = page.split("### Precision and systems")[1]
    assert _cells(axes, "int8")[1].startswith("1.2") and _cells(axes, "int8")[2:] == ["9.80", "0.200"]
    assert "| int8" not in page.split("### Pareto fronts")[0]
    untimed = _page(make_run("untimed", methods=METHODS, rounds=0))
    assert "not timed in this run" in untimed and "at equal seconds" not in untimed


def test_the_figure_shows_every_score_and_stands_outliers(make_run: Callable[..., Run]) -> None:
    run = make_run(methods={**METHODS, "deediff(0.1)": (20, 200, 0.5, -900.0)})
    chosen = {**CHOSEN, "deediff": ("deediff(0.1)",)}
    png = field_figure(run, chosen)
    assert Image.open(io.BytesIO(png)).size == (1350, 684) and png == field_figure(run, chosen)
    assert png != field_figure(run, CHOSEN) != field_figure(replace(run, scores={}), CHOSEN)
