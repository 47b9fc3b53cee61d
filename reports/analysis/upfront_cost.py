"""What a method costs before and beside its images, and after how many images that has paid back."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.results import BASELINE
from harness.statistics import Interval
from harness.storage.records import Run
from reports.analysis.evidence import SECONDS, evidence_of
from reports.analysis.select import method_order, peak_memory, record_of


@dataclass(frozen=True)
class LedgerRow:
    """One method. Seconds are device-seconds where they were spent; None: not recorded, or nothing to record.

    ``compile_s`` was spent before the first image of this run, at every batch size, and is spent again by every new process.
    ``break_even``: images after which training and calibration have been paid for by the seconds that each image saves against
    the full run, as if both ran on a device as fast as this run's; infinite where nothing is saved, and None where it was not
    timed or cost nothing. ``extra_memory_bytes``: peak memory less the full run's, negative where it needs less.
    """

    method: str
    training_s: float | None
    calibration_s: float | None
    compile_s: float | None
    extra_parameters: int
    extra_memory_bytes: int | None
    break_even: Interval | None

    @property
    def spent_s(self) -> float:
        """Training and calibration together."""
        return (self.training_s or 0.0) + (self.calibration_s or 0.0)


def upfront_cost(run: Run) -> list[LedgerRow]:
    """A row for every method that ran, but the full run."""
    return [ledger_row(run, label) for label in method_order(run) if label != BASELINE and record_of(run, label) is not None]


def ledger_row(run: Run, label: str) -> LedgerRow:
    """The row of one method that ran."""
    record = run.records[label]
    saving = saved_seconds(run, label)
    spent = (record.training_s or 0.0) + (record.calibration_s or 0.0)
    mine, full = peak_memory(run, label), peak_memory(run, BASELINE)
    extra = None if mine is None or full is None else mine - full
    pays = break_even(spent, saving) if saving is not None and spent > 0 else None
    compiled = [sample.compile_s for sample in run.warmups if sample.method == label]
    return LedgerRow(
        label,
        record.training_s,
        record.calibration_s,
        sum(compiled) if compiled else None,
        record.extra_parameters,
        extra,
        pays,
    )


def saved_seconds(run: Run, label: str) -> Interval | None:
    """Seconds per image less than the full run's median, with the interval of the time ratio; None where it was not timed."""
    evidence = evidence_of(run)
    if evidence.times is None or label not in evidence.times.ratios:
        return None
    cost, full = evidence.cost_interval(label, SECONDS), evidence.full_seconds
    return Interval(full - cost.value, full - cost.high, full - cost.low)


def break_even(spent: float, saving: Interval) -> Interval:
    """Images after which ``spent`` seconds are saved, with the interval that follows from ``saving``'s; infinite at no saving."""

    def images(saved: float) -> float:
        return spent / saved if saved > 0 else math.inf

    return Interval(images(saving.value), images(saving.high), images(saving.low))
