"""The paper's figures: every letter has a glyph, every method that is named has its mark, and nothing reaches beyond the page."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable

import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text

from harness.storage.records import Run
from reports.render import figures
from reports.render.figures import WIDTH, paper_figures
from reports.render.fonts import plain_fonts
from reports.render.plots import Plot, speed_plots
from reports.render.tables import comparison_table

Make = Callable[..., Run]
METHODS = {"full": (20, 480, 1.0, 10.0), "12 steps": (12, 288, 0.6, 9.0), "8 steps": (8, 192, 0.4, 8.0)}


def plots_of(run: Run) -> list[Plot]:
    return speed_plots(run, comparison_table(run))


def drawn(plot: Plot) -> Figure:
    with rc_context(figures._settings()):
        figure = figures._draw(plot)
        figure.draw_without_rendering()
    return figure


def extent(text: Text, figure: Figure) -> tuple[float, float]:
    """Left and right end in inches."""
    box = text.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
    return float(box.x0), float(box.x1)


@pytest.mark.parametrize(("label", "small"), [("été ± 0.5 → 8 × 2", True), ("шаги λ=2", False)])
def test_letters_come_from_the_small_font_and_others_from_the_whole_one(make_run: Make, label: str, small: bool) -> None:
    run = make_run(methods={**METHODS, label: (10, 240, 0.5, 9.5)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of a letter without a glyph
        drawing = paper_figures(plots_of(run))[0]
    embedded = set(re.findall(rb"/BaseFont /[A-Z]+[+](\w+)", drawing.pdf) or re.findall(rb"/BaseFont /(\w+)", drawing.pdf))
    assert embedded == ({b"DejaVuSansPlain"} if small else {b"DejaVuSansPlain", b"DejaVuSans"})


def test_the_small_font_is_made_once() -> None:
    assert plain_fonts() is plain_fonts()


def test_the_legend_names_each_method_beside_its_mark(make_run: Make) -> None:
    plot = plots_of(make_run(methods={**METHODS, "a name of several words " * 4: (10, 240, 0.5, 9.5)}))[0]
    figure = drawn(plot)
    named = [text.get_text() for text in figure.texts]
    assert named[:3] == ["Pareto front", "A/A noise floor", "8 steps"]
    assert named[3] == "a name of several words a name\nof several words a name of …"
    looks = {p.label: p.look for p in plot.points}
    marks = [artist for artist in figure.artists if artist.get_marker() not in ("None", "")]
    assert [mark.get_marker() for mark in marks] == [looks[p.label].marker for p in sorted(plot.points, key=lambda p: p.cost)]
    assert all(0 <= left < right <= WIDTH for left, right in (extent(text, figure) for text in figure.texts))
    heights = [text.get_position()[1] for text in figure.texts]
    assert all(height > 0 for height in heights) and heights[:3] == sorted(heights[:3], reverse=True)


def test_each_point_has_its_interval(make_run: Make) -> None:
    plot = plots_of(make_run(methods=METHODS))[0]
    across, up = (lines.get_segments() for lines in drawn(plot).axes[0].collections)
    points = sorted(plot.points, key=lambda p: p.cost)
    assert [[tuple(end) for end in segment] for segment in across] == [
        [(p.cost_low, p.value), (p.cost_high, p.value)] for p in points
    ]
    assert [[tuple(end) for end in segment] for segment in up] == [[(p.cost, p.low), (p.cost, p.high)] for p in points]
