"""The matrices against the verdicts and surveys that they print."""

from __future__ import annotations

from collections.abc import Callable

from harness.storage.records import Run
from reports.analysis.answers import answers
from reports.analysis.evidence import BLOCKS, SECONDS
from reports.analysis.pareto import survey_front
from reports.analysis.verdicts import trials
from reports.render.duels import duels, headlines
from reports.render.matrix import front_matrices, standing_matrix
from reports.render.plots import BLOCK_AXIS, SECONDS_AXIS

Make = Callable[..., Run]
METHODS = {
    "full": (20, 480, 1.0, 10.0),
    "12 steps": (12, 288, 0.6, 9.0),
    "5 steps": (5, 120, 0.25, 5.0),
    "ilf(steps=10)": (10, 240, 0.5, 9.9),
}


def test_each_standing_is_printed_once_with_its_gain(make_run: Make) -> None:
    run = make_run(methods=METHODS)
    matrix, found = standing_matrix(run), trials(run)
    assert matrix is not None and [head.key for head in matrix.heads] == ["good", "far"]
    printed = {(line.label, head.key): e for line in matrix.lines for head, e in zip(matrix.heads, line.entries, strict=True)}
    assert {key: entry.word for key, entry in printed.items()} == {(r.method, r.metric): r.standing.value for r in found.rows}
    assert printed["12 steps", "good"].text.startswith("−1.0") and printed["12 steps", "good"].word == "inferior"
    assert matrix.heads[0].note == "margin 0.50" and matrix.note == ""


def test_a_warning_that_holds_for_all_is_said_once(make_run: Make) -> None:
    matrix = standing_matrix(make_run())
    assert matrix is not None and "add steps:5" in matrix.note
    assert all(not head.warning and not head.note for head in matrix.heads)


def test_fronts_print_the_surveys(make_run: Make) -> None:
    run = make_run(methods=METHODS)
    found = front_matrices(run)
    assert list(found) == [SECONDS_AXIS, BLOCK_AXIS]
    survey = survey_front(run, "good", SECONDS)
    assert survey is not None
    texts = {line.label: line.entries[0].text for line in found[SECONDS_AXIS].lines}
    assert set(texts) == set(METHODS) and texts["5 steps"] == f"{survey.probability['5 steps']:.0%}" == "100%"


def test_the_answers_are_the_answers(make_run: Make) -> None:
    run = make_run(methods=METHODS)
    by_time, by_blocks = duels(run)
    for part, unit in ((by_time, SECONDS), (by_blocks, BLOCKS)):
        for duel, answer in zip(part.rows, answers(run, unit), strict=True):
            assert (duel.label, duel.headline) == (answer.label, answer.headline)
            assert [reason.outcome for reason in duel.reasons] == [r.outcome.value for r in answer.rulings.values()]
    assert headlines(by_time.rows)["yes"] == 1 and sum(headlines(by_time.rows).values()) == 1


def test_without_times_only_blocks_are_asked_about(make_run: Make) -> None:
    run = make_run(methods=METHODS, rounds=0)
    assert [part.axis for part in duels(run)] == [BLOCK_AXIS] == list(front_matrices(run))
