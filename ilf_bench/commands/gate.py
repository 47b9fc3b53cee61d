"""``ilf-bench gate``: which runs, then the verdict of reports.analysis.gate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.errors import UsageError
from ilf_bench.console import console, print_line, print_whole
from ilf_bench.options import DEFAULT_OUT, WRITTEN, Out

if TYPE_CHECKING:
    from reports.analysis.gate import GateResult, Limits


def gate(
    against: Annotated[str, typer.Option(help="Baseline: a run folder, run id, commit or tag.")],
    run: Annotated[str | None, typer.Argument(help="The run to judge; default: the newest.")] = None,
    tolerance: Annotated[float, typer.Option(help="The relative loss of time or memory that must be detected.")] = 0.05,
    margin: Annotated[list[str] | None, typer.Option(help="METRIC=VALUE: the loss of a score that must be detected.")] = None,
    markdown: Annotated[Path | None, typer.Option(**WRITTEN, help="Write a summary for a pull request to this file.")] = None,
    junit: Annotated[Path | None, typer.Option(**WRITTEN, help="Write JUnit XML to this file.")] = None,
    details: Annotated[bool, typer.Option("--details", help="One line a check, with its interval and tolerance.")] = False,
    out: Out = DEFAULT_OUT,
) -> None:
    """Compare a run with a baseline: exit 0 PASS, 1 FAIL, 2 INCONCLUSIVE, 3 NOT-MEASURED."""
    from harness.storage.files import write_bytes
    from reports.render.gate_pages import gate_junit, gate_markdown, gate_parts, gate_text

    result = gate_runs(out, run, against, parse_limits(tolerance, margin or []))
    if markdown is not None:
        write_bytes(markdown, gate_markdown(result).encode())
    if junit is not None:
        write_bytes(junit, gate_junit(result).encode())
    if details:
        for line in gate_text(result).splitlines():
            print_line(line)
    else:
        for part in gate_parts(result):
            print_whole(console, part)
    raise typer.Exit(result.exit_code)


def gate_runs(out: Path, run: str | None, against: str, limits: Limits) -> GateResult:
    """The verdict on a run (the newest where none is named) against a baseline."""
    from ilf_bench.lookup import find_run, newest_run, open_history, recorded
    from reports.analysis.gate import gate as judge
    from reports.analysis.select import metric_order
    from reports.analysis.spread import repeated_spreads

    history = open_history(out)
    entries = recorded(history)
    current = find_run(history, run) if run is not None else newest_run(history)
    baseline = find_run(history, against)
    known = dict.fromkeys([*metric_order(current), *metric_order(baseline)])
    if unknown := ", ".join(name for name in limits.margins if name not in known):
        raise UsageError(expected=f"margins of {', '.join(known)}", got=unknown, remedy="edit --margin")
    return judge(current, baseline, limits, repeated_spreads(entries, baseline, current))


def parse_limits(tolerance: float, margins: Sequence[str]) -> Limits:
    """``tolerance`` as a share of time and memory, and margins as ``METRIC=VALUE``."""
    from reports.analysis.gate import Limits

    if not (math.isfinite(tolerance) and tolerance > 0):
        raise UsageError(expected="a tolerance above 0, for example 0.05", got=str(tolerance), remedy="--tolerance 0.05")
    found = {}
    for text in margins:
        name, _, value = text.partition("=")
        if name in found:
            raise UsageError(expected="one margin per metric", got=repr(text), remedy="leave one of them out")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = math.nan
        if not (name and math.isfinite(found[name]) and found[name] >= 0):
            raise UsageError(expected="METRIC=VALUE with a value of 0 or more", got=repr(text), remedy="--margin psnr=0.5")
    return Limits(speed=tolerance, memory=tolerance, margins=found)
