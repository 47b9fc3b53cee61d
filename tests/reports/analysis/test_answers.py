"""Better than fewer steps at equal cost: answers worked out by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from harness.errors import ArtifactError
from harness.results import Failure, Score
from harness.storage.records import Run
from reports.analysis.answers import Answer, Outcome, Rung, answers
from reports.analysis.evidence import BLOCKS, SECONDS
from reports.render.words import answer_sentences, explain

Make = Callable[..., Run]
LADDER = {"full": (20, 480, 1.0, 10.0), "12 steps": (12, 288, 0.6, 9.0), "8 steps": (8, 192, 0.4, 8.0)}


def one(run: Run, unit: str | None = None) -> Answer:
    (answer,) = answers(run, unit)
    return answer


def test_the_rival_lies_between_the_next_cheaper_and_the_next_dearer_row(make_run: Make) -> None:
    (answer,) = answers(make_run())
    for metric in ("good", "far"):
        assert [rung.label for rung in answer.rulings[metric].rival] == ["8 steps", "12 steps"]
        assert answer.rulings[metric].outcome is Outcome.YES
    assert answer.headline == "yes"


@pytest.mark.parametrize(("quality", "headline"), [(9.9, "yes"), (7.0, "worse"), (8.5, "can't tell"), (9.0, "yes")])
def test_headlines(make_run: Make, quality: float, headline: str) -> None:
    methods = {"full": (20, 480, 1.0, 10.0), "12 steps": (12, 288, 0.6, 9.0), "8 steps": (8, 192, 0.4, 8.0)}
    (answer,) = answers(make_run(methods=methods | {"cache(interval=2)": (20, 250, 0.5, quality)}))
    assert answer.headline == headline


def test_an_accelerator_dearer_than_full_is_no_answer(make_run: Make) -> None:
    methods = {"full": (20, 480, 1.0, 10.0), "cache(interval=2)": (20, 500, 1.2, 10.0)}
    (answer,) = answers(make_run(methods=methods))
    assert answer.rulings["good"].rival == (Rung("full", 1.0),)
    assert answer.headline == "not better, more expensive"


def test_the_rival_is_the_mixture_of_equal_cost(make_run: Make) -> None:
    """At 240 block evaluations stand half 192 and half 288: mean score 8.5, so 9.9 is an advantage of 1.4 +- the noise."""
    ruling = one(make_run(), BLOCKS).rulings["good"]
    assert ruling.rival == (Rung("8 steps", 0.5), Rung("12 steps", 0.5)) and ruling.solver == "dpm++"
    assert ruling.outcome is Outcome.YES and ruling.advantage is not None
    run = make_run("again")
    mine, eight, twelve = (run.scores[label, "good"] for label in ("ilf(steps=10)", "8 steps", "12 steps"))
    assert isinstance(mine, Score) and isinstance(eight, Score) and isinstance(twelve, Score)
    contrast = mine.influence - (eight.influence + twelve.influence) / 2
    assert (ruling.advantage.value, ruling.advantage.standard_error) == pytest.approx((1.4, contrast.std(ddof=1) / 8))


def test_the_uncertainty_of_time_enters(make_run: Make) -> None:
    """The curve rises by 1 between 0.4 and 0.6 of full: an error of the cost share moves the rival five times as much."""
    calm, rough = one(make_run("calm", noise=0.001), SECONDS), one(make_run("rough", noise=0.05), SECONDS)
    counted = one(make_run("counted"), BLOCKS)
    errors = [a.rulings["good"].advantage.standard_error for a in (counted, calm, rough)]  # type: ignore[union-attr]
    assert errors[0] < errors[1] < 1.2 * errors[0] < 2 * errors[0] < errors[2]
    assert calm.cost is not None and rough.cost is not None
    assert rough.cost.high - rough.cost.low > 20 * (calm.cost.high - calm.cost.low)


@pytest.mark.parametrize(("quality", "outcome"), [(8.4, Outcome.CANNOT_TELL), (7.9, Outcome.CANNOT_TELL), (9.0, Outcome.YES)])
def test_nothing_is_extrapolated_below_the_cheapest_row(make_run: Make, quality: float, outcome: Outcome) -> None:
    """Beating a row that costs more is a yes; not beating it says nothing about a row that nobody ran."""
    methods = LADDER | {"8 steps": (8, 192, 0.4, 8.5), "cache(x)": (20, 100, 0.2, quality)}
    ruling = one(make_run(methods=methods), BLOCKS).rulings["good"]
    assert (ruling.outcome, ruling.place) == (outcome, "cheaper")
    assert outcome is Outcome.YES or "add steps:N" in ruling.reason


@pytest.mark.parametrize(("quality", "outcome"), [(10.0, Outcome.NO_GAIN), (9.0, Outcome.WORSE), (11.0, Outcome.CANNOT_TELL)])
def test_nothing_is_extrapolated_above_the_dearest_row(make_run: Make, quality: float, outcome: Outcome) -> None:
    ruling = one(make_run(methods=LADDER | {"cache(x)": (20, 600, 1.4, quality)}), SECONDS).rulings["good"]
    assert (ruling.outcome, ruling.place) == (outcome, "more expensive")
    assert "costs more than every row" in ruling.reason


def test_every_solver_must_be_beaten(make_run: Make) -> None:
    """Better than fewer steps of the preset's solver, worse than fewer steps of a stronger one: no."""
    methods = LADDER | {"cache(x)": (20, 240, 0.5, 9.0)}
    assert one(make_run("own", methods=methods), BLOCKS).rulings["good"].outcome is Outcome.YES
    run = make_run("other", methods=methods | {"steps:10+solver:unipc": (10, 240, 0.5, 9.8)})
    ruling = one(run, BLOCKS).rulings["good"]
    assert (ruling.outcome, ruling.solver) == (Outcome.WORSE, "unipc")
    assert ruling.rival == (Rung("steps:10+solver:unipc", 1.0),)


