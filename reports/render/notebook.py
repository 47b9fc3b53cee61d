"""A run in a notebook: the first screen of its report in a frame, one plot, the images of a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from PIL.Image import Image

from harness.errors import UsageError, did_you_mean
from harness.storage.records import Run
from reports.analysis.overview import main_metric
from reports.analysis.select import Sample
from reports.render.figures import Drawing, paper_figures
from reports.render.grid import COLUMNS, PAPER_ROWS, choose, grid_of, sample_sheet, stored_samples
from reports.render.html import first_screen
from reports.render.plots import BLOCK_AXIS, SECONDS_AXIS, speed_plots
from reports.render.tables import comparison_table

HEIGHT = 900  # pixels of the frame
AXES = {"seconds": SECONDS_AXIS, "blocks": BLOCK_AXIS}


def framed(run: Run) -> str:
    """The first screen inside a frame, which keeps its style apart from the notebook's; nothing in it runs or is loaded."""
    table = comparison_table(run)
    page = first_screen(run, table, speed_plots(run, table), sample_sheet(stored_samples(run)))
    frame = '<iframe sandbox title="{}" style="width:100%;height:{}px;border:0" srcdoc="{}"></iframe>'
    return frame.format(escape(f"Report of {run.path.name}"), HEIGHT, escape(page))


def drawing(run: Run, metric: str | None = None, cost: str | None = None) -> Drawing:
    """One metric against one cost. Raises :class:`UsageError` where the run has no such numbers."""
    if cost is not None and cost not in AXES:
        raise UsageError(
            expected=f"a cost out of {', '.join(AXES)}", got=repr(cost), remedy=f"{did_you_mean(cost, AXES)}choose one"
        )
    metric = metric or main_metric(run)
    plots = speed_plots(run, comparison_table(run))
    found = [
        plot for plot in plots if plot.metric.key == metric and cost in (None, *(k for k, a in AXES.items() if a is plot.axis))
    ]
    if not found:
        known = sorted({plot.metric.key for plot in plots})
        raise UsageError(
            expected=f"a metric out of {', '.join(known)}" if known else "a run with scores",
            got=repr(metric),
            remedy=f"{did_you_mean(str(metric), known)}see `scores` for what could not be measured, and why",
        )
    return paper_figures(found[:1])[0]


def contact_sheet(run: Run, prompt: str | int | None = None, methods: Sequence[str] | None = None) -> Image:
    """Images side by side. Raises :class:`UsageError` where the run has no such prompt, no such method or no images."""
    stored = stored_samples(run)
    if unknown := [label for label in methods or () if label not in stored]:
        remedy = f"{did_you_mean(unknown[0], stored)}choose some of these"
        raise UsageError(expected=f"methods with images, out of {', '.join(stored)}", got=repr(unknown[0]), remedy=remedy)
    labels = list(methods or stored)[: None if methods else PAPER_ROWS]
    rows = {label: stored[label] for label in labels}
    columns = choose(list(rows.values())) if prompt is None else _of_prompt(rows, prompt)
    if not columns:
        raise UsageError(expected="a run that kept its images", got=f"none in {run.path}", remedy="run it again")
    return grid_of(rows, columns)


def _of_prompt(rows: Mapping[str, Mapping[int, Sample]], prompt: str | int) -> list[Sample]:
    """The samples of one prompt that all methods have, at most a page's width of them."""
    if not rows:
        return []
    first = next(iter(rows.values()))
    shared = [sample for index, sample in sorted(first.items()) if all(index in row for row in rows.values())]
    found = [sample for sample in shared if prompt in (sample.index, sample.prompt)]
    if shared and not found:
        known = list(dict.fromkeys(sample.prompt for sample in shared))
        remedy = f"{did_you_mean(str(prompt), known)}see the table `prompts`"
        raise UsageError(expected="one of the run's prompts, or the index of a sample", got=repr(prompt), remedy=remedy)
    return found[:COLUMNS]
