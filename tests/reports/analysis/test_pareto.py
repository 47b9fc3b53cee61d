"""The Pareto front on points whose front is known by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from harness.storage.records import Run
from reports.analysis.evidence import BLOCKS, SECONDS
from reports.analysis.pareto import pareto_front, survey_front


def test_known_points_higher_is_better() -> None:
    assert pareto_front([1, 2, 3, 4], [1.0, 3.0, 2.0, 4.0], "higher") == [0, 1, 3]


def test_known_points_lower_is_better() -> None:
    assert pareto_front([4, 1, 2, 3], [1.0, 9.0, 5.0, 6.0], "lower") == [1, 2, 0]


def test_exact_ties_both_stay() -> None:
    assert pareto_front([1, 1, 2], [5.0, 5.0, 5.0], "higher") == [0, 1]


def test_a_tie_on_one_axis_is_decided_by_the_other() -> None:
    assert pareto_front([1, 1], [4.0, 5.0], "higher") == [1]
    assert pareto_front([1, 2], [5.0, 5.0], "lower") == [0]


def test_every_point_off_the_front_is_beaten_and_none_on_it() -> None:
    points = [(1 + (i * 7) % 11, (i * 5) % 13) for i in range(40)]
    front = pareto_front([c for c, _ in points], [v for _, v in points], "higher")
    beaten = {i for i, (c, v) in enumerate(points) for d, w in points if d <= c and w >= v and (d, w) != (c, v)}
    assert set(front) == set(range(40)) - beaten


def test_nothing_gives_nothing() -> None:
    assert pareto_front([], [], "higher") == []


def test_nan_and_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        pareto_front([1.0, math.nan], [1.0, 2.0], "higher")
    with pytest.raises(ValueError, match="as many"):
        pareto_front([1.0], [], "higher")


def test_a_clear_front_is_sure_and_a_tie_is_a_coin(make_run: Callable[..., Run]) -> None:
    """Two methods of one cost and nearly one score share the front between them; a bad and dear one is never on it."""
    methods = {
        "full": (20, 480, 1.0, 10.0),
        "8 steps": (8, 192, 0.4, 8.0),
        "a(x)": (20, 240, 0.5, 9.5),
        "b(xxxx)": (20, 240, 0.5, 9.5),
        "bad(x)": (20, 400, 0.9, 7.0),
    }
    found = survey_front(make_run(methods=methods), "good", BLOCKS)
    assert found is not None
    assert found.probability["full"] == found.probability["8 steps"] == 1 and found.probability["bad(x)"] == 0
    assert found.probability["a(x)"] + found.probability["b(xxxx)"] == pytest.approx(1)
    assert 0.1 < found.probability["a(x)"] < 0.9


def test_the_volume_by_hand(make_run: Callable[..., Run]) -> None:
    """Box from (192, 8) to (480, 10): 8 steps touch its corner with no height, the accelerator holds 240/288 of 1.5/2."""
    methods = {"full": (20, 480, 1.0, 10.0), "8 steps": (8, 192, 0.4, 8.0), "a(x)": (20, 240, 0.5, 9.5)}
    found = survey_front(make_run(methods=methods), "good", BLOCKS)
    assert found is not None
    assert found.volume.value == pytest.approx(240 / 288 * 1.5 / 2)
    assert found.gain.value == pytest.approx(found.volume.value)
    assert found.gain.low < found.gain.value < found.gain.high < 0.7


def test_time_is_uncertain_too(make_run: Callable[..., Run]) -> None:
    """Two methods whose times cannot be told apart: in seconds either may be the cheaper one."""
    methods = {
        "full": (20, 480, 1.0, 10.0),
        "8 steps": (8, 192, 0.4, 8.0),
        "a(x)": (20, 240, 0.5, 9.5),
        "b(x)": (20, 241, 0.5, 9.4),
    }
    run = make_run(methods=methods, noise=0.1)
    counted, timed = survey_front(run, "good", BLOCKS), survey_front(run, "good", SECONDS)
    assert counted is not None and timed is not None
    assert counted.probability["b(x)"] < 0.05 < timed.probability["b(x)"] < 0.95


def test_no_survey_where_an_axis_has_no_interval(make_run: Callable[..., Run]) -> None:
    run = make_run(rounds=1)
    assert survey_front(run, "good", SECONDS) is None and survey_front(run, "good", BLOCKS) is not None
    assert survey_front(run, "no such metric", BLOCKS) is None
