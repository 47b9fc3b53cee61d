"""The field in one picture: every method's cost and score, one panel a metric, with the Pareto front."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from harness.results import BASELINE, Score
from harness.statistics import mean_interval
from harness.storage.records import Run
from reports.analysis.pareto import pareto_front
from reports.analysis.select import metric_order, plain_pipeline, score_of
from reports.render.style import INK_LIGHT, LIGHT, MARKERS

PANELS = (2, 4)  # rows and columns; the legend takes the last one
BEYOND = 0.5  # how far past the front a panel reaches, as a share of its range
GREY, FAINT = "#57606a", "#d8dee4"
PLAIN = "plain steps, any solver"


@dataclass(frozen=True)
class Dot:
    """One method in one panel; ``family`` is the rival that it is a setting of, or :data:`PLAIN`."""

    label: str
    family: str
    cost: float
    score: Score


def field_figure(run: Run, chosen: Mapping[str, tuple[str, ...]]) -> bytes:
    """A PNG. ``chosen``: each rival's settings, as their texts in the preset; what is none of them and not plain is left out."""
    families = {text: rival for rival, texts in chosen.items() for text in texts}
    marks = {rival: (LIGHT[i % len(LIGHT)], MARKERS[i // len(LIGHT) % len(MARKERS)]) for i, rival in enumerate(chosen)}
    rows, columns = PANELS
    figure, grid = plt.subplots(rows, columns, figsize=(15, 7.6), dpi=90, layout="constrained")
    panels = list(grid.flat)
    shown: set[str] = set()
    for axes, metric in zip(panels[:-1], metric_order(run), strict=False):
        dots = _dots(run, metric, families)
        _draw(axes, dots, marks)
        shown |= {dot.family for dot in dots}
    for axes in panels[len(metric_order(run)) :]:
        axes.axis("off")
    _legend(panels[-1], {family: mark for family, mark in marks.items() if family in shown})
    figure.suptitle(
        f"{run.spec.get('title')}: N = {run.spec.get('samples')}, 95% intervals on the front, black edges: accelerators on it",
        fontsize=11,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def _dots(run: Run, metric: str, families: Mapping[str, str]) -> list[Dot]:
    """All methods with this score, cheapest first."""
    found = []
    for record in run.methods:
        family = PLAIN if plain_pipeline(run, record.label) else families.get(record.spec)
        score = score_of(run, record.label, metric)
        if family and isinstance(score, Score):
            found.append(Dot(record.label, family, record.block_evaluations or 0.0, score))
    return sorted(found, key=lambda dot: dot.cost)


def _draw(axes: Axes, dots: list[Dot], marks: Mapping[str, tuple[str, str]]) -> None:
    if not dots:
        axes.axis("off")
        return
    score = dots[0].score
    front = [dots[i] for i in pareto_front([d.cost for d in dots], [d.score.value for d in dots], score.direction)]
    low, high = _limits(dots, front)
    axes.plot([d.cost for d in front], [d.score.value for d in front], drawstyle="steps-post", color=GREY, lw=0.9, zorder=1)
    for dot in dots:
        on_front, (colour, marker) = dot in front, marks.get(dot.family, (INK_LIGHT, "o"))
        value = min(max(dot.score.value, low), high)
        small = dot.family == PLAIN
        axes.plot(
            dot.cost,
            value,
            marker,
            color=colour,
            ms=(3.2 if small else 6.5),
            mec="black" if on_front and not small else "white",
            mew=1.2 if on_front and not small else 0.5,
            zorder=3 + on_front,
            alpha=1.0 if on_front or small else 0.75,
        )
        if on_front:
            interval = mean_interval(dot.score.influence)
            axes.vlines(dot.cost, interval.low, interval.high, color=colour, lw=1.0, zorder=2)
    off = sum(not low <= dot.score.value <= high for dot in dots)
    axes.set_title(f"{score.title}, {score.direction} is better", fontsize=8)
    axes.set_xlabel("block evaluations per image" + (f"\n{off} off the scale, drawn at its edge" if off else ""), fontsize=7)
    axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    axes.tick_params(labelsize=7)
    axes.grid(color=FAINT, lw=0.5)


def _limits(dots: list[Dot], front: list[Dot]) -> tuple[float, float]:
    """The front's range and a bit more: methods far behind it would squeeze all others together."""
    values, everything = [dot.score.value for dot in front], [dot.score.value for dot in dots]
    room = BEYOND * (max(values) - min(values) or 1.0)
    return max(min(values) - room, min(everything)), min(max(values) + room, max(everything))


def _legend(axes: Axes, marks: Mapping[str, tuple[str, str]]) -> None:
    axes.plot([], [], "o", color=INK_LIGHT, ms=3.2, label=f"{PLAIN} ({BASELINE} among them)")
    axes.plot([], [], color=GREY, lw=0.9, label="Pareto front")
    for family, (colour, marker) in marks.items():
        axes.plot([], [], marker, color=colour, ms=6.5, mec="white", mew=0.5, label=family)
    axes.legend(loc="center", fontsize=7, ncols=2, frameon=False)
