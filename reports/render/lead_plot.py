"""The large plot of a report: speed-up against one metric, every drawn point named beside it or by a leader line.

Of a curve of fewer steps the last point shows its whole name; the first one and the one that the sentence above names show their
number of steps, and the others theirs where the plot is not crowded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup

from harness.results import BASELINE, Score
from harness.storage.records import Run
from reports.analysis.overview import Line, Overview
from reports.analysis.select import noise_spread, plain_pipeline, score_of
from reports.render.cells import Column
from reports.render.label_places import PITCH, Labels, as_boxes
from reports.render.style import Look, looks
from reports.render.svg import Box, Scale, mark, shorten, tick_text
from reports.render.tables import score_cell

LEFT, RIGHT, TOP, BOTTOM = 54, 14, 26, 40
MOST = 30  # accelerators, and rows of plain steps, that are drawn at most: the fastest
LETTERS = 26
NEAR = 60  # pixels between the marker and the label of a row of fewer steps at most: the table names those without one, too


@dataclass(frozen=True)
class Frame:
    """The drawing's size in pixels, axes and their texts included."""

    width: int
    height: int

    @property
    def right(self) -> int:
        """Where the axes end."""
        return self.width - RIGHT

    @property
    def floor(self) -> int:
        """Where the lower axis lies."""
        return self.height - BOTTOM


WIDE_FRAME, NARROW_FRAME = Frame(620, 300), Frame(390, 276)


@dataclass(frozen=True)
class Named:
    """A point of the plot: pixels of its marker and of its intervals, and what its tooltip says."""

    label: str
    number: int
    look: Look
    is_plain: bool
    x: float
    y: float
    bars: tuple[Box, ...]
    text: str
    told: bool


def lead_plot(
    run: Run, found: Overview, metric: Column, numbers: Mapping[str, int], frame: Frame, told: str = ""
) -> Markup | None:
    """Speed-up (higher is faster) against ``metric``; None where fewer than two methods have both. ``told``: in the sentence."""
    lines = [line for line in found.lines if line.speed_up and isinstance(score_of(run, line.label, metric.key), Score)]
    if len(lines) < 2:
        return None
    plain = sorted((line for line in lines if line.is_plain), key=lambda line: line.label != BASELINE)
    drawn = [line for line in lines if not line.is_plain][:MOST] + plain[:MOST]
    cells = {line.label: score_cell(score_of(run, line.label, metric.key), metric) for line in drawn}
    across = _across(drawn, frame)
    ends = [v for cell in cells.values() for v in (cell.value, cell.low, cell.high) if v is not None and math.isfinite(v)]
    margin = 0.1 * (max(ends) - min(ends)) or 0.1 * abs(ends[0]) or 1.0
    upward = Scale(min(ends) - margin, max(ends) + margin, frame.floor, TOP)
    style = looks(run)
    points = []
    for line in drawn:
        cell, speed = cells[line.label], line.speed_up
        assert cell.value is not None and speed is not None
        x, y = across(speed.value), upward(cell.value)
        bars = [(across(_within(speed.low, across)), y, across(_within(speed.high, across)), y)]
        if cell.low is not None and cell.high is not None and math.isfinite(cell.high - cell.low):
            bars.append((x, upward(cell.high), x, upward(cell.low)))
        text = f"{line.label}\n{metric.title} {cell.text}\n{speed.value:.2f}× the full run's speed"
        look, number = style[line.label], numbers[line.label]
        points.append(Named(line.label, number, look, line.is_plain, x, y, tuple(bars), text, line.label == told))
    curves = _curves(run, points)
    body = [_axes(metric, across, upward, found.timed, frame), _band(run, across, found.timed, frame), _drawn(curves)]
    body += [_point(point) for point in sorted(points, key=lambda point: not point.is_plain)]
    body.append(_labels(points, curves, _names(run, points, curves), frame))
    alt = f"{metric.title} against speed-up for {len(points)} methods. " + "; ".join(p.text.replace("\n", ", ") for p in points)
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        frame.width, frame.height, alt, Markup().join(body)
    )


def _across(lines: Sequence[Line], frame: Frame) -> Scale:
    """Logarithmic, because speed-ups are ratios; from a little below the slowest to a little above the fastest."""
    values = [line.speed_up.value for line in lines if line.speed_up]
    return Scale(min(*values, 1.0) / 1.12, max(*values, 1.0) * 1.22, LEFT, frame.right, log=True)


def _within(value: float, scale: Scale) -> float:
    return min(max(value, scale.low), scale.high)


def _ticks(scale: Scale) -> list[float]:
    candidates = (0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50)
    inside = [value for value in candidates if scale.low <= value <= scale.high]
    kept: list[float] = []
    for value in inside:
        if not kept or scale(value) - scale(kept[-1]) >= 34:
            kept.append(value)
    return kept


