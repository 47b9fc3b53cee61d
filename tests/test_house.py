"""The shape of the source: few rooms at the top of harness/, short files and functions, models known by their families alone.

CONTRIBUTING.md walks through it; the directions of imports are import-linter's (``make lint``).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.models.families.table import BUILT_IN
from harness.paths import ROOT

PRODUCT = ("ilf_bench", "harness", "ilf", "baselines", "metrics", "reports", "zoo")
CHECKOUT = ("studies", "benchmarks", "tests")
ROOMS, LINES, FUNCTION = 18, 400, 45
FAMILIES, CLASSES = ROOT / "harness/models/families", ROOT / "harness/models/reading.py"  # the latter: whose weights are read
OF_FAMILIES = {
    *(name for family in BUILT_IN for name in family.pipelines),
    *(one.parts["transformer"][0] for family in BUILT_IN for one in family.architectures.values()),
    *(segment.blocks for family in BUILT_IN for segment in family.segments if "_" in segment.blocks),  # "layers" is any model's
}


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


def _of_a_family(tree: ast.AST) -> Iterator[str]:
    """Names of pipelines, transformers and lists of blocks in code (not in docstrings), and tests of the guidance."""
    owners = (node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef))
    documents = {id(node.body[0].value) for node in owners if node.body and isinstance(node.body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and (id(node) in documents or not isinstance(node.value, str)):
            continue
        said = getattr(node, "attr", getattr(node, "id", getattr(node, "value", getattr(node, "name", None))))
        if said in OF_FAMILIES:
            yield str(said)
        if isinstance(node, ast.arg) and node.arg == "first" and node.annotation and ast.unparse(node.annotation) == "bool":
            yield "first: bool"
        if isinstance(node, ast.Compare) and re.search(r"guidance(_scale|\.scale)? (>|<=) [01]", ast.unparse(node)):
            yield ast.unparse(node)


@pytest.mark.parametrize("folder", PRODUCT)
def test_only_the_families_know_a_model(folder: str) -> None:
    """No name of a pipeline, transformer or list of blocks, and no test of the guidance's scale, in anything else that runs."""
    outside = (path for path in sources((folder,)) if not {FAMILIES, ROOT / "zoo/recipes"} & {*path.parents} and path != CLASSES)
    found = [f"{path}: {fault}" for path in outside for fault in _of_a_family(ast.parse(path.read_text(encoding="utf-8")))]
    assert not found


def test_a_file_that_knows_a_model_is_found() -> None:
    for fault in (
        "isinstance(pipe, FluxPipeline)",
        "pipe.transformer.transformer_blocks",
        "guidance.scale > 1",
        "'SanaPipeline'",
    ):
        assert list(_of_a_family(ast.parse(f"x = {fault}"))), fault
    assert list(_of_a_family(ast.parse("def f(first: bool): pass")))
