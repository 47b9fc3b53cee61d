"""A run as a notebook sees it: tidy tables, one plot, images of a prompt, and the first screen of the report."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from harness.errors import UsageError
from harness.storage.records import Run
from reports.analysis.answers import answers
from reports.load import SUMMARY_COLUMNS, VERDICT_COLUMNS, RunResults, frames, load_run

Make = Callable[..., Run]


def test_summary_is_the_table_of_the_first_screen(make_run: Make) -> None:
    run = make_run(failed_methods=(("broken", "out of memory"),))
    table = load_run(run.path).summary
    assert list(table.columns) == SUMMARY_COLUMNS
    assert table["method"].tolist() == ["8 steps", "ilf(steps=10)", "12 steps", "full", "broken"]
    rows = table.set_index("method")
    assert rows.loc["ilf(steps=10)", "speed_up"] == pytest.approx(2.0, rel=0.02)
    assert rows.loc["ilf(steps=10)", "speed_up_low"] < rows.loc["ilf(steps=10)", "speed_up"]
    assert rows.loc["ilf(steps=10)", ["better_than_steps", "training_s", "block_evaluations"]].tolist() == ["yes", 900.0, 240]
    assert rows.loc["8 steps", "better_than_steps"] == "" and pd.isna(rows.loc["8 steps", "training_s"])
    assert "out of memory" in rows.loc["broken", "failure"] and pd.isna(rows.loc["broken", "seconds_per_image"])
    assert rows.drop("broken")["failure"].eq("").all()


def test_verdicts_are_the_answers_of_the_report(make_run: Make) -> None:
    run = make_run(missing=(("ilf(steps=10)", "far"),))
    table = frames(run).verdicts
    assert list(table.columns) == VERDICT_COLUMNS
    (answer,) = answers(run)
    assert dict(zip(table["metric"], table["outcome"], strict=True)) == {m: r.outcome.value for m, r in answer.rulings.items()}
    good = table.set_index("metric").loc["good"]
    assert good["low"] < good["advantage"] < good["high"] and good["p_adjusted"] < 0.05 and "8 steps" in good["rival"]
    assert table.set_index("metric").loc["far", "reason"] == "the far scorer ran out of memory"


def test_a_plot_of_one_metric(make_run: Make) -> None:
    run = load_run(make_run().path)
    drawn = run.plot("far", "blocks")
    assert drawn.name == "far-block" and drawn.pdf.startswith(b"%PDF") and "<svg" in drawn._repr_svg_()
    assert run.plot().name == "good-seconds"
    for wrong, said in ((("goood", None), "did you mean 'good'"), (("good", "second"), "did you mean 'seconds'")):
        with pytest.raises(UsageError, match=said):
            run.plot(*wrong)  # type: ignore[arg-type]


def test_images_of_a_prompt_in_rows_of_methods(make_run: Make) -> None:
    run = load_run(make_run().path)
    several, one = run.images(), run.images("red apple")
    assert isinstance(one, Image.Image) and several.width > one.width and several.height == one.height
    index = int(run.prompts.query("prompt == 'red apple'")["index"].iloc[0])
    assert run.images(index).tobytes() == one.tobytes()
    assert run.images("red apple", ["8 steps", "full"]).height < one.height
    with pytest.raises(UsageError, match="did you mean 'red apple'"):
        run.images("red aple")
    with pytest.raises(UsageError, match="did you mean '8 steps'"):
        run.images("red apple", ["8 step"])


def test_a_run_shows_the_first_screen_in_a_frame_that_runs_nothing(make_run: Make) -> None:
    run = load_run(make_run().path)
    shown = run._repr_html_()
    assert re.fullmatch(r'<iframe sandbox title="[^"<>]*" style="[^"<>]*" srcdoc="[^"]*"></iframe>', shown, re.DOTALL)
    page = html.unescape(shown.partition('srcdoc="')[2].rpartition('"')[0])
    assert "<script" not in page and "default-src &#39;none&#39;" in page.replace("'", "&#39;")
    assert "<b>x</b>" not in page, "a prompt is text"
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]+"', page), "nothing beside the page"
    for part in ("ILF against fewer steps", 'class="lead-plot"', 'class="strip"', "Beats fewer steps?"):
        assert part in page


def test_a_run_without_images_or_scores_is_shown_too(make_run: Make, tmp_path: Path) -> None:
    run = make_run()
    for image in run.path.rglob("*.png"):
        image.unlink()
    results = load_run(run.path)
    assert "<iframe" in results._repr_html_()
    with pytest.raises(UsageError, match="kept its images"):
        results.images()


def test_it_is_printed_in_one_line(make_run: Make) -> None:
    results = frames(make_run())
    assert isinstance(results, RunResults) and "\n" not in repr(results) and "4 methods" in repr(results)
