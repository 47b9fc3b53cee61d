"""Build every report of one run."""

from __future__ import annotations

from pathlib import Path

from harness.storage.files import refuse_link, write_bytes
from harness.storage.layout import Layout
from harness.storage.locations import inside
from harness.storage.records import Run, read_run
from reports.render.figures import paper_figures
from reports.render.gallery import gallery_page
from reports.render.grid import Sheet, paper_grid, sample_sheet, stored_samples
from reports.render.html import html_report, is_inline
from reports.render.latex import latex_table
from reports.render.markdown import csv_report, markdown_report
from reports.render.plots import speed_plots, stage_plot
from reports.render.tables import comparison_table


def build_report(run: Path | Run, out: Path | None = None) -> Path:
    """Write index.html, gallery.html, report.md and report.csv into ``out`` (RUN/report); return the path of the page.

    ``run`` is a run's folder, or the run where it has been read. Each file is written under a temporary name and renamed; the
    page comes last. A partial run is reported as partial. The gallery, which is left out where the run kept no images, refers to
    the run's own images. Raises :class:`harness.errors.ArtifactError` where the run cannot be read.
    """
    run = run if isinstance(run, Run) else read_run(run)
    folder = _folder(run, out)
    table, stored = comparison_table(run), stored_samples(run)
    sheet = sample_sheet(stored)
    write_bytes(folder / "report.md", markdown_report(run).encode())
    write_bytes(folder / "report.csv", csv_report(table).encode())
    if sheet and not is_inline(sheet):
        _write_thumbnails(folder, sheet)
    if stored:
        write_bytes(folder / "gallery.html", gallery_page(run, stored, folder).encode())
    page = folder / "index.html"
    write_bytes(page, html_report(run, table, speed_plots(run, table), stage_plot(table), stored, sheet).encode())
    return page


def _write_thumbnails(folder: Path, sheet: Sheet) -> None:
    for thumbnail in (thumbnail for row in sheet.rows.values() for thumbnail in row):
        write_bytes(inside(_below(folder, "thumbs"), thumbnail.name), thumbnail.content)


def build_paper(run: Path | Run, out: Path | None = None) -> Path:
    """Write what a paper needs into ``out``/paper (RUN/report/paper): table.tex, a PDF and an SVG a plot, samples.png.

    Returns that folder. Raises :class:`harness.errors.ArtifactError` where the run cannot be read.
    """
    run = run if isinstance(run, Run) else read_run(run)
    folder, table = _below(_folder(run, out), "paper"), comparison_table(run)
    for drawing in paper_figures(speed_plots(run, table)):
        write_bytes(inside(folder, f"{drawing.name}.pdf"), drawing.pdf)
        write_bytes(inside(folder, f"{drawing.name}.svg"), drawing.svg)
    if grid := paper_grid(stored_samples(run)):
        write_bytes(folder / "samples.png", grid)
    write_bytes(folder / "table.tex", latex_table(run, table).encode())
    return folder


def _folder(run: Run, out: Path | None) -> Path:
    return Path(out) if out is not None else Layout(run.path).report


def _below(folder: Path, name: str) -> Path:
    """A folder of ours in the report's. Raises :class:`harness.errors.ArtifactError` on a link, which somebody else has laid."""
    refuse_link(folder / name)
    return folder / name
