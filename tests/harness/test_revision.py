"""Which commit a run names: that of our own checkout, or of what pip installed, and never somebody else's."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from harness.revision import Revision, revision


def commit(folder: Path) -> str:
    """A repository with one commit of all that lies there."""
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def test_a_checkout_names_its_commit_and_whether_it_was_changed(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a = 1\n")
    head = commit(tmp_path)
    assert revision(tmp_path) == Revision(head, False)
    (tmp_path / "a.py").write_text("a = 2\n")
    assert revision(tmp_path) == Revision(head, True)


@pytest.mark.parametrize(
    "origin", [None, {"url": "file:///a", "dir_info": {}}, "no mapping", {"vcs_info": {"commit_id": "c0ffee"}}]
)
def test_an_installation_inside_somebody_elses_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: object
) -> None:
    site = tmp_path / "site-packages"
    record = site / "ilf_bench-9.9.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: ilf-bench\nVersion: 9.9\n")
    if origin is not None:
        (record / "direct_url.json").write_text(json.dumps(origin))
    theirs = commit(tmp_path)
    monkeypatch.syspath_prepend(str(site))
    found = revision(site)
    assert found.commit != theirs and found == Revision(
        "c0ffee" if isinstance(origin, dict) and "vcs_info" in origin else None, None
    )
    assert revision(tmp_path / "elsewhere") == Revision(None, None)
