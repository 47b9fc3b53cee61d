"""Two runs side by side for a terminal: what went up or down, by how much, and whether it is distinguishable from noise."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from harness.errors import ArtifactError
from harness.storage.records import Run
from harness.terminal import terminal_text
from harness.text import one_line
from reports.analysis.changes import Missing
from reports.analysis.findings import Finding, findings, interval_of
from reports.analysis.spread import Spreads
from reports.format import interval_text, number

COLUMNS = ("method", "check", "A", "B", "B to A, 95% interval", "verdict")


def versus(a: Run, b: Run, spreads: Spreads | None = None) -> list[Finding | Missing]:
    """What changed from A to B. Raises :class:`ArtifactError` where nothing at all can be compared."""
    rows = findings(b, a, spreads or Spreads())
    if not any(isinstance(row, Finding) for row in rows):
        reasons = [row.reason for row in rows if isinstance(row, Missing)]
        raise ArtifactError(
            expected=f"two runs that can be compared, {a.path} and {b.path}",
            got=reasons[0] if reasons else "no method in A",
            remedy="choose runs of one experiment, on one machine, with the same scorers",
        )
    return rows


def versus_table(a: Run, b: Run, rows: Sequence[Finding | Missing]) -> Table:
    """One line a check. Names are Text, so that brackets in them are no markup."""
    table = Table(
        *COLUMNS,
        title=Text(f"A: {one_line(str(a.path))}\nB: {one_line(str(b.path))}"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for method, group in groupby(rows, key=lambda row: row.change.method if isinstance(row, Finding) else row.method):
        for row in group:
            table.add_row(*map(terminal_text, [method, *_cells(row)]))
        table.add_section()
    table.caption = Text(
        "Ratios for speed and memory, differences for scores. Better and worse: 5% one-sided, with Holm's correction over all"
        " checks and the history's own A/A spread."
    )
    return table


def _cells(row: Finding | Missing) -> list[str]:
    if isinstance(row, Missing):
        return [row.check, "–", "–", "–", f"not compared: {row.reason}"]
    change = row.change
    sign = "×" if change.is_ratio else ""
    exact = change.error == 0 or not np.isfinite(change.error)
    interval = interval_of(change)
    text = number(interval.value, 4) if exact else interval_text(interval, signed=not change.is_ratio)
    return [change.check, number(change.then), number(change.now), f"{sign}{text}", word(row)]


def word(row: Finding) -> str:
    """Better, worse, the same, or can't tell; where the error is unknown (memory measured once), up or down."""
    change = row.change
    if change.harm == 0 and change.error == 0:
        return "the same"
    if change.error == 0:
        return "up" if change.value > 0 else "down"
    return "worse" if row.is_loss else "better" if row.is_gain else "can't tell"
