"""The notebooks of examples/ run from the first cell to the last, and are committed with what they show."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import nbformat
import pytest

from harness.paths import ROOT
from harness.storage.layout import Layout

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
LARGEST = 400_000  # bytes of a committed notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_as_executed(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    assert path.stat().st_size <= LARGEST
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "executed once, in order"
    kinds = {kind for cell in code for output in cell.outputs for kind in output.get("data", {})}
    assert {"text/html", "image/png"} <= kinds
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    assert str(ROOT) not in path.read_text() and "/tmp/" not in path.read_text()
    warned = [output for cell in code for output in cell.outputs if output.get("name") == "stderr"]
    assert warned == [], "warnings name folders of the machine: remove them from the stored outputs"


def kinds(cell: Any) -> list[str]:
    """What a cell shows, in order; the parts of a text that is printed bit by bit are one."""
    found = [output.output_type for output in cell.get("outputs", ()) if output.get("name") != "stderr"]
    return [kind for kind, _ in groupby(found)]


@pytest.mark.notebooks
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To store new outputs: ``jupyter execute --inplace examples/*.ipynb`` in the repository's root."""
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "zoo").symlink_to(ROOT / "zoo")
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    stored = [kinds(cell) for cell in notebook.cells]
    done = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [kinds(cell) for cell in done.cells] == stored, "a cell shows something else than what is committed"
    assert [Layout(folder).complete.exists() for folder in (tmp_path / "runs").glob("*-*/")] == [True], "the run is recorded"
