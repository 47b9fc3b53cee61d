"""What a metric makes of the null controls, and what is never subtracted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from harness.errors import ArtifactError
from harness.results import BASELINE, Direction, Failure, FloatArray, Score
from harness.statistics import score_difference
from harness.statistics.controls import CONTROLS, NULLS, Separation, is_insensitive, separations

Found = Mapping[tuple[str, str], Score | Failure]


def score(label: str, values: FloatArray, direction: Direction = "higher", **fingerprint: str) -> Score:
    return Score(label, "m", "M", "", direction, False, float(values.mean()), len(values), {"metric": "m", **fingerprint}, values)


def around(mean: float, n: int = 100, seed: int = 0) -> FloatArray:
    drawn: FloatArray = np.random.default_rng(seed).normal(mean, 0.1, size=n)
    return drawn


def record(**means: float) -> Found:
    return {(control, "m"): score(control, around(mean, 60, i)) for i, (control, mean) in enumerate(means.items())}


GOOD = {"identical": 1.0, "jpeg50": 0.8, "shuffled": 0.5, "constant": 0.3, "noise": 0.1, "black": 0.0}


def methods(**means: float) -> Found:
    return {(label, "m"): score(label, around(mean, 200, 9)) for label, mean in {BASELINE: 1.0, **means}.items()}


def verdicts(found: tuple[Separation, ...]) -> dict[str, str]:
    return {s.control: s.verdict for s in found}


def test_a_metric_that_sees_every_control_is_not_blind() -> None:
    found = separations("m", methods(fast=0.97), record(**GOOD))
    assert verdicts(found) == {"identical": "the same", **{c: "distinguished" for c in CONTROLS if c != "identical"}}
    assert not is_insensitive(found)


@pytest.mark.parametrize("null", NULLS)
def test_a_null_inside_the_methods_range_makes_it_blind(null: str) -> None:
    found = separations("m", methods(fast=0.6), record(**(GOOD | {null: 0.62})))
    (confused,) = [s for s in found if s.control == null]
    assert confused.verdict == "confused" and confused.confused_with == ("fast",) and is_insensitive(found)
    assert confused.harm is not None and confused.harm.value == pytest.approx(0.38, abs=0.06)


def test_a_null_that_beats_the_full_run_makes_it_blind() -> None:
    found = separations("m", methods(), record(**(GOOD | {"noise": 1.4})))
    assert is_insensitive(found) and verdicts(found)["noise"] == "confused"


def test_jpeg_copies_as_good_as_the_originals_do_not_make_it_blind() -> None:
    same = record(**GOOD)
    same = {**same, ("jpeg50", "m"): score("jpeg50", around(1.0, 60, 0) + 1e-3 * around(0, 60, 7))}
    found = separations("m", methods(), same)
    assert verdicts(found)["jpeg50"] == "confused" and not is_insensitive(found)


def test_what_a_metric_does_not_read_is_named_and_excused() -> None:
    same = record(**GOOD)
    same = {**same, ("shuffled", "m"): score("shuffled", around(1.0, 60, 0))}
    found = separations("m", methods(), same)
    assert verdicts(found)["shuffled"] == "not read" and not is_insensitive(found)


def test_a_distance_to_the_full_run_is_held_by_its_own_value() -> None:
    own: Found = {(BASELINE, "m"): Failure(BASELINE, "m", "infinite"), ("fast", "m"): score("fast", around(30.0))}
    controls: Found = {**record(**{c: 8.0 for c in CONTROLS[1:]}), ("identical", "m"): Failure("identical", "m", "infinite")}
    found = separations("m", own, controls)
    assert (
        not is_insensitive(found)
        and verdicts(found)["black"] == "distinguished"
        and verdicts(found)["identical"] == "not measured"
    )
    assert is_insensitive(separations("m", {**own, ("fast", "m"): score("fast", around(8.0))}, controls))


def test_where_lower_is_better_harm_is_more() -> None:
    own: Found = {(BASELINE, "m"): score(BASELINE, around(1.0, 50), "lower")}
    controls: Found = {(c, "m"): score(c, around(1.0 + i, 50), "lower") for i, c in enumerate(CONTROLS)}
    found = separations("m", own, controls)
    assert not is_insensitive(found) and all(s.harm is not None and s.harm.value > -1e-9 for s in found)


def test_without_controls_nothing_is_claimed() -> None:
    found = separations("m", methods(), {})
    assert {s.verdict for s in found} == {"not measured"} and not is_insensitive(found) and all(s.reason for s in found)


@pytest.mark.parametrize(
    ("other", "words"),
    [(score("b", around(1.0), extractor="y"), "extractor"), (score("b", around(1.0, 99), extractor="x"), "number of images")],
    ids=["fingerprint", "count"],
)
def test_scores_that_differ_in_more_than_the_method_are_never_subtracted(other: Score, words: str) -> None:
    one = score("a", around(1.1), extractor="x")
    assert score_difference(one, score("b", around(1.0), extractor="x")).value == pytest.approx(0.1)
    with pytest.raises(ArtifactError, match=words):
        score_difference(one, other)
