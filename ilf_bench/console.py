"""Printing to a terminal, a pipe or a log."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.terminal import make_console
from harness.text import one_line

console = make_console(width=None if sys.stdout.isatty() else 160)  # in a log or a pipe no table is squeezed to 80 columns
errors = make_console(stderr=True, soft_wrap=True)


def print_line(text: str, console: Console = console) -> None:
    """Print a text as one line, however long it is."""
    console.print(one_line(text, most=len(text) + 1), markup=False, highlight=False, soft_wrap=True)


def print_whole(console: Console, part: Table | Text) -> None:
    """Print a table as wide as its longest words need: rich cuts columns off where the terminal is narrower, digits and all."""
    needed = console.measure(part, options=console.options.update(max_width=10_000)).minimum
    shown = console if needed <= console.width else make_console(file=console.file, width=needed)
    shown.print(part)
