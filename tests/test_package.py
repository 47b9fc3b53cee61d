"""What is installed: every package of the product with its data, and nothing that only a checkout needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from harness.paths import ROOT

LEFT_OUT = ("tests", "studies", "benchmarks", "constraints", "zoo.recipes", "build")  # of a checkout only


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


def contexts() -> list[str]:
    """What ``.dockerignore`` leaves in the context of a container's build."""
    lines = (ROOT / ".dockerignore").read_text().split()
    return [line.removeprefix("!") for line in lines if line.startswith("!")]


def test_a_container_is_built_from_the_product_and_from_pinned_versions() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert {name.split(".")[0] for name in packages()} | {"presets"} <= set(contexts())
    for word in text.split():
        if word.startswith("constraints/") and word.endswith(".txt"):
            assert (ROOT / word).is_file()
    pinned = [line for line in (ROOT / "constraints/light-cpu.txt").read_text().splitlines() if line.startswith("torch==")]
    assert len(pinned) == 1 and "+" not in pinned[0]  # what the Dockerfile's grep finds
    said = (ROOT / "constraints/full-metrics.txt").read_text().splitlines()
    by_hand = [line.strip("# ") for line in said if "--no-deps image" in line]
    assert by_hand == [line.strip(" \\&") for line in text.splitlines() if "--no-deps" in line]


@pytest.mark.slow
def test_an_installation_that_is_read_only_serves_another_user_from_any_folder(tmp_path: Path) -> None:
    """Installed from what a container's build copies, without a checkout, a git repository or a writable home."""
    source, site, work = tmp_path / "source", tmp_path / "site", tmp_path / "work"
    for name in contexts():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        source.mkdir(exist_ok=True)
        copy(ROOT / name, source / name)
    shutil.rmtree(source / "zoo" / "recipes")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(site)]
    subprocess.run([*install, str(source)], check=True, capture_output=True)
    shutil.rmtree(source)
    subprocess.run(["chmod", "-R", "a-w,a+rX", str(site)], check=True)
    home = tmp_path / "home"
    work.mkdir()
    home.mkdir(mode=0o555)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(site), "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    # root, too, is held to the permissions of files where it lacks this capability
    as_user = ["setpriv", "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []

    def ilf_bench(*words: str) -> str:
        command = [*as_user, sys.executable, "-m", "ilf_bench", *words]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    version = ilf_bench("--version").strip().split()[-1]
    small = "--methods full,steps:5,ilf:steps=7 --samples 2 --rounds 1 --metrics psnr --set timing.batch=2"
    ilf_bench("run", "tiny-text", *small.split())
    (run,) = (folder for folder in (work / "runs").iterdir() if folder.is_dir())
    assert (run / "report" / "index.html").is_file()
    assert json.loads((run / "environment.json").read_text())["ilf-bench"] == version
