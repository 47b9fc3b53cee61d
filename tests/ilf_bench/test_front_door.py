"""``import ilf_bench``: every name that it promises is there, and none is loaded before it is used."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import ilf_bench
from ilf_bench import _MODULES

NAMES = {name: module for module, names in _MODULES.items() for name in names}


def typed_names() -> dict[str, str]:
    """What a type checker sees: the names under ``if TYPE_CHECKING``, and where they come from."""
    tree = ast.parse(Path(ilf_bench.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(block.body)
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def test_all_that_is_promised_is_typed_and_loaded_from_the_same_place() -> None:
    assert typed_names() == NAMES and sorted(NAMES) == sorted(ilf_bench.__all__)
    assert set(NAMES) <= set(dir(ilf_bench)) and (Path(ilf_bench.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_name_is_the_one_of_its_module(name: str) -> None:
    assert getattr(ilf_bench, name) is getattr(importlib.import_module(NAMES[name]), name)
    assert getattr(ilf_bench, name).__doc__, f"{name} is public and has no description"


def test_another_name_is_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'aply'"):
        ilf_bench.aply  # type: ignore[attr-defined]  # noqa: B018


def test_the_import_itself_loads_nothing() -> None:
    code = "import json, sys; before = set(sys.modules); import ilf_bench; print(json.dumps(sorted(set(sys.modules) - before)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names == {"ilf_bench"} and len(loaded) < 10
