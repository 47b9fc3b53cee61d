"""The report: one self-contained page that needs no network, and no script to be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from harness.results import BASELINE, Score
from harness.statistics.description import STATISTICS
from harness.storage.records import Run
from harness.text import without_credentials
from reports.analysis.compare import Verdict
from reports.analysis.overview import lossless, overview
from reports.analysis.select import Sample, has_tiny_scorers, metric_order, throttled_calls
from reports.render.cells import STAGE_COLUMNS, TRAINING_COLUMNS, Column, Table
from reports.render.conflicts import conflicts
from reports.render.duels import Duels, duels, headlines
from reports.render.glossary import explained, meaning
from reports.render.grid import Sheet, Thumbnail
from reports.render.lead_plot import NARROW_FRAME, WIDE_FRAME, lead_plot
from reports.render.markdown import heading
from reports.render.matrix import front_matrices, standing_matrix
from reports.render.nulls import insensitive_metrics, null_matrix
from reports.render.overview import chips, rows, sentence, strip, subtitle, table_note, title
from reports.render.page import breakable, data_uri, render_page
from reports.render.plots import COST_AXES, DRAWN, Plot, Stages
from reports.render.published import ANCHOR_HEAD, BESIDE_HEAD, apart
from reports.render.published_plots import published_plots
from reports.render.style import PUBLISHED, Look, families, looks
from reports.render.svg import mark, plot_svg, shorten, stages_svg, symbols
from reports.render.words import TINY_WARNING, facts, failures, stage_sentence, throttle_sentence, title_of

MARKS = {Verdict.BETTER: "▲", Verdict.WORSE: "▼", Verdict.INDISTINGUISHABLE: "≈", Verdict.NOT_COMPARABLE: "–"}
INLINE_BYTES = 6_000_000  # more thumbnails than this lie beside the page instead of inside it
PROMPT_LETTERS = 120


def html_report(
    run: Run,
    table: Table,
    plots: list[Plot],
    stages: Stages | None,
    stored: Mapping[str, Mapping[int, Sample]],
    sheet: Sheet | None,
) -> str:
    """The whole page as text. ``stored`` names the methods that have images, and so a gallery.

    Thumbnails beyond INLINE_BYTES are referred to as ``thumbs/NAME``.
    """
    numbers = {row.label: i for i, row in enumerate(table.rows)}
    context = {
        "command": without_credentials(str(run.environment.get("command") or "")),
        "run": run,
        "gallery": bool(stored),
        **_first_screen(run, table, sheet, numbers),
        **_tables(run, table, plots, stored, numbers),
        **_drawings(run, table, plots, stages, numbers),
        **_apart(run, numbers),
        "sheet": sheet and _sources(sheet),
        "facts": facts(run),
        "failures": failures(run),
        "statistics": STATISTICS,
        "fingerprints": fingerprints(run),
    }
    return render_page("report.html.jinja", "report.js", "data: 'self'", context)


def first_screen(run: Run, table: Table, plots: list[Plot], sheet: Sheet | None) -> str:
    """What the report begins with as a page of its own, its few images inside, for a notebook."""
    numbers = {row.label: i for i, row in enumerate(table.rows)}
    context = {
        **_first_screen(run, table, sheet, numbers),
        "page": _marks(run, table, plots, numbers),
        "symbols": symbols(looks(run).values()),
        "gallery": False,
        "thumb": lambda thumbnail: data_uri(thumbnail.content, thumbnail.kind),
    }
    return render_page("first_screen.html.jinja", "report.js", "data:", context)


def _first_screen(run: Run, table: Table, sheet: Sheet | None, numbers: Mapping[str, int]) -> dict[str, Any]:
    """What the page begins with: chips, a sentence, one plot, images, and a row for each method."""
    first = overview(run)
    main = tuple(column for key in first.shown for column in table.metrics if column.key == key)
    frames = (WIDE_FRAME, NARROW_FRAME) if main else ()
    best = lossless(run, first)
    plots = [lead_plot(run, first, main[0], numbers, frame, best.line.label if best else "") for frame in frames]
    return {
        "title": title(run),
        "subtitle": subtitle(run),
        "short": lambda text: shorten(text, PROMPT_LETTERS),
        "chips": chips(run, first),
        "sentence": sentence(run, first),
        "overview": rows(run, first),
        "lead_plots": [plot for plot in plots if plot],
        "main": main,
        "table_note": table_note(len(main), len(table.metrics)),
        "scored": len(table.metrics),
        "explained": explained(run, first),
        "meaning": lambda label: meaning(run, label),
        "strip": strip(run, first, sheet),
        "thumb": lambda thumbnail: _source(thumbnail, sheet) if sheet else "",
    }


def _tables(
    run: Run, table: Table, plots: list[Plot], stored: Mapping[str, Mapping[int, Sample]], numbers: Mapping[str, int]
) -> dict[str, Any]:
    """Duels, matrices and the comparison, with the marks that stand beside a method's name."""
    style, found = looks(run), duels(run)
    seen = {plot.axis for plot in plots} | {part.axis for part in found}
    return {
        "contents": _contents(run, found, plots, table, stored),
        "page": _marks(run, table, plots, numbers),
        "symbols": symbols([*style.values(), PUBLISHED]),
        "legend": legend(run),
        "duels": found,
        "headlines": headlines,
        "standing": standing_matrix(run),
        "fronts": front_matrices(run),
        "warning": TINY_WARNING if has_tiny_scorers(run) else "",
        "table": table,
        "without_difference": without_difference(table),
        "nulls": null_matrix(run),
        "insensitive": insensitive_metrics(run),
        "training": TRAINING_COLUMNS,
        "conflicts": conflicts(run, stored),
        "marks": MARKS,
        "Verdict": Verdict,
        "axes": [axis for axis in COST_AXES if axis in seen],
    }


