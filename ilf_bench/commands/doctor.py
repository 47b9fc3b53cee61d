"""``ilf-bench doctor``: what is installed, and what will and will not run because of it."""

from __future__ import annotations

import typer
from rich.table import Column, Table

from harness.terminal import terminal_text
from ilf_bench.console import console


def doctor() -> None:
    """Show what is installed, which weights and devices are available, what will run and what will not."""
    from ilf_bench.doctor import diagnose

    table = Table("check", "state", Column("found", overflow="fold"), Column("remedy", overflow="fold"))
    findings = diagnose()
    for finding in findings:
        table.add_row(*map(terminal_text, (finding.check, finding.state, finding.found, finding.remedy)))
    console.print(table)
    raise typer.Exit(1 if any(finding.state == "broken" for finding in findings) else 0)
