"""Published numbers in words, for pages and terminal: what a right set-up should reproduce, and differences side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.config.anchors import Anchor, Protocol
from harness.statistics import Interval
from harness.storage.records import Run
from reports.analysis.published import PublishedNumber, anchors_of, published_for
from reports.analysis.reproduction import Beside, Disagreement, Reproduction, beside, difference, form_of, reproductions

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
class Sheet:
    """One published table in cells of text: its methods down, its metrics across, and in brackets what they differ by from its
    own baseline.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Apart:
    """Everything that a report shows of other people's numbers, in cells of text."""

    numbers: tuple[PublishedNumber, ...]
    sheets: tuple[Sheet, ...]
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
    both = [beside_cells(one) for one in beside(run, numbers) if one.label is not None]
    return Apart(tuple(numbers), tuple(sheets(numbers)), tuple(found), tuple(both), tuple(strange))


def sheets(numbers: Sequence[PublishedNumber]) -> list[Sheet]:
    """A sheet for each source."""
    return [_sheet([n for n in numbers if n.source == one]) for one in dict.fromkeys(n.source for n in numbers)]


def _sheet(numbers: Sequence[PublishedNumber]) -> Sheet:
    columns = {n.metric: f"{n.title}, {n.unit}".removesuffix(", ") for n in numbers}
    counted = any(n.block_evaluations is not None for n in numbers)
    cells = {(n.label, n.metric): _cell(n) for n in numbers}
    rows = []
    for label, one in {n.label: n for n in numbers}.items():
        blocks = () if not counted else ("–" if one.block_evaluations is None else f"{one.block_evaluations:g}",)
        name = f"{label}, the table's baseline" if one.is_baseline else label
        rows.append((name, *blocks, *(cells.get((label, metric), "–") for metric in columns)))
    first = numbers[0]
    head = ("Method", *(("Block evaluations",) if counted else ()), *columns.values())
    return Sheet(f"{first.source}{stated(first.protocol, ('backbone', 'steps', 'resolution'))}", head, tuple(rows))


def _cell(number: PublishedNumber) -> str:
    """The value, and behind it what it differs by from the baseline."""
    value, form = f"{number.value:g}", form_of(number)
    if number.is_baseline or form == "paired":
        return value
    return f"{value} ({difference(number):+.4g})" if form == "difference" else f"{value} ({difference(number):.4g} {form})"


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
    signed = one.form == "difference"
    unit = number.unit if one.form in ("difference", "paired") else one.form
    there = f"{one.published:{'+' if signed else ''}.4g} {unit}".rstrip()
    here = "–" if one.ours is None else f"{interval(one.ours, signed=signed)} {unit}".rstrip()
    method = f"{number.label}; here {one.label}"
    return method, number.title, there, here, others(one.disagreements), source(number.source, number.protocol)


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
    """A source, and what it does and does not state; the row of its table, where it is an anchor's."""
    row = f", row {protocol.baseline!r}" if isinstance(protocol, Anchor) else ""
    return f"{text}{row}{stated(protocol)}"


def stated(protocol: Protocol, without: Sequence[str] = ()) -> str:
    """What is stated of how a number was measured, and the names of the fields that are not; but for some."""
    known = [f"{name} {value}" for name, value in protocol.stated.items() if name not in without]
    missing = [name for name in protocol.unstated if name not in without]
    return (f"; {', '.join(known)}" if known else "") + (f"; not stated: {', '.join(missing)}" if missing else "")
