"""The paths of a run's folder are known in one place, and everything recorded there is in a bundle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.paths import ROOT
from harness.storage import layout
from harness.storage.layout import FILES, FOLDERS, Layout, members, slug
from harness.storage.records import record_files

PACKAGES = ("harness", "reports", "metrics", "ilf", "baselines", "ilf_bench")
NAMES = {*FILES, *FOLDERS, "manifest.json", "parts", "report"}


def path_literals(tree: ast.Module) -> Iterator[str]:
    """Text constants that are joined to a path with ``/``, and those that are file names by their suffix."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
            yield str(node.right.value)
        elif isinstance(node, ast.Constant) and str(node.value) in FILES:
            yield str(node.value)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_module_knows_a_path_of_a_run(package: str) -> None:
    files = [path for path in (ROOT / package).rglob("*.py") if path != Path(layout.__file__)]
    found = {f"{path}: {name}" for path in files for name in path_literals(ast.parse(path.read_text())) if name in NAMES}
    assert files and not found


def test_the_module_itself_would_be_found() -> None:
    assert {*path_literals(ast.parse(Path(layout.__file__).read_text()))} >= {*FILES, "methods", "timing", "faults"}


def test_every_path_but_the_passing_ones_is_part_of_the_record(tmp_path: Path) -> None:
    run = Layout(tmp_path)
    kept = {run.spec, run.environment, run.warmup, run.complete, run.method("full"), run.round(0), run.fault(0)}
    for pair in (run.measurement("full", "features"), run.score("full", "fid"), run.score("black", "fid", "controls")):
        kept |= {pair.record, pair.array}
    samples = run.samples("full")
    kept |= {samples.manifest, samples.receipt(0), samples.image(0)}
    partial = run.partial("full", 0)
    for path in (*kept, partial.record, partial.array, run.report / "index.html"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert set(record_files(tmp_path)) == kept
    names = {path.relative_to(tmp_path).as_posix() for path in kept}
    assert members(names) == names
    assert set(record_files(tmp_path, images=False)) == kept - {samples.receipt(0), samples.image(0)}
    assert run.methods() == [run.method("full")] and run.rounds() == [run.round(0)] and run.faults() == [run.fault(0)]
    assert run.scores() == [run.score("full", "fid").record] and run.sample_folders() == [samples]


def test_labels_that_differ_in_signs_only_get_folders_of_their_own() -> None:
    assert slug("a (b)") != slug("a [b]") and slug("a (b)").startswith("a-b-")
    assert Layout(Path()).samples("a/../b").path.parts[0] == "samples" and len(Layout(Path()).samples("a/../b").path.parts) == 2
