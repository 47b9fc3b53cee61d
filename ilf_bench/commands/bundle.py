"""``ilf-bench bundle``: all records of a run in one archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ilf_bench.console import print_line
from ilf_bench.options import WRITTEN, split


def bundle(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    target: Annotated[Path | None, typer.Argument(**WRITTEN, help="The archive; default: RUN.zip here.")] = None,
    images: Annotated[bool, typer.Option("--images", help="Include the images.")] = False,
    without: Annotated[str | None, typer.Option(help="Leave out, comma-separated: prompts, command, plugins, paths.")] = None,
) -> None:
    """Pack all records of a run into one archive with a digest over all of it."""
    from harness.history.bundle import write_bundle

    path = target if target is not None else Path(f"{run.resolve().name}.zip")
    digest = write_bundle(run, path, images, split(without) or ())
    print_line(f"bundle: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    print_line(f"digest: {digest}")
