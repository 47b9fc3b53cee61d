"""The rows of a run's summary and of its verdicts, as plain values for tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.storage.records import Run
from reports.analysis.answers import Answer, Ruling, answers
from reports.analysis.evidence import BLOCKS, SECONDS
from reports.analysis.overview import Line, overview
from reports.analysis.select import failure_of, record_of, seconds_per_image


def summary_rows(run: Run) -> list[dict[str, Any]]:
    """A row per method, the fastest first; see :attr:`reports.load.RunResults.summary`."""
    found = overview(run)
    return [_summary(run, line, SECONDS if found.timed else BLOCKS) for line in found.lines]


def _summary(run: Run, line: Line, unit: str) -> dict[str, Any]:
    record, seconds, speed, answer = record_of(run, line.label), seconds_per_image(run, line.label), line.speed_up, line.answer
    return {
        "method": line.label,
        "speed_up": speed.value if speed else np.nan,
        "speed_up_low": speed.low if speed else np.nan,
        "speed_up_high": speed.high if speed else np.nan,
        "cost_unit": unit,
        "seconds_per_image": float(np.median(seconds)) if len(seconds) else np.nan,
        "block_evaluations": np.nan if record is None or record.block_evaluations is None else record.block_evaluations,
        "better_than_steps": answer.headline if answer else "",
        "provisional": answer.provisional if answer else "",
        "peak_memory_bytes": _number(line.memory_bytes),
        "training_s": _number(line.training_s),
        "calibration_s": _number(line.calibration_s),
        "failure": "" if record else failure_of(run, line.label),
    }


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def verdict_rows(run: Run) -> list[dict[str, Any]]:
    """A row per (accelerator, metric); see :attr:`reports.load.RunResults.verdicts`."""
    return [_verdict(answer, metric, ruling) for answer in answers(run) for metric, ruling in answer.rulings.items()]


def _verdict(answer: Answer, metric: str, ruling: Ruling) -> dict[str, Any]:
    advantage = ruling.advantage
    return {
        "method": answer.label,
        "metric": metric,
        "outcome": ruling.outcome.value,
        "advantage": advantage.value if advantage else np.nan,
        "low": advantage.low if advantage else np.nan,
        "high": advantage.high if advantage else np.nan,
        "p_adjusted": _number(ruling.p_adjusted),
        "rival": " + ".join(f"{rung.share:.0%} {rung.label}" for rung in ruling.rival),
        "cost_unit": answer.unit,
        "reason": ruling.reason,
    }
