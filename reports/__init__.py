"""Reports built from finished runs: tables, figures, one self-contained page, the history and the regression gate."""

from reports.load import RunFrames, load_run
from reports.render.build import build_paper, build_report

__all__ = ["RunFrames", "build_paper", "build_report", "load_run"]