def test_one_image_or_one_round_has_no_answer_but_a_reason(make_run: Make) -> None:
    run = make_run()
    scores = {key: replace(s, n=1, influence=s.influence[:1]) for key, s in run.scores.items() if isinstance(s, Score)}
    single = one(replace(run, scores=scores), BLOCKS).rulings["good"]
    once = one(make_run("once", rounds=1), SECONDS).rulings["good"]
    for ruling in (single, once):
        assert ruling.outcome is Outcome.CANNOT_TELL and "no interval" in ruling.reason


def test_mixed_fingerprints_are_refused(make_run: Make) -> None:
    run = make_run()
    score = run.scores["ilf(steps=10)", "good"]
    assert isinstance(score, Score)
    changed = dict(run.scores) | {("ilf(steps=10)", "good"): replace(score, fingerprint={"weights": "others"})}
    ruling = one(replace(run, scores=changed)).rulings["good"]
    assert ruling.outcome is Outcome.NOT_MEASURED and "another fingerprint" in ruling.reason


@pytest.mark.parametrize("bad", [np.inf, np.nan, 0.0, -1.0])
def test_an_impossible_time_is_refused_by_name(make_run: Make, bad: float) -> None:
    run = make_run()
    broken = [replace(t, latency_s=bad) if (t.method, t.round) == ("8 steps", 3) else t for t in run.timings]
    with pytest.raises(ArtifactError, match="times of 8 steps"):
        answers(replace(run, timings=tuple(broken)))


def test_equal_images_everywhere_are_answered_without_a_division_by_zero(make_run: Make) -> None:
    """Every image of a method scores the same, and so do those of its rivals: a difference of no width."""
    run = make_run(methods=LADDER | {"cache(x)": (20, 240, 0.5, 9.0)})
    flat = {k: replace(s, influence=np.full(64, s.value)) for k, s in run.scores.items() if isinstance(s, Score)}
    ruling = one(replace(run, scores=flat), BLOCKS).rulings["good"]
    assert ruling.outcome is Outcome.YES and ruling.advantage is not None
    assert ruling.advantage.low == ruling.advantage.high == pytest.approx(0.5)


def test_failures_keep_their_reasons(make_run: Make) -> None:
    run = make_run(missing=(("ilf(steps=10)", "good"),), failed_methods=(("cache(x)", "no <such> block"),))
    ilf, cache = answers(run)
    assert ilf.rulings["good"] == replace(
        ilf.rulings["good"], outcome=Outcome.NOT_MEASURED, reason="the good scorer ran out of memory"
    )
    assert cache.cost is None and cache.headline == "not measured" and "no <such> block" in cache.failure
    assert isinstance(run.scores["ilf(steps=10)", "good"], Failure)
    assert "It cannot be compared: no <such> block" in explain(run, cache)


def test_lower_is_better_is_turned_round(make_run: Make) -> None:
    """``far`` of full is 0 by definition and no row of the curve; 12 and 8 steps are 1 and 2 away, so 0.1 is better by 1.4."""
    ruling = one(make_run(), BLOCKS).rulings["far"]
    assert ruling.outcome is Outcome.YES and ruling.advantage is not None
    assert ruling.advantage.value == pytest.approx(1.4) and "full" not in {rung.label for rung in ruling.rival}


def test_sentences_say_where_seconds_and_blocks_disagree(make_run: Make) -> None:
    """Half the blocks but nearly the time of the full run: a win when blocks are counted, none by the clock."""
    run = make_run(methods=LADDER | {"cache(x)": (20, 240, 0.98, 9.5)})
    (sentence,) = answer_sentences(run)
    assert sentence.startswith("cache(x): worse. It costs") and "At equal block evaluations: mixed" not in sentence
    assert "At equal block evaluations: yes." in sentence


def test_repeated_prompts_widen_the_interval(make_run: Make) -> None:
    """The manifest names four prompts for four images; with n = 4 of each, images of a prompt are one unit."""
    run = make_run(n=4)
    from reports.analysis.evidence import Evidence

    evidence = Evidence(run)
    assert evidence.groups(4) is None and evidence.groups(64) is None
    evidence.__dict__["prompts"] = ("a", "a", "b", "b")
    assert evidence.groups(4) is not None


def test_a_thousand_methods_are_quick(make_run: Make) -> None:
    run = make_run(methods=LADDER | {"cache(0)": (20, 240, 0.5, 9.0)})
    rng = np.random.default_rng(0)
    scores, methods, timings = {k: v for k, v in run.scores.items() if k[1] == "good"}, list(run.methods), list(run.timings)
    score = scores["cache(0)", "good"]
    assert isinstance(score, Score)
    record, samples = run.records["cache(0)"], run.timings_of["cache(0)"]
    for label in (f"cache({i})" for i in range(1, 1000)):
        methods.append(replace(record, label=label))
        timings += [replace(t, method=label, latency_s=t.latency_s * rng.uniform(0.8, 1.5)) for t in samples]
        values = score.influence + rng.normal(size=64)
        scores[label, "good"] = replace(score, method=label, influence=values, value=float(values.mean()))
    spec = dict(run.spec) | {"method_labels": [m.label for m in methods], "metrics": ["good"]}
    big = replace(run, spec=spec, methods=tuple(methods), timings=tuple(timings), scores=scores)
    start = time.process_time()
    found = answers(big)
    assert len(found) == 1000 and time.process_time() - start < 8
    assert all(answer.rulings["good"].advantage is not None for answer in found)
