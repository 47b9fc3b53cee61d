"""``ilf-bench tag``: a name for a run."""

from __future__ import annotations

from pathlib import Path

from harness.history.store import History
from harness.storage.records import read_run
from ilf_bench.commands.lookup import open_history


def tag_run(out: Path, name: str, run: str) -> str:
    """Name a run, given as a folder, run id, commit or older tag, and return its id. A folder is appended first."""
    history = open_history(out)
    identity = append_folder(history, run) if (Path(run) / "spec.json").exists() else history.find(run).run_id
    history.tag(name, identity)
    return identity


def append_folder(history: History, folder: str) -> str:
    """Add a run folder, or find it there already."""
    return history.append(read_run(Path(folder)))
