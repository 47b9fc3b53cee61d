"""Files are read and written in UTF-8 whatever the locale: every place that opens text says so."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.paths import ROOT

PACKAGES = ("ilf_bench", "harness", "ilf", "baselines", "metrics", "reports", "zoo", "studies", "benchmarks")


def unspoken(tree: ast.AST) -> Iterator[int]:
    """Lines that read or write text without an encoding."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or any(word.arg in ("encoding", None) for word in node.keywords):
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("read_text", "write_text"):
            yield node.lineno
        if isinstance(node.func, ast.Name) and node.func.id == "open":
            mode = node.args[1] if len(node.args) > 1 else ast.Constant("r")
            if not (isinstance(mode, ast.Constant) and "b" in str(mode.value)):
                yield node.lineno


def test_what_is_looked_for_is_found() -> None:
    code = "a.read_text()\na.read_text(encoding='utf-8')\nopen(a)\nopen(a, 'rb')\nopen(a, 'w')\nopen(a, 'w', encoding='utf-8')"
    assert list(unspoken(ast.parse(code))) == [1, 3, 5]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_place_that_opens_text_names_its_encoding(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    found = [f"{file}:{line}" for file in files for line in unspoken(ast.parse(file.read_text(encoding="utf-8")))]
    assert files and not found


def test_a_preset_in_utf8_is_read_in_any_locale(tmp_path: Path) -> None:
    preset = tmp_path / "mine.yaml"
    text = (ROOT / "presets" / "tiny-text.yaml").read_text(encoding="utf-8")
    lines = [line if not line.startswith("title:") else "title: Füchse über Äpfeln, 狐" for line in text.splitlines()]
    preset.write_text("\n".join(lines) + "\n", encoding="utf-8")
    code = "import sys; from harness.config.spec import load_spec; sys.stdout.buffer.write(load_spec(sys.argv[1]).title.encode())"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, str(preset)], capture_output=True, env=environment)
    assert done.stdout.decode() == "Füchse über Äpfeln, 狐", done.stderr.decode()
