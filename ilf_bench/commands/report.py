"""``ilf-bench report``: a run's page, table and figures, once more from its records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.errors import UsageError
from ilf_bench.console import print_line
from ilf_bench.options import WRITTEN, RunFolder


def report(
    run: RunFolder,
    out: Annotated[
        Path | None,
        typer.Option(**WRITTEN, help="Folder for the report, for example of a run that may only be read."),
    ] = None,
) -> None:
    """Rebuild the report of a run from its stored records; write its LaTeX table and vector figures."""
    from harness.storage.layout import Layout
    from harness.storage.locations import can_write, is_local
    from harness.storage.records import read_run
    from reports.render.build import build_paper, build_report

    folder = Layout(run).report if out is None else out
    if is_local(folder) and not can_write(folder):
        raise UsageError(expected=f"a report in {folder}", got="a folder that may only be read", remedy="--out FOLDER")
    known = read_run(run)
    print_line(f"report: {build_report(known, out)}")
    print_line(f"paper:  {build_paper(known, out)}")
