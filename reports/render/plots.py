"""What the plots show, as data: the page draws it as interactive SVG, the paper's figures with matplotlib."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harness.results import BASELINE
from harness.storage.records import Run
from reports.analysis.pareto import pareto_front
from reports.analysis.select import STAGES, example_score, noise_spread
from reports.format import number
from reports.render.cells import Cell, Column, Row, Table
from reports.render.style import Look, looks

LOG_FROM = 6.0  # a logarithmic cost axis once the dearest method costs this many times the cheapest
DRAWN = 60  # with more methods than this a plot shows those that the fewest others beat


@dataclass(frozen=True)
class CostAxis:
    """A cost that methods can be plotted against."""

    key: str
    title: str
    short: str


SECONDS_AXIS = CostAxis("latency_s", "seconds per image (median; bar: middle half of the rounds)", "seconds")
BLOCK_AXIS = CostAxis("block_evaluations", "block evaluations per image", "block evaluations")
COST_AXES = (SECONDS_AXIS, BLOCK_AXIS)


@dataclass(frozen=True)
class Marker:
    """A method in a plot. ``low`` and ``high`` bound its 95% interval and are None where there is none."""

    label: str
    kind: str
    look: Look
    cost: float
    cost_low: float
    cost_high: float
    value: float
    low: float | None
    high: float | None
    text: str


@dataclass(frozen=True)
class Plot:
    """One metric against one cost. ``front`` indexes ``points``, cheapest first; ``band`` is the A/A noise floor in cost."""

    name: str
    metric: Column
    tiny: bool
    axis: CostAxis
    points: tuple[Marker, ...]
    front: tuple[int, ...]
    band: tuple[float, float] | None
    missing: tuple[str, ...]
    left_out: int

    @property
    def title(self) -> str:
        """``FID against seconds``."""
        return f"{self.metric.title} against {self.axis.short}"

    @property
    def log_cost(self) -> bool:
        """Whether the cost axis is logarithmic."""
        low, high = min(p.cost_low for p in self.points), max(p.cost_high for p in self.points)
        return low > 0 and high / low >= LOG_FROM

    @property
    def alt(self) -> str:
        """What the plot shows, in words."""
        front = ", ".join(self.points[i].label for i in self.front)
        text = f"{self.title} for {len(self.points)} methods, {self.metric.direction} is better."
        text += f" Pareto front: {front}." if front else ""
        return text + (f" Without a value: {', '.join(self.missing)}." if self.missing else "")

    @property
    def caption(self) -> str:
        """How to read it."""
        parts = [f"{self.title}. Upright bars: 95% interval over images. Line: Pareto front."]
        if self.band:
            parts.append("Grey band: two timings of the full run (A/A) differ by as much.")
        if self.left_out:
            parts.append(f"{self.left_out:,} methods farther from the front are not drawn; the tables have them.")
        return " ".join(parts)


def speed_plots(run: Run, table: Table) -> list[Plot]:
    """A plot for each cost axis and metric that at least one method has both numbers of."""
    return [plot for axis in COST_AXES for metric in table.metrics if (plot := _plot(run, table, metric, axis))]


def _plot(run: Run, table: Table, metric: Column, axis: CostAxis) -> Plot | None:
    style = looks(run)
    rows = [row for row in table.rows if row.kind != "noise floor"]
    found = [p for row in rows if (p := _point(row, style[row.label], metric, axis)) is not None]
    if not found:
        return None
    points = _nearest(found, metric)
    placed = {point.label for point in found}
    missing = tuple(row.label for row in rows if row.label not in placed)
    example = example_score(run, metric.key)
    return Plot(
        f"{metric.key}-{axis.short.split()[0]}",
        metric,
        example is not None and example.tiny,
        axis,
        tuple(points),
        tuple(_front(points, metric)),
        _band(run, axis, points),
        missing,
        len(found) - len(points),
    )


def _point(row: Row, look: Look, metric: Column, axis: CostAxis) -> Marker | None:
    cost, score = row.cells.get(axis.key), row.cells.get(metric.key)
    if cost is None or score is None or cost.value is None or score.value is None:
        return None
    low, high = _finite(score.low), _finite(score.high)
    text = f"{row.label}\n{metric.title} {score.text}\n{_costs(row)}"
    return Marker(
        row.label,
        row.kind,
        look,
        cost.value,
        cost.value if cost.low is None else cost.low,
        cost.value if cost.high is None else cost.high,
        score.value,
        low,
        high,
        text,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _costs(row: Row) -> str:
    cells: list[tuple[Cell | None, str]] = [
        (row.cells.get("latency_s"), " per image"),
        (row.cells.get("block_evaluations"), " block evaluations"),
    ]
    costs = "; ".join(f"{cell.text}{unit}" for cell, unit in cells if cell is not None and cell.value is not None)
    throttled = row.cells.get("throttled")
    return f"{costs}; throttled calls {throttled.text}" if throttled is not None and throttled.value else costs


def _front(points: list[Marker], metric: Column) -> list[int]:
    return pareto_front([p.cost for p in points], [p.value for p in points], "lower" if metric.direction == "lower" else "higher")


def _nearest(points: list[Marker], metric: Column) -> list[Marker]:
    """All of up to DRAWN points; of more, the plain pipeline's rows and those that the fewest others beat."""
    if len(points) <= DRAWN:
        return points
    cost = np.array([p.cost for p in points])
    loss = np.array([p.value for p in points]) * (1 if metric.direction == "lower" else -1)
    beaten_by = ((cost <= cost[:, None]) & (loss <= loss[:, None])).sum(axis=1)
    plain = np.array([p.kind in ("full", "fewer steps") for p in points])
    kept = sorted(np.lexsort((beaten_by, ~plain))[:DRAWN])
    return [points[i] for i in kept]


def _band(run: Run, axis: CostAxis, points: list[Marker]) -> tuple[float, float] | None:
    spread, full = noise_spread(run), next((p.cost for p in points if p.label == BASELINE), None)
    if axis.key != "latency_s" or spread is None or full is None:
        return None
    return full * (1 - spread), full * (1 + spread)


@dataclass(frozen=True)
class Stages:
    """Median seconds per image of each stage, by method."""

    times: dict[str, tuple[float, ...]]

    @property
    def alt(self) -> str:
        """Every number of the figure."""
        rows = (
            f"{label}: " + ", ".join(f"{s} {number(t)}" for s, t in zip(STAGES, ts, strict=True))
            for label, ts in self.times.items()
        )
        return "Median seconds per image by stage. " + "; ".join(rows) + "."


def stage_plot(table: Table) -> Stages | None:
    """None where nothing was timed; with many methods, the first DRAWN."""
    rows = [row for row in table.rows if all(row.cells[f"{s}_s"].value is not None for s in STAGES)]
    return Stages({row.label: tuple(row.cells[f"{s}_s"].value or 0.0 for s in STAGES) for row in rows[:DRAWN]}) if rows else None
