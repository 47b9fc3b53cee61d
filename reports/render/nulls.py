"""The null controls beside every metric: what it says of images and prompts that are known to be wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

from harness.statistics.controls import CONTROLS, Separation, is_insensitive, separations
from harness.storage.records import Run
from reports.analysis.select import metric_order
from reports.format import interval_text
from reports.render.matrix import Entry, Head, Line, Matrix
from reports.render.words import title_of

WARNING = "does not distinguish a method from a null control: its scores mean nothing in this run"
MEANINGS = {
    "distinguished": "every method scores better than the control",
    "confused": "some method does not",
    "the same": "untouched copies, scored alike",
    "not read": "the metric does not look at what the control changes",
}


def null_matrix(run: Run) -> Matrix | None:
    """A row a control, a column a metric; None where the run has no controls."""
    if not run.controls:
        return None
    found = _separations(run)
    heads = tuple(Head(m, title_of(run, m), warning=WARNING if is_insensitive(seen) else "") for m, seen in found.items())
    lines = (Line(name, tuple(_entry(name, seen) for seen in found.values())) for name in CONTROLS)
    caption = (
        "Null controls, made from the full run's first images: how much worse each scores than the same images untouched, with "
        "its 95% interval. A metric must distinguish shuffled prompts, constant colours, noise and black from every method. "
        + " ".join(f"{word.capitalize()}: {meaning}." for word, meaning in MEANINGS.items())
    ).removesuffix(".")
    return Matrix(caption, "", heads, tuple(lines), "Null control")


def insensitive_metrics(run: Run) -> Mapping[str, str]:
    """The warning of every metric that confuses a method with a null control, by name."""
    if not run.controls:
        return {}
    return {metric: WARNING for metric, seen in _separations(run).items() if is_insensitive(seen)}


@lru_cache(maxsize=2)
def _separations(run: Run) -> Mapping[str, tuple[Separation, ...]]:
    """Of every metric, by name; they take a bootstrap for each method, and two parts of a report ask for them."""
    return {metric: separations(metric, run.scores, run.controls) for metric in metric_order(run)}


def _entry(name: str, seen: tuple[Separation, ...]) -> Entry:
    found = next(one for one in seen if one.control == name)
    shown = found.harm is not None and math.isfinite(found.harm.low) and found.verdict not in ("the same", "not read")
    text = "" if found.harm is None or not shown else interval_text(found.harm, signed=True)
    confused = f"confused with {', '.join(found.confused_with)}" if found.confused_with else ""
    return Entry(found.verdict, text, found.reason or confused or MEANINGS.get(found.verdict, ""))
