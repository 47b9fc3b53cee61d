"""``ilf-bench score``: a folder of images that another program made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from harness.terminal import terminal_text
from ilf_bench.console import console
from ilf_bench.options import EXIT_PARTIAL, Plugins, Reference, Scorers, split


def score(
    folder: Annotated[Path, typer.Argument(help="Images that another program made.")],
    prompts: Annotated[Path, typer.Option(help="One prompt a line, in the order of the sorted file names.")],
    metrics: Annotated[
        str, typer.Option(help="Comma-separated; `ilf-bench list metrics`.")
    ] = "clip_score,clip_iqa,image_reward,fid",
    task: Annotated[str, typer.Option(help="text or class: which reference and features.")] = "text",
    scorers: Scorers = None,
    reference: Reference = None,
    plugins: Plugins = None,
) -> None:
    """Score a folder of images."""
    from ilf_bench.scoring import score_folder

    table = Table("metric", "value", "95% interval", "N")
    failed = False
    for row, good in score_folder(folder, prompts, split(metrics) or (), task, scorers, reference, plugins or ()):
        table.add_row(*map(terminal_text, row))
        failed |= not good
    console.print(table)
    raise typer.Exit(EXIT_PARTIAL if failed else 0)
