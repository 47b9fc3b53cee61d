"""Published numbers in words, for pages and terminal: what a right set-up should reproduce, and differences side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.config.anchors import Anchor, Protocol
from harness.statistics import Interval
from harness.storage.records import Run
from reports.analysis.published import PublishedNumber, anchors_of, published_for
from reports.analysis.reproduction import Beside, Disagreement, Reproduction, beside, reproductions

ANCHOR_HEAD = ("What", "Published", "Accepted", "Measured here", "Outcome", "Source")
BESIDE_HEAD = (
    "Method",
    "What",
    "Published, against its table's own baseline",
    "Measured here, against the full run",
    "Measured otherwise there",
    "Source",
)


@dataclass(frozen=True)
class Apart:
    """Everything that a report shows of other people's numbers, in cells of text."""

    numbers: tuple[PublishedNumber, ...]
    anchors: tuple[tuple[str, ...], ...]
    differences: tuple[tuple[str, ...], ...]
    strange: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.numbers or self.anchors or self.strange)


def apart(run: Run) -> Apart:
    """What was published for the run's preset."""
    numbers = published_for(run)
    anchors, strange = anchors_of(run)
    found = [anchor_cells(one) for one in reproductions(run, anchors)]
    return Apart(tuple(numbers), tuple(found), tuple(beside_cells(one) for one in beside(run, numbers)), tuple(strange))


def anchor_cells(one: Reproduction) -> tuple[str, ...]:
    """A row of :data:`ANCHOR_HEAD`."""
    anchor = one.anchor
    measured = "–" if one.measured is None else interval(one.measured)
    why = one.reason or "; ".join(difference.text for difference in one.disagreements)
    outcome = f"{one.outcome}: {why}" if why else one.outcome
    return anchor.title, published(anchor), accepted(anchor), measured, outcome, source(anchor.source, anchor)


def beside_cells(one: Beside) -> tuple[str, ...]:
    """A row of :data:`BESIDE_HEAD`."""
    number = one.number
    unit = "times as fast" if one.ratio else number.unit
    there = f"{one.published:.2f} {unit}" if one.ratio else f"{one.published:+.4g} {unit}".rstrip()
    here = "–" if one.ours is None else f"{interval(one.ours, signed=not one.ratio)} {unit}".rstrip()
    return number.label, number.title, there, here, others(one.disagreements), source(number.source, number.protocol)


def published(anchor: Anchor) -> str:
    """The number with its N."""
    value = "–" if anchor.value is None else f"{anchor.value:g}"
    return value if anchor.n is None else f"{value} at N = {anchor.n:,}"


def accepted(anchor: Anchor) -> str:
    """The window."""
    return "for orientation only" if anchor.window is None else f"{anchor.window[0]:g} to {anchor.window[1]:g}"


def interval(found: Interval, *, signed: bool = False) -> str:
    """A value with its 95% interval."""
    form = "{:+.4g}" if signed else "{:.4g}"
    return f"{form.format(found.value)} [{form.format(found.low)}, {form.format(found.high)}]"


def others(disagreements: Sequence[Disagreement]) -> str:
    """In what the published number was measured otherwise."""
    return "; ".join(one.text for one in disagreements) or "nothing that is stated"


def source(text: str, protocol: Protocol) -> str:
    """A source, and what it does not state."""
    missing = f"; not stated: {', '.join(protocol.unstated)}" if protocol.unstated else ""
    return f"{text}{missing}"
