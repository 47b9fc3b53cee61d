"""``ilf-bench compare``: what changed between two runs."""

from __future__ import annotations

from typing import Annotated

import typer

from ilf_bench.console import console, print_whole
from ilf_bench.options import DEFAULT_OUT, Out


def compare(
    a: Annotated[str, typer.Argument(help="A run folder, run id, commit or tag.")],
    b: Annotated[str, typer.Argument(help="The same for the other run.")],
    details: Annotated[bool, typer.Option("--details", help="One line a check, with its interval.")] = False,
    out: Out = DEFAULT_OUT,
) -> None:
    """Show what changed from run A to run B: speed, memory and every score."""
    from ilf_bench.lookup import find_run, open_history, recorded
    from reports.analysis.spread import repeated_spreads
    from reports.render.versus import versus, versus_parts

    history = open_history(out)
    first, second = find_run(history, a), find_run(history, b)
    rows = versus(first, second, repeated_spreads(recorded(history), first, second))
    for part in versus_parts(first, second, rows, details=details):
        print_whole(console, part)
