"""Null controls beside the metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from harness.results import Failure, Score
from harness.statistics.controls import CONTROLS
from harness.storage.records import Run
from reports.render.html import html_report
from reports.render.nulls import WARNING, insensitive_metrics, null_matrix
from reports.render.tables import comparison_table

Make = Callable[..., Run]


def with_controls(run: Run, harm: float) -> Run:
    """Controls of ``good`` that score lower than full's images by ``harm``; ``far`` could not be measured."""
    full = run.scores["full", "good"]
    assert isinstance(full, Score)
    found: dict[tuple[str, str], Score | Failure] = {}
    for i, name in enumerate(CONTROLS):
        values = full.influence - (harm * (1 + 0.1 * np.random.default_rng(i).random(full.n)) if name != "identical" else 0)
        found[name, "good"] = replace(full, method=name, influence=values, value=float(values.mean()))
        found[name, "far"] = Failure(name, "far", "no network for it")
    return replace(run, controls=found)


def test_controls_that_are_distinguished(make_run: Make) -> None:
    run = with_controls(make_run(), 50.0)
    matrix = null_matrix(run)
    assert matrix is not None and insensitive_metrics(run) == {}
    words = {line.label: [entry.word for entry in line.entries] for line in matrix.lines}
    assert words["identical"] == ["the same", "not measured"] and words["black"][0] == "distinguished"
    texts = {line.label: line.entries[0].text for line in matrix.lines}
    assert texts["identical"] == "" and texts["black"].startswith("+52.")
    assert matrix.lines[0].entries[1].reason == "no network for it"


def test_a_metric_that_confuses_a_method_with_black_carries_a_warning(make_run: Make) -> None:
    run = with_controls(make_run(), 0.5)
    assert insensitive_metrics(run) == {"good": WARNING}
    table = comparison_table(run)
    page = html_report(run, table, [], None, {}, None)
    assert page.count(WARNING) == 2 and "confused with 12 steps, 8 steps" in page


def test_a_run_of_an_earlier_version_has_none(make_run: Make) -> None:
    assert null_matrix(make_run()) is None and insensitive_metrics(make_run("b")) == {}
