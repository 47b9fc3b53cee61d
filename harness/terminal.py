"""A terminal that shows what it is given: no control character is obeyed, and square brackets are no markup."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.text import Text

from harness.text import one_line, visible


def terminal_text(text: str) -> Text:
    """A cell or a title on one line; labels, reasons and titles from records pass through here."""
    return Text(one_line(text))


class _Visible:
    """What another renderable shows, with every control character written as an escape."""

    def __init__(self, shown: ConsoleRenderable) -> None:
        self.shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.shown, options):
            lines = segment.text.split("\n")
            yield segment if segment.control else Segment("\n".join(map(visible, lines)), segment.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self.shown)


class _Escaping(RenderHook):
    """Nothing that is printed, wherever it came from, moves the cursor or speaks to the terminal."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Called by rich with whatever is to be printed."""
        return [_Visible(shown) for shown in renderables]


def make_console(**options: Any) -> Console:
    """A console that escapes control characters, and takes no markup from a text; a notebook gets plain lines, as a log does."""
    notebook = {"force_jupyter": False, "force_terminal": False} if "ipykernel" in sys.modules else {}
    made = Console(**{"markup": False, "highlight": False, **notebook, **options})
    made.push_render_hook(_Escaping())
    return made
