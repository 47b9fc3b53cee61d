"""The comparison table as data: every rendering (HTML, Markdown, CSV, terminal) shows these cells."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from harness.results import A_A, BASELINE, Failure, MethodRecord, Score
from harness.statistics import mean_interval
from harness.storage.records import Run
from reports.analysis.compare import Difference, compare_within
from reports.analysis.evidence import evidence_of
from reports.analysis.select import (
    example_score,
    failure_of,
    method_order,
    metric_order,
    plain_pipeline,
    record_of,
    score_of,
    seconds_per_image,
    throttled_calls,
    untimed,
)
from reports.analysis.upfront_cost import LedgerRow, ledger_row
from reports.format import count, duration, interval_text, megabytes, plus_minus
from reports.render.cells import (
    COST_COLUMNS,
    THROTTLED,
    TIME_COLUMNS,
    TRAINING_COLUMNS,
    BatchTable,
    Cell,
    Column,
    Kind,
    Row,
    Table,
    failed,
)
from reports.render.times import stage_cells, time_cells


def comparison_table(run: Run) -> Table:
    """Every method of the spec, the failed ones too, then the A/A row."""
    metrics = tuple(_metric_column(run, name) for name in metric_order(run))
    rows = [_row(run, label, metrics) for label in method_order(run) if label != A_A]
    if len(seconds_per_image(run, A_A)):
        rows.append(_noise_row(run))
    columns = (*COST_COLUMNS, THROTTLED) if throttled_calls(run.timings) else COST_COLUMNS
    return Table(columns, metrics, tuple(rows), tuple(_batch_tables(run)))


def _batch_tables(run: Run) -> list[BatchTable]:
    """A table for each further batch size at which anything was timed."""
    found = []
    for batch in sorted({sample.batch for sample in run.other_batches}):
        part = replace(run, timings=tuple(sample for sample in run.other_batches if sample.batch == batch))
        labels = [label for label in method_order(run) if label != A_A] + [A_A] * (A_A in part.timings_of)
        rows = [Row(label, kind_of(run, label), time_cells(part, label, untimed(run, label, batch)), {}) for label in labels]
        columns = TIME_COLUMNS if throttled_calls(part.timings) else TIME_COLUMNS[:-1]
        found.append(BatchTable(batch, columns, tuple(rows)))
    return found


def _metric_column(run: Run, name: str) -> Column:
    example = example_score(run, name)
    return Column(name, example.title, example.unit, example.direction) if example else Column(name, name, "")


def kind_of(run: Run, label: str) -> Kind:
    """Where a method stands in the comparison."""
    if label in (BASELINE, A_A):
        return "full" if label == BASELINE else "noise floor"
    plain = plain_pipeline(run, label)
    if plain is None:
        return "accelerator"
    return "fewer steps" if plain.solver == run.spec.get("solver", "") else "solver"


def _row(run: Run, label: str, metrics: tuple[Column, ...]) -> Row:
    record = record_of(run, label)
    failure = "" if record else failure_of(run, label)
    why = untimed(run, label)
    cells = _record_cells(run, record, failure) | time_cells(run, label, why) | stage_cells(run, label, why)
    cells |= _ledger_cells(run, label, failure)
    for metric in metrics:
        cells[metric.key] = score_cell(score_of(run, label, metric.key), metric)
    differences = {m.key: _difference_cell(run, label, m) for m in metrics} if label != BASELINE else {}
    return Row(label, kind_of(run, label), cells, differences, failure)


def _noise_row(run: Run) -> Row:
    return Row(A_A, "noise floor", time_cells(run, A_A, "") | stage_cells(run, A_A, ""), {})


def _record_cells(run: Run, record: MethodRecord | None, failure: str) -> dict[str, Cell]:
    if record is None:
        columns = (*COST_COLUMNS[:2], COST_COLUMNS[5])
        return {c.key: failed(c.key, c.unit, failure, c.direction) for c in columns}
    full = record_of(run, BASELINE)
    cells = {"steps": Cell("steps", "steps", str(record.steps), record.steps), "block_evaluations": _blocks(record)}
    unit = "×"
    if full is None or full.block_evaluations is None or not record.block_evaluations:
        cells["block_speed_up"] = failed("block_speed_up", unit, "block evaluations were not counted", "higher")
    else:
        ratio = full.block_evaluations / record.block_evaluations
        cells["block_speed_up"] = Cell("block_speed_up", unit, f"{ratio:.2f}×", ratio, direction="higher")
    return cells


def _ledger_cells(run: Run, label: str, failure: str) -> dict[str, Cell]:
    """What was spent beforehand, and after how many images that has paid back."""
    columns = {c.key: c for c in TRAINING_COLUMNS}
    if failure:
        return {c.key: failed(c.key, c.unit, failure, c.direction) for c in TRAINING_COLUMNS}
    row = ledger_row(run, label)
    cells = {}
    spent = (("training_s", row.training_s), ("calibration_s", row.calibration_s), ("compile_s", row.compile_s))
    for key, seconds in spent:
        text = duration(seconds) if seconds else "none"
        cells[key] = Cell(key, "s", text, seconds or 0.0, direction="lower")
    extra, memory = row.extra_parameters, row.extra_memory_bytes
    text = count(extra) if extra else "none"
    cells["extra_parameters"] = Cell("extra_parameters", "parameters", text, extra, direction="lower")
    if memory is None:
        cells["extra_memory_bytes"] = failed("extra_memory_bytes", "bytes", "not measured in this run", "lower")
    else:
        cells["extra_memory_bytes"] = Cell("extra_memory_bytes", "bytes", megabytes(memory), memory, direction="lower")
    cells["break_even"] = _break_even(row, columns["break_even"])
    return cells


def _break_even(row: LedgerRow, column: Column) -> Cell:
    if row.spent_s == 0:
        return Cell(column.key, column.unit, "nothing to pay back", 0.0, direction="lower")
    if row.break_even is None:
        return failed(column.key, column.unit, "not timed in this run", "lower")
    found = row.break_even
    if not math.isfinite(found.value):
        return failed(column.key, column.unit, "never: it saves no time against full", "lower")
    high = f"{found.high:,.0f}" if math.isfinite(found.high) else "never"
    text = f"{found.value:,.0f} [{found.low:,.0f}, {high}]"
    top = found.high if math.isfinite(found.high) else None
    return Cell(column.key, column.unit, text, found.value, found.low, top, direction="lower")


def _blocks(record: MethodRecord) -> Cell:
    name, unit, predicted = "block_evaluations", "evaluations per image", record.predicted_block_evaluations
    if record.block_evaluations is None:
        return failed(name, unit, "not counted", "lower")
    text = count(record.block_evaluations)
    if record.miscounted and predicted is not None:
        text += f" (predicted {count(predicted)})"
    return Cell(name, unit, text, record.block_evaluations, direction="lower")


def score_cell(score: Score | Failure, column: Column) -> Cell:
    """A metric's value ± half of its 95% interval, with N; or the failure's reason."""
    if isinstance(score, Failure):
        return failed(column.key, column.unit, score.reason, column.direction)
    interval = mean_interval(np.asarray(score.influence, np.float64))
    half = interval.high - interval.value
    text = f"{plus_minus(score.value, half)} (N = {score.n})"
    return Cell(column.key, column.unit, text, score.value, score.value - half, score.value + half, score.n, column.direction)


def _difference_cell(run: Run, label: str, column: Column) -> Cell:
    score = score_of(run, label, column.key)
    difference = compare_within(evidence_of(run), label, BASELINE, column.key)
    return difference_cell(difference, column, score.n if isinstance(score, Score) else None)


def difference_cell(difference: Difference, column: Column, n: int | None) -> Cell:
    """A paired difference with its interval and verdict, or the reason why there is none."""
    name = f"{column.key}_difference_to_full"
    if difference.interval is None:
        return Cell(
            name,
            column.unit,
            difference.reason,
            failure=difference.reason,
            direction=column.direction,
            verdict=difference.verdict,
        )
    d = difference.interval
    text = interval_text(d, signed=True)
    return Cell(name, column.unit, text, d.value, d.low, d.high, n, column.direction, verdict=difference.verdict)
