"""Plots as inline SVG: one drawing for light and dark, because colours are classes of the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup
from matplotlib.ticker import LogLocator, MaxNLocator

from harness.text import without_credentials
from reports.analysis.select import STAGES
from reports.format import number
from reports.render.plots import Marker, Plot, Stages
from reports.render.style import Look, marker_path

WIDTH, HEIGHT = 390, 310
LEFT, RIGHT, TOP, BOTTOM = 50, 10, 24, 42
RADIUS, LETTER, LINE = 4.6, 5.7, 11  # marker; width of an average letter; height of a line
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
PLACES = (
    (8, 3, "start"),
    (-8, 3, "end"),
    (0, -9, "middle"),
    (0, 17, "middle"),
    (7, -6, "start"),
    (-7, -6, "end"),
    (7, 14, "start"),
    (-7, 14, "end"),
)
BAR, NAMES = 19, 150  # a row of the stage figure, and the width of its labels


@dataclass(frozen=True)
class Scale:
    """Data to pixels, linear or logarithmic, with its tick values."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of ``value``."""
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """Round values inside the axis."""
        locator = LogLocator(subs=(1.0, 2.0, 5.0)) if self.log else MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
        return [float(t) for t in locator.tick_values(self.low, self.high) if self.low <= t <= self.high]


def cost_scale(plot: Plot) -> Scale:
    """From zero, or logarithmic where costs differ much."""
    low, high = min(p.cost_low for p in plot.points), max(p.cost_high for p in plot.points)
    if plot.log_cost:
        return Scale(low / 1.15, high * 1.15, LEFT, WIDTH - RIGHT, log=True)
    return Scale(0, (high or 1.0) * 1.08, LEFT, WIDTH - RIGHT)


def value_scale(plot: Plot) -> Scale:
    """Over all values and finite intervals, with a margin."""
    ends = [v for p in plot.points for v in (p.value, p.low, p.high) if v is not None]
    margin = 0.07 * (max(ends) - min(ends)) or 0.1 * abs(ends[0]) or 1.0
    return Scale(min(ends) - margin, max(ends) + margin, HEIGHT - BOTTOM, TOP)


def symbols(looks: Iterable[Look]) -> Markup:
    """The definitions that every plot's markers refer to."""
    paths = {look.marker: marker_path(look.marker, RADIUS) for look in looks}
    return _join('<path id="mk-{}" d="{}"/>', ((_code(marker), path) for marker, path in sorted(paths.items())))


def mark(look: Look, x: float = 0, y: float = 0) -> Markup:
    """One marker; its colour is the class of its hue."""
    return Markup('<use href="#mk-{}" x="{:.1f}" y="{:.1f}" class="mk{} h{}"/>').format(
        _code(look.marker), x, y, " hollow" if look.hollow else "", look.hue
    )


def _code(marker: str) -> str:
    return str(ord(marker))


def plot_svg(plot: Plot, numbers: Mapping[str, int]) -> Markup:
    """One plot. ``numbers`` gives each method's number in the page, by which its controls find it."""
    across, upward = cost_scale(plot), value_scale(plot)
    body = [_axes(plot, across, upward), _band(plot, across), _front(plot, across, upward)]
    body += [_point(point, numbers[point.label], across, upward) for point in plot.points]
    body.append(_labels(plot, numbers, across, upward))
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, plot.alt, Markup().join(body)
    )


def _axes(plot: Plot, across: Scale, upward: Scale) -> Markup:
    unit = f" ({plot.metric.unit})" if plot.metric.unit else ""
    better = "↖ better" if plot.metric.direction == "higher" else "↙ better"
    xs = _join(
        '<path class="gl" d="M{0:.1f} {1}V{2}"/><text class="tk" x="{0:.1f}" y="{3}" text-anchor="middle">{4}</text>',
        ((across(t), TOP, HEIGHT - BOTTOM, HEIGHT - BOTTOM + 14, tick_text(t)) for t in across.ticks),
    )
    ys = _join(
        '<path class="gl" d="M{1} {0:.1f}H{2}"/><text class="tk" x="{3}" y="{4:.1f}" text-anchor="end">{5}</text>',
        ((upward(t), LEFT, WIDTH - RIGHT, LEFT - 5, upward(t) + 3.5, tick_text(t)) for t in upward.ticks),
    )
    texts = Markup(
        '<text class="ax" x="{}" y="{}" text-anchor="end">{}</text><text class="ax" x="4" y="14">{}{}</text>'
        '<text class="ax" x="{}" y="14" text-anchor="end">{}</text>'
    ).format(WIDTH - RIGHT, HEIGHT - 12, plot.axis.title, plot.metric.title, unit, WIDTH - RIGHT, better)
    return xs + ys + texts


def tick_text(value: float) -> str:
    """A number beside an axis, with a true minus sign."""
    return f"{value:g}".replace("-", "−")


def _band(plot: Plot, across: Scale) -> Markup:
    if plot.band is None:
        return Markup()
    low, high = (min(max(across(v), LEFT), WIDTH - RIGHT) if v > 0 else LEFT for v in plot.band)
    return Markup('<rect class="band" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>').format(
        low, TOP, max(high - low, 1), HEIGHT - BOTTOM - TOP
    )


def _front(plot: Plot, across: Scale, upward: Scale) -> Markup:
    """A staircase: between two points of the front one can only have the cheaper one's value."""
    steps = [(across(plot.points[i].cost), upward(plot.points[i].value)) for i in plot.front]
    if not steps:
        return Markup()
    path = f"M{steps[0][0]:.1f} {steps[0][1]:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in steps[1:]) + f"H{WIDTH - RIGHT}"
    return Markup('<path class="front" d="{}"/>').format(path)


