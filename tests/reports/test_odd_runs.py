"""Runs that lack something, or hold something strange: one page each, nothing lost, no number invented."""

from __future__ import annotations

import html
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from harness.errors import ArtifactError
from harness.results import Failure, Score
from harness.storage.records import FORMAT, Run, read_json, write_json
from reports.analysis.answers import answers
from reports.analysis.evidence import SECONDS
from reports.analysis.select import score_of, untimed
from reports.render.build import build_paper, build_report
from reports.render.grid import sample_sheet
from reports.render.html import html_report
from reports.render.plots import DRAWN, speed_plots, stage_plot
from reports.render.tables import comparison_table
from reports.render.terminal import terminal_tables
from reports.render.versus import versus
from tests.reports.synthetic import synthetic_run

Make = Callable[..., Run]
SMALL = {"full": (20, 480, 1.0, 10.0), "8 steps": (8, 192, 0.4, 8.0), "ilf(steps=10)": (10, 240, 0.5, 9.9)}


def words(page: str) -> str:
    body = re.sub(r"<(style|script)[^>]*>.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_a_run_without_images_has_no_gallery(make_run: Make) -> None:
    run = make_run(methods=SMALL, rounds=0)
    shutil.rmtree(run.path / "samples")
    page = build_report(run.path)
    assert not (page.parent / "gallery.html").exists() and "gallery" not in words(page.read_text())
    assert "<img" not in page.read_text() and "8 steps" in words(page.read_text())
    assert not (build_paper(run.path) / "samples.png").exists()


def test_failures_only(make_run: Make) -> None:
    run = make_run(methods={}, failed_methods=(("full", "no such weights"), ("ilf", "no <module>")), rounds=0)
    text = words(build_report(run.path).read_text())
    assert "no such weights" in text and "no <module>" in text
    table = (build_paper(run.path) / "table.tex").read_text()
    assert "full & --" in table and not list((run.path / "report" / "paper").glob("*.pdf"))


def test_a_method_that_is_none_of_this_run_did_not_fail(make_run: Make) -> None:
    """As one run is asked about when it is compared with another."""
    run = make_run(methods=SMALL, failed_methods=(("ilf", "no weights"),))
    cut = replace(run, spec={**run.spec, "method_labels": [*run.spec["method_labels"], "6 steps"]})
    for label, reason in (
        ("ilf", "method failed: no weights"),
        ("5 steps", "not a method of this run"),
        ("6 steps", "never ran"),
    ):
        score = score_of(cut, label, "fid")
        assert isinstance(score, Failure) and score.reason.startswith(reason) and untimed(cut, label).startswith(reason)


def test_one_sample_has_no_interval_and_no_verdict(make_run: Make, tmp_path: Path) -> None:
    run = synthetic_run(tmp_path, 8, 1)
    table = comparison_table(run)
    page = html_report(run, table, speed_plots(run, table), stage_plot(table), {}, None)
    text = words(page)
    assert "(no interval: N = 1)" in text and "a single image, prompt or round has no interval" in text
    assert not re.search(r"\bnan\b|\binf\b|Infinity", text)
    assert 'class="answer good"' not in page and 'class="answer bad"' not in page


@pytest.mark.parametrize(("n", "rounds"), [(8, 1), (8, 2), (8, 8), (64, 1), (64, 2)])
def test_a_small_run_warns_of_nothing_and_is_sure_of_nothing(make_run: Make, n: int, rounds: int) -> None:
    """One or two rounds, or eight images: no warning of NumPy or matplotlib, and a decided answer says how few they are."""
    methods = SMALL | {"ilf(steps=10)": (10, 240, 0.5, 19.9)}  # by far the best score
    run = make_run(methods=methods, n=n, rounds=rounds, noise=0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = words(build_report(run.path).read_text())
        build_paper(run.path)
        texts = [str(part) for part in terminal_tables(run, 80)]
        found = [answer.text for answer in answers(run, SECONDS)]
        rows = versus(run, make_run("other", methods=methods, n=n, rounds=rounds, noise=0.3, timing_seed=1))
    assert texts and rows and found and "ilf(steps=10)" in page
    assert all("provisional" in text or text in ("can't tell", "not measured") for text in found)
    assert "timing noise" not in page or rounds > 2


def test_all_equal_samples_have_intervals_of_no_width(make_run: Make) -> None:
    """Every image scores alike and every round takes as long: differences are exact, and nothing is divided by zero."""
    run = make_run(methods=SMALL, noise=0.0)
    scores = {
        key: replace(s, influence=np.full(s.n, s.value))
        for key, s in run.scores.items()
        if isinstance(s, Score) and key[1] == "good"
    }
    run = replace(run, scores=scores, spec=dict(run.spec) | {"metrics": ["good"]})
    table = comparison_table(run)
    text = words(html_report(run, table, speed_plots(run, table), stage_plot(table), {}, None))
    assert not re.search(r"\bnan\b|\binf\b|Infinity", text)
    row = next(row for row in table.rows if row.label == "8 steps")
    assert (row.cells["good"].low, row.cells["good"].value, row.cells["good"].high) == pytest.approx((8.0, 8.0, 8.0))
    assert row.differences["good"].low == row.differences["good"].high == pytest.approx(-2.0)


def test_a_record_of_another_version_is_refused_and_left_as_it_is(make_run: Make) -> None:
    run = make_run(methods=SMALL)
    spec = read_json(run.path / "spec.json")
    write_json(run.path / "spec.json", spec | {"format": FORMAT + 1})
    before = {path: path.read_bytes() for path in run.path.rglob("*.json")}
    with pytest.raises(ArtifactError, match=rf"expected record format {FORMAT} at .*; got record format {FORMAT + 1};"):
        build_report(run.path)
    assert {path: path.read_bytes() for path in run.path.rglob("*.json")} == before and not (run.path / "report").exists()


def test_a_record_with_a_field_of_a_later_version_is_refused(make_run: Make) -> None:
    run = make_run(methods=SMALL)
    file = next((run.path / "methods").glob("*.json"))
    write_json(file, read_json(file) | {"carbon_kg": 1.0})
    with pytest.raises(ArtifactError, match=r"expected a MethodRecord at .*carbon_kg"):
        build_report(run.path)


def test_an_infinite_score_is_a_failure_with_its_reason(make_run: Make) -> None:
    """Records refuse infinities when they are written; what a metric could not say finitely arrives as a failure."""
    run = make_run(methods=SMALL)
    why = "PSNR of identical images is infinite"
    odd = replace(run, scores=dict(run.scores) | {("full", "far"): Failure("full", "far", why)})
    table = comparison_table(odd)
    assert why in words(html_report(odd, table, speed_plots(odd, table), stage_plot(table), {}, None))


@pytest.mark.parametrize("nasty", ["</title><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "a&b'c"])
def test_markup_in_names_stays_text(make_run: Make, nasty: str) -> None:
    run = make_run(methods=SMALL | {nasty: (8, 192, 0.45, 8.5)}, failed_methods=(("broken", nasty),))
    run = replace(run, spec=dict(run.spec) | {"title": nasty, "name": nasty}, environment=dict(run.environment) | {"note": nasty})
    table = comparison_table(run)
    page = html_report(run, table, speed_plots(run, table), stage_plot(table), {}, sample_sheet({}))
    assert nasty in html.unescape(page) and nasty.replace("&", "&amp;") not in page.replace("&amp;", "", 0).split("<title>")[0]
    assert "<script>alert" not in page and "<img" not in page and " 49 " not in words(page)
    body = page[page.index("<svg viewBox") :]
    ElementTree.fromstring(body[: body.index("</svg>") + 6])


def test_of_many_methods_most_are_folded_away(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path, 100, 4, rounds=3, metrics=(("fid", "FID", "lower"),))
    table = comparison_table(run)
    page = html_report(run, table, speed_plots(run, table), stage_plot(table), {}, None)
    assert f"{101 - DRAWN} more methods" in page and len(page) < 4e6
    first = 2 * (30 + 6)  # the overview's plot, wide and narrow: thirty accelerators and the plain pipeline's rows
    assert page.count('class="pt ') == 2 * DRAWN + first
    assert all(html.escape(record.label) in page for record in run.methods)
