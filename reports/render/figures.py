"""The paper's figures: vector drawings as wide as one column of a two-column page, with their fonts inside."""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from reports.render.plots import Plot, Point

WIDTH, PLOT_HEIGHT = 3.3, 2.1  # inches
LEFT, RIGHT, TOP, BOTTOM, LEGEND_LINE = 0.52, 0.06, 0.1, 0.42, 0.125
NAMED = 24  # a legend of more entries would be longer than a column; then only the front and the plain rows are named
GRID, MUTED, BAND = "#d8dee4", "#57606a", "#c9ced4"


@dataclass(frozen=True)
class Drawing:
    """One figure in the formats that papers take."""

    name: str
    pdf: bytes
    svg: bytes


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
        plt.close(figure)
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
        "font.family": ["DejaVu Sans"],
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
    named = _named(plot)
    lines = _legend_lines(named)
    legend = LEGEND_LINE * lines + 0.08
    height = TOP + PLOT_HEIGHT + BOTTOM + legend
    figure = plt.figure(figsize=(WIDTH, height))
    axes = figure.add_axes((LEFT / WIDTH, (BOTTOM + legend) / height, 1 - (LEFT + RIGHT) / WIDTH, PLOT_HEIGHT / height))
    _cost_axis(axes, plot)
    _draw_points(axes, plot, {p.label for p in named})
    arrow = "higher is better" if plot.metric.direction == "higher" else "lower is better"
    axes.set_ylabel(f"{plot.metric.title}{f' ({plot.metric.unit})' if plot.metric.unit else ''}, {arrow}")
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid(True)
    figure.legend(
        loc="upper left",
        bbox_to_anchor=(0.0, (legend + 0.03) / height),
        ncols=2,
        frameon=False,
        fontsize=6,
        handletextpad=0.3,
        columnspacing=0.8,
        labelspacing=0.25,
        borderaxespad=0.2,
        handlelength=1.6,
    )
    return figure


def _named(plot: Plot) -> list[Point]:
    front = {plot.points[i].label for i in plot.front}
    everyone = sorted(plot.points, key=lambda p: p.cost)
    return (
        everyone
        if len(everyone) <= NAMED
        else [p for p in everyone if p.label in front or p.kind in ("full", "fewer steps")][:NAMED]
    )


def _legend_label(label: str) -> str:
    return "\n".join(textwrap.wrap(label, 30, max_lines=2, placeholder=" …"))


def _legend_lines(named: list[Point]) -> int:
    """Lines of the longer column; the front and the noise floor are two more entries. Columns fill one by one."""
    lines = [1, 1, *(1 + _legend_label(p.label).count("\n") for p in named)]
    half = (len(lines) + 1) // 2
    return max(sum(lines[:half]), sum(lines[half:]))


def _draw_points(axes: Axes, plot: Plot, named: set[str]) -> None:
    front = [plot.points[i] for i in plot.front]
    axes.plot(
        [*(p.cost for p in front), axes.get_xlim()[1]],
        [*(p.value for p in front), front[-1].value],
        drawstyle="steps-post",
        color=MUTED,
        linewidth=0.8,
        label="Pareto front",
        zorder=2,
    )
    if plot.band:
        axes.axvspan(*plot.band, color=BAND, alpha=0.6, linewidth=0, label="A/A noise floor", zorder=1)
    for p in sorted(plot.points, key=lambda p: p.cost):
        fill, edge = ("white", p.look.colour) if p.look.hollow else (p.look.colour, "white")
        up = None if p.low is None or p.high is None else [[p.value - p.low], [p.high - p.value]]
        across = [[p.cost - p.cost_low], [p.cost_high - p.cost]]
        axes.errorbar(p.cost, p.value, xerr=across, yerr=up, fmt="none", ecolor=p.look.colour, elinewidth=0.8, zorder=3)
        axes.plot(
            p.cost,
            p.value,
            p.look.marker,
            color="none",
            markersize=4.2,
            markeredgewidth=0.7 if p.look.hollow else 0.4,
            markerfacecolor=fill,
            markeredgecolor=edge,
            label=_legend_label(p.label) if p.label in named else None,
            zorder=4,
        )


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
