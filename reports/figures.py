"""The figures: speed against each metric, and where the time goes. Drawn with matplotlib, no display needed."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from harness.contracts import BASELINE
from harness.records import Run
from reports.format import number
from reports.pareto import pareto_front
from reports.select import STAGES, example_score, noise_spread
from reports.style import DARK, LIGHT, STAGE_COLOURS, Theme, looks, settings, to_png, to_svg
from reports.tables import Cell, Column, Table

WIDTH = 5.4  # inches: still readable when a phone shrinks it to its own width
LOG_FROM = 6.0  # a logarithmic time axis once the slowest method takes this many times as long as the fastest


@dataclass(frozen=True)
class Picture:
    """One figure in every form the reports need. ``alt`` says in words what it shows."""

    name: str
    title: str
    alt: str
    caption: str
    png: bytes
    svg: bytes
    svg_dark: bytes


@dataclass(frozen=True)
class Point:
    """A method that was both timed and scored."""

    label: str
    time: Cell
    score: Cell


def speed_figures(run: Run, table: Table) -> list[Picture]:
    """A figure for each metric that at least one timed method has a score in."""
    return [picture for metric in table.metrics if (picture := _speed_figure(run, table, metric))]


def _speed_figure(run: Run, table: Table, metric: Column) -> Picture | None:
    points = _points(table, metric)
    if not points:
        return None
    missing = [row.label for row in table.rows if row.kind != "noise floor" and row.label not in {p.label for p in points}]
    front = [points[i].label for i in _front(points, metric)]
    alt = f"{metric.title} against seconds per image for {len(points)} methods, {metric.direction} is better. "
    alt += f"Pareto front: {', '.join(front)}." + (f" Not shown, without a value: {', '.join(missing)}." if missing else "")
    title = f"{metric.title} against time"
    caption = (
        f"{title}. Upright bars: 95% interval over images. The line is the Pareto front: no method is both faster and better."
    )
    return _picture(f"speed-{metric.key}", title, alt, caption, lambda theme: _draw_speed(run, points, metric, missing, theme))


def _points(table: Table, metric: Column) -> list[Point]:
    cells = [(row.label, row.cells.get("latency_s"), row.cells.get(metric.key)) for row in table.rows]
    return [Point(label, t, s) for label, t, s in cells if t and s and t.value is not None and s.value is not None]


def _front(points: list[Point], metric: Column) -> list[int]:
    times, values = [p.time.value or 0.0 for p in points], [p.score.value or 0.0 for p in points]
    return pareto_front(times, values, "higher" if metric.direction == "higher" else "lower")


def _picture(name: str, title: str, alt: str, caption: str, draw: Callable[[Theme], Figure]) -> Picture:
    made: dict[str, bytes] = {}
    for theme in (LIGHT, DARK):
        with rc_context(settings(theme)):
            figure = draw(theme)
            made[theme.name] = to_svg(figure)
            if theme is LIGHT:
                made["png"] = to_png(figure)
            plt.close(figure)
    return Picture(name, title, alt, caption, made["png"], made["light"], made["dark"])


def _draw_speed(run: Run, points: list[Point], metric: Column, missing: list[str], theme: Theme) -> Figure:
    plot_height, legend_height = 3.1, 0.17 * _legend_lines(points) + 0.22 * bool(missing) + 0.1
    height = 0.85 + plot_height + 0.55 + legend_height
    figure = plt.figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0.15, (0.55 + legend_height) / height, 0.82, plot_height / height))
    _time_axis(axes, points)
    _draw_front(axes, points, metric, theme)
    _draw_points(axes, run, points, theme)
    _draw_noise(axes, run, points, theme)
    axes.set_ylabel(f"{metric.title}{f' ({metric.unit})' if metric.unit else ''}")
    axes.grid(True)
    arrow = "↖ better" if metric.direction == "higher" else "↙ better"
    axes.text(0, 1.015, arrow, transform=axes.transAxes, fontsize=9.5, fontweight="bold", va="bottom", color=theme.muted)
    example = example_score(run, metric.key)
    _captions(figure, run, f"{metric.title}: {metric.direction} is better", height, tiny=example is not None and example.tiny)
    figure.legend(
        loc="upper left",
        bbox_to_anchor=(0.02, (legend_height + 0.05) / height),
        ncols=2,
        frameon=False,
        fontsize=8.5,
        handletextpad=0.5,
        columnspacing=1.2,
        borderaxespad=0,
        labelspacing=0.35,
    )
    if missing:
        text = textwrap.shorten(f"No value, see the failures: {', '.join(missing)}", 84, placeholder=" …")
        figure.text(0.03, 0.06 / height, text, fontsize=8, color=theme.muted)
    return figure


def _legend_label(label: str) -> str:
    """At most two lines, so that long labels still differ where they do."""
    return "\n".join(textwrap.wrap(label, 33, max_lines=2, placeholder=" …"))


def _legend_lines(points: list[Point]) -> int:
    """Lines of the longer legend column; the front and the noise floor are two more entries. Columns fill one by one."""
    ordered = sorted(points, key=lambda p: p.time.value or 0.0)
    lines = [1, *(1 + _legend_label(p.label).count("\n") for p in ordered), 1]
    half = (len(lines) + 1) // 2
    return max(sum(lines[:half]), sum(lines[half:]))


def _captions(figure: Figure, run: Run, title: str, height: float, *, tiny: bool) -> None:
    spec, env = run.spec, run.environment
    device = env.get("device_name") or env.get("device") or "device not recorded"
    parts = [str(spec["name"]), f"N = {spec.get('samples')}", str(device)] + ["tiny scorers"] * tiny
    figure.text(0.02, 1 - 0.10 / height, title, fontsize=12, fontweight="bold", va="top")
    figure.text(
        0.02, 1 - 0.37 / height, textwrap.shorten(" · ".join(parts), 78, placeholder=" …"), fontsize=8.5, va="top", alpha=0.8
    )


def _draw_points(axes: Axes, run: Run, points: list[Point], theme: Theme) -> None:
    style = looks(run, theme)
    for point in sorted(points, key=lambda p: p.time.value or 0.0):
        x, y = point.time.value or 0.0, point.score.value or 0.0
        across = [[x - (point.time.low or x)], [(point.time.high or x) - x]]
        low, high = point.score.low, point.score.high
        up = None if low is None or high is None or not (high - low) < float("inf") else [[y - low], [high - y]]
        look = style[point.label]
        axes.errorbar(x, y, xerr=across, yerr=up, fmt="none", ecolor=look.colour, elinewidth=1.5, zorder=4)
        label = _legend_label(point.label)
        axes.plot(
            x,
            y,
            look.marker,
            color=look.colour,
            markersize=8.5,
            markeredgecolor=theme.paper,
            markeredgewidth=1,
            label=label,
            zorder=5,
        )


def _draw_front(axes: Axes, points: list[Point], metric: Column, theme: Theme) -> None:
    """A staircase: between two points of the front one can only have the cheaper one's value."""
    front = [points[i] for i in _front(points, metric)]
    xs, ys = [p.time.value or 0.0 for p in front], [p.score.value or 0.0 for p in front]
    slowest = max(p.time.value or 0.0 for p in points)
    axes.plot(
        [*xs, slowest * 1.04],
        [*ys, ys[-1]],
        drawstyle="steps-post",
        color=theme.muted,
        linewidth=1.2,
        alpha=0.8,
        label="Pareto front",
        zorder=2,
    )


