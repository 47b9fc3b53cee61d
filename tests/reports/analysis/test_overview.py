"""What the first screen says: the fastest method without a measurable loss, and on how many metrics the rest is undecided."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from harness.results import WATERMARK, Score
from harness.storage.records import Run
from reports.analysis.compare import Verdict
from reports.analysis.overview import lossless, overview, to_rival
from reports.render.grid import sample_sheet, stored_samples
from reports.render.overview import chips, rows, sentence, strip, table_note

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
    assert sentence(run, overview(run)).endswith("×); cache(bad) is faster, with such a loss in Good score.")


def test_without_a_faster_method_or_a_score_the_sentence_says_which_is_missing(make_run: Make) -> None:
    slow = make_run(methods={"full": (20, 480, 1.0, 10.0), "cache(x)": (20, 500, 1.5, 10.0)})
    assert sentence(slow, overview(slow)).endswith("No method is faster than the full run.")
    unscored = make_run("u", methods=PLAIN | {"cache(x)": (20, 250, 0.5, 10.0)}, missing=(("full", "good"), ("full", "far")))
    assert sentence(unscored, overview(unscored)).endswith("No score here can say whether a faster method loses quality.")


def test_fewer_steps_are_those_that_the_verdict_is_about(make_run: Make) -> None:
    """The first table's difference is the ruling's advantage in the metric's own unit: a mixture of rows at equal cost."""
    run = make_run()
    found = overview(run)
    line = next(line for line in found.lines if line.label == "ilf(steps=10)")
    assert line.answer is not None
    (contrast,) = line.contrasts
    assert contrast.to_rival == to_rival(run, line.label, "good", line.answer.rulings["good"])
    for metric, sign in (("good", 1), ("far", -1)):  # ``far``: lower is better
        advantage, fewer = line.answer.rulings[metric].advantage, to_rival(run, line.label, metric, line.answer.rulings[metric])
        assert advantage is not None and fewer is not None and fewer.interval is not None
        assert fewer.interval.value == sign * advantage.value and advantage.value > 0 and fewer.verdict is Verdict.BETTER
    assert [rung.label for rung in contrast.rival] == ["8 steps", "12 steps"]
    shown = next(row for row in rows(run, found) if row.label == "ilf(steps=10)")
    assert re.fullmatch(r"8 steps for \d+% of the images and 12 steps for \d+%", shown.contrasts[0][2])
    assert all(contrast.to_rival is None for line in found.lines if line.is_plain for contrast in line.contrasts)


def test_a_row_opens_to_every_score_of_its_verdict(make_run: Make) -> None:
    run = _also(make_run(), "third", {}, 0.1)
    found = overview(run)
    assert len(found.shown) < 3
    reasons = next(row.reasons for row in rows(run, found) if row.label == "ilf(steps=10)")
    assert reasons is not None and reasons.against.startswith("It costs") and "Against 8 steps for" in reasons.against
    assert [title for title, _, _ in reasons.scores] == ["Good score", "Far score", "Third"]
    assert [outcome for _, outcome, _ in reasons.scores] == ["better", "can't tell", "can't tell"]
    assert all(difference.bounds for _, _, difference in reasons.scores)
    assert reasons.scores[0][2] == next(row.contrasts[0][1] for row in rows(run, found) if row.label == "ilf(steps=10)")
    assert table_note(2, 3).startswith("2 of 3 scores")


def test_the_images_show_the_method_that_the_sentence_names(make_run: Make) -> None:
    """A row of fewer steps, too, beside the one that is nearest in cost to the first accelerator."""
    plain = {"10 steps": (10, 240, 0.5, 10.0), "6 steps": (6, 144, 0.3, 7.0)}
    run = make_run(methods=PLAIN | plain | {"cache(x)": (20, 160, 0.33, 4.0)}, n=5)
    found = overview(run)
    best, images = lossless(run, found), strip(run, found, sample_sheet(stored_samples(run)))
    assert best is not None and best.line.label == "10 steps" and images is not None
    assert [label for label, _ in images.heads] == ["full", "6 steps", "10 steps", "cache(x)"]
    assert images.notes == ("6 steps: nearest in cost to cache(x)", "10 steps: the fastest without a measurable loss")
    assert all(len(pictures) == 4 for _, _, pictures in images.rows)


def test_the_marks_say_what_they_mean(make_run: Make) -> None:
    run = make_run(methods=PLAIN, n=5)
    scores = {
        key: replace(one, title=f"{one.title}{WATERMARK}5 < 240") for key, one in run.scores.items() if isinstance(one, Score)
    }
    watermarked = replace(run, scores=scores)
    marks = {mark.text: mark.why for mark in chips(watermarked, overview(watermarked))}
    assert "compare within this report only" in marks["tiny scorers"]
    assert "firm answer" in marks["provisional: N = 5"]
    assert "compare it at equal N only" in marks["Good score: N = 5 < 240"]


def test_a_row_says_on_how_many_metrics_it_is_undecided(make_run: Make) -> None:
    run = make_run(methods=PLAIN | {"12 steps": (12, 288, 0.6, 9.5), "cache(x)": (20, 250, 0.5, 8.5)})
    tally = next(row.tally for row in rows(run, overview(run)) if row.label == "cache(x)")
    assert tally == "undecided on 2 of 2"


def test_not_better_and_more_expensive_is_not_called_worse(make_run: Make) -> None:
    run = make_run(methods={"full": (20, 480, 1.0, 10.0), "8 steps": (8, 192, 0.4, 8.0), "cache(x)": (20, 500, 1.2, 10.0)})
    row = next(row for row in rows(run, overview(run)) if row.label == "cache(x)")
    assert (row.verdict, row.tally) == ("not better, more expensive", "not better on 1, undecided on 1 of 2")
