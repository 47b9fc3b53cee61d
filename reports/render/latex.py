"""The paper's table: LaTeX with booktabs, intervals and arrows; the best method is bold only where it is surely the best."""

from __future__ import annotations

import math

from harness.results import BASELINE, Score
from harness.storage.records import Run
from reports.analysis.compare import Verdict, compare_within
from reports.analysis.evidence import evidence_of
from reports.analysis.select import has_tiny_scorers, score_of
from reports.format import count, decimals, number
from reports.render.cells import Cell, Column, Table
from reports.render.escape import tex_text
from reports.render.words import TINY_WARNING

COSTS = (
    Column("block_evaluations", "Blocks", "", "lower"),
    Column("latency_s", "s/image", "", "lower"),
    Column("speed_up", "Speed-up", "", "higher"),
)
ARROWS = {"higher": r"\,$\uparrow$", "lower": r"\,$\downarrow$", "": ""}
MISSING = "--"


def latex_table(run: Run, table: Table) -> str:
    """A ``table*`` over both columns: costs, then each metric's value ± half of its 95% interval. Needs ``booktabs`` only."""
    columns = (*COSTS, *table.metrics)
    rows = [row for row in table.rows if row.kind != "noise floor"]
    best = {metric.key: best_of(run, [row.label for row in rows], metric.key) for metric in table.metrics}
    lines = [
        "% Written by ilf-bench; needs \\usepackage{booktabs}.",
        r"\begin{table*}",
        r"\centering",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{caption(run)}}}",
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(["Method", *(tex_text(c.title) + ARROWS[c.direction] for c in columns)]) + r" \\",
        r"\midrule",
    ]
    for row in rows:
        cells = [_cell(row.cells.get(c.key), bold=best.get(c.key) == row.label) for c in columns]
        lines.append(" & ".join([tex_text(row.label), *cells]) + r" \\")
        lines += [r"\midrule"] * (row.label == BASELINE and len(rows) > 1)
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table*}", ""])


def caption(run: Run) -> str:
    """What the numbers are, what bold means, and that tiny scorers are tiny."""
    spec, device = run.spec, run.environment.get("device_name") or run.environment.get("device") or "device not recorded"
    title = str(spec.get("title") or spec["name"])
    text = f"{title}. N = {spec['samples']}, {spec['steps']} steps of {spec['solver']}, {device}. Scores with 95% intervals. "
    text += "Bold: better than every other method but the full run, each paired 95% interval excluding zero. "
    text += f"{MISSING}: not measured."
    return tex_text(text + (f" Scores come from {TINY_WARNING}." if has_tiny_scorers(run) else ""))


def best_of(run: Run, labels: list[str], metric: str) -> str | None:
    """The method that is better than each other one but the full run; None where the best is not surely so.

    All comparisons must hold together, so each may be judged at the full 5% (an intersection-union test).
    """
    scores = [score for label in labels if label != BASELINE and isinstance(score := score_of(run, label, metric), Score)]
    if len(scores) < 2:
        return None
    best = (max if scores[0].direction == "higher" else min)(scores, key=lambda score: score.value)
    others, evidence = [score.method for score in scores if score is not best], evidence_of(run)
    surely = all(compare_within(evidence, best.method, other, metric).verdict is Verdict.BETTER for other in others)
    return best.method if surely else None


def _cell(cell: Cell | None, *, bold: bool) -> str:
    if cell is None or cell.value is None:
        return MISSING
    text = count(cell.value).replace(",", r"\,") if cell.quantity == "block_evaluations" else _number(cell)
    return rf"\boldmath$\mathbf{{{text}}}$" if bold else f"${text}$"


def _number(cell: Cell) -> str:
    """As many digits as the interval allows; the middle half of the rounds of a time is no interval and stays out."""
    assert cell.value is not None
    half = ((cell.high or 0.0) - (cell.low or 0.0)) / 2 if cell.low is not None and cell.high is not None else 0.0
    if cell.quantity == "latency_s" or half == 0 or not math.isfinite(half):
        return number(cell.value).replace("−", "-")
    places = decimals(half)
    return rf"{cell.value:.{places}f} \pm {half:.{places}f}"
