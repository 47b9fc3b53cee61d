"""What is installed: every package of the product with its data, and nothing that only a checkout needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from harness.paths import ROOT
from tests.harness.test_revision import commit as commit_all

LEFT_OUT = ("tests", "studies", "benchmarks", "website", "constraints", "zoo.recipes", "build")  # of a checkout only


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


NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
WITHOUT_OVERRIDE = ("setpriv", "--bounding-set", "-dac_override")  # root is then held to the permissions of files, too


def another_user() -> tuple[str, ...]:
    """The words before a command that take the rights to write from us; another user where it can reach this Python at all."""
    if os.geteuid() != 0:
        return ()
    reaches = subprocess.run([*NOBODY, sys.executable, "-c", "import torch"], cwd="/", capture_output=True)
    return WITHOUT_OVERRIDE if reaches.returncode else NOBODY


@dataclass(frozen=True)
class Installed:
    """Read-only, for a user who has a folder to work in and a home where nothing can be written."""

    site: Path
    work: Path
    home: Path

    def ilf_bench(self, *words: str) -> str:
        """What a command printed that must succeed."""
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(self.site), "HOME": str(self.home)}
        command = [*another_user(), sys.executable, "-m", "ilf_bench", *words]
        done = subprocess.run(command, cwd=self.work, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def may_write(self, folder: Path) -> bool:
        """Whether that user could: else the test would show nothing."""
        return subprocess.run([*another_user(), "touch", str(folder / "mine")], capture_output=True).returncode == 0


def source_of(origin: str, folder: Path) -> tuple[str, str | None]:
    """What pip is given, and the commit that an installation of it knows, from the files that a container's build copies."""
    source = folder / "source"
    source.mkdir()
    for name in contexts():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, source / name)
    shutil.rmtree(source / "zoo" / "recipes")
    if origin == "wheel":
        subprocess.run([*PIP, "wheel", *AS_IT_IS, "--wheel-dir", str(folder), str(source)], check=True, capture_output=True)
        return next(folder.glob("*.whl")).as_uri(), None
    if origin == "repository":
        return f"git+{source.as_uri()}", commit_all(source)
    return str(source), None


PIP = (sys.executable, "-m", "pip")
AS_IT_IS = ("--quiet", "--no-deps", "--no-build-isolation")


@pytest.fixture(params=["folder", "wheel", "repository"])
def installed(request: pytest.FixtureRequest) -> Iterator[tuple[Installed, str | None]]:
    """Without a checkout that is still there; the commit that it must name."""
    with TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder = Path(name)
        folder.chmod(0o755)
        given, commit = source_of(request.param, folder)
        made = Installed(folder / "site", folder / "work", folder / "home")
        subprocess.run([*PIP, "install", *AS_IT_IS, "--target", str(made.site), given], check=True, capture_output=True)
        shutil.rmtree(folder / "source")
        subprocess.run(["chmod", "-R", "a-w,a+rX", str(made.site)], check=True)
        made.work.mkdir()
        made.work.chmod(0o777)
        made.home.mkdir(mode=0o555)
        yield made, commit
        subprocess.run(["chmod", "-R", "u+w", str(made.site)], check=True)


@pytest.mark.slow
def test_an_installation_that_is_read_only_serves_another_user_from_any_folder(installed: tuple[Installed, str | None]) -> None:
    """From a checkout, a wheel's URL and a repository's; its version is named everywhere, and the commit where pip knew it."""
    made, commit = installed
    assert not made.may_write(made.site) and not made.may_write(made.home) and made.may_write(made.work)
    version = made.ilf_bench("--version").strip().split()[-1]
    small = "--methods full,steps:5,ilf:steps=7 --samples 2 --rounds 1 --metrics psnr --set timing.batch=2"
    made.ilf_bench("run", "tiny-text", *small.split())
    (run,) = (folder for folder in (made.work / "runs").iterdir() if folder.is_dir())
    recorded = json.loads((run / "environment.json").read_text())
    assert (recorded["ilf-bench"], recorded["commit"]) == (version, commit)
    assert (commit or f"none; ilf-bench {version}") in (run / "report" / "report.md").read_text()
    asked = "from ilf_bench.doctor import check_git; from harness.paths import ROOT; print(check_git(ROOT).found)"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(made.site)}
    found = subprocess.run([sys.executable, "-c", asked], cwd=made.work, env=environment, capture_output=True, text=True).stdout
    assert f"ilf-bench {version}, {f'commit {commit[:12]}' if commit else 'no commit'}" in found
