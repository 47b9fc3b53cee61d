"""What a run of a given size can find, from the variance of an earlier one or from a stated assumption."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table
from rich.text import Text

from harness.results import A_A, BASELINE, FloatArray, Score
from harness.statistics import Estimate
from harness.statistics.power import Design
from harness.statistics.rounds import log_ratio_estimate
from harness.storage.records import Run
from harness.terminal import terminal_text
from harness.text import one_line
from reports.analysis.answers import answers
from reports.analysis.evidence import BLOCKS
from reports.analysis.select import accelerators, example_score, rounds_of, score_of
from reports.analysis.verdicts import ANCHOR_STEPS, trials
from reports.format import number

SPEED = "speed"
SPEED_EFFECT = math.log(1.05)


@dataclass(frozen=True)
class Requirement:
    """One metric, or speed (then all differences are logs of time ratios).

    ``deviation`` is the standard deviation of one image's (round's) difference between two methods; of all methods of the pilot
    the most variable, named in ``source``. ``detectable`` is the smallest true difference that ``n`` images (rounds) find in
    four of five runs, ``needed`` how many find ``effect``: the metric's margin, or what was asked for. None where unknown.
    """

    metric: str
    title: str
    unit: str
    deviation: float
    n: int
    detectable: float
    effect: float | None
    needed: int | None
    source: str


def deviations(run: Run) -> dict[str, tuple[float, str]]:
    """By metric, and for speed: the largest deviation of a difference, and the method that has it.

    Of the accelerators, or of all methods where the run has none. Quality: of the test against the full run's margin; for a
    metric without a value for the full run, of the comparison at equal block evaluations. What images of one prompt share is
    in it, at as many images a prompt as this run had.
    """
    found: dict[str, tuple[float, str]] = {}

    def note(metric: str, method: str, estimate: Estimate | None, units: float) -> None:
        if estimate is not None and math.isfinite(estimate.standard_error):
            found[metric] = max(found.get(metric, (0.0, method)), (estimate.standard_error * math.sqrt(units), method))

    asked = set(accelerators(run)) or set(run.records)
    for row in trials(run).rows:
        if row.method in asked:
            note(row.metric, row.method, row.excess or row.gain, _images(run, row.method, row.metric))
    tested = set(found)
    for answer in answers(run, BLOCKS):
        for metric, ruling in answer.rulings.items():
            if metric not in tested:
                note(metric, answer.label, ruling.advantage, _images(run, answer.label, metric))
    full = rounds_of(run, BASELINE)
    for label in (*sorted(asked), A_A):
        shared = sorted(full.keys() & rounds_of(run, label).keys())
        if label != BASELINE and len(shared) > 1:
            mine = rounds_of(run, label)
            log = log_ratio_estimate(_array([mine[r] for r in shared]), _array([full[r] for r in shared]))
            note(SPEED, label, log, len(shared))
    return found


def _images(run: Run, method: str, metric: str) -> float:
    score = score_of(run, method, metric)
    return score.n if isinstance(score, Score) else 1


def margins(run: Run) -> dict[str, float]:
    """A tenth of the drop to five steps, by metric, where the run has that row and the metric sees the drop."""
    return {name: seen.margin for name, seen in trials(run).sensitivity.items() if seen.margin and not seen.insensitive}


def requirements(
    pilot: Mapping[str, tuple[float, str]],
    effects: Mapping[str, float],
    samples: int,
    rounds: int,
    design: Design,
    run: Run | None,
) -> list[Requirement]:
    """A row for each metric of ``pilot`` (deviation and its source) with ``samples`` images, and for speed with ``rounds``."""
    rows = []
    for metric, (deviation, source) in pilot.items():
        n = rounds if metric == SPEED else samples
        example = example_score(run, metric) if run else None
        title, unit = (example.title, example.unit) if example else (metric, "")
        effect = effects.get(metric)
        needed = design.needed(deviation, effect) if effect is not None else None
        rows.append(Requirement(metric, title, unit, deviation, n, design.detectable(deviation, n), effect, needed, source))
    return rows


def power_table(title: str, rows: list[Requirement], design: Design, silent: Sequence[str] = ()) -> Table:
    """The requirements for a terminal. ``silent``: of what nothing is known."""
    caption = (
        f"found in {design.power:.0%} of runs at the 5% level, corrected for {design.tests} tests; N: images, for speed rounds"
    )
    if any(row.effect is None for row in rows):
        five = f"{ANCHOR_STEPS} plain steps"
        caption += f"\nno margin: it is a tenth of the drop to {five}, which the pilot lacks (steps:{ANCHOR_STEPS}) or cannot see"
    if silent:
        caption += f"\nthe pilot says nothing of {one_line(', '.join(silent))}: too few rounds or images, or not scored in it"
    columns = ("what", "deviation of a difference", "N", "smallest difference found", "wanted", "N needed", "variance from")
    table = Table(*columns, title=terminal_text(title), caption=Text(caption))
    for row in rows:
        table.add_row(*map(terminal_text, _cells(row)))
    return table


def _cells(row: Requirement) -> tuple[str, ...]:
    needed = "more than 10⁹" if row.needed is None else f"{row.needed:,}"
    wanted = "no margin" if row.effect is None else _amount(row, row.effect)
    amounts = (_amount(row, row.deviation), f"{row.n:,}", _amount(row, row.detectable), wanted)
    return row.title, *amounts, "–" if row.effect is None else needed, row.source


def _amount(row: Requirement, value: float) -> str:
    if row.metric == SPEED:
        return f"{math.expm1(min(value, 50.0)):.2%}"
    return f"{number(value)} {row.unit}".strip()


def _array(values: list[float]) -> FloatArray:
    return np.array(values, dtype=np.float64)
