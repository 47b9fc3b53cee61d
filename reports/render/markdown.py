"""The comparison as Markdown tables and as tidy CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace

from harness.storage.records import Run
from reports.analysis.compare import Verdict
from reports.analysis.select import has_tiny_scorers
from reports.analysis.verdicts import Trial, trials
from reports.format import number
from reports.render.cells import STAGE_COLUMNS, TRAINING_COLUMNS, Cell, Column, Row, Table
from reports.render.escape import csv_text, markdown_text
from reports.render.published import ANCHOR_HEAD, BESIDE_HEAD, Apart, apart
from reports.render.tables import comparison_table
from reports.render.words import (
    TINY_WARNING,
    answer_sentences,
    disagreement_sentences,
    facts,
    sensitivity_sentences,
    stage_sentence,
)

CSV_COLUMNS = ("method", "quantity", "value", "low", "high", "n", "unit", "direction", "verdict", "failure")


def markdown_report(run: Run) -> str:
    """The answer, the comparison, the differences to the full run, the stages and how it was measured."""
    table = comparison_table(run)
    parts = [f"# {markdown_text(str(run.spec.get('title') or run.spec['name']))}"]
    if has_tiny_scorers(run):
        parts.append(f"> **{TINY_WARNING}**")
    parts += ["## Is it better than fewer steps at equal cost?", _list(answer_sentences(run))]
    if table.metrics:
        parts += ["## Is it as good as the full run?", _list(sensitivity_sentences(run)), _standings(run, table)]
    if contradictions := disagreement_sentences(run):
        parts += ["## Where metrics contradict each other", _list(contradictions)]
    parts += ["## Comparison", markdown_table(table)]
    if table.metrics:
        parts += ["## Paired difference to full (95% interval)", _differences(table)]
    for part in table.batches:
        parts += [f"## Time at batch {part.batch}", _plain(part.rows, part.columns)]
    parts += [
        "## Stages",
        stage_sentence(run),
        _plain(table.rows, STAGE_COLUMNS),
        "## Training cost",
        _plain(_trained(table), TRAINING_COLUMNS),
    ]
    if others := apart(run):
        parts += ["## Published elsewhere: not measured here, not ranked", *_apart(others)]
    parts += [
        "## How it was measured",
        "\n".join(f"- {markdown_text(name)}: {markdown_text(value)}" for name, value in facts(run)),
    ]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """The comparison with a column for every cost and metric."""
    return _plain(table.rows, (*table.columns, *table.metrics))


def csv_report(table: Table) -> str:
    """Tidy CSV: one row per method and quantity, full precision, with unit; a failure fills its own column.

    A quantity at a further batch size is one of its own: ``latency_s at batch 1``.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in table.rows:
        for cell in (*row.cells.values(), *row.differences.values()):
            writer.writerow(_csv_row(row.label, cell))
    for part in table.batches:
        for row in part.rows:
            for cell in row.cells.values():
                writer.writerow(_csv_row(row.label, replace(cell, quantity=f"{cell.quantity} at batch {part.batch}")))
    return buffer.getvalue()


def _csv_row(label: str, cell: Cell) -> list[str]:
    numbers = ["" if v is None else repr(float(v)) for v in (cell.value, cell.low, cell.high)]
    verdict = cell.verdict.value if cell.verdict else ""
    n = "" if cell.n is None else str(cell.n)
    texts = [csv_text(text) for text in (label, cell.quantity, cell.unit, cell.direction, cell.failure)]
    return [texts[0], texts[1], *numbers, n, texts[2], texts[3], verdict, texts[4]]


def heading(column: Column) -> str:
    """Title, unit and an arrow that says which direction is better."""
    arrow = {"higher": " ↑", "lower": " ↓"}.get(column.direction, "")
    return f"{column.title}{arrow}"


def _plain(rows: tuple[Row, ...], columns: tuple[Column, ...]) -> str:
    lines = [["Method", *(heading(c) for c in columns)], ["---"] * (len(columns) + 1)]
    lines += [[row.label, *(row.cells[c.key].text if c.key in row.cells else "–" for c in columns)] for row in rows]
    return _lines(lines)


def _differences(table: Table) -> str:
    lines = [["Method", *(heading(c) for c in table.metrics)], ["---"] * (len(table.metrics) + 1)]
    for row in table.rows:
        if row.differences:
            lines.append([row.label, *(_with_verdict(row.differences[c.key]) for c in table.metrics)])
    return _lines(lines)


def _list(sentences: list[str]) -> str:
    return "\n".join(f"- {markdown_text(sentence)}" for sentence in sentences)


def _standings(run: Run, table: Table) -> str:
    """A row for each tested method; the p-value is that of not being inferior, corrected for all of them."""
    rows = {(trial.method, trial.metric): trial for trial in trials(run).rows}
    lines = [["Method", *(c.title for c in table.metrics)], ["---"] * (len(table.metrics) + 1)]
    for method in dict.fromkeys(method for method, _ in rows):
        lines.append([method, *(_standing(rows[method, c.key]) for c in table.metrics)])
    return _lines(lines)


def _standing(trial: Trial) -> str:
    p = f" (p = {number(trial.p_not_inferior, 2)})" if trial.p_not_inferior is not None else ""
    return f"{trial.standing.value}{p}" if trial.gain is not None else f"{trial.standing.value}: {trial.reason}"


def _apart(others: Apart) -> list[str]:
    """What a right set-up should reproduce, differences side by side, and the tables themselves."""
    parts = [markdown_text(sentence) for sentence in others.strange]
    if others.anchors:
        parts += ["### What a right set-up should reproduce", escaped_table(ANCHOR_HEAD, others.anchors)]
    if others.differences:
        parts += ["### Differences to each table's own baseline", escaped_table(BESIDE_HEAD, others.differences)]
    if others.sheets:
        parts.append("### The published tables, and what they differ by from their own baselines")
    for sheet in others.sheets:
        parts += [markdown_text(sheet.title), escaped_table(sheet.head, sheet.rows)]
    return parts


def escaped_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown from plain texts, of which no sign means anything in Markdown."""
    return _lines([list(head), ["---"] * len(head), *map(list, rows)])


def _with_verdict(cell: Cell) -> str:
    return (
        f"{cell.text} {cell.verdict.value}"
        if cell.verdict not in (None, Verdict.NOT_COMPARABLE)
        else f"not comparable: {cell.text}"
    )


def _trained(table: Table) -> tuple[Row, ...]:
    return tuple(row for row in table.rows if row.kind == "accelerator")


def plain_table(lines: Sequence[Sequence[str]]) -> str:
    """Markdown from rows of plain text, the second of which is the rule. Only what would break a row is escaped."""
    return "\n".join("| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in line) + " |" for line in lines)


def _lines(lines: list[list[str]]) -> str:
    """Markdown from rows of plain text; the rule under the heads stays as it is."""
    return "\n".join("| " + " | ".join(text if text == "---" else markdown_text(text) for text in line) + " |" for line in lines)
