"""The history as one self-contained page: a small plot for each preset, method and check, change points marked, commits on hover.

No network and no JavaScript: the plots are SVG inside the page, coloured by its own style, with a title for each point that
browsers show on hover and screen readers read; a table below each plot holds the same numbers.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.history.store import HistoryEntry
from reports.analysis.change_points import ChangePoint
from reports.analysis.trend import Point, Series, trends
from reports.format import number
from reports.render.page import breakable, dated

TEMPLATES = Path(__file__).resolve().parent / "templates"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 340, 170, 54, 12, 14, 30
SHOWN = 200  # the newest runs of a series; older ones are in the history itself
UNFOLDED = 12  # with more methods than this, those without a change point start folded


@dataclass(frozen=True)
class Mark:
    """A point: place, whiskers (equal where it has none) and its text."""

    x: float
    y: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class ChangeMark:
    """A change: the place between two runs, what it says, and good, bad or even."""

    x: float
    text: str
    kind: str


@dataclass(frozen=True)
class Plot:
    """One series, placed. ``levels``: (x1, x2, y) of each mean; ``ticks``: (y, text)."""

    series: Series
    heading: str
    marks: tuple[Mark, ...]
    change_points: tuple[ChangeMark, ...]
    levels: tuple[tuple[float, float, float], ...]
    ticks: tuple[tuple[float, str], ...]
    line: str
    summary: str
    hidden: int

    @property
    def newest(self) -> Point:
        """The last run."""
        return self.series.points[-1]


@dataclass(frozen=True)
class MethodPlots:
    """All plots of one method of one preset."""

    method: str
    plots: tuple[Plot, ...]
    is_open: bool


def dashboard(entries: Sequence[HistoryEntry]) -> str:
    """The whole page as text. Everything that came from a run is escaped."""
    style = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "dashboard.css"))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    series = trends(entries)
    presets = {preset: _methods(list(group)) for preset, group in groupby(series, key=lambda s: s.group.preset)}
    context: dict[str, Any] = {
        "csp": f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        "style": Markup(style),  # our own files, not the runs'
        "presets": presets,
        "moved": [(s, change, describe_change(s, change), change_style(s, change)) for s in series for change in s.change_points],
        "runs": len(entries),
        "partial": sum(not entry.complete for entry in entries),
        "span": (entries[0].created[:10], entries[-1].created[:10]) if entries else ("", ""),
        "size": (WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM),
        "number": number,
        "breakable": breakable,
        "dated": dated,
    }
    return environment.get_template("dashboard.html.jinja").render(context)


def _methods(series: Sequence[Series]) -> list[MethodPlots]:
    found = [(method, [_plot(s) for s in group]) for method, group in groupby(series, key=lambda s: s.group.method)]
    many = len(found) > UNFOLDED
    return [MethodPlots(m, tuple(plots), not many or any(p.change_points for p in plots)) for m, plots in found]


def change_style(series: Series, change: ChangePoint) -> str:
    """Good, bad, or even where the direction is unknown: the style's words."""
    worse = series.is_worse(change)
    return "even" if worse is None else "bad" if worse else "good"


def describe_change(series: Series, change: ChangePoint) -> str:
    """For example ``0.0292 to 0.0351 s/image (+20%) at abc12345``."""
    unit = f" {series.unit}" if series.unit else ""
    share = f" ({change.after / change.before - 1:+.1%})".replace("-", "−") if min(change.before, change.after) > 0 else ""
    point = series.points[change.index]
    return f"{number(change.before)} to {number(change.after)}{unit}{share} at {point.commit_text}, {point.created[:10]}"


def _plot(series: Series) -> Plot:
    first = max(0, len(series.points) - SHOWN)
    points = series.points[first:]
    ends = [v for p in points for v in (p.value, p.low, p.high) if v is not None]
    low, high = min(ends), max(ends)
    margin = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    low, high = low - margin, high + margin

    def x(index: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * ((index - first + 0.5) / len(points)), 1)

    def y(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low), 1)

    marks = tuple(
        Mark(x(first + i), y(p.value), y(_or(p.low, p.value)), y(_or(p.high, p.value)), _point_text(series, p))
        for i, p in enumerate(points)
    )
    shown = [change for change in series.change_points if change.index > first]
    change_points = tuple(ChangeMark(x(s.index - 0.5), describe_change(series, s), change_style(series, s)) for s in shown)
    heights = {number(value): y(value) for value in (low + margin, (low + high) / 2, high - margin)}
    ticks = tuple((height, text) for text, height in heights.items())
    line = " ".join(f"{mark.x},{mark.y}" for mark in marks)
    unit = f", {series.unit}" if series.unit else ""
    arrow = {"higher": " ↑", "lower": " ↓"}.get(series.direction, "")
    summary = f"{series.group.method}, {series.title}: {len(series.points)} runs, newest {number(points[-1].value)}"
    moved = "; ".join(mark.text for mark in change_points) or "no change"
    levels = tuple(_levels(series, first, x, y)) if shown else ()
    return Plot(series, f"{series.title}{unit}{arrow}", marks, change_points, levels, ticks, line, f"{summary}; {moved}", first)


def _or(bound: float | None, value: float) -> float:
    return value if bound is None else bound


def _levels(series: Series, first: int, x: Any, y: Any) -> list[tuple[float, float, float]]:
    edges = [0, *(change.index for change in series.change_points), len(series.points)]
    means = [series.change_points[0].before, *(change.after for change in series.change_points)]
    spans = zip(edges[:-1], edges[1:], means, strict=True)
    return [(x(max(a, first) - 0.4), x(b - 0.6), y(mean)) for a, b, mean in spans if b > first]


def _point_text(series: Series, point: Point) -> str:
    bounds = "" if point.low is None or point.high is None else f" [{number(point.low)}, {number(point.high)}]"
    tags = f", {', '.join(point.tags)}" if point.tags else ""
    unit = f" {series.unit}" if series.unit else ""
    return f"{point.commit_text}{tags}, {point.created[:16].replace('T', ' ')}: {number(point.value)}{bounds}{unit}"
