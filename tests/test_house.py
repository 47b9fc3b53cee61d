"""The shape of the source: few rooms at the top of harness/, files and functions that fit on a screen or a few.

CONTRIBUTING.md walks through it; the directions of imports are import-linter's (``make lint``).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.paths import ROOT

PRODUCT = ("ilf_bench", "harness", "ilf", "baselines", "metrics", "reports", "zoo")
CHECKOUT = ("studies", "benchmarks", "tests")
ROOMS, LINES, FUNCTION = 18, 400, 45


def sources(folders: tuple[str, ...]) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """The name of each function of a file, and its lines, decorators not counted."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def test_harness_has_few_rooms() -> None:
    rooms = {path.stem for path in (ROOT / "harness").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert len(rooms - {"__init__"}) <= ROOMS, sorted(rooms)


def test_files_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources(PRODUCT + CHECKOUT)}
    assert not {name: n for name, n in lengths.items() if n > LINES}


@pytest.mark.parametrize("folder", PRODUCT)
def test_functions_are_short(folder: str) -> None:
    assert not {name: n for path in sources((folder,)) for name, n in functions(path) if n > FUNCTION}
