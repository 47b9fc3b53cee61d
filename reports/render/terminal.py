"""The comparison for a terminal: tables no wider than it, and a note for each score that is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from rich.cells import cell_len
from rich.table import Column as RichColumn
from rich.table import Table as RichTable
from rich.text import Text

from harness.storage.records import Run
from harness.terminal import terminal_text
from reports.analysis.select import has_tiny_scorers, run_notes
from reports.render.cells import Cell, Column, Row
from reports.render.markdown import heading
from reports.render.tables import comparison_table

SHOWN = ("block_evaluations", "latency_s", "speed_up")
SHORT = {"block_evaluations": "blocks", "latency_s": "s/image", "speed_up": "× full", "feature_distance": "distance"}
LABEL_SHARE = 0.4  # of the width, at most, for the names of methods; longer ones go on in a second line


@dataclass
class Notes:
    """Why scores are missing: one number for each reason, whichever cells have it."""

    numbers: dict[str, int] = field(default_factory=dict)
    cells: dict[str, list[str]] = field(default_factory=dict)

    def mark(self, reason: str, cell: str) -> str:
        """What stands in the cell instead of a number."""
        self.cells.setdefault(reason, []).append(cell)
        return f"({self.numbers.setdefault(reason, len(self.numbers) + 1)})"

    def lines(self) -> list[str]:
        """For example ``(1) PSNR of full: identical to the full run``."""
        return [f"({number}) {'; '.join(self.cells[reason])}: {reason}" for reason, number in self.numbers.items()]


def terminal_tables(run: Run, width: int) -> Iterator[RichTable | Text]:
    """Cost, time and speed-up of each method, then every metric, in as many tables as ``width`` needs, and the notes."""
    table, notes = comparison_table(run), Notes()
    columns = [c for c in table.columns if c.key in SHOWN] + list(table.metrics)
    texts = {column.key: [_text(column, row, notes) for row in table.rows] for column in columns}
    labels = [_label(row, notes) for row in table.rows]
    widths = {c.key: max(map(cell_len, (_heading(c), *texts[c.key]))) for c in columns}
    first = min(max(map(cell_len, (*labels, "method"))), max(16, int(width * LABEL_SHARE)))
    title = f"{run.spec['name']}: N = {run.spec['samples']}" + (" - TINY scorers" if has_tiny_scorers(run) else "")
    for group in split(columns, [widths[c.key] for c in columns], width - first - 2):
        headings = [RichColumn("method", width=first, overflow="fold")]
        headings += [RichColumn(header=terminal_text(_heading(column)), no_wrap=True) for column in group]
        shown = RichTable(*headings, title=terminal_text(title), padding=(0, 0), show_lines=False)
        for number, label in enumerate(labels):
            shown.add_row(terminal_text(label), *(terminal_text(texts[column.key][number]) for column in group))
        yield shown
    yield from map(terminal_text, (*notes.lines(), *run_notes(run)))


def split(columns: Sequence[Column], widths: Sequence[int], room: int) -> list[list[Column]]:
    """The columns in groups that each need no more than ``room``, with one sign of border; a group has at least one."""
    groups: list[list[Column]] = []
    left = 0
    for column, needed in zip(columns, widths, strict=True):
        if not groups or needed + 1 > left:
            groups.append([])
            left = room
        groups[-1].append(column)
        left -= needed + 1
    return groups


def _label(row: Row, notes: Notes) -> str:
    return f"{row.label} {notes.mark(row.failure, row.label)}" if row.failure else row.label


def _heading(column: Column) -> str:
    return heading(replace(column, title=_short_title(column)))


def _short_title(column: Column) -> str:
    """The table's own title says that the scorers are tiny."""
    return SHORT.get(column.key, column.title.replace(" (tiny)", "").replace(" to the full run", ""))


def _text(column: Column, row: Row, notes: Notes) -> str:
    """The bare number, whose interval and N are on the page, or the number of the note that says why there is none."""
    cell: Cell | None = row.cells.get(column.key)
    if cell is None:
        return "–"
    return notes.mark(cell.failure, f"{_short_title(column)} of {row.label}") if cell.failure else cell.text.split(" ")[0]
