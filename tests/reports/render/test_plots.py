"""The plots' data and their SVG: what is drawn, where, and what is said of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.storage.records import Run
from reports.render.plots import DRAWN, speed_plots, stage_plot
from reports.render.svg import LETTER, LINE, WIDTH, plot_svg, shorten, stages_svg
from reports.render.tables import comparison_table
from tests.reports.synthetic import synthetic_run

Make = Callable[..., Run]


def svg_of(run: Run, index: int = 0) -> ElementTree.Element:
    table = comparison_table(run)
    return ElementTree.fromstring(plot_svg(speed_plots(run, table)[index], {row.label: i for i, row in enumerate(table.rows)}))


def test_a_plot_for_each_metric_and_cost(make_run: Make) -> None:
    run = make_run(noise=0.0)
    plots = speed_plots(run, comparison_table(run))
    assert [p.name for p in plots] == ["good-seconds", "far-seconds", "good-block", "far-block"]
    far = plots[1]
    assert [far.points[i].label for i in far.front] == ["8 steps", "ilf(steps=10)", "full"]
    assert [p.cost for p in far.points] == pytest.approx([1.0, 0.6, 0.4, 0.5])
    assert far.band == pytest.approx((1.0, 1.0)) and plots[3].band is None  # block evaluations are counted, without noise
    assert "lower is better. Pareto front: 8 steps, ilf(steps=10), full." in far.alt


def test_methods_without_a_value_are_named(make_run: Make) -> None:
    run = make_run(missing=(("8 steps", "good"),), failed_methods=(("broken", "no such block"),))
    plot = speed_plots(run, comparison_table(run))[0]
    assert plot.missing == ("8 steps", "broken") and plot.alt.endswith("Without a value: 8 steps, broken.")


def test_one_image_is_drawn_without_an_interval(make_run: Make) -> None:
    run = make_run(n=2, rounds=0)
    one = speed_plots(run, comparison_table(run))[0]
    assert all(p.low is not None and p.cost_low == p.cost == p.cost_high for p in one.points)
    alone = synthetic_run(run.path, 3, 1)
    plot = speed_plots(alone, comparison_table(alone))[0]
    assert all(p.low is None and p.high is None for p in plot.points)
    assert "nan" not in str(plot_svg(plot, {p.label: 0 for p in plot.points})).lower()


def test_points_lie_where_their_numbers_say(make_run: Make) -> None:
    """Twice the time is twice as far from the axis, and the better value is higher for higher-is-better."""
    root = svg_of(make_run(noise=0.0))
    at = {g.find("{*}title").text.split("\n")[0]: g.find("{*}use").attrib for g in root.iter() if "pt " in g.get("class", "")}  # type: ignore[union-attr]
    zero = 50  # the left margin
    assert (float(at["full"]["x"]) - zero) / (float(at["ilf(steps=10)"]["x"]) - zero) == pytest.approx(2, rel=1e-3)
    assert float(at["full"]["y"]) < float(at["12 steps"]["y"]) < float(at["8 steps"]["y"])


def test_labels_do_not_collide_among_fifty_methods(tmp_path: Path) -> None:
    root = svg_of(synthetic_run(tmp_path, 50, 50))
    boxes = []
    for text in root.iter():
        if text.get("class") == "lb":
            width = LETTER * len(text.text or "")
            left = float(text.get("x", 0)) - {"start": 0.0, "middle": width / 2, "end": width}[text.get("text-anchor", "start")]
            boxes.append((left, float(text.get("y", 0)) - LINE + 2, left + width, float(text.get("y", 0)) + 2))
    assert len(boxes) > 8
    for a, b in combinations(boxes, 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
    assert all(box[0] >= 0 and box[2] <= WIDTH for box in boxes)


def test_of_a_thousand_methods_the_front_and_the_plain_rows_are_drawn(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path, 1000, 2, rounds=2)
    table = comparison_table(run)
    plot, stages = speed_plots(run, table)[0], stage_plot(table)
    drawn = {p.label for p in plot.points}
    assert len(drawn) == DRAWN and plot.left_out == 1000 - DRAWN and "940 methods" in plot.caption
    assert {"full", "15 steps", "6 steps"} <= drawn
    points = [(row.cells["latency_s"].value or 0, row.cells["fid"].value or 0, row.label) for row in table.rows[:-1]]
    best = {label for x, y, label in points if not any(u <= x and v <= y and (u, v) != (x, y) for u, v, _ in points)}
    assert best <= drawn
    assert stages is not None and len(stages.times) == DRAWN


def test_labels_are_shortened_in_the_middle() -> None:
    assert shorten("toca(ratio=0.9,interval=3)", 24) == "toca(ratio=0.9,…erval=3)"
    assert shorten("full", 24) == "full"


def test_markup_in_labels_is_escaped(make_run: Make) -> None:
    run = make_run(methods={"full": (20, 480, 1.0, 10.0), "<b>&\"'": (8, 192, 0.4, 8.0)})
    table = comparison_table(run)
    numbers = {row.label: i for i, row in enumerate(table.rows)}
    stages = stage_plot(table)
    assert stages is not None
    for svg in (*(plot_svg(p, numbers) for p in speed_plots(run, table)), stages_svg(stages, numbers)):
        assert "<b>" not in svg and any("<b>&\"'" in (e.text or "") for e in ElementTree.fromstring(svg).iter())
        assert not re.search(r"\son\w+=", svg)
