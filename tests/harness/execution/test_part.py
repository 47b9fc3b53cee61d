"""A run in parts, as a job array generates it: the same files as by one process, whatever the order, and nothing is lost."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from benchmarks.trials import ended, forked
from harness.errors import UsageError
from harness.execution.part import Part
from harness.paths import ROOT
from harness.storage.locks import held_alone, held_together
from harness.storage.records import read_run
from ilf_bench.cli import main
from tests.harness.execution.test_runner import files, write_preset


def only_run(out: Path) -> Path:
    (folder,) = (path for path in out.iterdir() if path.is_dir())
    return folder


def run_part(preset: Path, out: Path, part: str) -> None:
    """``ilf-bench run --part``, and leave by its exit code."""
    sys.exit(main(["run", str(preset), "--out", str(out), "--part", part]))


@pytest.mark.parametrize("text", ["", "0/3", "4/3", "1", "1/0", "-1/3", "1/3/3", "a/b", "1/9999999"])
def test_what_is_no_part(text: str) -> None:
    with pytest.raises(UsageError, match="--part NUMBER/COUNT"):
        Part.of(text)


def test_parts_share_a_folder_that_a_whole_run_wants_alone(tmp_path: Path) -> None:
    refused = pytest.raises(UsageError, match="no other process that uses")
    with held_together(tmp_path), held_together(tmp_path), refused, held_alone(tmp_path):
        pass
    with held_alone(tmp_path), pytest.raises(UsageError, match="no other process"), held_together(tmp_path):
        pass


def test_parts_at_the_same_time_give_the_files_of_one_process(folders: dict[str, Path], tmp_path: Path) -> None:
    preset, whole, shared = write_preset(tmp_path, folders["pixart"]), tmp_path / "whole", tmp_path / "shared"
    logs = {part: tmp_path / f"part-{part[0]}.txt" for part in ("2/2", "1/2")}
    processes = [forked(partial(run_part, preset, shared, part), log) for part, log in logs.items()]
    assert main(["run", str(preset), "--out", str(whole)]) == 0
    assert [ended(process) for process in processes] == [0, 0]
    assert "part 2/2: its images are stored" in logs["2/2"].read_text() and "part 1/2" in logs["1/2"].read_text()
    parts = only_run(shared)
    made = {name: content for name, content in files(parts).items() if name.endswith(".png")}
    assert made == {name: content for name, content in files(only_run(whole)).items() if name.endswith(".png")}
    assert not read_run(parts).complete and not (shared / "history.sqlite").exists()
    before = {path: path.stat().st_mtime_ns for path in parts.rglob("*.png")}
    assert main(["run", str(preset), "--out", str(shared)]) == 0
    assert {path: path.stat().st_mtime_ns for path in parts.rglob("*.png") if "samples" in path.parts} == before
    assert files(parts) == files(only_run(whole)) and read_run(parts).complete


def test_a_missing_part_is_generated_by_the_whole_run(folders: dict[str, Path], tmp_path: Path) -> None:
    preset, out = write_preset(tmp_path, folders["dit"]), tmp_path / "runs"
    assert main(["run", str(preset), "--out", str(out), "--part", "1/4"]) == 0
    assert 0 < len(list(only_run(out).rglob("*.png"))) < 12 * 3
    assert main(["run", str(preset), "--out", str(out)]) == 0
    assert read_run(only_run(out)).complete


def test_a_part_deletes_nothing_that_another_has_made(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = write_preset(tmp_path, folders["dit"], methods=["full", "limited-guidance"])
    out, plugin = tmp_path / "runs", tmp_path / "mine.py"
    text = (ROOT / "docs/examples/limited_guidance.py").read_text()
    plugin.write_text(text)
    command = ["run", str(preset), "--out", str(out), "--plugin", str(plugin), "--part", "1/2"]
    assert main(command) == 0
    images = sorted(only_run(out).rglob("*.png"))
    plugin.write_text(text + "\n# another version")
    assert main(command) == 64
    assert "run once without --part" in capsys.readouterr().err
    assert sorted(only_run(out).rglob("*.png")) == images


@pytest.mark.documents
def test_the_sbatch_example_submits_parts_and_then_the_whole(folders: dict[str, Path], tmp_path: Path) -> None:
    """With a stand-in for ``sbatch`` that runs each task of the array at once, and the second job after them."""
    preset, out, bin_ = write_preset(tmp_path, folders["dit"]), tmp_path / "shared disk", tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "ilf-bench").write_text(f'#!/bin/bash\nexec "{sys.executable}" -m ilf_bench "$@"\n')
    (bin_ / "sbatch").write_text(
        """#!/bin/bash
printf '%s\\n' "$*" >> "$CALLS"
count="" log=""
while [ "${1##*/}" != job.sh ]; do case $1 in --array) count=${2#1-} ;; --output) log=$2 ;; esac; shift; done
cp "$1" "$JOB"  # as it is at that moment
shift
for number in $(seq "${count:-1}"); do
    (
        if [ -n "$count" ]; then export SLURM_ARRAY_TASK_COUNT=$count SLURM_ARRAY_TASK_ID=$number; fi
        bash "$JOB" "$@" > "${log//%[Aaj]/$number}" 2>&1
    ) &
done
wait
echo 4711
"""
    )
    for file in bin_.iterdir():
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "PATH": f"{bin_}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"), "PARTS": "2",
        "JOB": str(tmp_path / "job.sh"), "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    script = ROOT / "docs/examples/slurm.sh"
    hostile = f"title=\t'; touch {tmp_path}/escaped; # $(touch {tmp_path}/escaped)"
    command = ["bash", str(script), str(preset), str(out), "--samples", "6", "--set", hostile]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True)
    assert not (tmp_path / "escaped").exists()
    first, second = (tmp_path / "calls").read_text().splitlines()
    assert "--array 1-2" in first and "--dependency afterany:4711" in second and "--array" not in second
    (run,) = (path for path in out.iterdir() if path.is_dir() and path.name != "logs")
    assert read_run(run).complete and (run / "report" / "index.html").is_file()
    logs = {path.name: path.read_text() for path in (out / "logs").iterdir()}
    assert "part 1/2: its images are stored" in logs["1-1.txt"] and "part 2/2" in logs["2-2.txt"]
    assert "report:" in logs["1.txt"]
