"""Build every report of one run."""

from __future__ import annotations

from pathlib import Path

from harness.records import read_run, write_bytes
from reports.figures import speed_figures, stage_figure
from reports.grid import sample_grid
from reports.html import html_report
from reports.markdown import csv_report, markdown_report
from reports.tables import comparison_table


def build_report(run_path: Path, out: Path | None = None) -> Path:
    """Write index.html, report.md, report.csv and figures/ into ``out`` (RUN/report) and return the path of the page.

    Each file is written under a temporary name and renamed; the page comes last. A partial run is reported as partial.
    Raises :class:`harness.errors.ArtifactError` where the run cannot be read.
    """
    run = read_run(run_path)
    folder = out if out is not None else run.path / "report"
    table = comparison_table(run)
    stages = stage_figure(run, table)
    pictures = [*speed_figures(run, table), *([stages] if stages else [])]
    grid = sample_grid(run)
    for picture in pictures:
        write_bytes(folder / "figures" / f"{picture.name}.png", picture.png)
        write_bytes(folder / "figures" / f"{picture.name}.svg", picture.svg)
    if grid:
        write_bytes(folder / "figures" / "samples.png", grid.png)
    write_bytes(folder / "report.md", markdown_report(run).encode())
    write_bytes(folder / "report.csv", csv_report(table).encode())
    page = folder / "index.html"
    write_bytes(page, html_report(run, table, pictures, grid).encode())
    return page
