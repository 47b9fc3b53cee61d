"""Contradictions, the cost ledger and published numbers, as the page prints them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from harness.contracts import Score
from harness.records import Run, read_run
from reports import build_report
from reports.conflicts import conflicts
from reports.grid import stored_samples
from reports.html import html_report
from reports.plots import speed_plots
from reports.tables import comparison_table

Make = Callable[..., Run]


def contradictory(run: Run) -> Run:
    """``far`` becomes a FID that is best for the accelerator, whose image reward is worst on sample 2."""
    scores = {}
    for (label, metric), score in run.scores.items():
        assert isinstance(score, Score)
        values = np.asarray(score.per_image)
        name = {"far": "fid", "good": "image_reward"}[metric]
        if name == "fid":
            values = 3.0 - 2.0 * label.startswith("ilf") + 0.01 * np.random.default_rng(len(label)).normal(size=score.n)
        elif label.startswith("ilf"):
            values = values - 3.0 - 9.0 * (np.arange(score.n) == 2)
        scores[label, name] = replace(score, metric=name, per_image=values, value=float(values.mean()))
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
    ledger = page.split("Cost ledger:")[2]
    assert "Calibration" in ledger and "900 s" in ledger and "1,800 [1,800, 1,800]" in ledger


def test_published_numbers_stand_apart(make_run: Make) -> None:
    run = read_run(make_run().path)
    table = comparison_table(run)
    here = html_report(run, table, [], None, {}, None)
    there = html_report(replace(run, spec=dict(run.spec) | {"name": "pixart-alpha-1024"}), table, [], None, {}, None)
    assert "not measured here, not ranked" not in here
    part = there.split('id="published"')[1].split("</section>")[0]
    assert "arXiv 2501.13107" in part and "ILF" in part and "answer" not in part
