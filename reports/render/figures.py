"""The paper's figures: vector drawings as wide as one column of a two-column page, with their fonts inside."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from harness.text import without_credentials
from reports.render.fonts import plain_fonts
from reports.render.plots import Marker, Plot

WIDTH, PLOT_HEIGHT = 3.3, 2.1  # inches
LEFT, RIGHT, TOP, BOTTOM, LEGEND_LINE, MARK = 0.52, 0.06, 0.1, 0.42, 0.125, 0.13
NAMED = 24  # a legend of more entries would be longer than a column; then only the front and the plain rows are named
GRID, MUTED, BAND = "#d8dee4", "#57606a", "#c9ced4"


@dataclass(frozen=True)
class Drawing:
    """One figure in the formats that papers take; a notebook shows it. ``name``: for example ``psnr-seconds``."""

    name: str
    pdf: bytes
    svg: bytes

    def _repr_svg_(self) -> str:
        """What a notebook shows."""
        return self.svg.decode()


def paper_figures(plots: list[Plot]) -> list[Drawing]:
    """Every plot at column width: PDF and SVG with embedded glyphs."""
    return [_drawing(plot) for plot in plots]


def _drawing(plot: Plot) -> Drawing:
    with rc_context(_settings()):
        figure = _draw(plot)
        metadata: dict[str, dict[str, Any]] = {
            "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
            "svg": {"Date": None, "Creator": None},
        }
        made = {kind: _save(figure, kind, facts) for kind, facts in metadata.items()}
    return Drawing(plot.name, made["pdf"], made["svg"])


def _save(figure: Figure, kind: str, metadata: dict[str, Any]) -> bytes:
    """Bytes without a date, equal for equal figures."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def _settings() -> Any:
    """Type 42 keeps letters as text in a PDF, with the font inside; in SVG they become outlines, which need no font."""
    return {
        "pdf.fonttype": 42,
        "svg.fonttype": "path",
        "svg.hashsalt": "ilf-bench",
        "font.family": plain_fonts(),
        "font.size": 7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": MUTED,
        "axes.linewidth": 0.6,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "grid.color": GRID,
        "grid.linewidth": 0.5,
        "axes.axisbelow": True,
        "text.parse_math": False,
    }


def _draw(plot: Plot) -> Figure:
    entries = _legend_entries(plot)
    columns = _in_two_columns(entries)
    legend = LEGEND_LINE * max(_lines(column) for column in columns) + 0.08
    height = TOP + PLOT_HEIGHT + BOTTOM + legend
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((LEFT / WIDTH, (BOTTOM + legend) / height, 1 - (LEFT + RIGHT) / WIDTH, PLOT_HEIGHT / height))
    _cost_axis(axes, plot)
    _draw_points(axes, plot)
    arrow = "higher is better" if plot.metric.direction == "higher" else "lower is better"
    axes.set_ylabel(f"{plot.metric.title}{f' ({plot.metric.unit})' if plot.metric.unit else ''}, {arrow}")
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid(True)
    for column, x in zip(columns, (0.03, WIDTH / 2 + 0.03), strict=True):
        _draw_legend(figure, column, x, legend)
    return figure


def _draw_legend(figure: Figure, entries: list[Entry], x: float, y: float) -> None:
    """Marks and names one below the other from (x, y), inches from the lower left corner.

    Not by matplotlib's legend, which takes as long for its boxes as all the rest of a figure.
    """
    for entry in entries:
        height = LEGEND_LINE * _lines([entry])
        middle = y - height / 2
        ends = [x + MARK / 2] if "marker" in entry.look else [x, x + MARK]
        figure.add_artist(Line2D(ends, [middle] * len(ends), transform=figure.dpi_scale_trans, **entry.look))
        figure.text(x + MARK + 0.04, middle, entry.text, fontsize=6, va="center", transform=figure.dpi_scale_trans)
        y -= height


def _named(plot: Plot) -> list[Marker]:
    front = {plot.points[i].label for i in plot.front}
    everyone = sorted(plot.points, key=lambda p: p.cost)
    return (
        everyone
        if len(everyone) <= NAMED
        else [p for p in everyone if p.label in front or p.kind in ("full", "fewer steps")][:NAMED]
    )


@dataclass(frozen=True)
class Entry:
    """A line of the legend: how its mark looks, as matplotlib's properties of a line, and its text of one line or two."""

    look: Mapping[str, Any]
    text: str


def _legend_entries(plot: Plot) -> list[Entry]:
    front = Entry({"color": MUTED, "linewidth": 0.8}, "Pareto front")
    band = Entry({"color": BAND, "alpha": 0.6, "linewidth": 5, "solid_capstyle": "butt"}, "A/A noise floor")
    names = ((p, "\n".join(textwrap.wrap(without_credentials(p.label), 30, max_lines=2, placeholder=" …"))) for p in _named(plot))
    return [front, *([band] if plot.band else []), *(Entry(_marker(p), name) for p, name in names)]


def _in_two_columns(entries: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    half = (len(entries) + 1) // 2
    return entries[:half], entries[half:]


def _lines(entries: Sequence[Entry]) -> int:
    return sum(1 + entry.text.count("\n") for entry in entries)


def _marker(point: Marker) -> dict[str, Any]:
    look = point.look
    fill, edge = ("white", look.colour) if look.hollow else (look.colour, "white")
    width = 0.7 if look.hollow else 0.4
    marker = {"marker": look.marker, "markersize": 4.2, "markeredgewidth": width}
    return marker | {"color": "none", "markerfacecolor": fill, "markeredgecolor": edge}


def _draw_points(axes: Axes, plot: Plot) -> None:
    front = [plot.points[i] for i in plot.front]
    axes.plot(
        [*(p.cost for p in front), axes.get_xlim()[1]],
        [*(p.value for p in front), front[-1].value],
        drawstyle="steps-post",
        color=MUTED,
        linewidth=0.8,
        zorder=2,
    )
    if plot.band:
        axes.axvspan(*plot.band, color=BAND, alpha=0.6, linewidth=0, zorder=1)
    points = sorted(plot.points, key=lambda p: p.cost)
    _draw_intervals(axes, points)
    for p in points:
        axes.plot(p.cost, p.value, zorder=4, **_marker(p))


def _draw_intervals(axes: Axes, points: list[Marker]) -> None:
    """Two collections of lines for all points: a pair of artists for each would take most of the time of a figure."""
    look: dict[str, Any] = {"linewidth": 0.8, "zorder": 3}
    colours = [p.look.colour for p in points]
    axes.hlines([p.value for p in points], [p.cost_low for p in points], [p.cost_high for p in points], colours, **look)
    bounds = [(p.low, p.high, p) for p in points if p.low is not None and p.high is not None]
    costs, colours = [p.cost for *_, p in bounds], [p.look.colour for *_, p in bounds]
    axes.vlines(costs, [low for low, *_ in bounds], [high for _, high, _ in bounds], colours, **look)


def _cost_axis(axes: Axes, plot: Plot) -> None:
    """Fixed before anything is drawn, so that a wide noise band cannot push the points together."""
    low, high = min(p.cost_low for p in plot.points), max(p.cost_high for p in plot.points)
    if plot.log_cost:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.15, high * 1.15)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, (high or 1.0) * 1.08)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(plot.axis.title.split(" (")[0])


__all__ = ["Drawing", "paper_figures"]
