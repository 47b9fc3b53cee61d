"""Reports built from finished runs: tables, figures, one self-contained page, the history and the regression gate."""

from reports.build import build_paper, build_report
from reports.load import RunFrames, load_run

__all__ = ["RunFrames", "build_paper", "build_report", "load_run"]
