"""What is installed: every package of the product with its data, and nothing that only a checkout needs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from harness.paths import ROOT

LEFT_OUT = ("tests", "studies", "benchmarks", "constraints", "zoo.recipes")  # of a checkout only


def packages() -> set[str]:
    """Of all folders with an ``__init__.py``, those that are part of the product."""
    found = (path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in ROOT.glob("[a-z]*/**/__init__.py"))
    return {name for name in found if not name.startswith(LEFT_OUT)}


def test_pyproject_lists_every_package() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    assert listed - {"presets"} == packages()


@pytest.mark.slow
def test_the_wheel_has_weights_and_templates_but_no_recipes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    assert not [name for name in names if name.split("/")[0] in LEFT_OUT or name.startswith("zoo/recipes")]
    data = [*ROOT.glob("zoo/*/**/*.safetensors"), *ROOT.glob("presets/**/*.yaml"), *ROOT.glob("reports/render/templates/*")]
    assert data and {path.relative_to(ROOT).as_posix() for path in data} <= names
