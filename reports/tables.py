"""The comparison table as data: every rendering (HTML, Markdown, CSV, terminal) shows these cells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.contracts import A_A, BASELINE, Failure, MethodRecord, Score
from harness.records import Run
from harness.statistics import mean_interval
from reports.compare import Difference, Verdict, compare_within
from reports.evidence import evidence_of
from reports.format import count, interval_text, megabytes, number, plus_minus
from reports.ledger import LedgerRow, ledger_row
from reports.select import (
    STAGES,
    example_score,
    failure_of,
    method_order,
    metric_order,
    peak_memory,
    plain_pipeline,
    record_of,
    same_round_ratio,
    score_of,
    seconds_per_image,
    stage_seconds,
)

Kind = Literal["full", "fewer steps", "accelerator", "solver", "noise floor"]


@dataclass(frozen=True)
class Cell:
    """One quantity of one method. ``value`` is None exactly where ``failure`` gives the reason; ``text`` is never empty."""

    quantity: str
    unit: str
    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    direction: str = ""
    failure: str = ""
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Column:
    """A column's heading, and what a reader must know to read it."""

    key: str
    title: str
    unit: str
    direction: str = ""


@dataclass(frozen=True)
class Row:
    """One method: its cells by column key, and for each metric its paired difference to the full run."""

    label: str
    kind: Kind
    cells: dict[str, Cell]
    differences: dict[str, Cell]
    failure: str = ""


@dataclass(frozen=True)
class Table:
    """Costs first, then a column for each metric; the last row is the A/A noise floor where it was timed."""

    columns: tuple[Column, ...]
    metrics: tuple[Column, ...]
    rows: tuple[Row, ...]


COST_COLUMNS = (
    Column("steps", "Steps", "steps"),
    Column("block_evaluations", "Block evaluations", "evaluations per image", "lower"),
    Column("latency_s", "Time per image (median)", "s per image", "lower"),
    Column("latency_p95_s", "p95", "s per image", "lower"),
    Column("speed_up", "Speed-up over full", "×", "higher"),
    Column("block_speed_up", "Block speed-up", "×", "higher"),
    Column("peak_memory_bytes", "Peak memory", "bytes", "lower"),
)
STAGE_COLUMNS = tuple(Column(f"{stage}_s", stage.capitalize(), "s per image", "lower") for stage in STAGES)
TRAINING_COLUMNS = (
    Column("training_s", "Training time", "s", "lower"),
    Column("calibration_s", "Calibration", "s", "lower"),
    Column("compile_s", "Compiling", "s", "lower"),
    Column("extra_parameters", "Extra parameters", "parameters", "lower"),
    Column("extra_memory_bytes", "Memory beyond full", "bytes", "lower"),
    Column("break_even", "Pays back after", "images", "lower"),
)


def failed(quantity: str, unit: str, reason: str, direction: str = "") -> Cell:
    """A cell that shows why there is no number."""
    return Cell(
        quantity, unit, reason or "not measured: no reason recorded", direction=direction, failure=reason or "no reason recorded"
    )


def comparison_table(run: Run) -> Table:
    """Every method of the spec, the failed ones too, then the A/A row."""
    metrics = tuple(_metric_column(run, name) for name in metric_order(run))
    rows = [_row(run, label, metrics) for label in method_order(run) if label != A_A]
    if len(seconds_per_image(run, A_A)):
        rows.append(_noise_row(run))
    return Table(COST_COLUMNS, metrics, tuple(rows))


def _metric_column(run: Run, name: str) -> Column:
    example = example_score(run, name)
    return Column(name, example.title, example.unit, example.direction) if example else Column(name, name, "")


def kind_of(run: Run, label: str) -> Kind:
    """Where a method stands in the comparison."""
    if label == BASELINE:
        return "full"
    plain = plain_pipeline(run, label)
    if plain is None:
        return "accelerator"
    return "fewer steps" if plain.solver == run.spec.get("solver", "") else "solver"


