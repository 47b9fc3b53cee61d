"""The table of a run fits the terminal, loses no number, and says why a score is missing."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from harness.results import Failure, Score
from harness.storage.records import Run
from reports.render.tables import comparison_table
from reports.render.terminal import Notes, terminal_tables

Make = Callable[..., Run]


def shown(run: Run, width: int) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width)
    for part in terminal_tables(run, width):
        console.print(part)
    return out.getvalue()


@pytest.fixture
def wide(make_run: Make) -> Run:
    """A run with twelve metrics."""
    run = make_run()
    scores = dict(run.scores)
    for (label, metric), score in run.scores.items():
        for number in range(12):
            assert isinstance(score, Score)
            more = replace(score, metric=f"{metric}-{number}", title=f"measure {number}{metric[:1]}")
            scores[label, more.metric] = more
    names = sorted({metric for _, metric in scores})
    return replace(run, scores=scores, spec={**run.spec, "metrics": names})


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_lost(wide: Run, width: int) -> None:
    text = shown(wide, width)
    assert max(map(cell_len, text.splitlines())) <= width
    words = text.split("│")
    for row in comparison_table(wide).rows:
        for column in comparison_table(wide).metrics:
            cell = row.cells.get(column.key)
            if cell is not None and not cell.failure:
                assert any(word.strip() == cell.text.split(" ")[0] for word in words), (column.key, cell.text)
    assert width > 80 or text.count("┏") > 1


def test_a_wide_terminal_gets_one_table(make_run: Make) -> None:
    assert shown(make_run(), 200).count("┏") == 1


def test_each_reason_is_said_once_with_the_cells_that_lack_a_score(make_run: Make) -> None:
    run = make_run()
    (first, *_), metrics = [m.label for m in run.methods], sorted({metric for _, metric in run.scores})
    why = "identical to the full run: PSNR is infinite"
    scores = dict(run.scores) | {(first, metrics[0]): Failure(first, metrics[0], why)}
    text = shown(replace(run, scores=scores), 120)
    (line,) = [line for line in text.splitlines() if why in line]
    assert line.startswith("(1) ") and f"of {first}: {why}" in line
    assert text.count("(1)") == 2  # in the cell, and before the reason


def test_notes_are_numbered_by_reason() -> None:
    notes = Notes()
    assert [notes.mark("a", "x"), notes.mark("b", "y"), notes.mark("a", "z")] == ["(1)", "(2)", "(1)"]
    assert notes.lines() == ["(1) x; z: a", "(2) y: b"]
