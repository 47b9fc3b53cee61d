"""Contradictions, the upfront cost and published numbers, as the page prints them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from harness.results import Score
from harness.storage.records import Run, read_run
from reports.render.build import build_report
from reports.render.conflicts import conflicts
from reports.render.grid import stored_samples
from reports.render.html import html_report
from reports.render.markdown import markdown_report
from reports.render.plots import speed_plots
from reports.render.tables import comparison_table
from reports.render.words import facts

Make = Callable[..., Run]


def contradictory(run: Run) -> Run:
    """``far`` becomes a FID that is best for the accelerator, whose image reward is worst on sample 2."""
    scores = {}
    for (label, metric), score in run.scores.items():
        assert isinstance(score, Score)
        values = np.asarray(score.influence)
        name = {"far": "fid", "good": "image_reward"}[metric]
        if name == "fid":
            values = 3.0 - 2.0 * label.startswith("ilf") + 0.01 * np.random.default_rng(len(label)).normal(size=score.n)
        elif label.startswith("ilf"):
            values = values - 3.0 - 9.0 * (np.arange(score.n) == 2)
        scores[label, name] = replace(
            score, metric=name, influence=values, per_image=None if name == "fid" else values, value=float(values.mean())
        )
    return replace(run, spec=dict(run.spec) | {"metrics": ["fid", "image_reward"]}, scores=scores)


def test_a_contradiction_shows_its_worst_prompts_and_leads_to_the_gallery(make_run: Make) -> None:
    run = contradictory(make_run())
    stored = stored_samples(run)
    found = conflicts(run, stored)[0]
    assert "surely better on Far score but surely worse on Good score" in found.sentence
    assert found.pairs[0].prompt == "cat | face" and found.pairs[0].first.startswith("data:image/png;base64,")
    assert found.address == "gallery.html#first=full&second=ilf%28steps%3D10%29&order=loss&metric=image_reward"
    table = comparison_table(run)
    page = html_report(run, table, speed_plots(run, table), None, stored, None)
    assert "Where the metrics contradict each other" in page and 'alt="ilf(steps=10): cat | face"' in page


def test_without_images_the_warning_stands_alone(make_run: Make) -> None:
    found = conflicts(contradictory(make_run()), {})[0]
    assert found.pairs == () and found.address == ""


def test_agreement_needs_no_section(make_run: Make) -> None:
    assert "contradict each other" not in build_report(make_run().path).read_text()


def test_the_page_says_when_training_has_paid_back(make_run: Make) -> None:
    """900 s of training at half a second saved an image: 1,800 images."""
    page = build_report(make_run(noise=0.0).path).read_text()
    upfront_cost = page.split("Upfront cost:")[2]
    assert "Calibration" in upfront_cost and "15.0 min" in upfront_cost and "1,800 [1,800, 1,800]" in upfront_cost


def test_published_numbers_stand_apart(make_run: Make) -> None:
    run = read_run(make_run().path)
    table = comparison_table(run)
    here = html_report(run, table, [], None, {}, None)
    there = html_report(replace(run, spec=dict(run.spec) | {"name": "pixart-alpha-1024"}), table, [], None, {}, None)
    assert "not measured here, not ranked" not in here
    part = there.split('id="published"')[1].split("</section>")[0]
    assert "arXiv 2501.13107" in part and "ILF" in part and "answer" not in part
    measured = there.split('id="published"')[0]
    assert part.count('role="img"') == 8 and part.count('href="#mk-120" x=') == 8 * 4 + 8 + 4 + 3 + 8
    assert (
        "differences to each table" in part.lower()
    )  # above: each metric's plot and caption, the rows of two tables, and 12 steps beside ours
    assert 'href="#mk-120"' not in measured and 'class="front"' not in part


def test_the_anchors_of_a_preset_are_shown_apart(make_run: Make) -> None:
    anchor = {"metric": "fid", "title": "FID", "value": 3.5, "n": 50000, "source": "some <paper>"}
    run = make_run()
    run = replace(run, environment=dict(run.environment) | {"anchors": [anchor]})
    page = html_report(run, comparison_table(run), [], None, {}, None)
    part = page.split('id="published"')[1].split("</section>")[0]
    assert (
        "3.5 at N = 50,000" in part
        and "some &lt;paper&gt;, row &#39;full&#39;; n 50000; not stated: prompts" in part
        and "for orientation only" in part
    )
    assert "not measured: fid is not among the metrics of this run" in part and "anchors" not in dict(facts(run))
    text = markdown_report(run)
    assert "### What a right set-up should reproduce" in text and "| FID | 3.5 at N = 50,000 |" in text
    odd = replace(run, environment=dict(run.environment) | {"anchors": [{"metrik": 1}]})
    assert "does not know" in markdown_report(odd) and "metrik" in html_report(odd, comparison_table(odd), [], None, {}, None)
    without = replace(run, environment=dict(run.environment) | {"anchors": []})
    assert "Published elsewhere" not in markdown_report(without)
