"""Published numbers as plots of their own, with a mark of their own: what a run measured is never in them."""

from __future__ import annotations

from collections.abc import Sequence

from reports.analysis.published import PublishedNumber
from reports.render.cells import Column
from reports.render.plots import BLOCK_AXIS, Marker, Plot
from reports.render.style import PUBLISHED


def published_plots(numbers: Sequence[PublishedNumber]) -> list[Plot]:
    """A plot for each source and metric of two numbers or more, against block evaluations; no front, for nothing is ranked."""
    groups: dict[tuple[str, str], list[PublishedNumber]] = {}
    for number in numbers:
        if number.block_evaluations is not None:
            groups.setdefault((number.source, number.metric), []).append(number)
    return [_plot(group) for group in groups.values() if len(group) > 1]


def _plot(numbers: Sequence[PublishedNumber]) -> Plot:
    one = numbers[0]
    metric = Column(one.metric, one.title, one.unit, one.direction)
    points = tuple(_point(number) for number in numbers)
    return Plot(f"published-{one.metric}", metric, False, BLOCK_AXIS, points, (), None, (), 0)


def _point(number: PublishedNumber) -> Marker:
    cost = number.block_evaluations or 0.0
    unit = f" {number.unit}" if number.unit else ""
    text = f"{number.label}\n{number.title} {number.value:g}{unit}, {cost:g} block evaluations\n{number.source}"
    return Marker(number.label, "published", PUBLISHED, cost, cost, cost, number.value, None, None, text)
