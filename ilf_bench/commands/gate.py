"""``ilf-bench gate``: which runs, then the verdict of reports.analysis.gate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from harness.errors import UsageError
from harness.storage.records import write_bytes
from ilf_bench.commands.lookup import find_run, newest_run, open_history
from reports.analysis.gate import GateResult, Limits
from reports.analysis.gate import gate as judge
from reports.analysis.select import metric_order
from reports.analysis.spread import repeated_spreads
from reports.render.gate_pages import gate_junit, gate_markdown


def gate_runs(out: Path, run: str | None, against: str, limits: Limits) -> GateResult:
    """The verdict on a run (the newest where none is named) against a baseline."""
    history = open_history(out)
    entries = history.runs()
    if run is None and not entries:
        raise UsageError(expected=f"a recorded run in {out}", got="an empty history", remedy="ilf-bench run")
    baseline = find_run(history, against)
    current = find_run(history, run) if run is not None else newest_run(history, baseline)
    known = dict.fromkeys([*metric_order(current), *metric_order(baseline)])
    if unknown := ", ".join(name for name in limits.margins if name not in known):
        raise UsageError(expected=f"margins of {', '.join(known)}", got=unknown, remedy="edit --margin")
    return judge(current, baseline, limits, repeated_spreads(entries, baseline, current))


def parse_limits(tolerance: float, margins: Sequence[str]) -> Limits:
    """``tolerance`` as a share of time and memory, and margins as ``METRIC=VALUE``."""
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise UsageError(expected="a tolerance above 0, for example 0.05", got=str(tolerance), remedy="--tolerance 0.05")
    found = {}
    for text in margins:
        name, _, value = text.partition("=")
        if name in found:
            raise UsageError(expected="one margin a metric", got=repr(text), remedy="leave one of them out")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = math.nan
        if not (name and math.isfinite(found[name]) and found[name] >= 0):
            raise UsageError(expected="METRIC=VALUE with a value of 0 or more", got=repr(text), remedy="--margin psnr=0.5")
    return Limits(speed=tolerance, memory=tolerance, margins=found)


def write_summaries(result: GateResult, markdown: Path | None, junit: Path | None) -> None:
    """The files that a pull request and a build server show."""
    if markdown is not None:
        write_bytes(markdown, gate_markdown(result).encode())
    if junit is not None:
        write_bytes(junit, gate_junit(result).encode())
