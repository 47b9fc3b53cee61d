"""``ilf-bench import``: an exported history, read back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ilf_bench.console import print_line
from ilf_bench.options import DEFAULT_OUT, Out


def import_(
    source: Annotated[Path, typer.Argument(help="A file or folder written by `ilf-bench export`.")], out: Out = DEFAULT_OUT
) -> None:
    """Read an export into the history; existing runs are kept."""
    from harness.history.export import import_history
    from ilf_bench.lookup import open_history

    found = import_history(open_history(out), source)
    print_line(f"{found.runs} runs of {source} are in the history")
    if found.not_taken:
        tags = ", ".join(found.not_taken)
        print_line(f"tags that name other runs here stay with these: {tags}; move one with ilf-bench tag NAME RUN")
