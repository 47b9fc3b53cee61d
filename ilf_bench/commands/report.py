"""``ilf-bench report``: a run's page, table and figures, once more from its records."""

from __future__ import annotations

from ilf_bench.console import print_line
from ilf_bench.options import RunFolder


def report(run: RunFolder) -> None:
    """Rebuild the report of a run from its stored records; write its LaTeX table and vector figures."""
    from harness.storage.records import read_run
    from reports.render.build import build_paper, build_report

    known = read_run(run)
    print_line(f"report: {build_report(known)}")
    print_line(f"paper:  {build_paper(known)}")