def _row(run: Run, label: str, metrics: tuple[Column, ...]) -> Row:
    record = record_of(run, label)
    failure = "" if record else failure_of(run, label)
    cells = _record_cells(run, record, failure) | _time_cells(run, label, failure) | _stage_cells(run, label, failure)
    cells |= _ledger_cells(run, label, failure)
    for metric in metrics:
        cells[metric.key] = score_cell(score_of(run, label, metric.key), metric)
    differences = {m.key: _difference_cell(run, label, m) for m in metrics} if label != BASELINE else {}
    return Row(label, kind_of(run, label), cells, differences, failure)


def _noise_row(run: Run) -> Row:
    return Row(A_A, "noise floor", _time_cells(run, A_A, "") | _stage_cells(run, A_A, ""), {})


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
        text = f"{number(seconds)} s" if seconds else "none"
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
        return failed(name, unit, f"not counted (predicted {count(predicted)})", "lower")
    text = count(record.block_evaluations)
    if abs(record.block_evaluations - predicted) > 1e-6 * max(1.0, abs(predicted)):
        text += f" (predicted {count(predicted)})"
    return Cell(name, unit, text, record.block_evaluations, direction="lower")


def _time_cells(run: Run, label: str, failure: str) -> dict[str, Cell]:
    seconds, columns = seconds_per_image(run, label), {c.key: c for c in COST_COLUMNS}
    if not len(seconds):
        reason = f"method failed: {failure}" if failure else "not timed in this run"
        return {
            k: failed(k, columns[k].unit, reason, columns[k].direction)
            for k in ("latency_s", "latency_p95_s", "speed_up", "peak_memory_bytes")
        }
    n, unit = len(seconds), "s per image"
    low, median, high = (float(np.quantile(seconds, q)) for q in (0.25, 0.5, 0.75))
    p95 = float(np.quantile(seconds, 0.95))
    cells = {
        "latency_s": Cell("latency_s", unit, f"{number(median)} s", median, low, high, n, "lower"),
        "latency_p95_s": Cell("latency_p95_s", unit, f"{number(p95)} s", p95, n=n, direction="lower"),
        "speed_up": _speed_up(run, label, n),
    }
    peak = peak_memory(run, label)
    memory = failed("peak_memory_bytes", "bytes", "not measured on this device", "lower")
    cells["peak_memory_bytes"] = (
        memory if peak is None else Cell("peak_memory_bytes", "bytes", megabytes(peak), peak, n=n, direction="lower")
    )
    return cells


def _speed_up(run: Run, label: str, n: int) -> Cell:
    if label == BASELINE:
        return Cell("speed_up", "×", "1 (reference)", 1.0, 1.0, 1.0, n, "higher")
    ratio = same_round_ratio(run, BASELINE, label)
    if ratio is None:
        return failed("speed_up", "×", "no round timed both this method and full", "higher")
    return Cell("speed_up", "×", interval_text(ratio) + " ×", ratio.value, ratio.low, ratio.high, n, "higher")


def _stage_cells(run: Run, label: str, failure: str) -> dict[str, Cell]:
    stages = stage_seconds(run, label)
    if not stages:
        reason = f"method failed: {failure}" if failure else "not timed in this run"
        return {c.key: failed(c.key, c.unit, reason, c.direction) for c in STAGE_COLUMNS}
    total = sum(stages.values())
    cells = {}
    for stage, seconds in stages.items():
        share = f" ({seconds / total:.0%})" if total > 0 else ""
        cells[f"{stage}_s"] = Cell(f"{stage}_s", "s per image", f"{number(seconds)} s{share}", seconds, direction="lower")
    return cells


def score_cell(score: Score | Failure, column: Column) -> Cell:
    """A metric's value ± half of its 95% interval, with N; or the failure's reason."""
    if isinstance(score, Failure):
        return failed(column.key, column.unit, score.reason, column.direction)
    interval = mean_interval(np.asarray(score.per_image, np.float64))
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


__all__ = [
    "COST_COLUMNS",
    "STAGE_COLUMNS",
    "TRAINING_COLUMNS",
    "Cell",
    "Column",
    "Row",
    "Table",
    "comparison_table",
    "difference_cell",
    "score_cell",
]
