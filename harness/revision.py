"""Which code this is: the version that is installed, and the commit that it was taken from."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from harness.paths import ROOT

NAME = "ilf-bench"


class Revision(NamedTuple):
    """``commit``: None where it is not known; ``dirty``: whether files differ from it, None where nobody can say."""

    commit: str | None
    dirty: bool | None


def installed_version() -> str | None:
    """The version of the distribution, or None where there is only its source."""
    try:
        return distribution(NAME).version
    except PackageNotFoundError:
        return None


def revision(root: Path = ROOT) -> Revision:
    """Of the repository whose top is ``root``; else of what pip installed there from a repository (PEP 610).

    An environment inside somebody else's repository is no checkout of ours: that commit says nothing of this code.
    """
    if (top := _git(root, "rev-parse", "--show-toplevel")) and Path(top).resolve() == root.resolve():
        status = _git(root, "status", "--porcelain")
        return Revision(_git(root, "rev-parse", "HEAD"), None if status is None else bool(status))
    with suppress(PackageNotFoundError, OSError, ValueError, KeyError, TypeError):
        installed = distribution(NAME)
        if Path(str(installed.locate_file(""))).resolve() == root.resolve():
            record = installed.read_text  # of a distribution, always UTF-8
            origin = json.loads(record("direct_url.json") or "{}")
            return Revision(str(origin["vcs_info"]["commit_id"]), None)
    return Revision(None, None)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
