"""The cells of time and memory, at any batch size."""

from __future__ import annotations

from collections import Counter

import numpy as np

from harness.results import BASELINE
from harness.storage.records import Run
from reports.analysis.select import (
    energy_per_image,
    peak_memory,
    same_round_ratio,
    seconds_per_image,
    stage_seconds,
    throttled_calls,
)
from reports.format import megabytes, number, times_text
from reports.render.cells import STAGE_COLUMNS, THROTTLED, TIME_COLUMNS, Cell, failed


def time_cells(run: Run, label: str, reason: str) -> dict[str, Cell]:
    """A cell for each of TIME_COLUMNS; ``reason`` fills them where the method was never timed."""
    seconds = seconds_per_image(run, label)
    if not len(seconds):
        return {c.key: failed(c.key, c.unit, reason, c.direction) for c in TIME_COLUMNS}
    n, unit = len(seconds), "s per image"
    low, median, high = (float(np.quantile(seconds, q)) for q in (0.25, 0.5, 0.75))
    p95 = float(np.quantile(seconds, 0.95))
    cells = {
        "latency_s": Cell("latency_s", unit, f"{number(median)} s", median, low, high, n, "lower"),
        "latency_p95_s": Cell("latency_p95_s", unit, f"{number(p95)} s", p95, n=n, direction="lower"),
        "speed_up": _speed_up(run, label, n),
        "throttled": _throttled(run, label, n),
    }
    peak = peak_memory(run, label)
    memory = failed("peak_memory_bytes", "bytes", "not measured on this device", "lower")
    cells["peak_memory_bytes"] = (
        memory if peak is None else Cell("peak_memory_bytes", "bytes", megabytes(peak), peak, n=n, direction="lower")
    )
    return cells


def _speed_up(run: Run, label: str, n: int, key: str = "speed_up", quantity: str = "latency_s") -> Cell:
    if label == BASELINE:
        return Cell(key, "×", "1 (reference)", 1.0, 1.0, 1.0, n, "higher")
    ratio = same_round_ratio(run, BASELINE, label, quantity)
    if ratio is None:
        return failed(key, "×", "no round timed both this method and full", "higher")
    return Cell(key, "×", times_text(ratio), ratio.value, ratio.low, ratio.high, n, "higher")


def _throttled(run: Run, label: str, n: int) -> Cell:
    """How many calls were made while the device held its clock down, and why; no number where nobody watched it."""
    calls = run.timings_of[label]
    found = throttled_calls(calls)
    if found is None:
        return failed(THROTTLED.key, THROTTLED.unit, "no clock was watched", THROTTLED.direction)
    reasons = Counter(reason for sample in calls for reason in sample.throttled.split(",") if reason)
    text = f"{found} of {n}" + (f": {', '.join(reasons)}" if reasons else "")
    return Cell(THROTTLED.key, THROTTLED.unit, text, found, n=n, direction=THROTTLED.direction)


def stage_cells(run: Run, label: str, reason: str) -> dict[str, Cell]:
    """A cell for each of STAGE_COLUMNS but the speed-up end to end, which :func:`time_cells` makes."""
    stages = stage_seconds(run, label)
    if not stages:
        return {c.key: failed(c.key, c.unit, reason, c.direction) for c in STAGE_COLUMNS if c.key != "speed_up"}
    total, calls = sum(stages.values()), run.timings_of[label]
    cells = {}
    for stage, seconds in stages.items():
        share = f" ({seconds / total:.0%})" if total > 0 else ""
        apart = ", timed once, apart" if stage == "text" and any(call.text_apart for call in calls) else ""
        cells[f"{stage}_s"] = Cell(
            f"{stage}_s", "s per image", f"{number(1e3 * seconds)} ms{share}{apart}", seconds, direction="lower"
        )
    cells["denoise_speed_up"] = _speed_up(run, label, len(calls), "denoise_speed_up", "denoise_s")
    energy = energy_per_image(run, label)
    cells["energy_j"] = (
        failed("energy_j", "J per image", "no energy was measured", "lower")
        if energy is None
        else Cell("energy_j", "J per image", f"{number(energy)} J", energy, n=len(calls), direction="lower")
    )
    return cells
