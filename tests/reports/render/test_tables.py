"""The comparison against numbers worked out by hand from the raw records."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from harness.results import A_A, Score
from harness.storage.records import Run
from reports.analysis.compare import Verdict, compare
from reports.load import frames, load_run
from reports.render.cells import Cell
from reports.render.tables import comparison_table

Make = Callable[..., Run]


def cells(run: Run, label: str) -> dict[str, Cell]:
    return next(row.cells for row in comparison_table(run).rows if row.label == label)


def test_time_is_the_median_over_rounds_of_the_batch_time_per_image(make_run: Make) -> None:
    run = make_run()
    raw = np.array([t.latency_s for t in run.timings if t.method == "12 steps"]) / 4
    cell = cells(run, "12 steps")
    assert cell["latency_s"].value == pytest.approx(np.median(raw))
    assert cell["latency_p95_s"].value == pytest.approx(np.quantile(raw, 0.95))
    assert (cell["latency_s"].low, cell["latency_s"].high) == pytest.approx(tuple(np.quantile(raw, [0.25, 0.75])))


def test_speed_ups(make_run: Make) -> None:
    found = cells(make_run(noise=0.0), "12 steps")
    assert found["speed_up"].value == pytest.approx(1 / 0.6)
    assert found["speed_up"].low == pytest.approx(1 / 0.6)
    assert found["block_speed_up"].value == pytest.approx(480 / 288)
    assert found["block_speed_up"].text == "1.67×"


def test_drift_that_hits_whole_rounds_cancels(make_run: Make) -> None:
    """A machine that slows down by half in the middle changes both medians alike: the speed-up must not move."""
    from dataclasses import replace

    run = make_run(noise=0.0)
    drifting = replace(run, timings=tuple(replace(t, latency_s=t.latency_s * (1.5 if t.round > 3 else 1)) for t in run.timings))
    speed_up = cells(drifting, "12 steps")["speed_up"]
    assert (speed_up.low, speed_up.high) == pytest.approx((1 / 0.6, 1 / 0.6))


def test_score_interval(make_run: Make) -> None:
    run = make_run()
    score = run.scores["full", "good"]
    assert isinstance(score, Score)
    half = stats.t.ppf(0.975, 63) * np.std(score.influence, ddof=1) / np.sqrt(64)
    cell = cells(run, "full")["good"]
    assert cell.value == pytest.approx(10.0)
    assert cell.high == pytest.approx(10.0 + half)
    assert cell.text == f"10.00 ± {half:.2f} (N = 64)"


def test_difference_is_paired(make_run: Make) -> None:
    """The images share noise of deviation 1; paired, a difference of 0.1 is seen that unpaired intervals would hide."""
    run = make_run()
    row = next(row for row in comparison_table(run).rows if row.label == "ilf(steps=10)")
    cell = row.differences["good"]
    assert cell.value == pytest.approx(-0.1)
    assert cell.verdict is Verdict.WORSE
    assert cell.high is not None and cell.high < 0
    assert row.cells["good"].high is not None and row.cells["good"].high > 10


def test_a_constant_score_of_full_is_no_opponent(make_run: Make) -> None:
    run = make_run()
    row = next(row for row in comparison_table(run).rows if row.label == "8 steps")
    assert row.differences["far"].verdict is Verdict.NOT_COMPARABLE
    assert "what this metric compares with" in row.differences["far"].failure


def test_identical_scores_are_indistinguishable(make_run: Make) -> None:
    score = make_run().scores["full", "good"]
    assert compare(score, score).verdict is Verdict.INDISTINGUISHABLE


def test_different_fingerprints_are_not_subtracted(make_run: Make) -> None:
    a, b = make_run("a").scores["full", "good"], make_run("b", fingerprint="bb").scores["full", "good"]
    assert compare(a, b).verdict is Verdict.NOT_COMPARABLE
    assert "fingerprints" in compare(a, b).reason


def test_failures_are_text_and_never_a_number(make_run: Make) -> None:
    run = make_run(missing=(("8 steps", "good"),), failed_methods=(("broken", "no such block"),))
    table = comparison_table(run)
    cell = cells(run, "8 steps")["good"]
    assert cell.value is None and cell.text == "the good scorer ran out of memory"
    assert "broken" in [row.label for row in table.rows]
    for row in table.rows:
        for one in (*row.cells.values(), *row.differences.values()):
            assert one.text.strip() and "nan" not in one.text.lower().split()
            assert (one.value is None) == bool(one.failure)
    assert all("no such block" in one.text for one in cells(run, "broken").values())


def test_a_method_without_a_score_file_says_so(make_run: Make) -> None:
    from dataclasses import replace

    run = make_run()
    without = replace(run, scores={k: s for k, s in run.scores.items() if k != ("8 steps", "good")})
    assert cells(without, "8 steps")["good"].failure == "not scored: no record in this run"


def test_stages_noise_and_training(make_run: Make) -> None:
    run = make_run(noise=0.0)
    assert cells(run, "full")["denoise_s"].text == "800 ms (80%)"
    assert comparison_table(run).rows[-1].label == A_A
    assert cells(run, A_A)["speed_up"].value == pytest.approx(1.0)
    assert cells(run, "ilf(steps=10)")["training_s"].text == "15.0 min"
    assert cells(run, "full")["training_s"].text == "none"


def test_frames(make_run: Make) -> None:
    run = make_run(missing=(("8 steps", "good"),))
    tables = load_run(run.path)
    assert len(tables.scores) == 4 * 2 and len(tables.timings) == 8 * 5
    scores = tables.scores.set_index(["method", "metric"])
    means = tables.per_image.groupby(["method", "metric"])["influence"].mean()
    for key, mean in means.items():
        assert scores.loc[key, "value"] == pytest.approx(mean)
    assert scores.loc[("8 steps", "good"), "failure"] == "the good scorer ran out of memory"
    assert tables.prompts["prompt"].tolist()[:2] == ["red apple", "<b>x</b>"]
    assert frames(run).methods["failure"].tolist() == [""] * 4