def _drawings(run: Run, table: Table, plots: list[Plot], stages: Stages | None, numbers: Mapping[str, int]) -> dict[str, Any]:
    """Speed against scores, and where the time goes."""
    throttled = throttled_calls((*run.timings, *run.other_batches))
    return {
        "plots": plots,
        "svg": lambda plot: plot_svg(plot, numbers),
        "stages": stages_svg(stages, numbers) if stages else "",
        "stage_columns": STAGE_COLUMNS,
        "stage_sentence": stage_sentence(run),
        "throttled": throttle_sentence(run) if throttled else "",
    }


def _apart(run: Run, numbers: Mapping[str, int]) -> dict[str, Any]:
    """Published numbers, which are compared with nothing here; their marks come after those of the methods."""
    others = apart(run)
    labels = dict.fromkeys(number.label for number in others.numbers)
    marks = {label: len(numbers) + i for i, label in enumerate(labels)}
    return {
        "apart": others,
        "published_plots": [plot_svg(plot, marks) for plot in published_plots(others.numbers)],
        "published_mark": mark(PUBLISHED),
        "anchor_head": ANCHOR_HEAD,
        "beside_head": BESIDE_HEAD,
    }


def _marks(run: Run, table: Table, plots: list[Plot], numbers: Mapping[str, int]) -> dict[str, Any]:
    """How tables name a method: with its mark, its number and its label, and how many rows they show at once."""
    page = {"looks": _drawn(looks(run), table, plots), "numbers": numbers, "mark": mark, "heading": unbroken}
    return {**page, "breakable": breakable, "most": DRAWN}


def _drawn(style: Mapping[str, Look], table: Table, plots: list[Plot]) -> Mapping[str, Look]:
    """The looks of which the tables show a mark: all, or, with very many methods, those of methods that a plot draws."""
    drawn = {point.label for plot in plots for point in plot.points}
    return style if len(table.rows) <= DRAWN else {label: look for label, look in style.items() if label in drawn}


def without_difference(table: Table) -> dict[str, str]:
    """The metrics of which no method has a difference to the full run, with the reason where it is the same for all of them."""
    found = {}
    for metric in table.metrics:
        cells = [row.differences[metric.key] for row in table.rows if metric.key in row.differences and not row.failure]
        reasons = {cell.failure for cell in cells}
        if len(cells) > 1 and len(reasons) == 1 and "" not in reasons:
            found[metric.key] = reasons.pop()
    return found


def legend(run: Run) -> Mapping[str, list[str]]:
    """Methods by family; families of one method share a group of their own."""
    found = families(run)
    alone = [labels[0] for labels in found.values() if len(labels) == 1]
    groups = {name: labels for name, labels in found.items() if len(labels) > 1}
    return {"reference": [BASELINE]} | groups | ({"other": alone} if alone else {})


def unbroken(column: Column) -> str:
    """A column's heading whose arrow never stands on a line of its own."""
    return heading(column).replace(" ↑", "\u00a0↑").replace(" ↓", "\u00a0↓")


def _sources(sheet: Sheet) -> dict[str, Any]:
    lazy = Markup("") if is_inline(sheet) else Markup(' loading="lazy"')
    rows = {label: [_source(thumbnail, sheet) for thumbnail in row] for label, row in sheet.rows.items()}
    return {"columns": sheet.columns, "rows": rows, "small": sheet.small, "left_out": sheet.left_out, "lazy": lazy}


def _source(thumbnail: Thumbnail, sheet: Sheet) -> str:
    return data_uri(thumbnail.content, thumbnail.kind) if is_inline(sheet) else f"thumbs/{thumbnail.name}"


def _contents(
    run: Run, found: list[Duels], plots: list[Plot], table: Table, stored: Mapping[str, Mapping[int, Sample]]
) -> list[tuple[str, str]]:
    """The page's sections by the name of their heading, without those that it lacks."""
    return [
        ("overview", "Overview"),
        ("answer", "Against fewer steps"),
        *([("standing", "Against the full run")] if standing_matrix(run) else []),
        *([("pictures", "Plots")] if plots else []),
        ("cost", "Cost"),
        *([("quality", "Quality")] if table.metrics else []),
        *([("samples", "Samples")] if stored else []),
        ("time", "Stages"),
        ("failures", "Failures"),
        ("how", "How it was measured"),
    ]


def is_inline(sheet: Sheet) -> bool:
    """Whether the page contains the thumbnails."""
    return sheet.size <= INLINE_BYTES


def fingerprints(run: Run) -> list[tuple[str, str]]:
    """(metric title, canonical JSON of its fingerprint), a row for each different one."""
    found: dict[tuple[str, str], None] = {}
    for metric in metric_order(run):
        for (_, name), score in run.scores.items():
            if name == metric and isinstance(score, Score):
                found[title_of(run, metric), json.dumps(dict(score.fingerprint), indent=1, sort_keys=True)] = None
    return list(found)
