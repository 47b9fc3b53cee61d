"""The flow of docs/regression-tracking.md as it is written there, line by line, in a clone of this repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness.paths import ROOT
from harness.storage.records import read_run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no repository to clone")]
PAGE = ROOT / "docs" / "regression-tracking.md"
CODE = "harness/sampling/noise.py"  # which takes part in every image
SMALL = {"samples": 6, "steps": 6, "batch": 6, "methods": ["full", "steps:4"], "metrics": ["psnr"]}
GIT = {f"GIT_{who}_{what}": "test@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def flow() -> list[str]:
    """The lines of the page's first block of commands."""
    block = re.search(r"(?:^    .+\n)+", PAGE.read_text(), re.MULTILINE)
    assert block is not None
    return [line.split(" #")[0].strip() for line in block.group().splitlines()]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone whose preset is small, and its own ``ilf-bench`` on the path."""
    folder, program = tmp_path / "clone", tmp_path / "bin" / "ilf-bench"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    preset = folder / "presets" / "tiny-text.yaml"
    content = yaml.safe_load(preset.read_text()) | SMALL | {"timing": {"rounds": 8, "batch": 4, "warmup": 1}}
    preset.write_text(yaml.safe_dump(content))
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec "{sys.executable}" -m ilf_bench "$@"\n')
    program.chmod(0o755)
    for name, value in GIT.items() | {("PATH", f"{program.parent}:{os.environ['PATH']}"), ("XDG_CACHE_HOME", str(tmp_path))}:
        monkeypatch.setenv(name, value)
    subprocess.run(["git", "commit", "--quiet", "--all", "--message", "a small preset"], cwd=folder, check=True)
    return folder


def call(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    found = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, timeout=600)
    print(f"$ {line}\n{found.stdout}{found.stderr}")
    return found


def test_the_documented_flow_works_as_written(clone: Path) -> None:
    """A run, its tag, a commit, the same command: a second run beside the first, which the gate then compares with it."""
    lines = flow()
    assert [line.split()[:2] for line in lines] == [
        ["ilf-bench", "run"],
        ["ilf-bench", "tag"],
        ["git", "commit"],
        ["ilf-bench", "run"],
        ["ilf-bench", "gate"],
    ]
    run, tag, commit, run_again, gate = lines
    assert call(run, clone).returncode == 0
    (first,) = (clone / "runs").glob("tiny-text-*")
    assert call(tag.replace("runs/RUN", f"runs/{first.name}"), clone).returncode == 0
    source = clone / CODE
    source.write_text(f"{source.read_text()}\nCHANGED = True\n")
    assert call(commit, clone).returncode == 0
    second = call(run_again, clone)
    assert (
        second.returncode == 0
        and f"the code of ilf-bench has changed since: measured once more in {first.name}-2" in second.stdout
    )
    old, new = read_run(first), read_run(clone / "runs" / f"{first.name}-2")
    assert old.complete and new.complete and old.environment["commit"] != new.environment["commit"]
    assert not old.environment["dirty"] and not new.environment["dirty"]
    assert old.described["full"].identity["code"] != new.described["full"].identity["code"]
    assert (old.scores["4 steps", "psnr"].per_image == new.scores["4 steps", "psnr"].per_image).all()
    verdict = call(gate, clone)
    assert verdict.returncode in (0, 1, 2), "seconds may differ on a busy machine, but all has been measured"
    assert "PASS" in verdict.stdout and "the baseline itself" not in verdict.stdout
    itself = call(f"ilf-bench gate runs/{first.name} --against baseline", clone)
    assert itself.returncode == 3 and "the current run is the baseline itself" in itself.stdout
