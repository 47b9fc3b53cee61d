"""The plan for the first minutes on a GPU: limits, resuming, what was not reached; and every stage at toy size on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import gpu_first_day as plan
from benchmarks.gpu_first_day import FAILED, LATE, PARTLY, PASSED, STAGES, UNREACHED, Setting, Stage
from harness.paths import ROOT

QUIET = Console(quiet=True)


def python(code: str) -> list[list[str]]:
    return [["-c", code]]


def stages(folder: Path) -> tuple[Stage, ...]:
    mark = f"open({str(folder / 'ran')!r}, 'a').write('x')"
    return (
        Stage("good", 20, lambda s: python(mark)),
        Stage("partly", 20, lambda s: [*python("pass"), *python("raise SystemExit(4)")]),
        Stage("bad", 20, lambda s: python("raise SystemExit(65)")),
        Stage("slow", 1, lambda s: python("import time; print('begun', flush=True); time.sleep(60)")),
        Stage("last", 20, lambda s: python("pass")),
    )


def test_each_stage_has_its_own_limit_and_stops_no_other(tmp_path: Path) -> None:
    setting, began = Setting("cpu", False, tmp_path / "day"), time.monotonic()
    found = plan.run_all(setting, 60, QUIET, stages(tmp_path))
    assert {r.name: r.state for r in found} == {"good": PASSED, "partly": PARTLY, "bad": FAILED, "slow": LATE, "last": PASSED}
    assert time.monotonic() - began < 30 and "begun" in (tmp_path / "day" / "slow" / "said.txt").read_text()
    lines = [json.loads(line) for line in (tmp_path / "day" / "results.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == [r.name for r in found]
    with tarfile.open(tmp_path / "day.tar") as archive:
        assert "day/results.jsonl" in archive.getnames()
    again = plan.run_all(setting, 60, QUIET, stages(tmp_path))
    assert [r.state for r in again] == [r.state for r in found]
    assert (tmp_path / "ran").read_text() == "x", "what has passed is not run again"
    assert (tmp_path / "day" / "bad" / "said.txt").read_text().count("SystemExit(65)") == 2, "what has failed is"


def test_what_the_time_does_not_reach_is_said(tmp_path: Path) -> None:
    found = plan.run_all(Setting("cpu", False, tmp_path / "day"), 3, QUIET, stages(tmp_path))
    assert found[-1].state == UNREACHED and found[-1].seconds == 0
    assert UNREACHED in [cell for column in plan.summary(found).columns for cell in column.cells]


def test_the_plan_fits_ten_minutes_and_toy_results_are_no_results(tmp_path: Path) -> None:
    assert sum(stage.limit_s for stage in STAGES) == 560
    assert sum(stage.limit_s for stage in STAGES[:6]) == 290, "these answer most"
    toy, real = Setting("cpu", True, tmp_path), Setting("cuda", False, tmp_path)
    result = plan.Result("good", PASSED, 1.0, 2.0, True, "cpu")
    (tmp_path / "results.jsonl").write_text(json.dumps(vars(result)) + "\n")
    assert set(plan.finished(toy, tmp_path / "results.jsonl")) == {"good"}
    assert plan.finished(real, tmp_path / "results.jsonl") == {}


def test_the_estimate_of_the_whole_table_is_printed_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "run_all", lambda setting, seconds, console: [])
    monkeypatch.setattr("sys.argv", ["gpu_first_day", "--out", str(tmp_path / "day")])
    assert plan.main() == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith(plan.WHOLE_TABLE) and "25 to 30 minutes, not hours" in plan.WHOLE_TABLE


@pytest.mark.documents
def test_every_stage_runs_at_toy_size(tmp_path: Path) -> None:
    """The command of docs/gpu.md, on a CPU."""
    words = ["--minutes", "10", "--device", "cpu", "--out", str(tmp_path / "day")]
    command = [sys.executable, "-m", "benchmarks.gpu_first_day", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [plan.Result(**json.loads(line)) for line in (tmp_path / "day" / "results.jsonl").read_text().splitlines()]
    states = {result.name: result.state for result in found}
    assert list(states) == [stage.name for stage in STAGES]
    assert states == dict.fromkeys(states, PASSED) | {"7-systems": PARTLY}, "on a CPU there are neither graphs nor FP8"
    timed = {result.name for result in found if any("ms_per_image" in row for row in result.rows)}
    assert timed == {s.name for s in STAGES} - {"0-stack", "2-tests", "5-training"}