def _draw_noise(axes: Axes, run: Run, points: list[Point], theme: Theme) -> None:
    full, spread = next((p.time.value for p in points if p.label == BASELINE), None), noise_spread(run)
    if full is not None and spread is not None:
        label = f"full ± {spread:.1%}: A/A noise floor"
        axes.axvspan(full * (1 - spread), full * (1 + spread), color=theme.band, alpha=0.28, linewidth=0, label=label, zorder=1)


def _time_axis(axes: Axes, points: list[Point]) -> None:
    """Fixed before anything is drawn, so that a wide noise band cannot push the points together."""
    times = [t for p in points for t in (p.time.low, p.time.value, p.time.high) if t is not None]
    if min(times) > 0 and max(times) / min(times) >= LOG_FROM:
        axes.set_xscale("log")
        axes.set_xlim(min(times) / 1.15, max(times) * 1.15)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, max(times) * 1.08)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("seconds per image (median; bar: middle half of the rounds)")


def stage_figure(run: Run, table: Table) -> Picture | None:
    """Stacked bars: median seconds per image in each stage; None where nothing was timed."""
    rows = [row for row in table.rows if all(row.cells[f"{s}_s"].value is not None for s in STAGES)]
    if not rows:
        return None
    times = {row.label: [row.cells[f"{s}_s"].value or 0.0 for s in STAGES] for row in rows}
    alt = "Median seconds per image by stage. " + "; ".join(
        f"{label}: " + ", ".join(f"{stage} {number(t)}" for stage, t in zip(STAGES, values, strict=True))
        for label, values in times.items()
    )
    caption = "Median seconds per image in each stage, stacked. The number is their sum."
    return _picture("stages", "Where the time goes", alt, caption, lambda theme: _draw_stages(run, times, theme))


def _draw_stages(run: Run, times: dict[str, list[float]], theme: Theme) -> Figure:
    labels = [_legend_label(label) for label in times]
    tall = len(labels) * (0.28 + 0.1 * any("\n" in label for label in labels)) + 0.1
    height = 0.85 + tall + 0.75
    figure = plt.figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0.42, 0.75 / height, 0.55, tall / height))
    left = [0.0] * len(times)
    for i, stage in enumerate(STAGES):
        widths = [values[i] for values in times.values()]
        axes.barh(
            range(len(times)),
            widths,
            left=left,
            height=0.66,
            color=STAGE_COLOURS[stage],
            label=stage,
            edgecolor=theme.paper,
            linewidth=0.6,
        )
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for i, total in enumerate(left):
        axes.text(total, i, f" {number(total)}", va="center", fontsize=8.5, color=theme.ink)
    axes.set_xlim(0, (max(left) or 1.0) * 1.2)
    axes.set_yticks(range(len(times)), labels, fontsize=8, color=theme.ink)
    axes.set_ylim(len(times) - 0.4, -0.6)
    axes.grid(True, axis="x")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("seconds per image (sum of stage medians)")
    figure.legend(loc="lower left", bbox_to_anchor=(0.02, 0.04 / height), ncols=3, frameon=False, fontsize=8.5, borderaxespad=0)
    _captions(figure, run, "Where the time goes: shorter is better", height, tiny=False)
    return figure


__all__ = ["Picture", "speed_figures", "stage_figure"]
