"""The cost ledger as a table of text: what each method costs before its images, and when that has paid back."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.records import Run
from reports.format import count, interval_text, megabytes, number
from reports.ledger import LedgerRow, ledger

HEADS = ("Training", "Calibration", "Extra parameters", "Extra peak memory", "Saving an image", "Pays back after")


@dataclass(frozen=True)
class CostLine:
    """One method's texts, in the order of HEADS."""

    label: str
    texts: tuple[str, ...]


def cost_lines(run: Run) -> list[CostLine]:
    """A line for every method that ran, but the full run."""
    return [CostLine(row.method, _texts(row)) for row in ledger(run)]


def _texts(row: LedgerRow) -> tuple[str, ...]:
    return (
        _seconds(row.training_s),
        _seconds(row.calibration_s),
        count(row.extra_parameters) if row.extra_parameters else "none",
        "not measured" if row.extra_memory_bytes is None else megabytes(row.extra_memory_bytes).replace("-", "−"),
        "not timed" if row.saving_s is None else f"{interval_text(row.saving_s, signed=True)} s",
        pays_back(row),
    )


def _seconds(value: float | None) -> str:
    return "none recorded" if value is None else f"{number(value)} s"


def pays_back(row: LedgerRow) -> str:
    """After how many images the saving has paid for training and calibration, or why there is no such number."""
    found = row.break_even
    if found is None:
        return "not timed" if row.spent_s else "nothing to pay back"
    if math.isinf(found.value):
        return "never: it saves nothing"
    low, high = (f"{math.ceil(v):,}" if math.isfinite(v) else "never" for v in sorted((found.low, found.high)))
    return f"{math.ceil(found.value):,} images [{low} to {high}]"
