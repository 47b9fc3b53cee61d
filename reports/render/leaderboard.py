"""The leaderboard as one page: a section for each board, a table for each ranking, and the bundles that the numbers come from.

Without JavaScript every table is shown; the script only hides what a filter leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.results import BASELINE
from reports.analysis.compare import Difference
from reports.analysis.leaderboard import SPEED, Board, Measure, Ranking, Source, Standing
from reports.format import interval_text
from reports.render.page import breakable, render_page

SHORT = 12  # digits of a digest that a table shows; the list of bundles has them all


@dataclass(frozen=True)
class Row:
    """The texts of a standing; ``mark`` is the difference's verdict, a class of the style sheet."""

    rank: int
    method: str
    family: str
    value: str
    speed: str
    difference: str
    mark: str
    answer: str
    source: Source


def leaderboard_page(boards: Sequence[Board], sources: Sequence[Source], refused: Sequence[str]) -> str:
    """The whole page as text. Everything that came from a bundle is escaped.

    ``sources`` lie beside the page under their ``file``; ``refused`` has a line for each bundle that was left out.
    """
    rankings = [ranking for board in boards for ranking in board.rankings]
    titles = dict(sorted(((r.measure.name, r.measure.title) for r in rankings), key=lambda named: named[0] != SPEED))
    families = {row.family for ranking in rankings for _, row in ranking.rows}
    context = {
        "boards": boards,
        "rows": rows_of,
        "heading": heading,
        "breakable": breakable,
        "metrics": titles,
        "speed": SPEED,
        "families": [(name, name) for name in sorted(families, key=lambda name: (name != BASELINE, name))],
        "devices": [(name, name) for name in sorted({board.device for board in boards})],
        "sources": sources,
        "refused": refused,
        "short": SHORT,
    }
    return render_page("leaderboard.html.jinja", "leaderboard.js", "data:", context)


def heading(measure: Measure) -> str:
    """For example ``FID, N = 2000, lower is better``."""
    unit = f" in {measure.unit}" if measure.unit and measure.name != SPEED else ""
    images = f", N = {measure.n}" if measure.n else " over the same bundle's full run"
    return f"{measure.title}{unit}{images}, {measure.direction} is better"


def rows_of(ranking: Ranking) -> list[Row]:
    """The texts of a ranking."""
    return [_row(rank, standing) for rank, standing in ranking.rows]


def _row(rank: int, row: Standing) -> Row:
    difference, mark = _difference(row.to_full)
    speed = "not measured" if row.speed is None else "1 by definition" if row.family == BASELINE else interval_text(row.speed)
    value = speed if row.value is row.speed else interval_text(row.value)
    return Row(rank, row.method, row.family, value, speed, difference, mark, row.answer or "–", row.source)


def _difference(found: Difference | None) -> tuple[str, str]:
    if found is None:
        return "–", ""
    if found.interval is None:
        return found.reason, "why"
    return interval_text(found.interval, signed=True), found.verdict.value
