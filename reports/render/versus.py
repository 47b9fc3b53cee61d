"""Two runs side by side for a terminal: what went up or down, by how much, and whether it is distinguishable from noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from harness.errors import ArtifactError
from harness.storage.records import Run
from harness.terminal import terminal_text
from harness.text import one_line
from reports.analysis.changes import MEMORY, METHOD, SPEED, WALL, Change, Missing
from reports.analysis.findings import Finding, findings, interval_of
from reports.analysis.gate import Limits
from reports.analysis.select import method_order, metric_order
from reports.analysis.spread import Spreads
from reports.format import interval_text, number
from reports.render.grouped import joined, reason_lines, some

SUMMARY = ("method", "speed", "memory", "scores")
COLUMNS = ("method", "check", "A", "B", "B to A, 95% interval", "verdict")
NOISE = Limits().memory  # assumed of a ratio that has no interval: the share that the gate tolerates
BETTER, WORSE, SAME, UNKNOWN, UP, DOWN = "better", "worse", "the same", "can't tell", "up", "down"
WITHIN = f"within {NOISE:.0%}"
JUDGED = (
    "Ratios for speed and memory, differences for scores. Better and worse: 5% one-sided, with Holm's correction over all"
    " checks and the history's own A/A spread."
)
Rows = Sequence[Finding | Missing]


def versus(a: Run, b: Run, spreads: Spreads | None = None) -> list[Finding | Missing]:
    """What changed from A to B. Raises :class:`ArtifactError` where nothing at all can be compared."""
    rows = findings(b, a, spreads or Spreads(), ("B", "A"))
    if not any(isinstance(row, Finding) for row in rows):
        reasons = [row.reason for row in rows if isinstance(row, Missing)]
        raise ArtifactError(
            expected=f"two runs that can be compared, {a.path} and {b.path}",
            got=reasons[0] if reasons else "no method in A",
            remedy="choose runs of one experiment, on one machine, with the same scorers",
        )
    return rows


def versus_parts(a: Run, b: Run, rows: Rows, *, details: bool = False) -> Iterator[Table | Text]:
    """One line a method, or with ``details`` one a check; then what was compared how, what was not, and a closing sentence."""
    yield from (terminal_text(one_line(f"{name}: {run.path}")) for name, run in (("A", a), ("B", b)))
    yield versus_table(rows) if details else summary_table(rows)
    lines = [*normalised_lines(rows), *one_sided_lines(a, b)]
    if details:
        lines.append(JUDGED)
    else:
        skipped = [row for row in rows if isinstance(row, Missing) and row.counted and not _is_one_sided(row, b)]
        methods = [label for label in method_order(a) if label in _judged(rows)]
        lines += [f"not compared: {line}" for line in reason_lines([(m.method, m.check, m.reason) for m in skipped], methods)]
    lines.append(closing_sentence(rows, details))
    yield from (terminal_text(one_line(line)) for line in lines)


def summary_table(rows: Rows) -> Table:
    """One line for each method that both runs have."""
    table = _table(SUMMARY)
    for method, found in _judged(rows).items():
        costs = [_cost(found, check) for check in (SPEED, MEMORY)]
        scores = [row for row in found if not row.change.is_ratio]
        table.add_row(*map(terminal_text, [method, *costs, _scores(scores)]))
    return table


def versus_table(rows: Rows) -> Table:
    """One line a check. Names are Text, so that brackets in them are no markup."""
    table = _table(COLUMNS)
    for method, group in groupby(rows, key=lambda row: row.change.method if isinstance(row, Finding) else row.method):
        for row in group:
            table.add_row(*map(terminal_text, [method, *_cells(row)]))
        table.add_section()
    return table


def normalised_lines(rows: Rows) -> list[str]:
    """How each kind of number was compared: against what times were held, and on which images scores were."""
    changes = [row.change for row in rows if isinstance(row, Finding)]
    lines = [f"{check}: B's seconds per image over A's; {how}" for check, how in _ways(changes, (SPEED, WALL))]
    memory = [change for change in changes if change.check == MEMORY]
    if memory:
        limit = f"; without an interval, only more than {NOISE:.0%} is called up or down" if any(map(_is_bare, memory)) else ""
        lines.append(f"memory: B's peak over A's; the highest of all rounds{limit}")
    scores = [change for change in changes if not change.is_ratio]
    for how, images in dict.fromkeys((change.how, change.images) for change in scores):
        names = dict.fromkeys(change.check for change in scores if (change.how, change.images) == (how, images))
        lines.append(f"{some(list(names), 8)}: B less A, {how}, {images} images")
    return lines


def _ways(changes: Sequence[Change], checks: Sequence[str]) -> dict[tuple[str, str], None]:
    return dict.fromkeys((change.check, change.how) for check in checks for change in changes if change.check == check)


def one_sided_lines(a: Run, b: Run) -> list[str]:
    """The methods and metrics that only one of the runs has."""
    lines = []
    for name, own, other in (("A", a, b), ("B", b, a)):
        methods = [label for label in method_order(own) if label not in method_order(other)]
        metrics = [f"metric {metric}" for metric in metric_order(own) if metric not in metric_order(other)]
        if methods or metrics:
            lines.append(f"only in {name}: {some([*methods, *metrics], 8)}")
    return lines


def _is_one_sided(row: Missing, b: Run) -> bool:
    gone = row.check == METHOD and row.method not in method_order(b)
    return gone or row.check not in (METHOD, SPEED, WALL, MEMORY, *metric_order(b))


def closing_sentence(rows: Rows, details: bool) -> str:
    """How many checks are better and worse, and which."""
    found = [row for row in rows if isinstance(row, Finding) and row.change.counted]
    parts = []
    for judged in (WORSE, BETTER, UP, DOWN):
        names = [f"{row.change.check} of {row.change.method}" for row in found if word(row) == judged]
        if names:
            parts.append(f"{judged} in {some(names)}{' (no interval)' if judged in (UP, DOWN) else ''}")
    same, near, rest = (sum(word(row) == one for row in found) for one in (SAME, WITHIN, UNKNOWN))
    told = f"B is {'; '.join(parts)}" if parts else "No difference from A to B can be told from noise"
    counts = [
        f"{same} checks are exactly the same" if same else "",
        f"{near} without an interval are {WITHIN}" if near else "",
        f"of {rest} nothing can be told" if rest else "",
    ]
    more = "" if details else " --details shows every check with its interval."
    return f"{told}{'. ' if parts else ': ' if any(counts) else ''}{joined([c for c in counts if c])}.{more}".replace("..", ".")


def _table(columns: Sequence[str]) -> Table:
    return Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)


def _judged(rows: Rows) -> dict[str, list[Finding]]:
    """By method, what could be compared."""
    found: dict[str, list[Finding]] = {}
    for row in rows:
        if isinstance(row, Finding):
            found.setdefault(row.change.method, []).append(row)
    return found


def _cost(found: Sequence[Finding], check: str) -> str:
    """For example ``×1.203 worse``; the bare ratio where nothing can be told."""
    row = next((row for row in found if row.change.check == check), None)
    if row is None:
        return "–"
    told = word(row)
    return told if told == SAME else f"×{number(float(np.exp(row.change.value)), 4)} {told}"


def _scores(found: Sequence[Finding]) -> str:
    """For example ``2 better, 1 worse``; else whether anything can be told."""
    words = [word(row) for row in found]
    telling = [f"{words.count(one)} {one}" for one in (BETTER, WORSE) if one in words]
    if telling or not words:
        return ", ".join(telling) or "–"
    return UNKNOWN if UNKNOWN in words else SAME


def _cells(row: Finding | Missing) -> list[str]:
    if isinstance(row, Missing):
        return [row.check, "–", "–", "–", f"not compared: {row.reason}"]
    change = row.change
    sign = "×" if change.is_ratio else ""
    exact = change.error == 0 or not np.isfinite(change.error)
    interval = interval_of(change)
    text = number(interval.value, 4) if exact else interval_text(interval, signed=not change.is_ratio)
    return [change.check, number(change.then), number(change.now), f"{sign}{text}", word(row)]


def word(row: Finding) -> str:
    """Better, worse, the same, or can't tell; a ratio without an interval (memory) is up or down beyond :data:`NOISE` only."""
    change = row.change
    if change.harm == 0 and change.error == 0:
        return SAME
    if _is_bare(change):
        return WITHIN if abs(change.value) <= np.log1p(NOISE) else UP if change.value > 0 else DOWN
    return WORSE if row.is_loss else BETTER if row.is_gain else UNKNOWN


def _is_bare(change: Change) -> bool:
    """Whether it is a ratio of which no noise is known."""
    return change.is_ratio and change.error == 0
