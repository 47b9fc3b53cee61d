"""Non-inferiority and superiority: margins, blindness, correction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.results import Score
from harness.storage.records import Run
from reports.analysis.verdicts import Standing, Trial, anchor_of, trials

Make = Callable[..., Run]
ROWS = {"full": (20, 480, 1.0, 10.0), "5 steps": (5, 120, 0.25, 6.0)}


def with_methods(**quality: float) -> dict[str, Any]:
    return ROWS | {f"cache({name})": (20, 250, 0.5, value) for name, value in quality.items()}


def rows(run: Run, **options: Any) -> dict[tuple[str, str], Trial]:
    return {(row.method, row.metric): row for row in trials(run, **options).rows}


def test_standings(make_run: Make) -> None:
    """The margin on ``good`` is a tenth of the drop from 10 to 6; the noise of a difference is about 0.14 over 64 images."""
    run = make_run(methods=with_methods(finer=10.3, same=9.95, edge=9.6, worse=9.0))
    found = rows(run)
    standings = {name: found[f"cache({name})", "good"].standing for name in ("finer", "same", "edge", "worse")}
    assert standings == {
        "finer": Standing.SUPERIOR,
        "same": Standing.NON_INFERIOR,
        "edge": Standing.INCONCLUSIVE,
        "worse": Standing.INFERIOR,
    }
    seen = trials(run).sensitivity["good"]
    assert seen.margin == pytest.approx(0.4) and seen.drop is not None and seen.drop.value == pytest.approx(4.0)
    assert not seen.insensitive and anchor_of(run) == "5 steps"


def test_the_uncertainty_of_the_margin_is_in_the_test(make_run: Make) -> None:
    run = make_run(methods=with_methods(same=9.95))
    full, five, mine = (run.scores[label, "good"] for label in ("full", "5 steps", "cache(same)"))
    assert isinstance(full, Score) and isinstance(five, Score) and isinstance(mine, Score)
    contrast = mine.influence - 0.9 * full.influence - 0.1 * five.influence
    excess = rows(run)["cache(same)", "good"].excess
    assert excess is not None
    assert (excess.value, excess.standard_error) == pytest.approx((contrast.mean(), contrast.std(ddof=1) / 8))


def test_a_metric_that_five_steps_pass_is_insensitive(make_run: Make) -> None:
    """Nothing passes on it, though the method itself is as good as the full run."""
    run = make_run(methods=with_methods(same=10.0) | {"5 steps": (5, 120, 0.25, 10.0)})
    row = rows(run)["cache(same)", "good"]
    assert trials(run).sensitivity["good"].insensitive
    assert row.standing is Standing.INSENSITIVE and "5 steps would not be rejected either" in row.reason


def test_a_stated_margin_wider_than_the_drop_is_insensitive(make_run: Make) -> None:
    run = make_run(methods=with_methods(worse=9.0))
    assert rows(run, margins={"good": 5.0})["cache(worse)", "good"].standing is Standing.INSENSITIVE
    assert rows(run, margins={"good": 2.0})["cache(worse)", "good"].standing is Standing.NON_INFERIOR


def test_without_five_steps_it_says_what_is_missing(make_run: Make) -> None:
    run = make_run()
    row = rows(run)["ilf(steps=10)", "good"]
    assert row.standing is Standing.NOT_MEASURED and "add steps:5" in row.reason
    assert row.gain is not None and row.gain.value == pytest.approx(-0.1)


def test_a_distance_to_full_can_be_tested_though_full_has_none(make_run: Make) -> None:
    """``far`` is 0 for every image of full and 4 for five steps: up to 0.4 is not inferior."""
    found = rows(make_run(methods=with_methods(near=9.8, off=9.0)))
    assert found["cache(near)", "far"].standing is Standing.NON_INFERIOR
    assert found["cache(off)", "far"].standing is Standing.INFERIOR


def test_what_was_not_scored_has_a_reason(make_run: Make) -> None:
    run = make_run(methods=with_methods(same=10.0), missing=(("cache(same)", "good"),))
    row = rows(run)["cache(same)", "good"]
    assert row.standing is Standing.NOT_MEASURED and "ran out of memory" in row.reason


def test_the_correction_counts_methods_and_metrics(make_run: Make) -> None:
    """A gain that is significant alone is not when forty methods were tried."""
    alone = rows(make_run("one", methods=with_methods(lucky=10.03)))["cache(lucky)", "good"]
    many = with_methods(lucky=10.03, **{f"n{i}": 9.99 for i in range(40)})
    among = rows(make_run("many", methods=many))["cache(lucky)", "good"]
    assert alone.gain == among.gain
    assert alone.p_superior is not None and among.p_superior is not None
    assert among.p_superior == pytest.approx(min(1.0, alone.p_superior / 2 * 82), rel=0.01)


def test_one_sample_tells_nothing(make_run: Make) -> None:
    run = make_run(methods=with_methods(worse=1.0), n=2)
    scores = {key: replace(s, n=1, influence=s.influence[:1]) for key, s in run.scores.items() if isinstance(s, Score)}
    single = replace(run, scores=scores)
    row = rows(single)["cache(worse)", "good"]
    assert row.standing is Standing.INSENSITIVE and row.gain is not None and np.isinf(row.gain.high)