def _axes(metric: Column, across: Scale, upward: Scale, timed: bool, frame: Frame) -> Markup:
    floor = frame.floor
    xs = [
        Markup(
            '<path class="gl" d="M{0:.1f} {1}V{2}"/><text class="tk" x="{0:.1f}" y="{3}" text-anchor="middle">{4}×</text>'
        ).format(across(t), TOP, floor, floor + 15, tick_text(t))
        for t in _ticks(across)
    ]
    ys = [
        Markup('<path class="gl" d="M{1} {0:.1f}H{2}"/><text class="tk" x="{3}" y="{4:.1f}" text-anchor="end">{5}</text>').format(
            upward(t), LEFT, frame.right, LEFT - 6, upward(t) + 3.5, tick_text(t)
        )
        for t in upward.ticks
    ]
    what = "speed-up over the full run, end to end" if timed else "speed-up over the full run in block evaluations"
    arrow = "↑" if metric.direction == "higher" else "↓"
    unit = f" ({metric.unit})" if metric.unit else ""
    texts = Markup(
        '<text class="ax" x="{}" y="{}" text-anchor="end">{} →</text><text class="ax" x="4" y="14">{}{} {}</text>'
    ).format(frame.right, frame.height - 8, what, metric.title, unit, arrow)
    return Markup().join([*xs, *ys, texts])


def _band(run: Run, across: Scale, timed: bool, frame: Frame) -> Markup:
    spread = noise_spread(run)
    if not timed or spread is None:
        return Markup()
    left, right = across(_within(1 / (1 + spread), across)), across(_within(1 + spread, across))
    return Markup('<rect class="band" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>').format(
        left, TOP, max(right - left, 1), frame.floor - TOP
    )


def _curves(run: Run, points: Sequence[Named]) -> list[list[Named]]:
    """The rows of each solver by speed: fewer and fewer of its steps, the full run among the preset's own."""
    curves: dict[str, list[Named]] = {}
    for point in sorted(points, key=lambda point: point.x):
        plain = plain_pipeline(run, point.label)
        if plain is not None:
            curves.setdefault(plain.solver, []).append(point)
    return [row for row in curves.values() if len(row) > 1]


def _drawn(curves: Sequence[Sequence[Named]]) -> Markup:
    paths = ("M" + "L".join(f"{p.x:.1f} {p.y:.1f}" for p in row) for row in curves)
    return Markup().join(Markup('<path class="curve" d="{}"/>').format(path) for path in paths)


def _point(point: Named) -> Markup:
    bars = "".join(f"M{left:.1f} {top:.1f}L{right:.1f} {bottom:.1f}" for left, top, right, bottom in point.bars)
    css = " plain" if _is_fewer(point) else ""
    return Markup('<g class="pt h{}{}" data-m="{}"><title>{}</title><path class="ci" d="{}"/>{}</g>').format(
        point.look.hue, css, point.number, point.text, bars, mark(point.look, point.x, point.y)
    )


def _names(run: Run, points: Sequence[Named], curves: Sequence[Sequence[Named]]) -> dict[str, str]:
    """What stands beside each marker."""
    names = {point.label: _lines(point) for point in points}
    for curve in curves:
        for point in curve[:-1]:
            plain = plain_pipeline(run, point.label)
            if plain is not None and point.label != BASELINE:
                names[point.label] = str(plain.steps)
    return names


def _lines(point: Named) -> str:
    """A label's own words, those of a row of fewer steps in a line for each of its parts."""
    parts = point.label.split(" + ") if _is_fewer(point) else [point.label]
    return " +\n".join(shorten(part, LETTERS) for part in parts)


def _labels(points: Sequence[Named], curves: Sequence[Sequence[Named]], names: Mapping[str, str], frame: Frame) -> Markup:
    """Accelerators, then the ends of curves, with a leader line where its marker is not plainly the nearest; then the rest."""
    pieces = [(a.x, a.y, b.x, b.y) for row in curves for a, b in pairwise(row)]
    labels = Labels(
        np.array([(point.x, point.y) for point in points]),
        as_boxes([bar for point in points for bar in point.bars]),
        as_boxes(pieces),
        (LEFT + 2, TOP, frame.width - 2, frame.floor),
    )
    found, inner = Markup(), {point.label for row in curves for point in row[1:-1] if _is_fewer(point) and not point.told}
    for index in sorted(range(len(points)), key=lambda i: (points[i].label in inner, _is_fewer(points[i]), -points[i].x)):
        point, text = points[index], names[points[index].label]
        farthest = [NEAR] if _is_fewer(point) else []
        place = labels.place(index, text, *farthest, tidy=point.label in inner)
        if place is None:
            continue  # no room: its tooltip and the table name it
        if place.leader is not None:
            line = Markup('<path class="leader" data-m="{}" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>')
            found += line.format(point.number, *place.leader)
        css = "lb plain" if _is_fewer(point) else f"lb h{point.look.hue}"
        found += Markup('<text class="{}" data-m="{}">{}</text>').format(css, point.number, _spans(text, place.box, point.x))
    return found


def _spans(text: str, box: Box, x: float) -> Markup:
    """The lines of a label, each of which begins or ends at the side of its box that faces the marker at ``x``."""
    lines = text.split("\n")
    left, _, right, bottom = box
    at, anchor = (right, "end") if right <= x else (left, "start") if left >= x else ((left + right) / 2, "middle")
    span = Markup('<tspan x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</tspan>')
    heights = (bottom - 3 - PITCH * below for below in reversed(range(len(lines))))
    return Markup(" ").join(span.format(at, height, anchor, line) for height, line in zip(heights, lines, strict=True))


def _is_fewer(point: Named) -> bool:
    """Whether it is a row of fewer steps, which stands back behind the full run and the accelerators."""
    return point.is_plain and point.label != BASELINE
