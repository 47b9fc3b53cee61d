"""The field page is made of a run's records alone."""

from __future__ import annotations

from collections.abc import Callable

from harness.records import Run
from reports.field import FieldRun, field_page, is_axis

METHODS = {
    "full": (20, 480, 1.0, 10.0),
    "12 steps": (12, 288, 0.6, 9.0),
    "8 steps": (8, 192, 0.4, 8.0),
    "ilf(steps=10)": (10, 240, 0.5, 9.9),
    "fora(interval=3)": (20, 216, 0.5, 4.0),
    "int8": (20, 480, 0.8, 9.8),
}


def _page(run: Run) -> str:
    chosen = {"ilf": ("ilf:steps=10",), "fora": ("fora:3",)}
    return field_page([FieldRun(run, chosen, {"t-gate:0.3": "needs cross-attention"}, 96)])


def test_every_rival_has_its_answer_its_interval_and_its_ledger(make_run: Callable[..., Run]) -> None:
    page = _page(make_run(methods=METHODS))
    row = next(line for line in page.splitlines() if line.startswith("| ilf(steps=10)"))
    assert row.startswith("| ilf(steps=10) | 240 | 0.50 | 900 | 3,000 | yes: +1.400 [+1.3")
    assert next(line for line in page.splitlines() if line.startswith("| fora(interval=3)")).split("|")[4].strip() == "–"
    fora = next(line for line in page.splitlines() if line.startswith("| fora(interval=3)"))
    assert "yes" not in fora and "no" in fora
    assert "(96 a rival)" in page and "| t-gate:0.3 | tuning | needs cross-attention |" in page
    front = next(line for line in page.splitlines() if line.startswith("- Good score: "))
    assert "ilf(steps=10) (1.00)" in front and "12 steps" not in front


def test_axes_are_judged_by_seconds_only(make_run: Callable[..., Run]) -> None:
    run = make_run(methods=METHODS)
    assert is_axis(run, "int8") and not is_axis(run, "ilf(steps=10)")
    page = _page(run)
    assert "| int8 | 1.2" in page.split("### Precision and systems")[1]
    assert "| int8" not in page.split("### Pareto fronts")[0]
    assert "not timed in this run" in _page(make_run("untimed", methods=METHODS, rounds=0))
