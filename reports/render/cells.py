"""The cells, columns and rows of which every table is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reports.analysis.compare import Verdict
from reports.analysis.select import STAGES

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
class BatchTable:
    """The times at a further batch size, which nothing is ranked by."""

    batch: int
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Table:
    """Costs first, then a column for each metric; the last row is the A/A noise floor where it was timed."""

    columns: tuple[Column, ...]
    metrics: tuple[Column, ...]
    rows: tuple[Row, ...]
    batches: tuple[BatchTable, ...] = ()


COST_COLUMNS = (
    Column("steps", "Steps", "steps"),
    Column("block_evaluations", "Block evaluations", "evaluations per image", "lower"),
    Column("latency_s", "Time per image (median)", "s per image", "lower"),
    Column("latency_p95_s", "p95", "s per image", "lower"),
    Column("speed_up", "Speed-up over full, end to end", "×", "higher"),
    Column("block_speed_up", "Block speed-up", "×", "higher"),
    Column("peak_memory_bytes", "Peak memory", "bytes", "lower"),
)
THROTTLED = Column("throttled", "Throttled calls", "calls", "lower")
TIME_COLUMNS = (*(c for c in COST_COLUMNS if c.key in ("latency_s", "latency_p95_s", "speed_up", "peak_memory_bytes")), THROTTLED)
STAGE_COLUMNS = (
    *(Column(f"{stage}_s", stage.capitalize(), "s per image", "lower") for stage in STAGES),
    Column("speed_up", "Speed-up over full, end to end", "×", "higher"),
    Column("denoise_speed_up", "Speed-up over full, denoising only", "×", "higher"),
    Column("energy_j", "Energy", "J per image", "lower"),
)
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