def _point(point: Marker, number_: int, across: Scale, upward: Scale) -> Markup:
    x, y = across(point.cost), upward(point.value)
    bars = "".join(f"M{left:.1f} {top:.1f}L{right:.1f} {bottom:.1f}" for left, top, right, bottom in _bars(point, across, upward))
    return Markup('<g class="pt h{}" data-m="{}"><title>{}</title><path class="ci" d="{}"/>{}</g>').format(
        point.look.hue, number_, point.text, bars, mark(point.look, x, y)
    )


def _bars(point: Marker, across: Scale, upward: Scale) -> list[Box]:
    """The intervals of a point as lines: along the cost, and along the value where it has an interval."""
    x, y = across(point.cost), upward(point.value)
    lines = [(across(point.cost_low), y, across(point.cost_high), y)]
    if point.low is not None and point.high is not None:
        lines.append((x, upward(point.high), x, upward(point.low)))
    return lines


def _labels(plot: Plot, numbers: Mapping[str, int], across: Scale, upward: Scale) -> Markup:
    """A label for as many points as have room, those on the front first; the rest are named on hover and in the legend."""
    at = [(across(p.cost), upward(p.value)) for p in plot.points]
    taken = [(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in at]
    lines = [bar for point in plot.points for bar in _bars(point, across, upward)] + _front_lines(plot, across, upward)
    found = Markup()
    for i in [*plot.front, *(i for i in range(len(at)) if i not in set(plot.front))]:
        text = shorten(plot.points[i].label, 24)
        places = [(at[i][0] + dx, at[i][1] + dy, anchor) for dx, dy, anchor in PLACES]
        free = [place for place in places if _inside(box := _box(place, text)) and not _hits(box, taken[:i] + taken[i + 1 :])]
        if free:
            x, y, anchor = min(free, key=lambda place: sum(overlap(_box(place, text), line) for line in lines))
            taken.append(_box((x, y, anchor), text))
            label = Markup('<text class="lb" data-m="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
            found += label.format(numbers[plot.points[i].label], x, y, anchor, text)
    return found


def _front_lines(plot: Plot, across: Scale, upward: Scale) -> list[Box]:
    steps = [(across(plot.points[i].cost), upward(plot.points[i].value)) for i in plot.front]
    ends = [*(x for x, _ in steps[1:]), WIDTH - RIGHT][: len(steps)]
    level = [(x, y, end, y) for (x, y), end in zip(steps, ends, strict=True)]
    upright = [(x, min(y, before), x, max(y, before)) for (_, before), (x, y) in pairwise(steps)]
    return level + upright


def _box(place: tuple[float, float, str], text: str) -> Box:
    x, y, anchor = place
    width = LETTER * len(text)
    left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    return left, y - LINE + 2, left + width, y + 2


def _inside(box: Box) -> bool:
    return box[0] >= LEFT and box[1] >= TOP and box[2] <= WIDTH - 2 and box[3] <= HEIGHT - BOTTOM


def _hits(box: Box, others: list[Box]) -> bool:
    return any(overlap(box, other) for other in others)


def overlap(a: Box, b: Box) -> bool:
    """Whether two boxes meet; a line is a box without width."""
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def shorten(text: str, most: int) -> str:
    """At most ``most`` characters; what is cut becomes an ellipsis in the middle, because ends of labels differ, too.

    Credentials go first: cut in two they would not be found in the whole page.
    """
    text = without_credentials(text)
    return text if len(text) <= most else f"{text[: most - most // 3 - 1]}…{text[-(most // 3) :]}"


def stages_svg(stages: Stages, numbers: Mapping[str, int]) -> Markup:
    """Stacked bars with the sum at their end."""
    longest = max(sum(times) for times in stages.times.values()) or 1.0
    across = Scale(0, longest * 1.2, NAMES, WIDTH - 4)
    rows = [
        _stage_row(label, times, numbers[label], 22 + BAR * i, across) for i, (label, times) in enumerate(stages.times.items())
    ]
    each = (WIDTH - 8) // len(STAGES)
    legend = _join(
        '<rect class="stage-{0}" x="{1}" y="4" width="10" height="10"/><text class="ax" x="{2}" y="13">{0}</text>',
        ((stage, 4 + each * i, 18 + each * i) for i, stage in enumerate(STAGES)),
    )
    height = 26 + BAR * len(rows)
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>').format(
        WIDTH, height, stages.alt, legend, Markup().join(rows)
    )


def _stage_row(label: str, times: tuple[float, ...], number_: int, y: float, across: Scale) -> Markup:
    bars, at = [], 0.0
    for stage, seconds in zip(STAGES, times, strict=True):
        bars.append((stage, across(at), y, across(at + seconds) - across(at), BAR - 5))
        at += seconds
    found = _join('<rect class="stage-{}" x="{:.1f}" y="{}" width="{:.2f}" height="{}"/>', bars)
    return Markup(
        '<g class="bar" data-m="{}"><title>{}</title><text class="tk" x="{}" y="{}" text-anchor="end">{}</text>{}'
        '<text class="lb" x="{:.1f}" y="{}">{}</text></g>'
    ).format(number_, label, NAMES - 5, y + 11, shorten(label, 26), found, across(at) + 4, y + 11, number(at))


def _join(template: str, rows: Iterable[tuple[object, ...]]) -> Markup:
    return Markup().join(Markup(template).format(*row) for row in rows)
