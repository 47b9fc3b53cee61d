"""What the first screen says: the fastest method without a measurable loss, and on how many metrics the rest is undecided."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from harness.results import Score
from harness.storage.records import Run
from reports.analysis.overview import lossless, overview
from reports.render.overview import rows, sentence

Make = Callable[..., Run]
SMALL = "at most 10% of what 5 steps lose"
PLAIN = {"full": (20, 480, 1.0, 10.0), "5 steps": (5, 120, 0.25, 6.0)}


@pytest.mark.parametrize(
    ("quality", "fastest", "shown"),
    [
        ({"same": (0.5, 9.95), "worse": (0.3, 9.0)}, "cache(same)", True),
        ({"edge": (0.5, 9.97), "slow": (0.9, 9.95)}, "cache(edge)", True),
        ({"within": (0.5, 9.75), "beyond": (0.4, 9.2)}, "cache(within)", True),
        ({"slower": (1.5, 10.0)}, None, False),
    ],
)
def test_the_fastest_without_a_loss(
    make_run: Make, quality: dict[str, tuple[float, float]], fastest: str | None, shown: bool
) -> None:
    methods = PLAIN | {f"cache({name})": (20, 250, seconds, value) for name, (seconds, value) in quality.items()}
    run = make_run(methods=methods)
    found = overview(run)
    best = lossless(run, found)
    assert (best.line.label if best else None) == fastest and (best is not None and best.shown) == shown
    words = sentence(run, found)
    assert ("with a loss of at most 10% of what 5 steps lose" in words) == shown and ("Fastest" in words) == (fastest is not None)


def test_without_a_proof_the_sentence_says_that_none_is_shown(make_run: Make) -> None:
    """With five images the noise is larger than the margin, a tenth of what five steps lose."""
    run = make_run(methods=PLAIN | {"cache(open)": (20, 250, 0.5, 9.9)}, n=5)
    best = lossless(run, overview(run))
    assert best is not None and best.line.label == "cache(open)" and not best.shown
    assert "not proof of none" in sentence(run, overview(run))


def _also(run: Run, metric: str, losses: dict[str, float], noise: float) -> Run:
    """The run with one more score like ``good``, worse by this in each image of these methods; five steps lose 4."""
    scores = dict(run.scores)
    for label in run.records:
        good = scores[label, "good"]
        assert isinstance(good, Score)
        full = scores["full", "good"]
        assert isinstance(full, Score)
        own = np.random.default_rng(len(label)).normal(0, noise, good.n) * (label != "full")
        values = full.influence + own - own.mean() - losses.get(label, 0.0)
        named = replace(good, metric=metric, title=metric.title(), value=float(values.mean()), influence=values, per_image=values)
        scores[label, metric] = named
    return replace(run, scores=scores, spec={**run.spec, "metrics": [*run.spec["metrics"], metric]})


@pytest.mark.parametrize(
    ("fast", "slow", "noise", "said"),
    [
        ((9.0, 1.0), (9.0, 0.0), 0.1, "cache(slow) loses in the fewest, 1 of 2: Good score."),
        ((9.0, 0.0), (9.0, 1.0), 0.1, "cache(fast) loses in the fewest, 1 of 2: Good score."),
        ((9.0, 1.0), (9.0, 1.0), 0.1, "cache(fast) loses in the fewest, 2 of 2: Good score and Third."),
        (
            (9.0, 0.0),
            (9.75, 0.0),
            3.0,
            f"the fastest whose losses are shown to be small ({SMALL}) is cache(slow), which loses in Good score.",
        ),
    ],
)
def test_where_every_faster_method_has_a_loss_the_sentence_says_so(
    make_run: Make, fast: tuple[float, float], slow: tuple[float, float], noise: float, said: str
) -> None:
    """It names the one whose losses are all small, else the one with the fewest, and in which scores."""
    methods = {"cache(fast)": (20, 250, 0.4, fast[0]), "cache(slow)": (20, 250, 0.5, slow[0])}
    run = _also(
        make_run(methods=PLAIN | methods), "third", {"5 steps": 4.0, "cache(fast)": fast[1], "cache(slow)": slow[1]}, noise
    )
    words = re.sub(r" \([\d.]+×\)", "", sentence(run, overview(run)))
    assert words.endswith(f"Against the full run every faster method has a measurable loss in some score; {said}")


def test_a_faster_accelerator_with_a_loss_is_named_beside_the_fastest_without_one(make_run: Make) -> None:
    """Its loss may be in a score that has no column in the first screen's table."""
    run = make_run(methods=PLAIN | {"cache(open)": (20, 250, 0.5, 10.0), "cache(bad)": (20, 250, 0.4, 4.0)}, n=5)
    assert sentence(run, overview(run)).endswith("×); cache(bad) is faster but loses in Good score.")


def test_without_a_faster_method_or_a_score_the_sentence_says_which_is_missing(make_run: Make) -> None:
    slow = make_run(methods={"full": (20, 480, 1.0, 10.0), "cache(x)": (20, 500, 1.5, 10.0)})
    assert sentence(slow, overview(slow)).endswith("No method is faster than the full run.")
    unscored = make_run("u", methods=PLAIN | {"cache(x)": (20, 250, 0.5, 10.0)}, missing=(("full", "good"), ("full", "far")))
    assert sentence(unscored, overview(unscored)).endswith("No score here can say whether a faster method loses quality.")


def test_a_row_says_on_how_many_metrics_it_is_undecided(make_run: Make) -> None:
    run = make_run(methods=PLAIN | {"12 steps": (12, 288, 0.6, 9.5), "cache(x)": (20, 250, 0.5, 8.5)})
    tally = next(row.tally for row in rows(run, overview(run)) if row.label == "cache(x)")
    assert tally == "undecided on 2 of 2"
